import { type Client, createClient } from "./client.ts";
import { type Clock, systemClock } from "./clock.ts";
import type { Held, Holding } from "./held.ts";
import { abortError } from "./host.ts";
import type { Why } from "./leaving.ts";
import { createLog, errorType, itemFields, type Log, operations } from "./log.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { messageOf } from "./outcome.ts";
import type { Settings, WorkOptions } from "./settings.ts";
import { createStop, type Stop } from "./stop.ts";
import { createTally, type Tally } from "./tally.ts";
import { createWakeUp, type WakeUp } from "./wake-up.ts";

/** All that the loop, the heartbeat and the stop of one worker share. */
export interface Worker {
  readonly settings: Settings;
  /** Its registered name: with a token, the token's and its own. */
  readonly registered: { workerId: string };
  readonly client: Client;
  readonly fetch: typeof globalThis.fetch;
  readonly startedAt: number;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly tally: Tally;
  readonly holding: Holding;
  readonly stop: Stop;
  readonly wakeUps: { loop: WakeUp; heartbeat: WakeUp; deadline: WakeUp };
  readonly outage: Outage;
  /** Aborts where no further request can succeed; its reason is what work() throws. */
  readonly broken: AbortController;
  /** Aborts when the worker has ended. */
  readonly ended: AbortController;
}

/** Logs once that the database does not answer, and once that it does again. */
export interface Outage {
  readonly isOut: boolean;
  begin(error: unknown): void;
  end(): void;
}

export function createWorker(settings: Settings, options: WorkOptions): Worker {
  const clock = options.clock ?? systemClock;
  const random = options.random ?? Math.random;
  const startedAt = clock.now();
  const print = options.log ?? ((line: string): void => console.error(line));
  const client =
    options.client ??
    createClient({
      ...settings,
      workerSuffix: settings.workerId,
      clock,
      random,
      ...(options.fetch ? { fetch: options.fetch } : {}),
      onRetry: (error, attempt) => attempt > 1 && outage.begin(error),
    });
  const registered = { workerId: settings.workerId };
  const log = createLog(settings.logFormat, () => registered.workerId, client.redact, print, options.quiet);
  const metrics = createMetrics(clock, settings.workTypes);
  const outage = createOutage(log);
  const ended = new AbortController();
  return {
    settings,
    registered,
    client,
    fetch: options.fetch ?? globalThis.fetch,
    startedAt,
    clock,
    random,
    log,
    metrics,
    tally: createTally(clock, log, metrics),
    holding: new Map(),
    stop: createStop(clock, startedAt + settings.endsInMs, ended.signal),
    wakeUps: { loop: createWakeUp(clock), heartbeat: createWakeUp(clock), deadline: createWakeUp(clock) },
    outage,
    broken: new AbortController(),
    ended,
  };
}

export function wakeAll({ wakeUps }: Worker): void {
  for (const wakeUp of Object.values(wakeUps)) {
    wakeUp.wake();
  }
}

/** Claims no more; what is running may finish within the grace time. The log gets the reason in words. */
export function leave({ stop, holding, log }: Worker, why: Why | Error, said: string, graceMs: number): void {
  const finishMs = stop.ask(why, graceMs);
  const within = Number.isFinite(finishMs) ? ` within ${Math.round(finishMs / 1000)} s` : "";
  log(`${said}: claiming no more, ${holding.size} to finish${within}`, {
    "messaging.batch.message_count": holding.size,
  });
}

/** Gives up a claim that is no longer this worker's. A heartbeat and a deadline may both find it: it counts once. */
export function lose(worker: Worker, held: Held, why: string): void {
  if (!worker.holding.delete(held.claim.fence)) {
    return;
  }
  held.abort.abort(abortError(`the claim is gone: ${why}`));
  worker.tally.addLost(held.claim.work_type);
  worker.log(`lost ${held.claim.work_type} ${held.claim.item_id}: ${why}`, {
    ...operations.extend,
    ...itemFields(held.claim),
    "error.type": "claim_lost",
  });
  wakeAll(worker);
}

function createOutage(log: Log): Outage {
  let isOut = false;
  return {
    get isOut() {
      return isOut;
    },
    begin(error) {
      if (!isOut) {
        isOut = true;
        log(`no answer, trying again: ${messageOf(error)}`, errorType(error));
      }
    },
    end() {
      if (isOut) {
        isOut = false;
        log("the database answers again");
      }
    },
  };
}
