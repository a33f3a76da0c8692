// The worker of a loop without a database.
import type { Claim, Need } from "./claim.ts";
import type { DefinedWork } from "./defined-work.ts";
import { SettingsError } from "./host.ts";
import type { Why } from "./leaving.ts";
import { keyOf, type List, payloadOf } from "./list.ts";
import type { ItemReference } from "./new-item.ts";
import { type Outcome, returned, threw } from "./outcome.ts";
import type { Context, Handler } from "./run.ts";

/**
 * Hands each element of the list to the handler, in this process alone. What fails is logged, and nothing is tried again.
 * While an element is handled, `elements` has it by its key.
 */
export async function plainWork<Element>(
  work: string | DefinedWork,
  handler: Handler,
  list: List<Element>,
  elements: Map<string, Element>,
  { signal, log }: { signal: AbortSignal; log: (line: string) => void },
): Promise<{ why: Why }> {
  const workType = typeof work === "string" ? work : work.name;
  const done = new Map<string, Need>();
  for await (const element of list.over) {
    if (signal.aborted) {
      return { why: "signal" };
    }
    const key = keyOf(element, list);
    const needs = list.each?.(element).needs?.map((reference) => done.get(keyNamedBy(reference))) ?? [];
    if (!needs.every((need) => need !== undefined)) {
      log(`left out ${workType} ${key}: it needs something that is not done before it in this list`);
      continue;
    }
    const claim = plainClaim(workType, key, await payloadOf(element, key, work, list), needs);
    elements.set(key, element);
    const { outcome, result, error, note, external_id } = await ended(handler, claim, signal);
    elements.delete(key);
    if (outcome === "succeeded" && list.each) {
      done.set(key, { item_id: key, work_type: workType, source_key: null, dedupe_key: key, status: outcome, result });
    }
    const why = error ?? note ?? external_id;
    if (why !== undefined) {
      log(`${outcome} ${workType} ${key}${why && `: ${why}`}`);
    }
    // The next element may never come.
    if (signal.aborted) {
      return { why: "signal" };
    }
  }
  return { why: "empty" };
}

function keyNamedBy(reference: ItemReference): string {
  return typeof reference === "string" ? reference : "key" in reference ? reference.key : "";
}

async function ended(handler: Handler, claim: Claim, signal: AbortSignal): Promise<Outcome> {
  try {
    return returned(claim, await handler(claim, plainContext(claim, signal)));
  } catch (thrown) {
    return threw(claim, thrown);
  }
}

function plainClaim(work_type: string, key: string, payload: unknown, needs: readonly Need[]): Claim {
  return {
    ...{ item_id: key, work_type, number: 1, payload, pool: work_type, source_key: null, needs },
    ...{ fence: 0, ttl_seconds: 0, expires_at: "infinity", failures: 0, crashes: 0, try_seconds: null },
    ...{ state: null, external_id: null, traceparent: null },
  };
}

function plainContext({ item_id, work_type, payload }: Claim, signal: AbortSignal): Context {
  const itemKey = `${item_id}:${work_type}`;
  return {
    signal,
    traceparent: null,
    progress() {},
    save: async () => {},
    update: async () => {},
    enqueue() {
      throw new SettingsError("WORK_CLAIMS_DISABLED is set, and enqueue() needs a database");
    },
    reread: async () => payload,
    idempotencyKey: `${itemKey}:0`,
    itemKey,
    // No other process shares the list.
    lock: async (_name, _options, action) => action(0),
  };
}
