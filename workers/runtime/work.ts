import { createCandidates } from "./candidates.ts";
import type { Source, SourceOptions } from "./claim.ts";
import type { CallOptions, Json } from "./client.ts";
import { isFatal } from "./errors.ts";
import { handBack } from "./handle.ts";
import { keepLeases, watchDeadlines } from "./heartbeat.ts";
import { abortError, SettingsError } from "./host.ts";
import type { Why } from "./leaving.ts";
import { errorType, operations } from "./log.ts";
import { leaveNow, runLoop } from "./loop.ts";
import { createLoop, type Loop, leaving, noAnswer } from "./loop-state.ts";
import { type MetricsServer, serveMetrics } from "./metrics-server.ts";
import { messageOf } from "./outcome.ts";
import { keepPolling } from "./parked.ts";
import { createRegistration, type Profile, type Registration } from "./profile.ts";
import { createPull } from "./pull.ts";
import { type Handler, run } from "./run.ts";
import { save } from "./save.ts";
import { settle, type WorkOptions } from "./settings.ts";
import { watchSpot } from "./spot.ts";
import { listenForStop } from "./stop.ts";
import { type Counts, totals } from "./tally.ts";
import { isWorkLeft } from "./until-empty.ts";
import { checkVersion, watchVersion } from "./version.ts";
import { createWorker, leave, type Worker, wakeAll } from "./worker.ts";

export type { Claim } from "./claim.ts";
export { RequestError } from "./errors.ts";
export { SettingsError } from "./host.ts";
export type { Why } from "./leaving.ts";
export { FinalError, Later, type Parked, parked, RetryAfter } from "./outcome.ts";
export type { ParkedClaim } from "./parked.ts";
export type { Profile } from "./profile.ts";
export { runAsProgram } from "./program.ts";
export type { Context, Handler } from "./run.ts";
export { type WorkOptions, workTypesFromEnv } from "./settings.ts";

export interface Summary extends Counts {
  workerId: string;
  why: Why;
  /**
   * Something of its work types is ready, held or to be tried again; also where that cannot be known. A worker that left
   * because nothing was left for it says false.
   */
  isWorkLeft: boolean;
}

/**
 * Claims items of these work types, hands each to the handler, keeps the leases while it runs, and releases the outcomes.
 * Ends when it is stopped, or for a reason that the options name. Throws where no request can succeed, and where a handler
 * takes no notice of the end of its time: then the process should end.
 */
export async function work<Payload = Json>(
  workType: string | readonly string[],
  handler: Handler<Payload>,
  options: WorkOptions = {},
): Promise<Summary> {
  const settings = settle(workType, options);
  const { workTypes } = settings;
  let { workerId } = settings;
  const worker = createWorker(settings, options);
  const { client, holding, stop, tally, log, broken, ended } = worker;
  const registration = createRegistration(client, settings);
  const loop: Loop = createLoop(worker, createSource(worker), async (held) => {
    const outcome = await run(handler, held, {
      save: (state) => save(worker, held, state),
      update: (changes) => update(loop, registration, changes),
    });
    return outcome.error === undefined ? outcome : { ...outcome, error: client.redact(outcome.error) };
  });
  const stopListening = listenForStop(options, (said) => leave(worker, "signal", said, settings.graceMs));
  stop.tooLate.addEventListener("abort", () => broken.abort());

  const keepers = [keepLeases(worker), watchDeadlines(worker), watchSpot(worker), watchVersion(worker)];
  let isRegistered = false;
  let hasLeftWork = true;
  let metricsServer: MetricsServer | null = null;
  try {
    metricsServer = await startMetrics(worker);
    const isReady = new AbortController();
    void leaveUnready(loop, isReady.signal);
    const call = { ...untilStopped(worker, broken.signal), onRetry: () => noAnswer(loop) };
    const registered = await registration.register(call);
    isRegistered = true;
    workerId = registered.worker_id;
    const readyFor = opened(workTypes, registered.work_types);
    await checkVersion(worker, call);
    isReady.abort();
    keepers.push(keepPolling(worker));
    log(`worker ${workerId} is ready for ${readyFor.join(", ")}`);
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
    await Promise.all([...keepers, registration.settled()]);
    if (isRegistered) {
      const signOff = async (): Promise<unknown> =>
        registration.retire().catch((error: unknown) =>
          log(`could not sign off, the leases will end by themselves: ${messageOf(error)}`, {
            ...operations.release,
            ...errorType(error),
          }),
        );
      // At once, since a supervisor may kill the process soon.
      [hasLeftWork] = await Promise.all([isWorkLeft(worker), signOff()]);
      tally.log(true);
      const { succeeded, failed, released, parked, lost } = tally.counts;
      const elsewhere = parked > 0 ? `${parked} parked, ` : "";
      log(
        `worker ${workerId} ends: ${succeeded} succeeded, ${elsewhere}${failed} failed, ${released} handed back, ${lost} lost`,
        totals(Object.entries(tally.counts)),
      );
    }
    await metricsServer?.stop();
    stopListening();
  }
  if (stop.why instanceof Error) {
    throw stop.why;
  }
  const why = stop.why ?? (loop.state.isEmpty ? "empty" : "claims");
  return { workerId, ...tally.counts, why, isWorkLeft: hasLeftWork && why !== "empty" };
}

/** While the database does not answer, a worker may wait for its first answer until its time is over. */
async function leaveUnready(loop: Loop, isReady: AbortSignal): Promise<void> {
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

/** The work types of the worker. A token opens exactly its own: with other ones the handler would get what it is not for. */
function opened(wanted: readonly string[], ofToken: readonly string[] = wanted): readonly string[] {
  if (wanted.length > 0 && [...wanted].sort().join() !== [...ofToken].sort().join()) {
    throw new SettingsError(
      `the worker is for ${wanted.join(", ")} and its token for ${ofToken.join(", ")}; leave out the work types (WORK_TYPE), or make another token`,
    );
  }
  return ofToken;
}

/** Throws where nothing can listen at the port: a worker that nobody can watch must not start. */
async function startMetrics({ settings, holding, outage, metrics, log }: Worker): Promise<MetricsServer | null> {
  if (settings.metrics === null) {
    return null;
  }
  const { concurrency } = settings;
  const server = await serveMetrics(settings.metrics, () =>
    metrics.text({ held: holding.size, concurrency, isDatabaseUp: !outage.isOut }),
  );
  log(`metrics are at ${server.url}`);
  return server;
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
