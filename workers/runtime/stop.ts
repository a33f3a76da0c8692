import type { Clock } from "./clock.ts";
import { exit, onStopSignal } from "./host.ts";
import type { WorkOptions } from "./settings.ts";

/** The three stages of a stop. */
export interface Stop {
  ask(): void;
  /** No more claims; what is running may finish. */
  readonly asked: AbortSignal;
  /** The grace time is over: handlers are aborted, their claims handed back. */
  readonly graceOver: AbortSignal;
  /** Handing back did not get through; the leases will end by themselves. */
  readonly tooLate: AbortSignal;
}

/** After the grace time. Together they must end before a supervisor kills the process. */
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

/** Calls back when a signal or the option asks for a stop; a second signal exits. Returns a function that ends this. */
export function listenForStop(options: WorkOptions, asked: AbortSignal, ask: (why: string) => void): () => void {
  const stopListening =
    options.handleSignals === false
      ? (): void => {}
      : onStopSignal((signal) => {
          if (asked.aborted) {
            exit(signal === "SIGINT" ? 130 : 143);
          }
          ask(signal);
        });
  const onAbort = (): void => ask("stopped");
  options.signal?.addEventListener("abort", onAbort);
  if (options.signal?.aborted) {
    onAbort();
  }
  return () => {
    stopListening();
    options.signal?.removeEventListener("abort", onAbort);
  };
}
