// Workers as processes that share a lock, some of them killed while they have it.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { openApi } from "./support/api.ts";
import { call, endLeases, waitUntil } from "./support/calls.ts";
import { expectInvariants } from "./support/invariants.ts";

const stack = await openApi();
const sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
const folder = mkdtempSync(join(tmpdir(), "work-claims-locks-"));
const running = new Set<ChildProcess>();
afterAll(async () => {
  for (const child of running) {
    child.kill("SIGKILL");
  }
  await expectInvariants(sql);
  await sql.end({ timeout: 1 });
  rmSync(folder, { recursive: true });
});

await sql`insert into work_pools (name) values ('locks')`;
await call(sql, "define_work_type", { work_type: "lock", pool: "locks", backoff_seconds: 0 });

interface Note {
  what: string;
  fence: string;
  pid: number;
}

/** What the workers of this lock have written. */
function notes(lock: string): Note[] {
  const file = join(folder, lock);
  const lines = existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : [];
  return lines.map((line) => {
    const [what = "", fence = "", pid] = line.split(" ");
    return { what, fence, pid: Number(pid) };
  });
}

function start(lock: string, variables: Record<string, string>): { child: ChildProcess; ended: Promise<unknown> } {
  const child = spawn(process.execPath, [join(import.meta.dirname, "support", "lock-worker.mjs")], {
    stdio: "ignore",
    env: {
      ...process.env,
      SUPABASE_URL: stack.url,
      SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
      WORK_UNTIL_EMPTY: "1",
      LOCK: lock,
      NOTES: join(folder, lock),
      HOLD_MS: "100",
      ...variables,
    },
  });
  running.add(child);
  return { child, ended: once(child, "close").finally(() => running.delete(child)) };
}

const enqueue = (howMany: number): Promise<string[]> =>
  call(sql, "enqueue_items", { items: Array.from({ length: howMany }, () => ({ pool: "locks" })) });

/** The most that had the lock at once; a killed worker has it until another one takes over its slot. */
function mostAtOnce(of: Note[], killed?: number): number {
  const holders = new Map<string, number>();
  let most = 0;
  for (const { what, fence, pid } of of) {
    if (what === "end") {
      holders.delete(fence);
    } else {
      holders.set(fence, pid);
    }
    most = Math.max(most, [...holders.values()].filter((holder) => holder !== killed).length);
  }
  return most;
}

test("processes share the slots of a lock, and take over that of a killed one", async () => {
  await enqueue(12);
  const killed = start("shared", { HOLD_MS: "60000" });
  await waitUntil(async () => notes("shared").length > 0);
  killed.child.kill("SIGKILL");
  await killed.ended;
  await endLeases(sql, "lock");
  const workers = Array.from({ length: 4 }, () => start("shared", {}));
  await Promise.all(workers.map(({ ended }) => ended));
  const written = notes("shared");
  expect(written.filter(({ what }) => what === "end")).toHaveLength(12);
  expect(new Set(written.map(({ fence }) => fence)).size).toBe(13);
  expect(mostAtOnce(written, killed.child.pid)).toBe(2);
  expect(await sql`select from work_lock_list`).toHaveLength(0);
});

test("a handler that throws frees its lock", async () => {
  const ids = await enqueue(3);
  await start("throwing", { THROWS: "1" }).ended;
  expect(notes("throwing").filter(({ what }) => what === "end")).toHaveLength(6);
  expect(await sql`select from work_locks where name = 'throwing'`).toHaveLength(0);
  expect(await sql`select from work_claims where item_id = any (${ids}) and status = 'succeeded'`).toHaveLength(3);
});

test("a lock of each item keeps no other item back", async () => {
  const ids = await enqueue(4);
  await start("each", { PER_ITEM: "1", WORK_CONCURRENCY: "4", HOLD_MS: "30000", TOGETHER: "4" }).ended;
  expect(mostAtOnce(notes("each"))).toBe(4);
  expect(await sql`select from work_claims where item_id = any (${ids}) and status = 'succeeded'`).toHaveLength(4);
});

test("a stopped worker ends its wait for a lock, and hands the item back", async () => {
  const ids = await enqueue(3);
  const holder = start("waited", { WORK_CONCURRENCY: "2", WORK_BATCH: "2", HOLD_MS: "60000", WORK_GRACE_SECONDS: "0" });
  await waitUntil(async () => notes("waited").length === 2);
  const waiter = start("waited", { WORK_GRACE_SECONDS: "0" });
  await waitUntil(async () => {
    const held = await sql`select from work_claims where item_id = any (${ids}) and status = 'claimed'`;
    return held.length === 3;
  });
  waiter.child.kill("SIGTERM");
  await waiter.ended;
  const [row] = await sql`
    select count(*)::integer as ready from work_claims where item_id = any (${ids}) and status = 'ready' and failures = 0`;
  expect(row).toEqual({ ready: 1 });
  holder.child.kill("SIGTERM");
  await holder.ended;
  expect(await sql`select from work_lock_list`).toHaveLength(0);
});
