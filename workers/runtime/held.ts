import type { Claim, Won } from "./claim.ts";
import { deadline, isFresh, type Lease, leaseFrom } from "./lease.ts";
import type { Outcome } from "./outcome.ts";

/** A claim from the moment it is won until the database has taken its outcome, or it is lost. */
export interface Held {
  readonly claim: Claim;
  /** Its signal is the handler's. */
  readonly abort: AbortController;
  lease: Lease;
  state: "queued" | "running" | "finished";
  progress: number | null;
  outcome: Outcome | null;
  /** When the request that carries its outcome was first sent. */
  deliveredAt: number | null;
}

/** All that a worker holds, in the order it was won. The fence is the key: no two claims ever share one. */
export type Holding = Map<number, Held>;

export function hold(holding: Holding, { claim, sentAt }: Won, random: () => number): Held {
  const held: Held = {
    claim,
    abort: new AbortController(),
    lease: leaseFrom(sentAt, claim.ttl_seconds, random),
    state: "queued",
    progress: null,
    outcome: null,
    deliveredAt: null,
  };
  holding.set(claim.fence, held);
  return held;
}

export function inState(holding: Holding, state: Held["state"]): Held[] {
  return [...holding.values()].filter((held) => held.state === state);
}

/** The claims that may begin; one whose lease is worn waits for its heartbeat. */
export function startable(holding: Holding, now: number): Held[] {
  return inState(holding, "queued").filter((held) => isFresh(held.lease, now));
}

/** The outcomes that wait to be handed in. */
export function undelivered(holding: Holding): Outcome[] {
  return inState(holding, "finished").map((held) => held.outcome as Outcome);
}

/**
 * When this claim wants its next heartbeat. One whose outcome is on its way is left alone at first: a heartbeat that
 * comes after the outcome is a stale one. If the outcome does not get through, its lease is worth keeping.
 */
export function beatDue(held: Held): number {
  return held.deliveredAt === null
    ? held.lease.beatAt
    : Math.max(held.lease.beatAt, held.deliveredAt + held.lease.ttlMs / 3);
}

export function nextBeat(holding: Holding): number {
  return Math.min(Number.POSITIVE_INFINITY, ...[...holding.values()].map(beatDue));
}

export function nextDeadline(holding: Holding): number {
  return Math.min(Number.POSITIVE_INFINITY, ...inState(holding, "running").map((held) => deadline(held.lease)));
}

/** Those whose handler must not go on: their lease may have ended. */
export function overdue(holding: Holding, now: number): Held[] {
  return inState(holding, "running").filter((held) => deadline(held.lease) <= now);
}
