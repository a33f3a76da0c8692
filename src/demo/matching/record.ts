import type { Sql } from "postgres";
import type { FleetWorker } from "./fleet.ts";
import type { Job } from "./jobs.ts";

/** A job that was handed to a worker. Times are the database's own, in milliseconds. */
export type Assignment = {
  job: string;
  worker: string;
  /** The call that handed it over began then: what was taken before is no concern of it, what begins later none of this. */
  began: number;
  /** By then it was picked. */
  at: number;
  readySince: number;
  /** What the worker said it was warm for. */
  warm: string[];
  /** A model had to be loaded for it. */
  loaded: boolean;
};

/** A workflow's priority was changed somewhere between these two moments. */
export type Raise = { workflow: string; priority: number; from: number; to: number };

/** A line of work_unmatched: jobs that nobody can run, and why. */
export type Unmatched = { jobs: string[]; reason: string };

/** What there is to judge when the demo is over. */
export type DemoRecord = {
  fleet: readonly FleetWorker[];
  jobs: readonly Job[];
  /** From then on all jobs were ready, as far as nobody had them. */
  readyAt: number;
  raised: Raise | undefined;
  assignments: readonly Assignment[];
  /** The jobs that succeeded. */
  succeeded: ReadonlySet<string>;
  unmatched: readonly Unmatched[];
};

/** The demo's own witness beside the claims: a line each time a job is handed to a worker, never changed after. */
export async function prepareWitness(sql: Sql): Promise<void> {
  await sql`
    create table public.demo_handed (
      fence bigint primary key,
      item_id uuid not null,
      worker_id text not null,
      began timestamptz not null default transaction_timestamp(),
      at timestamptz not null default clock_timestamp(),
      ready_since timestamptz not null
    )`;
  await sql`
    create function public.demo_witness() returns trigger language plpgsql set search_path = '' as $$
    begin
      insert into public.demo_handed (fence, item_id, worker_id, ready_since)
      values (new.fence, new.item_id, new.worker_id, new.due_at);
      return null;
    end $$`;
  await sql`
    create trigger demo_witness after update on public.work_claims
      for each row when (new.status = 'claimed' and new.fence is distinct from old.fence)
      execute function public.demo_witness()`;
  await sql`grant insert on public.demo_handed to service_role`;
  await sql`revoke all on public.demo_handed from anon, authenticated`;
}

/** The database's clock. */
export async function momentOf(sql: Sql): Promise<number> {
  const [row] = await sql`select extract(epoch from clock_timestamp())::float8 * 1000 as moment`;
  return row?.moment;
}

export async function assignmentsOf(sql: Sql): Promise<Assignment[]> {
  return sql<Assignment[]>`
    select h.item_id as job, h.worker_id as worker,
           extract(epoch from h.began)::float8 * 1000 as began,
           extract(epoch from h.at)::float8 * 1000 as at,
           extract(epoch from h.ready_since)::float8 * 1000 as "readySince",
           coalesce(c.result -> 'warm', '[]') as warm,
           coalesce((c.result ->> 'loaded')::boolean, false) as loaded
      from public.demo_handed h
      left join public.work_claims c on c.item_id = h.item_id and c.fence = h.fence
     order by h.fence`;
}

export async function succeededJobs(sql: Sql): Promise<Set<string>> {
  const rows = await sql<{ item_id: string }[]>`select item_id from public.work_claims where status = 'succeeded'`;
  return new Set(rows.map((row) => row.item_id));
}

/** As long as the workers are there: why nobody runs a job is said of those that are alive. */
export async function unmatchedJobs(sql: Sql): Promise<Unmatched[]> {
  return sql<Unmatched[]>`
    select array(select c.item_id from public.work_claims c
                  where c.class_id = u.class_id and c.work_type = u.work_type and c.status = 'ready'
                  order by c.position) as jobs,
           u.reason
      from public.work_unmatched u
     order by u.ready desc, u.class_id`;
}
