import { actorHelp } from "./actor.ts";
import { filterHelp, runByHand } from "./by-hand.ts";
import type { Command } from "./command.ts";

export const invalidate: Command = {
  name: "invalidate",
  summary: "do done work again, with all that needs it; old results stay readable until then",
  options: [
    "TYPE               the work type",
    "ITEM ...           these items",
    "--all              all that is done of the type, by the list; to redo it in steps, raise its version",
    ...filterHelp,
    actorHelp,
    "--reason TEXT      why; it is kept with the old result",
    "--json             print the count as JSON",
  ],
  example: 'work-claims invalidate embed --where workflow=night --reason "the model was wrong" --yes',
  run: (args) =>
    runByHand(args, {
      does: "invalidates",
      done: "invalidated",
      needsAll: true,
      isListed: true,
      statuses: ["succeeded", "claimed"],
      step: (client, workType, { itemIds, reason }) => client.invalidateItems(workType, itemIds ?? [], { reason }),
    }),
};
