/** Answers of the functions and views, in the database's own names. This file gives the shape of the functions' JSON. */

import type { Need } from "../workers/runtime/claim.ts";
import type { NewItem, Reference } from "../workers/runtime/new-item.ts";
import type { Requirement } from "../workers/runtime/requirement.ts";
import type { Database } from "./database.types.ts";
import type { statuses } from "./lists/query.ts";

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
  /** How long its handler may take; null: no limit. */
  try_seconds: number | null;
  failures: number;
  crashes: number;
  /** The job elsewhere that an earlier try was parked as. */
  external_id: string | null;
  /** The state that an earlier try has saved. */
  state: Json;
  traceparent: string | null;
  /** The claims that it waited for, at most 100, where there are any. */
  needs?: readonly Need[];
};

/** claim_next() brings the item along. */
export type ClaimedItemWithPayload = ClaimedItem & { payload: Json; source_key: string | null; pool: string };

export type HeldClaim = { item_id: string; work_type: string; fence: number; progress?: number; state?: Json };

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
  outcome: Outcome | "snoozed" | "parked";
  result?: Json;
  error?: string;
  /** The claim fails for good, even where the work type allows more tries. */
  final?: boolean;
  retry_after_seconds?: number;
  /** How long a snoozed claim waits, or a parked one for its job. */
  seconds?: number;
  /** Of a snoozed claim. */
  note?: string;
  /** Of a parked claim: the id of the job elsewhere. */
  external_id?: string | null;
  /** For the next try; at most 64 kB. */
  state?: Json;
  /** Added in the transaction that takes the outcome. */
  items?: readonly NewItem[];
  /** A snoozed claim waits for these; an index names one of its items. */
  needs?: readonly Reference[];
};

/** A parked claim whose job is to be asked about, or stopped where the claim has ended. */
export type ParkedClaim = {
  item_id: string;
  work_type: string;
  fence: number;
  external_id: string;
  state: Json;
  is_ended: boolean;
  claimed_at: string;
  expires_at: string;
  pool: string;
  source_key: string | null;
  payload: Json;
};

/** The new status of a released claim; lost: the caller did not hold it. */
export type ReleasedState = "succeeded" | "failed" | "waiting" | "ready" | "blocked" | "cancelled" | "parked" | "lost";

/** A worker's capabilities or an item's labels: values by name, which may nest. */
export type Properties = { [name: string]: Json };

export type WorkTypeRules = Tables["work_types"]["Row"];

export type Workflow = Tables["work_workflows"]["Row"];

export type AttachedPool = { pool: string; key: string[] };

export type EnrollStep = { mirrored: number; enrolled: number; done: boolean };

export type WorkerRow = Omit<Tables["work_workers"]["Row"], "capabilities" | "accepts"> & {
  capabilities: Properties;
  accepts: Requirement;
};

export type HeldRow = Views["work_held"]["Row"];

export type StuckRow = { work_type: string | null; item_id: string | null; reason: string; since: string | null };

export type StaleRow = {
  work_type: string;
  item_id: string;
  pool: string;
  source_key: string | null;
  status: ClaimStatus;
  /** Why its result is out of date. */
  reason: string;
  waits_for: number;
  /** The old one, until the next one replaces it. */
  result: Json;
};

export type EventRow = Tables["work_events"]["Row"];

export type FailureRow = Views["work_failures"]["Row"];

/** How many live workers match a requirement and labels. Workers that yield count as matching. */
export type MatchReport = {
  live_workers: number;
  matching: number;
  yielding: number;
  /** After how long the first of those that yield takes such an item. */
  yield_seconds: number | null;
  /** The first 20 of them. */
  matching_workers: string[];
  yielding_workers: string[];
  /** Each reason, its workers, those with no other reason, and the closest worker with its value. */
  failing: {
    reason: string;
    workers: number;
    only_this: number;
    closest_worker: string;
    closest_has: string | null;
  }[];
};

export type WouldMatch = MatchReport & { tag: string };

/** A claim that a blocked one waits for, or a whole workflow. */
export type ExplainedNeed = {
  item_id: string | null;
  work_type: string | null;
  /** Null where nobody has enrolled it, and of a workflow. */
  status: ClaimStatus | null;
  workflow: string | null;
};

/** One claim: why it does not run, or how it ended, and the facts behind that. */
export type ExplainedClaim = {
  work_type: string;
  status: ClaimStatus;
  reason: string;
  failures: number;
  crashes: number;
  error: string | null;
  paused: boolean;
  /** Why its result is out of date; null: it is not. */
  stale: string | null;
  /** Why a held claim is to be done once more after its holder. */
  again: string | null;
  /** How many of its needs are not met. */
  waits_for: number;
  /** Of a blocked claim: at most five of them, failed ones first. */
  needs: ExplainedNeed[] | null;
  due_at: string;
  worker_id: string | null;
  claimed_at: string | null;
  progress: number | null;
  /** The job elsewhere that does the work of a parked claim. */
  parked_as: string | null;
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
