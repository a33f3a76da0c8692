// The page on telemetry, as it is written: real workers on Node and Deno, PostgREST, and a service that they call.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { denoProgram } from "../src/demo/processes.ts";
import { type Context, SettingsError, type WorkOptions, work } from "../workers/runtime/work.ts";
import { openApi } from "./support/api.ts";
import { call, stored, typeWithPool, waitUntil } from "./support/calls.ts";
import { expectInvariants } from "./support/invariants.ts";
import { parseMetrics } from "./support/prometheus.ts";

const root = join(import.meta.dirname, "..");
const page = readFileSync(join(root, "docs", "telemetry.md"), "utf8");
const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
const traceparent = `00-${trace}-00f067aa0ba902b7-01`;

const stack = await openApi();
const sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
const folder = mkdtempSync(join(tmpdir(), "work-claims-telemetry-"));
const children: ChildProcess[] = [];

const received: IncomingHttpHeaders[] = [];
const captioner = createServer((request, response) => {
  received.push(request.headers);
  response.writeHead(received.length % 2 === 1 ? 503 : 200).end('{"caption": "a cat"}');
});
beforeAll(async () => {
  await once(captioner.listen(0, "127.0.0.1"), "listening");
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(root, join(folder, "node_modules", "work-claims"), "dir");
});
afterAll(async () => {
  for (const child of children) {
    child.kill("SIGKILL");
  }
  captioner.close();
  await expectInvariants(sql);
  await sql.end({ timeout: 1 });
  rmSync(folder, { recursive: true, force: true });
});

const portOf = (server: { address(): unknown }): number => (server.address() as AddressInfo).port;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const port = portOf(server);
  server.close();
  return port;
}

function block(language: string, n = 0): string {
  return [...page.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, "gm"))][n]?.[1] as string;
}

const read = async (url: string): Promise<Record<string, number>> => parseMetrics(await (await fetch(url)).text());

describe.each(["Node", "Deno"])("on %s", (host) => {
  test("the commands of the page run as written: JSON lines, metrics, and the trace arrives at the service", async () => {
    const port = await freePort();
    const [start, read] = [block("sh", 0), block("sh", 1)].map((command) => command.replaceAll("9464", String(port)));
    const runtime = join(root, "workers", "runtime", "work.ts");
    writeFileSync(
      join(folder, "caption.mjs"),
      host === "Node" ? block("js") : block("js").replace("work-claims/worker", runtime),
    );
    const deno = `"${denoProgram()}" run --quiet --no-config --no-lock --allow-net --allow-env --allow-sys=hostname`;
    const startHere = host === "Node" ? start : start?.replace("node ", `${deno} `);
    await call(sql, "define_work_type", { work_type: "caption", pool: "default", backoff_seconds: 0 });
    received.length = 0;
    const answer = await sql.unsafe(block("sql"));
    const [id] = answer[0]?.enqueue_items ?? [];

    const shell = spawn("bash", ["-c", `${startHere} echo $!; wait $!`], {
      cwd: folder,
      stdio: ["ignore", "pipe", "inherit"],
      env: {
        ...process.env,
        SUPABASE_URL: stack.url,
        SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
        CAPTIONER_URL: `http://127.0.0.1:${portOf(captioner)}`,
        WORK_ID: `a worker on ${host}`,
        WORK_IDLE_SECONDS: "1",
      },
    });
    children.push(shell);
    const [pid] = await once(shell.stdout, "data");
    await waitUntil(async () => (await stored(sql, id, "caption")).status === "succeeded");
    let metrics = "";
    await waitUntil(async () => {
      metrics = (await promisify(execFile)("bash", ["-c", read as string])).stdout;
      return parseMetrics(metrics)['work_claims_outcomes_total{work_type="caption",outcome="succeeded"}'] === 1;
    });
    process.kill(Number(pid), "SIGTERM");
    await once(shell, "exit");

    expect(parseMetrics(metrics)).toMatchObject({
      'work_claims_claimed_total{work_type="caption"}': 2,
      'work_claims_outcomes_total{work_type="caption",outcome="failed"}': 1,
      'work_claims_handler_seconds_count{work_type="caption"}': 2,
      work_claims_held: 0,
      work_claims_database_up: 1,
    });
    const names = [...page.matchAll(/^\| `(work_claims_\w+)` \|/gm)].map(([, name]) => name);
    expect([...metrics.matchAll(/^# TYPE (\w+)/gm)].map(([, name]) => name)).toEqual(names);

    const log = readFileSync(join(folder, "worker.log"), "utf8");
    const lines = log
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines.find(({ message }) => message.startsWith("failed"))).toMatchObject({
      message: `failed caption ${id}: the captioner answered 503`,
      "messaging.client.id": `a worker on ${host}`,
      "messaging.message.id": id,
      trace_id: trace,
    });
    expect(lines.at(-1)).toMatchObject({ "work_claims.succeeded": 1, "work_claims.failed": 1 });
    expect(log).not.toContain(stack.secretKey);

    const sent = received.map((headers) => headers.traceparent as string);
    expect(sent).toHaveLength(2);
    for (const each of sent) expect(each).toMatch(new RegExp(`^00-${trace}-[0-9a-f]{16}-01$`));
    expect(new Set([...sent, traceparent]).size).toBe(3);
  });
});

test("the error that ends a worker is a JSON line too", async () => {
  const program = join(root, "dist", "workers", "worker.js");
  const { SUPABASE_URL: _, ...env } = process.env;
  const shell = spawn(process.execPath, [program], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...env, WORK_LOG: "json", WORK_TYPE: "caption", WORK_ID: "w1" },
  });
  const [line] = await once(shell.stderr.setEncoding("utf8"), "data");
  expect(JSON.parse(line)).toMatchObject({
    level: "warn",
    message: "SUPABASE_URL is not set",
    "messaging.client.id": "w1",
    "error.type": "SettingsError",
  });
});

test("the example of a JSON line has the fields that the page names", () => {
  const named = [...page.matchAll(/^\| `([a-z_.]+)`/gm)].map(([, name]) => name as string);
  const line = JSON.parse(block("json"));
  expect(
    Object.keys(line).filter((name) => name !== "time" && name !== "message" && name !== "messaging.system"),
  ).toEqual(
    expect.arrayContaining(
      named.filter((name) => /^(level|messaging|error|trace)/.test(name) && !name.includes("batch")),
    ),
  );
});

const quiet: WorkOptions = {
  url: stack.url,
  key: stack.secretKey,
  untilEmpty: true,
  handleSignals: false,
  idleMinSeconds: 0.02,
};

test("a worker that picks candidates hands on the trace, and null where the item has none", async () => {
  await sql`insert into work_pools (name) values ('traced')`;
  const items = [{ pool: "traced", traceparent }, { pool: "traced" }];
  await call(sql, "enqueue_items", { items });
  const traces: (string | null)[] = [];
  const handler = (_: unknown, context: Context): void => void traces.push(context.traceparent);
  await work("undeclared", handler, { ...quiet, pool: "traced", log: () => {} });
  expect(traces.map((each) => each?.split("-")[1] ?? null).sort()).toEqual([trace, null].sort());
});

test("a malformed traceparent is refused when it is enqueued", async () => {
  await expect(call(sql, "enqueue_items", { items: [{ traceparent: "00-4bf9-00f0-01" }] })).rejects.toThrow(
    /traceparent is a text such as/,
  );
});

describe("the metrics of a worker", () => {
  /** Runs a worker with a free port, and its handler with the address of the metrics. */
  async function served(
    type: string,
    handler: (url: string) => unknown,
    more: WorkOptions = {},
  ): Promise<{ url: string; lines: string[] }> {
    const lines: string[] = [];
    const url = (): string => lines.find((line) => line.startsWith("metrics"))?.replace("metrics are at ", "") ?? "";
    await work(type, () => handler(url()), { ...quiet, metricsPort: 0, log: (line) => lines.push(line), ...more });
    return { url: url(), lines };
  }

  test("show what it holds and runs, at their address only, and end with it", async () => {
    const { type } = await typeWithPool(sql, 3);
    let seen: Record<string, number> = {};
    const statuses: number[] = [];
    const { url, lines } = await served(
      type,
      async (address) => {
        seen = await read(address);
        for (const [path, method] of [
          ["", "POST"],
          ["/else", "GET"],
        ] as const) {
          statuses.push((await fetch(new URL(`/metrics${path}`, address), { method })).status);
        }
        expect((await fetch(address)).headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
      },
      { batch: 3, maxClaims: 3 },
    );
    expect(lines.at(-1)).toMatch(/3 succeeded, 0 failed/);
    expect(seen.work_claims_running_handlers).toBe(1);
    expect(seen.work_claims_held).toBeGreaterThan(0);
    expect(seen[`work_claims_claimed_total{work_type="${type}"}`]).toBe(3);
    expect(new Set(statuses)).toEqual(new Set([405, 404]));
    await expect(fetch(url)).rejects.toThrow();
  });

  test("are refused at a port that another process has, before anything is claimed", async () => {
    const { type, ids } = await typeWithPool(sql, 1);
    const started = served(type, () => {}, { metricsPort: portOf(captioner) });
    await expect(started).rejects.toThrow(
      `WORK_METRICS_PORT is ${portOf(captioner)}, which another process uses on 127.0.0.1; give each worker of a machine its own`,
    );
    await expect(started).rejects.toBeInstanceOf(SettingsError);
    expect((await stored(sql, ids[0], type)).status).toBe("ready");
  });

  test("end with a reader still connected", async () => {
    const { type } = await typeWithPool(sql, 1);
    let reader: ReturnType<typeof setInterval> | undefined;
    await served(type, async (address) => {
      await fetch(address, { headers: { connection: "keep-alive" } });
      reader = setInterval(() => void fetch(address).catch(() => {}), 1);
    });
    clearInterval(reader);
  });
});
