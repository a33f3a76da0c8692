import type { Clock } from "./clock.ts";

/** A loop sleeps on it until a time has passed or wake() is called. A call while the loop is awake ends its next sleep. */
export interface WakeUp {
  wake(): void;
  /** Ends a sleep that would last beyond this time. */
  wakeBy(at: number): void;
  sleep(ms: number): Promise<void>;
}

export function createWakeUp(clock: Clock): WakeUp {
  let isPending = false;
  let asleep: AbortController | null = null;
  let endsAt = Number.POSITIVE_INFINITY;

  function wake(): void {
    isPending = true;
    asleep?.abort("awake"); // Without a reason it makes an error, with its stack.
  }

  return {
    wake,
    wakeBy(at) {
      if (at < endsAt) {
        wake();
      }
    },
    async sleep(ms) {
      if (!isPending) {
        endsAt = clock.now() + ms;
        asleep = new AbortController();
        await clock.sleep(ms, asleep.signal);
        asleep = null;
        endsAt = Number.POSITIVE_INFINITY;
      }
      isPending = false;
    },
  };
}
