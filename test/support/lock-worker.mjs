// A worker whose handler needs the lock that LOCK names, and writes to the file NOTES when it has it and when it ends.
import { appendFileSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { runAsProgram, work } from "../../dist/workers/runtime/work.js";

const { LOCK, NOTES, HOLD_MS, THROWS, TOGETHER } = process.env;
const note = (what, fence) => appendFileSync(NOTES, `${what} ${fence} ${process.pid}\n`);
/** So many handlers have begun as shall have the lock together. */
const areTogether = () => TOGETHER && readFileSync(NOTES, "utf8").match(/^begin/gm).length >= Number(TOGETHER);

async function handler(claim, { lock }) {
  return lock(LOCK, { slots: 2, perItem: process.env.PER_ITEM === "1" }, async (fence) => {
    note("begin", fence);
    for (const end = Date.now() + Number(HOLD_MS); Date.now() < end && !areTogether(); ) {
      await sleep(20);
    }
    note("end", fence);
    if (THROWS === "1" && claim.failures === 0) {
      throw new Error("it failed with the lock");
    }
    return fence;
  });
}

await runAsProgram(() => work("lock", handler));
