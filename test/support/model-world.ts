// The database beside the model. It begins empty, time passes in it, and its state is compared with the model's.
import type { Json } from "../../src/answers.ts";
import { call } from "./calls.ts";
import { type Database, openDatabase, type Sql } from "./database.ts";
import type { Worker } from "./matching-oracle.ts";
import {
  type Claim,
  claimOf,
  defaults,
  inRank,
  isOpen,
  key,
  type Model,
  type Rules,
  rankOf,
  rulesOf,
} from "./model.ts";
import { isTaken } from "./model-locks.ts";

/** Leases and waits last minutes and hours, so the real duration of a run plays no part. */
export const declared: Record<string, Partial<Rules>> = {
  draw: { pool: "default", lease_seconds: 3600, max_failures: 2, max_crashes: 2, backoff_seconds: 600 },
  tag: {
    pool: "default",
    lease_seconds: 900,
    max_failures: 2,
    max_crashes: 3,
    backoff_limit_seconds: 2000,
    on_failed_need: "fail",
  },
  score: {
    pool: "side",
    lease_seconds: 7200,
    max_failures: 2,
    max_crashes: 1,
    backoff_seconds: 1000,
    on_failed_need: "run",
    on_change: "again",
    on_dead_end: "stop",
    history: "full",
    several: 2,
  },
  mean: { pool: "side", lease_seconds: 900, depends_on: ["score"] },
  read: { pool: "steps", lease_seconds: 3600, max_failures: 2, max_crashes: 2, input_columns: ["n"] },
  embed: { pool: "steps", lease_seconds: 900, max_failures: 1, max_crashes: 2, depends_on: ["read"], history: "full" },
  sum: { pool: "steps", lease_seconds: 900, depends_on: ["embed"], on_failed_need: "fail" },
  report: {
    pool: "steps",
    lease_seconds: 900,
    depends_on: ["read", "embed"],
    on_failed_need: "run",
    on_change: "again",
  },
  loose: { max_failures: 2, max_crashes: 2, backoff_seconds: 2000 },
};
export const types: string[] = [...Object.keys(declared), "score#2", "undeclared"];

/** Capabilities and conditions of workers. The first are those of an unregistered worker. */
export const profiles: Omit<Worker, "id">[] = [
  { capabilities: {} },
  { capabilities: { gpu: "a100", memory_gb: 40 } },
  { capabilities: { memory_gb: 24 }, accepts: { not: { customer: "blue" } } },
  { capabilities: { gpu: "a100", memory_gb: 40 }, exclusive: ["gpu"], yield_seconds: 1800 },
];
export const workers: string[] = ["plain", "big", "picky", "dear"];

export interface World {
  model: Model;
  sql: Sql;
  /** Past its triggers: it moves the time of all rows. */
  admin: Sql;
  /** The database's time at which the model's began. */
  start: string;
  /** How much of the model's time has been let pass. */
  passed: number;
}

export async function openWorld(): Promise<() => Promise<World>> {
  const { as, admin }: Database = await openDatabase();
  // One connection: a call and a read of its effect are sent together, and answered in this order.
  const sql = as("service_role", { max: 1 });
  await admin`insert into public.work_pools (name) values ('side'), ('steps')`;
  await admin`set session_replication_role = replica`;
  for (const [work_type, rules] of Object.entries(declared)) {
    await call(sql, "define_work_type", { work_type, ...rules });
  }
  await admin`create table declared as select * from public.work_types`;
  for (const [index, id] of workers.entries()) {
    if (index > 0) {
      await register(sql, id, index);
    }
  }
  await admin`create table registered as select * from public.work_workers`;
  return () => begin(sql, admin);
}

const instance = "11111111-1111-4111-8111-111111111111";

export async function register(sql: Sql, id: string, profile: number): Promise<void> {
  await call(sql, "register_worker", { worker_id: id, instance, ...profiles[profile] });
}

async function begin(sql: Sql, admin: Sql): Promise<World> {
  await admin.unsafe(`
    delete from public.work_events;
    delete from public.work_locks;
    delete from public.work_claims;
    delete from public.work_items;
    delete from public.work_workflows;
    delete from public.work_workers;
    delete from work.requests;
    delete from work.tally_entries;
    delete from work.tallies;
    delete from public.work_dependencies;
    delete from public.work_types;
    insert into public.work_types select * from declared;
    insert into public.work_workers select * from registered;
    update work.upkeep set due_at = 'infinity'`);
  const [clock] = await admin<{ start: string }[]>`select clock_timestamp()::text as start`;
  const model: Model = {
    now: 0,
    seq: 0,
    lastFence: 0,
    moment: 0,
    raised: new Map(),
    types: new Map(
      Object.entries(declared).flatMap(([name, rules]) => {
        const shared = { ...defaults, ...rules };
        return Array.from({ length: shared.several }, (_, index) => [index ? `${name}#${index + 1}` : name, shared]);
      }),
    ),
    items: new Map(),
    claims: new Map(),
    workflows: new Map(),
    workers: new Map(workers.slice(1).map((id, index) => [id, { id, ...(profiles[index + 1] as Omit<Worker, "id">) }])),
    requests: new Set(),
    receipts: [],
    locks: [],
  };
  return { model, sql, admin, start: clock?.start ?? "", passed: 0 };
}

const times: Record<string, string[]> = {
  "public.work_claims": ["claimed_at", "expires_at", "due_at", "finished_at", "poll_at", "changed_at"],
  "public.work_items": ["created_at", "run_after"],
  "public.work_types": ["created_at"],
  "public.work_workers": ["last_seen_at", "registered_at"],
  "public.work_events": ["at"],
};
const passing = Object.entries(times).map(([table, columns]) => {
  const moved = columns.map((column) => `${column} = ${column} - interval '1 second' * SECONDS`);
  return `update ${table} set ${moved.join(", ")}`;
});

/** Waits that the database has drawn end at the earliest moment, as in the model. */
async function endAtLeast({ admin, model, start, passed }: World): Promise<void> {
  for (const claim of model.claims.values()) {
    if (claim.dueBy !== null) {
      await admin`
        update work_claims set due_at = ${start}::timestamptz + interval '1 second' * ${claim.dueAt - passed}::float8
         where item_id = ${claim.item.id} and work_type = ${claim.type} and status in ('blocked', 'waiting')`;
      claim.dueBy = null;
    }
  }
}

/** Time passes: all that has a time is so much longer ago, or comes so much sooner. */
export async function pass(world: World, seconds: number): Promise<void> {
  await endAtLeast(world);
  await world.admin.unsafe(passing.join(";\n").replaceAll("SECONDS", String(seconds)));
  world.passed += seconds;
  world.model.now += seconds;
}

interface StoredClaim {
  item_id: string;
  work_type: string;
  status: string;
  worker_id: string | null;
  fence: number | null;
  failures: number;
  crashes: number;
  priority: number;
  rank: number;
  position: number;
  progress: number | null;
  result: Json;
  state: Json;
  job: string | null;
  is_parked: boolean;
  waits_for: number;
  is_stale: boolean;
  is_again: boolean;
  has_read_other: boolean;
  changes: number;
  due: number;
  expires: number | null;
  finished: number | null;
}

export interface Stored {
  claims: StoredClaim[];
  /** The slots that are taken. */
  locks: unknown[];
  /** The reason that stopped each work type, by its name. */
  stopped: Record<string, string>;
  elapsed: number;
}

/** All claims, their times in seconds from the start; locks, and work types that were stopped. */
export async function readClaims({ sql, start, passed }: World): Promise<Stored> {
  const [row] = await sql<Stored[]>`
    with seen as (
      select c.item_id, c.work_type, c.status, c.worker_id, c.fence, c.failures, c.crashes, c.priority, c.rank, c.position,
             c.progress, c.result, c.state, c.external_id as job, c.poll_at is not null as is_parked,
             c.waits_for, c.stale is not null as is_stale, coalesce(c.changes, 0) as changes,
             c.status = 'claimed' and c.again is not null as is_again,
             c.status = 'claimed' and c.read_input is not null as has_read_other,
             extract(epoch from c.due_at - ${start}::timestamptz) as due,
             extract(epoch from c.expires_at - ${start}::timestamptz) as expires,
             extract(epoch from c.finished_at - ${start}::timestamptz) as finished
        from public.work_claims c
    )
    select coalesce((select json_agg(seen) from seen), '[]') as claims,
           (select coalesce(json_agg(json_build_array(l.name, l.slot, l.item_id, l.work_type, l.worker_id, l.fence)), '[]')
              from public.work_lock_list l) as locks,
           (select coalesce(json_object_agg(t.name, t.stopped), '{}')
              from public.work_types t where t.stopped is not null) as stopped,
           extract(epoch from clock_timestamp() - ${start}::timestamptz)::float as elapsed`;
  const from = (time: number | null): number | null => (time === null ? null : time + passed);
  const claims = (row?.claims ?? []).map((claim) => ({
    ...claim,
    due: claim.due + passed,
    expires: from(claim.expires),
    finished: from(claim.finished),
  }));
  return { claims, locks: row?.locks ?? [], stopped: row?.stopped ?? {}, elapsed: row?.elapsed ?? 0 };
}

type Seen = Record<string, unknown>;

/** Fails where the database and the model differ: in claims, in their order, in locks, or in work types that are stopped. */
export function expectSame(model: Model, stored: Stored): void {
  expectSameClaims(model, stored);
  const taken = model.locks.filter((lock) => isTaken(model, lock));
  expectEqual(
    stored.locks,
    taken
      .sort((one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : one.slot - other.slot))
      .map(({ name, slot, item, type, fence }) => [name, slot, item, type, claimOf(model, item, type)?.worker, fence]),
    "the locks",
  );
  expectSameStopped(model, stored);
}

/** The database names one of the claims that failed for good, where several did at once. */
function expectSameStopped(model: Model, { stopped }: Stored): void {
  for (const [type, { deadEnds }] of model.types) {
    const named = deadEnds.find((claim) =>
      stopped[type]?.startsWith(`item ${claim.item.id} failed for good in ${claim.type}: `),
    );
    if (named ? false : deadEnds.length > 0 || type in stopped) {
      throw new Error(`${type} was stopped by ${stopped[type]}; the model has ${deadEnds.map(({ item }) => item.id)}`);
    }
  }
}

function expectSameClaims(model: Model, { claims, elapsed }: Stored): void {
  // The database's times are somewhat later than the model's.
  const near = (stored: number | null, expected: number, latest = expected): number | null =>
    stored !== null && stored >= expected - 0.001 && stored <= latest + elapsed + 0.001 ? expected : stored;
  const seen: Seen[] = claims.map((row) => {
    const claim = model.claims.get(key(row.item_id, row.work_type));
    const times = claim && {
      ...(isOpen(claim)
        ? { due: near(row.due, claim.dueAt, claim.dueBy ?? claim.dueAt) }
        : { finished: near(row.finished, claim.finishedAt) }),
      ...(claim.status === "claimed" ? { expires: near(row.expires, claim.expiresAt) } : {}),
    };
    const { item_id, work_type, status, worker_id, fence, failures, crashes, progress, result } = row;
    const { state, job, is_parked } = row;
    const tries = { failures, crashes, progress, result, state, job, is_parked };
    const { waits_for, is_stale, is_again, has_read_other, changes } = row;
    const again = { waits_for, is_stale, is_again, has_read_other, changes };
    return { item_id, work_type, status, worker_id, fence, ...tries, ...again, ...times };
  });
  const expected: Seen[] = [...model.claims.values()].map((claim) => ({
    item_id: claim.item.id,
    work_type: claim.type,
    status: claim.status,
    worker_id: claim.worker,
    fence: claim.fence,
    failures: claim.failures,
    crashes: claim.crashes,
    progress: claim.progress,
    result: claim.result,
    state: claim.state,
    job: claim.job,
    is_parked: claim.isParked,
    waits_for: claim.waitsFor,
    is_stale: claim.isStale,
    is_again: claim.status === "claimed" && claim.isAgain,
    has_read_other: claim.status === "claimed" && claim.readInput !== null,
    changes: claim.changes,
    ...(isOpen(claim) ? { due: claim.dueAt } : { finished: claim.finishedAt }),
    ...(claim.status === "claimed" ? { expires: claim.expiresAt } : {}),
  }));
  const same = new Set(expected.map((claim) => JSON.stringify(claim)));
  const had = new Set(seen.map((claim) => JSON.stringify(claim)));
  expectEqual(
    byKey(seen.filter((claim) => !same.has(JSON.stringify(claim)))),
    byKey(expected.filter((claim) => !had.has(JSON.stringify(claim)))),
    "the claims",
  );

  const line = [...claims].sort(
    (one, other) => other.priority - one.priority || one.rank - other.rank || one.position - other.position,
  );
  for (const type of model.types.keys()) {
    const isMine = (claim: Claim): boolean => claim.type === type && isOpen(claim);
    const ordered = [...model.claims.values()].filter(isMine).sort((one, other) => inRank(model, one, other));
    expectEqual(
      line
        .filter((row) => row.work_type === type && ["blocked", "waiting", "ready", "claimed"].includes(row.status))
        .map(({ item_id, priority }) => [item_id, priority]),
      ordered.map(({ item }) => [item.id, rankOf(model, item).priority]),
      `the line of ${type}`,
    );
  }
}

const byKey = (rows: Seen[]): Seen[] =>
  rows.sort((one, other) => (`${one.item_id} ${one.work_type}` < `${other.item_id} ${other.work_type}` ? -1 : 1));

/** Fails with both in full, which a list of commands is read beside. */
export function expectEqual(actual: unknown, expected: unknown, what: string): void {
  const [is, was] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (is !== was) {
    throw new Error(`${what}: the database has ${is}, the model ${was}`);
  }
}

/** Steps that no trail has: time brings them, or a person who writes to the item. */
const unrecorded = ["due", "rescheduled"];
/** Steps that only a full history has. */
const recordedInFull = ["enrolled", "claimed", "succeeded", "parked", "blocked", "unblocked", "handed_back: released"];

/** Compares the newest 15 events of each claim. The database keeps 20; some may say that the work type was stopped. */
export async function expectSameEvents({ model, sql }: World): Promise<void> {
  const rows = await sql<{ name: string; events: string[] }[]>`
    select item_id || ' ' || work_type as name,
           array_agg(concat_ws(' ', event, from_status, to_status) order by id) as events
      from public.work_events where event <> 'stopped' group by 1`;
  const seen = new Map(rows.map(({ name, events }) => [name, events]));
  for (const [name, { type, steps }] of model.claims) {
    const isFull = rulesOf(model, type).history === "full";
    const recorded = steps
      .filter(({ cause }) => !unrecorded.includes(cause) && (isFull || !recordedInFull.includes(cause)))
      .map(({ cause, from, to }) => [cause.split(":")[0], from, to].filter((word) => word !== null).join(" "));
    expectEqual((seen.get(name) ?? []).slice(-15), recorded.slice(-15), `the events of ${name}`);
  }
}
