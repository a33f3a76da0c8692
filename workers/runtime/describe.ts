import type { CallOptions, Client } from "./client.ts";

/** A work type as describe_work_types() answers it. */
export interface WorkType {
  readonly name: string;
  readonly is_declared: boolean;
  readonly pool: string | null;
  readonly is_paused: boolean;
  /** Why it was stopped: a claim of it failed for good. A database of an earlier version says nothing. */
  readonly stopped?: string | null;
  /** Its further claims of an item, where it has several. */
  readonly copies?: readonly string[];
  readonly min_worker_version: string | null;
  /** Something of it can be claimed now. */
  readonly has_ready: boolean;
  /** Something of it is held by a worker, or is to be tried again. */
  readonly has_open: boolean;
  /** Something of it is done elsewhere. */
  readonly has_parked: boolean;
}

export function describeWorkTypes(
  client: Client,
  workTypes: readonly string[],
  call: CallOptions,
): Promise<WorkType[]> {
  return client.rpc("describe_work_types", { work_types: workTypes }, call);
}
