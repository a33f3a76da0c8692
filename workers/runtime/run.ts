import type { Claim } from "./claim.ts";
import type { Json } from "./client.ts";
import type { Held } from "./held.ts";
import { failed, type Outcome, succeeded } from "./outcome.ts";
import type { Profile } from "./profile.ts";

export interface Context {
  /** Aborts when the claim is lost or cancelled, when its lease cannot be renewed, or when the worker has to go. */
  readonly signal: AbortSignal;
  /** How far it is, from 0 to 1: sent with the next heartbeat. */
  progress(fraction: number): void;
  /**
   * Says that this worker has or takes something else than before; what is not named stays. The next claim goes by it.
   * Throws what the database refuses.
   */
  update(changes: Profile): Promise<void>;
}

/**
 * Does the work. What it returns is the claim's result, what it throws its failure. It shares its thread with the
 * heartbeat: a computation of seconds belongs in a worker thread or another process.
 */
export type Handler<Payload = Json> = (claim: Claim<Payload>, context: Context) => unknown;

export async function run<Payload>(handler: Handler<Payload>, held: Held, update: Context["update"]): Promise<Outcome> {
  const context: Context = {
    signal: held.abort.signal,
    progress(fraction) {
      if (Number.isFinite(fraction)) {
        held.progress = Math.min(1, Math.max(0, fraction));
      }
    },
    update,
  };
  try {
    return succeeded(held.claim, await handler(held.claim, context));
  } catch (thrown) {
    return failed(held.claim, thrown);
  }
}
