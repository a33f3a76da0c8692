// Drains work: one request claims items, works on them for a minute at most, and answers what it did.
import { answer, isSecret, projectKey, projectKeys } from "../../../workers/runtime/edge.ts";
import { env, randomUuid, SettingsError } from "../../../workers/runtime/host.ts";
import { messageOf } from "../../../workers/runtime/outcome.ts";
import { type Handler, type Summary, work, workTypesFromEnv } from "../../../workers/runtime/work.ts";
import { handler, itemSeconds, options } from "./handler.ts";

declare const Deno: { serve(handle: (request: Request) => Promise<Response>): unknown };
declare function addEventListener(name: "beforeunload", listener: () => void): void;

/** Supabase has it, plain Deno has not. */
const { EdgeRuntime } = globalThis as { EdgeRuntime?: { waitUntil(promise: Promise<unknown>): unknown } };

/** An isolate takes requests for half of its 150 seconds, so a call that comes last is over before its warning at 135. */
const callSeconds = 60;

/** Each request needs a name of its own: one isolate serves many at once. */
const isolate = env("SB_EXECUTION_ID") ?? randomUuid();
let requests = 0;

/** The drains under way, each with what ends it. */
const draining = new Set<AbortController>();

// The isolate ends soon, and may be killed without a second event. Items without a result go back at once.
addEventListener("beforeunload", () => {
  for (const drain of draining) {
    drain.abort();
  }
});

Deno.serve(async (request) => {
  try {
    if (request.method !== "POST") {
      return answer(405, `the method is ${request.method}; POST was expected`, { allow: "POST" });
    }
    if (!(await isAllowed(request))) {
      return answer(401, "the secret is missing or wrong; WORK_DRAIN_SECRET was expected as Authorization: Bearer");
    }
    const { workTypes, isWaiting } = await wishesOf(request);
    const drained = drain(workTypes);
    const ended = drained.catch((error: unknown) => console.error(error));
    // A caller that leaves early ends its request, and the isolate might be dropped in the middle of an item.
    EdgeRuntime?.waitUntil(ended);
    return isWaiting ? answer(200, summaryOf(await drained)) : answer(202, { is_started: true });
  } catch (error) {
    console.error(error);
    return answer(error instanceof WrongRequest ? 400 : 500, messageOf(error));
  }
});

function summaryOf({ workerId, isWorkLeft, why, succeeded, failed, released, lost }: Summary): object {
  return { worker_id: workerId, succeeded, failed, released, lost, why, more: isWorkLeft };
}

/** Its own secret, where there is one, else a secret key of the project; as a bearer token or in apikey. */
async function isAllowed({ headers }: Request): Promise<boolean> {
  const own = env("WORK_DRAIN_SECRET");
  const secrets = own === undefined ? projectKeys() : [own];
  const bearer = /^bearer\s+(.+)$/i.exec(headers.get("authorization") ?? "")?.[1];
  const checked = await Promise.all([bearer, headers.get("apikey")].map((given) => isSecret(given ?? "", secrets)));
  return checked.includes(true);
}

class WrongRequest extends Error {}

/**
 * The work types are those of the body, else of WORK_TYPE. With "wait": false the answer comes before the work: pg_net
 * sends no other request of the project while one is without an answer.
 */
async function wishesOf(request: Request): Promise<{ workTypes: string[]; isWaiting: boolean }> {
  const text = await request.text();
  let body: { work_types?: unknown; wait?: unknown } | null;
  try {
    body = text === "" ? {} : JSON.parse(text);
  } catch {
    throw new WrongRequest('the body is no JSON; expected was nothing, or {"work_types": ["embed"]}');
  }
  const { work_types: given, wait = true } = body ?? {};
  if (typeof wait !== "boolean") {
    throw new WrongRequest("wait is neither true nor false");
  }
  if (given === undefined) {
    return { workTypes: workTypesFromEnv(), isWaiting: wait };
  }
  const isList = Array.isArray(given) && given.length > 0 && given.length <= 100;
  if (!isList || given.some((name) => typeof name !== "string")) {
    throw new WrongRequest('work_types is no list of 1 to 100 names; expected was {"work_types": ["embed"]}');
  }
  return { workTypes: given, isWaiting: wait };
}

async function drain(workTypes: string[]): Promise<Summary> {
  if (!Number.isInteger(itemSeconds) || itemSeconds < 1 || itemSeconds >= callSeconds) {
    throw new SettingsError(`itemSeconds is ${itemSeconds}; 1 to ${callSeconds - 1} were expected`);
  }
  const end = new AbortController();
  const timer = setTimeout(() => end.abort(), callSeconds * 1000);
  draining.add(end);
  try {
    return await work(workTypes, limited(handler, itemSeconds), {
      ...options,
      url: env("SUPABASE_URL") ?? "",
      key: projectKey(),
      workerId: `edge-${isolate}-${++requests}`,
      leaveAfterSeconds: callSeconds - itemSeconds,
      // A work type that does not exist is refused. Where others hold the rest, the drain leaves while they work; a
      // slow first answer counts as idle time too.
      untilEmpty: true,
      leaveIdleSeconds: 5,
      // The end of an isolate leaves no time for running handlers.
      signal: end.signal,
      graceSeconds: 0,
      handleSignals: false,
    });
  } finally {
    clearTimeout(timer);
    draining.delete(end);
  }
}

/** A handler that ends when its time is over or its claim is gone, whether or not it heeds its signal. */
function limited(handle: Handler, seconds: number): Handler {
  return async (claim, context) => {
    const tooLong = new AbortController();
    const timer = setTimeout(
      () => tooLong.abort(new Error(`the handler did not end within ${seconds} s (itemSeconds)`)),
      seconds * 1000,
    );
    const signal = AbortSignal.any([context.signal, tooLong.signal]);
    signal.throwIfAborted();
    const over = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
    });
    try {
      return await Promise.race([handle(claim, { ...context, signal }), over]);
    } finally {
      clearTimeout(timer);
    }
  };
}
