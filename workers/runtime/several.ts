// A work type may have several claims an item: those after the first are of the work types NAME#2, NAME#3, ….

/** The name that the work type was declared with. */
export function firstName(workType: string): string {
  return workType.replace(/#[0-9]+$/, "");
}

/** Which of the claims of its item a claim of this work type is, from 1. */
export function numberOf(workType: string): number {
  return Number(/#([0-9]+)$/.exec(workType)?.[1] ?? 1);
}
