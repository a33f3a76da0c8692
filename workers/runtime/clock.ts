/** Time for the worker. It is monotonic: no change of the wall clock moves a deadline. */
export interface Clock {
  /** Milliseconds since some moment. */
  now(): number;
  /** Resolves after so many milliseconds, or as soon as the signal aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** The longest wait that setTimeout can do; a longer one ends early, and every caller looks at the time again. */
const longestTimer = 2 ** 31 - 1;

/** Runs the function after the events that are due. A timer would take a millisecond or more. */
const afterEvents: ((then: () => void) => void) | undefined = globalThis.setImmediate;

export const systemClock: Clock = {
  now: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) {
        resolve();
        return;
      }
      if (ms === 0 && afterEvents) {
        afterEvents(resolve);
        return;
      }
      const end = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, Math.min(Math.max(ms, 0), longestTimer));
      signal?.addEventListener("abort", end);
    }),
};
