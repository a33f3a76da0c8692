import type { EnrollStep } from "./answers.ts";

/** Calls enroll_pool() until it is done; `report` gets the totals after each call. */
export async function enrollAll(
  step: () => Promise<EnrollStep>,
  report: (mirrored: number, enrolled: number) => void,
): Promise<void> {
  let mirrored = 0;
  let enrolled = 0;
  for (;;) {
    const taken = await step();
    mirrored += taken.mirrored;
    enrolled += taken.enrolled;
    report(mirrored, enrolled);
    if (taken.done) return;
  }
}
