import type { Claim, Won } from "./claim.ts";
import { deadline, isFresh, type Lease, leaseFrom } from "./lease.ts";
import type { Outcome } from "./outcome.ts";
import type { Saved } from "./save.ts";
import { numberOf } from "./several.ts";

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
  /** The names of the locks that its handler has, or waits for. */
  readonly locks: Set<string>;
  outcome: Outcome | null;
  /** When the request that carries its outcome was first sent. */
  releasedAt: number | null;
}

/** All claims of a worker, in the order it won them. The fence is the key: no two claims ever share one. */
export type Holding = Map<number, Held>;

export function hold(holding: Holding, { claim, sentAt }: Won, now: number, random: () => number): Held {
  const held: Held = {
    // The database leaves out an empty list.
    claim: { ...claim, number: numberOf(claim.work_type), needs: claim.needs ?? [] },
    abort: new AbortController(),
    queuedAt: now,
    lease: leaseFrom(sentAt, claim.ttl_seconds, random),
    state: "queued",
    progress: null,
    saved: null,
    locks: new Set(),
    outcome: null,
    releasedAt: null,
  };
  holding.set(claim.fence, held);
  return held;
}

export function inState(holding: Holding, state: Held["state"]): Held[] {
  return [...holding.values()].filter((held) => held.state === state);
}

/** The first claim that may start. One whose lease is half over waits for its heartbeat. */
export function firstStartable(holding: Holding, now: number): Held | undefined {
  for (const held of holding.values()) {
    if (held.state === "queued" && isFresh(held.lease, now)) {
      return held;
    }
  }
  return undefined;
}

export interface HeldCounts {
  queued: number;
  startable: number;
  finished: number;
  /** Finished, and handed back without a try. */
  goingBack: number;
  /** When the first of the queue was queued. */
  queuedSince: number;
}

/** Counts the claims in one pass: the loop asks before every step. */
export function countHeld(holding: Holding, now: number): HeldCounts {
  const counts = { queued: 0, startable: 0, finished: 0, goingBack: 0, queuedSince: Number.POSITIVE_INFINITY };
  for (const held of holding.values()) {
    if (held.state === "queued") {
      counts.queued++;
      counts.startable += Number(isFresh(held.lease, now));
      counts.queuedSince = Math.min(counts.queuedSince, held.queuedAt);
    } else if (held.state === "finished") {
      counts.finished++;
      counts.goingBack += Number(held.outcome?.outcome === "released");
    }
  }
  return counts;
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
  let next = Number.POSITIVE_INFINITY;
  for (const held of holding.values()) {
    if (held.state === "running") {
      next = Math.min(next, deadline(held.lease));
    }
  }
  return next;
}

/** Those whose handler must not go on: their lease may have ended. */
export function overdue(holding: Holding, now: number): Held[] {
  return inState(holding, "running").filter((held) => deadline(held.lease) <= now);
}
