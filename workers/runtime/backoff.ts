/** Full jitter: any time up to a bound that doubles with each attempt, so that clients do not come back in step. */
export function fullJitter(attempt: number, random: () => number, baseMs = 100, limitMs = 5000): number {
  return random() * Math.min(limitMs, baseMs * 2 ** Math.min(attempt, 30));
}

/** The wait before the next look for work: doubles while nothing is found; between half and all of it, by chance. */
export function idleDelay(emptyLooks: number, random: () => number, minMs: number, maxMs: number): number {
  return Math.min(maxMs, minMs * 2 ** Math.min(emptyLooks, 30)) * (0.5 + 0.5 * random());
}
