import { actorHelp } from "./actor.ts";
import { filterHelp, openStatuses, runByHand } from "./by-hand.ts";
import type { Command } from "./command.ts";

export const cancel: Command = {
  name: "cancel",
  summary: "cancel open claims; a worker that runs one stops it at its next heartbeat",
  options: [
    "TYPE               the work type",
    "ITEM ...           these items",
    "--all              every open claim of the type",
    ...filterHelp,
    actorHelp,
    "--json             print the count as JSON",
  ],
  example: "work-claims cancel embed --all",
  run: (args) =>
    runByHand(args, {
      does: "cancels",
      done: "cancelled",
      needsAll: true,
      statuses: openStatuses,
      step: (client, workType, { itemIds, maxItems }) => client.cancelItems(workType, { itemIds, maxItems }),
    }),
};
