import { errorType, operations } from "./log.ts";
import type { Loop } from "./loop-state.ts";
import { messageOf } from "./outcome.ts";

/**
 * Looks for work as soon as the database says that there is some, where the connection can tell. The looks from time to
 * time go on: a notification may be lost. Returns a function that stops listening.
 */
export async function listenForWork(
  { client, state, clock, wakeUps, log }: Loop,
  workTypes: readonly string[],
): Promise<() => Promise<void>> {
  const lookNow = (): void => {
    state.calledAt = clock.now();
    state.lookAt = Math.min(state.lookAt, state.calledAt);
    wakeUps.loop.wake();
  };
  try {
    return (await client.listen?.(workTypes, lookNow)) ?? (async () => {});
  } catch (error) {
    log(`the database cannot call this worker, which looks for work from time to time: ${messageOf(error)}`, {
      ...operations.claim,
      ...errorType(error),
    });
    return async () => {};
  }
}
