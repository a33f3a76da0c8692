/** A row of the view work_overview: how far a work type is. */
export type OverviewRow = {
  work_type: string;
  pool: string | null;
  paused: boolean;
  ready: number;
  waiting: number;
  blocked: number;
  claimed: number;
  succeeded: number;
  failed: number;
  cancelled: number;
  oldest_wait: string | null;
  finished_last_minute: number;
  time_left: string | null;
};

const columns = ["work_type", "paused", "ready", "waiting", "claimed", "succeeded", "failed", "time_left"];

/** The rows as they came, or an error that says what to do about a project with another version installed. */
export function readOverview(rows: unknown): OverviewRow[] {
  const read = rows as OverviewRow[];
  const missing = columns.find((column) => read.some((row) => !Object.hasOwn(row, column)));
  if (missing !== undefined) {
    throw new Error(`work_overview has no column ${missing}; run work-claims init and supabase db push`);
  }
  return read;
}

/** How many claims of a work type are still to be done or running. */
export function openClaims(row: OverviewRow): number {
  return row.ready + row.waiting + row.blocked + row.claimed;
}

/** How many have ended by work: cancelled ones neither count as done nor as to do. */
export function finishedClaims(row: OverviewRow): number {
  return row.succeeded + row.failed;
}
