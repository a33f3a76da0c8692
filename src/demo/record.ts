import type { Sql } from "postgres";
import { textCount, workType } from "./texts.ts";

/** As a person types it into any SQL editor: how often each text was done, and whether its result is its own. */
export const checkSql: string = `
select count(*)::int as texts,
       count(*) filter (where c.status = 'succeeded')::int as succeeded,
       count(*) filter (where l.times = 1)::int as done_once,
       count(*) filter (where l.fence = c.fence)::int as by_the_last_holder,
       count(*) filter (where c.result ->> 'sha256' = encode(sha256(convert_to(t.body, 'UTF8')), 'hex'))::int
         as right_results
  from public.demo_texts t
  left join public.work_items i on i.pool = 'demo_texts' and i.source_key = t.id::text
  left join public.work_claims c on c.item_id = i.id and c.work_type = '${workType}'
  left join (
    select item_id, count(*) as times, max(fence) as fence from public.demo_log group by item_id
  ) as l on l.item_id = i.id`;

export type Check = {
  texts: number;
  succeeded: number;
  done_once: number;
  by_the_last_holder: number;
  right_results: number;
};

export async function check(sql: Sql): Promise<Check> {
  const [row] = await sql.unsafe<Check[]>(checkSql);
  if (!row) throw new Error("the check gave no answer");
  return row;
}

/** Every text was done, once, by the holder of its last claim, and carries its own result. */
export function isExactlyOnce(found: Check): boolean {
  return [found.texts, found.succeeded, found.done_once, found.by_the_last_holder, found.right_results].every(
    (count) => count === textCount,
  );
}

/** A claim whose lease ended: its worker, the worker that finished it, and the seconds in between. */
export type TakenBack = { text: string; from: string; by: string | null; secondsLater: number | null };

export async function takenBack(sql: Sql): Promise<TakenBack[]> {
  return sql<TakenBack[]>`
    select i.source_key as text,
           substring(e.detail from 'the lease of worker (.*) ended without') as from,
           l.worker_id as by,
           round(extract(epoch from l.at - e.at)::numeric, 1)::float as "secondsLater"
      from public.work_events e
      join public.work_items i on i.id = e.item_id
      left join public.demo_log l on l.item_id = e.item_id
     where e.event = 'expired'
     order by e.id`;
}
