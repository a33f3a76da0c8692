import { PgBoss } from "pg-boss";
import postgres from "postgres";
import { type Contestant, connections, loops } from "./contest.ts";

const queue = "bench";
const schema = "bench_pgboss";

/** pg-boss through fetch() and complete() of ids, as its own work() does it, without a poll or a handler between. */
export function pgBoss(dbUrl: string): Contestant {
  const database = postgres(dbUrl, { max: 1, onnotice: () => {} });
  let boss: PgBoss | undefined;
  const running = (): PgBoss => boss ?? fail();

  const stop = async () => {
    await boss?.stop({ graceful: false });
    boss = undefined;
  };

  return {
    name: "pg-boss: fetch and complete",
    side: "rival",
    dbUrl,
    prepare: async (jobs) => {
      await stop();
      await database.unsafe(`drop schema if exists ${schema} cascade`);
      // Its maintenance and schedules would only take time from it.
      boss = new PgBoss({ connectionString: dbUrl, schema, max: connections, supervise: false, schedule: false });
      boss.on("error", (error) => console.error("pg-boss:", error));
      await boss.start();
      await boss.createQueue(queue);
      for (let from = 0; from < jobs; from += 5000) {
        const length = Math.min(5000, jobs - from);
        await boss.insert(
          queue,
          Array.from({ length }, (_, n) => ({ data: { n: from + n } })),
        );
      }
    },
    drain: async (batch) => {
      await Promise.all(
        Array.from({ length: connections }, () => running().getDb().executeSql("select pg_sleep(0.05)")),
      );
      const started = performance.now();
      await Promise.all(
        Array.from({ length: loops }, async () => {
          for (;;) {
            const claimed = await running().fetch(queue, { batchSize: batch });
            if (claimed.length === 0) return;
            await running().complete(
              queue,
              claimed.map((job) => job.id),
            );
          }
        }),
      );
      return (performance.now() - started) / 1000;
    },
    completed: async () => {
      const [row] = await database.unsafe<{ n: number }[]>(
        `select count(*)::int as n from ${schema}.job where state = 'completed'`,
      );
      return row?.n ?? 0;
    },
    clear: async () => {
      await stop();
      await database.unsafe(`drop schema ${schema} cascade`);
    },
    close: async () => {
      await stop();
      await database.end();
    },
  };
}

function fail(): never {
  throw new Error("pg-boss is measured before prepare()");
}
