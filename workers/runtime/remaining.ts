import type { CallOptions, Client } from "./client.ts";

/** What is left of a work type, as work_remaining() answers it. */
export interface Remaining {
  readonly work_type: string;
  readonly is_declared: boolean;
  readonly ready: number;
  /** Held by workers; parked ones are done elsewhere. */
  readonly running: number;
  readonly parked: number;
  readonly waiting: number;
  /** When the first of them is due, as far as it is among the first 10,000 of the project. */
  readonly waiting_until: string | null;
  readonly blocked: number;
  /** All that is not over: exact, however many. */
  readonly open: number;
  readonly done: number;
  readonly failed: number;
  readonly cancelled: number;
  readonly is_capped: boolean;
  readonly is_paused: boolean;
  /** Why it was stopped at a claim that failed for good. */
  readonly stopped: string | null;
  /** Claims of an older version are yet to be reopened. */
  readonly is_reopening: boolean;
  /** Its live workers. */
  readonly workers: number;
}

export function askRemaining(
  client: Client,
  workTypes: readonly string[],
  call: CallOptions = {},
): Promise<Remaining[]> {
  return client.rpc("work_remaining", { work_types: workTypes }, call);
}

/** Nothing of it is open, and nothing is about to be. */
export function isOver({ open, is_reopening }: Remaining): boolean {
  return open === 0 && !is_reopening;
}
