import type { Claim } from "./claim.ts";
import type { Json } from "./client.ts";

/** What a worker says at the end of a claim, as release_items() takes it. */
export interface Outcome {
  readonly item_id: string;
  readonly work_type: string;
  readonly fence: number;
  readonly outcome: "succeeded" | "failed" | "released";
  readonly result?: Json;
  readonly error?: string;
  readonly final?: boolean;
  readonly retry_after_seconds?: number;
}

/** Thrown by a handler: this item fails for good, whatever tries it has left. */
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

/** What a claim keeps of a result (1 MB) and of an error (8,000 characters). */
const resultLimit = 1_048_576;
const errorLimit = 8000;
/** NUL and half a surrogate pair, as JSON.stringify writes them; behind a backslash of its own it is just text. */
const unstorable = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/;
/** What release_items() takes as retry_after_seconds: 30 days. */
const retryAfterLimit = 2_592_000;

export function released(claim: Claim): Outcome {
  return { ...keyOf(claim), outcome: "released" };
}

/** A handler's result; one that cannot be kept is a failure that says so. */
export function succeeded(claim: Claim, result: unknown): Outcome {
  let json: string | undefined;
  try {
    json = JSON.stringify(result);
  } catch (error) {
    return failed(claim, new Error(`the handler's result is no JSON: ${messageOf(error)}`));
  }
  if (json !== undefined && unstorable.test(json)) {
    const what = "a character that JSON in Postgres cannot hold (NUL, or half of a surrogate pair)";
    return failed(claim, new Error(`the handler's result has ${what}`));
  }
  const bytes = new TextEncoder().encode(json).length;
  if (bytes > resultLimit) {
    return failed(
      claim,
      new Error(
        `the handler's result has ${bytes} bytes; a claim keeps at most ${resultLimit}: store it elsewhere and return where it is`,
      ),
    );
  }
  return { ...keyOf(claim), outcome: "succeeded", result: json === undefined ? null : JSON.parse(json) };
}

/** What a handler threw. The fields decide, not the class, so that two copies of this file understand each other. */
export function failed(claim: Claim | Outcome, thrown: unknown): Outcome {
  const marks = (thrown !== null && typeof thrown === "object" ? thrown : {}) as {
    isFinal?: unknown;
    retryAfterSeconds?: unknown;
  };
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

function keyOf(of: Claim | Outcome): { item_id: string; work_type: string; fence: number } {
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
