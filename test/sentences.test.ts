import { describe, expect, test } from "vitest";
import type { ExplainedClaim, ExplainedItem, MatchReport } from "../src/answers.ts";
import { explainedLines, matchSentences } from "../src/cli/sentences.ts";

const ago = "2026-01-01T00:00:00+00:00";
const asked_at = "2026-01-01T00:00:42.5+00:00";
const later = "2026-01-01T02:00:42.5+00:00";

function item(more: Partial<ExplainedItem>): ExplainedItem {
  return {
    ...{ item_id: "i", pool: "default", source_key: null, class_id: 1, tag: "c:", requires: {}, labels: {} },
    ...{ run_after: null, asked_at, reason: "", claims: [], ...more },
  };
}

/** The line of one claim. */
function told(claim: Partial<ExplainedClaim>, of: Partial<ExplainedItem> = {}): string {
  const whole: ExplainedClaim = {
    ...{ work_type: "render", status: "ready", reason: "", failures: 0, crashes: 0, error: null, paused: false },
    ...{ due_at: ago, worker_id: null, claimed_at: null, progress: null, lease_left_seconds: null },
    ...{ parked_as: null, finished_at: null, before: null, more_before: null, workers: null },
    ...{ stale: null, again: null, waits_for: 0, needs: null },
    ...claim,
  };
  return explainedLines(item({ ...of, claims: [whole] })).join("\n");
}

function report(more: Partial<MatchReport>): MatchReport {
  return {
    ...{ live_workers: 0, matching: 0, yielding: 0, yield_seconds: null },
    ...{ matching_workers: [], yielding_workers: [], failing: [], ...more },
  };
}

function failing(reason: string, more: object = {}): MatchReport["failing"][number] {
  return { reason, workers: 1, only_this: 1, closest_worker: "gpu-7", closest_has: null, ...more };
}

describe("a held claim", () => {
  const held = { status: "claimed", worker_id: "gpu-7", claimed_at: ago, lease_left_seconds: 18 } as const;

  test("names its worker, its start and the rest of the lease", () => {
    expect(told(held)).toBe("gpu-7 holds it for render since 43 s; its lease has 18 s left.");
    expect(told({ ...held, progress: 0.4 })).toContain("since 43 s (40 % done);");
  });

  test("that is parked names the job that does its work", () => {
    expect(told({ ...held, parked_as: "job-1" })).toBe(
      "The job job-1 does it for render since 43 s; its lease has 18 s left.",
    );
  });

  test("says that the lease has ended, or that none exists", () => {
    expect(told({ ...held, lease_left_seconds: -100 })).toContain(
      "; its lease ended 2 min ago, and the next claim call takes it back.",
    );
    expect(told({ ...held, lease_left_seconds: null })).toContain("; it has no lease, and");
  });
});

describe("a waiting claim", () => {
  test("says when it is due, after which failures", () => {
    const waiting = { status: "waiting", due_at: later } as const;
    expect(told(waiting)).toBe("render waits: it is due in 2 h.");
    expect(told(waiting, { run_after: later })).toBe("render waits: it is due in 2 h, the run_after of the item.");
    expect(told({ ...waiting, failures: 1, error: "no disk" })).toBe(
      "render waits: it is due in 2 h, after 1 failure: no disk.",
    );
    expect(told({ ...waiting, failures: 2, crashes: 1, paused: true })).toBe(
      "render waits: it is due in 2 h, after 2 failures and 1 crash. Its work type is paused: no worker is handed it.",
    );
  });

  test("says that it is due already", () => {
    expect(told({ status: "waiting", crashes: 2 })).toBe(
      "render is due since 43 s, and the next claim call makes it ready, after 2 crashes.",
    );
  });

  test("shows the beginning of a long error", () => {
    const line = told({ status: "waiting", due_at: later, failures: 1, error: "x".repeat(2000) });
    expect(line).toContain(`: ${"x".repeat(300)}….`);
  });
});

describe("a ready claim", () => {
  test("says its place in the lane", () => {
    expect(told({ before: 0 })).toBe("render is ready since 43 s; it is the head of its lane.");
    expect(told({ before: 1 })).toContain("; 1 claim of its lane goes before it.");
    expect(told({ before: 7 })).toContain("; 7 claims of its lane go before it.");
    expect(told({ before: 1000, more_before: true })).toContain("; more than 1000 of its lane go before it.");
  });

  test("says that its work type is paused, and which workers match", () => {
    expect(told({ before: 0, failures: 1, error: "e", paused: true, workers: report({}) })).toBe(
      "render is ready since 43 s, after 1 failure: e; it is the head of its lane. " +
        "Its work type is paused: no worker is handed it. No live worker does render.",
    );
  });
});

test("a claim that has ended says how, when and why, and promises no retry", () => {
  const ended = { finished_at: ago, worker_id: "a" };
  expect(told({ ...ended, status: "succeeded" })).toBe("render succeeded 43 s ago by a.");
  expect(told({ ...ended, status: "failed", failures: 1, error: "bad file" })).toBe(
    "render failed for good 43 s ago, after 1 failure: bad file. retry_items() reopens it.",
  );
  expect(told({ ...ended, status: "cancelled" })).toBe("render was cancelled 43 s ago. retry_items() reopens it.");
});

test("a blocked claim says what it waits for, and an old result why it is out of date", () => {
  const blocked = { status: "blocked", reason: "it waits for cut of the same item (failed)" } as const;
  expect(told(blocked)).toBe("render waits for cut of the same item (failed).");
  expect(told({ ...blocked, stale: "cut is done again" })).toBe(
    "render waits for cut of the same item (failed). Its result is out of date: cut is done again.",
  );
  const guarded = "its input changed 12 times, each within an hour of the last";
  expect(told({ status: "waiting", due_at: later, reason: guarded })).toBe(
    `render waits: ${guarded}; it is due in 2 h.`,
  );
});

test("an item without claims says why it has none", () => {
  expect(explainedLines(item({ reason: "nobody has enrolled it: there is no such work type" }))).toEqual([
    "Nobody has enrolled it: there is no such work type.",
  ]);
});

describe("the sentences about workers", () => {
  test.each([
    [{}, "There is no live worker.", "No live worker does render."],
    [
      { live_workers: 1 },
      "The only live worker cannot run it.",
      "The only live worker that does render cannot run it.",
    ],
    [
      { live_workers: 1, matching: 1 },
      "The only live worker can run it.",
      "The only live worker that does render can run it.",
    ],
    [
      { live_workers: 3 },
      "None of the 3 live workers can run it.",
      "None of the 3 live workers that do render can run it.",
    ],
    [
      { live_workers: 3, matching: 3, yielding: 3, yield_seconds: 60 },
      "Each of the 3 live workers can run it, once it has been ready for 60 s.",
      "Each of the 3 live workers that do render can run it, once it has been ready for 60 s.",
    ],
    [
      { live_workers: 3, matching: 2, yielding: 1, yield_seconds: 60 },
      "2 of the 3 live workers can run it, 1 of these once it has been ready for 60 s.",
      "2 of the 3 live workers that do render can run it, 1 of these once it has been ready for 60 s.",
    ],
  ])("say how many workers can run an item: %j", (counts, ofAll, ofType) => {
    expect(matchSentences(report(counts))).toBe(ofAll);
    expect(matchSentences(report(counts), "render")).toBe(ofType);
  });

  test("name at most three reasons, each with the need, the closest worker and a count", () => {
    const reasons = [
      failing("needs gpu_memory_gb >= 80", { workers: 3, only_this: 2, closest_has: "24" }),
      failing("its labels are not accepted: needs customer = globex"),
      failing("it needs nothing of what the worker is exclusive about: gpu", { workers: 2, only_this: 0 }),
      failing("needs more"),
    ];
    expect(matchSentences(report({ live_workers: 6, failing: reasons }))).toBe(
      "None of the 6 live workers can run it. " +
        "It needs gpu_memory_gb >= 80; closest live worker gpu-7 has 24; 3 workers fail on this, 2 only on this. " +
        "Its labels are not accepted: needs customer = globex; 1 worker fails only on this. " +
        "It needs nothing of what the worker is exclusive about: gpu; 2 workers fail on this.",
    );
  });
});
