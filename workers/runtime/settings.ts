import type { Clock } from "./clock.ts";
import { env, hostname, inOneLine, processId, randomUuid, requiredEnv } from "./host.ts";

/** Each option, where it is not given, is read from the environment variable named beside it. */
export interface WorkOptions {
  /** The project's address: SUPABASE_URL. */
  url?: string;
  /** A service_role or secret key: SUPABASE_SERVICE_ROLE_KEY. */
  key?: string;
  /** Claim by candidates from this pool: WORK_POOL. Without it the database picks among the declared work types. */
  pool?: string;
  /** How many handlers run at once: WORK_CONCURRENCY, else 1. */
  concurrency?: number;
  /** How many claims are held at most, and asked for in one call: WORK_BATCH, else the concurrency. More lets the next wait ready. */
  batch?: number;
  /** How long the database waits for a sign of life: WORK_LEASE_SECONDS, else what the work type says. */
  leaseSeconds?: number;
  /** Unlike any other worker's: WORK_ID, else made of host, process and chance. */
  workerId?: string;
  /** How long what is running may go on after a stop: WORK_GRACE_SECONDS, else 20. */
  graceSeconds?: number;
  /** Return when nothing is left to claim, to retry soon or to take over: WORK_UNTIL_EMPTY. */
  untilEmpty?: boolean;
  /** Return after so many claims. */
  maxClaims?: number;
  /** How long to wait before looking again when there was no work; it doubles from one to the other. */
  idleMinSeconds?: number;
  idleMaxSeconds?: number;
  /** Stops the worker as SIGTERM does. */
  signal?: AbortSignal;
  /** Whether SIGINT and SIGTERM stop this worker; true unless said otherwise. */
  handleSignals?: boolean;
  /** One line each; standard error unless said otherwise. */
  log?: (line: string) => void;
  fetch?: typeof globalThis.fetch;
  clock?: Clock;
  random?: () => number;
}

export interface Settings {
  url: string;
  key: string;
  /** What address and key are called where they were set. */
  called: { url: string; key: string };
  workTypes: string[];
  pool: string | null;
  concurrency: number;
  batch: number;
  leaseSeconds: number | null;
  workerId: string;
  graceMs: number;
  untilEmpty: boolean;
  maxClaims: number;
  idleMinMs: number;
  idleMaxMs: number;
}

export function settle(workType: string | readonly string[], options: WorkOptions): Settings {
  const workTypes = [...new Set(typeof workType === "string" ? [workType] : workType)];
  if (workTypes.length === 0) {
    throw inOneLine(new Error("no work type was given; expected is one, or a list of them"));
  }
  const url = options.url ?? requiredEnv("SUPABASE_URL");
  const key = options.key ?? requiredEnv("SUPABASE_SERVICE_ROLE_KEY");
  for (const name of workTypes) {
    named("a work type", name);
  }
  const concurrency = whole("concurrency", options.concurrency, "WORK_CONCURRENCY", 1, 1000) ?? 1;
  const idleMinMs = (options.idleMinSeconds ?? 0.2) * 1000;
  const pool = options.pool ?? env("WORK_POOL") ?? null;
  return {
    url,
    key,
    called: {
      url: options.url === undefined ? "SUPABASE_URL" : "the option url",
      key: options.key === undefined ? "SUPABASE_SERVICE_ROLE_KEY" : "the option key",
    },
    workTypes,
    pool,
    concurrency,
    batch: whole("batch", options.batch, "WORK_BATCH", 1, 1000) ?? concurrency,
    leaseSeconds: whole("leaseSeconds", options.leaseSeconds, "WORK_LEASE_SECONDS", 1, 86_400) ?? null,
    workerId: named("the worker id", options.workerId ?? env("WORK_ID") ?? uniqueWorkerId()),
    graceMs: (whole("graceSeconds", options.graceSeconds, "WORK_GRACE_SECONDS", 0, 86_400) ?? 20) * 1000,
    untilEmpty: options.untilEmpty ?? flag("WORK_UNTIL_EMPTY"),
    maxClaims: options.maxClaims ?? Number.POSITIVE_INFINITY,
    idleMinMs,
    idleMaxMs: Math.max(idleMinMs, (options.idleMaxSeconds ?? 5) * 1000),
  };
}

/** The work types that WORK_TYPE names, separated by commas. */
export function workTypesFromEnv(): string[] {
  return requiredEnv("WORK_TYPE")
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

/** Host and process are for the person who reads it, the random part makes it unique. */
function uniqueWorkerId(): string {
  return `${hostname().slice(0, 100)}-${processId()}-${randomUuid().slice(0, 8)}`;
}

function whole(
  option: string,
  given: number | undefined,
  variable: string,
  least: number,
  most: number,
): number | undefined {
  const text = given === undefined ? env(variable) : String(given);
  if (text === undefined) {
    return undefined;
  }
  const number = Number(text);
  if (!Number.isInteger(number) || number < least || number > most) {
    const name = given === undefined ? variable : option;
    throw inOneLine(new Error(`${name} is ${text.slice(0, 60)}; a whole number from ${least} to ${most} was expected`));
  }
  return number;
}

function flag(variable: string): boolean {
  const text = env(variable)?.toLowerCase();
  if (text === undefined || ["0", "false", "no"].includes(text)) {
    return false;
  }
  if (["1", "true", "yes"].includes(text)) {
    return true;
  }
  throw inOneLine(new Error(`${variable} is ${text.slice(0, 60)}; 1 or 0 was expected`));
}

function named(what: string, name: string): string {
  if (name.length < 1 || name.length > 200) {
    throw inOneLine(new Error(`${what} has ${name.length} characters; 1 to 200 were expected`));
  }
  return name;
}
