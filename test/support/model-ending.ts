// How claims are held and end: by their workers, and by a person's hand.
import type { Json, Outcome } from "../../src/answers.ts";
import {
  type Claim,
  claimOf,
  end,
  isOpen,
  key,
  type Model,
  type Receipt,
  recordLate,
  reopen,
  rulesOf,
  schedule,
} from "./model.ts";
import { isOfOlderVersion, openChanged } from "./model-changes.ts";
import { addNeeds, enqueue, type NewItem, type Reference } from "./model-enqueueing.ts";
import { enroll, follow, openAgain } from "./model-needs.ts";

export interface Given extends Receipt {
  outcome: Outcome | "snoozed" | "parked";
  state?: Json;
  final?: boolean | undefined;
  retryAfter?: number | undefined;
  result?: Json | undefined;
  /** To enqueue in the transaction of the release. */
  items?: NewItem[];
  needs?: Reference[];
}

export const parkSeconds = 5000;
export const snoozeSeconds = 600;
/** Two claims may share a job. */
export const jobOf = ({ fence }: Receipt): string => `job ${fence - (fence % 2)}`;

/** Closes what is parked as this job; answers the new states in the order of keys. */
export function releaseParked(model: Model, job: string, outcome: Outcome | "abandoned"): string[] {
  const isEnded = outcome === "abandoned";
  const parked = [...model.claims.values()]
    .filter((claim) => claim.isParked && claim.job === job && (claim.status === "claimed") !== isEnded)
    .sort((one, other) => (key(one.item.id, one.type) < key(other.item.id, other.type) ? -1 : 1));
  return parked.map((claim) => {
    if (isEnded) {
      Object.assign(claim, { isParked: false, job: null });
      return claim.status;
    }
    const { worker, fence } = claim as { worker: string; fence: number };
    const given = { item: claim.item.id, type: claim.type, worker, fence, outcome };
    return release(model, worker, [given])[0] ?? "lost";
  });
}

/** Closes one claim that its worker holds. */
function close(model: Model, claim: Claim, given: Given): void {
  const rules = rulesOf(model, claim.type);
  if (given.outcome === "parked") {
    // A repeated call does not lengthen the lease.
    if (!claim.isParked) {
      Object.assign(claim, { isParked: true, job: jobOf(given), expiresAt: model.now + parkSeconds });
      claim.state = given.state ?? claim.state;
      claim.steps.push({ cause: "parked", from: "claimed", to: "claimed" });
    }
    return;
  }
  const keepsJob = !claim.isParked && (given.outcome === "released" || given.outcome === "snoozed");
  Object.assign(claim, { isParked: false, job: keepsJob ? claim.job : null, state: given.state ?? claim.state });
  if (given.outcome === "succeeded") {
    end(claim, "succeeded", "succeeded", model.now);
    Object.assign(claim, { result: given.result ?? null, progress: 1, state: null, isStale: false });
  } else if (given.outcome === "released") {
    reopen(claim, "handed_back: released", claim.dueAt, model.now);
  } else {
    const backoff = Math.min(rules.backoff_limit_seconds, rules.backoff_seconds * 2 ** claim.failures);
    const pause = given.outcome === "snoozed" ? snoozeSeconds : (given.retryAfter ?? backoff);
    const isDrawn = given.outcome === "failed" && given.retryAfter === undefined;
    claim.failures += given.outcome === "failed" ? 1 : 0;
    claim.progress = null;
    const isLast = given.final || claim.failures >= (claim.item.maxFailures ?? rules.max_failures);
    if (given.outcome === "failed" && isLast) {
      end(claim, "failed", "failed", model.now);
    } else {
      const dueBy = isDrawn ? Math.max(claim.dueAt, model.now + backoff * 1.2) : null;
      // It waits for its claim call even where the pause is of no length.
      schedule(claim, given.outcome, Math.max(claim.dueAt, model.now + pause), Number.NEGATIVE_INFINITY);
      claim.dueBy = dueBy;
    }
  }
}

/** The first claims of a work type that fail for good may stop the type, with its further claims. */
export function stopAtDeadEnds(model: Model, claims: Claim[]): void {
  const isStopping = ({ type }: Claim): boolean => {
    const { on_dead_end, paused } = rulesOf(model, type);
    return on_dead_end === "stop" && !paused;
  };
  for (const claim of claims.filter((each) => each.status === "failed" && isStopping(each))) {
    const rules = rulesOf(model, claim.type);
    Object.assign(rules, { paused: true, deadEnds: [...rules.deadEnds, claim] });
  }
}

/** Closes claims for their holder, with all that follows. The answer is the new state of each, or "lost". */
export function release(model: Model, worker: string, given: Given[], told: string[] = []): string[] {
  const held = given
    .flatMap((each) => {
      const claim = claimOf(model, each.item, each.type);
      const isHeld = claim?.status === "claimed" && claim.worker === worker && claim.fence === each.fence;
      const isChange = claim !== undefined && claim.readInput !== null;
      const isAgain = claim !== undefined && (isChange || claim.isAgain || isOfOlderVersion(model, claim));
      return isHeld ? [{ claim, given: each, isChange, isAgain }] : [];
    })
    .sort((one, other) =>
      key(one.claim.item.id, one.claim.type) < key(other.claim.item.id, other.claim.type) ? -1 : 1,
    );
  for (const each of held) {
    close(model, each.claim, each.given);
  }
  const ended = held.filter(({ claim }) => claim.status === "succeeded" || claim.status === "failed");
  follow(
    model,
    ended.map(({ claim }) => claim),
  );
  const left = [...told];
  for (const { claim, isAgain, given: each } of held) {
    const { outcome, items = [], needs = [] } = each;
    // A success that is to be done again leaves its items to the next try.
    if (outcome === "snoozed" || (outcome === "succeeded" && !isAgain)) {
      const ids = items.length > 0 ? enqueueTold(model, items, left) : [];
      if (outcome === "snoozed" && needs.length > 0) {
        addNeeds(model, claim.item.id, needs, ids);
      }
    }
  }
  const again = ended.filter(({ claim, isAgain }) => isAgain && !isOpen(claim));
  openAgain(
    model,
    again.filter(({ isChange }) => !isChange).map(({ claim }) => claim),
    "reopened: after its holder",
  );
  openChanged(
    model,
    again.filter(({ isChange }) => isChange).map(({ claim }) => claim),
  );
  stopAtDeadEnds(
    model,
    held.map(({ claim }) => claim),
  );
  return given.map((each) => {
    const claim = claimOf(model, each.item, each.type);
    if (claim && (claim.worker !== worker || claim.fence !== each.fence)) {
      recordLate(claim, "stale_release");
    }
    // One that comes again is answered as before.
    return claim?.worker !== worker || claim.fence !== each.fence
      ? "lost"
      : claim.status === "claimed"
        ? "parked"
        : claim.status;
  });
}

/** Takes the ids of new items from those that the database has told, in order. */
function enqueueTold(model: Model, items: NewItem[], left: string[]): string[] {
  const ids: string[] = [];
  const isNew = (item: NewItem, index: number): boolean =>
    !item.dedupeKey ||
    (![...model.items.values()].some(
      (each) => each.pool === (item.pool ?? "default") && each.dedupeKey === item.dedupeKey,
    ) &&
      items.findIndex((each) => each.dedupeKey === item.dedupeKey && each.pool === item.pool) === index);
  for (const [index, item] of items.entries()) {
    ids.push(isNew(item, index) ? (left.shift() ?? `new ${model.seq} ${index}`) : "none");
  }
  return enqueue(model, items, ids);
}

export type Extension = Receipt & { progress?: number | undefined; state?: Json };

export function extend(model: Model, worker: string, given: Extension[], ttl: number | null): string[] {
  return given.map(({ item, type, fence, progress, state }) => {
    const claim = claimOf(model, item, type);
    if (claim?.fence === fence && claim.status === "cancelled") {
      return "cancelled";
    }
    if (claim?.status === "claimed" && claim.worker === worker && claim.fence === fence) {
      if (!claim.isParked) {
        claim.expiresAt = model.now + (ttl ?? rulesOf(model, type).lease_seconds);
        claim.progress = progress ?? claim.progress;
        claim.state = state ?? claim.state;
      }
      return "held";
    }
    if (claim && (claim.fence !== fence || claim.worker !== worker)) {
      recordLate(claim, "stale_extend");
    }
    return "lost";
  });
}

export function leave(model: Model, worker: string): number {
  const held = [...model.claims.values()].filter(
    (claim) => claim.status === "claimed" && claim.worker === worker && !claim.isParked,
  );
  for (const claim of held) {
    reopen(claim, "handed_back: its worker left", claim.dueAt, model.now);
    claim.worker = null;
  }
  return held.length;
}

/** A person wants it now, if its item may run by now. */
export function retry(model: Model, claims: Claim[]): void {
  openAgain(model, claims, "retried");
}

/** An item without a claim gets a cancelled one. */
export function cancel(model: Model, type: string, ids: string[]): number {
  const items = [...new Set(ids)].flatMap((id) => model.items.get(id) ?? []);
  enroll(model, items, [type]);
  const stopped = items.flatMap((item) => claimOf(model, item.id, type) ?? []).filter(isOpen);
  for (const claim of stopped) {
    end(claim, "cancelled", "cancelled", model.now);
    claim.worker = null;
    claim.progress = null;
    claim.isParked = claim.job !== null;
  }
  follow(model, stopped);
  return stopped.length;
}
