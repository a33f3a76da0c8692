import { describe, expect, test } from "vitest";
import { type Check, isExactlyOnce } from "../src/demo/record.ts";
import { checkedLines, takenBackLines } from "../src/demo/report.ts";
import { isAlive, runDemo, workersOf } from "./support/demo-runs.ts";

const good: Check = { texts: 300, succeeded: 300, done_once: 300, by_the_last_holder: 300, right_results: 300 };

describe("the demo's check", () => {
  test("is content when every text was done once, by its last holder, with its own result", () => {
    expect(isExactlyOnce(good)).toBe(true);
    expect(checkedLines(good).at(-1)).toBe("✓ every row was done exactly once");
  });

  test.each(Object.keys(good))("is not content when one text is missing in %s", (name) => {
    const found = { ...good, [name]: 299 };
    expect(isExactlyOnce(found)).toBe(false);
    expect(checkedLines(found).at(-1)).toBe("✗ this is not as it should be");
  });
});

test("an item that changed its worker is shown with both workers and the delay", () => {
  expect(takenBackLines([{ text: "17", from: "node-2", by: "deno-1", secondsLater: 0.4 }])).toEqual([
    "text 17: taken back from node-2; deno-1 did it, 0.4 s after the lease had been ended",
  ]);
  expect(takenBackLines([])).toEqual(["nothing was taken back"]);
});

describe("the demo", () => {
  test("does every row once though a worker is killed, and leaves no process", async () => {
    const { code, out } = await runDemo([]);
    expect(out).toMatch(/killed node-\d \(pid \d+\) with SIGKILL while it held [1-4] texts/);
    expect(out).toMatch(/^text \d+: taken back from node-\d; /m);
    expect(out).toMatch(/^deno-1 +Deno +[1-9]/m);
    expect(out).toContain("✓ every row was done exactly once");
    expect(out).toMatch(
      /^✓ changed text 17 with an update: (node|deno)-\d did it again after .* no other text was done$/m,
    );
    expect(code).toBe(0);
    expect(workersOf(out).filter(isAlive)).toEqual([]);
  }, 240_000);

  test("ends at SIGINT while its workers run, and leaves no process", async () => {
    const { code, out } = await runDemo([], { signal: "SIGINT", isTime: (soFar) => soFar.includes("started node-1") });
    expect(code).toBe(130);
    expect(workersOf(out)).toHaveLength(4);
    expect(workersOf(out).filter(isAlive)).toEqual([]);
  });

  test("ends at SIGTERM while its stack starts", async () => {
    const { code, out } = await runDemo([], {
      signal: "SIGTERM",
      isTime: (soFar) => soFar.includes("work-claims demo"),
    });
    expect([code, out]).toEqual([130, expect.stringContaining("stopped; nothing is left running")]);
  });

  test("ends its workers when it is killed with SIGKILL", async () => {
    const { out } = await runDemo([], { signal: "SIGKILL", isTime: (soFar) => soFar.includes("started node-1") });
    await expect.poll(() => workersOf(out).filter(isAlive)).toEqual([]);
  });
});
