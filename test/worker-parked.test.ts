// Real workers over PostgREST, and a provider of jobs: a small HTTP server on this machine.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "../workers/runtime/clock.ts";
import {
  type Claim,
  type Context,
  FinalError,
  Later,
  parked,
  type WorkOptions,
  work,
} from "../workers/runtime/work.ts";
import { openApi } from "./support/api.ts";
import { call, endLeases, endWaits, stored, typeWithItems, waitUntil } from "./support/calls.ts";
import { expectInvariants } from "./support/invariants.ts";
import { parseMetrics } from "./support/prometheus.ts";

const stack = await openApi();
const sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });

/** A job is done the second time that somebody asks. */
const asked = new Map<string, number>();
const stopped: string[] = [];
interface Answer {
  status: string;
  output: string;
}
let jobs = 0;
const provider = createServer((request, response) => {
  const job = request.url?.split("/").at(-1) ?? "";
  if (request.method === "POST") {
    jobs += 1;
    response.end(JSON.stringify({ id: `job-${jobs}` }));
    return;
  }
  if (request.method === "DELETE") {
    stopped.push(job);
  }
  asked.set(job, (asked.get(job) ?? 0) + 1);
  const isDone = (asked.get(job) ?? 0) > 1;
  response.end(JSON.stringify({ status: isDone ? "done" : "running", output: `made by ${job}` }));
});
let address = "";
beforeAll(async () => {
  await once(provider.listen(0, "127.0.0.1"), "listening");
  address = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`;
});
afterAll(async () => {
  await expectInvariants(sql);
  provider.close();
  await sql.end({ timeout: 1 });
});

function worker(type: string, handler: (claim: Claim, context: Context) => unknown, more: WorkOptions = {}) {
  const lines: string[] = [];
  const ended = work(type, handler, {
    url: stack.url,
    key: stack.secretKey,
    untilEmpty: true,
    handleSignals: false,
    idleMinSeconds: 0.05,
    idleMaxSeconds: 0.1,
    log: (line) => lines.push(line),
    ...more,
  });
  return { ended, lines };
}

test("a worker that polls closes what it parked, with the result of the job", async () => {
  const { type, ids } = await typeWithItems(sql, 5);
  const { ended } = worker(type, (claim) => parked(claim.item_id, 600), {
    concurrency: 5,
    pollSeconds: 1,
    async poll({ external_id }) {
      const { status, output } = (await (await fetch(`${address}/${external_id}`)).json()) as Answer;
      return status === "done" ? { output } : undefined;
    },
  });
  expect(await ended).toMatchObject({ parked: 5, succeeded: 0, failed: 0, lost: 0 });
  for (const id of ids) {
    expect(await stored(sql, id, type)).toMatchObject({ status: "succeeded", result: { output: `made by ${id}` } });
  }
});

test("the metrics of a worker count what its poll closes", async () => {
  const { type, ids } = await typeWithItems(sql, 2);
  const { ended, lines } = worker(type, (claim) => parked(claim.item_id, 600), {
    concurrency: 2,
    pollSeconds: 1,
    metricsPort: 0,
    async poll({ item_id }) {
      if (item_id === ids[0]) {
        return "done at once";
      }
      const url = lines.find((line) => line.startsWith("metrics are at "))?.slice("metrics are at ".length) ?? "";
      const metrics = parseMetrics(await (await fetch(url)).text());
      return metrics[`work_claims_outcomes_total{work_type="${type}",outcome="succeeded"}`] === 1 ? "done" : undefined;
    },
  });
  expect(await ended).toMatchObject({ parked: 2, succeeded: 0 });
});

test("a worker without poll leaves parked claims alone", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  const { ended } = worker(type, () => parked("elsewhere", 600));
  expect(await ended).toMatchObject({ parked: 1 });
  expect(await stored(sql, ids[0], type)).toMatchObject({ status: "claimed", external_id: "elsewhere" });
});

test("an error of poll is no failure of the job, but FinalError is", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  let times = 0;
  const { ended, lines } = worker(type, () => parked("broken", 600), {
    pollSeconds: 1,
    poll() {
      times += 1;
      throw times === 1 ? new Error("the provider does not answer") : new FinalError("the input is odd");
    },
  });
  await ended;
  expect(lines.join("\n")).toContain(
    "could not ask about job broken, asking again later: the provider does not answer",
  );
  expect(await stored(sql, ids[0], type)).toMatchObject({ status: "failed", error: "the input is odd" });
});

test("a result of poll that cannot be stored is a failure that says why", async () => {
  const { type, ids } = await typeWithItems(sql, 1, { max_failures: 1 });
  const { ended } = worker(type, () => parked("big", 600), {
    pollSeconds: 1,
    poll: () => "x".repeat(1_100_000),
  });
  await ended;
  expect((await stored(sql, ids[0], type)).error).toMatch(/the handler's result has 1100002 bytes/);
});

test("a cancelled claim's job is stopped, once", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  const stop = new AbortController();
  const { ended } = worker(type, () => parked("cancelled", 600), {
    untilEmpty: false,
    signal: stop.signal,
    pollSeconds: 1,
    poll: () => undefined,
    abandon: ({ external_id }) => fetch(`${address}/${external_id}`, { method: "DELETE" }),
  });
  await waitUntil(async () => (await stored(sql, ids[0], type)).external_id === "cancelled");
  await call(sql, "cancel_items", { work_type: type, item_ids: ids });
  await waitUntil(async () => (await stored(sql, ids[0], type)).external_id === null);
  stop.abort();
  await ended;
  expect(stopped).toEqual(["cancelled"]);
});

test("a poll that never ends does not hold up the end of the worker", async () => {
  const { type } = await typeWithItems(sql, 1);
  const stop = new AbortController();
  const { ended } = worker(type, () => parked("silent", 600), {
    untilEmpty: false,
    signal: stop.signal,
    pollSeconds: 1,
    poll() {
      stop.abort();
      return new Promise(() => {});
    },
  });
  expect(await ended).toMatchObject({ parked: 1 });
});

test("the job of a claim that was cancelled before it was parked is stopped", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  const abandoned: string[] = [];
  const { ended, lines } = worker(
    type,
    async () => {
      await call(sql, "cancel_items", { work_type: type, item_ids: ids });
      return parked("too late", 600);
    },
    { abandon: ({ external_id, is_ended }) => abandoned.push(`${external_id} ${is_ended}`) },
  );
  expect(await ended).toMatchObject({ lost: 1, parked: 0 });
  expect(abandoned).toEqual(["too late true"]);
  expect(lines.join("\n")).toContain("no claim waits for the job too late");
});

test("a poll that never ends does not keep other jobs from being asked about", async () => {
  const { type, ids } = await typeWithItems(sql, 2);
  let isSecond = false;
  const { ended } = worker(type, (claim) => parked(claim.item_id, 600), {
    concurrency: 2,
    pollSeconds: 1,
    clock: { now: systemClock.now, sleep: (ms, signal) => systemClock.sleep(ms === 60_000 ? 500 : ms, signal) },
    poll: ({ external_id }) => (external_id === ids[0] && !isSecond ? new Promise(() => {}) : "done"),
  });
  await waitUntil(async () => (await stored(sql, ids[1], type)).status === "succeeded");
  isSecond = true;
  await ended;
  expect(await stored(sql, ids[0], type)).toMatchObject({ status: "succeeded" });
});

test("parked() with a wrong time is a failure that says what was expected", async () => {
  const { type, ids } = await typeWithItems(sql, 1, { max_failures: 1 });
  await worker(type, () => parked("x", Number.NaN)).ended;
  expect((await stored(sql, ids[0], type)).error).toMatch(/seconds is a number from 1 to 604800/);
});

test("Later gives the claim back with its state, and no try is counted", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  const stop = new AbortController();
  const states: unknown[] = [];
  const { ended, lines } = worker(
    type,
    async (claim, { save }) => {
      states.push(claim.state);
      if (claim.state === null) {
        void save({ page: 7 });
        throw new Later(3600, "the quota is used up");
      }
    },
    { untilEmpty: false, signal: stop.signal },
  );
  await waitUntil(async () => (await stored(sql, ids[0], type)).status === "waiting");
  expect(await stored(sql, ids[0], type)).toMatchObject({ failures: 0, state: { page: 7 } });
  await endWaits(sql, type);
  await waitUntil(async () => (await stored(sql, ids[0], type)).status === "succeeded");
  stop.abort();
  expect(await ended).toMatchObject({ succeeded: 1, released: 1, failed: 0 });
  expect(states).toEqual([null, { page: 7 }]);
  expect(lines.join("\n")).toContain(`snoozed ${type} ${ids[0]}: the quota is used up`);
});

test("a job that is killed after nine of ten steps starts at the tenth", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  const program = `
    import { work } from ${JSON.stringify(join(import.meta.dirname, "..", "dist", "workers", "runtime", "work.js"))};
    await work(${JSON.stringify(type)}, async (claim, { save }) => {
      for (let step = (claim.state?.done ?? 0) + 1; step <= 10; step++) {
        console.log(step);
        await save({ done: step });
        if (step === 9 && claim.state === null) process.kill(process.pid, "SIGKILL");
      }
    }, { untilEmpty: true });`;
  const run = async (): Promise<string[]> => {
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
      env: { ...process.env, SUPABASE_URL: stack.url, SUPABASE_SERVICE_ROLE_KEY: stack.secretKey },
      stdio: ["ignore", "pipe", "ignore"],
    });
    let out = "";
    child.stdout.on("data", (data) => {
      out += data;
    });
    await once(child, "close");
    return out.trim().split("\n");
  };
  expect(await run()).toEqual(["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
  await endLeases(sql, type);
  expect(await run()).toEqual(["10"]);
  expect(await stored(sql, ids[0], type)).toMatchObject({ status: "succeeded", crashes: 1, state: null });
});

test("of many saves that are not awaited, the latest is kept", async () => {
  const { type, ids } = await typeWithItems(sql, 1, { max_failures: 1 });
  await worker(type, async (_claim, { save }) => {
    await Promise.all(Array.from({ length: 50 }, (_, n) => save({ n })));
    expect(await stored(sql, ids[0], type)).toMatchObject({ state: { n: 49 } });
    throw new Error("done");
  }).ended;
  expect(await stored(sql, ids[0], type)).toMatchObject({ error: "done", state: { n: 49 } });
});

test.each([
  [undefined, /save\(\) was called with nothing/],
  [null, /save\(\) was called with nothing/],
  ["x".repeat(65_535), /the saved state has 65537 bytes; a claim keeps at most 65536/],
  ["\0", /the saved state has a character/],
  [10n, /the saved state is no JSON/],
])("save refuses what cannot be stored (%#)", async (state, message) => {
  const { type, ids } = await typeWithItems(sql, 1, { max_failures: 1 });
  await worker(type, (_claim, { save }) => save(state)).ended;
  expect((await stored(sql, ids[0], type)).error).toMatch(message);
});

test("a state that Postgres finds too long is refused to its handler, and the worker goes on", async () => {
  const { type } = await typeWithItems(sql, 2, { max_failures: 1 });
  const refusals: string[] = [];
  const { ended } = worker(type, async (_claim, { save }) => {
    // Postgres writes each number out.
    const state = Array.from({ length: 1000 }, () => 1e300);
    await save(state).catch((error) => refusals.push(error.message));
  });
  expect(await ended).toMatchObject({ succeeded: 2 });
  expect(refusals).toEqual(Array(2).fill(expect.stringContaining("state has at most 65536 bytes")));
});

test("save rejects where the claim is lost", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  let said = "";
  const { ended } = worker(type, async (_claim, { save }) => {
    await call(sql, "cancel_items", { work_type: type, item_ids: ids });
    await save({}).catch((error) => {
      said = error.message;
    });
  });
  expect(await ended).toMatchObject({ lost: 1 });
  expect(said).toContain("it was cancelled");
});

describe("the page on parked work", () => {
  const page = readFileSync(join(import.meta.dirname, "..", "docs", "parked-work.md"), "utf8");
  const runtime = join(import.meta.dirname, "..", "dist", "workers", "runtime", "work.js");
  const folder = mkdtempSync(join(tmpdir(), "work-claims-parked-"));

  /** Runs a program of the page as it stands until it has nothing left to do. */
  async function runProgram(name: string): Promise<string> {
    const [, program = ""] = new RegExp(`^\`\`\`js\n(// ${name}\n[\\s\\S]*?)^\`\`\``, "m").exec(page) ?? [];
    writeFileSync(join(folder, name), program.replace("work-claims/worker", runtime));
    const child = spawn(process.execPath, [join(folder, name)], {
      env: {
        ...process.env,
        ...{ SUPABASE_URL: stack.url, SUPABASE_SERVICE_ROLE_KEY: stack.secretKey, PROVIDER_URL: `${address}/jobs` },
        ...{ WORK_UNTIL_EMPTY: "1", WORK_POLL_SECONDS: "1", WORK_IDLE_SECONDS: "1" },
      },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let out = "";
    child.stdout.on("data", (data) => {
      out += data;
    });
    await once(child, "close");
    return out;
  }

  test("parks what it renders, and closes it with what the provider made", async () => {
    await call(sql, "define_work_type", { work_type: "render", pool: "default" });
    const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ payload: { scene: 1 } }] });
    await runProgram("render.mjs");
    expect(await stored(sql, id, "render")).toMatchObject({ status: "succeeded", result: "made by job-1" });
  });

  test("keeps the state of ten steps", async () => {
    await call(sql, "define_work_type", { work_type: "steps", pool: "default" });
    const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ payload: {} }] });
    expect((await runProgram("steps.mjs")).trim().split("\n")).toEqual([
      "0",
      "1",
      "2",
      "3",
      "4",
      "5",
      "6",
      "7",
      "8",
      "9",
    ]);
    expect(await stored(sql, id, "steps")).toMatchObject({ status: "succeeded" });
  });

  test("has SQL that runs as it is written", async () => {
    const blocks = [...page.matchAll(/^```sql\n([\s\S]*?)^```/gm)].map(([, block]) => block as string);
    expect(blocks).toHaveLength(2);
    for (const block of blocks) {
      await sql.unsafe(block);
    }
  });
});
