// The work of work-drain on one item. This file is yours: work-claims init --edge writes it once.
import type { Handler, WorkOptions } from "../../../workers/runtime/work.ts";

/**
 * The time for one item, of the 60 seconds that a call takes. A call starts no item when less is left. An item that takes
 * longer has failed a try.
 */
export const itemSeconds = 20;

/**
 * Options of work(). An isolate has 2 seconds of CPU, and a function cannot measure its own: maxClaims is what bounds it.
 * A hundred items may use 10 ms each, and a handler that computes more takes fewer.
 */
export const options: WorkOptions = { concurrency: 4, maxClaims: 100 };

/** The returned value is stored as the result; an error counts as a failed try. Pass the signal on: fetch takes it. */
export const handler: Handler = async (claim, { signal }) => {
  signal.throwIfAborted();
  return { done: claim.payload };
};
