import { parseArgs } from "node:util";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { printable } from "./printable.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";
import { explainedLines } from "./sentences.ts";

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export const explain: Command = {
  name: "explain",
  summary: "why an item is not running, or how it ended",
  options: ["ITEM         the item's id", "--type TYPE  this work type only", "--json       print JSON"],
  example: "work-claims explain 3f0c9a52-7d1e-4b8a-9c55-0e6f2d1b7a44 --type embed",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { ...projectOptions, type: { type: "string" }, json: { type: "boolean" } },
    });
    const itemId = itemIdFrom(positionals);
    const client = await projectClient(values);
    const answer = await client.explainItem(itemId, { workType: values.type });
    const lines = values.json ? [JSON.stringify(answer)] : explainedLines(answer);
    console.log(lines.map(printable).join("\n"));
    return exitCode.fine;
  },
};

/** The one item that was named. */
export function itemIdFrom([itemId, ...more]: readonly string[]): string {
  if (itemId === undefined || more.length > 0) throw new WrongUsage("one item was expected, by its id");
  if (!uuid.test(itemId)) {
    throw new WrongUsage(`${itemId} is no item's id; a uuid was expected, such as work-claims items lists them`);
  }
  return itemId;
}
