import { call } from "./calls.ts";
import type { Sql } from "./database.ts";

/** Makes a token as a person with the project's key does. */
export function createToken(sql: Sql, worker_name: string, work_types: string[], ends_in?: string): Promise<string> {
  return call(sql, "create_token", { worker_name, work_types, ends_in });
}

/** Does something in a transaction as PostgREST begins it for a request with this token, or without one. */
export function asRequest<Answer>(
  sql: Sql,
  token: string | null,
  action: (transaction: Sql) => Promise<Answer>,
): Promise<Answer> {
  const headers = { host: "project", ...(token === null ? {} : { "x-work-token": token }) };
  return sql.begin(async (begun) => {
    // The type of a transaction lacks what ends a connection.
    const transaction = begun as unknown as Sql;
    await transaction`select set_config('request.headers', ${JSON.stringify(headers)}, true)`;
    return action(transaction);
  }) as Promise<Answer>;
}

/** Calls a function for a request with the public key and this token. */
export function request<Answer>(
  anon: Sql,
  token: string | null,
  name: string,
  args: Record<string, unknown> = {},
): Promise<Answer> {
  return asRequest(anon, token, (transaction) => call<Answer>(transaction, name, args));
}
