import { z } from "zod";

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

const overviewRow: z.ZodType<OverviewRow> = z.object({
  work_type: z.string(),
  pool: z.string().nullable(),
  paused: z.boolean(),
  ready: z.number(),
  waiting: z.number(),
  blocked: z.number(),
  claimed: z.number(),
  succeeded: z.number(),
  failed: z.number(),
  cancelled: z.number(),
  oldest_wait: z.string().nullable(),
  finished_last_minute: z.number(),
  time_left: z.string().nullable(),
});

/** The rows as they came, or an error that says what to do about a project with another version installed. */
export function readOverview(rows: unknown): OverviewRow[] {
  const read = z.array(overviewRow).safeParse(rows);
  if (!read.success) {
    throw new Error(
      `work_overview has another shape than this version expects (${read.error.issues[0]?.path.join(".")}: ${read.error.issues[0]?.message}); run work-claims init and supabase db push`,
    );
  }
  return read.data;
}

/** How many claims of a work type are still to be done or running. */
export function openClaims(row: OverviewRow): number {
  return row.ready + row.waiting + row.blocked + row.claimed;
}

/** How many have ended by work: cancelled ones neither count as done nor as to do. */
export function finishedClaims(row: OverviewRow): number {
  return row.succeeded + row.failed;
}
