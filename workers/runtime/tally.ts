import type { Clock } from "./clock.ts";
import type { Fields, Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import type { Outcome } from "./outcome.ts";

/** The outcomes of a worker, for its summary and its log. */
export interface Counts {
  succeeded: number;
  failed: number;
  /** Handed back, with no try counted. */
  released: number;
  /** Succeeded, and to be done again: their input changed meanwhile. */
  again: number;
  /** Their work is done elsewhere. */
  parked: number;
  /** Another worker does them, or a person cancelled them. */
  lost: number;
}

export interface Tally {
  readonly counts: Counts;
  /** Claims that were not handed back. */
  readonly claimed: number;
  addClaims(workTypes: string[]): void;
  addOutcome(outcome: Outcome, state: string): void;
  addLost(workType: string): void;
  /** Logs what was added since the last line; at most once a second, unless it must. */
  log(must?: boolean): void;
}

export function createTally(clock: Clock, print: Log, metrics: Metrics): Tally {
  const counts: Counts = { succeeded: 0, failed: 0, released: 0, again: 0, parked: 0, lost: 0 };
  const fresh = new Map<string, number>();
  const add = (what: string): void => {
    fresh.set(what, (fresh.get(what) ?? 0) + 1);
  };
  let claimed = 0;
  let loggedAt = Number.NEGATIVE_INFINITY;
  const count = (kind: keyof Counts | "snoozed", workType: string): void => {
    counts[kind === "snoozed" ? "released" : kind]++;
    add(kind);
    metrics.addEnd(workType, kind);
  };
  return {
    counts,
    get claimed() {
      return claimed - counts.released;
    },
    addClaims(workTypes) {
      claimed += workTypes.length;
      for (const workType of workTypes) {
        add(`claimed ${workType}`);
        metrics.addClaim(workType);
      }
    },
    addOutcome(outcome, state) {
      const isLost = state === "lost" || state === "refused";
      count(isLost ? "lost" : isAgain(outcome, state) ? "again" : outcome.outcome, outcome.work_type);
    },
    addLost: (workType) => count("lost", workType),
    log(must = false) {
      if (fresh.size > 0 && (must || clock.now() - loggedAt >= 1000)) {
        loggedAt = clock.now();
        print(
          [...fresh].map(([what, times]) => what.replace(/^\w+/, (verb) => `${verb} ${times}`)).join(", "),
          totals(fresh),
        );
        fresh.clear();
      }
    },
  };
}

/** A success whose claim is open again. */
export function isAgain({ outcome }: Outcome, state: string): boolean {
  return outcome === "succeeded" && ["ready", "waiting", "blocked"].includes(state);
}

/** The numbers as fields; claims of all work types together. */
export function totals(counts: Iterable<readonly [string, number]>): Fields {
  const fields: Record<string, number> = {};
  for (const [what, times] of counts) {
    const name = `work_claims.${what.split(" ", 1)[0]}`;
    fields[name] = (fields[name] ?? 0) + times;
  }
  return fields;
}
