import type { CallOptions, Client } from "./client.ts";
import { SettingsError } from "./host.ts";

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

/** Whether all is over. Throws where a work type was stopped: only a person can go on. */
export function isAllDone(types: readonly Remaining[]): boolean {
  const stopped = types.find((type) => type.stopped !== null && type.open > 0);
  if (stopped) {
    throw new SettingsError(
      `${stopped.work_type} is stopped with ${stopped.open} open (${stopped.stopped}); hand it out again with: work-claims types ${stopped.work_type} --no-paused`,
    );
  }
  return types.every((type) => type.open === 0 && !type.is_reopening);
}
