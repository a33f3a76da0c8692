// When a worker leaves by itself, and how a try ends that takes too long, with a fake clock and a model of the server.
import { afterEach, expect, test, vi } from "vitest";
import type { LeaveOptions } from "../workers/runtime/leave-settings.ts";
import { isOlder, whenToLeave } from "../workers/runtime/leaving.ts";
import { type Context, SettingsError, type Summary, type WorkOptions, work } from "../workers/runtime/work.ts";
import { createFakeClock, type FakeClock } from "./support/fake-clock.ts";
import { createServer, problem, type Server } from "./support/scripted-transport.ts";

interface World {
  clock: FakeClock;
  server: Server;
  lines: string[];
  options: WorkOptions;
  /** Milliseconds since the worker began. */
  elapsed(): number;
}

function world(items: number, more: WorkOptions = {}): World {
  const clock = createFakeClock();
  const server = createServer(clock, items);
  const lines: string[] = [];
  const startedAt = clock.now();
  const options: WorkOptions = {
    url: "http://stack.test",
    key: "sb_secret_0123456789",
    workerId: "w1",
    handleSignals: false,
    clock,
    random: () => 0.5,
    fetch: server.fetch,
    log: (line) => lines.push(line),
    ...more,
  };
  return { clock, server, lines, options, elapsed: () => clock.now() - startedAt };
}

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
});

const countOf = (server: Server, status: string): number => server.rows.filter((row) => row.status === status).length;

const noLimit = { leaveAfterMs: Infinity, leaveIdleMs: Infinity, endsInMs: Infinity };

test.each<[string, Parameters<typeof whenToLeave>, ReturnType<typeof whenToLeave>]>([
  [
    "never, where nothing is set",
    [noLimit, { startedAt: 100, idleSince: 100, usualMs: 10 }],
    { at: Infinity, why: "time" },
  ],
  [
    "after its time",
    [
      { ...noLimit, leaveAfterMs: 60_000 },
      { startedAt: 100, idleSince: null, usualMs: 10_000 },
    ],
    { at: 60_100, why: "time" },
  ],
  [
    "when less is left than a usual item takes and five seconds",
    [
      { ...noLimit, endsInMs: 60_000 },
      { startedAt: 100, idleSince: null, usualMs: 10_000 },
    ],
    { at: 45_100, why: "time" },
  ],
  [
    "five seconds before the end, where it knows no usual item",
    [
      { ...noLimit, endsInMs: 60_000 },
      { startedAt: 100, idleSince: 100, usualMs: null },
    ],
    { at: 55_100, why: "time" },
  ],
  [
    "when it was idle for too long",
    [
      { leaveAfterMs: 60_000, leaveIdleMs: 5000, endsInMs: Infinity },
      { startedAt: 100, idleSince: 7000, usualMs: 10 },
    ],
    { at: 12_000, why: "idle" },
  ],
  [
    "not by idleness while it holds a claim",
    [
      { leaveAfterMs: 60_000, leaveIdleMs: 5000, endsInMs: Infinity },
      { startedAt: 100, idleSince: null, usualMs: 10 },
    ],
    { at: 60_100, why: "time" },
  ],
])("a worker leaves %s", (_, [settings, times], expected) => {
  expect(whenToLeave(settings, times)).toEqual(expected);
});

test.each<[string | null, string, boolean]>([
  ["1.4.2", "1.4.2", false],
  ["1.4", "1.4.0", false],
  ["1.4.0", "1.4", false],
  ["1.9", "1.10", true],
  ["1.10", "1.9", false],
  ["2", "1.99.99", false],
  ["1.99.99", "2", true],
  ["0.9", "1", true],
  ["1.4", "1.4.0.1", true],
  ["007", "7", false],
  ["0", "0", false],
  [null, "0", true],
])("version %s beside the minimum %s is older: %s", (version, minimum, expected) => {
  expect(isOlder(version, minimum)).toBe(expected);
});

test.each([
  [3, true],
  [5, false],
])("a worker leaves after its %i claims, and says whether work is left", async (maxClaims, isWorkLeft) => {
  const { clock, server, options } = world(5, { maxClaims, concurrency: 2 });
  const summary = await clock.drive(work("embed", async () => clock.sleep(1000), options));
  expect(summary).toMatchObject({ why: "claims", isWorkLeft, succeeded: maxClaims });
  expect(countOf(server, "succeeded")).toBe(maxClaims);
});

test("a worker that leaves because nothing is left says so", async () => {
  const { clock, options } = world(2, { untilEmpty: true });
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary).toMatchObject({ why: "empty", isWorkLeft: false, succeeded: 2 });
});

test("a worker whose time is over finishes what runs and returns its queue", async () => {
  const { clock, server, options, elapsed } = world(9, { leaveAfterSeconds: 25, batch: 4 });
  const summary = await clock.drive(work("embed", async () => clock.sleep(10_000), options));
  expect(summary).toMatchObject({ why: "time", isWorkLeft: true, succeeded: 3 });
  expect(countOf(server, "ready")).toBe(6);
  expect(elapsed()).toBeGreaterThan(30_000);
  expect(elapsed()).toBeLessThan(31_000);
});

test("the time of a worker limits no handler that runs", async () => {
  const { clock, options } = world(1, { leaveAfterSeconds: 10 });
  const summary = await clock.drive(work("embed", async () => clock.sleep(5_000_000), options));
  expect(summary).toMatchObject({ why: "time", isWorkLeft: false, succeeded: 1 });
});

test("a stop shortens the leaving of a worker whose time is over", async () => {
  const stop = new AbortController();
  const { clock, server, options, elapsed } = world(1, { leaveAfterSeconds: 10, graceSeconds: 7, signal: stop.signal });
  clock.at(51_000, () => stop.abort());
  const handler = async (_: unknown, { signal }: Context): Promise<void> => clock.sleep(5_000_000, signal);
  const summary = await clock.drive(work("embed", handler, options));
  expect(summary).toMatchObject({ why: "signal", isWorkLeft: true, released: 1 });
  expect(countOf(server, "ready")).toBe(1);
  expect(elapsed()).toBeGreaterThan(57_000);
  expect(elapsed()).toBeLessThan(58_000);
});

test("a worker is idle from the end of its last handler, and leaves after that time", async () => {
  const { clock, options, elapsed } = world(1, { leaveIdleSeconds: 30 });
  const summary = await clock.drive(work("embed", async () => clock.sleep(100_000), options));
  expect(summary).toMatchObject({ why: "idle", isWorkLeft: false, succeeded: 1 });
  expect(elapsed()).toBeGreaterThan(130_000);
  expect(elapsed()).toBeLessThan(131_000);
});

test.each(["register_worker", "describe_work_types", "claim_next"])(
  "a worker is not idle while the first attempt of its first %s is under way",
  async (name) => {
    const { clock, server, options } = world(1, { leaveIdleSeconds: 1 });
    server.script = (call, nth) => (call.name === name && nth === 1 ? { delayMs: 5000 } : undefined);
    const summary = await clock.drive(work("embed", () => null, options));
    expect(summary).toMatchObject({ why: "idle", succeeded: 1 });
  },
);

test.each(["register_worker", "claim_next"])("a worker whose %s gets no answer is idle", async (name) => {
  const { clock, server, options, elapsed } = world(1, { leaveIdleSeconds: 1 });
  server.script = (call) => (call.name === name ? { stalls: true } : undefined);
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary).toMatchObject({ why: "idle", isWorkLeft: true, succeeded: 0 });
  expect(elapsed()).toBeLessThan(60_000);
});

test("a worker that is idle since the database does not answer leaves too", async () => {
  const { clock, server, options, elapsed } = world(1, { leaveIdleSeconds: 30 });
  server.script = (call) => (call.name === "claim_next" ? problem(503, "") : undefined);
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary).toMatchObject({ why: "idle", isWorkLeft: true });
  expect(elapsed()).toBeLessThan(40_000);
});

test("a worker that gets no first answer leaves when its time is over", async () => {
  const { clock, server, options, elapsed } = world(1, { leaveAfterSeconds: 60 });
  server.script = () => problem(503, "");
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary).toMatchObject({ why: "time", isWorkLeft: true, succeeded: 0 });
  expect(elapsed()).toBeLessThan(70_000);
});

test("a worker whose time is over offers its outcomes for ten minutes past their lease", async () => {
  const { clock, server, options, elapsed } = world(1, { leaveAfterSeconds: 5 });
  const isDown = (name: string): boolean => /release_items|finish_and_claim|extend_claims/.test(name);
  server.script = (call) => (isDown(call.name) ? problem(503, "") : undefined);
  const summary = await clock.drive(work("embed", async () => clock.sleep(10_000), options));
  expect(summary).toMatchObject({ why: "time", succeeded: 0, lost: 1 });
  expect(elapsed()).toBeGreaterThan(600_000);
  expect(elapsed()).toBeLessThan(800_000);
});

const now = 1_800_000_000;

test("a worker claims no more when less time is left than an item usually takes", async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: now * 1000 });
  const { clock, server, options, elapsed } = world(9, { endTime: now + 38 });
  const summary = await clock.drive(work("embed", async () => clock.sleep(10_000), options));
  expect(summary).toMatchObject({ why: "time", isWorkLeft: true, succeeded: 3, released: 0 });
  expect(countOf(server, "ready")).toBe(6);
  expect(elapsed()).toBeLessThan(33_000);
});

test("a worker hands back what runs before its process is killed", async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: now * 1000 });
  const { clock, server, options, elapsed } = world(2, { endTime: now + 60 });
  const handler = async (_: unknown, { signal }: Context): Promise<void> => clock.sleep(100_000, signal);
  const summary = await clock.drive(work("embed", handler, options));
  expect(summary).toMatchObject({ why: "time", isWorkLeft: true, released: 1 });
  expect(server.rows.map(({ status, failures }) => [status, failures])).toEqual(Array(2).fill(["ready", 0]));
  expect(elapsed()).toBeGreaterThan(54_000);
  expect(elapsed()).toBeLessThan(56_000);
});

test("a worker whose end is past claims nothing", async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: now * 1000 });
  const { clock, server, options } = world(2, { endTime: now - 100 });
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary).toMatchObject({ why: "time", isWorkLeft: true, succeeded: 0 });
  expect(server.of("claim_next")).toEqual([]);
});

test.each([
  ["WORK_END_TIME", {}],
  ["SLURM_JOB_END_TIME", { WORK_END_TIME: "" }],
])("a worker with WORK_UNTIL=time reads %s", async (variable, more) => {
  vi.useFakeTimers({ toFake: ["Date"], now: now * 1000 });
  const { clock, options, elapsed } = world(0);
  const variables = { WORK_UNTIL: "time", SLURM_JOB_END_TIME: "1", ...more, [variable]: String(now + 100) };
  for (const [name, value] of Object.entries(variables)) {
    vi.stubEnv(name, value);
  }
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary.why).toBe("time");
  expect(elapsed()).toBeGreaterThan(94_000);
  expect(elapsed()).toBeLessThan(96_000);
});

test.each([
  ["1.9", 0],
  [undefined, 0],
  ["1.10", 2],
  ["2", 2],
])("a worker of version %s under the minimum 1.10 does %i items", async (version, did) => {
  const { clock, server, options, lines } = world(2, { maxClaims: 2, ...(version && { version }) });
  server.model.rules.minWorkerVersion = "1.10";
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary).toMatchObject({ succeeded: did, why: did > 0 ? "claims" : "version", isWorkLeft: did === 0 });
  expect(server.of("register_worker")[0]?.args.version).toBe(version);
  expect(server.of("claim_next").length > 0).toBe(did > 0);
  const said = `embed asks for version 1.10 of its workers, and this one has ${version ?? "none (WORK_VERSION)"}`;
  expect(lines.some((line) => line.startsWith(said))).toBe(did === 0);
});

test("a running worker that has become too old finishes what runs and leaves within two minutes", async () => {
  const { clock, server, options, elapsed } = world(100, { version: "1.4" });
  clock.at(70_000, () => {
    server.model.rules.minWorkerVersion = "1.5";
  });
  const summary = await clock.drive(work("embed", async () => clock.sleep(3000), options));
  expect(summary).toMatchObject({ why: "version", isWorkLeft: true, released: 0 });
  expect(summary.succeeded).toBeGreaterThan(20);
  expect(elapsed()).toBeLessThan(190_000);
});

test("a worker goes on where the question for its version is not answered", async () => {
  const { clock, server, options } = world(3, { maxClaims: 3 });
  server.script = (call, nth) => (call.name === "describe_work_types" && nth === 1 ? problem(500, "XX000") : undefined);
  const summary = await clock.drive(work("embed", () => null, options));
  expect(summary).toMatchObject({ succeeded: 3, why: "claims", isWorkLeft: false });
});

test("a handler gets the signal at the end of its try, and its own error counts", async () => {
  const { clock, server, options } = world(2, { untilEmpty: true });
  server.model.rules.trySeconds = 10;
  const handler = async (claim: { payload: { n: number } }, { signal }: Context): Promise<void> => {
    await clock.sleep(claim.payload.n === 1 ? 1_000_000 : 9000, signal);
    signal.throwIfAborted();
  };
  const summary = await clock.drive(work("embed", handler, options));
  expect(summary).toMatchObject({ succeeded: 1, failed: 1, why: "empty" });
  expect(server.rows[0]?.error).toBe("the handler did not end within 10 s (try_seconds)");
});

test("a result that comes right after the end of the try counts", async () => {
  const { clock, server, options } = world(1, { untilEmpty: true });
  server.model.rules.trySeconds = 10;
  const handler = async (_: unknown, { signal }: Context): Promise<string> => {
    await clock.sleep(1_000_000, signal);
    return "the part that was done";
  };
  await clock.drive(work("embed", handler, options));
  expect(server.rows[0]).toMatchObject({ status: "succeeded", result: "the part that was done" });
});

test("a claim fails by name while its handler runs on, and the worker goes on where it ends in the grace time", async () => {
  const { clock, server, options } = world(2, { untilEmpty: true, graceSeconds: 30 });
  server.model.rules.trySeconds = 10;
  let failedAt = 0;
  server.model.onChange = (change) => {
    failedAt = change === "failed" ? clock.now() : failedAt;
  };
  const handler = async (claim: { payload: { n: number } }): Promise<void> => {
    await clock.sleep(claim.payload.n === 1 ? 40_000 : 1000);
  };
  const summary = await clock.drive(work("embed", handler, options));
  expect(summary).toMatchObject({ succeeded: 1, failed: 1, why: "empty" });
  expect(server.rows[0]).toMatchObject({
    status: "failed",
    error: "the handler did not end within 10 s (try_seconds)",
  });
  expect(failedAt).toBeLessThan(20_000);
});

test("a worker with a handler that never ends hands back the rest, signs off and throws", async () => {
  const { clock, server, options, elapsed } = world(6, { concurrency: 2, batch: 6, graceSeconds: 20 });
  server.model.rules.trySeconds = 100;
  const handler = async (claim: { payload: { n: number } }): Promise<void> => {
    // The second item's handler ends in time. The third's is handed back at the end of the grace time.
    await clock.sleep(claim.payload.n === 1 ? Number.POSITIVE_INFINITY : 95_000);
  };
  await expect(clock.drive(work("embed", handler, options))).rejects.toThrow(
    /^the handler of embed [0-9a-f-]+01 takes no notice of its signal, and only the end of the process stops it$/,
  );
  const statuses = server.rows.map(({ status, failures }) => `${status} ${failures}`);
  expect(statuses).toEqual(["failed 1", "succeeded 0", "ready 0", "ready 0", "ready 0", "ready 0"]);
  expect(server.of("retire_worker")).toHaveLength(1);
  expect(elapsed()).toBeLessThan(150_000);
});

test("a lost claim's handler that never ends ends the worker too", async () => {
  const { clock, server, options } = world(1, { graceSeconds: 20 });
  server.model.rules.trySeconds = 100;
  const [row] = server.rows;
  clock.at(10_000, () => row && server.model.cancel(row));
  const handler = async (): Promise<void> => clock.sleep(Number.POSITIVE_INFINITY);
  await expect(clock.drive(work("embed", handler, options))).rejects.toThrow("takes no notice of its signal");
  expect(row?.status).toBe("cancelled");
});

test("a handler without a limit keeps its claim for as long as it takes", async () => {
  const { clock, server, options } = world(1, { untilEmpty: true });
  await clock.drive(work("embed", async () => clock.sleep(1_000_000), options));
  expect(server.rows[0]?.status).toBe("succeeded");
});

test.each<[LeaveOptions & WorkOptions, string]>([
  [{ maxClaims: Number.NaN }, "maxClaims is NaN; a whole number from 1 to 1000000000 was expected"],
  [{ maxClaims: 0 }, "maxClaims is 0; a whole number from 1 to 1000000000 was expected"],
  [{ idleMinSeconds: Number.NaN }, "idleMinSeconds is NaN; a number from 0.01 to 3600 was expected"],
  [{ idleMaxSeconds: -1 }, "idleMaxSeconds is -1; a number from 0.01 to 3600 was expected"],
  [{ leaveAfterSeconds: 0.5 }, "leaveAfterSeconds is 0.5; a whole number from 1 to 31536000 was expected"],
  [{ leaveIdleSeconds: Infinity }, "leaveIdleSeconds is Infinity; a whole number from 1 to 31536000 was expected"],
  [{ endTime: now * 1000 }, `endTime is ${now}000; a whole number from 1000000000 to 9999999999 was expected`],
  [{ spot: "ibm" as never }, "spot is ibm; aws or gcp or azure was expected"],
  [{ version: "1.4-beta" }, "version is 1.4-beta; up to four numbers with points between them were expected"],
])("a wrong option is refused with the expected form: %o", async (option, message) => {
  const { options } = world(0);
  const thrown: Error = await work("embed", () => null, { ...options, ...option }).catch((error) => error);
  expect(thrown.message).toContain(message);
  expect(thrown).toBeInstanceOf(SettingsError);
});

test.each<[Record<string, string>, string]>([
  [{ WORK_MAX_CLAIMS: "many" }, "WORK_MAX_CLAIMS is many; a whole number from 1 to 1000000000 was expected"],
  [{ WORK_LEAVE_AFTER_SECONDS: "1h" }, "WORK_LEAVE_AFTER_SECONDS is 1h; a whole number from 1"],
  [{ WORK_LEAVE_IDLE_SECONDS: "-5" }, "WORK_LEAVE_IDLE_SECONDS is -5; a whole number from 1"],
  [{ WORK_UNTIL: "noon" }, "WORK_UNTIL is noon; time or done was expected"],
  [{ WORK_UNTIL: "time" }, "WORK_UNTIL is time and no end is known; expected was WORK_END_TIME in seconds since 1970"],
  [{ WORK_UNTIL: "time", WORK_END_TIME: "2026-12-01" }, "WORK_END_TIME is 2026-12-01; a whole number from 1000000000"],
  [{ WORK_UNTIL: "time", SLURM_JOB_END_TIME: "NONE" }, "SLURM_JOB_END_TIME is NONE; a whole number from 1000000000"],
  [{ WORK_SPOT: "1" }, "WORK_SPOT is 1; aws or gcp or azure was expected"],
  [{ WORK_VERSION: "v2" }, "WORK_VERSION is v2; up to four numbers with points between them were expected"],
])("a wrong variable is refused with the expected form: %o", async (variables, message) => {
  const { options } = world(0);
  for (const [name, value] of Object.entries({ SLURM_JOB_END_TIME: "", ...variables })) {
    vi.stubEnv(name, value);
  }
  const thrown: Error | Summary = await work("embed", () => null, options).catch((error) => error);
  expect(thrown).toBeInstanceOf(SettingsError);
  expect((thrown as Error).message).toContain(message);
});
