import type { CallOptions } from "./client.ts";
import { describeWorkTypes, type WorkType } from "./describe.ts";
import { isFatal } from "./errors.ts";
import { isOlder } from "./leaving.ts";
import { leave, type Worker } from "./worker.ts";

/** Leaves where a work type asks for a newer version of the worker. An error that may pass counts as no answer. */
export async function checkVersion(worker: Worker, call: CallOptions): Promise<void> {
  const { client, settings, stop } = worker;
  const types = await describeWorkTypes(client, settings.workTypes, call).catch((error: unknown): WorkType[] => {
    if (isFatal(error)) {
      throw error;
    }
    return [];
  });
  const asking = types.find(
    ({ min_worker_version }) => min_worker_version && isOlder(settings.version, min_worker_version),
  );
  if (asking && !stop.asked.aborted) {
    const has = settings.version ?? "none (WORK_VERSION)";
    const said = `${asking.name} asks for version ${asking.min_worker_version} of its workers, and this one has ${has}`;
    leave(worker, "version", said, Number.POSITIVE_INFINITY);
  }
}

/** Asks again about once a minute, so that a new minimum reaches workers that run for days. */
export async function watchVersion(worker: Worker): Promise<void> {
  const { clock, random, stop, ended } = worker;
  const isOver = AbortSignal.any([ended.signal, stop.asked]);
  while (!isOver.aborted) {
    await clock.sleep(60_000 * (0.75 + 0.5 * random()), isOver);
    if (!isOver.aborted) {
      // The calls for work log what goes wrong here too, and end the worker where they must.
      await checkVersion(worker, { retryForMs: 0, signal: ended.signal }).catch(() => {});
    }
  }
}
