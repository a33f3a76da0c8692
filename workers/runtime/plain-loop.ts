// The loop of claims() without a database.
import type { Claim } from "./claim.ts";
import { SettingsError } from "./host.ts";
import { checkOver, keyOf, type List } from "./list.ts";
import { createLoopClaim, type LoopClaim } from "./loop-claim.ts";
import { messageOf } from "./outcome.ts";
import type { Context } from "./run.ts";

interface PlainOptions {
  signal?: AbortSignal;
  log?: (line: string) => void;
}

/** Each element of the list, in this process alone. What fails is logged, and nothing is tried again. */
export async function* plainLoop<Element>(
  workType: string,
  options: PlainOptions & Partial<List<Element>>,
): AsyncGenerator<LoopClaim<unknown, Element>, void, void> {
  checkOver(options);
  const { over, key, payload, signal, log = console.error } = options;
  if (over === undefined) {
    throw new SettingsError(
      "WORK_CLAIMS_DISABLED is set and no list (over) is given; without a database there is nothing else to go over",
    );
  }
  for await (const element of over) {
    signal?.throwIfAborted();
    const name = keyOf(element, { over, ...(key && { key }) });
    const given = plainClaim(workType, name, payload ? payload(element) : element);
    const { claim, said } = createLoopClaim(given, plainContext(given, signal), element);
    try {
      yield claim;
    } finally {
      // Also where the loop is left.
      try {
        said()?.();
      } catch (error) {
        log(`failed ${workType} ${name}: ${messageOf(error)}`);
      }
    }
  }
}

function plainClaim(work_type: string, item_id: string, payload: unknown): Claim<unknown> {
  return {
    ...{
      item_id,
      work_type,
      number: 1,
      payload,
      fence: 0,
      ttl_seconds: 0,
      expires_at: "infinity",
      failures: 0,
      crashes: 0,
    },
    ...{
      try_seconds: null,
      state: null,
      external_id: null,
      traceparent: null,
      pool: work_type,
      source_key: null,
      needs: [],
    },
  };
}

function plainContext({ item_id, work_type, payload }: Claim<unknown>, signal: AbortSignal | undefined): Context {
  const itemKey = `${item_id}:${work_type}`;
  return {
    signal: signal ?? new AbortController().signal,
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
