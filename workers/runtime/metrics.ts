import type { Clock } from "./clock.ts";

/** The numbers of one worker since it began, in the text format of Prometheus. Items have no numbers of their own. */
export interface Metrics {
  addClaim(workType: string): void;
  /** The database has taken an outcome of this kind, or the claim is lost. */
  addEnd(workType: string, kind: string): void;
  /** A handler begins. The returned function is called at its end. */
  startHandler(workType: string): () => void;
  text(worker: WorkerNumbers): string;
}

/** Numbers that the worker has at the moment. */
export interface WorkerNumbers {
  readonly held: number;
  readonly concurrency: number;
  readonly isDatabaseUp: boolean;
}

interface Numbers {
  claimed: number;
  lost: number;
  outcomes: Record<string, number>;
  /** How many handlers took so long, for each bound. */
  durations: number[];
  seconds: number;
}

/** Seconds, up to a day: a handler may resize a picture or train a model. */
const finiteBounds = [0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400];
const bounds = [...finiteBounds, Number.POSITIVE_INFINITY];

/** A rate needs the step from zero to one, so all numbers of the worker's types begin at zero. */
function zero(): Numbers {
  const outcomes = { succeeded: 0, failed: 0, released: 0 };
  return { claimed: 0, lost: 0, outcomes, durations: bounds.map(() => 0), seconds: 0 };
}

export function createMetrics(clock: Clock, workTypes: readonly string[]): Metrics {
  const types = new Map(workTypes.map((name) => [name, zero()]));
  let running = 0;
  let busyMs = 0;
  let changedAt = clock.now();

  function of(workType: string): Numbers {
    const numbers = types.get(workType) ?? zero();
    types.set(workType, numbers);
    return numbers;
  }

  /** Handlers that still run count up to this moment: they may take hours. */
  function passTime(): void {
    busyMs += running * (clock.now() - changedAt);
    changedAt = clock.now();
  }

  return {
    addClaim(workType) {
      of(workType).claimed++;
    },
    addEnd(workType, kind) {
      const numbers = of(workType);
      if (kind === "lost") {
        numbers.lost++;
      } else {
        numbers.outcomes[kind] = (numbers.outcomes[kind] ?? 0) + 1;
      }
    },
    startHandler(workType) {
      passTime();
      running++;
      const startedAt = changedAt;
      return () => {
        passTime();
        running--;
        const numbers = of(workType);
        const seconds = (changedAt - startedAt) / 1000;
        const bucket = bounds.findIndex((bound) => seconds <= bound);
        numbers.durations[bucket] = (numbers.durations[bucket] ?? 0) + 1;
        numbers.seconds += seconds;
      };
    },
    text({ held, concurrency, isDatabaseUp }) {
      passTime();
      const each = (samples: (numbers: Numbers, work_type: string) => Sample[]): Sample[] =>
        [...types].flatMap(([name, numbers]) => samples(numbers, name));
      return [
        family(
          "work_claims_claimed_total",
          "counter",
          "Claims that this worker won.",
          each(({ claimed }, work_type) => [["", { work_type }, claimed]]),
        ),
        family(
          "work_claims_outcomes_total",
          "counter",
          "Outcomes that the database took. A released claim went back without a try counted.",
          each(({ outcomes }, work_type) =>
            Object.entries(outcomes).map(([outcome, n]) => ["", { work_type, outcome }, n]),
          ),
        ),
        family(
          "work_claims_leases_lost_total",
          "counter",
          "Claims that were no longer this worker's: the lease ended, the item was cancelled, or the outcome came too late.",
          each(({ lost }, work_type) => [["", { work_type }, lost]]),
        ),
        family(
          "work_claims_handler_seconds",
          "histogram",
          "Time of a handler, whatever its outcome.",
          each(durationSamples),
        ),
        family(
          "work_claims_busy_seconds_total",
          "counter",
          "Time of all handlers together, up to now. Its rate divided by work_claims_concurrency is the busy share.",
          [["", {}, busyMs / 1000]],
        ),
        gauge("work_claims_concurrency", "Handlers that may run at once.", concurrency),
        gauge("work_claims_running_handlers", "Handlers that run now.", running),
        gauge("work_claims_held", "Claims that wait for a handler, run, or are being released.", held),
        gauge("work_claims_database_up", "0 while requests fail and are tried again, else 1.", Number(isDatabaseUp)),
      ].join("");
    },
  };
}

/** A bucket counts all values up to its bound, so those of the buckets before it too. */
function durationSamples({ durations, seconds }: Numbers, work_type: string): Sample[] {
  let upTo = 0;
  const buckets = bounds.map((bound, n): Sample => {
    upTo += durations[n] ?? 0;
    return ["_bucket", { work_type, le: bound === Number.POSITIVE_INFINITY ? "+Inf" : String(bound) }, upTo];
  });
  return [...buckets, ["_sum", { work_type }, seconds], ["_count", { work_type }, upTo]];
}

type Sample = [suffix: string, labels: Record<string, string>, value: number];

function gauge(name: string, help: string, value: number): string {
  return family(name, "gauge", help, [["", {}, value]]);
}

function family(name: string, type: string, help: string, samples: Sample[]): string {
  const lines = samples.map(([suffix, labels, value]) => `${name}${suffix}${labelled(labels)} ${value}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

function labelled(labels: Record<string, string>): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length > 0 ? `{${pairs.join(",")}}` : "";
}

function escaped(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
