import type { Claim, Won } from "./claim.ts";
import { deadline, isFresh, type Lease, leaseFrom } from "./lease.ts";
import type { Outcome } from "./outcome.ts";
import type { Saved } from "./save.ts";

/** A claim from the moment it is won until the database has taken its outcome, or it is lost. */
export interface Held {
  readonly claim: Claim;
  /** Its signal is the handler's. */
  readonly abort: AbortController;
  readonly queuedAt: number;
  lease: Lease;
  state: "queued" | "running" | "finished";
  progress: number | null;
  saved: Saved | null;
  outcome: Outcome | null;
  /** When the request that carries its outcome was first sent. */
  releasedAt: number | null;
}

/** All claims of a worker, in the order it won them. The fence is the key: no two claims ever share one. */
export type Holding = Map<number, Held>;

export function hold(holding: Holding, { claim, sentAt }: Won, now: number, random: () => number): Held {
  const held: Held = {
    claim,
    abort: new AbortController(),
    queuedAt: now,
    lease: leaseFrom(sentAt, claim.ttl_seconds, random),
    state: "queued",
    progress: null,
    saved: null,
    outcome: null,
    releasedAt: null,
  };
  holding.set(claim.fence, held);
  return held;
}

export function inState(holding: Holding, state: Held["state"]): Held[] {
  return [...holding.values()].filter((held) => held.state === state);
}

/** The claims that may start. One whose lease is half over waits for its heartbeat. */
export function startable(holding: Holding, now: number): Held[] {
  return inState(holding, "queued").filter((held) => isFresh(held.lease, now));
}

/** The outcomes that the database has not taken. */
export function unreleased(holding: Holding): Outcome[] {
  return inState(holding, "finished").map((held) => held.outcome as Outcome);
}

/**
 * When this claim wants its next heartbeat. While its outcome is under way a heartbeat would come too late, so it waits
 * a third of the lease more. If the outcome does not get through by then, the lease is worth keeping.
 */
export function beatDue(held: Held): number {
  return held.releasedAt === null
    ? held.lease.beatAt
    : Math.max(held.lease.beatAt, held.releasedAt + held.lease.ttlMs / 3);
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
