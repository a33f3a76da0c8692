import "./quiet.ts";
import { EventEmitter } from "node:events";
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";
import postgres from "postgres";
import { type Contestant, connections } from "./contest.ts";

const task = "bench";
const schema = "bench_graphile";
const silent = new Logger(() => () => {});

/** How it is run. */
export interface Tuning {
  /** Runners side by side, each with its share of the connections. */
  runners: number;
  concurrentJobs: number;
  /** Jobs that a runner fetches at once; -1: each of its workers fetches one at a time. */
  localQueue: number;
  /** Milliseconds in which completions are gathered; -1: each is sent on its own. */
  completeJobBatchDelay: number;
}

// The values were the fastest of those tried, on two cores with four connections: 1 to 4 runners, 1 to 200 concurrent
// jobs, delays of none, 0, 5 and 20 ms, queues of once and five times the batch.

/** Every job is fetched and completed by queries of its own. */
export function oneByOne(batch: number): Tuning | undefined {
  return batch === 1 ? { runners: 2, concurrentJobs: 4, localQueue: -1, completeJobBatchDelay: -1 } : undefined;
}

/** Every job is fetched by a query of its own; those completed within a few milliseconds share one. */
export function completionsGathered(batch: number): Tuning | undefined {
  return batch === 1 ? { runners: 1, concurrentJobs: 100, localQueue: -1, completeJobBatchDelay: 5 } : undefined;
}

/** Fetched and completed by the batch. Several runners, since a local queue waits for its own fetch. */
export function localQueue(batch: number): Tuning | undefined {
  if (batch === 1) return undefined;
  return { runners: 4, concurrentJobs: Math.max(20, batch), localQueue: batch, completeJobBatchDelay: 0 };
}

/** graphile-worker: its workers fetch one job a query, or a local queue fetches for them. */
export function graphileWorker(
  name: string,
  dbUrl: string,
  tuningOf: (batch: number) => Tuning | undefined,
): Contestant {
  const database = postgres(dbUrl, { max: 1, onnotice: () => {} });
  let expected = 0;

  return {
    name,
    side: "rival",
    dbUrl,
    isMissing: (batch) => tuningOf(batch) === undefined,
    prepare: async (jobs) => {
      expected = jobs;
      await database.unsafe(`drop schema if exists ${schema} cascade`);
      const utils = await makeWorkerUtils({ connectionString: dbUrl, schema, logger: silent });
      await utils.migrate();
      for (let from = 0; from < jobs; from += 5000) {
        const length = Math.min(5000, jobs - from);
        await utils.addJobs(Array.from({ length }, (_, n) => ({ identifier: task, payload: { n: from + n } })));
      }
      await utils.release();
    },
    drain: async (batch) => {
      const tuning = tuningOf(batch);
      if (!tuning) throw new Error(`${name} has no tuning for batches of ${batch}`);
      const pools = await Promise.all(
        Array.from({ length: tuning.runners }, () => openPool(dbUrl, connections / tuning.runners)),
      );
      let started = Number.POSITIVE_INFINITY;
      let handled = 0;
      const allHandled = Promise.withResolvers<void>();
      const runners = await Promise.all(
        pools.map((pool) => {
          // Its start-up looks for migrations and listens. The measured time begins with the workers.
          const events = new EventEmitter();
          events.once("pool:create", () => {
            started = Math.min(started, performance.now());
          });
          return run({
            pgPool: pool,
            events,
            taskList: {
              [task]: () => {
                handled += 1;
                if (handled === expected) allHandled.resolve();
              },
            },
            parsedCronItems: [],
            noHandleSignals: true,
            preset: {
              worker: {
                schema,
                logger: silent,
                concurrentJobs: tuning.concurrentJobs,
                completeJobBatchDelay: tuning.completeJobBatchDelay,
                ...(tuning.localQueue > 0 ? { localQueue: { size: tuning.localQueue } } : {}),
              },
            },
          });
        }),
      );
      await allHandled.promise;
      while (await isLeft()) await new Promise((resolve) => setTimeout(resolve, 1));
      const seconds = (performance.now() - started) / 1000;
      await Promise.all(runners.map((runner) => runner.stop()));
      await Promise.all(pools.map((pool) => pool.end()));
      return seconds;
    },
    completed: async () => {
      const [row] = await database.unsafe<{ n: number }[]>(`select count(*)::int as n from ${schema}._private_jobs`);
      return expected - (row?.n ?? 0);
    },
    clear: async () => {
      await database.unsafe(`drop schema ${schema} cascade`);
    },
    close: () => database.end(),
  };

  async function isLeft(): Promise<boolean> {
    const [row] = await database.unsafe<{ left: boolean }[]>(
      `select exists (select from ${schema}._private_jobs) as left`,
    );
    return row?.left ?? true;
  }
}

/** Open connections for the work, and one more, which the runner listens on. */
async function openPool(dbUrl: string, size: number): Promise<pg.Pool> {
  const pool = new pg.Pool({ connectionString: dbUrl, max: size + 1 });
  // A lost connection shows as a failed query: the pool's own report of it says nothing more.
  pool.on("error", () => {});
  pool.on("connect", (client) => client.on("error", () => {}));
  const clients = await Promise.all(Array.from({ length: size + 1 }, () => pool.connect()));
  for (const client of clients) client.release();
  return pool;
}
