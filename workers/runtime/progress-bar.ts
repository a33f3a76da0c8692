import type { Clock } from "./clock.ts";
import { terminal } from "./host.ts";
import { bar, duration, rate, rateOf, type Sample, withSample } from "./progress.ts";
import type { Remaining } from "./remaining.ts";

export interface ProgressBar {
  /** Prints a line above the bar. */
  say(line: string): void;
  /** Draws it once more, and leaves it. */
  close(): Promise<void>;
}

const intervalMs = 2000;

/** Long enough for items of half a minute. */
const windowMs = 120_000;

/** A bar on standard error where that is a terminal; elsewhere none. The database answers its numbers, every two seconds. */
export function startProgressBar(ask: (isLast: boolean) => Promise<Remaining[]>, clock: Clock): ProgressBar {
  const screen = terminal();
  if (screen === null) {
    return { say: (line) => console.error(line), close: async () => {} };
  }
  const over = new AbortController();
  let samples: Sample[] = [];
  let shown = "";
  const draw = (): void => screen.write(`\r\x1b[2K${shown}`);

  async function look(isLast: boolean): Promise<void> {
    try {
      const sum = summed(await ask(isLast));
      samples = withSample(samples, { at: clock.now(), finished: sum.done + sum.failed }, windowMs);
      shown = progressLine(sum, rateOf(samples), screen?.width() ?? 80);
    } catch {
      // The worker logs that the database does not answer. The bar keeps the last numbers.
    }
    draw();
  }
  async function keepLooking(): Promise<void> {
    while (!over.signal.aborted) {
      await look(false);
      await clock.sleep(intervalMs, over.signal);
    }
  }
  const looking = keepLooking();
  return {
    say(line) {
      screen.write(`\r\x1b[2K${line}\n`);
      draw();
    },
    async close() {
      over.abort();
      await looking;
      await look(true);
      screen.write("\n");
    },
  };
}

type Count = "open" | "waiting" | "blocked" | "done" | "failed";
export type Sum = Pick<Remaining, "work_type" | Count | "workers">;

/** One row for all; a worker of several of them counts once. */
function summed(types: readonly Remaining[]): Sum {
  const of = (name: Count): number => types.reduce((sum, type) => sum + type[name], 0);
  return {
    work_type: types.map((type) => type.work_type).join(", "),
    open: of("open"),
    waiting: of("waiting"),
    blocked: of("blocked"),
    done: of("done"),
    failed: of("failed"),
    workers: Math.max(0, ...types.map((type) => type.workers)),
  };
}

/** One line of at most this width: the bar gives way first, then the words at the end. */
export function progressLine(sum: Sum, perSecond: number | null, width: number): string {
  const finished = sum.done + sum.failed;
  const share = finished + sum.open === 0 ? 1 : finished / (finished + sum.open);
  const later = sum.waiting + sum.blocked;
  const others = Math.max(0, sum.workers - 1);
  // What waits for its time says nothing about the rate.
  const pace = sum.open > later && perSecond !== null ? perSecond : null;
  const words = [
    `${Math.floor(share * 100)} %`.padStart(5),
    `${finished}/${finished + sum.open}`,
    pace === null ? "" : rate(pace),
    pace === null || pace === 0 ? "" : `${duration(sum.open / pace)} left`,
    others === 0 ? "" : others === 1 ? "1 other worker" : `${others} other workers`,
    later === 0 ? "" : `${later} waiting`,
    sum.failed === 0 ? "" : `${sum.failed} failed`,
  ];
  const tail = words.filter((word) => word !== "").join(" · ");
  const barWidth = Math.max(8, Math.min(40, width - sum.work_type.length - tail.length - 2));
  return `${sum.work_type} ${bar(share, barWidth)} ${tail}`.slice(0, width);
}
