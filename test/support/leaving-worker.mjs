// A worker for leaving-processes.test.ts, on Node and Deno. An item says how long it takes; one that hangs takes no notice
// of its signal.
import { runAsProgram, work, workTypesFromEnv } from "../../dist/workers/runtime/work.js";

await runAsProgram(() =>
  work(workTypesFromEnv(), ({ payload }, { signal }) => {
    if (payload.hangs) {
      return new Promise(() => {});
    }
    return new Promise((resolve, reject) => {
      setTimeout(resolve, payload.ms);
      signal.addEventListener("abort", () => reject(signal.reason));
    });
  }),
);
