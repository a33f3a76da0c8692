import { type Call, exchange } from "./exchange.ts";
import { handBack, start } from "./handle.ts";
import { countHeld } from "./held.ts";
import { type Loop, leaving, limitOf, roomOf } from "./loop-state.ts";
import { nextStep, type Situation } from "./next-step.ts";
import { slowed, slowHandlerMs } from "./pace.ts";
import { leave } from "./worker.ts";

/** Works until the worker is stopped or there is no more work. Throws where no further request can succeed. */
export async function runLoop(loop: Loop): Promise<void> {
  const { stop, wakeUps, broken, over } = loop;
  const calls = new Set<Promise<void>>();
  stop.asked.addEventListener("abort", () => {
    handBack(loop, "queued");
    wakeUps.loop.wake();
  });
  stop.graceOver.addEventListener("abort", () => handBack(loop, "running"));
  broken.signal.addEventListener("abort", () => {
    over.abort();
    wakeUps.loop.wake();
  });
  try {
    await takeSteps(loop, calls);
  } finally {
    over.abort();
    await Promise.all(calls);
  }
  if (broken.signal.aborted && !stop.tooLate.aborted) {
    throw broken.signal.reason;
  }
}

async function takeSteps(loop: Loop, calls: Set<Promise<void>>): Promise<void> {
  const { state, holding, clock, tally, wakeUps, broken } = loop;
  while (!broken.signal.aborted) {
    if (holding.size > 0 || state.running > 0) {
      state.busyAt = clock.now();
    }
    const step = nextStep(situationOf(loop));
    switch (step.do) {
      case "end":
        return;
      case "leave":
        leaveNow(loop);
        break;
      case "start":
        void start(loop);
        break;
      case "gather":
        void gather(loop);
        break;
      case "hand back":
        handBack(loop, "queued");
        loop.state.pace = slowed(loop.state.pace);
        break;
      case "wait":
        tally.log();
        await wakeUps.loop.sleep(step.ms);
        break;
      default:
        begin(loop, step.do, calls);
    }
  }
}

/** Outcomes of the same moment go in the same call. */
async function gather({ state, clock, wakeUps }: Loop): Promise<void> {
  state.gathering = "under way";
  await clock.sleep(0);
  state.gathering = "done";
  wakeUps.loop.wake();
}

/** Running handlers may end: only the end of the process, if it is known, sets a limit. */
export function leaveNow(loop: Loop): void {
  const { why } = leaving(loop);
  const said = why === "idle" ? `idle for ${loop.settings.leaveIdleMs / 1000} s` : "the time of this worker is over";
  leave(loop, why, said, Number.POSITIVE_INFINITY);
}

function begin(loop: Loop, call: Call, calls: Set<Promise<void>>): void {
  const made = exchange(loop, call)
    .catch((error: unknown) => loop.broken.abort(error))
    .finally(() => {
      calls.delete(made);
      loop.wakeUps.loop.wake();
    });
  calls.add(made);
}

function situationOf(loop: Loop): Situation {
  const { state, settings, holding, clock, stop, tally } = loop;
  const now = clock.now();
  const counts = countHeld(holding, now);
  return {
    now,
    concurrency: settings.concurrency,
    running: state.running,
    queued: counts.queued,
    startable: counts.startable,
    finished: counts.finished,
    held: holding.size,
    limit: limitOf(loop),
    room: roomOf(loop, counts),
    isClaiming: state.isClaiming,
    isReleasing: state.isReleasing,
    gathering: state.gathering,
    canCombine: loop.source.finishAndClaim !== undefined,
    lookAt: state.lookAt,
    handBackAt: settings.batch === null ? counts.queuedSince + slowHandlerMs(state.pace) : Number.POSITIVE_INFINITY,
    leaveAt: stop.asked.aborted ? Number.POSITIVE_INFINITY : leaving(loop).at,
    isLeaving: stop.asked.aborted || state.isEmpty || tally.claimed >= settings.maxClaims,
    isTooLate: stop.tooLate.aborted,
  };
}

/** While the database does not answer, a worker may wait for its first answer until its time is over. */
export async function leaveUnready(loop: Loop, isReady: AbortSignal): Promise<void> {
  const { clock, ended, stop } = loop;
  const isOver = AbortSignal.any([isReady, ended.signal, stop.asked]);
  while (!isOver.aborted) {
    const wait = leaving(loop).at - clock.now();
    if (wait <= 0) {
      leaveNow(loop);
      return;
    }
    // A second at most: the first failed attempt begins its idleness.
    await clock.sleep(Math.min(wait, 1000), isOver);
  }
}
