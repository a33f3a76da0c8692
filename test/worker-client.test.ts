// The worker's client, its lease arithmetic and its candidates: what is sent, and what is decided from an answer.
import { expect, test, vi } from "vitest";
import { fullJitter, idleDelay } from "../workers/runtime/backoff.ts";
import { candidatesPath } from "../workers/runtime/candidate-paths.ts";
import { createCandidates, shuffled } from "../workers/runtime/candidates.ts";
import { createClient } from "../workers/runtime/client.ts";
import { isFatal, RequestError } from "../workers/runtime/errors.ts";
import { deadline, heartbeatDelay, isFresh, leaseFrom } from "../workers/runtime/lease.ts";
import { createFakeClock } from "./fake-clock.ts";

const jwt = "eyJhbGciOi.eyJyb2xlIjoi.c2lnbmF0dXJl";
const secret = "sb_secret_canary0123456789";

type Sent = { url: string; headers: Record<string, string> };

function recording(answers: (() => Response)[]): { sent: Sent[]; fetch: typeof globalThis.fetch } {
  const sent: Sent[] = [];
  return {
    sent,
    fetch: async (input, init) => {
      sent.push({ url: String(input), headers: init?.headers as Record<string, string> });
      const answer = answers[Math.min(sent.length, answers.length) - 1];
      return answer ? answer() : Response.json(null);
    },
  };
}

const refused = (status: number, code: string, headers: Record<string, string> = {}): Response =>
  Response.json({ code, message: "said so", details: null, hint: "try this" }, { status, headers });

test("the key goes as apikey, and as a bearer only where it is a JWT", async () => {
  const { sent, fetch } = recording([]);
  await createClient({ url: "http://stack.test/", key: jwt, fetch }).rpc("claim_next", {});
  await createClient({ url: "http://stack.test/rest/v1", key: secret, fetch }).get("work_items?limit=1");
  expect(sent[0]).toMatchObject({
    url: "http://stack.test/rest/v1/rpc/claim_next",
    headers: { apikey: jwt, authorization: `Bearer ${jwt}` },
  });
  expect(sent[1]?.url).toBe("http://stack.test/rest/v1/work_items?limit=1");
  expect(sent[1]?.headers.apikey).toBe(secret);
  expect(sent[1]?.headers).not.toHaveProperty("authorization");
});

test.each([
  [secret, secret],
  [`${secret}`, "http://stack.test"],
  [`http://user:${secret}@stack.test`, secret],
  [`ftp://${secret}`, secret],
  ["http://stack.test", `${secret}\nx`],
  ["http://stack.test", ""],
])("an address or key that cannot be right is refused without showing it", (url, key) => {
  expect(() => createClient({ url, key })).toThrow(/^(?!.*canary)/);
});

test("an error carries the server's status, code, message and hint, and never the key", async () => {
  const echo = (): Response =>
    Response.json(
      { code: "PT400", message: `apikey ${secret} is odd`, details: null, hint: "try this" },
      { status: 400 },
    );
  const client = createClient({ url: "http://stack.test", key: secret, fetch: recording([echo]).fetch });
  const error: RequestError = await client.rpc("claim_next", {}).catch((thrown) => thrown);
  expect(error).toBeInstanceOf(RequestError);
  expect(error).toMatchObject({
    status: 400,
    code: "PT400",
    message: "claim_next: apikey [key] is odd",
    hint: "try this",
    isRetryable: false,
  });
});

test.each([
  [() => refused(500, "40P01"), true],
  [() => refused(500, "55P03"), true],
  [() => refused(500, "57014"), true],
  [() => refused(503, "53300"), true],
  [() => refused(503, "PGRST002"), true],
  [() => refused(504, "PGRST003"), true],
  [() => new Response("bad gateway", { status: 502 }), true],
  [() => new Response("error code: 520", { status: 520 }), true],
  [() => new Response("slow down", { status: 429 }), true],
  [() => new Response("oops", { status: 500 }), true],
  [() => new Response('[{"item_id":', { status: 200 }), true],
  [() => new Response("", { status: 200 }), true],
  [() => new Response(null, { status: 204 }), true],
  [() => refused(500, "XX000"), false],
  [() => Response.json({ code: "", message: "", details: null, hint: null }, { status: 400 }), true],
  [() => new Response("bad request", { status: 400 }), false],
  [() => refused(400, "PT400"), false],
  [() => refused(401, "PGRST301"), false],
  [() => refused(403, "42501"), false],
  [() => refused(404, "PGRST202"), false],
  [() => refused(409, "PT409"), false],
  [() => new Response(null, { status: 301, headers: { location: "http://elsewhere.test" } }), false],
])("an answer is tried again or not by its class (%#)", async (answer, isRetried) => {
  const clock = createFakeClock();
  const { sent, fetch } = recording([answer, () => Response.json("done")]);
  const client = createClient({ url: "http://stack.test", key: secret, fetch, clock, random: () => 0.5 });
  const result = await clock.drive(client.rpc("claim_next", {}).catch((error: RequestError) => error.isRetryable));
  expect(result).toBe(isRetried ? "done" : false);
  expect(sent).toHaveLength(isRetried ? 2 : 1);
});

test("attempts end with the time that was given for them, or when they are called off", async () => {
  const clock = createFakeClock();
  const { sent, fetch } = recording([() => refused(503, "")]);
  const client = createClient({ url: "http://stack.test", key: secret, fetch, clock, random: () => 0.5 });
  await expect(clock.drive(client.rpc("x", {}, { retryForMs: 0 }))).rejects.toThrow("said so");
  expect(sent).toHaveLength(1);
  const startedAt = clock.now();
  await expect(clock.drive(client.rpc("x", {}, { retryForMs: 20_000 }))).rejects.toThrow("said so");
  expect(clock.now() - startedAt).toBeLessThanOrEqual(20_000);
  expect(clock.now() - startedAt).toBeGreaterThan(15_000);
  const until = new AbortController();
  clock.at(clock.now() + 3000, () => until.abort());
  const calledOffAt = clock.now() + 3000;
  await expect(clock.drive(client.rpc("x", {}, { until: until.signal }))).rejects.toThrow("said so");
  expect(clock.now()).toBe(calledOffAt);
});

test("an attempt without an answer is ended", async () => {
  const clock = createFakeClock();
  const fetch: typeof globalThis.fetch = (_, init) =>
    new Promise((_, reject) => init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)));
  const client = createClient({ url: "http://stack.test", key: secret, fetch, clock });
  await expect(clock.drive(client.rpc("x", {}, { timeoutMs: 4000, retryForMs: 0 }))).rejects.toMatchObject({
    code: "timeout",
    message: "x: no answer within 4 s",
  });
});

test.each(["NotCapable", "PermissionDenied"])(
  "without Deno's permission (%s) there is one attempt and one line",
  async (name) => {
    vi.stubGlobal("Deno", {});
    let attempts = 0;
    const fetch: typeof globalThis.fetch = async () => {
      attempts++;
      throw Object.assign(new Error("Requires net access"), { name });
    };
    const client = createClient({ url: "http://stack.test", key: secret, fetch });
    const error: Error = await client.rpc("x", {}).catch((thrown) => thrown);
    vi.unstubAllGlobals();
    expect(error.message).toMatch(/^x: .*--allow-net$/);
    expect(error.stack).toBe(error.message);
    expect(isFatal(error)).toBe(true);
    expect(attempts).toBe(1);
  },
);

test("waits grow, have a bound, and are spread by chance", () => {
  expect([0, 1, 2, 3].map((attempt) => fullJitter(attempt, () => 1))).toEqual([100, 200, 400, 800]);
  expect(fullJitter(50, () => 1)).toBe(5000);
  expect(fullJitter(3, () => 0)).toBe(0);
  expect(idleDelay(0, () => 0, 200, 5000)).toBe(100);
  expect(idleDelay(40, () => 1, 200, 5000)).toBe(5000);
});

test("a lease is reckoned from before its request was sent, with a margin", () => {
  const lease = leaseFrom(1000, 60, () => 0.5);
  expect(lease.beatAt).toBe(21_000);
  expect(deadline(lease)).toBe(56_000);
  expect(deadline(leaseFrom(0, 1, () => 0))).toBe(900);
  expect(heartbeatDelay(60_000, () => 0)).toBe(18_000);
  expect(heartbeatDelay(60_000, () => 1)).toBeCloseTo(22_000);
  expect(isFresh(lease, 30_999)).toBe(true);
  expect(isFresh(lease, 31_000)).toBe(false);
});

test("candidates are an anti-join on the embed itself, and names are escaped", () => {
  expect(decodeURIComponent(candidatesPath("a&b,c", "em bed", 17, 99, 50))).toBe(
    "work_items?select=id,seq,pool,class_id,source_key,payload,work_taken()&pool=eq.a&b,c" +
      "&or=(run_after.is.null,run_after.lte.now)&work_taken.work_type=eq.em bed&work_taken=is.null" +
      "&seq=gt.17&seq=lte.99&order=seq&limit=50",
  );
  expect(candidatesPath("a&b,c", "em bed", 0, Number.POSITIVE_INFINITY, 1)).toContain("pool=eq.a%26b%2Cc&");
});

test("a page is spread by chance and stays whole", () => {
  const page = Array.from({ length: 100 }, (_, n) => n);
  const spread = shuffled(page, Math.random);
  expect([...spread].sort((one, other) => one - other)).toEqual(page);
  expect(spread).not.toEqual(page);
});

test("the walk through candidates goes on, wraps around, and takes back before it finds nothing", async () => {
  const clock = createFakeClock();
  const free = new Set([1, 2, 3, 120]);
  const asked: string[] = [];
  const fetch: typeof globalThis.fetch = async (input, init) => {
    if (String(input).includes("/rpc/claim_items")) {
      const ids: string[] = JSON.parse(String(init?.body)).item_ids;
      asked.push(`claim ${ids.length}`);
      const won = ids.filter((id) => free.delete(Number(id)));
      return Response.json(
        won.map((item_id) => ({ item_id, work_type: "embed", fence: Number(item_id), ttl_seconds: 60 })),
      );
    }
    const query = new URL(String(input)).searchParams;
    const [after = 0, until = Number.POSITIVE_INFINITY] = query
      .getAll("seq")
      .map((bound) => Number(bound.split(".")[1]));
    if (query.has("offset")) {
      return Response.json(after < 100 ? [{ seq: 100 }] : []);
    }
    asked.push(`page after ${after}`);
    const rows = [...free].filter((seq) => seq > after && seq <= until).slice(0, 50);
    return Response.json(
      rows.map((seq) => ({ id: String(seq), seq, pool: "p", class_id: 1, source_key: `k${seq}`, payload: { seq } })),
    );
  };
  const client = createClient({ url: "http://stack.test", key: secret, fetch, clock });
  const source = createCandidates(client, clock, Math.random, "p", {
    workTypes: ["embed"],
    workerId: "w1",
    leaseSeconds: null,
    warm: () => [],
    only: undefined,
    log: () => {},
  });
  const first = await clock.drive(source.exchange([], 4, {}, false));
  expect(first.won.map(({ claim }) => claim.payload.seq).sort()).toEqual([1, 2, 3]);
  expect(first.won[0]?.claim).toMatchObject({ pool: "p", source_key: expect.stringMatching(/^k/) });
  const rest = await clock.drive(source.exchange([], 4, {}, false));
  expect(rest.won.map(({ claim }) => claim.payload.seq)).toEqual([120]);
  expect(asked.slice(0, 5)).toEqual(["claim 0", "page after 0", "claim 3", "page after 100", "claim 1"]);
  free.add(1);
  asked.length = 0;
  expect((await clock.drive(source.exchange([], 1, {}, false))).won).toHaveLength(1);
  expect(asked).toEqual(["page after 100", "claim 0", "page after 0", "claim 1"]);
  asked.length = 0;
  expect((await clock.drive(source.exchange([], 1, {}, false))).won).toEqual([]);
  expect(asked).toEqual(["page after 100", "claim 0", "page after 0", "page after 100"]);
});

/**
 * Candidates of these classes; the database gives a worker those of the classes it matches, refuses the others but those it
 * leaves to others for a while, and notes what was asked.
 */
function pool(classes: number[], matched: number[], yielded: number[] = []) {
  const clock = createFakeClock();
  const free = new Map(classes.map((class_id, n) => [n + 1, class_id]));
  const asked: string[] = [];
  const rowsOf = (seqs: number[]): object[] =>
    seqs.map((seq) => ({ id: String(seq), seq, pool: "p", class_id: free.get(seq), source_key: null, payload: seq }));
  const fetch: typeof globalThis.fetch = async (input, init) => {
    await clock.sleep(10);
    if (String(input).includes("/rpc/claim_items")) {
      const ids: string[] = JSON.parse(String(init?.body)).item_ids;
      const won = ids.filter((id) => matched.includes(free.get(Number(id)) ?? 0));
      asked.push(...ids.map((id) => `claim ${free.get(Number(id))}`));
      for (const id of won) free.delete(Number(id));
      return Response.json(
        won.map((item_id) => ({ item_id, work_type: "embed", fence: Number(item_id), ttl_seconds: 60 })),
      );
    }
    if (String(input).includes("/rpc/refused_classes")) {
      const ids: number[] = JSON.parse(String(init?.body)).class_ids;
      asked.push(`refused ${ids}`);
      return Response.json(ids.filter((id) => !matched.includes(id) && !yielded.includes(id)));
    }
    const query = new URL(String(input)).searchParams;
    if (query.has("offset")) return Response.json([]);
    const aside = query.get("class_id")?.slice(8, -1).split(",").map(Number) ?? [];
    const after = Number(query.get("seq")?.slice(3));
    const left = [...free].filter(([seq, class_id]) => seq > after && !aside.includes(class_id)).map(([seq]) => seq);
    return Response.json(rowsOf(left.slice(0, Number(query.get("limit")))));
  };
  const source = createCandidates(
    createClient({ url: "http://stack.test", key: secret, fetch, clock }),
    clock,
    () => 0,
    "p",
    {
      workTypes: ["embed"],
      workerId: "w1",
      leaseSeconds: null,
      warm: () => [],
      only: undefined,
      log: () => {},
    },
  );
  const look = (isLast = false): ReturnType<typeof source.exchange> => clock.drive(source.exchange([], 1, {}, isLast));
  return { clock, free, source, asked, look };
}

test("candidates behind many that are not for this worker are found, and those are asked for once", async () => {
  const { look, asked } = pool([...Array(500).fill(7), 1], [1]);
  expect((await look()).won.map(({ claim }) => claim.payload)).toEqual([501]);
  expect(asked).toEqual(["claim 7", "refused 7", "claim 1"]);
});

test("a look that ends among what is not for this worker says that there is more", async () => {
  const { look } = pool([...Array.from({ length: 15 }, (_, n) => n + 2), 1], [1]);
  expect(await look()).toMatchObject({ won: [], isMore: true });
  expect((await look()).won).toHaveLength(1);
  expect(await look()).toMatchObject({ won: [], isMore: false });
});

test("a look soon after one that found nothing stays short, but not the last one: it finds what came back", async () => {
  const { look, free } = pool([], [1]);
  await look();
  free.set(1, 1);
  expect((await look()).won).toEqual([]);
  expect((await look(true)).won).toHaveLength(1);
});

test("the last look goes through all that the worker leaves to others", async () => {
  const { look } = pool([...Array(1200).fill(5), 1], [1], [5]);
  expect((await look()).won).toEqual([]);
  expect((await look(true)).won.map(({ claim }) => claim.payload)).toEqual([1201]);
  expect(await look(true)).toMatchObject({ won: [], isMore: false });
});

test("a walk that takes longer than refused classes are passed over comes to an end", async () => {
  const classes = Array.from({ length: 3500 }, (_, n) => n + 2);
  const { look, clock } = pool(classes, [1]);
  const until = clock.now() + 600_000;
  while ((await look()).isMore && clock.now() < until);
  expect(clock.now()).toBeLessThan(until);
  expect(await look(true)).toMatchObject({ won: [], isMore: false });
});

test("what is not for this worker is tried again after a minute, and at once when the worker is another", async () => {
  const matched: number[] = [];
  const { look, asked, clock, source } = pool([7, 7], matched);
  await look();
  asked.length = 0;
  await look();
  expect(asked).toEqual([]);
  await clock.drive(clock.sleep(61_000));
  await look();
  expect(asked).toEqual(["claim 7", "refused 7"]);
  matched.push(7);
  source.onProfile();
  await clock.drive(clock.sleep(5000));
  expect((await look()).won).toHaveLength(1);
});
