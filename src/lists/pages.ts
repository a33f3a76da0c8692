import { compileSelector, type Filter, type Query, quoted } from "./query.ts";
import {
  claimList,
  itemList,
  type List,
  type ListedClaim,
  type ListedItem,
  type ListedWorker,
  workerList,
} from "./rows.ts";
import type { ClaimSelector, ItemSelector, WorkerSelector } from "./selector.ts";

/** The values of a row's key columns. */
export type Key = { readonly [column: string]: string };

/** Some rows, and where to go on from; null: there were none. */
export type Page<Row> = { rows: Row[]; next: Key | null };

export type PageOptions = {
  /** At most so many rows, 1 to 1000; 100 without. */
  limit?: number | undefined;
  /** The `next` of the page before. It goes with the order of keys, in which no row is missed. */
  after?: Key | null | undefined;
  /** Columns, each with ".desc" where the largest comes first; see `claimOrders`. The order of keys without. */
  order?: readonly string[] | undefined;
  /** So many rows of an order are left out. */
  offset?: number | undefined;
};

/** Lists of items, claims and workers, a page at a time or row by row. */
export type Lists = {
  items(selector?: ItemSelector, options?: PageOptions & { withPayload?: boolean }): Promise<Page<ListedItem>>;
  claims(selector?: ClaimSelector, options?: PageOptions & { withResult?: boolean }): Promise<Page<ListedClaim>>;
  workers(selector?: WorkerSelector, options?: PageOptions): Promise<Page<ListedWorker>>;
  /** All that fit, however many: the loop fetches page by page. */
  eachItem(selector?: ItemSelector, options?: { withPayload?: boolean }): AsyncGenerator<ListedItem, void>;
  eachClaim(selector?: ClaimSelector, options?: { withResult?: boolean }): AsyncGenerator<ListedClaim, void>;
  eachWorker(selector?: WorkerSelector): AsyncGenerator<ListedWorker, void>;
};

type Read = <Row>(relation: string, query: Query) => Promise<Row[]>;

/** The most rows that PostgREST answers on Supabase. */
const wholePage = 1000;

export function createLists(read: Read): Lists {
  const items: Lists["items"] = (selector, { withPayload, ...options } = {}) =>
    page(read, itemList, selector, options, withPayload);
  const claims: Lists["claims"] = (selector, { withResult, ...options } = {}) =>
    page(read, claimList, selector, options, withResult);
  const workers: Lists["workers"] = (selector, options = {}) => page(read, workerList, selector, options);
  return {
    items,
    claims,
    workers,
    // Payloads and results may be large: they come in smaller pages.
    eachItem: (selector, options = {}) =>
      eachRow((after) => items(selector, { ...options, after, limit: options.withPayload ? 100 : wholePage })),
    eachClaim: (selector, options = {}) =>
      eachRow((after) => claims(selector, { ...options, after, limit: options.withResult ? 100 : wholePage })),
    eachWorker: (selector) => eachRow((after) => workers(selector, { after, limit: wholePage })),
  };
}

/** The rows of one page after the other, until one is empty: a project may answer fewer rows than the limit. */
async function* eachRow<Row>(pageAfter: (after: Key | null) => Promise<Page<Row>>): AsyncGenerator<Row, void> {
  let after: Key | null = null;
  do {
    const { rows, next }: Page<Row> = await pageAfter(after);
    yield* rows;
    after = next;
  } while (after !== null);
}

async function page<Row>(
  read: Read,
  list: List<Row>,
  selector: object = {},
  options: PageOptions = {},
  isWhole = false,
): Promise<Page<Row>> {
  const rows = await read<Row>(list.relation, pageQuery(list, selector, options, isWhole, new Date()));
  const last = rows.at(-1);
  return { rows, next: last === undefined ? null : keyOf(list, last) };
}

export function pageQuery<Row>(
  list: List<Row>,
  selector: object,
  { limit = 100, after, order, offset }: PageOptions,
  isWhole: boolean,
  now: Date,
): Query {
  if (after && order) throw new RangeError("after is given with an order; it goes with the order of keys, use offset");
  const { filters, ors } = compileSelector(selector, list.columns, now);
  const beyond = after ? afterKey(list, after) : { filters: [], ors: [] };
  const columns = Object.keys(list.columns).filter((column) => isWhole || column !== list.whole);
  return {
    select: columns.join(","),
    filters: [...filters, ...beyond.filters],
    ors: [...ors, ...beyond.ors],
    order: order ?? list.key,
    limit,
    offset,
  };
}

function keyOf<Row>(list: List<Row>, row: Row): Key {
  return Object.fromEntries(list.key.map((column) => [column, String(row[column])]));
}

type Pages = { key: readonly string[]; keyTwin?: string };

/** The rows after this key. The bounds on the first column are ones that an index scan can begin at. */
function afterKey({ key, keyTwin }: Pages, after: Key): { filters: Filter[]; ors: string[] } {
  const [first = "", second] = key;
  const [start, rest] = [after[first], after[second ?? first]];
  if (start === undefined || rest === undefined) throw new RangeError("after is no `next` of an earlier page");
  if (second === undefined) return { filters: [[first, "gt", start]], ors: [] };
  const bounded = keyTwin === undefined ? [first] : [first, keyTwin];
  return {
    filters: bounded.map((column): Filter => [column, "gte", start]),
    ors: [`${first}.gt.${quoted(start)},and(${first}.eq.${quoted(start)},${second}.gt.${quoted(rest)})`],
  };
}
