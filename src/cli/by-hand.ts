import { parseArgs } from "node:util";
import type { WorkClient } from "../client.ts";
import { exitCode, WrongUsage } from "./command.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";

/** One call's worth: what the RPCs take at most of ids, and a step of "all" that locks nothing for long. */
const perCall = 1000;

export type ByHand = {
  /** For the line at the end: "3 claims of embed retried". */
  done: string;
  needsAll: boolean;
  step(client: WorkClient, workType: string, itemIds: string[] | null, maxItems: number): Promise<number>;
};

/** Calls the step for the items in pages, or for all of them until nothing is left; answers how many it changed. */
export async function inPages(
  itemIds: readonly string[],
  step: (itemIds: string[] | null) => Promise<number>,
): Promise<number> {
  let changed = 0;
  for (let start = 0; start < itemIds.length; start += perCall) {
    changed += await step(itemIds.slice(start, start + perCall));
  }
  if (itemIds.length > 0) return changed;
  for (;;) {
    const more = await step(null);
    changed += more;
    if (more < perCall) return changed;
  }
}

/** The body of `retry` and `cancel`: a type, ids or all, and how many it was. */
export async function runByHand(args: string[], { done, needsAll, step }: ByHand): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...projectOptions, all: { type: "boolean" }, json: { type: "boolean" } },
  });
  const [workType, ...itemIds] = positionals;
  if (workType === undefined) throw new WrongUsage("a work type was expected");
  if (values.all && itemIds.length > 0) throw new WrongUsage("give items or --all, not both");
  if (needsAll && !values.all && itemIds.length === 0) {
    throw new WrongUsage(`which items? Give their ids, or --all for every open claim of ${workType}`);
  }
  const client = await projectClient(values);
  const changed = await inPages(itemIds, (page) => step(client, workType, page, perCall));
  console.log(
    values.json
      ? JSON.stringify({ [done]: changed })
      : `${changed} ${changed === 1 ? "claim" : "claims"} of ${workType} ${done}`,
  );
  return exitCode.fine;
}
