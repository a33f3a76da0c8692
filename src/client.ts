import { randomUUID } from "node:crypto";
import { createClient } from "../workers/runtime/client.ts";
import type {
  AttachedPool,
  ClaimedItem,
  ClaimedItemWithPayload,
  ClaimOutcome,
  EnrollStep,
  ExplainedItem,
  ExtendedClaim,
  FailureRow,
  HeldClaim,
  HeldRow,
  Json,
  NewItem,
  Outcome,
  Properties,
  ReleasedState,
  StuckRow,
  WorkerRow,
  Workflow,
  WorkTypeRules,
  WouldMatch,
} from "./answers.ts";
import { type OverviewRow, readOverview } from "./overview.ts";
import type { Requirement } from "./requirement/requirement.ts";
import { createLists, type Lists } from "./select/lists.ts";

export type WorkClientOptions = {
  /** The project's address, as in the dashboard. */
  url: string;
  /** A secret key or the service_role key: the functions are for nobody else. */
  key: string;
  fetch?: typeof fetch;
  /** How long a call is tried again while the project does not answer; 30 seconds without. */
  retryForMs?: number;
};

/** Undefined stands for "not given": the database's default applies. */
type Maybe<T> = T | undefined;

type ClaimOptions = {
  maxItems?: Maybe<number>;
  ttlSeconds?: Maybe<number>;
  /** Affinities at hand: within one priority their items come first. */
  warm?: Maybe<readonly string[]>;
  requestId?: Maybe<string>;
};

export type WorkClient = Lists & {
  /** Add items; their ids come in the order given. A repeated call with one request id adds nothing. */
  enqueueItems(items: readonly NewItem[], options?: { requestId?: Maybe<string> }): Promise<string[]>;
  defineWorkType(
    workType: string,
    rules?: {
      pool?: Maybe<string>;
      leaseSeconds?: Maybe<number>;
      maxFailures?: Maybe<number>;
      maxCrashes?: Maybe<number>;
      backoffSeconds?: Maybe<number>;
      backoffLimitSeconds?: Maybe<number>;
      paused?: Maybe<boolean>;
      passedOverSeconds?: Maybe<number>;
    },
  ): Promise<WorkTypeRules>;
  /** Make a workflow, or set its priority, which counts for all its items; null leaves each its own. */
  defineWorkflow(workflow: string, options?: { priority?: Maybe<number | null> }): Promise<Workflow>;
  /**
   * Make a table a pool. The key's role needs the right to make triggers on it; the table's owner has it in any case,
   * with select attach_pool(…) or work-claims attach.
   */
  attachPool(
    source: string,
    options?: {
      pool?: Maybe<string>;
      payloadColumns?: Maybe<readonly string[]>;
      priorityColumn?: Maybe<string>;
      runAfterColumn?: Maybe<string>;
      requiresColumn?: Maybe<string>;
      labelsColumn?: Maybe<string>;
      affinityColumn?: Maybe<string>;
      workflowColumn?: Maybe<string>;
    },
  ): Promise<AttachedPool>;
  /** One bounded step; repeat it until `done`. */
  enrollPool(pool: string, options?: { maxItems?: Maybe<number> }): Promise<EnrollStep>;
  /** Claim these items; those that somebody else holds are missing from the answer. */
  claimItems(
    itemIds: readonly string[],
    workType: string,
    workerId: string,
    options?: { ttlSeconds?: Maybe<number>; requestId?: Maybe<string> },
  ): Promise<ClaimedItem[]>;
  /** Claim what is next in line, of what the worker matches. */
  claimNext(workTypes: readonly string[], workerId: string, options?: ClaimOptions): Promise<ClaimedItemWithPayload[]>;
  extendClaims(
    workerId: string,
    held: readonly HeldClaim[],
    options?: { ttlSeconds?: Maybe<number> },
  ): Promise<ExtendedClaim[]>;
  /** True for the holder only. */
  releaseItem(
    claim: { item_id: string; work_type: string; fence: number },
    workerId: string,
    outcome: Outcome,
    options?: { result?: Maybe<Json>; error?: Maybe<string> },
  ): Promise<boolean>;
  releaseItems(workerId: string, outcomes: readonly ClaimOutcome[]): Promise<ReleasedState[]>;
  finishAndClaim(
    workerId: string,
    outcomes: readonly ClaimOutcome[],
    workTypes: readonly string[],
    options?: ClaimOptions,
  ): Promise<{ released: ReleasedState[]; claimed: ClaimedItemWithPayload[] }>;
  releaseClaimsForWorker(workerId: string): Promise<number>;
  reapExpiredClaims(options?: { maxItems?: Maybe<number> }): Promise<number>;
  /** Say that a worker is there, what it has and what it takes; again when that changes. */
  registerWorker(
    workerId: string,
    instance: string,
    options?: {
      workTypes?: Maybe<readonly string[]>;
      capabilities?: Maybe<Properties>;
      version?: Maybe<string>;
      accepts?: Maybe<Requirement>;
      /** Capabilities too dear for items that do without: those are left to others for yieldSeconds, or for good. */
      exclusive?: Maybe<readonly string[]>;
      yieldSeconds?: Maybe<number>;
    },
  ): Promise<{ worker_id: string }>;
  retireWorker(workerId: string): Promise<boolean>;
  /** Reopen failed claims: of these items, or the longest failed ones. Answers how many. */
  retryItems(
    workType: string,
    options?: { itemIds?: Maybe<readonly string[] | null>; maxItems?: Maybe<number> },
  ): Promise<number>;
  /** Cancel open claims: of these items, or any. Answers how many. */
  cancelItems(
    workType: string,
    options?: { itemIds?: Maybe<readonly string[] | null>; maxItems?: Maybe<number> },
  ): Promise<number>;
  /** Why an item is not running, or how it ended. */
  explainItem(itemId: string, options?: { workType?: Maybe<string> }): Promise<ExplainedItem>;
  /** Which live workers would run such an item, and what fails on the others. Nothing is written. */
  wouldMatch(
    requires: Requirement,
    options?: { labels?: Maybe<{ [name: string]: Json }>; workType?: Maybe<string> },
  ): Promise<WouldMatch>;
  /** Delete classes that no item has. Answers how many; 0 also while items are being given classes. */
  pruneClasses(options?: { maxClasses?: Maybe<number> }): Promise<number>;
  workTypes(): Promise<WorkTypeRules[]>;
  overview(): Promise<OverviewRow[]>;
  /** Workers heard of since then and not retired. */
  liveWorkers(since: Date): Promise<WorkerRow[]>;
  held(options?: { limit?: number }): Promise<HeldRow[]>;
  stuck(options?: { limit?: number }): Promise<StuckRow[]>;
  failures(options?: { limit?: number }): Promise<FailureRow[]>;
};

/** A typed client of the functions and views, for programs that are no worker: enqueue, declare, look, retry. */
export function createWorkClient({ url, key, fetch, retryForMs = 30_000 }: WorkClientOptions): WorkClient {
  const api = createClient({ url, key, ...(fetch ? { fetch } : {}) });
  // A call that is sent twice, since its answer was lost, does its work once: each has a request id.
  // The database is the judge of what it answers; only the overview, which a person's own SQL may have replaced, is read with care.
  const call = async <T>(name: string, args: object): Promise<T> =>
    (await api.rpc(name, { ...args }, { retryForMs })) as T;
  const rows = async <T>(path: string): Promise<T[]> => (await api.get(path, { retryForMs })) as T[];
  return {
    ...createLists(call),
    enqueueItems: (items, { requestId = timeOrderedId() } = {}) =>
      call("enqueue_items", { items, request_id: requestId }),
    defineWorkType: (workType, rules = {}) =>
      call("define_work_type", {
        work_type: workType,
        pool: rules.pool,
        lease_seconds: rules.leaseSeconds,
        max_failures: rules.maxFailures,
        max_crashes: rules.maxCrashes,
        backoff_seconds: rules.backoffSeconds,
        backoff_limit_seconds: rules.backoffLimitSeconds,
        paused: rules.paused,
        passed_over_seconds: rules.passedOverSeconds,
      }),
    defineWorkflow: (workflow, { priority } = {}) => call("define_workflow", { workflow, priority }),
    attachPool: (source, columns = {}) =>
      call("attach_pool", {
        source,
        pool: columns.pool,
        payload_columns: columns.payloadColumns,
        priority_column: columns.priorityColumn,
        run_after_column: columns.runAfterColumn,
        requires_column: columns.requiresColumn,
        labels_column: columns.labelsColumn,
        affinity_column: columns.affinityColumn,
        workflow_column: columns.workflowColumn,
      }),
    enrollPool: (pool, { maxItems } = {}) => call("enroll_pool", { pool, max_items: maxItems }),
    claimItems: (itemIds, workType, workerId, { ttlSeconds, requestId = randomUUID() } = {}) =>
      call("claim_items", {
        item_ids: itemIds,
        work_type: workType,
        worker_id: workerId,
        ttl_seconds: ttlSeconds,
        request_id: requestId,
      }),
    claimNext: (workTypes, workerId, { maxItems, ttlSeconds, warm, requestId = randomUUID() } = {}) =>
      call("claim_next", {
        work_types: workTypes,
        worker_id: workerId,
        max_items: maxItems,
        ttl_seconds: ttlSeconds,
        warm,
        request_id: requestId,
      }),
    extendClaims: (workerId, held, { ttlSeconds } = {}) =>
      call("extend_claims", { worker_id: workerId, held, ttl_seconds: ttlSeconds }),
    releaseItem: ({ item_id, work_type, fence }, workerId, outcome, { result, error } = {}) =>
      call("release_item", { item_id, work_type, worker_id: workerId, outcome, fence, result, error }),
    releaseItems: (workerId, outcomes) => call("release_items", { worker_id: workerId, outcomes }),
    finishAndClaim: (workerId, outcomes, workTypes, { maxItems, ttlSeconds, warm, requestId = randomUUID() } = {}) =>
      call("finish_and_claim", {
        worker_id: workerId,
        outcomes,
        work_types: workTypes,
        max_items: maxItems,
        ttl_seconds: ttlSeconds,
        warm,
        request_id: requestId,
      }),
    releaseClaimsForWorker: (workerId) => call("release_claims_for_worker", { worker_id: workerId }),
    reapExpiredClaims: ({ maxItems } = {}) => call("reap_expired_claims", { max_items: maxItems }),
    registerWorker: (workerId, instance, options = {}) =>
      call("register_worker", {
        worker_id: workerId,
        instance,
        work_types: options.workTypes,
        capabilities: options.capabilities,
        version: options.version,
        accepts: options.accepts,
        exclusive: options.exclusive,
        yield_seconds: options.yieldSeconds,
      }),
    retireWorker: (workerId) => call("retire_worker", { worker_id: workerId }),
    retryItems: (workType, { itemIds, maxItems } = {}) =>
      call("retry_items", { work_type: workType, item_ids: itemIds, max_items: maxItems }),
    cancelItems: (workType, { itemIds, maxItems } = {}) =>
      call("cancel_items", { work_type: workType, item_ids: itemIds, max_items: maxItems }),
    explainItem: (itemId, { workType } = {}) => call("explain_item", { item_id: itemId, work_type: workType }),
    wouldMatch: (requires, { labels, workType } = {}) => call("would_match", { requires, labels, work_type: workType }),
    pruneClasses: ({ maxClasses } = {}) => call("prune_classes", { max_classes: maxClasses }),
    workTypes: () => rows("work_types?select=*&order=name"),
    overview: async () => readOverview(await rows("work_overview?select=*")),
    liveWorkers: (since) =>
      rows(`work_workers?select=*&retired_at=is.null&last_seen_at=gt.${since.toISOString()}&order=id`),
    held: ({ limit = 1000 } = {}) => rows(`work_held?select=*&limit=${limit}`),
    stuck: ({ limit = 1000 } = {}) => rows(`work_stuck?select=*&limit=${limit}`),
    failures: ({ limit = 1000 } = {}) => rows(`work_failures?select=*&limit=${limit}`),
  };
}

/** An id (UUIDv7) that begins with the time, for calls that make rows: their ids begin as it does, and lie together. */
function timeOrderedId(): string {
  const time = Date.now().toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
}
