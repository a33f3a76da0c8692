import type { CallOptions, Client } from "../../workers/runtime/client.ts";
import { systemClock } from "../../workers/runtime/clock.ts";
import { SettingsError } from "../../workers/runtime/host.ts";
import { withRetries } from "../../workers/runtime/retry.ts";
import { firstName } from "../../workers/runtime/several.ts";
import type { Transport } from "../transport.ts";
import { createCalls } from "./call.ts";
import { ask, type Connection, type SqlLike } from "./connection.ts";
import { createListening } from "./listen.ts";
import { readText } from "./read.ts";

/** A worker's connection straight to Postgres: work(handlers, { client: overSql(sql) }). */
export function overSql(sql: SqlLike): Client {
  const connection = sql as Connection;
  if (typeof connection?.unsafe !== "function") {
    throw new SettingsError(
      `sql is of type ${typeof sql}; a connection that postgres() of postgres.js makes was expected`,
    );
  }
  const call = createCalls();
  const listen = createListening(connection);
  return {
    rpc: (name, args, options = {}) => retried(connection, options, (within) => call(within, name, args, options)),
    get: async () => {
      throw new SettingsError(
        "a worker over SQL cannot pick candidates from a pool; leave out the pool (WORK_POOL), or give address and key",
      );
    },
    redact: (text) => text,
    listen: (workTypes, onReady) =>
      listen("ready", { isMeant: (name) => workTypes.includes(firstName(name)), onEvent: onReady }),
  };
}

/** The transport of a client straight to Postgres. */
export function overConnection(sql: SqlLike, retryForMs: number): Transport {
  const connection = sql as Connection;
  const { rpc } = overSql(sql);
  const listen = createListening(connection);
  return {
    rpc: (name, args) => rpc(name, args, { retryForMs }),
    async read(relation, query) {
      const answer = await retried(connection, { retryForMs }, (within) =>
        ask(within, relation, readText(relation, query), []),
      );
      return JSON.parse(answer ?? "[]");
    },
    onEnded: (itemId, onEvent) => listen("ended", { isMeant: (name) => name === itemId, onEvent }),
  };
}

/** The calls of a transaction, each after the one before: a savepoint takes back all that came after it. */
const turns = new WeakMap<Connection, Promise<unknown>>();

/** Inside a transaction nothing is tried again; a refused call takes back itself only, as over HTTP. */
function retried<Answer>(
  connection: Connection,
  options: CallOptions,
  attempt: (within: Connection) => Promise<Answer>,
): Promise<Answer> {
  if (!connection.savepoint) {
    return withRetries(() => attempt(connection), options, { clock: systemClock, random: Math.random });
  }
  const inItsTurn = async (): Promise<Answer> => (connection as Required<Connection>).savepoint(attempt);
  const answer = (turns.get(connection) ?? Promise.resolve()).then(inItsTurn);
  turns.set(
    connection,
    answer.catch(() => {}),
  );
  return answer;
}
