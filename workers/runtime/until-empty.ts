// Whether work is left. A worker with untilEmpty or untilDone leaves when there is none, and must not take a typing error
// for that.
import type { CallOptions } from "./client.ts";
import { describeWorkTypes, type WorkType } from "./describe.ts";
import { SettingsError } from "./host.ts";
import type { Loop } from "./loop-state.ts";
import { messageOf } from "./outcome.ts";
import { askRemaining, isOver, type Remaining } from "./remaining.ts";
import { heedRules } from "./rules.ts";
import type { Settings } from "./settings.ts";
import type { Worker } from "./worker.ts";

/** With untilEmpty or untilDone a missing work type or pool is an error: no work would look like work that is done. */
export async function refuseMissing({ settings, state, source }: Loop, call: CallOptions): Promise<void> {
  if (settings.leaves === "never" || state.isDiagnosed) {
    return;
  }
  const { missing } = await source.diagnose(call);
  if (missing.length > 0) {
    throw new SettingsError(missing.join(", "));
  }
  state.isDiagnosed = true;
}

/** Before a look for work: nothing is to come, but what is ready may be for this worker. */
export interface Before {
  /** How many claims had ended, where something was ready. */
  readonly ended: number | null;
}

/**
 * Null where something is to come. With untilEmpty nothing is where no lease of another worker can end, and no claim is to
 * be tried again; a worker that polls waits for jobs too. With untilDone: nothing at all is open.
 */
export async function beforeLastLook(loop: Loop, call: CallOptions): Promise<Before | null> {
  const { settings, client } = loop;
  if (settings.leaves === "ready") {
    return { ended: null };
  }
  if (settings.leaves === "done") {
    return (await askRemaining(client, settings.workTypes, call)).every(isOver) ? { ended: null } : null;
  }
  const types = await describeWorkTypes(client, settings.workTypes, call);
  // A work type that was stopped has nothing to claim, and is not done.
  heedRules(loop, types);
  if (types.some((type) => isOpen(type, settings))) {
    return null;
  }
  return {
    ended: types.some((type) => type.has_ready) ? ended(await askRemaining(client, settings.workTypes, call)) : null,
  };
}

/**
 * Whether others were at work during a look that found nothing: they may have claimed what was ready before it, and may make
 * more ready with it.
 */
export async function wereOthersAtWork(
  { settings, client }: Loop,
  before: Before,
  call: CallOptions,
): Promise<boolean> {
  if (before.ended === null) {
    return false;
  }
  const types = await askRemaining(client, settings.workTypes, call);
  return types.some((type) => type.running > 0) || ended(types) !== before.ended;
}

function ended(types: readonly Remaining[]): number {
  return types.reduce((sum, { done, failed, cancelled }) => sum + done + failed + cancelled, 0);
}

function isOpen({ has_open, has_parked }: WorkType, { poll }: Settings): boolean {
  return has_open || (has_parked && poll !== undefined);
}

/**
 * Whether something is ready, held or to be tried again. True where that cannot be known: the database does not answer,
 * or the work type is not declared, so that its items have no claims before they are claimed.
 */
export async function isWorkLeft({ client, settings, log }: Worker, call: CallOptions): Promise<boolean> {
  try {
    const types = await describeWorkTypes(client, settings.workTypes, call);
    return types.some((type) => !type.is_declared || type.has_ready || isOpen(type, settings));
  } catch (error) {
    log(`could not ask whether work is left: ${messageOf(error)}`);
    return true;
  }
}
