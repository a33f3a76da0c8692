import postgres, { type Sql } from "postgres";
import { median, percentile } from "./contest.ts";
import { markdown } from "./table.ts";
import { addItems, emptyTables, workType } from "./work_claims.ts";

const calls = 30;
const ready = 100_000;
const pruned = 1000;

interface Timed {
  name: string;
  times: number[];
}

/** Times the questions about all work, and the upkeep of tables, beside so many ended claims. */
export async function scale(
  dbUrl: string,
  claims: number,
  settle: (dbUrl: string) => Promise<void>,
  tell: (line: string) => void,
): Promise<string> {
  const database = postgres(dbUrl, { max: 1, onnotice: () => {} });
  try {
    await emptyTables(database);
    for (const name of [workType, "other"]) await database`select public.define_work_type(${name}, pool => 'default')`;
    await addItems(database, ready);
    await addOver(database, claims, tell);
    await settle(dbUrl);
    const measured = await measure(database);
    for (const { name, times } of measured) tell(`${name}: ${median(times).toFixed(1)} ms`);
    return markdown(
      [`beside ${claims.toLocaleString("en")} ended claims`, "median ms", "p95 ms"],
      measured.map(({ name, times }) => [name, median(times).toFixed(1), percentile(times, 0.95).toFixed(1)]),
    );
  } finally {
    await emptyTables(database);
    await database.end();
  }
}

/** Claims that are over, as workers would have left them: of 50, one failed and one is cancelled. */
async function addOver(database: Sql, claims: number, tell: (line: string) => void): Promise<void> {
  const step = 100_000;
  for (let from = 0; from < claims; from += step) {
    await database`
      with added as (
        insert into public.work_items (id, pool, payload)
        select id, 'bench finished', jsonb_build_object('n', n)
          from unnest(work.new_ids(null, ${Math.min(step, claims - from)}::integer)) with ordinality as fresh(id, n)
        returning id, seq
      )
      insert into public.work_claims
        (item_id, work_type, status, position, rank, worker_id, fence, claimed_at, expires_at, finished_at, progress)
      select id, ${workType}, case when seq % 50 = 0 then 'failed' when seq % 50 = 1 then 'cancelled' else 'succeeded' end,
             seq, seq, 'bench', nextval('work.fence'), now() - interval '10 days', now() - interval '10 days',
             now() - interval '10 days', 1
        from added`;
    if (from % 1_000_000 === 0) tell(`${from.toLocaleString("en")} ended claims made`);
  }
}

async function measure(database: Sql): Promise<Timed[]> {
  const questions: [string, () => PromiseLike<unknown>][] = [
    ["work_overview", () => database`select * from public.work_overview`],
    ["work_pulse()", () => database`select public.work_pulse()`],
    ["work_depth(), any worker", () => database`select public.work_depth(${workType})`],
    ["work_depth(), a worker's capabilities", () => database`select public.work_depth(${workType}, '{"gpu": "a100"}')`],
    ["claim_next(10)", () => database`select public.claim_next(array[${workType}], 'bench', 10)`],
    [`prune_finished(${pruned})`, () => database`select public.prune_finished(${workType}, '1 day', ${pruned})`],
  ];
  const measured: Timed[] = [];
  for (const [name, ask] of questions) {
    const times: number[] = [];
    for (let call = 0; call < calls; call++) {
      const started = performance.now();
      await ask();
      times.push(performance.now() - started);
    }
    measured.push({ name, times });
  }
  return measured;
}
