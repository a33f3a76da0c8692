/** What the functions and views of work-claims take and answer, in the database's own names. */

import type { Requirement } from "./requirement/requirement.ts";

export type Json = string | number | boolean | null | Json[] | { [name: string]: Json };

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

export type WorkTypeRules = {
  name: string;
  pool: string | null;
  lease_seconds: number;
  max_failures: number;
  max_crashes: number;
  backoff_seconds: number;
  backoff_limit_seconds: number;
  paused: boolean;
  /** How long an item may wait while workers take others that they are warm for. */
  passed_over_seconds: number;
};

export type Workflow = {
  id: number;
  name: string;
  /** Counts for all its items; null leaves each its own. */
  priority: number | null;
  line: number;
  created_at: string;
};

export type AttachedPool = { pool: string; key: string[] };

export type EnrollStep = { mirrored: number; enrolled: number; done: boolean };

export type WorkerRow = {
  id: string;
  work_types: string[] | null;
  capabilities: Properties;
  accepts: Requirement;
  exclusive: string[];
  yield_seconds: number | null;
  version: string | null;
  registered_at: string;
  last_seen_at: string;
  retired_at: string | null;
};

export type HeldRow = {
  item_id: string;
  work_type: string;
  worker_id: string;
  claimed_at: string;
  held_for: string;
  lease_left: string;
  progress: number | null;
  fence: number;
  last_seen_at: string | null;
};

export type StuckRow = { work_type: string | null; item_id: string | null; reason: string; since: string | null };

export type FailureRow = {
  work_type: string;
  item_id: string;
  pool: string;
  source_key: string | null;
  error: string | null;
  failures: number;
  crashes: number;
  finished_at: string;
  worker_id: string | null;
};

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

export type WouldMatch = MatchReport & { tag: string };

/** One claim: why it does not run, or how it ended, and the facts behind that. */
export type ExplainedClaim = {
  work_type: string;
  status: "blocked" | "waiting" | "ready" | "claimed" | "succeeded" | "failed" | "cancelled";
  reason: string;
  failures: number;
  crashes: number;
  error: string | null;
  paused: boolean;
  due_at: string;
  worker_id: string | null;
  claimed_at: string | null;
  progress: number | null;
  /** Below zero after the lease has ended; null where there is none. */
  lease_left_seconds: number | null;
  finished_at: string | null;
  /** Of a ready claim: how many of its lane go before it, counted to 1000; `more_before` beyond. */
  before: number | null;
  more_before: boolean | null;
  /** Of a ready claim. */
  workers: MatchReport | null;
};

export type ExplainedItem = {
  item_id: string;
  pool: string;
  source_key: string | null;
  class_id: number;
  tag: string;
  requires: Json;
  labels: Json;
  run_after: string | null;
  /** By the database's clock. */
  asked_at: string;
  /** The reasons of its claims, or why it has none. */
  reason: string;
  claims: ExplainedClaim[];
};
