import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "./database.ts";

export interface Claim {
  item_id: string;
  work_type: string;
  fence: number;
  ttl_seconds: number;
  expires_at: string;
  failures: number;
  crashes: number;
  state: unknown;
  external_id: string | null;
  payload?: unknown;
  source_key?: string | null;
  pool?: string;
  needs?: { item_id: string; work_type: string; status: string; result?: unknown }[];
}

/** Calls a public function with named arguments, as PostgREST does, and returns its one value. */
export async function call<Answer>(sql: Sql, name: string, args: Record<string, unknown> = {}): Promise<Answer> {
  const given = Object.entries(args).filter(([, value]) => value !== undefined);
  const named = given.map(([argument], index) => `"${argument}" => $${index + 1}`).join(", ");
  const values = given.map(([, value]) => value) as never[];
  const [row] = await sql.unsafe(`select public.${name}(${named}) as answer`, values);
  return row?.answer as Answer;
}

let types = 0;

/** Declares a new work type and adds this many ready items to the default pool. The ids come in the order of the items. */
export async function typeWithItems(
  sql: Sql,
  length: number,
  rules: Record<string, unknown> = {},
): Promise<{ type: string; ids: string[] }> {
  types += 1;
  const type = `type ${types}`;
  await call(sql, "define_work_type", { work_type: type, pool: "default", ...rules });
  const items = Array.from({ length }, (_, index) => ({ payload: { index } }));
  return { type, ids: await call(sql, "enqueue_items", { items }) };
}

/** The same with a pool of its own: items of others are not enrolled for it, nor its items for others. */
export async function typeWithPool(
  sql: Sql,
  length: number,
  rules: Record<string, unknown> = {},
): Promise<{ type: string; ids: string[] }> {
  types += 1;
  const type = `type ${types}`;
  await sql`insert into public.work_pools (name) values (${type})`;
  await call(sql, "define_work_type", { work_type: type, pool: type, ...rules });
  const items = Array.from({ length }, () => ({ pool: type }));
  return { type, ids: await call(sql, "enqueue_items", { items }) };
}

export async function claimNext(sql: Sql, type: string, worker: string, max_items = 1): Promise<Claim[]> {
  return call(sql, "claim_next", { work_types: [type], worker_id: worker, max_items });
}

/** Releases one claim and returns its new state. */
export async function release(
  sql: Sql,
  worker: string,
  claim: Claim | undefined,
  outcome: string,
  more: Record<string, unknown> = {},
): Promise<string | undefined> {
  const [state] = await call<string[]>(sql, "release_items", {
    worker_id: worker,
    outcomes: [{ item_id: claim?.item_id, work_type: claim?.work_type, fence: claim?.fence, outcome, ...more }],
  });
  return state;
}

/** Heartbeats for one claim and returns its state. */
export async function extend(sql: Sql, worker: string, claim: Claim | undefined): Promise<string | undefined> {
  const held = [{ item_id: claim?.item_id, work_type: claim?.work_type, fence: claim?.fence }];
  const [answer] = await call<{ state: string }[]>(sql, "extend_claims", { worker_id: worker, held });
  return answer?.state;
}

/** The stored claim, whole. */
export async function stored(sql: Sql, item: string | undefined, type: string): Promise<Record<string, unknown>> {
  const [row] = await sql`select * from public.work_claims where item_id = ${item ?? ""} and work_type = ${type}`;
  return row ?? {};
}

/** The events of a claim, the first first. */
export async function events(sql: Sql, item: string | undefined, type: string): Promise<string[]> {
  const rows = await sql`
    select event from public.work_events where item_id = ${item ?? ""} and work_type = ${type} order by id`;
  return rows.map((row) => row.event);
}

/** Ends the leases of a work type, as if their time had passed. */
export async function endLeases(sql: Sql, type: string): Promise<void> {
  await sql`
    update public.work_claims set expires_at = clock_timestamp() - interval '1 second'
     where work_type = ${type} and status = 'claimed'`;
}

/** Makes the waiting claims of a work type due, as if their time had passed. */
export async function endWaits(sql: Sql, type: string): Promise<void> {
  await sql`
    update public.work_claims set due_at = clock_timestamp() - interval '1 second'
     where work_type = ${type} and status = 'waiting'`;
}

/** For the catch of a call that gave way to others: it answers nothing, and is to be repeated, as a worker does. */
export function unlessItGaveWay(error: { code?: string }): undefined {
  if (error.code !== "40P01" && error.code !== "55P03") {
    throw error;
  }
}

/** Repeats the check until it holds: for a minute at most, as the machine may be busy. */
export async function waitUntil(isTrue: () => Promise<boolean>): Promise<void> {
  for (const limit = Date.now() + 60_000; !(await isTrue()); await sleep(20)) {
    if (Date.now() > limit) {
      throw new Error(`within a minute this did not hold: ${isTrue}`);
    }
  }
}

/** Waits until this many calls in the database wait for a lock. */
export function someoneWaits(sql: Sql, howMany = 1): Promise<void> {
  return waitUntil(async () => {
    const waiting = await sql`
      select from pg_locks l join pg_stat_activity a using (pid) where not l.granted and a.datname = current_database()`;
    return waiting.length >= howMany;
  });
}
