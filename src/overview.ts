/** A row of the view work_overview: how far a work type is. */
export type OverviewRow = {
  work_type: string;
  pool: string | null;
  paused: boolean;
  /** All that is not over: exact, however many. */
  open: number;
  ready: number;
  waiting: number;
  /** They wait for other work: exact, however many. */
  blocked: number;
  claimed: number;
  /** Their work is done elsewhere. */
  parked: number;
  /** Claimed ones whose lease has ended. */
  late: number;
  /** More than 10,000 wait or are held in all: ready, waiting and claimed are lower bounds then. */
  is_capped: boolean;
  succeeded: number;
  failed: number;
  cancelled: number;
  /** The longest among the first 1,000 in order. */
  oldest_wait: string | null;
  finished_last_minute: number;
  time_left: string | null;
};

/** The answer of work_pulse(): small, and cheap enough to ask every second. */
export type Pulse = {
  at: string;
  types: (OverviewRow & { workers: number })[];
  held: number;
  late: number;
  live_workers: number;
  /** At most 200, those that hold late claims first. */
  workers: { id: string; held: number; late: number; progress: number | null; last_seen_at: string }[];
  /** The last 20. */
  events: {
    id: number;
    at: string;
    event: string;
    work_type: string;
    item_id: string;
    worker_id: string | null;
    detail: string | null;
  }[];
};

const columns = [
  "work_type",
  "paused",
  "open",
  "ready",
  "waiting",
  "claimed",
  "parked",
  "late",
  "succeeded",
  "failed",
  "time_left",
];

/** Answers the rows as they came. The error for a project with another version names the remedy. */
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
  return row.open;
}

/** How many have ended by work: cancelled ones neither count as done nor as to do. */
export function finishedClaims(row: OverviewRow): number {
  return row.succeeded + row.failed;
}

/** A number of an open state, with a plus where there may be more. */
export function shown(count: number, row: OverviewRow): string {
  return row.is_capped && count > 0 ? `${count}+` : String(count);
}
