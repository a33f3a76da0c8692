// How claims are held and end: by their workers, and by a person's hand.
import type { Json, Outcome } from "../../src/answers.ts";
import { type Claim, claimOf, end, isOpen, key, type Model, newClaim, type Receipt, reopen, rulesOf } from "./model.ts";

export interface Given extends Receipt {
  outcome: Outcome | "snoozed" | "parked";
  state?: Json;
  final?: boolean | undefined;
  retryAfter?: number | undefined;
  result?: Json | undefined;
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
    return close(model, worker, { item: claim.item.id, type: claim.type, worker, fence, outcome });
  });
}

/** Closes one claim for its holder: the answer is its new state, or "lost". */
function close(model: Model, worker: string, given: Given): string {
  const claim = claimOf(model, given.item, given.type);
  if (!claim) {
    return "lost";
  }
  if (claim.worker !== worker || claim.fence !== given.fence) {
    claim.events.push("stale_release");
    return "lost";
  }
  // One that comes again is answered as before.
  if (claim.status !== "claimed") {
    return claim.status;
  }
  const rules = rulesOf(model, claim.type);
  if (given.outcome === "parked") {
    // A repeated call does not lengthen the lease.
    if (!claim.isParked) {
      Object.assign(claim, { isParked: true, job: jobOf(given), expiresAt: model.now + parkSeconds });
      claim.state = given.state ?? claim.state;
    }
    return "parked";
  }
  const keepsJob = !claim.isParked && (given.outcome === "released" || given.outcome === "snoozed");
  Object.assign(claim, { isParked: false, job: keepsJob ? claim.job : null, state: given.state ?? claim.state });
  if (given.outcome === "succeeded") {
    end(claim, "succeeded", model.now);
    claim.result = given.result ?? null;
    claim.progress = 1;
    claim.state = null;
  } else if (given.outcome === "released") {
    reopen(claim, claim.dueAt, model.now);
  } else if (given.outcome === "snoozed") {
    claim.status = "waiting";
    claim.dueAt = Math.max(claim.dueAt, model.now + snoozeSeconds);
    claim.progress = null;
    claim.events.push("snoozed");
  } else {
    const backoff = Math.min(rules.backoff_limit_seconds, rules.backoff_seconds * 2 ** claim.failures);
    claim.failures += 1;
    claim.events.push("failed");
    claim.dueBy = given.retryAfter === undefined ? Math.max(claim.dueAt, model.now + backoff * 1.2) : null;
    claim.dueAt = Math.max(claim.dueAt, model.now + (given.retryAfter ?? backoff));
    claim.progress = null;
    claim.status = "waiting";
    if (given.final || claim.failures >= rules.max_failures) {
      end(claim, "failed", model.now);
    }
  }
  return claim.status;
}

export function release(model: Model, worker: string, given: Given[]): string[] {
  return given.map((each) => close(model, worker, each));
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
      claim.events.push("stale_extend");
    }
    return "lost";
  });
}

export function leave(model: Model, worker: string): number {
  const held = [...model.claims.values()].filter(
    (claim) => claim.status === "claimed" && claim.worker === worker && !claim.isParked,
  );
  for (const claim of held) {
    reopen(claim, claim.dueAt, model.now);
    claim.worker = null;
    claim.events.push("handed_back");
  }
  return held.length;
}

/** A person wants it now, if its item may run by now. */
export function retry(model: Model, claims: Claim[]): void {
  for (const claim of claims) {
    reopen(claim, claim.item.runAfter ?? model.now, model.now);
    claim.isParked = false;
    claim.failures = 0;
    claim.crashes = 0;
    claim.worker = null;
    claim.events.push("retried");
  }
}

/** An item without a claim gets a cancelled one. */
export function cancel(model: Model, type: string, ids: string[]): number {
  const stopped = [...new Set(ids)]
    .flatMap((id) => model.items.get(id) ?? [])
    .map((item) => claimOf(model, item.id, type) ?? newClaim(item, type, model.now))
    .filter(isOpen);
  for (const claim of stopped) {
    end(claim, "cancelled", model.now);
    claim.worker = null;
    claim.progress = null;
    claim.isParked = claim.job !== null;
    claim.events.push("cancelled");
    model.claims.set(key(claim.item.id, type), claim);
  }
  return stopped.length;
}
