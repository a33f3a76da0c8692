// Whether work is left. A worker with untilEmpty or untilDone leaves when there is none, and must not take a typing error
// for that.
import type { CallOptions } from "./client.ts";
import { describeWorkTypes, type WorkType } from "./describe.ts";
import { SettingsError } from "./host.ts";
import type { Loop } from "./loop-state.ts";
import { messageOf } from "./outcome.ts";
import { askRemaining, isOver } from "./remaining.ts";
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

/**
 * With untilEmpty: no lease of another worker can end, and no claim is to be tried again. A worker that polls waits for
 * jobs too. With untilDone: nothing at all is open.
 */
export async function isNothingToCome(loop: Loop, call: CallOptions): Promise<boolean> {
  const { settings, client } = loop;
  if (settings.leaves === "ready") {
    return true;
  }
  if (settings.leaves === "done") {
    return (await askRemaining(client, settings.workTypes, call)).every(isOver);
  }
  const types = await describeWorkTypes(client, settings.workTypes, call);
  // A work type that was stopped has nothing to claim, and is not done.
  heedRules(loop, types);
  return !types.some((type) => isOpen(type, settings));
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
