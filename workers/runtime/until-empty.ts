// A worker with untilEmpty leaves when nothing is left for it, and must not take a typing error for that.
import type { CallOptions } from "./client.ts";
import { describeWorkTypes } from "./describe.ts";
import { SettingsError } from "./host.ts";
import type { Loop } from "./loop-state.ts";

/** With untilEmpty a missing work type or pool is an error: no work would look like work that is done. */
export async function refuseMissing({ settings, state, source }: Loop, call: CallOptions): Promise<void> {
  if (!settings.untilEmpty || state.isDiagnosed) {
    return;
  }
  const { missing } = await source.diagnose(call);
  if (missing.length > 0) {
    throw new SettingsError(missing.join(", "));
  }
  state.isDiagnosed = true;
}

/** True where no lease of another worker can end, and no claim is to be tried again. A worker that polls waits for jobs too. */
export async function isNothingToCome({ settings, client }: Loop, call: CallOptions): Promise<boolean> {
  const types = await describeWorkTypes(client, settings.workTypes, call);
  return types.every((type) => !type.has_open && !(settings.poll && type.has_parked));
}
