import postgres, { type Sql } from "postgres";
import { type Contestant, connections } from "./contest.ts";

/**
 * The limit: two updates of ids that are known beforehand, on rows as wide as a claim. Nothing is searched, ordered,
 * checked or fenced, and no index but the primary key is kept up.
 */
export function rawUpdates(dbUrl: string): Contestant {
  const clients: Sql[] = Array.from({ length: connections }, () => postgres(dbUrl, { max: 1, onnotice: () => {} }));
  const database = clients[0] as Sql;
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
        select gen_random_uuid(), 'bench', n from generate_series(1, ${jobs}) as n
        returning item_id as id`;
      ids = rows.map((row) => row.id);
    },
    drain: async (batch) => {
      let next = 0;
      const started = performance.now();
      await Promise.all(
        clients.map(async (client, worker) => {
          while (next < ids.length) {
            const mine = ids.slice(next, next + batch);
            next += batch;
            await client`
              update bench_raw.jobs
                 set status = 'claimed', worker_id = ${`worker-${worker}`}, fence = position,
                     claimed_at = now(), expires_at = now() + interval '1 minute'
               where item_id = any(${mine}::uuid[])`;
            await client`
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
      await Promise.all(clients.map((client) => client.end()));
    },
  };
}
