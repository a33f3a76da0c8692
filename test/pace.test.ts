// The pace of a worker: what it decides, and how busy its handlers are. Time is virtual, so that the figures are exact.
import { expect, test } from "vitest";
import { idleDelay } from "../workers/runtime/backoff.ts";
import { nextStep, type Situation } from "../workers/runtime/next-step.ts";
import { claimLimit, meanWith, type Pace, slowed } from "../workers/runtime/pace.ts";
import { type WorkOptions, work } from "../workers/runtime/work.ts";
import { createFakeClock } from "./support/fake-clock.ts";
import { createServer } from "./support/scripted-transport.ts";

const pace = (handlerMs: number | null, roundTripMs = 60, leaseMs = 300_000): Pace => ({
  handlerMs,
  roundTripMs,
  leaseMs,
});

test.each<[string, number, Pace, number]>([
  ["nothing is known", 1, pace(null), 1],
  ["nothing is known, four handlers", 4, pace(null), 4],
  ["a handler takes a minute", 1, pace(60_000), 1],
  ["a handler takes a minute, four handlers", 4, pace(60_000), 4],
  ["a handler takes a minute behind a bad network", 1, pace(60_000, 20_000), 1],
  ["a handler takes a second", 1, pace(1000), 2],
  ["a handler takes 100 ms: 560 ms ahead", 1, pace(100), 7],
  ["a handler takes 100 ms, four handlers", 4, pace(100), 27],
  ["a handler takes no time", 1, pace(0), 100],
  ["there are more handlers than claims ahead", 200, pace(5), 200],
  ["a third of the lease is 300 ms", 1, pace(100, 60, 900), 4],
  ["a third of the lease is less than a handler takes", 1, pace(400, 60, 1000), 1],
])("a worker claims ahead by its pace: %s", (_, concurrency, measured, limit) => {
  expect(claimLimit(concurrency, measured)).toBe(limit);
});

test("a mean follows the latest measurements by a fifth", () => {
  expect(meanWith(null, 50)).toBe(50);
  expect(meanWith(50, 100)).toBe(60);
});

test("a worker with slow handlers claims nothing ahead until some succeed", () => {
  let mean = slowed(pace(5));
  expect(claimLimit(1, mean)).toBe(1);
  for (let n = 0; n < 30; n++) {
    mean = { ...mean, handlerMs: meanWith(mean.handlerMs, 5) };
  }
  expect(claimLimit(1, mean)).toBeGreaterThan(50);
});

test("an idle worker waits a tenth of the time since it saw work, within bounds", () => {
  expect(idleDelay(0, () => 1, 200, 15_000)).toBe(200);
  expect(idleDelay(10_000, () => 1, 200, 15_000)).toBe(1000);
  expect(idleDelay(3_600_000, () => 1, 200, 15_000)).toBe(15_000);
  expect(idleDelay(3_600_000, () => 0, 200, 15_000)).toBe(7500);
});

const idle: Situation = {
  now: 1000,
  concurrency: 2,
  running: 0,
  queued: 0,
  startable: 0,
  finished: 0,
  held: 0,
  limit: 8,
  room: 8,
  isClaiming: false,
  isReleasing: false,
  gathering: "no",
  canCombine: true,
  lookAt: 1000,
  handBackAt: Number.POSITIVE_INFINITY,
  leaveAt: Number.POSITIVE_INFINITY,
  isLeaving: false,
  isTooLate: false,
};
const busy: Situation = { ...idle, running: 2, queued: 6, held: 8, room: 0, gathering: "done" };

test.each<[string, Situation, string]>([
  ["an idle worker claims", idle, "claim"],
  ["an idle worker waits until its next look", { ...idle, lookAt: 1500 }, "wait 500"],
  ["a worker waits for a claim call that is under way", { ...idle, isClaiming: true }, "wait Infinity"],
  [
    "a handler starts while both calls are under way",
    { ...busy, running: 1, startable: 6, isClaiming: true, isReleasing: true },
    "start",
  ],
  ["a claim waits for a free handler", { ...busy, startable: 6 }, "wait Infinity"],
  ["an outcome is released while a claim call is under way", { ...busy, finished: 1, isClaiming: true }, "release"],
  [
    "outcomes of the same moment are gathered for one call",
    { ...busy, finished: 1, queued: 4, room: 2, gathering: "no" },
    "gather",
  ],
  [
    "a due claim waits for the outcomes that are gathered",
    { ...busy, finished: 1, queued: 4, room: 2, gathering: "under way" },
    "wait Infinity",
  ],
  ["the last outcome waits for no other", { ...busy, running: 0, queued: 0, finished: 1, gathering: "no" }, "release"],
  [
    "outcomes wait for the release call that is under way",
    { ...busy, finished: 3, isReleasing: true },
    "wait Infinity",
  ],
  ["an outcome and a due claim go in one call", { ...busy, finished: 2, queued: 4, room: 2 }, "finish and claim"],
  [
    "an outcome goes alone where there is no such call",
    { ...busy, finished: 2, queued: 4, room: 2, canCombine: false },
    "release",
  ],
  ["an outcome goes alone while little is free", { ...busy, finished: 1, queued: 5, room: 1 }, "release"],
  ["a free handler makes a claim due, however little is free", { ...busy, running: 1, queued: 0, room: 1 }, "claim"],
  ["queued claims go back when handlers turned slow", { ...busy, handBackAt: 900 }, "hand back"],
  ["a busy worker wakes to hand claims back", { ...busy, handBackAt: 1200 }, "wait 200"],
  ["a leaving worker ends when it holds nothing", { ...idle, room: 0, isLeaving: true }, "end"],
  ["a leaving worker waits for what it holds", { ...busy, queued: 0, isLeaving: true }, "wait Infinity"],
  [
    "a leaving worker waits for a call that may bring claims",
    { ...idle, room: 0, isLeaving: true, isClaiming: true },
    "wait Infinity",
  ],
  ["a worker whose time is over ends whatever it holds", { ...busy, finished: 1, isTooLate: true }, "end"],
])("%s", (_, situation, expected) => {
  const step = nextStep(situation);
  expect(step.do === "wait" ? `wait ${step.ms}` : step.do).toBe(expected);
});

/** Does so many items behind a round trip of 60 ms: how many a second, and which part of the time handlers ran. */
async function measure(
  items: number,
  handlerMs: number,
  more: WorkOptions = {},
): Promise<{ rate: number; busy: number }> {
  const clock = createFakeClock();
  const server = createServer(clock, items);
  server.script = () => ({ delayMs: 59 });
  let startedAt = 0;
  let endedAt = 0;
  const handler = async (): Promise<void> => {
    startedAt ||= clock.now();
    await clock.sleep(handlerMs);
    endedAt = clock.now();
  };
  const options = { url: "http://stack.test", key: "sb_secret_canary", fetch: server.fetch, clock, random: () => 0.5 };
  const quiet = { maxClaims: items, handleSignals: false, log: () => {} };
  const summary = await clock.drive(work("embed", handler, { ...options, ...quiet, ...more }));
  expect(summary.succeeded).toBe(items);
  const seconds = (endedAt - startedAt) / 1000;
  return { rate: items / seconds, busy: (items * handlerMs) / 1000 / seconds / (more.concurrency ?? 1) };
}

test.each([20, 50, 100, 400, 1000, 2000, 5000])(
  "one handler of %i ms is busy for 95 percent of the time",
  async (ms) => {
    expect((await measure(200, ms)).busy).toBeGreaterThan(0.95);
  },
);

test.each([20, 100, 1000])(
  "one handler of %i ms that has candidates is busy for 95 percent of the time",
  async (ms) => {
    expect((await measure(200, ms, { pool: "default" })).busy).toBeGreaterThan(0.95);
  },
);

test("two handlers of 5 ms do twenty times as many items as one claim a round trip", async () => {
  const oneByOne = await measure(100, 5, { batch: 1 });
  expect(oneByOne.rate).toBeLessThan(16);
  expect((await measure(2000, 5, { concurrency: 2 })).rate).toBeGreaterThan(20 * oneByOne.rate);
});

test("one handler of 5 ms is busy for 95 percent of the time", async () => {
  expect((await measure(1000, 5)).busy).toBeGreaterThan(0.95);
});

test("workers with jobs of a minute share them", async () => {
  const clock = createFakeClock();
  const server = createServer(clock, 6);
  const start = async (workerId: string): Promise<number> => {
    const options = { url: "http://stack.test", key: "sb_secret_canary", fetch: server.fetch, clock, log: () => {} };
    const handler = (): Promise<void> => clock.sleep(60_000);
    const summary = await work("embed", handler, { ...options, workerId, untilEmpty: true, handleSignals: false });
    return summary.succeeded;
  };
  expect(await clock.drive(Promise.all([start("w1"), start("w2"), start("w3")]))).toEqual([2, 2, 2]);
});
