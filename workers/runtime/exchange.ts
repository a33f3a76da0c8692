import { fullJitter, idleDelay } from "./backoff.ts";
import type { Claimed, Won } from "./claim.ts";
import type { CallOptions } from "./client.ts";
import { isFatal, isRetryable } from "./errors.ts";
import { handBack } from "./handle.ts";
import { hold, unreleased } from "./held.ts";
import { errorType, itemFields, operations } from "./log.ts";
import { type Loop, noAnswer, roomOf } from "./loop-state.ts";
import { messageOf, type Outcome, oneRequestOf } from "./outcome.ts";
import { meanWith } from "./pace.ts";
import { abandonJob } from "./parked.ts";
import { isRefusal, type Released, released, releaseEach, releaseItems } from "./release.ts";
import { checkRulesSoon } from "./rules.ts";
import { isAgain } from "./tally.ts";
import { beforeLastLook, refuseMissing, wereOthersAtWork } from "./until-empty.ts";
import { lose } from "./worker.ts";

export type Call = "claim" | "release" | "finish and claim";

/** An outcome is offered this long beyond its lease: it counts unless another worker has the claim. */
const offerMs = 600_000;

/** The database remembers a request id for an hour. */
const longestOfferMs = 3_300_000;

/** For one attempt: a megabyte of results over a slow connection. */
const exchangeTimeoutMs = 20_000;

/** Makes one call and records its answer. The loop has at most one claim call and one release call under way. */
export async function exchange(loop: Loop, made: Call): Promise<void> {
  const { state, holding } = loop;
  const isClaim = made !== "release";
  const isRelease = made !== "claim";
  state.isClaiming ||= isClaim;
  state.isAsking ||= isClaim;
  state.isReleasing ||= isRelease;
  let outcomes: Outcome[] = [];
  try {
    if (isRelease) {
      state.gathering = "no";
      outcomes = oneRequestOf(unreleased(holding));
    }
    await (isClaim ? claim(loop, outcomes) : release(loop, outcomes));
  } catch (error) {
    await recover(loop, made, error, outcomes);
  } finally {
    state.isClaiming &&= !isClaim;
    state.isAsking &&= !isClaim;
    state.isReleasing &&= !isRelease;
  }
}

async function release(loop: Loop, outcomes: Outcome[]): Promise<void> {
  const call = callOptions(loop, "release", outcomes);
  const all = await releaseItems(loop.client, loop.settings.workerId, outcomes, call)
    .then((states) => released(outcomes, states))
    .catch((error: unknown) => releaseRefused(loop, outcomes, call, error));
  recordReleased(loop, all);
}

/** Claims, and releases in the same call where there are outcomes. */
async function claim(loop: Loop, outcomes: Outcome[]): Promise<void> {
  const { settings, state, source, clock, holding } = loop;
  let isRepeated = false;
  const call = callOptions(loop, "claim", outcomes, () => {
    isRepeated = true;
    noAnswer(loop);
  });
  await refuseMissing(loop, call);
  // Asked before the last look, so that the look finds what others hand back in between.
  const mayBeLast = settings.leaves !== "never" && state.hasFoundNothing && holding.size === 0;
  const before = mayBeLast ? await beforeLastLook(loop, call) : null;
  const room = roomOf(loop);
  if (room === 0) {
    await (outcomes.length > 0 ? release(loop, outcomes) : undefined);
    return;
  }
  const sentAt = clock.now();
  let answer: Claimed;
  if (outcomes.length > 0 && source.finishAndClaim) {
    const { all, claimed } = await source
      .finishAndClaim(outcomes, room, call)
      .then(({ states, ...claimed }) => ({ all: released(outcomes, states), claimed }))
      .catch(async (error: unknown) => ({
        all: await releaseRefused(loop, outcomes, call, error),
        claimed: { won: [], isMore: true },
      }));
    recordReleased(loop, all);
    answer = claimed;
  } else {
    answer = await source.claim(room, call, before !== null);
    loop.outage.end();
  }
  if (!isRepeated) {
    state.pace = { ...state.pace, roundTripMs: meanWith(state.pace.roundTripMs, clock.now() - sentAt) };
  }
  // A repeated call answers with what it still holds. What an earlier attempt claimed may be lost already.
  const isLast =
    before !== null && !isRepeated && answer.won.length === 0 && !(await wereOthersAtWork(loop, before, call));
  await recordClaims(loop, answer, { room, sentAt, isLast });
}

/** A worker that leaves claims nothing; outcomes it offers as ever, unless its time to finish is limited. */
function lastAttempt({ stop }: Loop, made: Call): AbortSignal {
  return made === "release" ? stop.limited : stop.asked;
}

function callOptions(loop: Loop, made: Call, outcomes: Outcome[], onRetry?: () => void): CallOptions {
  const { holding, clock, over } = loop;
  const held = outcomes.flatMap((outcome) => holding.get(outcome.fence) ?? []);
  for (const each of held) {
    each.releasedAt ??= clock.now();
  }
  return {
    ...(onRetry && { onRetry }),
    retryForMs: Math.min(Math.max(60_000, ...held.map((each) => each.lease.ttlMs)) + offerMs, longestOfferMs),
    timeoutMs: exchangeTimeoutMs,
    until: lastAttempt(loop, made),
    signal: over.signal,
  };
}

/** Releases one by one what the database refused together; throws every other error. */
async function releaseRefused(
  { client, settings, log }: Loop,
  outcomes: Outcome[],
  call: CallOptions,
  error: unknown,
): Promise<Released[]> {
  if (!isRefusal(error)) {
    throw error;
  }
  return releaseEach(client, settings.workerId, outcomes, call, log);
}

/** The database has taken these outcomes. */
function recordReleased(loop: Loop, all: Released[]): void {
  const { holding, tally, log, state, outage } = loop;
  state.releaseFailures = 0;
  outage.end();
  if (all.some(({ state }) => state === "failed")) {
    // It failed for good: its work type may be stopped.
    checkRulesSoon(loop);
  }
  for (const { outcome, state: became } of all) {
    const held = holding.get(outcome.fence);
    holding.delete(outcome.fence);
    if (became === "lost" && outcome.outcome === "parked" && held) {
      abandonJob(loop, held.claim, outcome.external_id as string);
    }
    tally.addOutcome(outcome, became);
    if (became === "lost") {
      log(`lost ${outcome.work_type} ${outcome.item_id}: its ${outcome.outcome} came too late`, {
        ...operations.release,
        ...itemFields(outcome),
        "error.type": "claim_lost",
      });
    } else if (isAgain(outcome, became)) {
      log(`to be done again ${outcome.work_type} ${outcome.item_id}: its input changed`, {
        ...operations.release,
        ...itemFields(outcome),
      });
    }
  }
}

/** Queues the claims that were won, and sets the time of the next look. */
async function recordClaims(
  loop: Loop,
  { won, isMore }: Claimed,
  { room, sentAt, isLast }: { room: number; sentAt: number; isLast: boolean },
): Promise<void> {
  const { state, clock, tally, wakeUps } = loop;
  queue(loop, won);
  const now = clock.now();
  // The call may have looked before the work came that it was told of meanwhile.
  const lookAt = state.calledAt >= sentAt ? now : now + nextLook(loop);
  if (won.length > 0) {
    state.hasFoundNothing = false;
    state.workSeenAt = now;
    state.lookAt = won.length < room ? lookAt : now;
    wakeUps.heartbeat.wake();
    return;
  }
  if (isMore) {
    state.lookAt = now;
    return;
  }
  const isFirst = !state.hasFoundNothing && tally.claimed === 0;
  state.hasFoundNothing = true;
  state.isEmpty = isLast;
  state.lookAt = lookAt;
  if (isFirst) {
    await logReasons(loop);
  }
}

function queue(loop: Loop, claims: Won[]): void {
  const { state, holding, clock, random, tally, stop } = loop;
  tally.addClaims(claims.map(({ claim }) => claim.work_type));
  for (const each of claims) {
    const held = hold(holding, each, clock.now(), random);
    state.pace = { ...state.pace, leaseMs: held.lease.ttlMs };
  }
  if (stop.asked.aborted || claims.some(({ sentAt }) => sentAt < state.profileAt)) {
    handBack(loop, "queued");
  }
}

async function logReasons({ source, over, log }: Loop): Promise<void> {
  const why = await source.diagnose({ retryForMs: 0, signal: over.signal }).catch(() => null);
  const reasons = [...(why?.missing ?? []), ...(why?.waiting ?? [])];
  if (reasons.length > 0) {
    log(`waiting for work: ${reasons.join(", ")}`, operations.claim);
  }
}

function nextLook({ state, settings, clock, random }: Loop): number {
  return idleDelay(clock.now() - state.workSeenAt, random, settings.idleMinMs, settings.idleMaxMs);
}

/** Returns where another call can help, and gives up the outcomes that the database does not take. */
async function recover(loop: Loop, made: Call, error: unknown, outcomes: Outcome[]): Promise<void> {
  const { state, clock, random, over, holding, log } = loop;
  if (over.signal.aborted) {
    return;
  }
  if (isFatal(error)) {
    throw error;
  }
  if (isRetryable(error) && lastAttempt(loop, made).aborted) {
    await clock.sleep(fullJitter(state.releaseFailures++, random), over.signal);
    return;
  }
  log(`the database does not take the request: ${messageOf(error)}`, errorType(error));
  for (const { fence } of outcomes) {
    const held = holding.get(fence);
    if (held) {
      lose(loop, held, "its outcome could not be released");
    }
  }
  state.lookAt = clock.now() + nextLook(loop);
}
