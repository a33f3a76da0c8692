import { RequestError } from "./errors.ts";
import { env } from "./host.ts";
import { messageOf } from "./outcome.ts";

/** Facts about an event, for programs. OpenTelemetry's conventions for messaging give the names. */
export interface Fields {
  readonly [name: string]: string | number;
}

/** Logs one event: a sentence for people, and the facts in it by name. Only JSON lines have the facts. */
export type Log = (sentence: string, fields?: Fields) => void;

export type LogFormat = "pretty" | "json";

/** An event is one line in both formats. The text of an error may bring line breaks, and the worker's key. */
export function createLog(
  format: LogFormat,
  workerId: () => string | undefined,
  redact: (text: string) => string,
  print: (line: string) => void,
  isQuiet = false,
): Log {
  const clean = (text: string): string => redact(text.replace(/\s+/g, " "));
  return (sentence, fields = {}) => {
    if (isQuiet && !("error.type" in fields)) {
      return;
    }
    if (format === "pretty") {
      print(clean(sentence));
      return;
    }
    const line = {
      time: new Date().toISOString(),
      level: "error.type" in fields ? "warn" : "info",
      message: sentence,
      "messaging.system": "work_claims",
      "messaging.client.id": workerId(),
      ...fields,
    };
    print(JSON.stringify(line, (_, value) => (typeof value === "string" ? clean(value) : value)));
  };
}

/** Writes the error that ends a process to standard error, as WORK_LOG has it. */
export function printError(error: unknown): void {
  const format = env("WORK_LOG") === "json" ? "json" : "pretty";
  const log = createLog(
    format,
    () => env("WORK_ID"),
    (text) => text,
    (line) => console.error(line),
  );
  log(messageOf(error), errorType(error));
}

/** The fields of an event that concerns one item. */
export function itemFields(of: { item_id: string; work_type: string; traceparent?: string | null }): Fields {
  return {
    "messaging.destination.name": of.work_type,
    "messaging.message.id": of.item_id,
    ...(of.traceparent && { trace_id: of.traceparent.slice(3, 35) }),
  };
}

/** The operations of a worker, with the type that the conventions have for each. */
export const operations = {
  claim: { "messaging.operation.name": "claim", "messaging.operation.type": "receive" },
  handle: { "messaging.operation.name": "handle", "messaging.operation.type": "process" },
  extend: { "messaging.operation.name": "extend", "messaging.operation.type": "settle" },
  poll: { "messaging.operation.name": "poll", "messaging.operation.type": "settle" },
  release: { "messaging.operation.name": "release", "messaging.operation.type": "settle" },
} as const;

/** A short name for a kind of error: the server's code where there is one. */
export function errorType(error: unknown): Fields {
  const type =
    error instanceof RequestError ? error.code || String(error.status) : error instanceof Error ? error.name : "other";
  return { "error.type": type };
}
