import { parseArgs } from "node:util";
import { RequestError } from "../../workers/runtime/errors.ts";
import type { Json } from "../answers.ts";
import type { WorkClient } from "../client.ts";
import type { Page, PageOptions } from "../select/lists.ts";
import { parseSelector, SelectorError } from "../select/parse.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { printable } from "./printable.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";
import { table } from "./table.ts";

/** A screenful; more where it is asked for. */
const shownByDefault = 50;

type Cell = string | number | null;

export type Listing<Row> = Pick<Command, "name" | "summary" | "example"> & {
  /** One of its rows, for the note that there are none: "item". */
  row: string;
  /** The names that a selector may have, for --help. */
  names: readonly string[];
  head: readonly string[];
  cells(row: Row): Cell[];
  /** A page for a selector; the database says whether it is one. */
  page(client: WorkClient, selector: object, options: PageOptions, isWhole: boolean): Promise<Page<Row>>;
  /** What --whole brings along, if anything: "payload". */
  whole?: string;
};

/** The command that lists rows of one kind. */
export function listCommand<Row>(listing: Listing<Row>): Command {
  return {
    name: listing.name,
    summary: listing.summary,
    options: [
      "SELECTOR   conditions with commas between them: name=value, != < <= > >=, name=a|b for any of several,",
      "           name alone where it has one, !name where it has none; in quotes, for the shell",
      ...listing.names.map((line, index) => `${index === 0 ? "           names: " : "           "}${line}`),
      `--limit N  at most so many (${shownByDefault})`,
      "--all      all of them",
      ...(listing.whole ? [`${`--${listing.whole}`.padEnd(9)}  with the ${listing.whole} of each, in --json`] : []),
      "--json     one JSON line a row",
    ],
    example: listing.example,
    run: (args) => runList(args, listing),
  };
}

async function runList<Row>(args: string[], listing: Listing<Row>): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      ...projectOptions,
      limit: { type: "string" },
      all: { type: "boolean" },
      json: { type: "boolean" },
      ...(listing.whole ? { [listing.whole]: { type: "boolean" } as const } : {}),
    },
  });
  const given: { [option: string]: string | boolean | undefined } = values;
  const [text = "", ...more] = positionals;
  if (more.length > 0) throw new WrongUsage("one selector was expected; put it in quotes");
  const isWhole = listing.whole !== undefined && given[listing.whole] === true;
  if (isWhole && !values.json) throw new WrongUsage(`--${listing.whole} goes with --json`);
  const limit = limitOf(values.limit, values.all);
  const selector = selectorOf(text);
  const client = await projectClient(values);
  const shown: Row[] = [];
  let count = 0;
  let after: Json = null;
  do {
    // One row more than is shown tells that there are more.
    const page: Page<Row> = await pageOf(() =>
      listing.page(client, selector, { after, limit: Math.min(isWhole ? 100 : 1000, limit + 1 - count) }, isWhole),
    );
    const rows = page.rows.slice(0, limit - count);
    count += page.rows.length;
    after = page.next;
    if (values.json) for (const row of rows) console.log(jsonLine(row));
    else shown.push(...rows);
  } while (after !== null && count < limit);
  if (!values.json) {
    console.log(
      shown.length === 0
        ? `no ${listing.row}${text === "" ? "s" : ` fits ${printable(text)}`}`
        : table(listing.head, shown.map(listing.cells)),
    );
  }
  if (count > limit || after !== null) {
    const are = count > limit ? "are" : "may be";
    console.error(`there ${are} more: --limit ${limit * 10} shows more of them, --all all`);
  }
  return exitCode.fine;
}

/** What the database finds wrong with a selector was typed wrongly. */
async function pageOf<Row>(fetch: () => Promise<Page<Row>>): Promise<Page<Row>> {
  try {
    return await fetch();
  } catch (error) {
    throw error instanceof RequestError && error.code === "PT400" ? new WrongUsage(error.message) : error;
  }
}

function limitOf(given: string | undefined, isAll: boolean | undefined): number {
  if (given !== undefined && isAll) throw new WrongUsage("give --limit or --all, not both");
  if (given !== undefined && !/^[1-9]\d{0,8}$/.test(given)) {
    throw new WrongUsage(`--limit is ${given}; a whole number from 1 was expected`);
  }
  return isAll ? Number.POSITIVE_INFINITY : Number(given ?? shownByDefault);
}

function selectorOf(text: string): object {
  try {
    return parseSelector(text);
  } catch (error) {
    throw error instanceof SelectorError ? new WrongUsage(error.message) : error;
  }
}

/** JSON's own escapes leave some control characters as they are; the line means the same with them spelled out. */
function jsonLine(row: unknown): string {
  return printable(JSON.stringify(row));
}

/** Small objects as `name=value, …`. */
export function inWords(properties: object): string | null {
  const words = Object.entries(properties).map(([name, value]) =>
    typeof value === "string" ? `${name}=${value}` : `${name}=${JSON.stringify(value)}`,
  );
  return words.length === 0 ? null : words.join(", ");
}
