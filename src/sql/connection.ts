import type { CallOptions } from "../../workers/runtime/client.ts";
import { errorOf, RequestError } from "../../workers/runtime/errors.ts";

type Answering = PromiseLike<readonly { answer: string | null }[]> & { cancel(): void };

/** The part of a Sql or TransactionSql of postgres.js that is used here. */
export type Connection = {
  unsafe(query: string, parameters: string[], options: { prepare: boolean }): Answering;
  /** The settings of its connections, as postgres() takes them. */
  options: object;
  /** Only a TransactionSql has it. */
  savepoint?: <Answer>(run: (within: Connection) => Promise<Answer>) => Promise<Answer>;
};

/** A Sql or TransactionSql of postgres.js; its own types are generic over its owner's, and stay its owner's business. */
export type SqlLike = { unsafe: unknown };

const attemptMs = 10_000;

/**
 * Runs a query whose one row has one text, `answer`; undefined where there is no row. A query of a transaction has no
 * limit of its own: to cancel it would end the transaction of the caller.
 */
export async function ask(
  connection: Connection,
  what: string,
  query: string,
  parameters: string[],
  { timeoutMs = attemptMs, signal }: CallOptions = {},
): Promise<string | null | undefined> {
  const asked = connection.unsafe(query, parameters, { prepare: true });
  let giveUp = (_: RequestError): void => {};
  const givenUp = new Promise<never>((_, reject) => {
    giveUp = reject;
  });
  const late = new RequestError(`${what}: no answer within ${timeoutMs / 1000} s`, {
    code: "timeout",
    isRetryable: true,
  });
  const limit = connection.savepoint ? undefined : setTimeout(giveUp, timeoutMs, late);
  const abandon = (): void => giveUp(new RequestError(`${what}: given up`, { code: "network", isRetryable: false }));
  signal?.addEventListener("abort", abandon);
  if (signal?.aborted) {
    abandon();
  }
  try {
    // A query that was sent over a connection that broke may never settle, cancelled or not.
    return (await Promise.race([asked, givenUp]))[0]?.answer;
  } catch (error) {
    if (!(error instanceof RequestError)) {
      throw requestError(what, error);
    }
    asked.cancel();
    throw error;
  } finally {
    clearTimeout(limit);
    signal?.removeEventListener("abort", abandon);
  }
}

/** The error as it would come over HTTP. */
function requestError(what: string, error: unknown): RequestError {
  const { code = "", message = String(error), detail, hint } = error as { [field: string]: string };
  if (!/^[0-9A-Z]{5}$/.test(code)) {
    // The caller has ended the connection where the code says so, and no later attempt brings it back.
    return new RequestError(`${what}: ${message || code}`, {
      code: "network",
      isRetryable: code !== "CONNECTION_ENDED",
    });
  }
  if (code === "42501") {
    return new RequestError(`${what}: ${message}; the connection needs the role service_role, or the owner's`, {
      ...{ status: 403, code, hint: hint ?? null, isRetryable: false },
    });
  }
  return errorOf(statusOf(code), JSON.stringify({ code, message, details: detail, hint }), null, what);
}

/** PostgREST's HTTP statuses, by the longest beginning of the SQLSTATE. */
const statuses: { readonly [state: string]: number } = {
  ...{ "08": 503, "09": 500, "0L": 403, "0P": 403, "23503": 409, "23505": 409, "25006": 405, "25": 500, "28": 403 },
  ...{ "2D": 500, "38": 500, "39": 500, "3B": 500, "40": 500, "42883": 404, "42P01": 404, "42P17": 500, "53400": 500 },
  ...{ "53": 503, "54": 500, "55": 500, "57P01": 503, "57": 500, "58": 500, F0: 500, HV: 500, P0001: 400, P0: 500 },
  XX: 500,
};

function statusOf(code: string): number {
  const raised = /^PT([1-5]\d\d)$/.exec(code);
  return raised ? Number(raised[1]) : (statuses[code] ?? statuses[code.slice(0, 2)] ?? 400);
}
