import postgres, { type Sql } from "postgres";
import { median, percentile } from "./contest.ts";
import { markdown } from "./table.ts";
import { addItems, emptyTables, workType } from "./work_claims.ts";

const ready = 1000;
const claimed = 10;
const calls = 300;
const warmUpCalls = 30;

export interface Latency {
  finished: number;
  medianMs: number;
  p95Ms: number;
}

/** Times claim_next(10) with so many finished claims beside a thousand ready ones. */
export async function claimLatency(
  dbUrl: string,
  sizes: number[],
  settle: (dbUrl: string) => Promise<void>,
  tell: (line: string) => void,
): Promise<Latency[]> {
  const database = postgres(dbUrl, { max: 1, onnotice: () => {} });
  const latencies: Latency[] = [];
  try {
    await emptyTables(database);
    await database`select public.define_work_type(${workType}, pool => 'default')`;
    await addItems(database, ready);
    let finished = 0;
    for (const size of sizes) {
      await addFinished(database, size - finished, "bench finished");
      finished = size;
      await settle(dbUrl);
      const times = await timeClaims(database);
      latencies.push({ finished, medianMs: median(times), p95Ms: percentile(times, 0.95) });
      tell(`claim_next(${claimed}) beside ${finished.toLocaleString("en")} finished: ${median(times).toFixed(2)} ms`);
    }
  } finally {
    await emptyTables(database);
    await database.end();
  }
  return latencies;
}

export function latencyTable(latencies: Latency[]): string {
  const least = latencies[0]?.medianMs ?? Number.NaN;
  return markdown(
    [`claim_next(${claimed}), ${ready} ready`, "median ms", "× first", "p95 ms"],
    latencies.map(({ finished, medianMs, p95Ms }) => [
      `${finished.toLocaleString("en")} finished`,
      medianMs.toFixed(2),
      (medianMs / least).toFixed(2),
      p95Ms.toFixed(2),
    ]),
  );
}

/** Each timed claim is released and replaced outside of the timed part, so that every call meets the same backlog. */
async function timeClaims(database: Sql): Promise<number[]> {
  const times: number[] = [];
  for (let call = 0; call < warmUpCalls + calls; call++) {
    const started = performance.now();
    const [row] = await database<{ claims: { item_id: string; work_type: string; fence: number }[] }[]>`
      select public.claim_next(array[${workType}], 'bench', max_items => ${claimed}) as claims`;
    if (call >= warmUpCalls) times.push(performance.now() - started);

    const outcomes = (row?.claims ?? []).map(({ item_id, work_type, fence }) => ({
      item_id,
      work_type,
      fence,
      outcome: "succeeded",
    }));
    if (outcomes.length !== claimed) throw new Error(`claim_next(${claimed}) answered ${outcomes.length} claims`);
    await database`select public.release_items('bench', ${database.json(outcomes)})`;
    await addItems(database, claimed);
  }
  return times;
}

/** Adds items whose claim has succeeded, as a worker leaves them. By then their pool has no work types. */
export async function addFinished(database: Sql, items: number, pool: string): Promise<void> {
  // A step stays well below a statement's time-out.
  for (let from = 0; from < items; from += 100_000) {
    await database`
      with added as (
        insert into public.work_items (pool, payload)
        select ${pool}, jsonb_build_object('n', n) from generate_series(1, ${Math.min(100_000, items - from)}) as n
        returning id, seq
      )
      insert into public.work_claims
        (item_id, work_type, status, position, worker_id, fence, claimed_at, expires_at, finished_at, progress)
      select id, ${workType}, 'succeeded', seq, 'bench', nextval('work.fence'), now() - interval '2 hours',
             now() - interval '1 hour', now() - interval '1 hour', 1
        from added`;
  }
}
