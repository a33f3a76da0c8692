import type { Clock } from "./clock.ts";

/** How a worker stops: it claims no more, then waits no more, then tries no more. */
export interface Stop {
  ask(): void;
  /** No more claims; what is running may finish. */
  readonly asked: AbortSignal;
  /** The grace time is over: handlers are aborted, their claims handed back. */
  readonly graceOver: AbortSignal;
  /** Not even handing back got through; the leases will end by themselves. */
  readonly tooLate: AbortSignal;
}

/** After the grace time: a stopped process has to be gone before whoever stops it loses patience. */
const handBackMs = 5000;

export function createStop(clock: Clock, graceMs: number, ended: AbortSignal): Stop {
  const asked = new AbortController();
  const graceOver = new AbortController();
  const tooLate = new AbortController();
  return {
    async ask() {
      if (asked.signal.aborted) {
        return;
      }
      asked.abort();
      await clock.sleep(graceMs, ended);
      graceOver.abort();
      await clock.sleep(handBackMs, ended);
      tooLate.abort();
    },
    asked: asked.signal,
    graceOver: graceOver.signal,
    tooLate: tooLate.signal,
  };
}
