import type { Claim } from "./claim.ts";
import type { Ending } from "./loop-claim.ts";
import type { Context, Handler } from "./run.ts";

/** A claim that a handler has passed on, and waits for the end of. */
export interface Turn {
  readonly claim: Claim;
  readonly context: Context;
  end(how: Ending): void;
}

/** Passes claims from a worker's handler, which runs one at a time, to a loop. */
export interface Turns {
  readonly handler: Handler;
  /** The next claim; null when the worker has ended. */
  next(): Promise<Turn | null>;
}

export function createTurns(): Turns & { close(): void } {
  let turn: Turn | null = null;
  let isOver = false;
  let wake = (): void => {};
  return {
    async handler(claim, context) {
      const ending = await new Promise<Ending>((end) => {
        turn = { claim, context, end };
        wake();
      });
      return ending();
    },
    async next() {
      while (turn === null && !isOver) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      const next = isOver ? null : turn;
      turn = null;
      return next;
    },
    close() {
      isOver = true;
      wake();
    },
  };
}
