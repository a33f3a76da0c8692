import { createAdditions } from "./additions.ts";
import type { Claim } from "./claim.ts";
import type { Json } from "./client.ts";
import type { Held } from "./held.ts";
import { SettingsError } from "./host.ts";
import type { LockOptions } from "./lock.ts";
import type { NewItem, Reference } from "./new-item.ts";
import { type Outcome, returned, threw, withItems } from "./outcome.ts";
import type { Profile } from "./profile.ts";
import { firstName } from "./several.ts";
import { traceOfTry } from "./trace.ts";

export interface Context {
  /** Aborts when the claim is lost or cancelled, its lease cannot be renewed, or the grace time of a stop is over. */
  readonly signal: AbortSignal;
  /** The trace of the item, with a span of this try, for the headers of what the handler calls. Null where it has none. */
  readonly traceparent: string | null;
  /** The done part, from 0 to 1: sent with the next heartbeat. */
  progress(fraction: number): void;
  /**
   * Keeps a state of at most 64 kB for the next try of this item: its handler finds it as claim.state. Resolves when the
   * database has it; rejects where the claim is lost.
   */
  save(state: Json): Promise<void>;
  /**
   * Changes the worker's profile; properties that are not given stay. Claims that no handler has started go back, and the
   * next claim goes by the new profile. Throws where the database refuses it.
   */
  update(changes: Profile): Promise<void>;
  /**
   * Adds items, at most 1,000, in the transaction that takes this handler's result, Later or WaitFor: all of them once, or
   * none. The answer refers to them, for WaitFor.
   */
  enqueue(items: readonly NewItem[]): Reference[];
  /**
   * The present payload. Call it before the work is done: then a change of the input up to this moment does not have the
   * item done again. Throws where the claim is lost.
   */
  reread(): Promise<Json>;
  /**
   * Item, work type and fence: the same for all requests of this try, another one in the next try. For a request that is
   * sent again within this handler, and for a receiver that refuses lower fences than it has seen.
   */
  readonly idempotencyKey: string;
  /**
   * Item and work type: the same in every try. For what must not happen twice though a worker dies between the request and
   * its release, such as a payment. After a change of the input it is the same too: add what may change.
   */
  readonly itemKey: string;
  /**
   * Runs a function while this claim has one of so many slots of a named lock, and waits for a slot before. The function
   * gets the fence of the slot, for what it writes elsewhere. The slot is free after it, and at the end of the claim.
   */
  lock<Result>(
    name: string,
    options: LockOptions,
    action: (lockFence: number) => Result | Promise<Result>,
  ): Promise<Result>;
}

/**
 * Does the work. It returns the claim's result or parked(), or throws its error or Later. It shares its thread with the heartbeat: a
 * computation of seconds belongs in a worker thread or another process.
 */
export type Handler<Payload = Json> = (claim: Claim<Payload>, context: Context) => unknown;

/** The handler of each work type, by its name. */
export interface Handlers {
  readonly [workType: string]: Handler;
}

/** One handler for all of them. The further claims of an item, of the work types NAME#2 and on, are done as the first is. */
export function dispatch(handlers: Handlers): Handler {
  for (const [workType, handler] of Object.entries(handlers)) {
    if (typeof handler !== "function") {
      throw new SettingsError(`the handler of ${workType} is ${typeof handler}; a function was expected`);
    }
  }
  return (claim, context) => {
    const name = Object.hasOwn(handlers, claim.work_type) ? claim.work_type : firstName(claim.work_type);
    return (handlers[name] as Handler)(claim, context);
  };
}

export async function run<Payload>(
  handler: Handler<Payload>,
  held: Held,
  { save, update, reread, lock }: Pick<Context, "save" | "update" | "reread" | "lock">,
): Promise<Outcome> {
  const { item_id, work_type, fence } = held.claim;
  const { items, enqueue } = createAdditions();
  const context: Context = {
    signal: held.abort.signal,
    traceparent: traceOfTry(held.claim.traceparent),
    progress(fraction) {
      if (Number.isFinite(fraction)) {
        held.progress = Math.min(1, Math.max(0, fraction));
      }
    },
    save,
    update,
    enqueue,
    reread,
    idempotencyKey: `${item_id}:${work_type}:${fence}`,
    itemKey: `${item_id}:${work_type}`,
    lock,
  };
  try {
    return withItems(returned(held.claim, await handler(held.claim, context)), items);
  } catch (thrown) {
    return withItems(threw(held.claim, thrown), items);
  }
}
