import type { Clock } from "./clock.ts";
import { exit, onStopSignal } from "./host.ts";
import { handBackMs, type Why } from "./leaving.ts";
import type { WorkOptions } from "./settings.ts";

/** The stages of a stop. */
export interface Stop {
  /**
   * Asks for a stop, also where one is under way: the earliest end of a grace time counts, and the latest reason. An error
   * as the reason is what work() throws. Returns the milliseconds that what is running has.
   */
  ask(why: Why | Error, graceMs: number): number;
  readonly why: Why | Error | null;
  /** No more claims; what is running may finish. */
  readonly asked: AbortSignal;
  /** There is a grace time. */
  readonly limited: AbortSignal;
  /** The grace time is over: handlers are aborted, their claims handed back. */
  readonly graceOver: AbortSignal;
  /** Handing back did not get through; the leases will end by themselves. */
  readonly tooLate: AbortSignal;
}

/** No grace time goes beyond the moment at which the process will be killed. */
export function createStop(clock: Clock, endsAt: number, ended: AbortSignal): Stop {
  const asked = new AbortController();
  const limited = new AbortController();
  const graceOver = new AbortController();
  const tooLate = new AbortController();
  let reason: Why | Error | null = null;

  async function endGrace(graceMs: number): Promise<void> {
    await clock.sleep(graceMs, ended);
    graceOver.abort();
    await clock.sleep(handBackMs, ended);
    tooLate.abort();
  }
  return {
    ask(why, wantedMs) {
      reason = why;
      const graceMs = Math.max(0, Math.min(wantedMs, endsAt - handBackMs - clock.now()));
      if (graceMs < Number.POSITIVE_INFINITY) {
        limited.abort();
        void endGrace(graceMs);
      }
      asked.abort();
      return graceMs;
    },
    get why() {
      return reason;
    },
    asked: asked.signal,
    limited: limited.signal,
    graceOver: graceOver.signal,
    tooLate: tooLate.signal,
  };
}

/** Calls back when a signal or the option asks for a stop; a second one exits. Returns a function that ends this. */
export function listenForStop(options: WorkOptions, ask: (said: string) => void): () => void {
  let isAsked = false;
  const askOnce = (said: string): void => {
    if (!isAsked) {
      isAsked = true;
      ask(said);
    }
  };
  const stopListening =
    options.handleSignals === false
      ? (): void => {}
      : onStopSignal((signal) => {
          if (isAsked) {
            exit(signal === "SIGINT" ? 130 : 143);
          }
          askOnce(signal);
        });
  const onAbort = (): void => askOnce("stopped");
  options.signal?.addEventListener("abort", onAbort);
  if (options.signal?.aborted) {
    onAbort();
  }
  return () => {
    stopListening();
    options.signal?.removeEventListener("abort", onAbort);
  };
}
