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

/** Before a look for work, after which nothing more is expected. */
export interface LastLook {
  /** How many claims had ended, where something was ready. */
  readonly ended: number | null;
}

/**
 * Null while more may become ready. With untilEmpty that is while another worker holds a claim, or one waits for its next
 * try; for a worker that polls, also while a job runs. With untilDone: while anything is open.
 */
export async function beforeLastLook(loop: Loop, call: CallOptions): Promise<LastLook | null> {
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
  before: LastLook,
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
