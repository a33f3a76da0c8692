import { setTimeout as sleep } from "node:timers/promises";
import postgres from "postgres";
import { createWorkClient } from "../src/client.ts";
import { overSql } from "../src/sql/client.ts";
import { work } from "../workers/runtime/work.ts";
import { median, percentile } from "./contest.ts";
import { markdown } from "./table.ts";
import { emptyTables, workType } from "./work_claims.ts";

const starts = 300;
const warmUps = 20;

/** Times from the enqueueing of one item until the handler of an idle worker has it: called over SQL, and looking over HTTP. */
export async function idleToStart(
  dbUrl: string,
  api: { url: string; key: string },
  tell: (line: string) => void,
): Promise<string> {
  const database = postgres(dbUrl, { max: 4, onnotice: () => {} });
  const client = createWorkClient({ sql: database });
  const rows: string[][] = [];
  try {
    for (const [name, how, count] of [
      // It looks by itself once an hour only.
      ["called, SQL", { client: overSql(database), idleMinSeconds: 3600, idleMaxSeconds: 3600 }, starts],
      ["looking from time to time, HTTP", api, 30],
    ] as const) {
      await emptyTables(database);
      await client.defineWorkType(workType, { pool: "default" });
      const stop = new AbortController();
      let started = (): void => {};
      const options = { ...how, signal: stop.signal, handleSignals: false, log: () => {} };
      const ended = work(workType, () => started(), options);
      const times: number[] = [];
      for (let n = 0; n < count + warmUps; n++) {
        // The worker is idle again, and its looks are at any time.
        await sleep(20 + 50 * Math.random());
        const start = new Promise<void>((resolve) => {
          started = resolve;
        });
        const from = performance.now();
        await Promise.all([client.enqueueItems([{}]), start]);
        if (n >= warmUps) times.push(performance.now() - from);
      }
      stop.abort();
      await ended;
      tell(`idle to start, ${name}: p99 ${percentile(times, 0.99).toFixed(1)} ms`);
      rows.push([
        name,
        ...[median(times), percentile(times, 0.95), percentile(times, 0.99)].map((time) => time.toFixed(1)),
      ]);
    }
  } finally {
    await emptyTables(database);
    await database.end();
  }
  return markdown(["from enqueueing to the handler of an idle worker", "median ms", "p95 ms", "p99 ms"], rows);
}
