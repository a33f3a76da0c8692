import { actorHelp } from "./actor.ts";
import { filterHelp, runByHand } from "./by-hand.ts";
import type { Command } from "./command.ts";

export const retry: Command = {
  name: "retry",
  summary: "reopen failed claims with their tries reset",
  options: [
    "TYPE               the work type",
    "ITEM ...           these items, cancelled ones too; without any, all that failed",
    "--all              all that failed, said aloud",
    ...filterHelp,
    actorHelp,
    "--json             print the count as JSON",
  ],
  example: "work-claims retry embed",
  run: (args) =>
    runByHand(args, {
      does: "retries",
      done: "retried",
      needsAll: false,
      statuses: ["failed"],
      step: (client, workType, { itemIds, maxItems }) => client.retryItems(workType, { itemIds, maxItems }),
    }),
};
