import type { Sql } from "./database.ts";

export interface Claim {
  item_id: string;
  work_type: string;
  fence: number;
  ttl_seconds: number;
  expires_at: string;
  failures: number;
  crashes: number;
  payload?: unknown;
  source_key?: string | null;
  pool?: string;
}

/** Calls a function of ours with named arguments, as PostgREST does, and answers its one value. */
export async function call<Answer>(sql: Sql, name: string, args: Record<string, unknown> = {}): Promise<Answer> {
  const given = Object.entries(args).filter(([, value]) => value !== undefined);
  const named = given.map(([argument], index) => `"${argument}" => $${index + 1}`).join(", ");
  const values = given.map(([, value]) => value) as never[];
  const [row] = await sql.unsafe(`select public.${name}(${named}) as answer`, values);
  return row?.answer as Answer;
}

let lines = 0;

/** A work type of its own with so many ready items in the default pool, in the order of their ids here. */
export async function line(
  sql: Sql,
  length: number,
  rules: Record<string, unknown> = {},
): Promise<{ type: string; ids: string[] }> {
  lines += 1;
  const type = `type ${lines}`;
  await call(sql, "define_work_type", { work_type: type, pool: "default", ...rules });
  const items = Array.from({ length }, (_, index) => ({ payload: { index } }));
  return { type, ids: await call(sql, "enqueue_items", { items }) };
}

export async function next(sql: Sql, type: string, worker: string, max_items = 1): Promise<Claim[]> {
  return call(sql, "claim_next", { work_types: [type], worker_id: worker, max_items });
}

/** Releases one claim and answers its new state. */
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

/** Heartbeats for one claim and answers its state. */
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

/** Lets the leases of a work type end, as if their time had passed. */
export async function endLeases(sql: Sql, type: string): Promise<void> {
  await sql`
    update public.work_claims set expires_at = clock_timestamp() - interval '1 second'
     where work_type = ${type} and status = 'claimed'`;
}

/** Lets what waits in a work type be due, as if its time had passed. */
export async function endWaits(sql: Sql, type: string): Promise<void> {
  await sql`
    update public.work_claims set due_at = clock_timestamp() - interval '1 second'
     where work_type = ${type} and status = 'waiting'`;
}

/** Asks until it is so. */
export async function waitUntil(isTrue: () => Promise<boolean>): Promise<void> {
  for (const limit = Date.now() + 20_000; !(await isTrue()); ) {
    if (Date.now() > limit) {
      throw new Error("it was not so within 20 seconds");
    }
  }
}

/** Asks until a call in this database waits for another one's lock. */
export function someoneWaits(sql: Sql, howMany = 1): Promise<void> {
  return waitUntil(async () => {
    const waiting = await sql`
      select from pg_locks l join pg_stat_activity a using (pid) where not l.granted and a.datname = current_database()`;
    return waiting.length >= howMany;
  });
}
