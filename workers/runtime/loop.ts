import { fullJitter, idleDelay } from "./backoff.ts";
import { quoted, type Source } from "./claim.ts";
import type { CallOptions, Client } from "./client.ts";
import type { Bell, Clock } from "./clock.ts";
import { isFatal, isRetryable } from "./errors.ts";
import { type Held, type Holding, hold, inState, startable, undelivered } from "./held.ts";
import { abortError, inOneLine } from "./host.ts";
import { deadline } from "./lease.ts";
import { messageOf, type Outcome, oneRequestOf, released } from "./outcome.ts";
import { isRefusal, releaseEach } from "./release.ts";
import type { Settings } from "./settings.ts";
import type { Stop } from "./stop.ts";
import type { Tally } from "./tally.ts";

export interface Loop {
  settings: Settings;
  client: Client;
  source: Source;
  clock: Clock;
  random: () => number;
  holding: Holding;
  stop: Stop;
  tally: Tally;
  /** Rings whenever there may be something to do. */
  bell: Bell;
  run(held: Held): Promise<Outcome>;
  lose(held: Held, why: string): void;
  /** Something new is held or runs: heartbeats and deadlines have to be reckoned again. */
  onChange(): void;
  /** The database answered. */
  onAnswer(): void;
  log(line: string): void;
  /** Ends the loop at once: its reason is thrown. */
  broken: AbortSignal;
}

/** How long an outcome is offered beyond its lease: it still counts where nobody took the claim meanwhile. */
const offerMs = 600_000;
/** For one attempt: a megabyte of results over a slow line. */
const exchangeTimeoutMs = 20_000;

/** Claims, runs, hands in, until it is stopped or there is no more. One exchange with the database at a time. */
export async function runLoop(loop: Loop): Promise<void> {
  const { settings, client, source, clock, random, holding, stop, tally, bell, log, broken } = loop;
  // A handler counts until it ends, also one whose claim is gone: two at once may be more than the machine can take.
  let running = 0;
  let emptyLooks = 0;
  let lookAt = clock.now();
  let failures = 0;
  let isEmpty = false;
  let isLookedUp = false;

  function finish(held: Held, outcome: Outcome): void {
    held.state = "finished";
    held.outcome = outcome;
    bell.ring();
  }

  async function start(held: Held): Promise<void> {
    held.state = "running";
    running++;
    const outcome = await loop.run(held);
    running--;
    bell.ring();
    if (held.state !== "running" || !holding.has(held.claim.fence)) {
      return;
    }
    if (deadline(held.lease) <= clock.now()) {
      loop.lose(held, "it ended after its lease");
      return;
    }
    if (outcome.outcome === "failed") {
      log(`failed ${outcome.work_type} ${outcome.item_id}: ${(outcome.error ?? "").split("\n", 1)[0]?.slice(0, 200)}`);
    }
    finish(held, outcome);
  }

  function handBack(state: "queued" | "running"): void {
    for (const held of inState(holding, state)) {
      held.abort.abort(abortError("the worker is stopping"));
      finish(held, released(held.claim));
    }
  }

  function roomNow(): number {
    if (stop.asked.aborted) {
      return 0;
    }
    const most = Math.max(settings.batch, settings.concurrency) - inState(holding, "queued").length - running;
    return Math.max(0, Math.min(most, settings.batch, settings.maxClaims - tally.claimed));
  }

  function isDone(): boolean {
    const isLeaving = stop.asked.aborted || isEmpty || tally.claimed >= settings.maxClaims;
    return stop.tooLate.aborted || (isLeaving && holding.size === 0);
  }

  /** Nothing is held by others, whose leases may end, and nothing failed is to be tried again. */
  async function isNothingToCome(call: CallOptions): Promise<boolean> {
    const open: unknown[] = await client.get(
      `work_claims?select=status&work_type=in.(${settings.workTypes.map(quoted).join(",")})` +
        "&or=(status.eq.claimed,and(status.eq.waiting,failures.gt.0))&limit=1",
      call,
    );
    return open.length === 0;
  }

  async function exchange(outcomes: Outcome[], room: number): Promise<void> {
    const leaseMs = Math.max(60_000, ...outcomes.map((outcome) => holding.get(outcome.fence)?.lease.ttlMs ?? 0));
    let isRepeated = false;
    const call: CallOptions = {
      onRetry: () => {
        isRepeated = true;
      },
      retryForMs: leaseMs + offerMs,
      timeoutMs: exchangeTimeoutMs,
      until: stop.asked,
      signal: broken,
    };
    const sentAt = clock.now();
    for (const outcome of outcomes) {
      const held = holding.get(outcome.fence);
      if (held) {
        held.deliveredAt ??= sentAt;
      }
    }
    if (settings.untilEmpty && !isLookedUp) {
      // A worker that stays may be early; one that leaves when there is nothing would pass for one that did its work.
      const { missing } = await source.whyNothing(call);
      if (missing.length > 0) {
        throw inOneLine(new Error(missing.join(", ")));
      }
      isLookedUp = true;
    }
    // Asked before the look for work: what is handed back in between, the look finds.
    const isLast = settings.untilEmpty && emptyLooks > 0 && holding.size === 0 && (await isNothingToCome(call));
    const { states, won, isMore } = await source
      .exchange(outcomes, room, call, isLast)
      .catch(async (error: unknown) => {
        if (outcomes.length === 0 || !isRefusal(error)) {
          throw error;
        }
        return { states: await releaseEach(client, settings.workerId, outcomes, call, log), won: [], isMore: false };
      });
    failures = 0;
    loop.onAnswer();

    outcomes.forEach((outcome, n) => {
      const state = states[n] ?? "lost";
      holding.delete(outcome.fence);
      tally.addOutcome(outcome.outcome, state);
      if (state === "lost") {
        log(`lost ${outcome.work_type} ${outcome.item_id}: its ${outcome.outcome} came too late`);
      }
    });
    tally.addClaims(won.map(({ claim }) => claim.work_type));
    for (const each of won) {
      hold(holding, each, random);
    }
    if (stop.asked.aborted) {
      handBack("queued");
    }
    loop.onChange();
    if (room === 0) {
      return;
    }
    if (won.length > 0) {
      emptyLooks = 0;
      // Fewer than there was room for: others took some, or there are no more; what ends meanwhile brings the next look.
      lookAt = clock.now() + (won.length < room ? idleDelay(0, random, settings.idleMinMs, settings.idleMaxMs) : 0);
      return;
    }
    if (isMore) {
      lookAt = clock.now();
      return;
    }
    // What an earlier attempt claimed, unheard, and lost since is missing from the answer to a later one.
    isEmpty = isLast && !isRepeated;
    if (emptyLooks++ === 0 && tally.claimed === 0) {
      const why = await source.whyNothing({ retryForMs: 0, signal: broken }).catch(() => null);
      const reasons = [...(why?.missing ?? []), ...(why?.waiting ?? [])];
      if (reasons.length > 0) {
        log(`waiting for work: ${reasons.join(", ")}`);
      }
    }
    lookAt = clock.now() + idleDelay(emptyLooks - 1, random, settings.idleMinMs, settings.idleMaxMs);
  }

  /** Goes on after a failed exchange where that can help. */
  async function recover(error: unknown, outcomes: Outcome[]): Promise<void> {
    if (stop.tooLate.aborted) {
      return;
    }
    if (broken.aborted || isFatal(error)) {
      throw broken.aborted ? broken.reason : error;
    }
    if (isRetryable(error) && stop.asked.aborted) {
      await clock.sleep(fullJitter(failures++, random), stop.tooLate);
      return;
    }
    log(`the database does not take the request: ${messageOf(error)}`);
    for (const { fence } of outcomes) {
      const held = holding.get(fence);
      if (held) {
        loop.lose(held, "its outcome could not be handed in");
      }
    }
    lookAt = clock.now() + idleDelay(emptyLooks++, random, settings.idleMinMs, settings.idleMaxMs);
  }

  stop.asked.addEventListener("abort", () => handBack("queued"));
  stop.asked.addEventListener("abort", () => bell.ring());
  stop.graceOver.addEventListener("abort", () => handBack("running"));
  stop.tooLate.addEventListener("abort", () => bell.ring());

  for (;;) {
    for (const held of startable(holding, clock.now()).slice(0, Math.max(0, settings.concurrency - running))) {
      void start(held);
    }
    loop.onChange();
    if (isDone()) {
      return;
    }
    if (broken.aborted) {
      throw broken.reason;
    }
    const room = roomNow();
    const isAnyFinished = inState(holding, "finished").length > 0;
    if (!isAnyFinished && (room === 0 || clock.now() < lookAt)) {
      tally.tell();
      await bell.wait(room === 0 ? Number.POSITIVE_INFINITY : lookAt - clock.now());
      continue;
    }
    if (isAnyFinished && running > 0) {
      await clock.sleep(0); // What ends in the same moment goes in the same call.
    }
    const outcomes = oneRequestOf(undelivered(holding));
    try {
      await exchange(outcomes, roomNow());
    } catch (error) {
      await recover(error, outcomes);
    }
    tally.tell();
  }
}
