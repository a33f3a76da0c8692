// Candidates: a worker scans a pool and claims by id. The server is a model in memory, its clock a fake one.
import { expect, test } from "vitest";
import { candidatesPath } from "../workers/runtime/candidate-paths.ts";
import { createCandidates, shuffled } from "../workers/runtime/candidates.ts";
import type { Claimed, Source } from "../workers/runtime/claim.ts";
import { createClient } from "../workers/runtime/client.ts";
import { createFakeClock, type FakeClock } from "./support/fake-clock.ts";
import { type Call, createServer, type Server } from "./support/scripted-transport.ts";

interface Pool {
  clock: FakeClock;
  server: Server;
  source: Source;
  look(room?: number, isLast?: boolean): Promise<Claimed>;
  /** The requests since the last call of this. */
  requests(): string[];
}

/** A pool with an item of each of these classes, in this order. */
function createPool(classes: number[]): Pool {
  const clock = createFakeClock();
  const server = createServer(clock, classes.length);
  for (const [n, class_id] of classes.entries()) {
    Object.assign(server.rows[n] as object, { class_id });
  }
  const client = createClient({ url: "http://stack.test", key: "sb_secret_canary", fetch: server.fetch, clock });
  const options = { workTypes: ["embed"], workerId: "w1", leaseSeconds: null, warm: () => [], log: () => {} };
  const source = createCandidates(client, clock, () => 0, "default", options);
  const describe = ({ name, args }: Call): string =>
    name === "claim_items" ? `claim ${args.item_ids.length}` : name === "work_items" ? "read" : name;
  return {
    clock,
    server,
    source,
    look: (room = 1, isLast = false) => clock.drive(source.claim(room, {}, isLast)),
    requests: () => server.calls.splice(0).map(describe),
  };
}

const numbers = ({ won }: Claimed): number[] => won.map(({ claim }) => claim.payload.n).sort((a, b) => a - b);
const many = (count: number, classId: number): number[] => Array(count).fill(classId);

test("a request for candidates is an anti-join in the order of the pool, with names escaped", () => {
  expect(decodeURIComponent(candidatesPath("a&b,c", "em bed", 17, 99, 50))).toBe(
    "work_items?select=id,seq,class_id,work_taken()&pool=eq.a&b,c&or=(run_after.is.null,run_after.lte.now)" +
      "&work_taken.work_type=eq.em bed&work_taken=is.null&seq=gt.17&seq=lte.99&order=seq&limit=50",
  );
  expect(candidatesPath("a&b,c", "em bed", 0, Number.POSITIVE_INFINITY, 1)).toContain("pool=eq.a%26b%2Cc&");
});

test("a shuffled page keeps all its items", () => {
  const page = Array.from({ length: 100 }, (_, n) => n);
  const spread = shuffled(page, Math.random);
  expect([...spread].sort((one, other) => one - other)).toEqual(page);
  expect(spread).not.toEqual(page);
});

test("a scan continues after its page, window by window, and begins anew at the end", async () => {
  const { server, look } = createPool(many(10_002, 1));
  for (const row of server.rows.slice(2, 10_001)) {
    row.status = "succeeded";
  }
  expect(numbers(await look(4))).toEqual([1, 2]);
  expect(numbers(await look())).toEqual([10_002]);
  Object.assign(server.rows[0] as object, { status: "ready" });
  expect(numbers(await look(4))).toEqual([1]);
});

test("a scan that begins anew takes expired leases back first", async () => {
  const { server, look, requests } = createPool([1]);
  Object.assign(server.rows[0] as object, { status: "claimed", worker_id: "dead", expiresAt: 0 });
  expect(numbers(await look())).toEqual([1]);
  expect(requests()).toEqual(["claim 0", "read", "read", "claim 1"]);
});

test("a scan skips a refused class and finds later items", async () => {
  const { server, look, requests } = createPool([...many(500, 7), 1]);
  server.model.refused.add(7);
  expect(numbers(await look())).toEqual([501]);
  expect(requests().filter((request) => request !== "read")).toEqual([
    "claim 0",
    "claim 1",
    "refused_classes",
    "claim 1",
  ]);
});

test("a scan that ends among refused classes reports more rows", async () => {
  const { server, look } = createPool([...Array.from({ length: 15 }, (_, n) => n + 2), 1]);
  for (let classId = 2; classId < 17; classId++) {
    server.model.refused.add(classId);
  }
  expect(await look()).toMatchObject({ won: [], isMore: true });
  expect((await look()).won).toHaveLength(1);
  expect(await look()).toMatchObject({ won: [], isMore: false });
});

test("a scan soon after an empty one reads little, and the last scan reads all", async () => {
  const { server, look } = createPool([1]);
  Object.assign(server.rows[0] as object, { status: "blocked" });
  await look();
  Object.assign(server.rows[0] as object, { status: "ready" });
  expect((await look()).won).toEqual([]);
  expect((await look(1, true)).won).toHaveLength(1);
});

test("the last scan reads all yielded items", async () => {
  const { server, look } = createPool([...many(550, 5), 1]);
  server.model.yielded.add(5);
  expect((await look(10)).won).toEqual([]);
  expect(numbers(await look(10, true))).toEqual([551]);
  expect(await look(10, true)).toMatchObject({ won: [], isMore: false });
});

test("a scan slower than the memory of refused classes comes to an end", async () => {
  const { server, look } = createPool(Array.from({ length: 60 }, (_, n) => n + 2));
  server.script = () => ({ delayMs: 1000 });
  for (let classId = 2; classId < 62; classId++) {
    server.model.refused.add(classId);
  }
  let looks = 0;
  while (looks++ < 50 && (await look()).isMore);
  expect(looks).toBeLessThan(50);
  expect(await look(1, true)).toMatchObject({ won: [], isMore: false });
});

test("a worker tries a refused class again after a minute, and at once with a new profile", async () => {
  const { server, source, clock, look, requests } = createPool([7]);
  server.model.refused.add(7);
  await look();
  await look();
  expect(requests().filter((request) => request === "refused_classes")).toHaveLength(1);
  await clock.drive(clock.sleep(61_000));
  await look();
  expect(requests()).toContain("refused_classes");
  server.model.refused.clear();
  source.onProfile();
  await clock.drive(clock.sleep(5000));
  expect((await look()).won).toHaveLength(1);
});
