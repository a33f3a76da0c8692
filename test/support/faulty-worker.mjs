// A worker for faults.test.ts: takes a moment for each item and answers with its fence, so that its effect can be traced.
import { setTimeout as sleep } from "node:timers/promises";
import { work } from "../../dist/workers/runtime/work.js";

await work("survive", async (claim, { signal }) => {
  await sleep(20 + Math.random() * 60, undefined, { signal });
  return { fence: claim.fence, worker: process.env.WORK_ID };
});
