/** The connections to Postgres, or to the API, that every contestant has for its work. */
export const connections = 4;

/** Loops that claim and complete over these connections: more of them, so that no connection waits for the client. */
export const loops = 8;

/** One way to claim and complete no-op jobs. */
export interface Contestant {
  name: string;
  /** The limit that the others are compared with, another project's queue, another version of ours, or ours. */
  side: "limit" | "rival" | "other version" | "ours";
  /** The database that its jobs are in. */
  dbUrl: string;
  /** Fresh tables with so many jobs in them, in the way this contestant is meant to be given jobs. */
  prepare: (jobs: number) => Promise<void>;
  /** Claims and completes every job; answers the seconds from the first claim to the last completion. */
  drain: (batch: number) => Promise<number>;
  /** How many jobs the database has as completed. */
  completed: () => Promise<number>;
  /** Drops the jobs. */
  clear: () => Promise<void>;
  /** Closes the connections. */
  close: () => Promise<void>;
  /** Batch sizes that it has no way to work in. */
  isMissing?: (batch: number) => boolean;
}

export interface Result {
  contestant: Contestant;
  batch: number;
  /** Jobs a second, one number a round. */
  rates: number[];
}

/** Measures all contestants in turn, round after round, each round beginning with another one. */
export async function contest(
  contestants: Contestant[],
  settle: (dbUrl: string) => Promise<void>,
  plan: { rounds: number; batches: number[]; jobs: (batch: number) => number },
  tell: (line: string) => void,
): Promise<Result[]> {
  const results: Result[] = [];
  for (const batch of plan.batches) {
    const entered = contestants
      .filter((contestant) => !contestant.isMissing?.(batch))
      .map((contestant) => ({ contestant, batch, rates: [] as number[] }));
    // The first run compiles code and opens connections: it does not count.
    for (const { contestant } of entered) await measure(contestant, settle, batch, 500);
    for (let round = 0; round < plan.rounds; round++) {
      for (const entry of rotated(entered, round)) {
        const rate = await measure(entry.contestant, settle, batch, plan.jobs(batch));
        entry.rates.push(rate);
        tell(`batches of ${batch}, round ${round + 1}: ${entry.contestant.name} ${Math.round(rate)}/s`);
      }
    }
    results.push(...entered);
  }
  return results;
}

async function measure(
  contestant: Contestant,
  settle: (dbUrl: string) => Promise<void>,
  batch: number,
  jobs: number,
): Promise<number> {
  await contestant.prepare(jobs);
  await settle(contestant.dbUrl);
  const seconds = await contestant.drain(batch);
  const completed = await contestant.completed();
  if (completed !== jobs) throw new Error(`${contestant.name} completed ${completed} of ${jobs} jobs`);
  await contestant.clear();
  return jobs / seconds;
}

function rotated<T>(list: T[], by: number): T[] {
  const start = by % list.length;
  return [...list.slice(start), ...list.slice(0, start)];
}

export function median(numbers: number[]): number {
  return (
    (percentile(numbers, 0.5) +
      percentile(
        numbers.map((number) => -number),
        0.5,
      ) *
        -1) /
    2
  );
}

export function percentile(numbers: number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
