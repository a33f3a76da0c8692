import { createCandidates } from "./candidates.ts";
import type { SourceOptions } from "./claim.ts";
import { type CallOptions, createClient, type Json } from "./client.ts";
import { createBell, systemClock } from "./clock.ts";
import { isFatal, RequestError } from "./errors.ts";
import { type Keeper, keepLeases, watchDeadlines } from "./heartbeat.ts";
import type { Held, Holding } from "./held.ts";
import { abortError, exit, inOneLine, onStopSignal } from "./host.ts";
import { runLoop } from "./loop.ts";
import { messageOf } from "./outcome.ts";
import { createRegistration, type Profile } from "./profile.ts";
import { createPull } from "./pull.ts";
import { type Handler, run } from "./run.ts";
import { settle, type WorkOptions } from "./settings.ts";
import { createStop } from "./stop.ts";
import { type Counts, createTally } from "./tally.ts";

export type { Claim } from "./claim.ts";
export { RequestError } from "./errors.ts";
export { FinalError, RetryAfter } from "./outcome.ts";
export type { Profile } from "./profile.ts";
export type { Context, Handler } from "./run.ts";
export { type WorkOptions, workTypesFromEnv } from "./settings.ts";

export interface Summary extends Counts {
  workerId: string;
}

/**
 * Works: claims items of these work types, hands each to the handler, keeps the leases while it runs, and hands in what
 * it returns. Ends when it is stopped, or when nothing is left if that is asked for; throws where no request can succeed.
 */
export async function work<Payload = Json>(
  workType: string | readonly string[],
  handler: Handler<Payload>,
  options: WorkOptions = {},
): Promise<Summary> {
  const settings = settle(workType, options);
  const { workerId, workTypes } = settings;
  const clock = options.clock ?? systemClock;
  const random = options.random ?? Math.random;
  const print = options.log ?? ((line: string): void => console.error(line));
  let isOut = false;
  const client = createClient({
    ...settings,
    clock,
    random,
    ...(options.fetch ? { fetch: options.fetch } : {}),
    onRetry: (error, attempt) => attempt > 1 && onOutage(error),
  });
  const log = (line: string): void => print(client.redact(line.replace(/\s+/g, " ")));
  const tally = createTally(clock, log);
  const holding: Holding = new Map();
  const ended = new AbortController();
  const broken = new AbortController();
  const stop = createStop(clock, settings.graceMs, ended.signal);
  const bells = { loop: createBell(clock), beat: createBell(clock), deadline: createBell(clock) };
  const ringAll = (): void => {
    for (const bell of Object.values(bells)) {
      bell.ring();
    }
  };

  function onOutage(error: unknown): void {
    if (!isOut) {
      isOut = true;
      log(`no answer, trying again: ${messageOf(error)}`);
    }
  }
  function onAnswer(): void {
    if (isOut) {
      isOut = false;
      log("the database answers again");
    }
  }
  function lose(held: Held, why: string): void {
    if (!holding.delete(held.claim.fence)) {
      return; // A heartbeat and a deadline may both find it.
    }
    held.abort.abort(abortError(`the claim is gone: ${why}`));
    tally.addLost();
    log(`lost ${held.claim.work_type} ${held.claim.item_id}: ${why}`);
    ringAll();
  }

  const keeper: Keeper = {
    client,
    clock,
    random,
    holding,
    workerId,
    leaseSeconds: settings.leaseSeconds,
    onLost: lose,
    onKept() {
      onAnswer();
      ringAll();
    },
    isPassing(error) {
      if (isFatal(error)) {
        broken.abort(error);
        bells.loop.ring();
        return false;
      }
      onOutage(error);
      return true;
    },
    ended: ended.signal,
  };
  const registration = createRegistration(client, workerId, workTypes, settings.profile);
  const sourceOptions: SourceOptions = {
    workTypes,
    workerId,
    leaseSeconds: settings.leaseSeconds,
    warm: settings.warm,
    log,
  };
  const source =
    settings.pool === null
      ? createPull(client, clock, sourceOptions)
      : createCandidates(client, clock, random, settings.pool, sourceOptions);

  const untilStopped: CallOptions = { retryForMs: Number.POSITIVE_INFINITY, until: stop.asked };
  // A worker that claims no more need not say what it would take.
  const isLeaving = (): boolean => stop.asked.aborted || ended.signal.aborted;
  async function update(changes: Profile): Promise<void> {
    if (isLeaving()) {
      return;
    }
    try {
      await registration.update(changes, { ...untilStopped, signal: ended.signal });
      source.onProfile();
    } catch (error) {
      if (!isLeaving()) {
        throw error;
      }
    }
  }

  const ask = (why: string): void => {
    log(`${why}: claiming no more, ${holding.size} to finish within ${settings.graceMs / 1000} s`);
    stop.ask();
  };
  const stopListening =
    options.handleSignals === false
      ? (): void => {}
      : onStopSignal((signal) => {
          if (stop.asked.aborted) {
            exit(signal === "SIGINT" ? 130 : 143);
          }
          ask(signal);
        });
  const onAbort = (): void => ask("stopped");
  options.signal?.addEventListener("abort", onAbort);
  if (options.signal?.aborted) {
    onAbort();
  }
  stop.tooLate.addEventListener("abort", () => broken.abort());

  const keepers = [keepLeases(keeper, bells.beat), watchDeadlines(keeper, bells.deadline)];
  let isRegistered = false;
  try {
    await registration.register({ ...untilStopped, signal: broken.signal });
    isRegistered = true;
    log(`worker ${workerId} is ready for ${workTypes.join(", ")}`);
    await runLoop({
      settings,
      client,
      source,
      clock,
      random,
      holding,
      stop,
      tally,
      bell: bells.loop,
      run: async (held) => {
        const outcome = await run(handler, held, update);
        return outcome.error === undefined ? outcome : { ...outcome, error: client.redact(outcome.error) };
      },
      lose,
      onChange() {
        bells.beat.ring();
        bells.deadline.ring();
      },
      onAnswer,
      log,
      broken: broken.signal,
    });
  } catch (error) {
    if (!stop.asked.aborted || isFatal(error)) {
      throw error instanceof RequestError ? inOneLine(error) : error;
    }
  } finally {
    ended.abort();
    ringAll();
    stopListening();
    options.signal?.removeEventListener("abort", onAbort);
    for (const held of holding.values()) {
      held.abort.abort(abortError("the worker has ended"));
    }
    await Promise.all([...keepers, registration.settled()]);
    if (isRegistered) {
      await client
        .rpc("retire_worker", { worker_id: workerId }, { timeoutMs: 5000, retryForMs: 3000 })
        .catch((error: unknown) => log(`could not sign off, the leases will end by themselves: ${messageOf(error)}`));
      tally.tell(true);
      const { succeeded, failed, released, lost } = tally.counts;
      log(`worker ${workerId} ends: ${succeeded} succeeded, ${failed} failed, ${released} handed back, ${lost} lost`);
    }
  }
  return { workerId, ...tally.counts };
}
