import type { Json } from "./client.ts";
import { mostItems, type NewItem, type Reference } from "./new-item.ts";
import { storedJson } from "./outcome.ts";

/** What release_items() adds in one transaction. */
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
      if (first + given.length > mostItems) {
        throw new Error(
          `the handler adds ${first + given.length} items; one claim adds at most ${mostItems}: add items that add the others`,
        );
      }
      const all = storedJson("the list of new items", [...items, ...given], bytesLimit, "add where they are");
      items.push(...all.slice(first));
      return given.map((_, n) => ({ index: first + n }));
    },
  };
}
