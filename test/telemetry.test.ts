// A worker reports on itself: it logs lines, counts, and carries the trace of an item.
import { execFileSync, spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { RequestError } from "../workers/runtime/errors.ts";
import { createLog, errorType, itemFields } from "../workers/runtime/log.ts";
import { createMetrics } from "../workers/runtime/metrics.ts";
import { createTally } from "../workers/runtime/tally.ts";
import { traceOfTry } from "../workers/runtime/trace.ts";
import { SettingsError, type WorkOptions, work } from "../workers/runtime/work.ts";
import { createFakeClock, type FakeClock } from "./support/fake-clock.ts";
import { parseMetrics } from "./support/prometheus.ts";
import { createServer, problem, type Server, uuid } from "./support/scripted-transport.ts";

const key = "sb_secret_canary0123456789";

function world(items: number, more: WorkOptions = {}): World {
  const clock = createFakeClock();
  const server = createServer(clock, items);
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

interface World {
  clock: FakeClock;
  server: Server;
  lines: string[];
  options: WorkOptions;
}

describe("log lines", () => {
  async function eventful(format: "pretty" | "json"): Promise<string[]> {
    const { clock, server, lines, options } = world(3, { logFormat: format });
    server.script = (call, nth) => (call.name === "claim_next" && nth <= 3 ? problem(503, "53300") : undefined);
    const handler = async (claim: { payload: { n: number } }): Promise<void> => {
      if (claim.payload.n === 2) throw new Error(`the key ${key}\nwas "refused"`);
      if (claim.payload.n === 3) {
        Object.assign(server.rows[2] as object, { fence: 99, worker_id: "w2", status: "succeeded" });
        await clock.sleep(30_000);
      }
    };
    await clock.drive(work("embed", handler, options));
    return lines;
  }

  test("a pretty line is a sentence", async () => {
    const lines = await eventful("pretty");
    expect(lines).toContain(`failed embed ${uuid(2)}: the key [key]`);
    expect(lines).toContain(`lost embed ${uuid(3)}: its lease was lost`);
    expect(lines.join("\n")).not.toContain("messaging");
  });

  test("a JSON line is an object with OpenTelemetry's names, and has the sentence too", async () => {
    const events = (await eventful("json")).map((line) => JSON.parse(line));
    for (const event of events) {
      expect(event).toMatchObject({ "messaging.system": "work_claims", "messaging.client.id": "w1" });
      expect(new Date(event.time).toISOString()).toBe(event.time);
      expect(event.level).toBe("error.type" in event ? "warn" : "info");
    }
    expect(events.find(({ message }) => message.startsWith("failed"))).toMatchObject({
      message: `failed embed ${uuid(2)}: the key [key]`,
      level: "warn",
      "messaging.operation.name": "handle",
      "messaging.operation.type": "process",
      "messaging.destination.name": "embed",
      "messaging.message.id": uuid(2),
      "error.type": "handler_failed",
    });
    expect(events.find(({ message }) => message.startsWith("lost"))).toMatchObject({
      "messaging.message.id": uuid(3),
      "error.type": "claim_lost",
    });
    expect(events.find(({ message }) => message.startsWith("no answer"))).toMatchObject({ "error.type": "53300" });
    expect(events.at(-1)).toMatchObject({ "work_claims.succeeded": 1, "work_claims.failed": 1, "work_claims.lost": 1 });
  });

  test.each(["pretty", "json"] as const)("a %s line is one line without the key, whatever is in it", (format) => {
    const lines: string[] = [];
    const redact = (text: string): string => text.replaceAll(key, "[key]");
    const log = createLog(
      format,
      () => `a ${key} worker`,
      redact,
      (line) => lines.push(line),
    );
    log(`two\nlines\r\n\u2028 and ${key} "quoted" \ud800`, { field: `${key}\nand more`, count: 3 });
    log("");
    expect(lines).toHaveLength(2);
    expect(lines.join("")).not.toMatch(/canary|[\n\r\u2028]/);
    expect(lines[0]).toContain("two lines and [key]");
  });

  test("the fields of an item have a trace where the item has one", () => {
    const item = { item_id: "i", work_type: "embed" };
    expect(itemFields(item)).toEqual({ "messaging.destination.name": "embed", "messaging.message.id": "i" });
    expect(itemFields({ ...item, traceparent: null })).not.toHaveProperty("trace_id");
    expect(itemFields({ ...item, traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01` })).toMatchObject({
      trace_id: "a".repeat(32),
    });
  });

  test.each([
    [new RequestError("x", { code: "timeout", isRetryable: true }), "timeout"],
    [new RequestError("x", { status: 500, isRetryable: true }), "500"],
    [new TypeError("x"), "TypeError"],
    ["text", "other"],
  ])("the type of an error is its code, status or class (%#)", (error, type) => {
    expect(errorType(error)).toEqual({ "error.type": type });
  });

  test("a wrong WORK_LOG is named", async () => {
    const { options } = world(0, { logFormat: "yaml" as "json" });
    await expect(work("embed", () => {}, options)).rejects.toThrow("logFormat is yaml; pretty or json was expected");
    await expect(work("embed", () => {}, options)).rejects.toBeInstanceOf(SettingsError);
  });
});

const promtool = process.env.PROMTOOL ?? "promtool";
const hasPromtool = spawnSync(promtool, ["--version"]).status === 0;

describe("metrics", () => {
  const odd = 'a "quoted\\ type"\nof two lines';
  const now = { held: 3, concurrency: 2, isDatabaseUp: false };

  /** Two handlers of 0.2 s and 2 h have ended, and one has run for a minute. */
  async function filled(): Promise<string> {
    const clock = createFakeClock();
    const metrics = createMetrics(clock, ["embed", odd]);
    const tally = createTally(clock, () => {}, metrics);
    const item = { item_id: "i", fence: 1, work_type: "embed" };
    tally.addClaims(["embed", "embed", "embed", odd]);
    tally.addOutcome({ ...item, outcome: "succeeded" }, "succeeded");
    tally.addOutcome({ ...item, outcome: "succeeded" }, "lost");
    tally.addOutcome({ ...item, outcome: "succeeded" }, "ready");
    tally.addOutcome({ ...item, outcome: "failed" }, "waiting");
    tally.addOutcome({ ...item, outcome: "snoozed" }, "waiting");
    tally.addLost("embed");
    const endShort = metrics.startHandler("embed");
    await clock.drive(clock.sleep(200));
    endShort();
    const endLong = metrics.startHandler("embed");
    await clock.drive(clock.sleep(7_200_000));
    endLong();
    metrics.startHandler(odd);
    await clock.drive(clock.sleep(60_000));
    return metrics.text(now);
  }

  test("each claim, outcome and lost lease counts once, by work type", async () => {
    const values = parseMetrics(await filled());
    expect(values).toMatchObject({
      'work_claims_claimed_total{work_type="embed"}': 3,
      'work_claims_claimed_total{work_type="a \\"quoted\\\\ type\\"\\nof two lines"}': 1,
      'work_claims_outcomes_total{work_type="embed",outcome="succeeded"}': 1,
      'work_claims_outcomes_total{work_type="embed",outcome="failed"}': 1,
      'work_claims_outcomes_total{work_type="embed",outcome="again"}': 1,
      'work_claims_outcomes_total{work_type="embed",outcome="released"}': 0,
      'work_claims_outcomes_total{work_type="embed",outcome="snoozed"}': 1,
      'work_claims_leases_lost_total{work_type="embed"}': 2,
      work_claims_held: 3,
      work_claims_concurrency: 2,
      work_claims_running_handlers: 1,
      work_claims_database_up: 0,
    });
  });

  test("a duration is in all buckets from its own on, and a handler that runs counts as busy", async () => {
    const values = parseMetrics(await filled());
    const bucket = (le: string): number | undefined =>
      values[`work_claims_handler_seconds_bucket{work_type="embed",le="${le}"}`];
    expect(["0.1", "0.5", "3600", "7200", "86400", "+Inf"].map(bucket)).toEqual([0, 1, 1, 2, 2, 2]);
    expect(values['work_claims_handler_seconds_count{work_type="embed"}']).toBe(2);
    expect(values['work_claims_handler_seconds_sum{work_type="embed"}']).toBeCloseTo(7200.2);
    expect(values.work_claims_busy_seconds_total).toBeCloseTo(7260.2);
  });

  test.skipIf(!hasPromtool)(
    `promtool has nothing to say about them (it is in Debian's package prometheus)`,
    async () => {
      expect(execFileSync(promtool, ["check", "metrics"], { input: await filled(), encoding: "utf8" })).toBe("");
      const empty = createMetrics(createFakeClock(), []).text(now);
      expect(execFileSync(promtool, ["check", "metrics"], { input: empty, encoding: "utf8" })).toBe("");
    },
  );

  test.each([
    [{ metricsPort: 65_536 }, "metricsPort is 65536; a whole number from 0 to 65535 was expected"],
    [
      { metricsPort: 0, metricsHost: "192.0.2.1" },
      /^WORK_METRICS_HOST is 192\.0\.2\.1, which is no address of this machine/,
    ],
  ])("a wrong port or address is named (%#)", async (wrong, message) => {
    const { options, server } = world(0, { ...wrong });
    const { clock: _, ...real } = options;
    await expect(work("embed", () => {}, real)).rejects.toThrow(message);
    expect(server.calls).toEqual([]);
  });
});

describe("the traceparent of a try", () => {
  const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  const span = "00f067aa0ba902b7";

  test("keeps trace and sampling, with a new span each time", () => {
    const tries = [traceOfTry(`00-${trace}-${span}-01`), traceOfTry(`00-${trace}-${span}-01`)];
    for (const each of tries) expect(each).toMatch(new RegExp(`^00-${trace}-(?!${span})[0-9a-f]{16}-01$`));
    expect(tries[0]).not.toBe(tries[1]);
    expect(traceOfTry(`00-${trace}-${span}-00`)).toMatch(/-00$/);
  });

  test("reads the first four parts of a later version, and goes on in the first", () => {
    expect(traceOfTry(`cc-${trace}-${span}-03-what-comes-later`)).toMatch(new RegExp(`^00-${trace}-[0-9a-f]{16}-01$`));
  });

  test.each([
    null,
    undefined,
    "",
    `ff-${trace}-${span}-01`,
    `00-${trace}-${span}-01-more`,
    `00-${"0".repeat(32)}-${span}-01`,
    `00-${trace}-${"0".repeat(16)}-01`,
    `00-${trace.toUpperCase()}-${span}-01`,
    `00-${trace}-${span}`,
    `00-${trace}-${span}-01\n`,
    ` 00-${trace}-${span}-01`,
  ])("is null where the item has none or a wrong one (%j)", (given) => {
    expect(traceOfTry(given)).toBeNull();
  });
});
