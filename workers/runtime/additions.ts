import type { Json } from "./client.ts";
import { storedJson } from "./outcome.ts";

/** An item to add, as enqueue_items() takes it. */
export interface NewItem {
  /** Without it the pool is "default". */
  readonly pool?: string;
  readonly payload?: Json;
  readonly priority?: number;
  /** At most one item of a pool has it: without one, a handler that runs twice adds the item twice. */
  readonly dedupe_key?: string;
  readonly run_after?: string;
  readonly requires?: Json;
  readonly labels?: Json;
  readonly affinity?: string;
  readonly workflow?: string;
  readonly traceparent?: string;
  readonly fingerprint?: string;
  readonly needs?: readonly Reference[];
  /** The workflow that it waits for as a whole. */
  readonly needs_all_of?: string;
  readonly max_failures?: number;
}

/** Names an item: by its id or dedupe key, or by its place among the items that are added with it. */
export type Reference =
  | string
  | { readonly id: string; readonly work_type?: string }
  | { readonly key: string; readonly pool?: string; readonly work_type?: string }
  | { readonly index: number; readonly work_type?: string };

/** What release_items() adds in one transaction. */
const itemLimit = 1000;
const bytesLimit = 8_388_608;

/** The items that a handler adds. They are kept here until its outcome takes them along. */
export interface Additions {
  readonly items: Json[];
  enqueue(items: readonly NewItem[]): Reference[];
}

export function createAdditions(): Additions {
  const items: Json[] = [];
  return {
    items,
    enqueue(given) {
      const first = items.length;
      if (first + given.length > itemLimit) {
        throw new Error(
          `the handler adds ${first + given.length} items; one claim adds at most ${itemLimit}: add items that add the others`,
        );
      }
      const all = storedJson("the list of new items", [...items, ...given], bytesLimit, "add where they are");
      items.push(...all.slice(first));
      return given.map((_, n) => ({ index: first + n }));
    },
  };
}
