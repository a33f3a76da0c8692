import { createClient } from "../workers/runtime/client.ts";
import { systemClock } from "../workers/runtime/clock.ts";
import { errorOf, RequestError } from "../workers/runtime/errors.ts";
import { withRetries } from "../workers/runtime/retry.ts";
import { type Query, queryString } from "./lists/query.ts";

/** How the client speaks to the database. */
export type Transport = {
  rpc(name: string, args: Record<string, unknown>): Promise<unknown>;
  read(relation: string, query: Query): Promise<unknown>;
  /** Calls back when a claim of the item may have ended, where the connection can tell. Resolves to a function that ends that. */
  onEnded?(itemId: string, onEnded: () => void): Promise<() => Promise<void>>;
};

export type Address = {
  /** The project's address, as in the dashboard. */
  url: string;
  /** A secret key or the service_role key. No other role may call the functions. */
  key: string;
  /** The person on whose behalf it calls: retry, cancel and the like record the name. ASCII, at most 200 characters. */
  actor?: string | undefined;
  fetch?: typeof fetch;
};

/** Plain fetch, as workers use it. */
export function overFetch({ url, key, actor, fetch }: Address, retryForMs: number): Transport {
  const api = createClient({ url, key, actor, ...(fetch ? { fetch } : {}) });
  return {
    rpc: (name, args) => api.rpc(name, args, { retryForMs }),
    read: (relation, query) => api.get(`${relation}?${queryString(query)}`, { retryForMs }),
  };
}

type Answered = { data: unknown; error: object | null; status: number };
type Request = PromiseLike<Answered> & { abortSignal(signal: AbortSignal): PromiseLike<Answered> };
type Filtering = Request & {
  filter(column: string, operator: string, value: string): Filtering;
  or(filters: string): Filtering;
  order(column: string, options: { ascending: boolean }): Filtering;
  limit(count: number): Filtering;
  range(from: number, to: number): Filtering;
};
/** The part of a supabase-js client that is used here. */
type Supabase = {
  rpc(name: string, args: object): Request;
  from(relation: string): { select(columns: string): Filtering };
};

/** A client of supabase-js; its own type is generic over the schema, and stays its owner's business. */
export type SupabaseClientLike = { rpc: unknown; from: unknown };

const attemptMs = 10_000;

/** Calls through the caller's supabase-js client, with the retries of plain fetch. */
export function overSupabase(client: SupabaseClientLike, retryForMs: number): Transport {
  const supabase = client as Supabase;
  async function attempt(what: string, request: () => Request): Promise<unknown> {
    const { data, error, status } = await request().abortSignal(AbortSignal.timeout(attemptMs));
    if (error === null) return data;
    throw status > 0 ? errorOf(status, JSON.stringify(error), null, what) : noAnswer(what, error);
  }
  const send = (what: string, request: () => Request): Promise<unknown> =>
    withRetries(() => attempt(what, request), { retryForMs }, { clock: systemClock, random: Math.random });
  return {
    rpc: (name, args) => send(name, () => supabase.rpc(name, args)),
    read: (relation, query) => send(relation, () => asked(supabase.from(relation).select(query.select), query)),
  };
}

function asked(request: Filtering, { filters, ors, order, limit, offset }: Query): Filtering {
  for (const [column, operator, value] of filters) request.filter(column, operator, value);
  for (const parts of ors) request.or(parts);
  for (const term of order) request.order(term.replace(/\.desc$/, ""), { ascending: !term.endsWith(".desc") });
  if (offset !== undefined) request.range(offset, offset + (limit ?? 1000) - 1);
  else if (limit !== undefined) request.limit(limit);
  return request;
}

function noAnswer(what: string, error: object): RequestError {
  const reason = "message" in error ? error.message : "no answer";
  return new RequestError(`${what}: ${reason}`, { code: "network", isRetryable: true });
}
