import type { Clock } from "../workers/runtime/clock.ts";

/** What one request is answered with. `commits` false: the server never saw it. */
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

export interface Row {
  item_id: string;
  work_type: string;
  status: string;
  fence: number;
  worker_id: string | null;
  expiresAt: number;
  request_id: string | null;
  payload: unknown;
  result?: unknown;
  error?: string;
  progress?: number;
}

export interface Server {
  fetch: typeof globalThis.fetch;
  rows: Row[];
  calls: Call[];
  /** Decides how a request is answered; undefined lets the model answer. */
  script: (call: Call, nth: number) => Reply | undefined;
  of(name: string): Call[];
}

export const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;

export const problem = (status: number, code: string, message = "it did not work"): Reply => ({
  status,
  body: JSON.stringify({ code, message, details: null, hint: null }),
  commits: false,
});

/** A small model of the database's side of a claim, in memory: only for decisions about time, never for what SQL does. */
export function createServer(clock: Clock, count: number, ttlSeconds = 60): Server {
  let fence = 0;
  const rows: Row[] = Array.from({ length: count }, (_, n) => ({
    item_id: uuid(n + 1),
    work_type: "embed",
    status: "ready",
    fence: 0,
    worker_id: null,
    expiresAt: 0,
    request_id: null,
    payload: { n: n + 1 },
  }));
  const server: Server = { fetch: answer, rows, calls: [], script: () => undefined, of };

  function of(name: string): Call[] {
    return server.calls.filter((call) => call.name === name);
  }
  const find = (key: { item_id: string; fence: number }, worker: string): Row | undefined =>
    rows.find((row) => row.item_id === key.item_id && row.fence === key.fence && row.worker_id === worker);
  const asClaim = (row: Row): object => ({
    item_id: row.item_id,
    work_type: row.work_type,
    fence: row.fence,
    ttl_seconds: ttlSeconds,
    expires_at: "2026-01-01T00:00:00Z",
    failures: 0,
    crashes: 0,
    pool: "default",
    source_key: null,
    payload: row.payload,
  });

  // biome-ignore lint/suspicious/noExplicitAny: the arguments of any function.
  const functions: Record<string, (args: any) => unknown> = {
    register_worker: ({ worker_id }) => ({ worker_id }),
    retire_worker({ worker_id }) {
      for (const row of rows.filter((row) => row.worker_id === worker_id && row.status === "claimed")) {
        Object.assign(row, { status: "ready", worker_id: null });
      }
      return true;
    },
    claim_next({ worker_id, max_items, request_id }) {
      for (const row of rows.filter((row) => row.status === "claimed" && row.expiresAt <= clock.now())) {
        Object.assign(row, { status: "ready", worker_id: null });
      }
      const repeated = rows.filter((row) => row.request_id === request_id);
      if (repeated.length > 0) {
        return repeated.filter((row) => row.status === "claimed" && row.worker_id === worker_id).map(asClaim);
      }
      const won = rows.filter((row) => row.status === "ready").slice(0, max_items);
      for (const row of won) {
        const expiresAt = clock.now() + ttlSeconds * 1000;
        Object.assign(row, { status: "claimed", fence: ++fence, worker_id, request_id, expiresAt });
      }
      return won.map(asClaim);
    },
    release_items: ({ worker_id, outcomes }) =>
      outcomes.map((outcome: Row & { outcome: string }) => {
        const row = find(outcome, worker_id);
        if (!row) {
          return "lost";
        }
        if (row.status === "claimed") {
          row.status = { succeeded: "succeeded", failed: "failed", released: "ready" }[outcome.outcome] as string;
          Object.assign(row, { result: outcome.result, error: outcome.error });
        }
        return row.status;
      }),
    finish_and_claim: (args) => ({
      released: functions.release_items?.(args),
      claimed: functions.claim_next?.(args),
    }),
    extend_claims: ({ worker_id, held }) =>
      held.map((key: Row) => {
        const row = find(key, worker_id);
        if (row?.status !== "claimed") {
          const isCancelled = rows.some((each) => each.item_id === key.item_id && each.status === "cancelled");
          return { ...key, state: isCancelled ? "cancelled" : "lost" };
        }
        Object.assign(row, { expiresAt: clock.now() + ttlSeconds * 1000, progress: key.progress });
        return { ...key, state: "held", ttl_seconds: ttlSeconds };
      }),
  };

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
    const found = reply.commits === false ? null : args === null ? table(name) : functions[name]?.(args);
    await clock.sleep(1);
    if (reply.breaks) {
      throw new TypeError("fetch failed", { cause: new Error("other side closed") });
    }
    return new Response(reply.body ?? JSON.stringify(found), {
      status: reply.status ?? 200,
      headers: reply.headers ?? {},
    });
  }

  function table(name: string): unknown[] {
    return name === "work_claims"
      ? rows.filter((row) => row.status === "claimed")
      : [{ name: "embed", pool: "default", paused: false }];
  }
  return server;
}
