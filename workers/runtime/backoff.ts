/** Full jitter: any time up to a bound that doubles with each attempt, so that clients do not retry in step. */
export function fullJitter(attempt: number, random: () => number, baseMs = 100, limitMs = 5000): number {
  return random() * Math.min(limitMs, baseMs * 2 ** Math.min(attempt, 30));
}

/**
 * The wait before the next look for work: a tenth of the time since the worker last saw work, within these bounds.
 * A random part of up to a half comes off, so that idle workers do not look in step.
 */
export function idleDelay(idleMs: number, random: () => number, minMs: number, maxMs: number): number {
  return Math.min(maxMs, Math.max(minMs, idleMs / 10)) * (0.5 + 0.5 * random());
}
