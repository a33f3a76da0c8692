import { randomUUID } from "node:crypto";
import { type ItemOptions, type ItemReference, type NewItem, snakeCase } from "../workers/runtime/new-item.ts";
import type { Remaining } from "../workers/runtime/remaining.ts";
import type { Requirement } from "../workers/runtime/requirement.ts";
import type {
  AttachedPool,
  ClaimedItem,
  ClaimedItemWithPayload,
  ClaimOutcome,
  EnrollStep,
  EventRow,
  ExplainedItem,
  ExtendedClaim,
  FailureRow,
  HeldClaim,
  HeldRow,
  Outcome,
  ParkedClaim,
  Properties,
  ReleasedState,
  StaleRow,
  StuckRow,
  WorkerRow,
  Workflow,
  WorkTypeRules,
  WouldMatch,
} from "./answers.ts";
import type { Database, Json } from "./database.types.ts";
import type { Work } from "./define-work.ts";
import { type EnqueueManyOptions, enqueue, enqueueMany } from "./enqueue.ts";
import { createLists, type Lists } from "./lists/pages.ts";
import type { Query } from "./lists/query.ts";
import { type OverviewRow, type Pulse, readOverview } from "./overview.ts";
import { readResult, type WaitOptions, type WorkResult, waitForResult } from "./results.ts";
import { overConnection } from "./sql/client.ts";
import type { SqlLike } from "./sql/connection.ts";
import { type Address, overFetch, overSupabase, type SupabaseClientLike, type Transport } from "./transport.ts";

/** The project by its address and key, a supabase-js client of it, or a connection of postgres.js to its database. */
export type WorkClientOptions = (Address | { supabase: SupabaseClientLike } | { sql: SqlLike }) & {
  /** How long a call is tried again while the project does not answer; 30 seconds without. */
  retryForMs?: number;
};

type Functions = Database["public"]["Functions"];
type ArgsOf<Name extends keyof Functions> = Functions[Name]["Args"];

type Camel<Name extends string> = Name extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<Camel<Tail>>}`
  : Name;

/** The database checks JSON, and names the error in it. */
type Given<Type> = Json extends Type ? unknown : Type extends (infer Member)[] ? readonly Member[] : Type;

/** The arguments that take one of a few words. */
type Words = {
  history: "unhappy" | "full";
  on_change: "again" | "keep";
  on_failed_need: "wait" | "fail" | "run";
  on_dead_end: "go_on" | "stop";
};

/** The arguments of a function, without some; undefined means the database's default. */
type Options<Name extends keyof Functions, Without extends string = never> = {
  readonly [Arg in keyof ArgsOf<Name> & string as Exclude<Camel<Arg>, Without>]?:
    | (Arg extends keyof Words ? Words[Arg] : Given<ArgsOf<Name>[Arg]>)
    | null
    | undefined;
};

type ClaimOptions = Options<"claim_next", "workTypes" | "workerId">;

export type WorkClient = Lists & {
  /** Add an item of this work; answers its id. A payload that does not fit is not sent: it throws, with the path. */
  enqueue<Payload>(work: Work<Payload>, payload: Payload, options?: ItemOptions): Promise<string>;
  /** Add items of a stream, however long, a batch a call; answers how many. It stops at a payload that does not fit. */
  enqueueMany<Payload>(
    work: Work<Payload>,
    payloads: Iterable<Payload> | AsyncIterable<Payload>,
    options?: EnqueueManyOptions<Payload>,
  ): Promise<number>;
  /** The status of an item's claim and its result; null where it has no such claim. */
  result<Result>(work: Work<never, unknown, never, Result>, itemId: string): Promise<WorkResult<Result> | null>;
  /** The result, when there is one. Throws where the claim fails or is cancelled, and when the time is over. */
  wait<Result>(work: Work<never, unknown, never, Result>, itemId: string, options?: WaitOptions): Promise<Result>;
  /** Add items; their ids come in the order given. A repeated call with one request id adds nothing. */
  enqueueItems(items: readonly NewItem[], options?: Options<"enqueue_items", "items">): Promise<string[]>;
  defineWorkType(workType: string, rules?: Options<"define_work_type", "workType">): Promise<WorkTypeRules>;
  /** Make a workflow, or set its priority. It counts for all its items. */
  defineWorkflow(workflow: string, options?: Options<"define_workflow", "workflow">): Promise<Workflow>;
  /** Make a pool that mirrors no table. One that is there stays as it is. */
  definePool(pool: string): Promise<{ name: string; created_at: string }>;
  /**
   * Make a table a pool. The key's role needs the right to make triggers on it; the table's owner has it in any case,
   * with select attach_pool(…) or work-claims attach.
   */
  attachPool(source: string, options?: Options<"attach_pool", "source">): Promise<AttachedPool>;
  /** One bounded step; repeat it until `done`. */
  enrollPool(pool: string, options?: Options<"enroll_pool", "pool">): Promise<EnrollStep>;
  /** Claim these items. The answer omits items that another worker holds. */
  claimItems(
    itemIds: readonly string[],
    workType: string,
    workerId: string,
    options?: Options<"claim_items", "itemIds" | "workType" | "workerId">,
  ): Promise<ClaimedItem[]>;
  /** Claim the next items among those that the worker matches. */
  claimNext(workTypes: readonly string[], workerId: string, options?: ClaimOptions): Promise<ClaimedItemWithPayload[]>;
  extendClaims(
    workerId: string,
    held: readonly HeldClaim[],
    options?: Options<"extend_claims", "workerId" | "held">,
  ): Promise<ExtendedClaim[]>;
  /** True for the holder only. */
  releaseItem(
    claim: { item_id: string; work_type: string; fence: number },
    workerId: string,
    outcome: Outcome,
    options?: Options<"release_item", "itemId" | "workType" | "fence" | "workerId" | "outcome">,
  ): Promise<boolean>;
  releaseItems(workerId: string, outcomes: readonly ClaimOutcome[]): Promise<ReleasedState[]>;
  finishAndClaim(
    workerId: string,
    outcomes: readonly ClaimOutcome[],
    workTypes: readonly string[],
    options?: ClaimOptions,
  ): Promise<{ released: ReleasedState[]; claimed: ClaimedItemWithPayload[] }>;
  releaseClaimsForWorker(workerId: string): Promise<number>;
  /** Parked claims whose job elsewhere is to be asked about, none of them again for `everySeconds`. */
  takeParked(
    workTypes: readonly string[],
    workerId: string,
    options?: Options<"take_parked", "workTypes" | "workerId">,
  ): Promise<ParkedClaim[]>;
  /** Close what is parked under the id of a job elsewhere; the answer is empty where nothing is. */
  releaseParked(
    externalId: string,
    outcome: Outcome | "abandoned",
    options?: Options<"release_parked", "externalId" | "outcome">,
  ): Promise<{ item_id: string; work_type: string; state: ReleasedState }[]>;
  reapExpiredClaims(options?: Options<"reap_expired_claims">): Promise<number>;
  /** Register a worker with its capabilities and conditions; again when these change. */
  registerWorker(
    workerId: string,
    instance: string,
    options?: Options<"register_worker", "workerId" | "instance"> & {
      capabilities?: Properties;
      accepts?: Requirement;
    },
  ): Promise<{ worker_id: string }>;
  retireWorker(workerId: string): Promise<boolean>;
  /** Give an item further needs. Its done work stays done. Answers how many of its claims wait. */
  addNeeds(itemId: string, needs: readonly ItemReference[]): Promise<number>;
  /** Do done work again, with all that needs it: of these items, at most 1000 a call. Answers how many. */
  invalidateItems(
    workType: string,
    itemIds: readonly string[],
    options?: Options<"invalidate_items", "workType" | "itemIds">,
  ): Promise<number>;
  /** Reopen failed claims: of these items, or the longest failed ones. Answers how many. */
  retryItems(workType: string, options?: Options<"retry_items", "workType">): Promise<number>;
  /** Cancel open claims: of these items, or any. Answers how many. */
  cancelItems(workType: string, options?: Options<"cancel_items", "workType">): Promise<number>;
  /** Give these items a priority, at most 1000 a call. Answers how many had another one. */
  setPriority(itemIds: readonly string[], priority: number): Promise<number>;
  /** Why an item is not running, or how it ended. */
  explainItem(itemId: string, options?: Options<"explain_item", "itemId">): Promise<ExplainedItem>;
  /** The live workers that would run such an item, and the reasons against the others. Writes nothing. */
  wouldMatch(
    requires: Requirement,
    options?: Options<"would_match", "requires"> & { labels?: Properties | undefined },
  ): Promise<WouldMatch>;
  /** Delete classes that no item has. Answers how many; 0 also while items are being given classes. */
  pruneClasses(options?: Options<"prune_classes">): Promise<number>;
  workTypes(): Promise<WorkTypeRules[]>;
  overview(): Promise<OverviewRow[]>;
  /** The overview, live workers and the last events in one small answer: cheap enough to ask every second. */
  pulse(): Promise<Pulse>;
  /** The open work of each of these work types; `open` is 0 where all is over. */
  remaining(workTypes: readonly string[]): Promise<Remaining[]>;
  /** For an autoscaler: the work for a worker with these capabilities. Without them it counts all work. */
  depth(
    workType: string,
    options?: Options<"work_depth", "workType">,
  ): Promise<{ ready: number; held: number; oldest_wait_seconds: number }>;
  /** Remove the record of claims that ended this long ago ("30 days"), a page a call; repeat it until `done`. */
  pruneFinished(
    workType: string,
    olderThan: string,
    options?: Options<"prune_finished", "workType" | "olderThan">,
  ): Promise<{ pruned: number; done: boolean }>;
  /** Workers heard of since then and not retired. */
  liveWorkers(since: Date): Promise<WorkerRow[]>;
  held(options?: { limit?: number }): Promise<HeldRow[]>;
  stuck(options?: { limit?: number }): Promise<StuckRow[]>;
  /** Claims whose result is out of date, and why. */
  stale(options?: { limit?: number }): Promise<StaleRow[]>;
  failures(options?: { limit?: number }): Promise<FailureRow[]>;
  /** The recorded steps of an item's claims, the first first: at most the newest 1000. */
  history(itemId: string, options?: { workType?: string | undefined }): Promise<EventRow[]>;
};

/** A typed client of the functions and views, for programs that are no worker: enqueue, declare, look, retry. */
export function createWorkClient(options: WorkClientOptions): WorkClient {
  const { retryForMs = 30_000 } = options;
  const transport = transportOf(options, retryForMs);
  // A call may be sent twice, since its answer can be lost: with a request id it does its work once.
  // The database is the judge of its answers. A person's own SQL may have replaced the overview: its shape is checked.
  const call = async <Answer, Name extends keyof Functions = keyof Functions>(
    name: Name,
    args: Options<Name>,
  ): Promise<Answer> => (await transport.rpc(name, snakeCase(args))) as Answer;
  const read = async <Row>(relation: string, query: Partial<Query> = {}): Promise<Row[]> =>
    (await transport.read(relation, { select: "*", filters: [], ors: [], order: [], ...query })) as Row[];
  const enqueueItems: WorkClient["enqueueItems"] = (items, options) =>
    call("enqueue_items", { items, requestId: options?.requestId ?? timeOrderedId() });
  return {
    ...createLists(read),
    enqueue: (work, payload, options) => enqueue(enqueueItems, work, payload, options),
    enqueueMany: (work, payloads, options) => enqueueMany(enqueueItems, work, payloads, options),
    result: (work, itemId) => readResult(read, work, itemId),
    wait: (work, itemId, options = {}) => waitForResult(read, transport.onEnded, work, itemId, options),
    enqueueItems,
    defineWorkType: (workType, rules) => call("define_work_type", { workType, ...rules }),
    defineWorkflow: (workflow, rules) => call("define_workflow", { workflow, ...rules }),
    definePool: (pool) => call("define_pool", { pool }),
    attachPool: (source, columns) => call("attach_pool", { source, ...columns }),
    enrollPool: (pool, options) => call("enroll_pool", { pool, ...options }),
    claimItems: (itemIds, workType, workerId, options) =>
      call("claim_items", { itemIds, workType, workerId, ...identified(options) }),
    claimNext: (workTypes, workerId, options) => call("claim_next", { workTypes, workerId, ...identified(options) }),
    extendClaims: (workerId, held, options) => call("extend_claims", { workerId, held, ...options }),
    releaseItem: ({ item_id, work_type, fence }, workerId, outcome, options) =>
      call("release_item", { itemId: item_id, workType: work_type, fence, workerId, outcome, ...options }),
    releaseItems: (workerId, outcomes) => call("release_items", { workerId, outcomes }),
    finishAndClaim: (workerId, outcomes, workTypes, options) =>
      call("finish_and_claim", { workerId, outcomes, workTypes, ...identified(options) }),
    releaseClaimsForWorker: (workerId) => call("release_claims_for_worker", { workerId }),
    takeParked: (workTypes, workerId, options) => call("take_parked", { workTypes, workerId, ...options }),
    releaseParked: (externalId, outcome, options) => call("release_parked", { externalId, outcome, ...options }),
    reapExpiredClaims: (options = {}) => call("reap_expired_claims", options),
    registerWorker: (workerId, instance, options) => call("register_worker", { workerId, instance, ...options }),
    retireWorker: (workerId) => call("retire_worker", { workerId }),
    addNeeds: (itemId, needs) => call("add_needs", { itemId, needs }),
    invalidateItems: (workType, itemIds, options) => call("invalidate_items", { workType, itemIds, ...options }),
    retryItems: (workType, options) => call("retry_items", { workType, ...options }),
    cancelItems: (workType, options) => call("cancel_items", { workType, ...options }),
    setPriority: (itemIds, priority) => call("set_priority", { itemIds, priority }),
    explainItem: (itemId, options) => call("explain_item", { itemId, ...options }),
    wouldMatch: (requires, options) => call("would_match", { requires, ...options }),
    pruneClasses: (options = {}) => call("prune_classes", options),
    workTypes: () => read("work_types", { order: ["name"] }),
    overview: async () => readOverview(await read("work_overview")),
    pulse: () => call("work_pulse", {}),
    remaining: (workTypes) => call("work_remaining", { workTypes }),
    depth: (workType, options) => call("work_depth", { workType, ...options }),
    pruneFinished: (workType, olderThan, options) => call("prune_finished", { workType, olderThan, ...options }),
    liveWorkers: (since) =>
      read("work_workers", {
        filters: [
          ["retired_at", "is", "null"],
          ["last_seen_at", "gt", since.toISOString()],
        ],
        order: ["id"],
      }),
    held: ({ limit = 1000 } = {}) => read("work_held", { limit }),
    stuck: ({ limit = 1000 } = {}) => read("work_stuck", { limit }),
    stale: ({ limit = 1000 } = {}) => read("work_stale", { limit }),
    failures: ({ limit = 1000 } = {}) => read("work_failures", { limit }),
    history: async (itemId, { workType } = {}) => {
      const newestFirst = await read<EventRow>("work_events", {
        filters: [
          ["item_id", "eq", itemId],
          ...(workType === undefined ? [] : [["work_type", "eq", workType] as const]),
        ],
        order: ["id.desc"],
        limit: 1000,
      });
      return newestFirst.reverse();
    },
  };
}

function transportOf(options: WorkClientOptions, retryForMs: number): Transport {
  if ("sql" in options) return overConnection(options.sql, retryForMs);
  return "supabase" in options ? overSupabase(options.supabase, retryForMs) : overFetch(options, retryForMs);
}

/** The options of a claim with a request id: a repeated call answers the same claims. */
function identified<Given extends { requestId?: string | null | undefined }>(options?: Given) {
  return { ...options, requestId: options?.requestId ?? randomUUID() };
}

/** An id (UUIDv7) that begins with the time, for calls that make rows: their ids begin as it does, and lie together. */
function timeOrderedId(): string {
  const time = Date.now().toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
}
