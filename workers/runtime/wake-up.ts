import type { Clock } from "./clock.ts";

/** A loop sleeps on it until a time has passed or wake() is called. A call while the loop is awake ends its next sleep. */
export interface WakeUp {
  wake(): void;
  sleep(ms: number): Promise<void>;
}

export function createWakeUp(clock: Clock): WakeUp {
  let isPending = false;
  let asleep: AbortController | null = null;
  return {
    wake() {
      isPending = true;
      asleep?.abort();
    },
    async sleep(ms) {
      if (!isPending) {
        asleep = new AbortController();
        await clock.sleep(ms, asleep.signal);
        asleep = null;
      }
      isPending = false;
    },
  };
}
