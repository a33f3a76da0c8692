/**
 * What a worker knows of one lease. It counts from the moment before the request was sent that got or renewed it: the
 * database began it later than that, so the worker's end is never after the database's.
 */
export interface Lease {
  readonly sentAt: number;
  readonly ttlMs: number;
  /** When the next heartbeat is due. */
  readonly beatAt: number;
}

export function leaseFrom(sentAt: number, ttlSeconds: number, random: () => number): Lease {
  const ttlMs = ttlSeconds * 1000;
  return { sentAt, ttlMs, beatAt: sentAt + heartbeatDelay(ttlMs, random) };
}

/** Milliseconds until the next heartbeat: a third of the lease, so that one may fail; with jitter, so that workers spread. */
export function heartbeatDelay(ttlMs: number, random: () => number): number {
  return (ttlMs / 3) * (0.9 + 0.2 * random());
}

/** What a handler gets to notice that it was aborted: a tenth of the lease, at most five seconds. */
export function margin(ttlMs: number): number {
  return Math.min(ttlMs / 10, 5000);
}

/** The moment at which the worker stops a handler by itself. */
export function deadline(lease: Lease): number {
  return lease.sentAt + lease.ttlMs - margin(lease.ttlMs);
}

/**
 * A claim whose answer took long (its first attempt may be the one that counted) is not begun on what is left of its
 * lease: a heartbeat renews it first.
 */
export function isFresh(lease: Lease, now: number): boolean {
  return now < lease.sentAt + lease.ttlMs / 2;
}

/** How long one heartbeat may take: a quarter of the lease, so that a second one can still save it. */
export function heartbeatTimeout(ttlMs: number): number {
  return Math.min(ttlMs / 4, 10_000);
}
