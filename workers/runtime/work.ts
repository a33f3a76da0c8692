import { createCandidates } from "./candidates.ts";
import type { Source, SourceOptions } from "./claim.ts";
import type { CallOptions, Json } from "./client.ts";
import { isFatal } from "./errors.ts";
import { handBack } from "./handle.ts";
import { keepLeases, watchDeadlines } from "./heartbeat.ts";
import { abortError } from "./host.ts";
import type { Why } from "./leaving.ts";
import { listenForWork } from "./listen.ts";
import { lock } from "./lock.ts";
import { leaveUnready, runLoop } from "./loop.ts";
import { createLoop, type Loop, noAnswer } from "./loop-state.ts";
import { type MetricsServer, startMetrics } from "./metrics-server.ts";
import { keepPolling } from "./parked.ts";
import { createRegistration, type Profile, type Registration, typesOpened } from "./profile.ts";
import { createPull } from "./pull.ts";
import { checkRules, watchRules } from "./rules.ts";
import { dispatch, type Handler, type Handlers, run } from "./run.ts";
import { reread, save } from "./save.ts";
import { settle, type WorkOptions } from "./settings.ts";
import { signOff } from "./sign-off.ts";
import { watchSpot } from "./spot.ts";
import { listenForStop } from "./stop.ts";
import type { Counts } from "./tally.ts";
import { createWorker, leave, type Worker, wakeAll } from "./worker.ts";

export type { Claim, Need } from "./claim.ts";
export { type Connection, claims, type LoopOptions } from "./claims.ts";
export type { CallOptions, Client } from "./client.ts";
export { RequestError } from "./errors.ts";
export { SettingsError } from "./host.ts";
export type { Why } from "./leaving.ts";
export type { List } from "./list.ts";
export type { LockOptions } from "./lock.ts";
export type { LoopClaim } from "./loop-claim.ts";
export type { ItemOptions, ItemReference, NewItem, Reference } from "./new-item.ts";
export { FinalError, Later, type Parked, parked, RetryAfter, WaitFor } from "./outcome.ts";
export type { ParkedClaim } from "./parked.ts";
export type { Profile } from "./profile.ts";
export { runAsProgram } from "./program.ts";
export type { Context, Handler, Handlers } from "./run.ts";
export { optionsFromArguments, type WorkOptions, workTypesFromEnv } from "./settings.ts";

export interface Summary extends Counts {
  workerId: string;
  why: Why;
  /**
   * Something of its work types is ready, held or to be tried again; also where that cannot be known. A worker that left
   * because nothing was left for it says false.
   */
  isWorkLeft: boolean;
}

/** The same with a handler for each work type. */
export function work(handlers: Handlers, options?: WorkOptions): Promise<Summary>;
/**
 * Claims items of these work types, hands each to the handler, keeps the leases while it runs, and releases the outcomes.
 * Ends when it is stopped, or for a reason that the options name. Throws where no request can succeed, and where a handler
 * takes no notice of the end of its time: then the process should end.
 */
export function work<Payload = Json>(
  workType: string | readonly string[],
  handler: Handler<Payload>,
  options?: WorkOptions,
): Promise<Summary>;
export async function work(
  given: string | readonly string[] | Handlers,
  second: Handler | WorkOptions = {},
  third: WorkOptions = {},
): Promise<Summary> {
  return typeof second === "function"
    ? runWorker(given as string | readonly string[], second, third)
    : runWorker(Object.keys(given), dispatch(given as Handlers), second);
}

async function runWorker(
  workType: string | readonly string[],
  handler: Handler,
  options: WorkOptions,
): Promise<Summary> {
  const settings = settle(workType, options);
  const { workTypes } = settings;
  const worker = createWorker(settings, options);
  const { client, holding, stop, tally, log, broken, ended } = worker;
  const registration = createRegistration(client, settings);
  const loop: Loop = createLoop(worker, createSource(worker), async (held) => {
    const outcome = await run(handler, held, {
      save: (state) => save(worker, held, state),
      update: (changes) => update(loop, registration, changes),
      reread: () => reread(worker, held),
      lock: (name, of, action) => lock(worker, held, name, of, action),
    });
    return outcome.error === undefined ? outcome : { ...outcome, error: client.redact(outcome.error) };
  });
  const stopListening = listenForStop(options, (said) => leave(worker, "signal", said, settings.graceMs));
  stop.tooLate.addEventListener("abort", () => broken.abort());

  const keepers = [keepLeases(worker), watchDeadlines(worker), watchSpot(worker), watchRules(worker)];
  let isRegistered = false;
  let hasLeftWork = true;
  let metricsServer: MetricsServer | null = null;
  let endListening = async (): Promise<void> => {};
  try {
    metricsServer = await startMetrics(worker);
    const isReady = new AbortController();
    void leaveUnready(loop, isReady.signal);
    const call = { ...untilStopped(worker, broken.signal), onRetry: () => noAnswer(loop) };
    const registered = await registration.register(call);
    isRegistered = true;
    worker.registered.workerId = registered.worker_id;
    const readyFor = typesOpened(workTypes, registered.work_types);
    await checkRules(worker, call);
    isReady.abort();
    keepers.push(keepPolling(worker));
    endListening = await listenForWork(loop, readyFor);
    log(`worker ${worker.registered.workerId} is ready for ${readyFor.join(", ")}`);
    await runLoop(loop);
  } catch (error) {
    if (!stop.asked.aborted || isFatal(error)) {
      throw error;
    }
  } finally {
    ended.abort();
    wakeAll(worker);
    for (const held of holding.values()) {
      held.abort.abort(abortError("the worker has ended"));
    }
    for (const limit of loop.state.limits) {
      limit.abort();
    }
    await Promise.all([...keepers, registration.settled(), endListening()]);
    if (isRegistered) {
      hasLeftWork = await signOff(worker, registration);
    }
    await metricsServer?.stop();
    stopListening();
  }
  if (stop.why instanceof Error) {
    throw stop.why;
  }
  const why = stop.why ?? (loop.state.isEmpty ? "empty" : "claims");
  return { workerId: worker.registered.workerId, ...tally.counts, why, isWorkLeft: hasLeftWork && why !== "empty" };
}

function createSource({ settings, client, clock, random, log }: Worker): Source {
  const { workTypes, workerId, leaseSeconds, warm, pool } = settings;
  const options: SourceOptions = { workTypes, workerId, leaseSeconds, warm, log };
  return pool === null ? createPull(client, clock, options) : createCandidates(client, clock, random, pool, options);
}

/** Registers a new profile. Queued claims were won with the old one, and go back. */
async function update(loop: Loop, registration: Registration, changes: Profile): Promise<void> {
  // A worker that claims no more need not say what it would take.
  const isLeaving = (): boolean => loop.stop.asked.aborted || loop.ended.signal.aborted;
  if (isLeaving()) {
    return;
  }
  try {
    await registration.update(changes, untilStopped(loop, loop.ended.signal));
    loop.source.onProfile();
    loop.state.profileAt = loop.clock.now();
    handBack(loop, "queued");
  } catch (error) {
    if (!isLeaving()) {
      throw error;
    }
  }
}

function untilStopped({ stop }: Worker, signal: AbortSignal): CallOptions {
  return { retryForMs: Number.POSITIVE_INFINITY, until: stop.asked, signal };
}
