import type { Client } from "./client.ts";
import type { Clock } from "./clock.ts";
import { type CredentialOptions, type Credentials, credentialsFrom, hasTokenInEnv } from "./credentials.ts";
import { env, hostname, processId, programArguments, randomUuid, requiredEnv, SettingsError } from "./host.ts";
import { type LeaveOptions, type LeaveSettings, settleLeaving, untilFromEnv } from "./leave-settings.ts";
import { optionNames } from "./option-names.ts";
import type { ParkedOptions } from "./parked.ts";
import type { Profile } from "./profile.ts";
import { settleTelemetry, type TelemetryOptions, type TelemetrySettings } from "./telemetry-settings.ts";
import { flag, named, names, object, onlyKnown, seconds, whole } from "./variable.ts";

/** Each option, where it is not given, is read from the environment variable named beside it. */
export interface WorkOptions extends Profile, CredentialOptions, LeaveOptions, ParkedOptions, TelemetryOptions {
  /** The project's address: SUPABASE_URL. */
  url?: string;
  /** A connection of another kind, such as overSql() of work-claims makes it, in place of address and key. */
  client?: Client;
  /** The worker picks candidates from this pool: WORK_POOL. Without it the database picks among declared work types. */
  pool?: string;
  /**
   * Affinities that cost nothing to load, such as the model in memory: within one priority their items come first. A
   * function is called before each claim. WORK_WARM, with commas between.
   */
  warm?: readonly string[] | (() => readonly string[]);
  /** How many handlers run at once: WORK_CONCURRENCY, else 1. */
  concurrency?: number;
  /**
   * How many items are claimed in one call: WORK_BATCH. Those that no handler is free for are queued, and held. Without
   * it the number follows the handlers: as many as they do in a round trip and half a second, at most 100.
   */
  batch?: number;
  /** The silence after which other workers may claim an item: WORK_LEASE_SECONDS, else the lease of the work type. */
  leaseSeconds?: number;
  /** Different from every other worker's: WORK_ID, else host, process and a random part. A token's name goes before it. */
  workerId?: string;
  /** How long handlers may go on after a stop: WORK_GRACE_SECONDS, else 20. */
  graceSeconds?: number;
  /**
   * Return when nothing is left to claim, to retry soon or to take over: WORK_UNTIL_EMPTY. With "ready" it returns when
   * nothing can be claimed, whatever others hold or is to be tried again.
   */
  untilEmpty?: boolean | "ready";
  /**
   * Return when nothing of the work types is open: also what is due later, parked, or waits for other work keeps the
   * worker. WORK_UNTIL=done. It counts before untilEmpty.
   */
  untilDone?: boolean;
  /**
   * An idle worker waits a tenth of the time since it last saw work before it looks again: at least this minimum
   * (0.2 s), at most this maximum (WORK_IDLE_SECONDS, else 15 s).
   */
  idleMinSeconds?: number;
  idleMaxSeconds?: number;
  /** Stops the worker as SIGTERM does. */
  signal?: AbortSignal;
  /** Whether SIGINT and SIGTERM stop this worker; true unless said otherwise. */
  handleSignals?: boolean;
  /** One line each; standard error unless said otherwise. */
  log?: (line: string) => void;
  /** Log only what went wrong. */
  quiet?: boolean;
  fetch?: typeof globalThis.fetch;
  clock?: Clock;
  random?: () => number;
}

export interface Settings extends Credentials, LeaveSettings, TelemetrySettings {
  url: string;
  /** The names of address, key and token where they were set. */
  called: Credentials["called"] & { url: string };
  /** Empty with a token where the caller leaves them to it. */
  workTypes: string[];
  pool: string | null;
  profile: Profile;
  warm: () => readonly string[];
  concurrency: number;
  /** Null: it follows the handlers. */
  batch: number | null;
  leaseSeconds: number | null;
  workerId: string;
  graceMs: number;
  /** When the worker leaves for want of work. */
  leaves: "never" | "ready" | "empty" | "done";
  idleMinMs: number;
  idleMaxMs: number;
  poll: ParkedOptions["poll"];
  abandon: ParkedOptions["abandon"];
  pollSeconds: number;
}

/** A given client has its own. */
const noCredentials: Credentials = { key: "", token: null, called: { key: "", token: "" } };

export function settle(workType: string | readonly string[], options: WorkOptions): Settings {
  onlyKnown("a worker", options, optionNames);
  const workTypes = [...new Set(typeof workType === "string" ? [workType] : workType)];
  const url = options.client ? "" : (options.url ?? requiredEnv("SUPABASE_URL"));
  const credentials = options.client ? noCredentials : credentialsFrom(options);
  if (workTypes.length === 0 && credentials.token === null) {
    throw new SettingsError("no work type was given; expected is one, or a list of them");
  }
  for (const name of workTypes) {
    named("a work type", name);
  }
  const concurrency = whole("concurrency", options.concurrency, "WORK_CONCURRENCY", 1, 1000) ?? 1;
  const idleMinMs = (seconds("idleMinSeconds", options.idleMinSeconds, 0.01, 3600) ?? 0.2) * 1000;
  const idleMaxSeconds =
    seconds("idleMaxSeconds", options.idleMaxSeconds, 0.01, 3600) ??
    whole("", undefined, "WORK_IDLE_SECONDS", 1, 3600) ??
    15;
  const pool = options.pool ?? env("WORK_POOL") ?? null;
  const given = options.warm ?? names("WORK_WARM") ?? [];
  const warm = typeof given === "function" ? given : (): readonly string[] => given;
  if (pool !== null && (typeof given === "function" || given.length > 0)) {
    // A worker that picks candidates goes through the pool in the pool's order.
    throw new SettingsError(
      "warm is given and a pool too; it works where the database picks what is next: leave out the pool (WORK_POOL)",
    );
  }
  if (pool !== null && credentials.token !== null) {
    throw new SettingsError(
      "a token is given and a pool too; a token opens no table to pick candidates from: leave out the pool (WORK_POOL)",
    );
  }
  return {
    ...credentials,
    url,
    called: { ...credentials.called, url: options.url === undefined ? "SUPABASE_URL" : "the option url" },
    workTypes,
    pool,
    profile: profileFrom(options),
    warm,
    concurrency,
    batch: whole("batch", options.batch, "WORK_BATCH", 1, 1000) ?? null,
    leaseSeconds: whole("leaseSeconds", options.leaseSeconds, "WORK_LEASE_SECONDS", 1, 86_400) ?? null,
    workerId: named("the worker id", options.workerId ?? env("WORK_ID") ?? uniqueWorkerId()),
    graceMs: (whole("graceSeconds", options.graceSeconds, "WORK_GRACE_SECONDS", 0, 86_400) ?? 20) * 1000,
    leaves: settleUntil(options),
    ...settleTelemetry(options),
    ...settleLeaving(options),
    idleMinMs,
    idleMaxMs: Math.max(idleMinMs, idleMaxSeconds * 1000),
    poll: options.poll,
    abandon: options.abandon,
    pollSeconds: whole("pollSeconds", options.pollSeconds, "WORK_POLL_SECONDS", 1, 86_400) ?? 30,
  };
}

function settleUntil(options: WorkOptions): Settings["leaves"] {
  if (options.untilDone ?? untilFromEnv() === "done") {
    return "done";
  }
  const untilEmpty = options.untilEmpty ?? flag("WORK_UNTIL_EMPTY");
  return untilEmpty === "ready" ? "ready" : untilEmpty ? "empty" : "never";
}

/** The options that a program was started with: --until-done, --until-empty. */
export function optionsFromArguments(): Pick<WorkOptions, "untilDone" | "untilEmpty"> {
  const given = programArguments();
  const wrong = given.find((each) => each !== "--until-done" && each !== "--until-empty");
  if (wrong !== undefined) {
    throw new SettingsError(`${wrong.slice(0, 60)} is no option; --until-done or --until-empty was expected`);
  }
  return {
    ...(given.includes("--until-done") && { untilDone: true }),
    ...(given.includes("--until-empty") && { untilEmpty: true }),
  };
}

/** The work types that WORK_TYPE names, separated by commas. A worker with a token may leave them to it. */
export function workTypesFromEnv(): string[] {
  if (!hasTokenInEnv()) {
    requiredEnv("WORK_TYPE");
  }
  return names("WORK_TYPE") ?? [];
}

/**
 * Job, host and process are for the person who reads it, the random part makes it unique. With a token it follows the
 * token's name, which allows 100 of these characters.
 */
function uniqueWorkerId(): string {
  const place = [jobName(), hostname()].filter((part) => part !== undefined).join("-");
  const readable = place.replace(/[^A-Za-z0-9._-]/g, "_").slice(0, 80);
  return `${readable}-${processId()}-${randomUuid().slice(0, 8)}`;
}

/** The name by which a Slurm array, a Slurm job, RunPod or Vast.ai knows this worker. A pod's name is its host's name. */
function jobName(): string | undefined {
  const array = env("SLURM_ARRAY_JOB_ID");
  const names = {
    slurm: array ? `${array}_${env("SLURM_ARRAY_TASK_ID")}` : env("SLURM_JOB_ID"),
    runpod: env("RUNPOD_POD_ID"),
    vast: env("VAST_CONTAINERLABEL"),
  };
  const known = Object.entries(names).find(([, name]) => name !== undefined);
  return known?.join("-");
}

function profileFrom(options: WorkOptions): Profile {
  const capabilities = object("capabilities", options.capabilities, "WORK_CAPABILITIES", '{"gpu": "a100"}');
  const accepts = object("accepts", options.accepts, "WORK_ACCEPTS", '{"customer": "acme"}');
  const exclusive = options.exclusive ?? names("WORK_EXCLUSIVE");
  const yieldSeconds = whole("yieldSeconds", options.yieldSeconds, "WORK_YIELD_SECONDS", 1, 604_800);
  return {
    ...(capabilities && { capabilities }),
    ...(accepts && { accepts }),
    ...(exclusive && { exclusive }),
    ...(yieldSeconds !== undefined && { yieldSeconds }),
  };
}
