import type { Sql } from "postgres";

export interface Claimed {
  item_id: string;
  work_type: string;
  fence: number;
}

/** A call, and the plans to print for it. */
export interface Question {
  title: string;
  /** Makes the state that the call is asked in, in transactions of its own. */
  prepare?: (sql: Sql) => Promise<Claimed[]>;
  ask: (sql: Sql, prepared: Claimed[]) => Promise<unknown>;
}

export function questions(pool: string, workType: string): Question[] {
  const claim = async (sql: Sql, items = 10): Promise<Claimed[]> => {
    const [row] = await sql<{ claims: Claimed[] }[]>`
      select public.claim_next(array[${workType}], 'explain', max_items => ${items}) as claims`;
    return row?.claims ?? [];
  };
  return [
    { title: "claim_next: ten of a hundred thousand", ask: (sql) => claim(sql) },
    {
      title: "claim_items: ten ids of a page",
      prepare: (sql) => sql<Claimed[]>`
        select item_id, work_type, fence from public.work_claims
         where status = 'ready' and work_type = ${workType} order by item_id limit 10`,
      ask: (sql, page) => sql`
        select public.claim_items(${page.map((claim) => claim.item_id)}::uuid[], ${workType}, 'explain')`,
    },
    {
      title: "finish_and_claim: ten closed, ten claimed",
      prepare: (sql) => claim(sql),
      ask: (sql, held) => {
        const outcomes = held.map(({ item_id, work_type, fence }) => ({
          item_id,
          work_type,
          fence,
          outcome: "succeeded",
        }));
        return sql`
          select public.finish_and_claim('explain', ${sql.json(outcomes)}, array[${workType}], 10,
            request_id => gen_random_uuid())`;
      },
    },
    {
      title: "extend_claims: ten leases",
      prepare: (sql) => claim(sql),
      ask: (sql, claims) => {
        const held = claims.map(({ item_id, work_type, fence }) => ({ item_id, work_type, fence }));
        return sql`select public.extend_claims('explain', ${sql.json(held)})`;
      },
    },
    {
      title: "reap_expired_claims: a hundred leases that have ended",
      prepare: async (sql) => {
        const claims = await claim(sql, 100);
        await sql`update public.work_claims set expires_at = clock_timestamp()
                   where item_id = any (${claims.map((claim) => claim.item_id)}::uuid[])`;
        return claims;
      },
      ask: (sql) => sql`select public.reap_expired_claims()`,
    },
    {
      title: "claim_next: ten, with a hundred waits that are over",
      prepare: async (sql) => {
        await sql`update public.work_claims set status = 'waiting', due_at = clock_timestamp()
                   where ctid = any (array(select ctid from public.work_claims where status = 'ready' limit 100))`;
        return [];
      },
      ask: (sql) => claim(sql),
    },
    {
      title: "claim_next: ten, for a worker of fifty classes",
      prepare: async (sql) => {
        const items = Array.from({ length: 1000 }, (_, n) => ({ requires: { slot: n % 50 }, priority: 1 }));
        await sql`select public.enqueue_items(${sql.json(items)})`;
        await sql`
          select public.register_worker('slots', instance => '00000000-0000-4000-8000-000000000001', capabilities => '{"slot": 50}')`;
        return [];
      },
      ask: (sql) => sql`select public.claim_next(array[${workType}], 'slots', max_items => 10)`,
    },
    {
      title: "enqueue_items: a hundred items, each with a dedupe key",
      ask: (sql) => {
        const items = Array.from({ length: 100 }, (_, n) => ({ payload: { n }, dedupe_key: crypto.randomUUID() }));
        return sql`select public.enqueue_items(${sql.json(items)})`;
      },
    },
    {
      title: "enroll_pool: a thousand past items for another work type",
      prepare: async (sql) => {
        await sql`select public.define_work_type('explain', pool => ${pool})`;
        return [];
      },
      ask: (sql) => sql`select public.enroll_pool(${pool}, 1000)`,
    },
    {
      title: "the candidates URL: a page of a hundred, from a cursor past the finished ones",
      ask: (sql) =>
        candidates(
          sql,
          pool,
          workType,
          sql`(select c.position from public.work_claims c where c.status = 'ready' and c.work_type = ${workType}
                order by c.priority desc, c.position limit 1)`,
        ),
    },
    {
      title: "the candidates URL: a page of a hundred, from the start, past 900,000 finished ones",
      ask: (sql) => candidates(sql, pool, workType, sql`0`),
    },
    { title: "work_overview: the whole of it", ask: (sql) => sql`select * from public.work_overview` },
  ];
}

/** The query of the candidates URL, as PostgREST 12 writes it. */
async function candidates(sql: Sql, pool: string, workType: string, cursor: ReturnType<Sql>): Promise<unknown> {
  return sql`
    with pgrst_source as (
      select work_items.id, work_items.seq, work_items.payload
        from public.work_items
        left join lateral (
          select json_agg(work_items_work_claims_1)::jsonb as work_items_work_claims_1
            from (
              select work_claims_1.*
                from public.work_claims as work_claims_1
               where (work_claims_1.status = any ('{succeeded,failed,cancelled,blocked,waiting}')
                      or (work_claims_1.status = 'claimed' and work_claims_1.expires_at > now()))
                 and work_claims_1.work_type = ${workType}
                 and work_claims_1.item_id = work_items.id) as work_items_work_claims_1
        ) as work_items_work_claims_1 on true
       where work_items.pool = ${pool}
         and work_items_work_claims_1 is not distinct from null
         and work_items.seq > ${cursor}
       order by work_items.seq
       limit 100
    )
    select pg_catalog.count(_postgrest_t) as page_total, coalesce(json_agg(_postgrest_t), '[]') as body
      from (select * from pgrst_source) _postgrest_t`;
}
