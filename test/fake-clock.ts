import type { Clock } from "../workers/runtime/clock.ts";

interface Sleeper {
  at: number;
  wake(): void;
}

export interface FakeClock extends Clock {
  /** Lets time pass, from one sleeper to the next, until the promise is settled; fails where nobody would ever wake. */
  drive<T>(promise: Promise<T>): Promise<T>;
  /** Calls back at that time. */
  at(ms: number, act: () => void): void;
}

/** Time that passes only when everybody sleeps. */
export function createFakeClock(): FakeClock {
  let time = 1000;
  const sleepers = new Set<Sleeper>();
  const clock: FakeClock = {
    now: () => time,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted) {
          resolve();
          return;
        }
        const sleeper: Sleeper = {
          at: time + Math.max(0, ms),
          wake() {
            sleepers.delete(sleeper);
            signal?.removeEventListener("abort", sleeper.wake);
            resolve();
          },
        };
        sleepers.add(sleeper);
        signal?.addEventListener("abort", sleeper.wake);
      }),
    at(ms, act) {
      void clock.sleep(ms - time).then(act);
    },
    async drive(promise) {
      let isSettled = false;
      const settle = (): void => {
        isSettled = true;
      };
      promise.then(settle, settle);
      for (let steps = 0; ; steps++) {
        await new Promise((resolve) => setImmediate(resolve));
        if (isSettled) {
          return promise;
        }
        const next = [...sleepers].sort((one, other) => one.at - other.at)[0];
        if (!next || next.at === Number.POSITIVE_INFINITY || steps > 200_000) {
          throw new Error(`at ${time} ms nobody will ever wake`);
        }
        time = Math.max(time, next.at);
        next.wake();
      }
    },
  };
  return clock;
}
