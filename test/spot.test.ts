// Notices that a cloud takes the machine back, from a real server that speaks the three.
import { afterAll, expect, test } from "vitest";
import { systemClock } from "../workers/runtime/clock.ts";
import type { Cloud } from "../workers/runtime/leave-settings.ts";
import { noticeOf } from "../workers/runtime/spot.ts";
import { type Summary, type WorkOptions, work } from "../workers/runtime/work.ts";
import { startMetadataServer } from "./support/metadata-server.ts";
import { createServer } from "./support/scripted-transport.ts";

const database = createServer(systemClock, 2);
const metadata = await startMetadataServer(database.fetch);
afterAll(() => metadata.close());

const inTwoMinutes = (): string => new Date(Date.now() + 120_000).toISOString().replace(/\.\d+Z$/, "Z");
const preempt = (more: object): string =>
  JSON.stringify({
    DocumentIncarnation: 2,
    Events: [{ EventId: "1", EventType: "Preempt", ResourceType: "VirtualMachine", EventStatus: "Scheduled", ...more }],
  });

test.each<[string, Cloud, () => [number, string], [number, number] | null]>([
  ["AWS", "aws", () => [200, `{"action": "terminate", "time": "${inTwoMinutes()}"}`], [110_000, 120_000]],
  [
    "AWS, where the machine's clock is slow",
    "aws",
    () => [200, '{"time": "2100-01-01T00:00:00Z"}'],
    [120_000, 120_000],
  ],
  ["AWS, without one", "aws", () => [404, "not found"], null],
  ["Google", "gcp", () => [200, "TRUE"], [30_000, 30_000]],
  ["Google, without one", "gcp", () => [200, "FALSE"], null],
  [
    "Azure",
    "azure",
    () => [200, preempt({ Resources: ["gpu_3"], NotBefore: new Date(Date.now() + 120_000).toUTCString() })],
    [110_000, 120_000],
  ],
  ["Azure, begun", "azure", () => [200, preempt({ Resources: ["gpu_3"], NotBefore: "" })], [30_000, 30_000]],
  ["Azure, for another machine", "azure", () => [200, preempt({ Resources: ["gpu_4"], NotBefore: "" })], null],
  [
    "Azure, of another kind",
    "azure",
    () => [200, preempt({ EventType: "Reboot", Resources: ["gpu_3"], NotBefore: "" })],
    null,
  ],
])("a notice is read from %s", async (_, cloud, answer, expected) => {
  metadata[cloud] = answer();
  const noticeMs = await noticeOf(cloud, metadata.fetch, AbortSignal.timeout(10_000));
  if (expected === null) {
    expect(noticeMs).toBeNull();
  } else {
    expect(noticeMs).toBeGreaterThanOrEqual(expected[0]);
    expect(noticeMs).toBeLessThanOrEqual(expected[1]);
  }
});

test.each<[Cloud, [number, string]]>([
  ["aws", [500, "oops"]],
  ["aws", [200, "<html>"]],
  ["gcp", [404, "not found"]],
  ["azure", [200, "{}"]],
])("an answer of %s that is no such notice is an error: %o", async (cloud, answer) => {
  metadata[cloud] = answer;
  await expect(noticeOf(cloud, metadata.fetch, AbortSignal.timeout(10_000))).rejects.toThrow();
});

async function runWorker(handler: Parameters<typeof work>[1], more: WorkOptions): Promise<[Summary, string[]]> {
  const lines: string[] = [];
  const summary = await work("embed", handler, {
    url: "http://stack.test",
    key: "sb_secret_0123456789",
    fetch: metadata.fetch,
    handleSignals: false,
    log: (line) => lines.push(line),
    ...more,
  });
  return [summary, lines];
}

test("a worker hands back what does not end before its cloud takes the machine", async () => {
  metadata.aws = [404, "not found"];
  const [summary, lines] = await runWorker(
    (_, { signal }) =>
      new Promise((_, reject) => {
        metadata.aws = [200, `{"action": "stop", "time": "${new Date(Date.now() + 12_000).toISOString()}"}`];
        signal.addEventListener("abort", () => reject(signal.reason));
      }),
    { spot: "aws" },
  );
  expect(summary).toMatchObject({ why: "spot", isWorkLeft: true, released: 1, succeeded: 0 });
  expect(database.rows.map(({ status, failures }) => [status, failures])).toEqual(Array(2).fill(["ready", 0]));
  expect(lines.join("\n")).toMatch(/^aws takes this machine back: claiming no more, 1 to finish within \d s$/m);
});

test("a worker goes on where no notice can be read, and says so once", async () => {
  metadata.gcp = [403, "not here"];
  const [summary, lines] = await runWorker(() => null, { spot: "gcp", untilEmpty: true });
  expect(summary).toMatchObject({ why: "empty", succeeded: 2 });
  expect(lines.filter((line) => line.startsWith("WORK_SPOT is gcp, and no notice can be read"))).toHaveLength(1);
});
