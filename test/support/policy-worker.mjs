// A worker for trail-processes.test.ts: it fails for good where the payload says so, and answers which claim it had.
import { FinalError, runAsProgram, work, workTypesFromEnv } from "../../dist/workers/runtime/work.js";

await runAsProgram(() =>
  work(workTypesFromEnv(), (claim, { signal }) => {
    if (claim.payload.fails) {
      throw new FinalError("no such voice");
    }
    if (!claim.payload.ms) {
      return { number: claim.number };
    }
    return new Promise((resolve, reject) => {
      setTimeout(resolve, claim.payload.ms);
      signal.addEventListener("abort", () => reject(signal.reason));
    });
  }),
);
