import { parseArgs } from "node:util";
import { type Command, exitCode } from "./command.ts";
import { itemIdFrom } from "./explain.ts";
import { printable } from "./printable.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";
import { explainedLines } from "./sentences.ts";
import { storyLines } from "./story.ts";

export const history: Command = {
  name: "history",
  summary: "what happened to an item, step by step, and who did it",
  options: [
    "ITEM         the item's id",
    "--type TYPE  this work type only",
    "--json       print the steps as JSON",
    "a work type records each step where it is declared with history => 'full', else what went wrong and acts by hand",
  ],
  example: "work-claims history 3f0c9a52-7d1e-4b8a-9c55-0e6f2d1b7a44",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { ...projectOptions, type: { type: "string" }, json: { type: "boolean" } },
    });
    const itemId = itemIdFrom(positionals);
    const client = await projectClient(values);
    // It says where there is no such item, and how its claims stand.
    const item = await client.explainItem(itemId, { workType: values.type });
    const steps = await client.history(itemId, { workType: values.type });
    const told = steps.length > 0 ? storyLines(steps) : ["Nothing is recorded."];
    const lines = values.json ? [JSON.stringify(steps)] : [...told, "", ...explainedLines(item)];
    console.log(lines.map(printable).join("\n"));
    return exitCode.fine;
  },
};
