// A loop for loops.test.ts, on Node and Deno. An item says what happens to it.
import { claims } from "../../dist/workers/runtime/work.js";

const options = JSON.parse(process.env.LOOP_OPTIONS ?? "{}");
for await (const claim of claims(process.env.LOOP_TYPE, options)) {
  if (claim.payload.hangs) {
    await new Promise((_, reject) => claim.signal.addEventListener("abort", () => reject(claim.signal.reason)));
  }
  if (claim.payload.throws) {
    throw new Error("the body threw");
  }
  await new Promise((resolve) => setTimeout(resolve, claim.payload.ms ?? 0));
}
console.log("all done");
