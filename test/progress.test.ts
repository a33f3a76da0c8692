import { describe, expect, test } from "vitest";
import type { OverviewRow } from "../src/overview.ts";
import { plainLines, progressLines } from "../src/progress.ts";
import { bar, duration, rate, rateOf, withSample } from "../workers/runtime/progress.ts";

function row(changes: Partial<OverviewRow> = {}): OverviewRow {
  return {
    work_type: "embed",
    pool: "texts",
    paused: false,
    ready: 0,
    waiting: 0,
    blocked: 0,
    claimed: 0,
    parked: 0,
    succeeded: 0,
    failed: 0,
    cancelled: 0,
    oldest_wait: null,
    finished_last_minute: 0,
    time_left: null,
    open: (changes.ready ?? 0) + (changes.waiting ?? 0) + (changes.claimed ?? 0),
    late: 0,
    is_capped: false,
    ...changes,
  };
}

describe("the bar", () => {
  test("grows by eighths of a cell", () => {
    expect(bar(0, 4)).toBe("░░░░");
    expect(bar(0.5, 4)).toBe("██░░");
    expect(bar(0.53125, 4)).toBe("██▏░");
    expect(bar(1, 4)).toBe("████");
  });

  test("is full only when all is done", () => {
    expect(bar(0.999999, 4)).toBe("███▉");
  });
});

describe("the rate", () => {
  test("is unknown until a second has passed", () => {
    expect(rateOf([])).toBeNull();
    expect(rateOf([{ at: 0, finished: 3 }])).toBeNull();
    expect(
      rateOf([
        { at: 0, finished: 0 },
        { at: 900, finished: 10 },
      ]),
    ).toBeNull();
  });

  test("is taken over the last ten seconds", () => {
    let samples = withSample([], { at: 0, finished: 0 });
    samples = withSample(samples, { at: 5000, finished: 1000 });
    samples = withSample(samples, { at: 12_000, finished: 1070 });
    expect(samples).toHaveLength(2);
    expect(rateOf(samples)).toBe(10);
  });

  test("is not below zero when failed claims are retried", () => {
    expect(
      rateOf([
        { at: 0, finished: 50 },
        { at: 2000, finished: 0 },
      ]),
    ).toBe(0);
  });

  test("is shown in the unit in which it is at least one", () => {
    expect([27.4, 3.14, 0.2, 0.001, 0].map(rate)).toEqual(["27/s", "3.1/s", "12/min", "3.6/h", "0/s"]);
  });
});

test("a duration has the units that matter", () => {
  expect([0.2, 89, 100, 3600, 12_000, 172_800, 190_000].map(duration)).toEqual([
    "1 s",
    "89 s",
    "2 min",
    "1 h",
    "3 h 20 min",
    "2 d",
    "2 d 4 h",
  ]);
});

describe("a line of the terminal", () => {
  test("shows the bar, how many are done, the rate, the time left, workers and failures", () => {
    const lines = progressLines(
      [row({ ready: 80, claimed: 20, succeeded: 98, failed: 2 })],
      [{ rate: 10, liveWorkers: 3 }],
      100,
    );
    expect(lines).toEqual([
      "embed ██████████████░░░░░░░░░░░░░░  50 % 100/200  10/s · 10 s left · 3 workers · 20 held · 2 failed",
    ]);
  });

  test("says done when nothing is open, and leaves cancelled claims out of the count", () => {
    const lines = progressLines([row({ succeeded: 5, cancelled: 7 })], [{ rate: 0, liveWorkers: 0 }], 80);
    expect(lines[0]).toMatch(/100 % 5\/5 {2}done · 0 workers · 7 cancelled$/);
  });

  test("is never wider than the terminal", () => {
    const name = "a-work-type-whose-name-goes-on-and-on";
    const lines = progressLines([row({ work_type: name, ready: 1_000_000 })], [{ rate: 0.5, liveWorkers: 12 }], 40);
    expect(lines[0]?.length).toBe(40);
    expect(lines[0]?.startsWith("a-work-type-whose-name-…")).toBe(true);
  });

  test("shows late claims, and a plus at numbers that are lower bounds, and counts by what is open exactly", () => {
    const capped = row({ open: 50_000, waiting: 9990, claimed: 10, late: 2, succeeded: 50_000, is_capped: true });
    const lines = progressLines([capped], [{ rate: null, liveWorkers: 1 }], 120);
    expect(lines[0]).toContain("50 % 50000/100000");
    expect(lines[0]).toMatch(/1 worker · 10\+ held · 2 late · 9990\+ waiting$/);
  });

  test("gives no time left while nothing moves", () => {
    const lines = progressLines([row({ ready: 10 })], [{ rate: 0, liveWorkers: 0 }], 100);
    expect(lines[0]).not.toContain("left");
  });
});

test("the lines of two work types are aligned", () => {
  const lines = progressLines(
    [row({ work_type: "a", ready: 1 }), row({ work_type: "embed", ready: 1000 })],
    [
      { rate: null, liveWorkers: 1 },
      { rate: null, liveWorkers: 1 },
    ],
    100,
  );
  expect(lines[0]?.indexOf("%")).toBe(lines[1]?.indexOf("%"));
});

test("a line of a log has no bar", () => {
  const lines = plainLines([row({ ready: 100, succeeded: 100, paused: true })], [{ rate: 5, liveWorkers: 1 }]);
  expect(lines).toEqual(["embed: 100/200 (50 %), 5.0/s, 20 s left, paused, 1 worker"]);
});
