import { readFile } from "node:fs/promises";
import postgres from "postgres";
import { type Contestant, connections, loops } from "./contest.ts";

const queue = "bench";
/** Longer than a measurement: no message becomes visible again. */
const visibilitySeconds = 600;

/** pgmq, of the SQL file that it publishes: a read of a batch, then one call that deletes or archives its messages. */
export function pgmq(dbUrl: string, sqlFile: string, ending: "delete" | "archive"): Contestant {
  const database = postgres(dbUrl, { max: connections, onnotice: () => {} });
  let expected = 0;

  return {
    name: `pgmq: read and ${ending}`,
    side: "rival",
    dbUrl,
    prepare: async (jobs) => {
      expected = jobs;
      await database.unsafe("drop schema if exists pgmq cascade");
      // An extension's schema is made before its file runs.
      await database.unsafe("create schema pgmq");
      await database.unsafe(await readFile(sqlFile, "utf8"));
      await database`select pgmq.create(${queue})`;
      await database`
        select count(*)
          from pgmq.send_batch(${queue}::text,
                 array(select jsonb_build_object('n', n) from generate_series(1, ${jobs}::integer) as n))`;
    },
    drain: async (batch) => {
      const started = performance.now();
      await Promise.all(
        Array.from({ length: loops }, async () => {
          for (;;) {
            const messages = await database<{ msg_id: string }[]>`
              select msg_id, message from pgmq.read(${queue}::text, ${visibilitySeconds}::integer, ${batch}::integer)`;
            if (messages.length === 0) return;
            const ids = messages.map((message) => message.msg_id);
            await database`select ${database(`pgmq.${ending}`)}(${queue}::text, ${ids}::bigint[])`;
          }
        }),
      );
      return (performance.now() - started) / 1000;
    },
    completed: async () => {
      const [row] = await database.unsafe<{ n: number }[]>(`select count(*)::int as n from pgmq.q_${queue}`);
      return expected - (row?.n ?? 0);
    },
    clear: async () => {
      await database.unsafe("drop schema pgmq cascade");
    },
    close: () => database.end(),
  };
}
