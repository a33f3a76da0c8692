/** How fast this worker works: means of recent measurements. */
export interface Pace {
  /** Of handlers that succeeded; null before the first. A worker that only fails claims nothing ahead. */
  readonly handlerMs: number | null;
  /** Of claim calls that needed one attempt; null before the first. */
  readonly roundTripMs: number | null;
  /** The lease of the latest claim. */
  readonly leaseMs: number;
}

export const unknownPace: Pace = { handlerMs: null, roundTripMs: null, leaseMs: Number.POSITIVE_INFINITY };

/** Claims ahead last for a round trip and this long. */
const reserveMs = 500;

/** A round trip counts as at most this long: behind a bad network a worker must not claim minutes of work ahead. */
const longestRoundTripMs = 2000;

const mostClaims = 100;

/** For a handler this slow nothing is claimed ahead: it loses little by a round trip, and other workers may be idle. */
export function slowHandlerMs({ roundTripMs }: Pace): number {
  return 4 * aheadMs(roundTripMs);
}

/**
 * How many claims a worker queues and runs at most, where no batch is set: as many as its handlers run at once, and
 * ahead as many as they do in a round trip and half a second. It never claims ahead for more than a third of a lease.
 */
export function claimLimit(concurrency: number, pace: Pace): number {
  const { handlerMs, roundTripMs, leaseMs } = pace;
  if (handlerMs === null || handlerMs >= slowHandlerMs(pace)) {
    return concurrency;
  }
  const wanted = Math.ceil((concurrency * aheadMs(roundTripMs)) / handlerMs);
  const allowed = Math.floor((concurrency * leaseMs) / 3 / handlerMs);
  return Math.max(concurrency, Math.min(mostClaims, concurrency + Math.min(wanted, allowed)));
}

/** The pace of handlers that turned slow: nothing is claimed ahead until one succeeds. */
export function slowed(pace: Pace): Pace {
  return { ...pace, handlerMs: slowHandlerMs(pace) };
}

/** A mean in which the latest measurement counts for a fifth. */
export function meanWith(mean: number | null, measured: number): number {
  return mean === null ? measured : mean + (measured - mean) / 5;
}

function aheadMs(roundTripMs: number | null): number {
  return Math.min(roundTripMs ?? 0, longestRoundTripMs) + reserveMs;
}
