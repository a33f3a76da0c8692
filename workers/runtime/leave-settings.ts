// The settings that say when a worker leaves by itself.
import { env, SettingsError } from "./host.ts";
import { oneOf, whole, wrong } from "./variable.ts";

const clouds = ["aws", "gcp", "azure"] as const;
export type Cloud = (typeof clouds)[number];

export interface LeaveOptions {
  /** Leave after so many claims: WORK_MAX_CLAIMS. Those that go back without a try do not count. */
  maxClaims?: number;
  /** Claim no more after so long, and leave when what runs has ended: WORK_LEAVE_AFTER_SECONDS. */
  leaveAfterSeconds?: number;
  /** Leave when there was nothing to do for so long: WORK_LEAVE_IDLE_SECONDS. */
  leaveIdleSeconds?: number;
  /**
   * When the process will be killed, in seconds since 1970. The worker claims no more when less is left than an item
   * usually takes, and hands back in time. With WORK_UNTIL=time: WORK_END_TIME, else SLURM_JOB_END_TIME.
   */
  endTime?: number;
  /** Leave on a notice that this cloud takes the machine back: WORK_SPOT, as aws, gcp or azure. */
  spot?: Cloud;
  /** The version of your worker, such as 1.4.2: WORK_VERSION. It leaves where a work type asks for a newer one. */
  version?: string;
}

export interface LeaveSettings {
  maxClaims: number;
  leaveAfterMs: number;
  leaveIdleMs: number;
  /** How long the process will live on; infinite where no end is known. */
  endsInMs: number;
  spot: Cloud | null;
  version: string | null;
}

const never = Number.POSITIVE_INFINITY;
const mostSeconds = 31_536_000; // A year: longer is a mistake of units.

export function settleLeaving(options: LeaveOptions): LeaveSettings {
  const leaveAfter = whole("leaveAfterSeconds", options.leaveAfterSeconds, "WORK_LEAVE_AFTER_SECONDS", 1, mostSeconds);
  const leaveIdle = whole("leaveIdleSeconds", options.leaveIdleSeconds, "WORK_LEAVE_IDLE_SECONDS", 1, mostSeconds);
  const endTime = settleEndTime(options.endTime);
  return {
    maxClaims: whole("maxClaims", options.maxClaims, "WORK_MAX_CLAIMS", 1, 1_000_000_000) ?? never,
    leaveAfterMs: (leaveAfter ?? never) * 1000,
    leaveIdleMs: (leaveIdle ?? never) * 1000,
    endsInMs: endTime === null ? never : endTime * 1000 - Date.now(),
    spot: oneOf("spot", options.spot, "WORK_SPOT", clouds) ?? null,
    version: settleVersion(options.version),
  };
}

/** WORK_UNTIL: leave in time, or when all is done. */
export function untilFromEnv(): "time" | "done" | undefined {
  return oneOf("", undefined, "WORK_UNTIL", ["time", "done"]);
}

function settleEndTime(given: number | undefined): number | null {
  if (given === undefined && untilFromEnv() !== "time") {
    return null;
  }
  const variable = env("WORK_END_TIME") === undefined ? "SLURM_JOB_END_TIME" : "WORK_END_TIME";
  // 2001 to 2286: milliseconds are refused.
  const endTime = whole("endTime", given, variable, 1_000_000_000, 9_999_999_999);
  if (endTime === undefined) {
    throw new SettingsError(
      "WORK_UNTIL is time and no end is known; expected was WORK_END_TIME in seconds since 1970 (under Slurm, the " +
        "script that work-claims fleet slurm prints asks for it)",
    );
  }
  return endTime;
}

function settleVersion(given: string | undefined): string | null {
  const version = given ?? env("WORK_VERSION") ?? null;
  if (version !== null && !/^\d{1,9}(\.\d{1,9}){0,3}$/.test(version)) {
    throw wrong(
      given === undefined ? "WORK_VERSION" : "version",
      version,
      "up to four numbers with points between them were expected, such as 1.4.2",
    );
  }
  return version;
}
