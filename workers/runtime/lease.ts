/**
 * A lease by the worker's clock. It counts from the moment before the request that got or renewed it was sent. The
 * database began it later, so the worker's end is never after the database's.
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

/** The time for a handler to notice that it was aborted: a tenth of the lease, at most five seconds. */
export function margin(ttlMs: number): number {
  return Math.min(ttlMs / 10, 5000);
}

/** The moment at which the worker stops a handler by itself. */
export function deadline(lease: Lease): number {
  return lease.sentAt + lease.ttlMs - margin(lease.ttlMs);
}

/**
 * A claim may start before half of its lease is over. After that a heartbeat renews it first: its answer took long, and
 * the first attempt may be the one that counted.
 */
export function isFresh(lease: Lease, now: number): boolean {
  return now < lease.sentAt + lease.ttlMs / 2;
}

/** How long one heartbeat may take: a quarter of the lease, so that a second one can still save it. */
export function heartbeatTimeout(ttlMs: number): number {
  return Math.min(ttlMs / 4, 10_000);
}
