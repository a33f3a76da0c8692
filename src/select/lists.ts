import type { Json } from "../answers.ts";
import type { ListedClaim, ListedItem, ListedWorker } from "./rows.ts";
import type { ClaimSelector, ItemSelector, WorkerSelector } from "./selector.ts";

/**
 * Some rows, and where to go on from; null: that was all. Before the end too there may be fewer than the limit, or none:
 * one call looks at some 20,000 rows at most.
 */
export type Page<Row> = { rows: Row[]; next: Json };

export type PageOptions = {
  /** At most so many rows, 1 to 1000; 100 without. */
  limit?: number | undefined;
  /** The `next` of the page before. */
  after?: Json | undefined;
};

/** Lists of what is there, a page at a time or row by row. */
export type Lists = {
  /** Items in the order they came. */
  items(selector?: ItemSelector, options?: PageOptions & { withPayload?: boolean }): Promise<Page<ListedItem>>;
  /** Claims in the order of their items' ids. */
  claims(selector?: ClaimSelector, options?: PageOptions & { withResult?: boolean }): Promise<Page<ListedClaim>>;
  /** Workers in the order of their ids. */
  workers(selector?: WorkerSelector, options?: PageOptions): Promise<Page<ListedWorker>>;
  /** All that fit, however many: pages are fetched as the loop comes to them. */
  eachItem(selector?: ItemSelector, options?: { withPayload?: boolean }): AsyncGenerator<ListedItem, void>;
  eachClaim(selector?: ClaimSelector, options?: { withResult?: boolean }): AsyncGenerator<ListedClaim, void>;
  eachWorker(selector?: WorkerSelector): AsyncGenerator<ListedWorker, void>;
};

/** The most that one page holds. */
const wholePage = 1000;

export function createLists(call: <Answer>(name: string, args: object) => Promise<Answer>): Lists {
  const items: Lists["items"] = (selector = {}, { limit, after, withPayload } = {}) =>
    call("list_items", { selector, max_items: limit, after, with_payload: withPayload });
  const claims: Lists["claims"] = (selector = {}, { limit, after, withResult } = {}) =>
    call("list_claims", { selector, max_items: limit, after, with_result: withResult });
  const workers: Lists["workers"] = (selector = {}, { limit, after } = {}) =>
    call("list_workers", { selector, max_items: limit, after });
  return {
    items,
    claims,
    workers,
    // Payloads and results may be large: what comes along with them comes in smaller pages.
    eachItem: (selector, options = {}) =>
      eachRow((after) => items(selector, { ...options, after, limit: options.withPayload ? 100 : wholePage })),
    eachClaim: (selector, options = {}) =>
      eachRow((after) => claims(selector, { ...options, after, limit: options.withResult ? 100 : wholePage })),
    eachWorker: (selector) => eachRow((after) => workers(selector, { after, limit: wholePage })),
  };
}

/** The rows of one page after the other. */
export async function* eachRow<Row>(pageAfter: (after: Json) => Promise<Page<Row>>): AsyncGenerator<Row, void> {
  let after: Json = null;
  do {
    const { rows, next }: Page<Row> = await pageAfter(after);
    yield* rows;
    after = next;
  } while (after !== null);
}
