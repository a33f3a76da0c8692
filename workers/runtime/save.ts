import type { Json } from "./client.ts";
import type { Held } from "./held.ts";
import { storedJson } from "./outcome.ts";
import { lose, type Worker } from "./worker.ts";

/** State that a handler has saved and the database does not have yet. */
export interface Saved {
  readonly state: Json;
  readonly stored: Promise<void>;
  /** The database has it, or refuses it. */
  settle(refusal?: unknown): void;
}

/** The most that a claim keeps, in bytes. */
const stateLimit = 65_536;

/**
 * Keeps state for the next try of this claim. It goes with a heartbeat at once, or with the outcome. Of several that are
 * not sent yet, the latest counts. Rejects where the claim is lost.
 */
export function save({ holding, clock, wakeUps }: Worker, held: Held, given: unknown): Promise<void> {
  const state = storedJson("the saved state", given ?? undefined, stateLimit, "save where it is");
  if (state === undefined) {
    throw new Error("save() was called with nothing; save({}) clears what was saved");
  }
  if (held.state !== "running" || !holding.has(held.claim.fence)) {
    return Promise.reject(held.abort.signal.reason ?? new Error("the claim is over"));
  }
  held.saved = held.saved ? { ...held.saved, state } : newlySaved(held, state);
  held.lease = { ...held.lease, beatAt: clock.now() };
  wakeUps.heartbeat.wake();
  return held.saved.stored;
}

function newlySaved({ abort: { signal } }: Held, state: Json): Saved {
  let settle: Saved["settle"] = () => {};
  const stored = new Promise<void>((resolve, reject) => {
    const isLost = (): void => reject(signal.reason);
    settle = (refusal) => {
      signal.removeEventListener("abort", isLost);
      if (refusal === undefined) {
        resolve();
      } else {
        reject(refusal);
      }
    };
    signal.addEventListener("abort", isLost);
  });
  // A handler that does not wait for it must not end the process with an unhandled rejection.
  stored.catch(() => {});
  return { state, stored, settle };
}

/** The present payload of a claim, so that its change up to here does not have it done again. Throws where the claim is lost. */
export async function reread(worker: Worker, held: Held): Promise<Json> {
  const { client, settings } = worker;
  const { item_id, work_type, fence } = held.claim;
  const key = { item_id, work_type, worker_id: settings.workerId, fence };
  const found: { payload: Json } | null = await client.rpc("reread_claim", key, { signal: held.abort.signal });
  if (found === null) {
    lose(worker, held, "another worker has it, or it was cancelled");
    throw held.abort.signal.reason;
  }
  return found.payload;
}

/** Drops all state that waits for a heartbeat, since the database refuses one of them. True where there was any. */
export function dropSaved({ holding }: Worker, refusal: unknown): boolean {
  const waiting = [...holding.values()].filter((held) => held.saved !== null);
  for (const held of waiting) {
    held.saved?.settle(refusal);
    held.saved = null;
  }
  return waiting.length > 0;
}
