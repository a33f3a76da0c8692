/** A request that failed: the answer of the server, and whether the same request may succeed later. */
export class RequestError extends Error {
  override readonly name = "RequestError";
  /** The HTTP status; 0 where there was no answer. */
  readonly status: number;
  /** The SQLSTATE or PostgREST's own code; "network" or "timeout" where there was no answer. */
  readonly code: string;
  readonly hint: string | null;
  readonly isRetryable: boolean;
  /** How long the server asked to wait. */
  readonly retryAfterMs: number;

  constructor(
    message: string,
    is: { status?: number; code?: string; hint?: string | null; isRetryable: boolean; retryAfterMs?: number },
  ) {
    super(message);
    this.status = is.status ?? 0;
    this.code = is.code ?? "";
    this.hint = is.hint ?? null;
    this.isRetryable = is.isRetryable;
    this.retryAfterMs = is.retryAfterMs ?? 0;
  }
}

/** No request of this worker can succeed: a wrong key, a wrong address, or a project without work-claims. */
export function isHopeless(error: unknown): boolean {
  return error instanceof RequestError && ([401, 403, 404].includes(error.status) || isRedirect(error));
}

/** Another server answers at this address. */
function isRedirect({ status, code }: { status: number; code: string }): boolean {
  return status >= 300 && status < 400 && code === "";
}

/** The same request will be refused again: a person must set something right. A conflict or a fault of the server passes. */
export function isFatal(error: unknown): boolean {
  if (!(error instanceof RequestError)) {
    return true;
  }
  return !error.isRetryable && error.status >= 300 && error.status < 500 && error.status !== 409;
}

export function isRetryable(error: unknown): boolean {
  return error instanceof RequestError && error.isRetryable;
}

// A deadlock, a lock or statement that took too long, a server that stops, starts, is full or is read-only for a while.
const passingStates = /^(40P01|40001|55P03|57014|57P0.|53...|08...|25006)$/;
// Cloudflare and the gateway answer these when the server behind them does not answer.
const passingStatuses = [408, 429, 502, 503, 504, 520, 521, 522, 523, 524];

function isPassing(status: number, code: string): boolean {
  return passingStatuses.includes(status) || passingStates.test(code) || (status >= 500 && code === "");
}

/** Milliseconds, at most a minute. A date is not read: it would bring in the wall clock. */
export function retryAfter(header: string | null): number {
  const seconds = Number(header ?? 0);
  return Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds, 60) * 1000 : 0;
}

/** The error of an answer that is not a success. */
export function errorOf(status: number, body: string, retryAfterHeader: string | null, what: string): RequestError {
  const said = bodyOf(body);
  const code = said.code ?? "";
  // PostgREST answers 400 with an empty code where the database dropped the connection in the middle of a request.
  const isDropped = said.code === "" && said.message === "";
  const isRetryable = isDropped || isPassing(status, code);
  const is = { status, code, isRetryable, retryAfterMs: retryAfter(retryAfterHeader) };
  if (status === 404 && ["PGRST202", "PGRST205", "42883", "42P01"].includes(code)) {
    // PostgREST answers the same where the function is there and an argument is not.
    const args = code === "PGRST202" ? /\((.+)\)/.exec(said.message ?? "")?.[1] : undefined;
    const orArgument = args === undefined ? "" : `, or an argument is misspelt (${args})`;
    return new RequestError(
      what.includes("token")
        ? `${what} is not there: this project takes no tokens; run work-claims init --tokens and supabase db push`
        : `${what} is not there: work-claims is not installed in this project${orArgument}; run work-claims init and supabase db push`,
      { ...is, hint: said.hint ?? null },
    );
  }
  if (code === "PT401" || code === "PT403") {
    // The database refuses a token, and says all that may be said.
    return new RequestError(`${what}: ${said.message}`, { ...is, hint: said.hint ?? null });
  }
  if (status === 401 || status === 403) {
    return new RequestError(
      `${what}: the key was refused (${status}${said.message ? `, ${said.message}` : ""}); ${what.startsWith("token_") ? "the project's publishable or anon key" : "a service_role or secret key"} is needed`,
      { ...is, hint: said.hint ?? null },
    );
  }
  if (isRedirect(is)) {
    return new RequestError(`${what}: answered with a redirect (${status}); is the address right?`, is);
  }
  return new RequestError(`${what}: ${said.message ?? `status ${status}`}`, { ...is, hint: said.hint ?? null });
}

function bodyOf(body: string): { code?: string; message?: string; hint?: string | null } {
  try {
    const parsed: unknown = JSON.parse(body);
    return parsed !== null && typeof parsed === "object" ? parsed : {};
  } catch {
    return {};
  }
}
