// One example of each promise of the worker, with a fake clock and a model of the server. The simulation checks the same
// promises under faults.
import { expect, onTestFinished, test, vi } from "vitest";
import { settle } from "../workers/runtime/settings.ts";
import type { Counts } from "../workers/runtime/tally.ts";
import {
  type Context,
  FinalError,
  optionsFromArguments,
  RetryAfter,
  SettingsError,
  type Summary,
  type WorkOptions,
  work,
} from "../workers/runtime/work.ts";
import { createFakeClock, type FakeClock } from "./support/fake-clock.ts";
import { createServer, problem, type Reply, type Server, uuid } from "./support/scripted-transport.ts";
import type { Row } from "./support/server-model.ts";

const key = "sb_secret_canary0123456789";

interface World {
  clock: FakeClock;
  server: Server;
  lines: string[];
  options: WorkOptions;
}

function world(items: number, more: WorkOptions = {}, ttlSeconds = 60): World {
  const clock = createFakeClock();
  const server = createServer(clock, items, ttlSeconds);
  const lines: string[] = [];
  const options: WorkOptions = {
    url: "http://stack.test",
    key,
    workerId: "w1",
    untilEmpty: true,
    handleSignals: false,
    clock,
    random: () => 0.5,
    fetch: server.fetch,
    log: (line) => lines.push(line),
    ...more,
  };
  return { clock, server, lines, options };
}

const statuses = (server: Server): string => [...new Set(server.rows.map((row) => row.status))].join(" ");

/** The first so many calls of this name are answered with this. */
function failFirst(server: Server, name: string, times: number, reply: Reply): void {
  server.script = (call, nth) => (call.name === name && nth <= times ? reply : undefined);
}

const done = ({ succeeded, failed, released, lost }: Summary): Omit<Counts, "again" | "parked"> => {
  return { succeeded, failed, released, lost };
};

test("a worker does every item once, stores its result and retires", async () => {
  const { clock, server, options } = world(25, { concurrency: 4 });
  const summary = await clock.drive(work("embed", async (claim) => ({ got: claim.payload.n }), options));
  expect(done(summary)).toEqual({ succeeded: 25, failed: 0, released: 0, lost: 0 });
  expect(server.rows.map((row) => row.result)).toEqual(server.rows.map((_, n) => ({ got: n + 1 })));
  expect(server.of("register_worker")).toHaveLength(1);
  expect(server.of("retire_worker")).toHaveLength(1);
});

test("one call releases an outcome and claims the next item, without waiting for other handlers", async () => {
  const { clock, server, options } = world(8, { concurrency: 4, batch: 4 });
  await clock.drive(work("embed", async (claim) => clock.sleep(claim.payload.n * 1000), options));
  const first = server.of("finish_and_claim")[0];
  expect(first?.args.outcomes).toHaveLength(1);
  expect(first?.args.max_items).toBe(1);
  expect(first?.at).toBeLessThan(1000 + 1000 + 100);
});

test("outcomes of the same moment go in one call", async () => {
  const { clock, server, options } = world(8, { concurrency: 4 });
  await clock.drive(work("embed", async () => clock.sleep(1000), options));
  expect(server.of("finish_and_claim").map((call) => call.args.outcomes.length)).toEqual([4, 4]);
});

test("outcomes of handlers that end at once go in the call that claims the next batch", async () => {
  const { clock, server, options } = world(300, { batch: 100, maxClaims: 300 });
  await clock.drive(work("embed", () => {}, options));
  const together = server.of("finish_and_claim").map(({ args }) => [args.outcomes.length, args.max_items]);
  expect(together).toEqual([
    [100, 100],
    [100, 100],
  ]);
  expect(server.of("claim_next")).toHaveLength(1);
});

test("a worker that stalls for more than half of a lease, before any of its looks at the clock, does every item", async () => {
  for (let stallsAt = 1, looks = stallsAt; looks >= stallsAt; stallsAt += 1) {
    const { clock, server, options } = world(3, { batch: 3 }, 1);
    looks = 0;
    const stalling = { sleep: clock.sleep, now: () => clock.now() + (++looks >= stallsAt ? 600 : 0) };
    const summary = await clock.drive(work("embed", () => {}, { ...options, clock: stalling }));
    expect([stallsAt, summary.lost, statuses(server)]).toEqual([stallsAt, 0, "succeeded"]);
  }
});

test("a worker runs no more handlers than its concurrency and claims no more than its batch", async () => {
  const { clock, server, options } = world(60, { concurrency: 3, batch: 7 });
  let running = 0;
  let most = 0;
  let heldMost = 0;
  const handler = async (claim: { payload: { n: number } }): Promise<void> => {
    most = Math.max(most, ++running);
    heldMost = Math.max(heldMost, server.rows.filter((row) => row.status === "claimed").length);
    await clock.sleep((claim.payload.n * 37) % 200);
    running--;
  };
  await clock.drive(work("embed", handler, options));
  expect(most).toBe(3);
  expect(heldMost).toBeLessThanOrEqual(7);
  expect(statuses(server)).toBe("succeeded");
});

test("a worker makes one claim call and one release call at a time", async () => {
  const { clock, server, options } = world(40, { concurrency: 10 });
  let inFlight = 0;
  let most = 0;
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const isClaim = /claim_next|finish_and_claim/.test(String(input));
    most = Math.max(most, isClaim ? ++inFlight : 0);
    try {
      return await server.fetch(input, init);
    } finally {
      inFlight -= isClaim ? 1 : 0;
    }
  };
  await clock.drive(work("embed", async (claim) => clock.sleep(claim.payload.n), { ...options, fetch }));
  expect(most).toBe(1);
});

test("handlers start from the queue while a call is under way", async () => {
  const { clock, server, options } = world(8, { batch: 8, maxClaims: 8 });
  server.script = (call) => (call.name === "release_items" ? { delayMs: 10_000 } : undefined);
  let done = 0;
  let doneBeforeAnswer = 0;
  clock.at(9000, () => {
    doneBeforeAnswer = done;
  });
  await clock.drive(
    work(
      "embed",
      async () => {
        await clock.sleep(100);
        done++;
      },
      options,
    ),
  );
  expect(doneBeforeAnswer).toBe(8);
  expect(server.of("release_items").map((call) => call.args.outcomes.length)).toEqual([1, 7]);
});

test("a worker whose handlers turn slow returns its queue, and an idle worker gets it", async () => {
  const { clock, options } = world(40);
  const did: Record<string, number> = { w1: 0, w2: 0 };
  const handlerOf = (name: string) => async (claim: { payload: { n: number } }) => {
    await clock.sleep(name === "w1" && claim.payload.n > 5 ? 60_000 : 5);
    did[name] = (did[name] ?? 0) + 1;
  };
  const first = work("embed", handlerOf("w1"), options);
  const second = clock.sleep(1000).then(() => work("embed", handlerOf("w2"), { ...options, workerId: "w2" }));
  const [one, two] = await clock.drive(Promise.all([first, second]));
  expect(did).toEqual({ w1: 6, w2: 34 });
  expect(one).toMatchObject({ succeeded: 6, failed: 0, released: 34, lost: 0 });
  expect(two).toMatchObject({ succeeded: 34, failed: 0, lost: 0 });
});

test("a worker whose outcomes do not get through claims no more than twice its batch", async () => {
  const stop = new AbortController();
  const { clock, server, options } = world(20, { pool: "default", batch: 2, signal: stop.signal, graceSeconds: 0 });
  server.script = (call) => (call.name === "release_items" ? problem(503, "") : undefined);
  clock.at(40_000, () => stop.abort());
  await clock.drive(work("embed", async () => clock.sleep(100), options));
  expect(server.rows.filter((row) => row.fence > 0)).toHaveLength(4);
});

test("returned claims do not count as the worker's claims", async () => {
  const { clock, options } = world(40, { maxClaims: 8 });
  const handler = async (claim: { payload: { n: number } }): Promise<void> =>
    clock.sleep(claim.payload.n === 3 ? 60_000 : 5);
  const summary = await clock.drive(work("embed", handler, options));
  expect(done(summary)).toEqual({ succeeded: 8, failed: 0, released: 5, lost: 0 });
});

test("a worker that only fails claims nothing ahead", async () => {
  const { clock, server, options } = world(20);
  await clock.drive(work("embed", async () => Promise.reject(new Error("no model")), options));
  const asked = server.calls.flatMap((call) => call.args?.max_items ?? []);
  expect(new Set(asked)).toEqual(new Set([1]));
});

test("one heartbeat renews all claims, queued or running, and carries progress", async () => {
  const { clock, server, options } = world(5, { concurrency: 2, batch: 5 });
  await clock.drive(
    work(
      "embed",
      async (claim, { progress }) => {
        progress(claim.payload.n / 10);
        await clock.sleep(50_000);
      },
      { ...options, maxClaims: 5 },
    ),
  );
  const [first, second] = server.of("extend_claims");
  expect(first?.at).toBeGreaterThan(1000 + 18_000);
  expect(first?.at).toBeLessThan(1000 + 22_100);
  expect(first?.args.held.map((held: { item_id: string }) => held.item_id)).toEqual([1, 2, 3, 4, 5].map(uuid));
  expect(first?.args.held[1].progress).toBe(0.2);
  expect(first?.args.held[4].progress).toBeUndefined();
  expect(second?.args.held).toHaveLength(5);
  expect(statuses(server)).toBe("succeeded");
});

test("a lost claim aborts its handler, and its result is not sent", async () => {
  const { clock, server, lines, options } = world(2, { concurrency: 2, maxClaims: 2 });
  clock.at(5000, () => Object.assign(server.rows[0] as object, { fence: 99, worker_id: "w2" }));
  const reasons: string[] = [];
  const summary = await clock.drive(
    work(
      "embed",
      async (_, { signal }) => {
        await clock.sleep(30_000, signal);
        if (signal.aborted) {
          reasons.push(String(signal.reason));
        }
      },
      options,
    ),
  );
  expect(reasons).toEqual([expect.stringContaining("its lease was lost")]);
  expect(done(summary)).toEqual({ succeeded: 1, failed: 0, released: 0, lost: 1 });
  expect(server.rows[0]?.status).toBe("claimed");
  expect(lines.some((line) => line.startsWith(`lost embed ${uuid(1)}`))).toBe(true);
});

test("a claim lost while its outcome is under way gets no further heartbeat", async () => {
  const { clock, server, options } = world(1, { maxClaims: 1 });
  server.script = (call) => (call.name === "release_items" && call.at < 200_000 ? problem(503, "") : undefined);
  clock.at(5000, () => Object.assign(server.rows[0] as object, { fence: 99, worker_id: "w2" }));
  const summary = await clock.drive(work("embed", async () => clock.sleep(1000), options));
  expect(server.of("extend_claims")).toHaveLength(1);
  expect(done(summary)).toEqual({ succeeded: 0, failed: 0, released: 0, lost: 1 });
});

test("a cancelled claim aborts its handler", async () => {
  const { clock, server, options } = world(1, { maxClaims: 1 });
  clock.at(5000, () => Object.assign(server.rows[0] as object, { status: "cancelled", worker_id: null }));
  let reason = "";
  await clock.drive(
    work(
      "embed",
      async (_, { signal }) => {
        await clock.sleep(300_000, signal);
        reason = String(signal.reason);
      },
      options,
    ),
  );
  expect(reason).toContain("cancelled");
});

test("failing heartbeats abort the handler before its lease ends, and no outcome is sent", async () => {
  const { clock, server, options } = world(1, { maxClaims: 1 });
  server.script = (call) => (call.name === "extend_claims" ? problem(503, "") : undefined);
  let abortedAt = 0;
  const summary = await clock.drive(
    work(
      "embed",
      async (_, { signal }) => {
        await clock.sleep(300_000, signal);
        abortedAt = clock.now();
        return "too late";
      },
      options,
    ),
  );
  const claimedAt = server.of("claim_next")[0]?.at ?? 0;
  expect(abortedAt - claimedAt).toBe(55_000);
  expect(abortedAt).toBeLessThan(server.rows[0]?.expiresAt ?? 0);
  expect(server.of("finish_and_claim").concat(server.of("release_items"))).toEqual([]);
  expect(done(summary)).toEqual({ succeeded: 0, failed: 0, released: 0, lost: 1 });
});

test("a worker logs an outage once, resumes and loses no item", async () => {
  const { clock, server, lines, options } = world(200, { concurrency: 5 }, 120);
  server.script = (call) => (call.at > 5000 && call.at < 65_000 ? { breaks: true, commits: false } : undefined);
  const summary = await clock.drive(work("embed", async () => clock.sleep(200), options));
  expect(done(summary)).toEqual({ succeeded: 200, failed: 0, released: 0, lost: 0 });
  expect(lines.filter((line) => line.startsWith("no answer"))).toHaveLength(1);
  expect(lines.filter((line) => line.includes("answers again"))).toHaveLength(1);
});

test("a stopped worker finishes its handlers, returns its queue and claims no more", async () => {
  const stop = new AbortController();
  const { clock, server, options } = world(20, { concurrency: 2, batch: 6, signal: stop.signal, untilEmpty: false });
  clock.at(6000, () => stop.abort());
  const summary = await clock.drive(work("embed", async () => clock.sleep(10_000), options));
  expect(done(summary)).toEqual({ succeeded: 2, failed: 0, released: 4, lost: 0 });
  const handedBack = server.of("release_items")[0];
  expect(handedBack?.at).toBeLessThan(6100);
  expect(handedBack?.args.outcomes.map((each: { outcome: string }) => each.outcome)).toEqual(Array(4).fill("released"));
  expect(server.rows.filter((row) => row.status === "ready")).toHaveLength(18);
  expect(server.calls.at(-1)?.name).toBe("retire_worker");
});

test("the end of the grace time aborts the handlers and returns their claims", async () => {
  const stop = new AbortController();
  const { clock, server, options } = world(3, { concurrency: 3, signal: stop.signal, graceSeconds: 4 });
  clock.at(2000, () => stop.abort());
  const work1 = work("embed", async (_, { signal }) => clock.sleep(1_000_000, signal), options);
  const summary = await clock.drive(work1);
  expect(done(summary)).toEqual({ succeeded: 0, failed: 0, released: 3, lost: 0 });
  expect(clock.now()).toBeLessThan(6200);
  expect(statuses(server)).toBe("ready");
});

test("a handler that throws fails its item with the message alone", async () => {
  const { clock, server, options } = world(4);
  const handler = async (claim: { payload: { n: number } }): Promise<unknown> => {
    switch (claim.payload.n) {
      case 1:
        throw new Error(`cannot reach the model with ${key}\0`);
      case 2:
        throw new FinalError("this text is empty");
      case 3:
        throw new RetryAfter(90);
      default:
        throw "x".repeat(20_000);
    }
  };
  const summary = await clock.drive(work("embed", handler, options));
  const outcomes = server.of("finish_and_claim").flatMap((call) => call.args.outcomes);
  expect(summary.failed).toBe(4);
  expect(outcomes[0]).toMatchObject({ outcome: "failed", error: "cannot reach the model with [key]" });
  expect(outcomes[1]).toMatchObject({ final: true, error: "this text is empty" });
  // True of the last try as well, after which there is no retry.
  expect(outcomes[2]).toMatchObject({ retry_after_seconds: 90, error: "the handler asked for a retry after 90 s" });
  expect(outcomes[3].error).toHaveLength(8000);
  expect(JSON.stringify(outcomes)).not.toContain("worker.test.ts");
});

test("a result that cannot be stored is a failure that says why", async () => {
  const { clock, server, options } = world(4);
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  const results = [undefined, "x".repeat(1_100_000), 5n, circle];
  await clock.drive(work("embed", async (claim) => results[claim.payload.n - 1], options));
  expect(server.rows.map((row) => row.status)).toEqual(["succeeded", "failed", "failed", "failed"]);
  expect(server.rows[0]?.result).toBeNull();
  expect(server.rows[1]?.error).toContain("1100002 bytes; a claim keeps at most 1048576");
  expect(server.rows[2]?.error).toContain("no JSON");
  expect(server.rows[3]?.error).toContain("no JSON");
});

test("a result with NUL or half a surrogate pair is a failure that says so", async () => {
  const { clock, server, options } = world(6);
  const results = ["a\0b", { deep: ["\ud83d"] }, { "\udc00": 1 }, "\\u0000", "\\\\ud83d", "\ud83d\ude00"];
  await clock.drive(work("embed", async (claim) => results[claim.payload.n - 1], options));
  expect(server.rows.map((row) => row.status).join(" ")).toBe("failed failed failed succeeded succeeded succeeded");
  for (const row of server.rows.slice(0, 3)) {
    expect(row.error).toContain("a character that JSON in Postgres cannot hold");
  }
});

test("one refused outcome does not lose the others", async () => {
  const { clock, server, lines, options } = world(4, { concurrency: 4 });
  server.script = (call) =>
    JSON.stringify(call.args?.outcomes ?? "").includes("poison")
      ? problem(400, "22P05", "unsupported Unicode escape sequence")
      : undefined;
  const summary = await clock.drive(
    work("embed", async (claim) => (claim.payload.n === 2 ? "poison" : "fine"), options),
  );
  expect(done(summary)).toEqual({ succeeded: 3, failed: 1, released: 0, lost: 0 });
  expect(server.rows[1]).toMatchObject({ status: "failed", error: expect.stringContaining("unsupported Unicode") });
  expect(lines.filter((line) => line.startsWith("refused"))).toHaveLength(1);
});

test("large results go in several requests of a megabyte", async () => {
  const { clock, server, options } = world(10, { concurrency: 10 });
  await clock.drive(work("embed", async () => "x".repeat(400_000), options));
  const sizes = server.of("finish_and_claim").map((call) => call.args.outcomes.length);
  expect(Math.max(...sizes)).toBe(2);
  expect(statuses(server)).toBe("succeeded");
});

test.each([
  [401, "PGRST301", "the key was refused"],
  [404, "PGRST202", "work-claims is not installed in this project; run work-claims init and supabase db push"],
  [400, "PT400", "work_types is empty"],
])("an answer %i ends the worker at once and says what to do", async (status, code, message) => {
  const { clock, server, options } = world(1);
  failFirst(server, "claim_next", 1, problem(status, code, "work_types is empty"));
  await expect(clock.drive(work("embed", () => null, options))).rejects.toThrow(message);
  expect(server.of("claim_next")).toHaveLength(1);
});

test("a heartbeat refused for good ends the worker and aborts its handlers", async () => {
  const { clock, server, options } = world(1);
  server.script = (call) => (call.name === "extend_claims" ? problem(401, "PGRST301") : undefined);
  let isAborted = false;
  const handler = async (_: unknown, { signal }: { signal: AbortSignal }): Promise<void> => {
    await clock.sleep(1_000_000, signal);
    isAborted = signal.aborted;
  };
  await expect(clock.drive(work("embed", handler, options))).rejects.toThrow("the key was refused");
  expect(isAborted).toBe(true);
});

test("a worker id that is alive elsewhere is refused", async () => {
  const { clock, server, options } = world(1);
  failFirst(server, "register_worker", 1, problem(409, "PT409", "worker_id is w1; a living worker has that id"));
  await expect(clock.drive(work("embed", () => null, options))).rejects.toThrow("a living worker has that id");
});

test("an idle worker looks ever more rarely and finds a new item", async () => {
  const stop = new AbortController();
  const { clock, server, options } = world(1, { untilEmpty: false, signal: stop.signal });
  (server.rows[0] as { status: string }).status = "blocked";
  clock.at(120_000, () => Object.assign(server.rows[0] as object, { status: "ready" }));
  clock.at(180_000, () => stop.abort());
  const summary = await clock.drive(work("embed", () => null, options));
  const looks = server.of("claim_next").filter((call) => call.at < 120_000);
  expect(looks[0]?.at).toBeLessThan(1100);
  expect(looks.length).toBeGreaterThan(40);
  expect(looks.length).toBeLessThan(80);
  const [last, before] = [looks.at(-1)?.at ?? 0, looks.at(-2)?.at ?? 0];
  expect(last - before).toBeGreaterThan(5000);
  expect(summary.succeeded).toBe(1);
});

test("an until-empty worker waits for items that others hold, and takes over expired ones", async () => {
  const { clock, server, options } = world(2);
  Object.assign(server.rows[1] as object, { status: "claimed", worker_id: "dead", expiresAt: 31_000, fence: 0 });
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary.succeeded).toBe(2);
  expect(clock.now()).toBeGreaterThan(31_000);
});

test("an until-empty worker leaves where what is left waits for other work, and an until-done worker does it", async () => {
  const { clock, server, options } = world(2);
  const [first] = server.rows as [Row, Row];
  first.status = "blocked";
  clock.at(100_000, () => {
    first.status = "ready";
  });
  const empty = await clock.drive(work("embed", () => null, options));
  expect(empty).toMatchObject({ succeeded: 1, why: "empty" });
  expect(clock.now()).toBeLessThan(90_000);
  const done = await clock.drive(work("embed", () => null, { ...options, untilDone: true, workerId: "w2" }));
  expect(done).toMatchObject({ succeeded: 1, why: "empty", isWorkLeft: false });
  expect(statuses(server)).toBe("succeeded");
});

test("an until-done worker waits for what is due later and for what another worker holds", async () => {
  const { clock, server, options } = world(2, { untilDone: true, untilEmpty: false });
  const [later, held] = server.rows as [Row, Row];
  Object.assign(later, { status: "waiting", dueAt: 200_000 });
  Object.assign(held, { status: "claimed", worker_id: "w2", fence: 7, expiresAt: 300_000 });
  clock.at(150_000, () => Object.assign(held, { status: "cancelled", worker_id: null }));
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary.succeeded).toBe(1);
  expect(server.rows.map((row) => row.status)).toEqual(["succeeded", "cancelled"]);
});

test("an until-done worker stays while claims of an older version are reopened", async () => {
  const { clock, server, options } = world(0, { untilDone: true });
  const left = (is_reopening: boolean) => ({ work_type: "embed", open: 0, stopped: null, is_reopening });
  server.script = (call, nth) =>
    call.name === "work_remaining" ? { body: JSON.stringify([left(nth < 3)]) } : undefined;
  await clock.drive(work("embed", () => null, options));
  expect(server.of("work_remaining").length).toBeGreaterThan(1);
  expect(server.of("retire_worker")).toHaveLength(1);
});

test("WORK_UNTIL and the program's arguments say until when a worker stays; others are refused", async () => {
  const given = process.argv;
  onTestFinished(() => {
    process.argv = given;
    vi.unstubAllEnvs();
  });
  process.argv = ["node", "worker.ts", "--until-done"];
  expect(optionsFromArguments()).toEqual({ untilDone: true });
  process.argv = ["node", "worker.ts", "--until-don"];
  expect(() => optionsFromArguments()).toThrow("--until-don is no option; --until-done or --until-empty was expected");
  vi.stubEnv("WORK_UNTIL", "done");
  expect(settle("embed", { url: "http://stack.test", key }).leaves).toBe("done");
});

test("an until-empty worker looks again where the answer to its last look was lost", async () => {
  const { clock, server, options } = world(1);
  const [row] = server.rows as [Row];
  row.status = "blocked";
  server.script = (call, nth) => {
    if (call.name !== "claim_next" || nth > 3) {
      return undefined;
    }
    // The second look, the last one, wins the item; its lease ends before the answer gets through.
    row.status = nth === 1 ? "blocked" : "ready";
    return nth === 2 ? { breaks: true } : undefined;
  };
  const summary = await clock.drive(work("embed", () => null, options));
  expect(server.of("describe_work_types").length).toBeGreaterThan(1);
  expect(summary.succeeded).toBe(1);
});

test.each(["holds it", "has done it"])(
  "an until-empty worker stays where another one took what was ready, and %s",
  async (what) => {
    const { clock, server, options } = world(2);
    const [first, second] = server.rows as [Row, Row];
    Object.assign(first, { status: "blocked" });
    Object.assign(second, { status: "blocked" });
    const finish = (): void => {
      Object.assign(first, { status: "succeeded", worker_id: null });
      second.status = "ready";
    };
    server.script = (call, nth) => {
      if (call.name === "describe_work_types" && server.of("claim_next").length === 1) {
        first.status = "ready";
      } else if (call.name === "claim_next" && nth === 2) {
        Object.assign(first, { status: "claimed", worker_id: "w2", fence: 7, expiresAt: 300_000 });
        clock.at(clock.now() + 5000, () => what === "holds it" && finish());
      } else if (call.name === "work_remaining" && nth === 2 && what === "has done it") {
        finish();
      }
      return undefined;
    };
    expect(await clock.drive(work("embed", () => null, options))).toMatchObject({ succeeded: 1, why: "empty" });
  },
);

test("the log shows no payload and no key", async () => {
  const { clock, lines, options } = world(3, { concurrency: 3 });
  await clock.drive(work("embed", async (claim) => Promise.reject(new Error(`${key} at ${claim.item_id}`)), options));
  expect(lines.length).toBeGreaterThan(3);
  expect(lines.join("\n")).not.toContain("canary");
  expect(lines.every((line) => !line.includes("\n"))).toBe(true);
});

test("a worker registers its profile, and its claim calls name its warm affinities", async () => {
  const more: WorkOptions = {
    capabilities: { gpu: "a100", models: ["sdxl"] },
    accepts: { customer: "acme" },
    exclusive: ["gpu"],
    yieldSeconds: 30,
    warm: ["sdxl"],
  };
  const { clock, server, options } = world(2, more);
  await clock.drive(work("embed", () => null, options));
  expect(server.of("register_worker")[0]?.args).toMatchObject({
    capabilities: { gpu: "a100", models: ["sdxl"] },
    accepts: { customer: "acme" },
    exclusive: ["gpu"],
    yield_seconds: 30,
  });
  for (const name of ["claim_next", "finish_and_claim"]) {
    expect(server.of(name)[0]?.args).toMatchObject({ warm: ["sdxl"] });
  }
});

test("a worker without a profile sends none of its fields", async () => {
  const { clock, server, options } = world(2, { warm: [] });
  await clock.drive(work("embed", () => null, options));
  const sent = server.calls.flatMap((call) => Object.keys(call.args ?? {}));
  const matching = ["capabilities", "accepts", "exclusive", "yield_seconds", "warm"];
  expect(matching.filter((name) => sent.includes(name))).toEqual([]);
});

test("a worker calls warm before each claim", async () => {
  const loaded: string[] = [];
  const { clock, server, options } = world(3, { warm: () => loaded, maxClaims: 3, batch: 1 });
  const handler = (claim: { payload: { n: number } }): void => {
    loaded.push(`model ${claim.payload.n}`);
  };
  await clock.drive(work("embed", handler, options));
  const claims = server.calls.filter((call) => /claim_next|finish_and_claim/.test(call.name));
  expect(claims.map((call) => call.args.warm)).toEqual([undefined, ["model 1"], ["model 1", "model 2"]]);
});

test.each<[string, () => string[]]>([
  [
    "throws",
    () => {
      throw new Error("no list");
    },
  ],
  // Nobody's types hold in JavaScript.
  ["rejects", () => Promise.reject(new Error("no list")) as never],
])("a warm function that %s counts as empty and loses no outcome", async (_, warm) => {
  const { clock, server, lines, options } = world(2, { warm, maxClaims: 2 });
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary).toMatchObject({ succeeded: 2, lost: 0 });
  expect(server.of("claim_next")[0]?.args).not.toHaveProperty("warm");
  expect(lines.filter((line) => line.includes("warm failed") && line.includes("no list"))).toHaveLength(2);
});

test("an update to no exclusive capabilities leaves out how long they yield", async () => {
  const { clock, server, options } = world(1, { exclusive: ["gpu"], yieldSeconds: 30 });
  await clock.drive(work("embed", (_, { update }) => update({ exclusive: [] }), options));
  const [before, after] = server.of("register_worker");
  expect(before?.args).toMatchObject({ exclusive: ["gpu"], yield_seconds: 30 });
  expect(after?.args).toMatchObject({ exclusive: [] });
  expect(after?.args).not.toHaveProperty("yield_seconds");
});

test("updates of the profile are sent one after the other and keep unnamed fields", async () => {
  const { clock, server, options } = world(1, { capabilities: { gpu: "a100" }, accepts: { customer: "acme" } });
  server.script = (call, nth) => (call.name === "register_worker" && nth === 2 ? { delayMs: 500 } : undefined);
  await clock.drive(
    work(
      "embed",
      async (_, { update }) => {
        const first = update({ capabilities: { gpu: "a100", models: ["sdxl"] } });
        await Promise.all([first, update({ accepts: {} })]);
      },
      options,
    ),
  );
  const [before, first, second] = server.of("register_worker");
  expect(first?.args).toEqual({ ...before?.args, capabilities: { gpu: "a100", models: ["sdxl"] } });
  expect(second?.args).toEqual({ ...first?.args, accepts: {} });
  expect(second?.at).toBeGreaterThan((first?.at ?? 0) + 500);
  expect(statuses(server)).toBe("succeeded");
});

test("an update returns claims that were won with the old profile", async () => {
  const { clock, server, options } = world(6, { batch: 6 });
  const handler = async (claim: { payload: { n: number } }, { update }: Context): Promise<void> => {
    if (claim.payload.n === 1) {
      await update({ capabilities: {} });
    }
  };
  const summary = await clock.drive(work("embed", handler, options));
  expect(done(summary)).toEqual({ succeeded: 6, failed: 0, released: 5, lost: 0 });
  const [, secondClaim] = server.calls.filter((call) => call.args?.max_items > 0);
  expect(secondClaim?.at).toBeGreaterThan(server.of("register_worker")[1]?.at ?? 0);
});

test("an update returns claims of a call that was under way", async () => {
  const { clock, server, options } = world(4, { concurrency: 2, batch: 2 });
  server.script = (call, nth) => (call.name === "finish_and_claim" && nth === 1 ? { delayMs: 500 } : undefined);
  const handler = async (claim: { payload: { n: number } }, { update }: Context): Promise<void> => {
    if (claim.payload.n === 1) {
      await clock.sleep(100);
      await update({ capabilities: {} });
    }
  };
  const summary = await clock.drive(work("embed", handler, options));
  expect(done(summary)).toEqual({ succeeded: 4, failed: 0, released: 1, lost: 0 });
});

test("a refused update is thrown, and the next one starts from the accepted profile", async () => {
  const { clock, server, options } = world(1, { capabilities: { gpu: "a100" } });
  server.script = (call, nth) =>
    call.name === "register_worker" && nth === 2 ? problem(400, "PT400", "capabilities is 7") : undefined;
  const refusals: string[] = [];
  await clock.drive(
    work(
      "embed",
      async (_, { update }) => {
        await update({ exclusive: ["gpu"] }).catch((error: Error) => refusals.push(error.message));
        await update({ accepts: {} });
      },
      options,
    ),
  );
  expect(refusals).toEqual(["register_worker: capabilities is 7"]);
  expect(server.of("register_worker")[2]?.args).not.toHaveProperty("exclusive");
  expect(statuses(server)).toBe("succeeded");
});

test("an update of a stopping worker is not sent", async () => {
  const stop = new AbortController();
  const { clock, server, options } = world(1, { signal: stop.signal, untilEmpty: false });
  const handler = async (_: unknown, { update }: Context): Promise<void> => {
    server.script = (call) => (call.name === "register_worker" ? problem(503, "") : undefined);
    const sent = update({ capabilities: { a: 1 } });
    stop.abort();
    await sent;
    await update({ capabilities: { b: 1 } });
  };
  const summary = await clock.drive(work("embed", handler, options));
  expect(summary.succeeded).toBe(1);
  expect(server.of("register_worker").map((call) => call.args.capabilities)).toEqual([undefined, { a: 1 }]);
});

test("variables set the profile", async () => {
  vi.stubEnv("WORK_CAPABILITIES", '{"gpu": "a100"}');
  vi.stubEnv("WORK_ACCEPTS", '{"customer": "acme"}');
  vi.stubEnv("WORK_EXCLUSIVE", "gpu, hardware.disk");
  vi.stubEnv("WORK_YIELD_SECONDS", "30");
  vi.stubEnv("WORK_WARM", "sdxl,flux");
  const { clock, server, options } = world(0);
  await clock.drive(work("embed", () => null, options));
  vi.unstubAllEnvs();
  expect(server.of("register_worker")[0]?.args).toMatchObject({
    capabilities: { gpu: "a100" },
    accepts: { customer: "acme" },
    exclusive: ["gpu", "hardware.disk"],
    yield_seconds: 30,
  });
  expect(server.of("claim_next")[0]?.args).toMatchObject({ warm: ["sdxl", "flux"] });
});

test.each([
  [
    "WORK_CAPABILITIES",
    "gpu=a100",
    'WORK_CAPABILITIES is gpu=a100; a JSON object was expected, such as {"gpu": "a100"}',
  ],
  ["WORK_ACCEPTS", '["acme"]', 'WORK_ACCEPTS is ["acme"]; a JSON object was expected, such as {"customer": "acme"}'],
  ["WORK_YIELD_SECONDS", "0", "WORK_YIELD_SECONDS is 0; a whole number from 1 to 604800 was expected"],
])("a wrong %s is refused with the expected form", async (variable, text, message) => {
  const { options } = world(0);
  vi.stubEnv(variable, text);
  const thrown: Error = await work("embed", () => null, options).catch((error) => error);
  vi.unstubAllEnvs();
  expect(thrown.message).toBe(message);
  expect(thrown).toBeInstanceOf(SettingsError);
});

test("a missing or wrong setting is named", async () => {
  const { options } = world(0);
  const { url: _, ...noUrl } = options;
  const { key: __, ...noKey } = options;
  await expect(work("embed", () => null, noUrl)).rejects.toThrow("SUPABASE_URL is not set");
  await expect(work("embed", () => null, noKey)).rejects.toThrow("SUPABASE_SERVICE_ROLE_KEY is not set");
  await expect(work("embed", () => null, { ...options, concurrency: 0 })).rejects.toThrow(
    "concurrency is 0; a whole number from 1 to 1000 was expected",
  );
  await expect(work("embed", () => null, { ...options, untilempty: true } as object)).rejects.toThrow(
    "untilempty is no option of a worker; its options are url, key,",
  );
  await expect(work([], () => null, options)).rejects.toThrow("no work type");
  await expect(work("embed", () => null, { ...options, pool: "texts", warm: () => [] })).rejects.toThrow(
    "warm is given and a pool too; it works where the database picks what is next: leave out the pool (WORK_POOL)",
  );
});

test("a malformed address or key is named by its variable and not shown", async () => {
  const { options } = world(0);
  const { url: _, key: __, ...rest } = options;
  vi.stubEnv("SUPABASE_URL", "nonsense-canary");
  vi.stubEnv("SUPABASE_SERVICE_ROLE_KEY", "canary key");
  await expect(work("embed", () => null, rest)).rejects.toThrow(/^SUPABASE_URL is no URL(?!.*canary)/);
  vi.stubEnv("SUPABASE_URL", "http://stack.test");
  await expect(work("embed", () => null, rest)).rejects.toThrow(/^SUPABASE_SERVICE_ROLE_KEY (?!.*canary)/);
  await expect(work("embed", () => null, { ...rest, key: "canary key" })).rejects.toThrow(
    /^the option key (?!.*canary)/,
  );
  vi.unstubAllEnvs();
});

test.each([
  [{}, "describe_work_types", [{ name: "embed", is_declared: false }], "embed is not declared"],
  [{ pool: "texts" }, "work_pools", [], "there is no pool texts"],
])(
  "an until-empty worker refuses a missing work type or pool before it claims (%#)",
  async (more, name, body, message) => {
    const { clock, server, options } = world(1, more);
    server.script = (call) => (call.name === name ? { body: JSON.stringify(body) } : undefined);
    await expect(clock.drive(work("embed", () => null, options))).rejects.toThrow(message);
    expect(server.of("claim_next").concat(server.of("claim_items"))).toEqual([]);
    expect(server.of("retire_worker")).toHaveLength(1);
  },
);

test("an until-empty worker of a paused work type returns and says so", async () => {
  const { clock, server, lines, options } = world(0);
  server.script = (call) =>
    call.name === "describe_work_types"
      ? { body: '[{"name":"embed","is_declared":true,"pool":"default","is_paused":true}]' }
      : undefined;
  await clock.drive(work("embed", () => null, options));
  expect(lines).toContain("waiting for work: embed is paused");
});
