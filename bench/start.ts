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
      const sinceCall: number[] = [];
      const sinceAnswer: number[] = [];
      for (let n = 0; n < count + warmUps; n++) {
        // The worker is idle again, and its looks are at any time.
        await sleep(20 + 50 * Math.random());
        const start = new Promise<void>((resolve) => {
          started = resolve;
        });
        const calledAt = performance.now();
        const answer = client.enqueueItems([{}]).then(() => performance.now());
        const startedAt = await start.then(() => performance.now());
        // The answer of the enqueueing call may come after the start.
        const answeredAt = Math.min(await answer, startedAt);
        if (n >= warmUps) {
          sinceCall.push(startedAt - calledAt);
          sinceAnswer.push(startedAt - answeredAt);
        }
      }
      stop.abort();
      await ended;
      for (const [since, times] of [
        ["the call", sinceCall],
        ["its answer", sinceAnswer],
      ] as const) {
        const [middle, p95, p99] = [median(times), percentile(times, 0.95), percentile(times, 0.99)];
        tell(`idle to start, ${name}, since ${since}: p99 ${p99.toFixed(1)} ms`);
        rows.push([name, since, ...[middle, p95, p99].map((time) => time.toFixed(1))]);
      }
    }
  } finally {
    await emptyTables(database);
    await database.end();
  }
  return markdown(
    ["an item enqueued, to the handler of an idle worker", "since", "median ms", "p95 ms", "p99 ms"],
    rows,
  );
}
