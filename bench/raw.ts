import postgres from "postgres";
import { type Contestant, connections, loops } from "./contest.ts";

/**
 * The limit: two updates of ids that are known beforehand, on rows as wide as a claim. Nothing is searched, ordered,
 * checked or fenced, and no index but the primary key is kept up.
 */
export function rawUpdates(dbUrl: string): Contestant {
  const database = postgres(dbUrl, { max: connections, onnotice: () => {} });
  let ids: string[] = [];

  return {
    name: "raw: two updates by id",
    side: "limit",
    dbUrl,
    prepare: async (jobs) => {
      await database`create schema if not exists bench_raw`;
      await database`
        create table if not exists bench_raw.jobs (like public.work_claims including defaults, primary key (item_id))`;
      await database`truncate bench_raw.jobs`;
      const rows = await database<{ id: string }[]>`
        insert into bench_raw.jobs (item_id, work_type, position)
        select id, 'bench', n from unnest(work.new_ids(null, ${jobs}::integer)) with ordinality as fresh(id, n)
         order by n
        returning item_id as id`;
      ids = rows.map((row) => row.id);
    },
    drain: async (batch) => {
      let next = 0;
      const started = performance.now();
      await Promise.all(
        Array.from({ length: loops }, async (_, worker) => {
          while (next < ids.length) {
            const mine = ids.slice(next, next + batch);
            next += batch;
            await database`
              update bench_raw.jobs
                 set status = 'claimed', worker_id = ${`worker-${worker}`}, fence = position,
                     claimed_at = now(), expires_at = now() + interval '1 minute'
               where item_id = any(${mine}::uuid[])`;
            await database`
              update bench_raw.jobs
                 set status = 'succeeded', finished_at = now()
               where item_id = any(${mine}::uuid[])`;
          }
        }),
      );
      return (performance.now() - started) / 1000;
    },
    completed: async () => {
      const [row] = await database<{ n: number }[]>`
        select count(*)::int as n from bench_raw.jobs where status = 'succeeded'`;
      return row?.n ?? 0;
    },
    clear: async () => {
      await database`truncate bench_raw.jobs`;
    },
    close: async () => {
      await database`drop schema if exists bench_raw cascade`;
      await database.end();
    },
  };
}
