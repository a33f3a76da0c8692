import type { Sql } from "postgres";
import { enrollAll } from "../enroll.ts";

export const textCount = 300;
export const workType = "count_words";

/** Shorter than anybody would choose for real work, so that a dead worker's claims are seen to come back. */
export const leaseSeconds = 3;

/** Creates a table as any project could have it, and makes it a pool with one work type. */
export async function prepareTexts(sql: Sql): Promise<void> {
  await sql`
    create table public.demo_texts (
      id bigint generated always as identity primary key,
      body text not null
    )`;
  await sql`
    insert into public.demo_texts (body)
    select string_agg(
             (array['row', 'lease', 'fence', 'worker', 'claim', 'night', 'river', 'stone', 'letter', 'engine',
                    'orange', 'window'])[1 + (n * 7 + place * (5 + n % 3)) % 12],
             ' ' order by place)
           || format(', text %s', n)
      from generate_series(1, ${textCount}::int) as n,
           generate_series(1, 4 + n % 9) as place
     group by n
     order by n`;
  // The demo's own witness beside the claims: a line each time a claim is closed as succeeded, never changed after.
  await sql`
    create table public.demo_log (
      at timestamptz not null default clock_timestamp(),
      item_id uuid not null,
      worker_id text not null,
      fence bigint not null
    )`;
  await sql`
    create function public.demo_witness() returns trigger language plpgsql set search_path = '' as $$
    begin
      insert into public.demo_log (item_id, worker_id, fence) values (new.item_id, new.worker_id, new.fence);
      return null;
    end $$`;
  await sql`
    create trigger demo_witness after update on public.work_claims
      for each row when (new.status = 'succeeded' and old.status <> 'succeeded')
      execute function public.demo_witness()`;
  await sql`grant insert on public.demo_log to service_role`;
  await sql`revoke all on public.demo_texts, public.demo_log from anon, authenticated`;

  await sql`select public.attach_pool('public.demo_texts')`;
  await sql`select public.define_work_type(${workType}::text, pool => 'demo_texts', input_columns => '{body}', lease_seconds => ${leaseSeconds}::int)`;
  await enrollAll(
    async () => {
      const [row] = await sql`select public.enroll_pool('demo_texts') as step`;
      return row?.step;
    },
    () => {},
  );
}
