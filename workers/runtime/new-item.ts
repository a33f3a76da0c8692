// Items to add: as enqueue_items() takes them, and as programs say them.
import type { Json } from "./client.ts";
import type { Requirement } from "./requirement.ts";

/** An item to add, as enqueue_items() takes it. */
export interface NewItem {
  /** Without it the pool is "default". */
  readonly pool?: string;
  readonly payload?: Json;
  readonly priority?: number;
  /** At most one item of a pool has it: without one, a handler that runs twice adds the item twice. */
  readonly dedupe_key?: string;
  readonly run_after?: string;
  readonly requires?: Requirement;
  readonly labels?: { readonly [name: string]: Json };
  readonly affinity?: string;
  readonly workflow?: string;
  readonly traceparent?: string;
  readonly fingerprint?: string;
  readonly max_failures?: number;
  readonly needs?: readonly Reference[];
  readonly needs_all_of?: string;
}

/**
 * Names an item: by its id, or by its dedupe key, in the same pool unless said otherwise. With a work type, only that work
 * type of it is needed.
 */
export type ItemReference =
  | string
  | { readonly id: string; readonly work_type?: string }
  | { readonly key: string; readonly pool?: string; readonly work_type?: string };

/** The same, or an item by its place among those that are added in one call. */
export type Reference = ItemReference | { readonly index: number; readonly work_type?: string };

/** The options of an item: all that it has beside its payload. */
export interface ItemOptions {
  /** More is earlier. */
  readonly priority?: number | undefined;
  /** At most one item of a pool has it: a second one is not added, and answers the id of the first. */
  readonly dedupeKey?: string | undefined;
  readonly runAfter?: Date | string | undefined;
  /** Its condition on a worker's capabilities, in place of the work's. */
  readonly requires?: Requirement | undefined;
  /** Values for the conditions of workers: a worker may accept only some labels. */
  readonly labels?: { readonly [name: string]: Json } | undefined;
  /** The name of a thing that a worker may have ready: a model in memory, a snapshot on disk. */
  readonly affinity?: string | undefined;
  /** The name of the items that it belongs to; the first that names it makes it. */
  readonly workflow?: string | undefined;
  /** The trace that it belongs to, as W3C Trace Context has it. */
  readonly traceparent?: string | undefined;
  /** Names its input, in place of the payload: another one means another input. */
  readonly fingerprint?: string | undefined;
  /** In place of the work type's. */
  readonly maxFailures?: number | undefined;
  /** The items that it waits for. */
  readonly needs?: readonly ItemReference[] | undefined;
  /** The workflow that it waits for as a whole. */
  readonly needsAllOf?: string | undefined;
}

export function newItem(pool: string, payload: Json, { runAfter, ...options }: ItemOptions = {}): NewItem {
  // toJSON() of an invalid date is null, and the item would run at once; toISOString() throws.
  const run_after = runAfter instanceof Date ? runAfter.toISOString() : runAfter;
  return { ...snakeCase(options), pool, payload, ...(run_after !== undefined && { run_after }) };
}

/** The same values under their names in SQL. JSON leaves out undefined ones: the database has its default for each. */
export function snakeCase(values: object): { [name: string]: Json } {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      value,
    ]),
  );
}

/** One call of enqueue_items() takes 1,000 items. A megabyte a call keeps it far below the time limits of requests. */
export const mostItems = 1000;
const mostCharacters = 1_000_000;

/** Items with what belongs to each, in batches for one call. An item that is larger than a batch goes alone. */
export async function* batchesOf<Entry extends { readonly item: NewItem }>(
  entries: AsyncIterable<Entry>,
  most: number = mostItems,
): AsyncGenerator<Entry[], void> {
  let batch: Entry[] = [];
  let characters = 0;
  for await (const entry of entries) {
    const more = JSON.stringify(entry.item).length;
    if (batch.length > 0 && characters + more > mostCharacters) {
      yield batch;
      [batch, characters] = [[], 0];
    }
    batch.push(entry);
    characters += more;
    if (batch.length === most) {
      yield batch;
      [batch, characters] = [[], 0];
    }
  }
  if (batch.length > 0) {
    yield batch;
  }
}
