import { fullJitter } from "./backoff.ts";
import type { CallOptions } from "./client.ts";
import type { Clock } from "./clock.ts";
import { RequestError } from "./errors.ts";

export interface RetryOptions {
  readonly clock: Clock;
  readonly random: () => number;
  /** Called after every failed attempt that is tried again. */
  readonly onRetry?: ((error: RequestError, attempt: number) => void) | undefined;
}

/** Makes attempts, with growing pauses, until one succeeds, its error will not pass, or the time of the call is over. */
export async function withRetries<Answer>(
  attempt: () => Promise<Answer>,
  call: CallOptions,
  { clock, random, onRetry }: RetryOptions,
): Promise<Answer> {
  const startedAt = clock.now();
  for (let attempts = 0; ; attempts++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof RequestError) || !error.isRetryable) {
        throw error;
      }
      const delay = error.retryAfterMs + fullJitter(attempts, random);
      if (clock.now() + delay - startedAt > (call.retryForMs ?? 30_000)) {
        throw error;
      }
      onRetry?.(error, attempts + 1);
      call.onRetry?.();
      await sleepUnless(clock, delay, [call.signal, call.until]);
      if (call.signal?.aborted || call.until?.aborted) {
        throw error;
      }
    }
  }
}

async function sleepUnless(clock: Clock, ms: number, signals: (AbortSignal | undefined)[]): Promise<void> {
  const wake = new AbortController();
  const end = (): void => wake.abort();
  for (const signal of signals) {
    signal?.addEventListener("abort", end);
  }
  if (!signals.some((signal) => signal?.aborted)) {
    await clock.sleep(ms, wake.signal);
  }
  for (const signal of signals) {
    signal?.removeEventListener("abort", end);
  }
}
