import type { Requirement } from "../../workers/runtime/requirement.ts";
import type { ClaimStatus, Json, Properties } from "../answers.ts";
import type { Database } from "../database.types.ts";

type Views = Database["public"]["Views"];
/** A row as it is known to be where the generated type knows less. */
type Known<Row, Facts> = Omit<Row, keyof Facts> & Facts;

/** Each class of items has both. */
type OfClass = { labels: Properties; requires: Requirement };

export type ListedItem = Known<
  Omit<Views["work_item_list"]["Row"], "payload">,
  OfClass & {
    /** It is read only on request. */
    payload?: Json;
  }
>;

export type ListedClaim = Known<
  Omit<Views["work_claim_list"]["Row"], "result" | "state" | "item_key">,
  OfClass & {
    status: ClaimStatus;
    pool: string;
    parked: boolean;
    waits_for: number;
    /** It is read only on request. */
    result?: Json;
  }
>;

export type ListedWorker = Known<
  Views["work_worker_list"]["Row"],
  {
    /** Heard of within two minutes, and not retired. */
    alive: boolean;
    /** Alive, and holding nothing. */
    free: boolean;
    /** The number of its claims with a running lease. */
    holds: number;
    capabilities: Properties;
    accepts: Requirement;
  }
>;

/** How a filter on a column is written. */
export type Kind = "value" | "status" | "boolean" | "time" | "object" | "list" | "list or any";

export type List<Row> = {
  relation: string;
  /** The columns that a filter may name. */
  columns: { readonly [column in keyof Required<Row>]: Kind };
  /** The columns that name one row, in the order of its pages. */
  key: readonly (keyof Row & string)[];
  /** A column that is the first of the key once more, and is bounded with it. */
  keyTwin?: string;
  /** The column that may be large. */
  whole?: keyof Row & string;
};

export const itemList: List<ListedItem> = {
  relation: "work_item_list",
  columns: {
    ...{ id: "value", seq: "value", pool: "value", source_key: "value", dedupe_key: "value", priority: "value" },
    ...{ workflow: "value", affinity: "value", labels: "object", requires: "object", run_after: "time" },
    ...{ created_at: "time", payload: "object" },
  },
  key: ["id"],
  whole: "payload",
};

export const claimList: List<ListedClaim> = {
  relation: "work_claim_list",
  columns: {
    ...{ item_id: "value", work_type: "value", status: "status", pool: "value", source_key: "value" },
    ...{ priority: "value", rank: "value", position: "value", workflow: "value", affinity: "value", labels: "object" },
    ...{ requires: "object", worker_id: "value", fence: "value", request_id: "value", failures: "value" },
    ...{ crashes: "value", progress: "value", error: "value", due_at: "time", claimed_at: "time" },
    ...{ expires_at: "time", lease_left: "value", finished_at: "time", parked: "boolean", external_id: "value" },
    ...{ stale: "value", waits_for: "value" },
    result: "object",
  },
  key: ["item_id", "work_type"],
  keyTwin: "item_key",
  whole: "result",
};

export const workerList: List<ListedWorker> = {
  relation: "work_worker_list",
  columns: {
    ...{ id: "value", alive: "boolean", free: "boolean", holds: "value", work_types: "list or any" },
    ...{ pools: "list or any", capabilities: "object", accepts: "object", exclusive: "list", yield_seconds: "value" },
    ...{ version: "value", instance: "value", registered_at: "time", last_seen_at: "time", retired_at: "time" },
  },
  key: ["id"],
};

/** Orders that an index gives, each with the filter that it needs. */
export const claimOrders: Readonly<Record<"queue" | "newestFailed" | "nextLease" | "nextDue", readonly string[]>> = {
  /** The order in which workers get claims; with status = ready. */
  queue: ["work_type", "priority.desc", "rank", "position"],
  /** With status = failed and a work type. */
  newestFailed: ["finished_at.desc"],
  /** The lease that ends first; with status = claimed. */
  nextLease: ["expires_at"],
  /** With status = waiting. */
  nextDue: ["due_at"],
};
