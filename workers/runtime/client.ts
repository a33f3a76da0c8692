import { type Clock, systemClock } from "./clock.ts";
import { errorOf, RequestError } from "./errors.ts";
import { isBrowser, isForbidden, SettingsError } from "./host.ts";
import { withRetries } from "./retry.ts";

/** JSON of no known shape, as JSON.parse returns it. */
export type Json = ReturnType<typeof JSON.parse>;

export interface ClientOptions {
  /** The project's address, as SUPABASE_URL has it. */
  url: string;
  /** A service_role or secret key; with a token the project's public key. */
  key: string;
  /** A work token. Each function is called as the token's own one, which takes worker and work types from the token. */
  token?: string | null;
  /** With a token, the part of the worker's id that is its own. */
  workerSuffix?: string;
  /** The person on whose behalf it calls, for the record of acts by hand. */
  actor?: string | undefined;
  /** The names of these in messages. */
  called?: { url: string; key: string; token: string };
  fetch?: typeof globalThis.fetch;
  random?: () => number;
  clock?: Clock;
  /** Called after every failed attempt that is tried again. */
  onRetry?: (error: RequestError, attempt: number) => void;
}

export interface CallOptions {
  /** Gives up at once. */
  signal?: AbortSignal;
  /** Makes no further attempt; the current one may end. */
  until?: AbortSignal;
  /** For one attempt. */
  timeoutMs?: number;
  /** For all attempts together, from the first; 0 makes one attempt. */
  retryForMs?: number;
  /** Before every further attempt. */
  onRetry?: () => void;
}

/** Every call may be sent more than once. A call that must not count twice carries a request_id in its arguments. */
export interface Client {
  rpc(name: string, args: Record<string, unknown>, options?: CallOptions): Promise<Json>;
  get(pathAndQuery: string, options?: CallOptions): Promise<Json>;
  /** The text without key and token, wherever they may have got into it. */
  redact(text: string): string;
  /**
   * Calls back when one of these work types has claims that became ready, where the connection can tell. Resolves, when it
   * listens, to a function that ends that.
   */
  listen?(workTypes: readonly string[], onReady: () => void): Promise<() => Promise<void>>;
}

export function createClient(options: ClientOptions): Client {
  if (isBrowser()) {
    throw new Error("this key has all rights in the project and must not be used in a browser");
  }
  const called = options.called ?? { url: "the project's address", key: "the key", token: "the token" };
  const base = baseOf(options.url, called.url);
  const key = secret(options.key, called.key);
  const token = typeof options.token === "string" ? secret(options.token, called.token) : null;
  const fetch = options.fetch ?? globalThis.fetch;
  const random = options.random ?? Math.random;
  const clock = options.clock ?? systemClock;
  const redact = (text: string): string => {
    const withoutKey = text.replaceAll(key, "[key]");
    return token === null ? withoutKey : withoutKey.replaceAll(token, "[token]");
  };
  const headers: Record<string, string> = { apikey: key, accept: "application/json", "x-client-info": "work-claims" };
  if (token !== null) {
    headers["x-work-token"] = token;
  }
  if (options.actor !== undefined) {
    headers["x-work-as"] = options.actor;
  }
  // A secret key (sb_secret_…) is no JWT, and is refused as one.
  if (key.split(".").length === 3) {
    headers.authorization = `Bearer ${key}`;
  }

  async function attempt(path: string, body: string | undefined, what: string, call: CallOptions): Promise<Json> {
    const timeoutMs = call.timeoutMs ?? 10_000;
    const stop = new AbortController();
    const over = new AbortController();
    const abandon = (): void => stop.abort();
    let isLate = false;
    void clock.sleep(timeoutMs, over.signal).then(() => {
      if (!over.signal.aborted) {
        isLate = true;
        stop.abort();
      }
    });
    call.signal?.addEventListener("abort", abandon);
    if (call.signal?.aborted) {
      abandon();
    }
    let status = 0;
    let text = "";
    let wait: string | null = null;
    try {
      const response = await fetch(`${base}/rest/v1/${path}`, {
        method: body === undefined ? "GET" : "POST",
        headers: body === undefined ? headers : { ...headers, "content-type": "application/json" },
        // A redirect would send the key to another host.
        redirect: "manual",
        signal: stop.signal,
        ...(body === undefined ? {} : { body }),
      });
      status = response.status;
      wait = response.headers.get("retry-after");
      text = await response.text();
    } catch (error) {
      if (isForbidden(error)) {
        throw new SettingsError(`${what}: Deno was not allowed to reach the project; start it with --allow-net`);
      }
      throw new RequestError(
        isLate ? `${what}: no answer within ${timeoutMs / 1000} s` : redact(`${what}: ${reasonOf(error)}`),
        { code: isLate ? "timeout" : "network", isRetryable: !call.signal?.aborted },
      );
    } finally {
      over.abort("answered");
      call.signal?.removeEventListener("abort", abandon);
    }
    if (status < 200 || status > 299) {
      throw errorOf(status, redact(text), wait, what);
    }
    try {
      return JSON.parse(text);
    } catch {
      throw new RequestError(`${what}: the answer was cut off or is no JSON`, {
        status,
        code: "network",
        isRetryable: true,
      });
    }
  }

  const send = (path: string, body: string | undefined, what: string, call: CallOptions = {}): Promise<Json> =>
    withRetries(() => attempt(path, body, what, call), call, { clock, random, onRetry: options.onRetry });

  /** The token says who calls, and for which work types. */
  function rpcWithToken(name: string, args: Record<string, unknown>, call?: CallOptions): Promise<Json> {
    const { worker_id: _, work_types: __, ...rest } = args;
    // A call without a worker has none with a token either.
    const suffix = "worker_id" in args ? { worker_suffix: options.workerSuffix } : {};
    return send(`rpc/token_${name}`, JSON.stringify({ ...rest, ...suffix }), `token_${name}`, call);
  }

  return {
    rpc: token === null ? (name, args, call) => send(`rpc/${name}`, JSON.stringify(args), name, call) : rpcWithToken,
    get: (path, call) => send(path, undefined, path.split("?", 1)[0] as string, call),
    redact,
  };
}

/** A key or token in the form of a header. No message shows it. */
function secret(given: string, name: string): string {
  if (typeof given !== "string") {
    throw new SettingsError(
      `${name} is ${given === undefined ? "undefined" : `of type ${typeof given}`}; a text was expected`,
    );
  }
  const text = given.trim();
  if (!/^[\x21-\x7e]+$/.test(text)) {
    throw new SettingsError(`${name} is empty or has characters that no ${/token/i.test(name) ? "token" : "key"} has`);
  }
  return text;
}

/** The address up to /rest/v1. No message shows the given text: it may be the key, in the wrong place. */
function baseOf(given: string, name: string): string {
  let url: URL;
  try {
    url = new URL(String(given).trim());
  } catch {
    throw new SettingsError(`${name} is no URL; expected was one like https://abcdefgh.supabase.co`);
  }
  if ((url.protocol !== "https:" && url.protocol !== "http:") || url.username || url.password) {
    throw new SettingsError(`${name} must begin with https:// or http:// and name no user`);
  }
  return url.origin + url.pathname.replace(/\/+$/, "").replace(/\/rest\/v1$/, "");
}

/** fetch says "fetch failed" and hides the reason in its cause. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) {
    return String(error);
  }
  const cause = error.cause as { code?: string; message?: string } | undefined;
  return cause ? `${error.message} (${cause.message || cause.code || "no reason given"})` : error.message;
}
