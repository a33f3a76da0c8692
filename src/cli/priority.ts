import { parseArgs } from "node:util";
import { actorFrom, actorHelp, actorOption } from "./actor.ts";
import { claimsInWords, filterHelp, fittingClaims, inPages, openStatuses } from "./by-hand.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";
import { whereOption } from "./where.ts";

export const priority: Command = {
  name: "priority",
  summary: "give items a priority; their open claims move at once, except those of a workflow",
  options: [
    "N                  a whole number, the largest is claimed first; one below zero comes last, after --",
    "ITEM ...           these items",
    ...filterHelp,
    actorHelp,
    "--json             print the count as JSON",
  ],
  example: "work-claims priority 10 --where labels.customer=acme --yes",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        ...projectOptions,
        ...whereOption,
        ...actorOption,
        yes: { type: "boolean" },
        json: { type: "boolean" },
      },
    });
    const [wanted = "", ...named] = positionals;
    if (!/^-?\d{1,7}$/.test(wanted))
      throw new WrongUsage(`the priority is ${wanted || "missing"}; a whole number was expected`);
    if ((values.where === undefined) === (named.length === 0))
      throw new WrongUsage("which items? Give their ids, or --where");
    const client = await projectClient(values, actorFrom(values));
    let itemIds: readonly string[] = named;
    if (values.where !== undefined) {
      const fitting = await fittingClaims(client, values.where, undefined, openStatuses);
      itemIds = [...new Set(fitting.map(({ item_id }) => item_id))];
      if (!values.yes) {
        const line = `${claimsInWords(fitting.length)} of ${itemIds.length} items fit; nothing is done yet, --yes changes them`;
        console.log(values.json ? JSON.stringify({ fit: fitting.length }) : line);
        return exitCode.fine;
      }
      if (!values.json) console.log(`${claimsInWords(fitting.length)} of ${itemIds.length} items fit`);
    }
    const changed = await inPages(itemIds, (page) => client.setPriority(page, Number(wanted)));
    console.log(values.json ? JSON.stringify({ changed }) : `${changed} ${changed === 1 ? "item" : "items"} changed`);
    return exitCode.fine;
  },
};
