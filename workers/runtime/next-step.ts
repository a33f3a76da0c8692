/** All that the loop's next step depends on. */
export interface Situation {
  readonly now: number;
  readonly concurrency: number;
  /** Handlers that have not returned, also those whose claim is lost: two at once may be more than the machine can take. */
  readonly running: number;
  /** Claims that wait for a handler, and those of them that may start: others wait for their lease to be renewed. */
  readonly queued: number;
  readonly startable: number;
  /** Outcomes that the database has not taken. */
  readonly finished: number;
  /** Claims in all: queued, running or finished. */
  readonly held: number;
  /** The most claims to have queued or running, and how many may be asked for. */
  readonly limit: number;
  readonly room: number;
  readonly isClaiming: boolean;
  readonly isReleasing: boolean;
  /** Outcomes of this moment are being gathered for one call, or have been. */
  readonly gathering: "no" | "under way" | "done";
  /** One call can release and claim. */
  readonly canCombine: boolean;
  /** The next look for work is not before this. */
  readonly lookAt: number;
  /** Queued claims go back at this time: the handlers are slower than they were, and other workers may be idle. */
  readonly handBackAt: number;
  /** The worker is asked to leave at this time; never where it is asked already. */
  readonly leaveAt: number;
  /** The worker ends as soon as it holds nothing. */
  readonly isLeaving: boolean;
  /** The worker ends whatever it holds. */
  readonly isTooLate: boolean;
}

export type Step =
  | { do: "start" | "gather" | "claim" | "release" | "finish and claim" | "hand back" | "leave" | "end" }
  | { do: "wait"; ms: number };

/** Decides the next step. Calls are started, not waited for: handlers start whatever call is under way. */
export function nextStep(s: Situation): Step {
  const isCalling = s.isClaiming || s.isReleasing;
  if (s.isTooLate || (s.isLeaving && !isCalling && s.held === 0)) {
    return { do: "end" };
  }
  if (s.now >= s.leaveAt) {
    return { do: "leave" };
  }
  if (s.startable > 0 && s.running < s.concurrency) {
    return { do: "start" };
  }
  if (s.now >= s.handBackAt) {
    return { do: "hand back" };
  }
  const hasOutcomes = s.finished > 0 && !s.isReleasing;
  if (hasOutcomes && s.running > 0 && s.gathering === "no") {
    return { do: "gather" };
  }
  // A claim that comes due meanwhile goes in their call.
  const isGathering = s.gathering === "under way";
  const mustRelease = hasOutcomes && !isGathering;
  const mayClaim = wantsClaims(s) && !s.isClaiming && !isGathering;
  const mustClaim = mayClaim && s.now >= s.lookAt;
  if (mustRelease) {
    return { do: mustClaim && s.canCombine ? "finish and claim" : "release" };
  }
  if (mustClaim) {
    return { do: "claim" };
  }
  const wakeAt = Math.min(mayClaim ? s.lookAt : never, s.handBackAt, s.leaveAt);
  return { do: "wait", ms: wakeAt - s.now };
}

const never = Number.POSITIVE_INFINITY;

/** A call for a few claims costs as much as one for many: a quarter of the limit is free, or a handler is idle. */
function wantsClaims({ room, limit, queued, running, concurrency }: Situation): boolean {
  return room > 0 && (room >= limit / 4 || queued + running < concurrency);
}
