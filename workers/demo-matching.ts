// The worker of the demo of matching: it has a model in memory or loads one, and waits as long as a GPU would take.
// What it has and takes, it is told by WORK_CAPABILITIES, WORK_ACCEPTS, WORK_EXCLUSIVE and WORK_YIELD_SECONDS.
import { work } from "./runtime/work.ts";

type Job = { ms: number; model?: string };

/** Loading takes as long as a job or two: worth it to do those for one model in a row. */
const loadMs = 200;

function waiting(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

let inMemory: string | undefined;
// What the last claim call said: one job at a time, so it is the call that brought the job.
let warm: string[] = [];

await work(
  "generate",
  async (claim, { signal }) => {
    const { ms, model } = claim.payload as Job;
    const result = { warm, loaded: model !== undefined && model !== inMemory };
    if (result.loaded) {
      inMemory = undefined;
      await waiting(loadMs, signal);
      inMemory = model;
    }
    await waiting(ms, signal);
    return result;
  },
  {
    warm: () => {
      warm = inMemory === undefined ? [] : [inMemory];
      return warm;
    },
    idleMinSeconds: 0.05,
    idleMaxSeconds: 0.2,
  },
);
