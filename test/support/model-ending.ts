// How claims are held and end: by their workers, and by a person's hand.
import type { Json, Outcome } from "../../src/answers.ts";
import { type Claim, claimOf, end, isOpen, key, type Model, newClaim, type Receipt, reopen, rulesOf } from "./model.ts";

export interface Given extends Receipt {
  outcome: Outcome;
  final?: boolean | undefined;
  retryAfter?: number | undefined;
  result?: Json | undefined;
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
  if (given.outcome === "succeeded") {
    end(claim, "succeeded", model.now);
    claim.result = given.result ?? null;
    claim.progress = 1;
  } else if (given.outcome === "released") {
    reopen(claim, claim.dueAt, model.now);
  } else {
    const backoff = Math.min(rules.backoff_limit_seconds, rules.backoff_seconds * 2 ** claim.failures);
    claim.failures += 1;
    claim.events.push("failed");
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

export type Extension = Receipt & { progress?: number | undefined };

export function extend(model: Model, worker: string, given: Extension[], ttl: number | null): string[] {
  return given.map(({ item, type, fence, progress }) => {
    const claim = claimOf(model, item, type);
    if (claim?.fence === fence && claim.status === "cancelled") {
      return "cancelled";
    }
    if (claim?.status === "claimed" && claim.worker === worker && claim.fence === fence) {
      claim.expiresAt = model.now + (ttl ?? rulesOf(model, type).lease_seconds);
      claim.progress = progress ?? claim.progress;
      return "held";
    }
    if (claim && (claim.fence !== fence || claim.worker !== worker)) {
      claim.events.push("stale_extend");
    }
    return "lost";
  });
}

export function leave(model: Model, worker: string): number {
  const held = [...model.claims.values()].filter((claim) => claim.status === "claimed" && claim.worker === worker);
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
    claim.events.push("cancelled");
    model.claims.set(key(claim.item.id, type), claim);
  }
  return stopped.length;
}
