// A worker with untilEmpty leaves when nothing is left for it, and must not take a typing error for that.
import { quoted } from "./claim.ts";
import type { CallOptions } from "./client.ts";
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

/** True where no lease of another worker can end, and no failed claim is to be tried again. */
export async function isNothingToCome({ settings, client }: Loop, call: CallOptions): Promise<boolean> {
  const open: unknown[] = await client.get(
    `work_claims?select=status&work_type=in.(${settings.workTypes.map(quoted).join(",")})` +
      "&or=(status.eq.claimed,and(status.eq.waiting,failures.gt.0))&limit=1",
    call,
  );
  return open.length === 0;
}
