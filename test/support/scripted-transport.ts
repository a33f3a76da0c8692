import type { Clock } from "../../workers/runtime/clock.ts";
import { createModel, type Model, type Row } from "./server-model.ts";

export { uuid } from "./server-model.ts";

/** The answer to one request. With `commits` false the server never saw the request. */
export interface Reply {
  status?: number;
  body?: string;
  headers?: Record<string, string>;
  /** The connection breaks instead. */
  breaks?: boolean;
  /** No answer ever comes. */
  stalls?: boolean;
  delayMs?: number;
  commits?: boolean;
}

export interface Call {
  name: string;
  // biome-ignore lint/suspicious/noExplicitAny: the arguments of any function.
  args: any;
  headers: Record<string, string>;
  at: number;
}

export interface Server {
  fetch: typeof globalThis.fetch;
  model: Model;
  rows: Row[];
  calls: Call[];
  /** Decides how a request is answered; undefined lets the model answer. */
  script: (call: Call, nth: number) => Reply | undefined;
  of(name: string): Call[];
}

export const problem = (status: number, code: string, message = "it did not work"): Reply => ({
  status,
  body: JSON.stringify({ code, message, details: null, hint: null }),
  commits: false,
});

/** The model answers each request, or else the script does. A handler's first failure is final. */
export function createServer(clock: Clock, count: number, leaseSeconds = 60): Server {
  const model = createModel(clock.now, count, { leaseSeconds, maxFailures: 1, maxCrashes: 5, backoffSeconds: 10 });
  const server: Server = { fetch: answer, model, rows: model.rows, calls: [], script: () => undefined, of };

  function of(name: string): Call[] {
    return server.calls.filter((call) => call.name === name);
  }

  async function answer(input: string | URL | Request, init: RequestInit = {}): Promise<Response> {
    const path = String(input).split("/rest/v1/")[1] as string;
    const name = path.replace(/^rpc\//, "").split("?")[0] as string;
    const args = init.body ? JSON.parse(String(init.body)) : null;
    const call: Call = { name, args, headers: init.headers as Record<string, string>, at: clock.now() };
    server.calls.push(call);
    const reply = server.script(call, of(name).length) ?? {};
    await clock.sleep(reply.stalls ? Number.POSITIVE_INFINITY : (reply.delayMs ?? 5), init.signal ?? undefined);
    if (init.signal?.aborted) {
      throw init.signal.reason;
    }
    const found = reply.commits === false ? null : args === null ? model.read(path) : model.call(name, args);
    await clock.sleep(1);
    if (reply.breaks) {
      throw new TypeError("fetch failed", { cause: new Error("other side closed") });
    }
    return new Response(reply.body ?? JSON.stringify(found), {
      status: reply.status ?? 200,
      headers: reply.headers ?? {},
    });
  }
  return server;
}
