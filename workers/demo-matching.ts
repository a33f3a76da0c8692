// The worker of the demo of matching: it waits as long as a GPU would work, longer where it has to load the model first.
// WORK_CAPABILITIES, WORK_ACCEPTS, WORK_EXCLUSIVE and WORK_YIELD_SECONDS say what it has and takes.
import { work } from "./runtime/work.ts";

const loadMs = 200;
const jobMs = 150;

function waiting(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

let inMemory: string | null = null;

await work(
  "generate",
  async ({ payload }) => {
    const { model } = payload as { model: string | null };
    if (model !== null && model !== inMemory) await waiting(loadMs);
    inMemory = model ?? inMemory;
    await waiting(jobMs);
  },
  { warm: () => (inMemory === null ? [] : [inMemory]), idleMinSeconds: 0.05, idleMaxSeconds: 0.2 },
);
