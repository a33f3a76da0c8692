// What the work types of a worker ask of it: a version, an end of work, further claims of their items.
import type { CallOptions } from "./client.ts";
import { describeWorkTypes, type WorkType } from "./describe.ts";
import { isFatal } from "./errors.ts";
import { isOlder } from "./leaving.ts";
import { leave, type Worker } from "./worker.ts";

/** Asks for the rules of the work types and heeds them. An error that may pass counts as no answer. */
export async function checkRules(worker: Worker, call: CallOptions): Promise<void> {
  const { client, settings } = worker;
  const types = await describeWorkTypes(client, settings.workTypes, call).catch((error: unknown): WorkType[] => {
    if (isFatal(error)) {
      throw error;
    }
    return [];
  });
  heedRules(worker, types);
}

/** Leaves where a work type asks for a newer version of the worker, or was stopped. Takes on further claims of its items. */
export function heedRules(worker: Worker, types: readonly WorkType[]): void {
  const { settings, stop } = worker;
  if (stop.asked.aborted) {
    return;
  }
  const stopped = types.find((type) => type.stopped);
  if (stopped) {
    const said = `${stopped.name} is stopped: ${stopped.stopped}; hand it out again with: work-claims types ${stopped.name} --no-paused`;
    leave(worker, new Error(said), said, settings.graceMs);
    return;
  }
  const asking = types.find(
    ({ min_worker_version }) => min_worker_version && isOlder(settings.version, min_worker_version),
  );
  if (asking) {
    const has = settings.version ?? "none (WORK_VERSION)";
    const said = `${asking.name} asks for version ${asking.min_worker_version} of its workers, and this one has ${has}`;
    leave(worker, "version", said, Number.POSITIVE_INFINITY);
    return;
  }
  // With a token the database adds them to each call.
  if (settings.token === null) {
    addCopies(settings.workTypes, types);
  }
}

/** Asks without waiting for the answer. */
export function checkRulesSoon(worker: Worker): void {
  // The calls for work log what goes wrong here too, and end the worker where they must.
  void checkRules(worker, { retryForMs: 0, signal: worker.ended.signal }).catch(() => {});
}

/** Each part of the worker has this list, so that all of them know of a further claim at once. */
function addCopies(workTypes: string[], types: readonly WorkType[]): void {
  for (const copy of types.flatMap(({ copies }) => copies ?? [])) {
    if (!workTypes.includes(copy)) {
      workTypes.push(copy);
    }
  }
}

/** Asks again about once a minute, so that a change reaches workers that run for days. */
export async function watchRules(worker: Worker): Promise<void> {
  const { clock, random, stop, ended } = worker;
  const isOver = AbortSignal.any([ended.signal, stop.asked]);
  while (!isOver.aborted) {
    await clock.sleep(60_000 * (0.75 + 0.5 * random()), isOver);
    if (!isOver.aborted) {
      checkRulesSoon(worker);
    }
  }
}
