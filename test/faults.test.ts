import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { startStack } from "../src/stack/stack.ts";
import { call, waitUntil } from "./support/calls.ts";
import { expectInvariants } from "./support/invariants.ts";

const root = join(import.meta.dirname, "..");
const stack = await startStack({ ephemeral: true, migrations: root });
const connect = (): postgres.Sql => postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
let sql = connect();
const workers = new Map<string, ChildProcess>();
let endFilling = async (): Promise<void> => {};
afterAll(async () => {
  await endFilling();
  for (const child of workers.values()) {
    child.kill("SIGKILL");
  }
  await sql.end({ timeout: 1 });
  await stack.stop();
});

const kills = 20;
const pauses = 10;
const crashes = 5;

/** A real process of the real runtime; its name is its worker id. */
function startWorker(): string {
  const name = `worker ${started}`;
  started += 1;
  const child = spawn(process.execPath, [join(import.meta.dirname, "support", "faulty-worker.mjs")], {
    stdio: "ignore",
    env: {
      ...process.env,
      SUPABASE_URL: stack.url,
      SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
      WORK_ID: name,
      WORK_CONCURRENCY: "4",
      WORK_LEASE_SECONDS: "2",
    },
  });
  child.once("exit", () => workers.delete(name));
  workers.set(name, child);
  return name;
}
let started = 0;
// Workers that a fault is being made to.
const struck = new Set<string>();

/** Keeps the line filled, while faults are made, until the returned function is called. */
function fill(): () => Promise<void> {
  let isOver = false;
  const filling = (async () => {
    while (!isOver) {
      const [row] = await sql`select count(*)::integer as ready from work_claims where status = 'ready'`;
      if (row?.ready < 300) {
        await call(sql, "enqueue_items", { items: Array(200).fill({}) });
      }
      await sleep(50);
    }
  })();
  return () => {
    isOver = true;
    return filling;
  };
}

async function heldBy(name: string): Promise<number> {
  return (await sql`select from work_claims where status = 'claimed' and worker_id = ${name}`).length;
}

/** Sends the signal to a worker that holds something, and still does when the signal has come. */
async function strike(signal: "SIGKILL" | "SIGSTOP"): Promise<{ name: string; child: ChildProcess }> {
  for (;;) {
    for (const [name, child] of workers) {
      if (!struck.has(name) && (await heldBy(name)) > 0) {
        struck.add(name);
        child.kill(signal);
        if (signal === "SIGKILL") {
          startWorker();
        }
        if ((await heldBy(name)) > 0) {
          return { name, child };
        }
        child.kill("SIGCONT");
        struck.delete(name);
      }
    }
    await sleep(10);
  }
}

async function kill(): Promise<void> {
  await strike("SIGKILL");
}

/** Stops a worker past its lease, until others have what it held, and lets it go on. */
async function pause(): Promise<void> {
  const { name, child } = await strike("SIGSTOP");
  await waitUntil(async () => (await heldBy(name)) === 0);
  child.kill("SIGCONT");
  struck.delete(name);
}

/** The test asks nothing meanwhile: postgres.js may never settle a query whose connection broke while it was written. */
async function crashPostgres(): Promise<void> {
  const [before] = await sql`select count(*)::integer as done from work_claims where status = 'succeeded'`;
  await endFilling();
  await sql.end();
  await stack.postgres.stop("immediate");
  await stack.postgres.start();
  sql = connect();
  endFilling = fill();
  // Workers go on.
  await waitUntil(async () => {
    const [after] = await sql`select count(*)::integer as done from work_claims where status = 'succeeded'`;
    return after?.done > before?.done + 20;
  });
}

async function crashPostgrest(): Promise<void> {
  const pid = stack.postgrest.pid();
  process.kill(pid, "SIGKILL");
  await waitUntil(
    async () =>
      stack.postgrest.pid() !== pid &&
      (await fetch(`${stack.url}/rest/v1/work_held`, { headers: { apikey: stack.secretKey } })).ok,
  );
}

async function repeat(times: number, fault: () => Promise<void>): Promise<void> {
  for (let count = 0; count < times; count += 1) {
    await fault();
  }
}

test("no item is lost or done twice while workers are killed and Postgres and PostgREST crash", {
  timeout: 480_000,
}, async () => {
  // Every change of a claim to succeeded leaves a line, whoever makes it.
  await sql.unsafe(`
    create table closings (item_id uuid, worker_id text, fence bigint);
    create function note_closing() returns trigger language plpgsql security definer as $$
      begin insert into public.closings values (new.item_id, new.worker_id, new.fence); return null; end $$;
    create trigger note_closing after update on work_claims for each row
      when (new.status = 'succeeded' and old.status <> 'succeeded') execute function note_closing();`);
  const rules = { max_failures: 1000, max_crashes: 1000, backoff_seconds: 0 };
  await call(sql, "define_work_type", { work_type: "survive", pool: "default", ...rules });
  endFilling = fill();
  for (let count = 0; count < 6; count += 1) {
    startWorker();
  }

  await Promise.all([repeat(kills, kill), repeat(pauses / 2, pause), repeat(pauses / 2, pause)]);
  await repeat(crashes, crashPostgres);
  await repeat(2, crashPostgrest);
  await endFilling();
  await waitUntil(async () => (await sql`select from work_claims where finished_at is null limit 1`).length === 0);

  const [counts] = await sql`
    select count(*)::integer as claims,
           count(*) filter (where c.status = 'succeeded')::integer as succeeded,
           (select count(*)::integer from work_items) as items,
           (select count(*)::integer from closings) as closings,
           (select count(distinct item_id)::integer from closings) as closed_items,
           sum(c.crashes)::integer as crashes
      from work_claims c`;
  expect(counts).toMatchObject({
    claims: counts?.items,
    succeeded: counts?.items,
    closings: counts?.items,
    closed_items: counts?.items,
  });
  // Each dead or stopped worker held something that came back.
  expect(counts?.crashes).toBeGreaterThanOrEqual(kills);
  const foreign = await sql`
    select c.item_id from work_claims c join closings l using (item_id)
     where (c.result ->> 'fence')::bigint <> c.fence or c.result ->> 'worker' <> c.worker_id or (l.worker_id, l.fence) <> (c.worker_id, c.fence)`;
  expect(foreign).toEqual([]);
  await expectInvariants(sql);
});
