import type { Clock } from "../../workers/runtime/clock.ts";

interface Sleeper {
  /** When it is to wake: by the clock of its machine, and by the common clock. */
  due: number;
  at: number;
  order: number;
  machine: Standing | null;
  isOver: boolean;
  wake(): void;
}

interface Standing {
  /** How far this machine's clock is behind the common one. */
  behind: number;
  resumesAt: number;
  isSuspended: boolean;
  wasSuspended: boolean;
  isCrashed: boolean;
}

export interface FakeClock extends Clock {
  /** Moves time from one sleeper to the next until the promise is settled. Fails where no sleeper is left. */
  drive<T>(promise: Promise<T>): Promise<T>;
  /** Calls back at that time. */
  at(ms: number, act: () => void): void;
  /** Makes a machine. Its clock began at its own time. */
  machine(startedAt?: number): Machine;
}

/** One machine's clock. It stops while the machine is suspended. */
export interface Machine extends Clock {
  /**
   * Nothing on it runs for so long; callbacks due meanwhile come after. A suspended machine's clock stops, as a closed
   * laptop's does. The clock runs on where only the process is stopped.
   */
  pause(ms: number, isSuspended: boolean): void;
  /** It never does anything again. */
  crash(): void;
  /** Calls back as soon as the machine runs; never after a crash. */
  deliver(act: () => void): void;
  readonly isPaused: boolean;
  /** When the last pause ended or will end, by the common clock. */
  readonly resumesAt: number;
  /** Its clock has stood still at some time. */
  readonly wasSuspended: boolean;
  readonly isCrashed: boolean;
  /** For how long it has not been paused. */
  awake(): number;
}

/** Time passes only while every machine sleeps. */
export function createFakeClock(): FakeClock {
  let time = 1000;
  let orders = 0;
  const queue = createQueue();

  function sleepOn(machine: Standing | null, ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) {
        resolve();
        return;
      }
      // A wait too short for a difference in the sum of times would never end; a real one takes microseconds.
      const due = localTime(machine) + (ms > 0 ? Math.max(0.001, ms) : 0);
      const sleeper: Sleeper = {
        due,
        at: Math.max(due + (machine?.behind ?? 0), time),
        order: orders++,
        machine,
        isOver: false,
        wake() {
          sleeper.isOver = true;
          signal?.removeEventListener("abort", sleeper.wake);
          resolve();
        },
      };
      if (sleeper.at < Number.POSITIVE_INFINITY) {
        queue.push(sleeper);
      }
      signal?.addEventListener("abort", sleeper.wake);
    });
  }

  function localTime(machine: Standing | null): number {
    if (!machine) {
      return time;
    }
    return (machine.isSuspended ? Math.max(time, machine.resumesAt) : time) - machine.behind;
  }

  /** The next sleeper to wake. Sleepers of paused machines are put off. */
  function next(): Sleeper | undefined {
    for (let sleeper = queue.pop(); sleeper; sleeper = queue.pop()) {
      const { machine } = sleeper;
      if (sleeper.isOver || machine?.isCrashed) {
        continue;
      }
      const at = machine ? Math.max(sleeper.due + machine.behind, machine.resumesAt) : sleeper.at;
      if (at <= Math.max(time, sleeper.at)) {
        return sleeper;
      }
      sleeper.at = at;
      queue.push(sleeper);
    }
    return undefined;
  }

  const clock: FakeClock = {
    now: () => time,
    sleep: (ms, signal) => sleepOn(null, ms, signal),
    at(ms, act) {
      void clock.sleep(ms - time).then(act);
    },
    machine(startedAt = time) {
      const standing: Standing = {
        behind: time - startedAt,
        resumesAt: 0,
        isSuspended: false,
        wasSuspended: false,
        isCrashed: false,
      };
      const startedHere = time;
      let paused = 0;
      return {
        now: () => localTime(standing),
        sleep: (ms, signal) => sleepOn(standing, ms, signal),
        pause(ms, isSuspended) {
          paused += ms;
          standing.resumesAt = time + ms;
          standing.isSuspended = isSuspended;
          standing.wasSuspended ||= isSuspended;
          standing.behind += isSuspended ? ms : 0;
        },
        crash() {
          standing.isCrashed = true;
        },
        deliver(act) {
          if (time >= standing.resumesAt && !standing.isCrashed) {
            act();
          } else {
            void sleepOn(standing, 0).then(act);
          }
        },
        get isPaused() {
          return time < standing.resumesAt;
        },
        get resumesAt() {
          return standing.resumesAt;
        },
        get wasSuspended() {
          return standing.wasSuspended;
        },
        get isCrashed() {
          return standing.isCrashed;
        },
        awake: () => Math.max(time, standing.resumesAt) - startedHere - paused,
      };
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
        const sleeper = next();
        if (!sleeper || steps > 200_000) {
          throw new Error(`at ${time} ms no sleeper is left`);
        }
        time = Math.max(time, sleeper.at);
        sleeper.wake();
      }
    },
  };
  return clock;
}

/** A heap: the earliest first, and of one time the one that came first. */
function createQueue(): { push(sleeper: Sleeper): void; pop(): Sleeper | undefined } {
  const heap: Sleeper[] = [];
  const isBefore = (one: number, other: number): boolean => {
    const [a, b] = [heap[one] as Sleeper, heap[other] as Sleeper];
    return a.at < b.at || (a.at === b.at && a.order < b.order);
  };
  const swap = (one: number, other: number): void => {
    const kept = heap[one] as Sleeper;
    heap[one] = heap[other] as Sleeper;
    heap[other] = kept;
  };
  return {
    push(sleeper) {
      heap.push(sleeper);
      for (let at = heap.length - 1; at > 0; ) {
        const parent = (at - 1) >> 1;
        if (!isBefore(at, parent)) {
          return;
        }
        swap(at, parent);
        at = parent;
      }
    },
    pop() {
      const first = heap[0];
      const last = heap.pop();
      if (heap.length > 0 && last) {
        heap[0] = last;
      }
      for (let at = 0; ; ) {
        const children = [2 * at + 1, 2 * at + 2].filter((child) => child < heap.length);
        const least = children.reduce((best, child) => (isBefore(child, best) ? child : best), at);
        if (least === at) {
          return first;
        }
        swap(at, least);
        at = least;
      }
    },
  };
}
