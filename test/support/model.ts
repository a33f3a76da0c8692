// The effects of the calls on claims, as the design and the documentation have them, in plain TypeScript. Time is a number
// of seconds that only a command moves. The model takes ids and fences from the database.
import type { Json } from "../../src/answers.ts";
import type { Requirement } from "../../src/index.ts";
import type { Worker } from "./matching-oracle.ts";

export interface Rules {
  pool: string | null;
  lease_seconds: number;
  max_failures: number;
  max_crashes: number;
  backoff_seconds: number;
  backoff_limit_seconds: number;
  passed_over_seconds: number;
  paused: boolean;
  depends_on: string[];
  on_failed_need: "wait" | "fail" | "run";
  input_columns: string[] | null;
  on_change: "again" | "keep" | null;
  version: number;
  history: "unhappy" | "full";
  on_dead_end: "go_on" | "stop";
  /** How many claims each item has. The work types NAME#2, NAME#3, … share the rules of the first. */
  several: number;
  /** The claims that failed for good as it was stopped. */
  deadEnds: Claim[];
}

export type Status = "blocked" | "waiting" | "ready" | "claimed" | "succeeded" | "failed" | "cancelled";

/**
 * A change of a claim's state; a late call changes none. The cause begins with the name of the event in work_events: one
 * event may have several causes, such as "reopened: its input changed".
 */
export interface Step {
  cause: string;
  from: Status | null;
  to: Status | null;
}

export interface Item {
  id: string;
  pool: string;
  /** First come, first served. */
  seq: number;
  priority: number;
  runAfter: number | null;
  createdAt: number;
  dedupeKey: string | null;
  affinity: string | null;
  workflow: string | null;
  requires: Requirement;
  labels: Record<string, Json>;
  payload: Json;
  fingerprint: string | null;
  /** Items, each with a work type of theirs or without. */
  needs: { item: string; type: string | null }[];
  /** The workflow that it waits for as a whole. */
  gathers: string | null;
  /** In place of the work type's. */
  maxFailures: number | null;
}

/** A need of a claim: another item's claim, or a whole workflow. */
export type Need = { isMet: boolean } & ({ item: string; type: string } | { workflow: string });

export interface Claim {
  item: Item;
  type: string;
  status: Status;
  worker: string | null;
  fence: number | null;
  request: string | null;
  failures: number;
  crashes: number;
  /** Since when it may run, or when it will. */
  dueAt: number;
  /** The database draws when it will run, up to this; null: it does not. */
  dueBy: number | null;
  expiresAt: number;
  finishedAt: number;
  progress: number | null;
  result: Json;
  /** The state that its handler has saved for the next try. */
  state: Json;
  /** The job elsewhere, while nobody has said how it ended. */
  job: string | null;
  /** No worker holds it, or its job is to be stopped. */
  isParked: boolean;
  needs: Need[];
  /** How many needs are not met, those of its work type among them. */
  waitsFor: number;
  /** The number of its latest claim, among claims and versions. */
  claimedAt: number;
  /** The input that its holder has read, where the item has another one since. */
  readInput: string | null;
  isAgain: boolean;
  isStale: boolean;
  changes: number;
  changedAt: number;
  steps: Step[];
}

/** A slot of a named lock. It is held while its claim is held under that fence, and not parked. */
export interface Lock {
  name: string;
  slot: number;
  item: string;
  type: string;
  claimFence: number;
  fence: number;
}

/** A claim as a worker got it. The worker may come back with it at any later time. */
export interface Receipt {
  item: string;
  type: string;
  worker: string;
  fence: number;
}

export interface Model {
  now: number;
  seq: number;
  lastFence: number;
  /** Counts claims and versions: which came first? */
  moment: number;
  types: Map<string, Rules>;
  /** Work types of which claims of an older version may be done: when the version came. */
  raised: Map<string, number>;
  items: Map<string, Item>;
  claims: Map<string, Claim>;
  workflows: Map<string, Workflow>;
  workers: Map<string, Worker>;
  requests: Set<string>;
  receipts: Receipt[];
  locks: Lock[];
}

/** The database refuses the call. */
export class Refused extends Error {}

export interface Workflow {
  priority: number;
  rank: number;
  isGathered: boolean;
}

/** The rules of an undeclared work type. */
export const defaults: Rules = {
  pool: null,
  lease_seconds: 60,
  max_failures: 3,
  max_crashes: 5,
  backoff_seconds: 10,
  backoff_limit_seconds: 3600,
  passed_over_seconds: 300,
  paused: false,
  depends_on: [],
  on_failed_need: "wait",
  input_columns: null,
  on_change: null,
  version: 1,
  history: "unhappy",
  on_dead_end: "go_on",
  several: 1,
  deadEnds: [],
};

export const key = (item: string, type: string): string => `${item} ${type}`;

export function claimOf(model: Model, item: string, type: string): Claim | undefined {
  return model.claims.get(key(item, type));
}

export const isOpen = (claim: Claim): boolean => ["blocked", "waiting", "ready", "claimed"].includes(claim.status);

/** The priority, rank and position of an item's claims. */
export function rankOf(model: Model, item: Item): { priority: number; rank: number; position: number } {
  const workflow = item.workflow === null ? undefined : model.workflows.get(item.workflow);
  return { priority: workflow?.priority ?? item.priority, rank: workflow?.rank ?? item.seq, position: item.seq };
}

export function inRank(model: Model, one: Claim, other: Claim): number {
  const [mine, theirs] = [rankOf(model, one.item), rankOf(model, other.item)];
  return theirs.priority - mine.priority || mine.rank - theirs.rank || mine.position - theirs.position;
}

export function rulesOf(model: Model, type: string): Rules {
  return model.types.get(type) ?? defaults;
}

/** The name that a work type was declared with: that of its first claim of an item. */
export const firstName = (type: string): string => type.replace(/#[0-9]+$/, "");

/** A work type and those of its further claims. */
export const withCopies = (model: Model, type: string): string[] =>
  [...model.types.keys()].filter((name) => name === type || firstName(name) === type);

export function newClaim(item: Item, type: string, status: Status, dueAt: number): Claim {
  return {
    item,
    type,
    status,
    worker: null,
    fence: null,
    request: null,
    failures: 0,
    crashes: 0,
    dueAt,
    dueBy: null,
    expiresAt: 0,
    finishedAt: 0,
    progress: null,
    result: null,
    state: null,
    job: null,
    isParked: false,
    needs: [],
    waitsFor: 0,
    claimedAt: 0,
    readInput: null,
    isAgain: false,
    isStale: false,
    changes: 0,
    changedAt: Number.NEGATIVE_INFINITY,
    steps: [{ cause: "enrolled", from: null, to: status }],
  };
}

export function move(claim: Claim, cause: string, to: Status): void {
  if (claim.status !== to) {
    claim.steps.push({ cause, from: claim.status, to });
    claim.status = to;
  }
}

/** A call of a worker that does not hold the claim is recorded, and changes nothing. */
export function recordLate(claim: Claim, cause: "stale_release" | "stale_extend" | "stale_lock"): void {
  claim.steps.push({ cause, from: null, to: null });
}

/** Blocked by its needs, waiting until it is due, or ready. */
export const openStatus = (waitsFor: number, dueAt: number, now: number): Status =>
  waitsFor > 0 ? "blocked" : dueAt > now ? "waiting" : "ready";

export function schedule(claim: Claim, cause: string, dueAt: number, now: number): void {
  move(claim, cause, openStatus(claim.waitsFor, dueAt, now));
  claim.dueAt = dueAt;
  claim.dueBy = null;
}

/** Opens a claim again, without a holder. A claim that was due before is ready from this moment on. */
export function reopen(claim: Claim, cause: string, dueAt: number, now: number): void {
  schedule(claim, cause, Math.max(dueAt, now), now);
  claim.progress = null;
}

export function end(claim: Claim, cause: string, status: "succeeded" | "failed" | "cancelled", now: number): void {
  move(claim, cause, status);
  claim.finishedAt = now;
}

export function nameWorkflow(model: Model, name: string): Workflow {
  const known = model.workflows.get(name);
  if (known) {
    return known;
  }
  model.seq += 1;
  const made = { priority: 0, rank: model.seq, isGathered: false };
  model.workflows.set(name, made);
  return made;
}

/** A new time to run counts for open claims at once, for a held claim when its worker releases it. */
export function reschedule(model: Model, item: Item, runAfter: number | null): void {
  if (item.runAfter === null && runAfter === null) {
    return;
  }
  item.runAfter = runAfter;
  for (const claim of model.claims.values()) {
    if (claim.item === item && claim.status === "claimed") {
      claim.dueAt = Math.max(runAfter ?? model.now, model.now);
    } else if (claim.item === item && isOpen(claim)) {
      reopen(claim, "rescheduled", runAfter ?? model.now, model.now);
    }
  }
}
