// The worker that the printed files start. An item with `hold` runs until the file of that name exists.
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { runAsProgram } from "../../dist/workers/runtime/program.js";
import { work, workTypesFromEnv } from "../../dist/workers/runtime/work.js";

await runAsProgram(() =>
  work(workTypesFromEnv(), async (claim, { signal }) => {
    while (claim.payload.hold && !existsSync(claim.payload.hold)) {
      await sleep(50, undefined, { signal });
    }
    const { CUDA_VISIBLE_DEVICES: gpu, SLURM_ARRAY_TASK_ID: task } = process.env;
    return { gpu, task };
  }),
);
