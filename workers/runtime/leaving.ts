import type { LeaveSettings } from "./leave-settings.ts";

/** The reason that a worker has left. */
export type Why = "empty" | "idle" | "claims" | "time" | "spot" | "version" | "signal";

/** The worker found its reason by itself. Somebody else decides what comes after a signal, a notice or an update. */
export function isOwnReason(why: Why): boolean {
  return ["empty", "idle", "claims", "time"].includes(why);
}

/** Handing back and signing off take this long at most. A worker keeps it free before a supervisor kills the process. */
export const handBackMs = 5000;

/** The worker's own share in when it leaves. Times are those of its clock. */
export interface LeaveTimes {
  readonly startedAt: number;
  /** Since when it has held nothing; null while it holds a claim. */
  readonly idleSince: number | null;
  /** How long an item usually takes; null before the first success. */
  readonly usualMs: number | null;
}

/** When a worker leaves by itself: its time is over, too little is left for a usual item, or it was idle for too long. */
export function whenToLeave(
  { leaveAfterMs, leaveIdleMs, endsInMs }: Pick<LeaveSettings, "leaveAfterMs" | "leaveIdleMs" | "endsInMs">,
  { startedAt, idleSince, usualMs }: LeaveTimes,
): { at: number; why: "time" | "idle" } {
  const timeAt = startedAt + Math.min(leaveAfterMs, endsInMs - handBackMs - (usualMs ?? 0));
  const idleAt = (idleSince ?? Number.POSITIVE_INFINITY) + leaveIdleMs;
  return idleAt < timeAt ? { at: idleAt, why: "idle" } : { at: timeAt, why: "time" };
}

/** Compares versions number by number: 1.10 is newer than 1.9. A worker that names no version counts as older. */
export function isOlder(version: string | null, minimum: string): boolean {
  if (version === null) {
    return true;
  }
  const [has, needs] = [version, minimum].map((text) => text.split(".").map(Number)) as [number[], number[]];
  const differs = needs.findIndex((number, n) => number !== (has[n] ?? 0));
  return differs !== -1 && (has[differs] ?? 0) < (needs[differs] as number);
}
