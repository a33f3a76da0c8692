import type { Claim } from "./claim.ts";
import type { Json } from "./client.ts";
import type { Clock } from "./clock.ts";
import { isFatal } from "./errors.ts";
import { errorType, itemFields, operations } from "./log.ts";
import { failed, messageOf, type Outcome, succeeded } from "./outcome.ts";
import { isRefusal, refusalOf } from "./release.ts";
import type { Worker } from "./worker.ts";

/** A claim whose work is done by a job elsewhere, as take_parked() answers it. */
export interface ParkedClaim<Payload = Json> {
  readonly item_id: string;
  readonly work_type: string;
  readonly fence: number;
  /** The id of the job, as the handler gave it to parked(). */
  readonly external_id: string;
  /** The state that the handler saved. */
  readonly state: Json;
  /** It was cancelled, or its time has passed for good: the job is to be stopped. */
  readonly is_ended: boolean;
  readonly claimed_at: string;
  readonly expires_at: string;
  readonly pool: string;
  readonly source_key: string | null;
  readonly payload: Payload;
}

/** The options of a worker that looks after jobs elsewhere. */
export interface ParkedOptions {
  /**
   * Asks about the job of a parked claim. It returns undefined while the job runs, else the claim's result. FinalError and
   * RetryAfter say that the job failed; after any other error it is asked again.
   */
  poll?: (parked: ParkedClaim, signal: AbortSignal) => unknown;
  /** Stops the job of a claim that was cancelled, or whose time has passed for good. After an error it is called again. */
  abandon?: (parked: ParkedClaim, signal: AbortSignal) => unknown;
  /** How often each job is asked about: WORK_POLL_SECONDS, else 30. */
  pollSeconds?: number;
}

/** So many jobs are asked about at once. */
const atOnce = 10;

/** A job that takes longer to ask about does not hold up the others. */
const askMs = 60_000;

/** Asks about parked claims until the worker stops; several workers share them. */
export async function keepPolling(worker: Worker): Promise<void> {
  const { settings, client, clock, random, stop, ended } = worker;
  if (!settings.poll && !settings.abandon) {
    return;
  }
  const over = new AbortController();
  for (const signal of [stop.asked, ended.signal]) {
    signal.addEventListener("abort", () => over.abort());
  }
  while (!stop.asked.aborted && !ended.signal.aborted) {
    let taken: ParkedClaim[] = [];
    try {
      taken = await client.rpc(
        "take_parked",
        {
          work_types: settings.workTypes,
          worker_id: settings.workerId,
          max_items: atOnce,
          every_seconds: settings.pollSeconds,
        },
        { signal: over.signal, retryForMs: 0 },
      );
      await allWithin(
        clock,
        over.signal,
        taken.map((parked) => settle(worker, parked, over.signal)),
      );
    } catch (error) {
      if (isFatal(error) && !over.signal.aborted) {
        worker.broken.abort(error);
        return;
      }
      worker.outage.begin(error);
      taken = [];
    }
    if (taken.length < atOnce) {
      await clock.sleep(settings.pollSeconds * 1000 * (0.5 + 0.5 * random()), over.signal);
    }
  }
}

/** Stops the job of a try that has lost its claim: no row has its id. */
export function abandonJob(worker: Worker, claim: Claim, external_id: string): void {
  const { log, settings, ended } = worker;
  const claimed_at = new Date(Date.parse(claim.expires_at) - claim.ttl_seconds * 1000).toISOString();
  const facts = { ...operations.release, ...itemFields(claim) };
  log(`lost ${claim.work_type} ${claim.item_id}: no claim waits for the job ${external_id}`, facts);
  Promise.resolve({ ...claim, external_id, claimed_at, is_ended: true })
    .then((parked) => settings.abandon?.(parked, ended.signal))
    .catch((error: unknown) => {
      log(`could not stop the job ${external_id}: ${messageOf(error)}`, { ...facts, ...errorType(error) });
    });
}

/** Resolves when all have, at the abort, or after a minute: a poll that never ends must not hold up others, nor the end. */
async function allWithin(clock: Clock, signal: AbortSignal, all: Promise<void>[]): Promise<void> {
  const turn = new AbortController();
  const end = (): void => turn.abort("over");
  signal.addEventListener("abort", end);
  if (signal.aborted) {
    end();
  }
  await Promise.race([Promise.all(all), clock.sleep(askMs, turn.signal)]).finally(() => {
    signal.removeEventListener("abort", end);
    end();
  });
}

async function settle(
  { settings, client, log, metrics }: Worker,
  parked: ParkedClaim,
  signal: AbortSignal,
): Promise<void> {
  const outcome = await (parked.is_ended ? abandoned(parked) : polled(parked)).catch((error: unknown) => {
    log(`could not ask about job ${parked.external_id}, asking again later: ${messageOf(error)}`, {
      ...operations.poll,
      ...itemFields(parked),
      ...errorType(error),
    });
  });
  if (!outcome || signal.aborted) {
    return;
  }
  const { external_id, work_type, item_id, fence } = parked;
  try {
    const closed: unknown[] = await client.rpc("release_parked", { ...outcome, external_id, fence }, { signal });
    if (closed.length > 0) {
      metrics.addEnd(work_type, outcome.outcome);
    }
    log(`${closed.length > 0 ? outcome.outcome : "lost"} ${work_type} ${item_id}, the job ${external_id}`, {
      ...operations.poll,
      ...itemFields(parked),
    });
  } catch (error) {
    if (!isRefusal(error)) {
      throw error;
    }
    log(`refused ${work_type} ${item_id}, the job ${external_id}: ${messageOf(error)}`, {
      ...operations.poll,
      ...itemFields(parked),
      ...errorType(error),
    });
    if (outcome.outcome === "succeeded") {
      const failure = { outcome: "failed", error: refusalOf(error), external_id, fence };
      await client.rpc("release_parked", failure, { signal });
    }
  }

  async function polled(of: ParkedClaim): Promise<Ending | undefined> {
    try {
      const result = await settings.poll?.(of, signal);
      return result === undefined ? undefined : ending(succeeded(of, result));
    } catch (error) {
      const outcome = failed(of, error);
      if (outcome.final === undefined && outcome.retry_after_seconds === undefined) {
        throw error;
      }
      return ending(outcome);
    }
  }

  async function abandoned(of: ParkedClaim): Promise<Ending> {
    if (settings.abandon) {
      await settings.abandon(of, signal);
    } else {
      log(
        `the job ${of.external_id} goes on for a claim that has ended: this worker has no option abandon`,
        itemFields(of),
      );
    }
    return { outcome: "abandoned" };
  }
}

/** The arguments of release_parked(), less the key. */
interface Ending {
  readonly outcome: string;
  readonly result?: Json;
  readonly error?: string;
  readonly final?: boolean;
  readonly retry_after_seconds?: number;
}

function ending({ outcome, result, error, final, retry_after_seconds }: Outcome): Ending {
  return { outcome, result, ...(error !== undefined && { error, final, retry_after_seconds }) };
}
