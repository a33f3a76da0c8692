import type { CallOptions } from "./client.ts";
import { isFatal } from "./errors.ts";
import { isOlder } from "./leaving.ts";
import { messageOf } from "./outcome.ts";
import { leave, type Worker } from "./worker.ts";

/** A work type as describe_work_types() answers it. */
interface Described {
  readonly name: string;
  readonly is_declared: boolean;
  readonly min_worker_version: string | null;
  /** Something of it can be claimed now. */
  readonly has_ready: boolean;
  /** Something of it is held by a worker, or waits for another try. */
  readonly has_open: boolean;
}

function describe({ client, settings }: Worker, call: CallOptions): Promise<Described[]> {
  return client.rpc("describe_work_types", { work_types: settings.workTypes }, call);
}

/** Leaves where a work type asks for a newer version of the worker. An error that may pass counts as no answer. */
export async function checkVersion(worker: Worker, call: CallOptions): Promise<void> {
  const { settings, stop } = worker;
  const types = await describe(worker, call).catch((error: unknown): Described[] => {
    if (isFatal(error)) {
      throw error;
    }
    return [];
  });
  const asking = types.find(
    ({ min_worker_version }) => min_worker_version !== null && isOlder(settings.version, min_worker_version),
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

/**
 * Whether something is ready, held or to be tried again. True where that cannot be known: the database does not answer,
 * or the work type is not declared, so that its items have no claims before they are claimed.
 */
export async function isWorkLeft(worker: Worker): Promise<boolean> {
  try {
    const types = await describe(worker, { timeoutMs: 5000, retryForMs: 3000 });
    return types.some(({ is_declared, has_ready, has_open }) => !is_declared || has_ready || has_open);
  } catch (error) {
    worker.log(`could not ask whether work is left: ${messageOf(error)}`);
    return true;
  }
}
