import type { Json } from "./client.ts";
import type { Reference } from "./new-item.ts";

/** The end of a claim, as release_items() takes it. */
export interface Outcome {
  readonly item_id: string;
  readonly work_type: string;
  readonly fence: number;
  readonly outcome: "succeeded" | "failed" | "released" | "snoozed" | "parked";
  readonly result?: Json;
  readonly error?: string;
  readonly final?: boolean;
  readonly retry_after_seconds?: number;
  /** How long a snoozed claim waits, and a parked one for its job. */
  readonly seconds?: number;
  readonly note?: string;
  readonly external_id?: string;
  /** For the next try. */
  readonly state?: Json;
  /** Added in the transaction that takes the outcome. */
  readonly items?: readonly Json[];
  /** A snoozed claim waits for these. */
  readonly needs?: readonly Json[];
}

/** The columns that name a claim or its outcome. */
interface Key {
  readonly item_id: string;
  readonly work_type: string;
  readonly fence: number;
}

/** Thrown by a handler: this item fails for good, with no more tries. */
export class FinalError extends Error {
  readonly isFinal = true;
}

/** Thrown by a handler: this try failed, and the next one should not come before so many seconds. */
export class RetryAfter extends Error {
  readonly retryAfterSeconds: number;

  constructor(seconds: number, message = `the handler asked for a retry after ${seconds} s`) {
    super(message);
    this.retryAfterSeconds = seconds;
  }
}

/** Thrown by a handler: the claim goes back for so many seconds, and no try is counted. */
export class Later extends Error {
  readonly laterSeconds: number;

  constructor(seconds: number, note = "") {
    super(note);
    this.laterSeconds = seconds;
  }
}

/**
 * Thrown by a handler: the claim goes back until these items are done, and no try is counted. Then the handler runs again,
 * with their results as claim.needs. enqueue() answers references to new items.
 */
export class WaitFor extends Error {
  readonly waitsFor: readonly Reference[];

  constructor(needs: Reference[], note = "") {
    super(note);
    this.waitsFor = needs;
  }
}

/** Thrown by a handler: the claim goes back at once, and no try is counted. */
export class HandBack extends Error {
  readonly isHandedBack = true;
}

/** A handler's answer where a job elsewhere does the work: see parked(). */
export interface Parked {
  readonly parkedAs: string;
  readonly seconds: number;
}

/**
 * Returned by a handler that has handed the work to a job elsewhere. The claim is kept without a process for so many
 * seconds, at most 7 days; release_parked() closes it by the job's id.
 */
export function parked(externalId: string, seconds: number): Parked {
  return { parkedAs: externalId, seconds };
}

/** A claim keeps a result of 1 MB and an error of 8,000 characters. */
const resultLimit = 1_048_576;
const errorLimit = 8000;
/** NUL and half a surrogate pair, as JSON.stringify writes them; behind a backslash of its own it is just text. */
const unstorable = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/;
/** The most that release_items() takes as retry_after_seconds: 30 days. */
const retryAfterLimit = 2_592_000;

export function released(claim: Key): Outcome {
  return { ...keyOf(claim), outcome: "released" };
}

/** A handler's answer: its result, or that the work is done elsewhere. */
export function returned(claim: Key, answer: unknown): Outcome {
  const { parkedAs, seconds } = marksOf(answer);
  return parkedAs === undefined
    ? succeeded(claim, answer)
    : { ...keyOf(claim), outcome: "parked", external_id: parkedAs as string, seconds: seconds as number };
}

/** A handler's result. One that cannot be stored becomes a failure that says why. */
export function succeeded(claim: Key, result: unknown): Outcome {
  try {
    const json = storedJson("the handler's result", result, resultLimit, "return where it is");
    return { ...keyOf(claim), outcome: "succeeded", result: json ?? null };
  } catch (error) {
    return failed(claim, error);
  }
}

/** The value as the database will have it; undefined where it has no JSON. Throws where it cannot be stored. */
export function storedJson(what: string, value: unknown, limit: number, instead: string): Json {
  let json: string | undefined;
  try {
    json = JSON.stringify(value);
  } catch (error) {
    throw new Error(`${what} is no JSON: ${messageOf(error)}`);
  }
  if (json === undefined) {
    return undefined;
  }
  if (unstorable.test(json)) {
    throw new Error(`${what} has a character that JSON in Postgres cannot hold (NUL, or half of a surrogate pair)`);
  }
  const bytes = new TextEncoder().encode(json).length;
  if (bytes > limit) {
    throw new Error(`${what} has ${bytes} bytes; a claim keeps at most ${limit}: store it elsewhere and ${instead}`);
  }
  return JSON.parse(json);
}

/** Something that a handler threw. Its fields decide, not its class, so that two copies of this file understand each other. */
export function threw(claim: Key, thrown: unknown): Outcome {
  const { laterSeconds, waitsFor, isHandedBack } = marksOf(thrown);
  if (isHandedBack === true) {
    return released(claim);
  }
  if (laterSeconds === undefined && waitsFor === undefined) {
    return failed(claim, thrown);
  }
  const note = storable((thrown as Error).message ?? "");
  const snoozed = { ...keyOf(claim), outcome: "snoozed", seconds: (laterSeconds ?? 0) as number, note } as const;
  if (waitsFor === undefined) {
    return snoozed;
  }
  try {
    return { ...snoozed, needs: storedJson("the list of needs", waitsFor, resultLimit, "wait for fewer items") };
  } catch (error) {
    return failed(claim, error);
  }
}

/** The outcome with the items that the handler adds. A failure adds nothing, since the next try adds them again. */
export function withItems(outcome: Outcome, items: readonly Json[]): Outcome {
  if (items.length === 0 || outcome.outcome === "failed" || outcome.outcome === "released") {
    return outcome;
  }
  return outcome.outcome === "parked"
    ? failed(outcome, new Error("the handler called enqueue() and returned parked(); add items with the job's result"))
    : { ...outcome, items };
}

export function failed(claim: Key, thrown: unknown): Outcome {
  const marks = marksOf(thrown);
  const wait = Number(marks.retryAfterSeconds ?? Number.NaN);
  return {
    ...keyOf(claim),
    outcome: "failed",
    error: storable(messageOf(thrown)),
    ...(marks.isFinal === true ? { final: true } : {}),
    ...(wait >= 0 ? { retry_after_seconds: Math.min(wait, retryAfterLimit) } : {}),
  };
}

/** As many outcomes as one request should carry: 1,000, or a megabyte, whichever comes first; but always one. */
export function oneRequestOf(outcomes: readonly Outcome[]): Outcome[] {
  let bytes = 0;
  const fitting = outcomes.slice(0, 1000).findIndex((outcome, n) => {
    bytes += JSON.stringify(outcome).length;
    return n > 0 && bytes > 1_000_000;
  });
  return outcomes.slice(0, fitting === -1 ? 1000 : fitting);
}

interface Marks {
  isFinal?: unknown;
  retryAfterSeconds?: unknown;
  laterSeconds?: unknown;
  waitsFor?: unknown;
  isHandedBack?: unknown;
  parkedAs?: unknown;
  seconds?: unknown;
}

function marksOf(of: unknown): Marks {
  return of !== null && typeof of === "object" ? of : {};
}

function keyOf(of: Key): Key {
  return { item_id: of.item_id, work_type: of.work_type, fence: of.fence };
}

export function messageOf(thrown: unknown): string {
  try {
    return (thrown instanceof Error ? thrown.message || thrown.name : String(thrown)) || "the handler gave no reason";
  } catch {
    return "the handler threw something that has no text";
  }
}

/** Postgres stores neither the character NUL nor half a surrogate pair, as the limit may leave one. */
function storable(text: string): string {
  return text
    .slice(0, errorLimit)
    .replaceAll("\0", "")
    .replace(/\p{Surrogate}/gu, "\ufffd");
}
