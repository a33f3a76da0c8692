import type { EnrollStep } from "./answers.ts";

/** Calls enroll_pool() until it is done; `told` hears of each step's running totals. */
export async function enrollAll(
  step: () => Promise<EnrollStep>,
  told: (mirrored: number, enrolled: number) => void,
): Promise<void> {
  let mirrored = 0;
  let enrolled = 0;
  for (;;) {
    const taken = await step();
    mirrored += taken.mirrored;
    enrolled += taken.enrolled;
    told(mirrored, enrolled);
    if (taken.done) return;
  }
}
