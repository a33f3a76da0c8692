import { parseArgs } from "node:util";
import type { WorkClient } from "../client.ts";
import type { Key, Page, PageOptions } from "../lists/pages.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { printable } from "./printable.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";
import { table } from "./table.ts";
import { asked, parseWhere, whereHelp, whereOption } from "./where.ts";

/** A screenful; more where it is asked for. */
const shownByDefault = 50;

type Cell = string | number | null;

type Listing<Row> = Pick<Command, "name" | "summary" | "example"> & {
  /** One of its rows, for the note that there are none: "item". */
  row: string;
  /** The names that a condition may have. */
  names: readonly string[];
  /** Orders with a name of their own. */
  orders?: Readonly<Record<string, readonly string[]>>;
  head: readonly string[];
  cells(row: Row): Cell[];
  page(client: WorkClient, selector: object, options: PageOptions, isWhole: boolean): Promise<Page<Row>>;
  /** The option for the column that may be large, if there is one: "payload". */
  whole?: string;
};

/** The command that lists rows of one kind. */
export function listCommand<Row>(listing: Listing<Row>): Command {
  const orders = Object.keys(listing.orders ?? {});
  return {
    name: listing.name,
    summary: listing.summary,
    options: [
      ...whereHelp,
      ...lines(`names: ${listing.names.join(", ")}`),
      `--order ORDER      ${[...orders, "a column"].join(", ")}, with .desc for the largest first; by key without`,
      `--limit N          at most so many (${shownByDefault})`,
      "--all              all of them",
      ...(listing.whole ? [`${`--${listing.whole}`.padEnd(17)}  with the ${listing.whole} of each, in --json`] : []),
      "--json             one JSON line a row",
    ],
    example: listing.example,
    run: (args) => runList(args, listing),
  };
}

async function runList<Row>(args: string[], listing: Listing<Row>): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      ...projectOptions,
      ...whereOption,
      order: { type: "string" },
      limit: { type: "string" },
      all: { type: "boolean" },
      json: { type: "boolean" },
      ...(listing.whole ? { [listing.whole]: { type: "boolean" } as const } : {}),
    },
  });
  const given: { [option: string]: unknown } = values;
  const isWhole = listing.whole !== undefined && given[listing.whole] === true;
  if (isWhole && !values.json) throw new WrongUsage(`--${listing.whole} goes with --json`);
  const limit = limitOf(values.limit, values.all);
  const order = values.order === undefined ? undefined : (listing.orders?.[values.order] ?? values.order.split(","));
  const selector = parseWhere(values.where ?? []);
  const client = await projectClient(values);
  const shown: Row[] = [];
  let count = 0;
  // One row more than is shown tells that there are more.
  const wanted = { order, atMost: limit + 1, isWhole };
  for await (const row of rowsOf((options) => asked(() => listing.page(client, selector, options, isWhole)), wanted)) {
    count += 1;
    if (count > limit) break;
    if (values.json) console.log(printable(JSON.stringify(row)));
    else shown.push(row);
  }
  if (!values.json) {
    const none = values.where ? `no ${listing.row} fits ${printable(values.where.join(", "))}` : `no ${listing.row}s`;
    console.log(shown.length === 0 ? none : table(listing.head, shown.map(listing.cells)));
  }
  if (count > limit) console.error(`there are more: --limit ${limit * 10} shows more of them, --all all`);
  return exitCode.fine;
}

/** Rows page by page: after a key, or with an order of their own by their number. */
async function* rowsOf<Row>(
  page: (options: PageOptions) => Promise<Page<Row>>,
  { order, atMost, isWhole }: { order: readonly string[] | undefined; atMost: number; isWhole: boolean },
): AsyncGenerator<Row, void> {
  let after: Key | null = null;
  for (let count = 0; count < atMost; ) {
    const limit = Math.min(isWhole ? 100 : 1000, atMost - count);
    const { rows, next }: Page<Row> = await page(order ? { order, offset: count, limit } : { after, limit });
    yield* rows;
    count += rows.length;
    after = next;
    if (next === null) return;
  }
}

function limitOf(given: string | undefined, isAll: boolean | undefined): number {
  if (given !== undefined && isAll) throw new WrongUsage("give --limit or --all, not both");
  if (given !== undefined && !/^[1-9]\d{0,8}$/.test(given)) {
    throw new WrongUsage(`--limit is ${given}; a whole number from 1 was expected`);
  }
  return isAll ? Number.POSITIVE_INFINITY : Number(given ?? shownByDefault);
}

/** A long text in lines for a terminal, below the option that it belongs to. */
function lines(text: string): string[] {
  return (text.match(/.{1,70}(?:\s|$)/g) ?? []).map((line) => `${" ".repeat(19)}${line.trim()}`);
}

/** The names of a list's columns as a condition has them. */
export function namesOf(columns: { readonly [column: string]: string }): string[] {
  return Object.entries(columns).map(([name, kind]) => (kind === "object" ? `${name}.NAME` : name));
}

/** Small objects as `name=value, …`. */
export function inWords(properties: object): string | null {
  const words = Object.entries(properties).map(([name, value]) =>
    typeof value === "string" ? `${name}=${value}` : `${name}=${JSON.stringify(value)}`,
  );
  return words.length === 0 ? null : words.join(", ");
}
