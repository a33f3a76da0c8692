import type { Json } from "../answers.ts";
import type { Requirement } from "../requirement/requirement.ts";

export type ClaimStatus = "blocked" | "waiting" | "ready" | "claimed" | "succeeded" | "failed" | "cancelled";

export type ListedItem = {
  id: string;
  /** Its place among all that came. */
  seq: number;
  pool: string;
  source_key: string | null;
  dedupe_key: string | null;
  priority: number;
  workflow: string | null;
  affinity: string | null;
  run_after: string | null;
  created_at: string;
  labels: { [name: string]: Json };
  requires: Requirement;
  /** Comes along where it is asked for. */
  payload?: Json;
};

export type ListedClaim = {
  item_id: string;
  work_type: string;
  status: ClaimStatus;
  pool: string;
  source_key: string | null;
  priority: number;
  position: number;
  workflow: string | null;
  affinity: string | null;
  /** Who holds it, or who released it last. */
  worker_id: string | null;
  fence: number | null;
  request_id: string | null;
  failures: number;
  crashes: number;
  progress: number | null;
  error: string | null;
  due_at: string;
  claimed_at: string | null;
  expires_at: string | null;
  finished_at: string | null;
  labels: { [name: string]: Json };
  requires: Requirement;
  /** Comes along where it is asked for. */
  result?: Json;
};

export type ListedWorker = {
  id: string;
  /** Heard of within two minutes, and not retired. */
  alive: boolean;
  /** Alive, and holding nothing. */
  free: boolean;
  /** How many claims it holds whose lease goes on. */
  holds: number;
  /** Null: any. */
  work_types: string[] | null;
  capabilities: { [name: string]: Json };
  accepts: Requirement;
  exclusive: string[];
  yield_seconds: number | null;
  version: string | null;
  instance: string;
  registered_at: string;
  last_seen_at: string;
  retired_at: string | null;
};
