// Workers as processes that leave, on Node and Deno: their exit statuses, and the program that they run at the end.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import postgres from "postgres";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { createWorkClient } from "../src/client.ts";
import { denoProgram } from "../src/demo/processes.ts";
import { openApi } from "./support/api.ts";
import { waitUntil } from "./support/calls.ts";
import { expectInvariants } from "./support/invariants.ts";

const stack = await openApi();
const sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
const client = createWorkClient({ url: stack.url, key: stack.secretKey });
const folder = mkdtempSync(join(tmpdir(), "work-claims-leaving-"));
const running = new Set<ChildProcess>();
afterAll(async () => {
  for (const child of running) {
    child.kill("SIGKILL");
  }
  await expectInvariants(sql);
  await sql.end({ timeout: 1 });
  rmSync(folder, { recursive: true });
});

interface Ended {
  status: number | null;
  /** Standard error: the worker's log. */
  log: string;
}

const hosts = {
  Node: [process.execPath],
  Deno: [denoProgram() ?? "deno", "run", "--allow-net", "--allow-env", "--allow-sys=hostname", "--allow-run"],
};
type Host = keyof typeof hosts;

function start(command: string[], variables: Record<string, string>): { child: ChildProcess; ended: Promise<Ended> } {
  const [program, ...args] = [...command, join(import.meta.dirname, "support", "leaving-worker.mjs")] as [string];
  const child = spawn(program, args, {
    stdio: ["ignore", "ignore", "pipe"],
    env: {
      ...process.env,
      SUPABASE_URL: stack.url,
      SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
      WORK_TYPE: "leave",
      WORK_GRACE_SECONDS: "1",
      ...variables,
    },
  });
  running.add(child);
  let log = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    log += text;
  });
  const ended = once(child, "close").then(([status]) => {
    running.delete(child);
    return { status, log };
  });
  return { child, ended };
}

const run = (host: Host, variables: Record<string, string>): Promise<Ended> => start(hosts[host], variables).ended;

const count = async (status: string): Promise<number> => {
  const [row] = await sql`select count(*)::integer as count from work_claims where status = ${status}`;
  return row?.count;
};

const isThere = async (rows: PromiseLike<readonly unknown[]>): Promise<boolean> => (await rows).length > 0;

async function enqueue(...payloads: { ms?: number; hangs?: boolean }[]): Promise<void> {
  await client.enqueueItems(payloads.map((payload) => ({ payload })));
}

/** A program that writes its arguments to a file; and the file. */
function program(name: string): { file: string; argv: string } {
  const file = join(folder, `${name}.json`);
  const script = "require('fs').writeFileSync(process.argv[1], JSON.stringify(process.argv.slice(2)))";
  return { file, argv: JSON.stringify([process.execPath, "-e", script, file, "a b", "$HOME; $(id)", "*", ""]) };
}

beforeEach(async () => {
  await sql`delete from work_items`;
  await sql`delete from work_types`;
  await client.defineWorkType("leave", { pool: "default", leaseSeconds: 5 });
});

/** On Deno only the first two are tried: a variable that is missing, and a request that is refused. */
const wrongSettings: [string, Record<string, string>, string][] = [
  ["a missing key", { SUPABASE_SERVICE_ROLE_KEY: "" }, "SUPABASE_SERVICE_ROLE_KEY is not set"],
  ["a refused key", { SUPABASE_SERVICE_ROLE_KEY: "sb_secret_wrong" }, "the key was refused"],
  ["a missing work type", { WORK_TYPE: "gone", WORK_UNTIL_EMPTY: "1" }, "gone is not declared"],
  ["a profile that the database refuses", { WORK_ACCEPTS: '{"a": {"in": 3}}' }, "register_worker: "],
  ["a program that is no list", { WORK_ON_LEAVE: "shutdown -h now" }, "WORK_ON_LEAVE is shutdown -h now; a JSON list"],
  ["an empty program", { WORK_ON_LEAVE: "[]" }, "WORK_ON_LEAVE is []; a JSON list"],
  ["a program with a number", { WORK_ON_LEAVE: '["kill", 7]' }, "a JSON list of texts was expected"],
];

describe.each<Host>(["Node", "Deno"])("on %s", (host) => {
  test("a worker exits with 0 where nothing is left, and with 75 where work is left", async () => {
    await enqueue({ ms: 1 }, { ms: 1 }, { ms: 1 });
    expect(await run(host, { WORK_MAX_CLAIMS: "1" })).toMatchObject({ status: 75 });
    expect(await run(host, { WORK_UNTIL_EMPTY: "1" })).toMatchObject({ status: 0 });
    expect(await count("succeeded")).toBe(3);
  });

  test("a worker that is older than its work type asks for claims nothing", async () => {
    await client.defineWorkType("leave", { minWorkerVersion: "1.10" });
    await enqueue({ ms: 1 });
    const old = await run(host, { WORK_VERSION: "1.9", WORK_UNTIL_EMPTY: "1" });
    expect(old.log).toContain("leave asks for version 1.10 of its workers, and this one has 1.9: claiming no more");
    expect(old.status).toBe(75);
    expect(await run(host, { WORK_VERSION: "1.10", WORK_UNTIL_EMPTY: "1" })).toMatchObject({ status: 0 });
    expect(await count("succeeded")).toBe(1);
  });

  test.each(host === "Node" ? wrongSettings : wrongSettings.slice(0, 2))(
    "a worker exits with 78 because of %s",
    async (_, variables, message) => {
      const { status, log } = await run(host, variables);
      expect(log).toContain(message);
      expect(status).toBe(78);
    },
  );

  test("a worker exits with 78 because its address redirects", async () => {
    const moved = createServer((_, response) => response.writeHead(301, { location: stack.url }).end());
    await once(moved.listen(0, "127.0.0.1"), "listening");
    const { port } = moved.address() as AddressInfo;
    const { status, log } = await run(host, { SUPABASE_URL: `http://127.0.0.1:${port}` });
    moved.close();
    expect(log).toContain("answered with a redirect (301); is the address right?");
    expect(status).toBe(78);
  });

  test("a worker that was idle runs the program with its arguments as they are", async () => {
    const { file, argv } = program(`idle on ${host}`);
    const id = `idle on ${host}`;
    const idle = { WORK_ID: id, WORK_LEAVE_IDLE_SECONDS: "1", WORK_ON_LEAVE: argv };
    expect(await run(host, idle)).toMatchObject({ status: 0 });
    expect(JSON.parse(readFileSync(file, "utf8"))).toEqual(["a b", "$HOME; $(id)", "*", ""]);
    const [worker] = await sql`select retired_at is not null as is_retired from work_workers where id = ${id}`;
    expect(worker?.is_retired).toBe(true);
  });

  test("a program that fails, or is not there, makes the worker exit with 1", async () => {
    const failing = JSON.stringify([process.execPath, "-e", "process.exit(3)"]);
    const failed = await run(host, { WORK_UNTIL_EMPTY: "1", WORK_ON_LEAVE: failing });
    expect(failed.log).toContain("WORK_ON_LEAVE failed: it ended with 3");
    expect(failed.status).toBe(1);
    const missing = await run(host, { WORK_UNTIL_EMPTY: "1", WORK_ON_LEAVE: '["/no/such/program"]' });
    expect(missing.log).toContain("WORK_ON_LEAVE failed: ");
    expect(missing.status).toBe(1);
  });

  test("a worker stopped by SIGTERM hands back, exits with 75 and runs no program", async () => {
    const { file, argv } = program(`signal on ${host}`);
    await enqueue({ ms: 60_000 });
    const { child, ended } = start(hosts[host], { WORK_ON_LEAVE: argv });
    await waitUntil(async () => (await count("claimed")) === 1);
    child.kill("SIGTERM");
    expect(await ended).toMatchObject({ status: 75 });
    expect(await count("ready")).toBe(1);
    expect(existsSync(file)).toBe(false);
  });

  test("a worker signs off although SIGTERM comes while it does", async () => {
    const id = `late on ${host}`;
    const { child, ended } = start(hosts[host], { WORK_ID: id, WORK_LEAVE_IDLE_SECONDS: "1" });
    await waitUntil(() => isThere(sql`select from work_workers where id = ${id}`));
    await sql.begin(async (locking) => {
      await locking`select from work_workers where id = ${id} for update`;
      await waitUntil(() =>
        isThere(sql`
        select from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'retire_worker'`),
      );
      child.kill("SIGTERM");
      await sleep(100); // A process without a listener ends at once.
    });
    expect(await ended).toMatchObject({ status: 0 });
    expect(await isThere(sql`select from work_workers where id = ${id} and retired_at is not null`)).toBe(true);
  });

  test("a handler that never ends fails by name, and its worker hands back the rest and exits with 1", async () => {
    const { file, argv } = program(`hung on ${host}`);
    await client.defineWorkType("leave", { trySeconds: 1, maxFailures: 1 });
    await enqueue({ hangs: true }, { hangs: true });
    const { status, log } = await run(host, { WORK_MAX_CLAIMS: "2", WORK_BATCH: "2", WORK_ON_LEAVE: argv });
    expect(status).toBe(1);
    expect(log).toContain("takes no notice of its signal, and only the end of the process stops it");
    const rows = await sql`select status, error, failures, crashes from work_claims order by status`;
    expect(rows.map((row) => ({ ...row }))).toEqual([
      { status: "failed", error: "the handler did not end within 1 s (try_seconds)", failures: 1, crashes: 0 },
      { status: "ready", error: null, failures: 0, crashes: 0 },
    ]);
    expect(existsSync(file)).toBe(false);
  });
});

test("a worker on Deno that may not run programs says so at the start", async () => {
  const withoutRun = hosts.Deno.filter((argument) => argument !== "--allow-run");
  const { status, log } = await start(withoutRun, { WORK_ON_LEAVE: '["true"]' }).ended;
  expect(log).toContain("Deno was not allowed to start true; start it with --allow-run");
  expect(status).toBe(78);
});
