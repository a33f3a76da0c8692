/** Answers of the functions and views, in the database's own names. Functions answer JSON, whose shape stands here. */

import type { Database } from "./database.types.ts";
import type { statuses } from "./lists/query.ts";
import type { Requirement } from "./requirement/requirement.ts";

type Tables = Database["public"]["Tables"];
type Views = Database["public"]["Views"];

export type Json = string | number | boolean | null | Json[] | { [name: string]: Json };

export type ClaimStatus = (typeof statuses)[number];

export type ClaimedItem = {
  item_id: string;
  work_type: string;
  fence: number;
  ttl_seconds: number;
  expires_at: string;
  failures: number;
  crashes: number;
};

/** claim_next() brings the item along. */
export type ClaimedItemWithPayload = ClaimedItem & { payload: Json; source_key: string | null; pool: string };

export type HeldClaim = { item_id: string; work_type: string; fence: number; progress?: number };

export type ExtendedClaim = {
  item_id: string;
  work_type: string;
  fence: number;
  state: "held" | "lost" | "cancelled";
  expires_at: string | null;
};

export type Outcome = "succeeded" | "failed" | "released";

export type ClaimOutcome = {
  item_id: string;
  work_type: string;
  fence: number;
  outcome: Outcome;
  result?: Json;
  error?: string;
  /** Failed for good: no tries are left, whatever the work type allows. */
  final?: boolean;
  retry_after_seconds?: number;
};

/** What became of a claim: its new status, or that somebody else has it. */
export type ReleasedState = "succeeded" | "failed" | "waiting" | "ready" | "cancelled" | "lost";

/** What a worker has, or an item shows: values by name, which may nest. */
export type Properties = { [name: string]: Json };

export type NewItem = {
  pool?: string;
  payload?: Json;
  priority?: number;
  dedupe_key?: string;
  run_after?: string;
  /** What it asks of a worker's capabilities. */
  requires?: Requirement;
  /** What it shows to workers, who may be willing to take it or not. */
  labels?: Properties;
  /** What a worker may be warm for: a model in memory, a snapshot on disk. */
  affinity?: string;
  /** The name of the items that it belongs to; the first that names it makes it. */
  workflow?: string;
};

export type WorkTypeRules = Tables["work_types"]["Row"];

export type Workflow = Tables["work_workflows"]["Row"];

export type AttachedPool = { pool: string; key: string[] };

export type EnrollStep = { mirrored: number; enrolled: number; done: boolean };

export type WorkerRow = Omit<Tables["work_workers"]["Row"], "capabilities" | "accepts"> & {
  capabilities: Properties;
  accepts: Requirement;
};

export type HeldRow = Views["work_held"]["Row"];

export type StuckRow = { work_type: string; item_id: string; reason: string; since: string };

export type FailureRow = Views["work_failures"]["Row"];

/** How the live workers stand to a requirement and labels. Those that yield are among those that match. */
export type MatchReport = {
  live_workers: number;
  matching: number;
  yielding: number;
  /** After how long the first of those that yield takes such an item. */
  yield_seconds: number | null;
  /** The first 20 of them. */
  matching_workers: string[];
  yielding_workers: string[];
  /** What fails, on how many workers, on how many of these nothing else; the closest worker and what it has there. */
  failing: {
    reason: string;
    workers: number;
    only_this: number;
    closest_worker: string;
    closest_has: string | null;
  }[];
};

export type WouldMatch = MatchReport & { tag: string; text: string };

/** One claim: why it does not run, or what became of it. What else there is depends on its status. */
export type ExplainedClaim = {
  work_type: string;
  status: ClaimStatus;
  failures: number;
  crashes: number;
  text: string;
  worker_id?: string | null;
  claimed_at?: string;
  expires_at?: string;
  lease_left_seconds?: number;
  progress?: number | null;
  due_at?: string;
  ready_since?: string;
  /** How many of its work type and class go before it: counted to 1000, `more_before` beyond. */
  before?: number;
  more_before?: boolean;
  paused?: boolean;
  workers?: MatchReport;
  finished_at?: string;
  error?: string | null;
};

export type ExplainedItem = {
  item_id: string;
  pool: string;
  source_key: string | null;
  class_id: number;
  tag: string;
  requires: Json;
  labels: Json;
  claims: ExplainedClaim[];
  text: string;
};
