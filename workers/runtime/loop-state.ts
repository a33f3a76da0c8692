import type { Source } from "./claim.ts";
import { countHeld, type Held, type HeldCounts } from "./held.ts";
import { whenToLeave } from "./leaving.ts";
import type { Situation } from "./next-step.ts";
import type { Outcome } from "./outcome.ts";
import { claimLimit, type Pace, unknownPace } from "./pace.ts";
import type { Worker } from "./worker.ts";

/** The loop, its handlers and its calls share this. */
export interface Loop extends Worker {
  readonly source: Source;
  run(held: Held): Promise<Outcome>;
  readonly state: LoopState;
  /** Ends the calls that are under way. */
  readonly over: AbortController;
}

export interface LoopState {
  /** Handlers that have not returned. */
  running: number;
  /** Ends the time limits of these handlers. One signal for all would keep a listener, or leak memory, for each item. */
  readonly limits: Set<AbortController>;
  /** The first attempt of the call that may bring claims is under way, so nobody knows yet whether there is work. */
  isAsking: boolean;
  isClaiming: boolean;
  isReleasing: boolean;
  gathering: Situation["gathering"];
  pace: Pace;
  /** The next look for work is not before this. */
  lookAt: number;
  /** When the database last said that there is work. */
  calledAt: number;
  workSeenAt: number;
  /** When it last held a claim or had a handler running. */
  busyAt: number;
  /** The latest look found nothing. */
  hasFoundNothing: boolean;
  /** The last look of an until-empty worker found nothing. */
  isEmpty: boolean;
  /** The work types or the pool are known to exist. */
  isDiagnosed: boolean;
  /** Claims of earlier calls were won with another profile. */
  profileAt: number;
  releaseFailures: number;
}

export function createLoop(worker: Worker, source: Source, run: Loop["run"]): Loop {
  const now = worker.clock.now();
  const state: LoopState = {
    running: 0,
    limits: new Set(),
    isAsking: true,
    isClaiming: false,
    isReleasing: false,
    gathering: "no",
    pace: unknownPace,
    lookAt: now,
    calledAt: Number.NEGATIVE_INFINITY,
    workSeenAt: now,
    busyAt: now,
    hasFoundNothing: false,
    isEmpty: false,
    isDiagnosed: false,
    profileAt: now,
    releaseFailures: 0,
  };
  return { ...worker, source, run, state, over: new AbortController() };
}

/** An attempt of a call that may bring claims has failed: from here on its wait is idleness. */
export function noAnswer({ state, wakeUps }: Loop): void {
  state.isAsking = false;
  wakeUps.loop.wake();
}

/** The most claims to have queued or running. */
export function limitOf({ state, settings }: Loop): number {
  const { batch, concurrency } = settings;
  return batch === null ? claimLimit(concurrency, state.pace) : Math.max(batch, concurrency);
}

/** When and why this worker leaves by itself, as far as is known now. */
export function leaving({ settings, startedAt, holding, state }: Loop): ReturnType<typeof whenToLeave> {
  const isIdle = holding.size === 0 && state.running === 0 && !state.isAsking;
  return whenToLeave(settings, {
    startedAt,
    idleSince: isIdle ? state.busyAt : null,
    usualMs: state.pace.handlerMs,
  });
}

/** How many claims may be asked for now. */
export function roomOf(loop: Loop, counts: HeldCounts = countHeld(loop.holding, loop.clock.now())): number {
  const { state, settings, holding, stop, tally } = loop;
  if (stop.asked.aborted) {
    return 0;
  }
  const limit = limitOf(loop);
  // Claims that go back are in hand until the database has them.
  const inHand = counts.queued + state.running + counts.goingBack;
  return Math.max(
    0,
    Math.min(
      limit - inHand,
      // If outcomes do not get through, results must not pile up without end.
      2 * limit - holding.size,
      settings.batch ?? limit,
      settings.maxClaims - tally.claimed,
    ),
  );
}
