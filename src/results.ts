import { idleDelay } from "../workers/runtime/backoff.ts";
import { systemClock } from "../workers/runtime/clock.ts";
import { onlyKnown } from "../workers/runtime/variable.ts";
import { createWakeUp } from "../workers/runtime/wake-up.ts";
import type { ClaimStatus, Json } from "./answers.ts";
import { checkWork, type Work } from "./define-work.ts";
import type { Query } from "./lists/query.ts";
import type { Transport } from "./transport.ts";

/** A claim, and what came of it. */
export type WorkResult<Result> = {
  status: ClaimStatus;
  /** Also while it is done again, until the new result replaces it; undefined where there is none. */
  result: Result | undefined;
  /** Why the result is out of date; null: it is not. */
  stale: string | null;
  error: string | null;
};

export type WaitOptions = {
  /** How long to wait; without it for ever. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** The claim that was waited for ended without a result. */
export class WorkFailedError extends Error {
  override readonly name = "WorkFailedError";
  readonly status: "failed" | "cancelled";

  constructor(message: string, status: "failed" | "cancelled") {
    super(message);
    this.status = status;
  }
}

type Read = <Row>(relation: string, query: Partial<Query>) => Promise<Row[]>;
type Row = { status: ClaimStatus; result: Json; stale: string | null; error: string | null };

/** Null where the item has no claim of this work type, or none is kept. */
export async function readResult<Result>(
  read: Read,
  work: Work<never, unknown, never, Result>,
  itemId: string,
): Promise<WorkResult<Result> | null> {
  checkWork(work);
  const [row] = await read<Row>("work_claims", {
    select: "status,result,stale,error",
    filters: [
      ["item_id", "eq", itemId],
      ["work_type", "eq", work.name],
    ],
  });
  if (row === undefined) return null;
  const { status, result, stale, error } = row;
  const hasResult = status === "succeeded" || result !== null;
  return { status, result: hasResult ? await work.read(result) : undefined, stale, error };
}

/** The pauses between two looks: a tenth of the time so far. */
const pauses = { shortestMs: 100, longestMs: 5000 };
/** With a connection that tells of the end, looks only make up for what was not told. */
const toldPauseMs = 5000;

/** Answers the result when the claim has succeeded. Throws where it ended otherwise, and when the time is over. */
export async function waitForResult<Result>(
  read: Read,
  onEnded: Transport["onEnded"],
  work: Work<never, unknown, never, Result>,
  itemId: string,
  options: WaitOptions,
): Promise<Result> {
  onlyKnown("wait()", options, ["timeoutMs", "signal"]);
  const { timeoutMs = Number.POSITIVE_INFINITY, signal } = options;
  const clock = systemClock;
  const startedAt = clock.now();
  const wakeUp = createWakeUp(clock);
  signal?.throwIfAborted();
  signal?.addEventListener("abort", wakeUp.wake);
  // The connection's own notifications are a help only.
  const endListening = await onEnded?.(itemId, wakeUp.wake).catch(() => undefined);
  try {
    for (;;) {
      const found = await readResult(read, work, itemId);
      if (found === null) {
        throw new Error(`item ${itemId} has no claim of ${work.name}; was it enqueued for another work type?`);
      }
      if (found.status === "succeeded") return found.result as Result;
      if (found.status === "failed" || found.status === "cancelled") {
        const why = found.error === null ? "" : `: ${found.error}`;
        throw new WorkFailedError(`${work.name} of item ${itemId} ${described[found.status]}${why}`, found.status);
      }
      const waitedMs = clock.now() - startedAt;
      if (waitedMs >= timeoutMs) {
        throw new DOMException(
          `${work.name} of item ${itemId} is ${found.status} after ${timeoutMs} ms`,
          "TimeoutError",
        );
      }
      const pause = endListening ? toldPauseMs : idleDelay(waitedMs, Math.random, pauses.shortestMs, pauses.longestMs);
      await wakeUp.sleep(Math.min(pause, timeoutMs - waitedMs));
      signal?.throwIfAborted();
    }
  } finally {
    signal?.removeEventListener("abort", wakeUp.wake);
    await endListening?.();
  }
}

const described = { failed: "failed", cancelled: "was cancelled" };
