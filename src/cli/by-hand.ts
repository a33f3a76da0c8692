import { parseArgs } from "node:util";
import type { ClaimStatus } from "../answers.ts";
import type { WorkClient } from "../client.ts";
import { actorFrom, actorOption } from "./actor.ts";
import { exitCode, WrongUsage } from "./command.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";
import { asked, parseWhere, whereHelp, whereOption } from "./where.ts";

/** The most ids that an RPC takes, and the step of "all": a call holds no lock for long. */
const perCall = 1000;

export const openStatuses: readonly ClaimStatus[] = ["blocked", "waiting", "ready", "claimed"];

/** The lines on --where for --help. */
export const filterHelp: readonly string[] = [
  ...whereHelp,
  "                   the names are those of: work-claims claims --help",
  "--yes              do it to the claims that fit; without it, their number is told",
];

/** The claims that fit the conditions. Without a condition on status these are of the given ones. */
export async function fittingClaims(
  client: WorkClient,
  conditions: readonly string[],
  workType: string | undefined,
  unlessSaid: readonly ClaimStatus[],
): Promise<{ item_id: string; work_type: string }[]> {
  const selector = parseWhere(
    workType === undefined ? conditions : [...conditions, `work_type=${JSON.stringify(workType)}`],
  );
  const fitting: { item_id: string; work_type: string }[] = [];
  await asked(async () => {
    for await (const { item_id, work_type } of client.eachClaim({ status: { in: unlessSaid }, ...selector })) {
      fitting.push({ item_id, work_type });
    }
  });
  return fitting;
}

export function claimsInWords(count: number, workType?: string): string {
  return `${count} ${count === 1 ? "claim" : "claims"}${workType === undefined ? "" : ` of ${workType}`}`;
}

/** Calls the step with the ids in pages; answers how many it changed. */
export async function inPages(
  itemIds: readonly string[],
  step: (itemIds: readonly string[]) => Promise<number>,
): Promise<number> {
  let changed = 0;
  for (let start = 0; start < itemIds.length; start += perCall) {
    changed += await step(itemIds.slice(start, start + perCall));
  }
  return changed;
}

type ByHand = {
  /** For the line before: "--yes cancels them". */
  does: string;
  /** For the line at the end: "3 claims of embed retried". */
  done: string;
  needsAll: boolean;
  statuses: readonly ClaimStatus[];
  step(client: WorkClient, workType: string, chosen: Chosen): Promise<number>;
  /** There is no call for all of a work type: --all reads the list. */
  isListed?: boolean;
};

/** Claims to change: these, or the next of the work type. */
type Chosen = { itemIds: readonly string[] | null; maxItems: number; reason: string | undefined };

/** The body of `retry` and `cancel`: a type with ids or all of it, or the claims that fit a filter. */
export async function runByHand(args: string[], hand: ByHand): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      ...projectOptions,
      ...whereOption,
      ...actorOption,
      all: { type: "boolean" },
      reason: { type: "string" },
      yes: { type: "boolean" },
      json: { type: "boolean" },
    },
  });
  const [workType, ...itemIds] = positionals;
  const actor = actorFrom(values);
  const tell = (name: string, count: number, line: string): number => {
    console.log(values.json ? JSON.stringify({ [name]: count }) : line);
    return exitCode.fine;
  };
  const { reason } = values;
  if (reason !== undefined && !hand.isListed) throw new WrongUsage("--reason goes with invalidate");
  const conditions = values.where ?? (values.all && hand.isListed && workType !== undefined ? [] : undefined);
  if (conditions !== undefined) {
    if ((values.all && values.where) || itemIds.length > 0)
      throw new WrongUsage("give --where, items or --all, and one of them only");
    const client = await projectClient(values, actor);
    const fitting = await fittingClaims(client, conditions, workType, hand.statuses);
    if (hand.isListed && workType !== undefined) {
      await client.depth(workType); // Refuses a work type that is not there, where the list is empty.
    }
    if (!values.yes) {
      return tell(
        "fit",
        fitting.length,
        `${claimsInWords(fitting.length)} fit; nothing is done yet, --yes ${hand.does} them`,
      );
    }
    if (!values.json) console.log(`${claimsInWords(fitting.length)} fit`);
    let changed = 0;
    for (const type of new Set(fitting.map((claim) => claim.work_type))) {
      const ids = fitting.filter((claim) => claim.work_type === type).map((claim) => claim.item_id);
      changed += await inPages(ids, (page) => hand.step(client, type, { itemIds: page, maxItems: perCall, reason }));
    }
    return tell(hand.done, changed, `${claimsInWords(changed)} ${hand.done}`);
  }
  if (workType === undefined) throw new WrongUsage("a work type was expected, or --where");
  if (values.all && itemIds.length > 0) throw new WrongUsage("give items or --all, not both");
  if (hand.needsAll && !values.all && itemIds.length === 0) {
    throw new WrongUsage(
      `which items? Give their ids, --where, or --all for every ${hand.isListed ? "done" : "open"} claim of ${workType}`,
    );
  }
  const client = await projectClient(values, actor);
  let changed = await inPages(itemIds, (page) =>
    hand.step(client, workType, { itemIds: page, maxItems: perCall, reason }),
  );
  for (let more = itemIds.length > 0 ? 0 : perCall; more > 0; changed += more) {
    more = await hand.step(client, workType, { itemIds: null, maxItems: perCall, reason });
  }
  return tell(hand.done, changed, `${claimsInWords(changed, workType)} ${hand.done}`);
}
