// A database in memory: claims, leases, fences, request ids, tries, waits and classes. Tests of the worker's decisions use
// it. It replaces no SQL: other tests run that in Postgres.

export interface Row {
  item_id: string;
  work_type: string;
  status: string;
  fence: number;
  worker_id: string | null;
  claimedAt: number;
  expiresAt: number;
  dueAt: number;
  class_id: number;
  request_id: string | null;
  failures: number;
  crashes: number;
  payload: unknown;
  result?: unknown;
  error?: string;
  progress?: number;
}

export interface Rules {
  leaseSeconds: number;
  maxFailures: number;
  maxCrashes: number;
  backoffSeconds: number;
  trySeconds?: number;
  minWorkerVersion?: string;
}

export type Change = "claimed" | "held" | "succeeded" | "failed" | "released" | "expired" | "left" | "cancelled";

export interface Model {
  readonly rules: Rules;
  rows: Row[];
  /** Called after every change of a claim, with the worker and fence that it had. */
  onChange: (change: Change, row: Row, worker: string, fence: number) => void;
  // biome-ignore lint/suspicious/noExplicitAny: the arguments of any function.
  call(name: string, args: any): unknown;
  /** The answer of PostgREST for a table. */
  read(pathAndQuery: string): unknown[];
  /** A person cancels it. */
  cancel(row: Row): void;
  /** Classes that workers do not match, and classes that they leave to others for a while. */
  readonly refused: Set<number>;
  readonly yielded: Set<number>;
}

interface Key {
  item_id: string;
  fence: number;
}

interface Given extends Key {
  outcome: "succeeded" | "failed" | "released";
  result?: unknown;
  error?: string;
  final?: boolean;
  retry_after_seconds?: number;
}

export const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;

export function createModel(now: () => number, count: number, rules: Rules): Model {
  let fences = 0;
  const requests = new Map<string, { released?: string[] }>();
  const rows: Row[] = Array.from({ length: count }, (_, n) => ({
    item_id: uuid(n + 1),
    work_type: "embed",
    status: "ready",
    fence: 0,
    worker_id: null,
    claimedAt: 0,
    expiresAt: 0,
    dueAt: 0,
    class_id: 1,
    request_id: null,
    failures: 0,
    crashes: 0,
    payload: { n: n + 1 },
  }));
  const byId = new Map(rows.map((row) => [row.item_id, row]));
  const model: Model = {
    rules,
    rows,
    refused: new Set(),
    yielded: new Set(),
    onChange() {},
    call(name, args) {
      const called = functions[name];
      if (!called) {
        throw new Error(`the model has no function ${name}`);
      }
      return called(args);
    },
    read,
    cancel(row) {
      const { worker_id, fence } = row;
      Object.assign(row, { status: "cancelled", worker_id: null });
      model.onChange("cancelled", row, worker_id ?? "", fence);
    },
  };

  const asClaim = (row: Row): object => ({
    item_id: row.item_id,
    work_type: row.work_type,
    fence: row.fence,
    ttl_seconds: Math.round((row.expiresAt - row.claimedAt) / 1000),
    expires_at: "2026-01-01T00:00:00Z",
    try_seconds: rules.trySeconds ?? null,
    failures: row.failures,
    crashes: row.crashes,
    pool: "default",
    source_key: null,
    payload: row.payload,
  });
  const isTakable = (row: Row): boolean => row.status === "ready" || (row.status === "waiting" && row.dueAt <= now());
  const isMatched = (row: Row): boolean => !model.refused.has(row.class_id) && !model.yielded.has(row.class_id);
  const ofRequest = (worker: string, id: string): object[] =>
    rows
      .filter((row) => row.status === "claimed" && row.worker_id === worker && row.request_id === id)
      .map((row) => asClaim(row));

  function isRepeated(id: string | null): id is string {
    if (id === null || requests.has(id)) {
      return id !== null;
    }
    requests.set(id, {});
    return false;
  }

  function reap(): void {
    for (const row of rows) {
      if (row.status === "claimed" && row.expiresAt <= now()) {
        const { worker_id, fence } = row;
        row.crashes++;
        row.status = row.crashes >= rules.maxCrashes ? "failed" : row.dueAt > now() ? "waiting" : "ready";
        Object.assign(row, { worker_id: null, dueAt: Math.max(row.dueAt, now()) });
        model.onChange("expired", row, worker_id ?? "", fence);
      }
    }
  }

  function take(won: Row[], worker: string, ttl_seconds: number | null, request_id: string | null): object[] {
    return won.map((row) => {
      const expiresAt = now() + (ttl_seconds ?? rules.leaseSeconds) * 1000;
      const fence = ++fences;
      Object.assign(row, { status: "claimed", fence, worker_id: worker, request_id, claimedAt: now(), expiresAt });
      model.onChange("claimed", row, worker, row.fence);
      return asClaim(row);
    });
  }

  function handBackAll(worker: string): void {
    for (const row of rows.filter((row) => row.worker_id === worker && row.status === "claimed")) {
      row.status = row.dueAt > now() ? "waiting" : "ready";
      row.worker_id = null;
      model.onChange("left", row, worker, row.fence);
    }
  }

  /** The state of the claim, or "lost": a row that shows this worker and fence and is not held was closed by it. */
  function close(worker: string, given: Given): string {
    const row = byId.get(given.item_id);
    if (row?.fence !== given.fence || row.worker_id !== worker) {
      return "lost";
    }
    if (row.status !== "claimed") {
      return row.status;
    }
    if (given.outcome === "succeeded") {
      Object.assign(row, { status: "succeeded", result: given.result });
    } else if (given.outcome === "released") {
      row.status = row.dueAt > now() ? "waiting" : "ready";
    } else {
      const backoff = rules.backoffSeconds * 2 ** row.failures++;
      row.status = given.final || row.failures >= rules.maxFailures ? "failed" : "waiting";
      Object.assign(row, { error: given.error, dueAt: now() + (given.retry_after_seconds ?? backoff) * 1000 });
    }
    model.onChange(given.outcome, row, worker, given.fence);
    return row.status;
  }

  function extend(worker: string, key: Key & { progress?: number }, ttl_seconds: number): object {
    const row = byId.get(key.item_id);
    if (row?.fence !== key.fence || row.worker_id !== worker || row.status !== "claimed") {
      const isCancelled = row?.fence === key.fence && row.status === "cancelled";
      return { ...key, state: isCancelled ? "cancelled" : "lost" };
    }
    Object.assign(row, { expiresAt: now() + ttl_seconds * 1000, progress: key.progress ?? row.progress });
    model.onChange("held", row, worker, row.fence);
    return { ...key, state: "held", ttl_seconds };
  }

  const counted = (status: string): number => rows.filter((row) => row.status === status).length;

  // biome-ignore lint/suspicious/noExplicitAny: the arguments of any function.
  const functions: Record<string, (args: any) => unknown> = {
    register_worker: ({ worker_id }) => ({ worker_id }),
    describe_work_types: ({ work_types }) =>
      work_types.map((name: string) => ({
        name,
        is_declared: true,
        pool: "default",
        is_paused: false,
        min_worker_version: rules.minWorkerVersion ?? null,
        has_ready: rows.some(isTakable),
        has_open: rows.some((row) => row.status === "claimed" || (row.status === "waiting" && row.fence > 0)),
        has_parked: false,
      })),
    work_remaining: ({ work_types }) =>
      work_types.map((name: string) => ({
        work_type: name,
        open: rows.filter((row) => !["succeeded", "failed", "cancelled"].includes(row.status)).length,
        running: counted("claimed"),
        ...{ done: counted("succeeded"), failed: counted("failed"), cancelled: counted("cancelled") },
        stopped: null,
        is_reopening: false,
      })),
    refused_classes: ({ class_ids }) => class_ids.filter((id: number) => model.refused.has(id)),
    retire_worker({ worker_id }) {
      handBackAll(worker_id);
      return true;
    },
    claim_next({ worker_id, max_items, ttl_seconds, request_id }) {
      if (isRepeated(request_id)) {
        return ofRequest(worker_id, request_id);
      }
      reap();
      return take(
        rows.filter((row) => isTakable(row) && isMatched(row)).slice(0, max_items),
        worker_id,
        ttl_seconds,
        request_id,
      );
    },
    claim_items({ item_ids, worker_id, ttl_seconds, request_id }) {
      if (isRepeated(request_id)) {
        return ofRequest(worker_id, request_id);
      }
      reap();
      const wanted = new Set<string>(item_ids);
      const won = rows.filter((row) => wanted.has(row.item_id) && isTakable(row) && isMatched(row));
      return take(won, worker_id, ttl_seconds, request_id);
    },
    release_items: ({ worker_id, outcomes }) => outcomes.map((outcome: Given) => close(worker_id, outcome)),
    finish_and_claim({ outcomes, ...args }) {
      const noted = requests.get(args.request_id);
      const released =
        noted?.released ?? (functions.release_items?.({ worker_id: args.worker_id, outcomes }) as string[]);
      const claimed = functions.claim_next?.(args);
      // This call may claim a failed item again, so a repeated call could not see its state.
      requests.set(args.request_id, { released });
      return { released, claimed };
    },
    extend_claims: ({ worker_id, held, ttl_seconds }) =>
      held.map((key: Key) => extend(worker_id, key, ttl_seconds ?? rules.leaseSeconds)),
  };

  function read(pathAndQuery: string): unknown[] {
    const [name, query] = pathAndQuery.split("?") as [string, string];
    switch (name) {
      case "work_items":
        return query.startsWith("select=seq&") ? windowEnd(query) : candidates(query);
      default:
        return [{ name: "default" }];
    }
  }

  /** A row's seq is its place in the list, from 1. */
  function windowEnd(query: string): unknown[] {
    const seq = Number(/seq=gt\.(\d+)/.exec(query)?.[1]) + Number(/offset=(\d+)/.exec(query)?.[1]) + 1;
    return seq <= rows.length ? [{ seq }] : [];
  }

  function candidates(query: string): unknown[] {
    const after = Number(/seq=gt\.(\d+)/.exec(query)?.[1]);
    const until = Number(/seq=lte\.(\d+)/.exec(query)?.[1] ?? rows.length);
    const limit = Number(/limit=(\d+)/.exec(query)?.[1]);
    const passedOver = /class_id=not\.in\.\(([\d,]+)\)/.exec(query)?.[1]?.split(",").map(Number) ?? [];
    const isFree = (row: Row): boolean => isTakable(row) || (row.status === "claimed" && row.expiresAt <= now());
    return rows
      .map((row, n) => ({ row, seq: n + 1 }))
      .filter(({ row, seq }) => seq > after && seq <= until && isFree(row) && !passedOver.includes(row.class_id))
      .slice(0, limit)
      .map(({ row: { item_id, class_id }, seq }) => {
        return { id: item_id, seq, class_id };
      });
  }
  return model;
}
