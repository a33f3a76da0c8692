// One worker of the simulation: the real runtime, on a machine with simulated time, chance and network.
import { FinalError, RetryAfter, type Summary, type WorkOptions, work } from "../../workers/runtime/work.ts";
import type { Machine } from "./fake-clock.ts";
import type { seeded } from "./random.ts";

/** One claim in a handler's hands. */
export interface Run {
  readonly worker: Worker;
  readonly item: string;
  readonly fence: number;
  readonly signal: AbortSignal;
  end: "succeeded" | "failed" | null;
  /** The signal aborted before the handler came to an end. */
  isCut: boolean;
  /** Its try took too long, and its claim fails unless it ends at once. */
  isLimited: boolean;
  /** It came to an end only after its lease had. */
  isLate: boolean;
}

export interface Plan {
  readonly concurrency: number;
  /** Null: it follows the handlers. */
  readonly batch: number | null;
  readonly pool: string | null;
  readonly leaseSeconds: number | null;
  readonly graceSeconds: number;
  readonly untilEmpty: boolean;
  readonly maxClaims: number;
  /** Null: it leaves for other reasons only. */
  readonly leaveAfterSeconds: number | null;
  /** How long handlers take at most; some take longer, and some take no notice of their signal. */
  readonly handlerMs: number;
  readonly isWellBehaved: boolean;
}

export interface Worker {
  readonly name: string;
  readonly plan: Plan;
  readonly machine: Machine;
  /** A signal, as the process gets it: a second one ends it on the spot. */
  signal(): void;
  crash(): void;
  /** It has ended, or crashed. */
  readonly gone: Promise<void>;
  isGone: boolean;
  /** For how long it had been awake when it was first asked to stop. */
  askedAt: number | null;
  /** It claims no more, and what it holds has a limit. */
  isLeaving: boolean;
  isLimited: boolean;
}

export interface Witness {
  log(what: string): void;
  onStart(run: Run, payload: { n: number }): void;
  /** The handler has come to an end, or its signal aborts before. */
  onEnd(run: Run): void;
  onLeft(worker: Worker, lines: string[], summary: Summary): void;
  onThrown(worker: Worker, error: unknown): void;
}

/** When something is due in the life of a lease: a handler that ends just then meets it. */
const turns = [0.333, 0.5, 0.9, 1, 3];

/** Thrown in place of process.exit, which does not return either. */
export class Exit extends Error {}

export function startWorker(
  name: string,
  plan: Plan,
  machine: Machine,
  fetch: typeof globalThis.fetch,
  chances: ReturnType<typeof seeded>,
  witness: Witness,
): Worker {
  const { random, chance, below, pick } = chances;
  let resolveGone: () => void;
  const lines: string[] = [];
  const worker: Worker = {
    name,
    plan,
    machine,
    signal: () => machine.deliver(signalled),
    crash,
    gone: new Promise((resolve) => {
      resolveGone = resolve;
    }),
    isGone: false,
    askedAt: null,
    isLeaving: false,
    isLimited: false,
  };
  const leave = (): void => {
    worker.isGone = true;
    resolveGone();
  };

  function crash(): void {
    machine.crash();
    leave();
  }

  function signalled(): void {
    if (worker.isGone) {
      return;
    }
    const isSecond = worker.askedAt !== null;
    worker.askedAt ??= machine.awake();
    try {
      onSignal();
      if (isSecond) {
        witness.onThrown(worker, "nothing at a second signal");
      }
    } catch (error) {
      if (!(error instanceof Exit)) {
        throw error;
      }
      witness.log(`${name} exits`);
      crash();
    }
  }

  async function handler(
    claim: { item_id: string; fence: number; payload: { n: number } },
    context: Parameters<Parameters<typeof work>[1]>[1],
  ): Promise<unknown> {
    const { signal } = context;
    const run: Run = {
      worker,
      item: claim.item_id,
      fence: claim.fence,
      signal,
      end: null,
      isCut: false,
      isLimited: false,
      isLate: false,
    };
    signal.addEventListener("abort", () => {
      if (run.end === null && String(signal.reason).includes("try_seconds")) {
        run.isLimited = true;
        witness.log(`${name} ends the try of ${run.item.slice(-2)} under fence ${run.fence}`);
      } else if (run.end === null) {
        run.isCut = true;
        witness.onEnd(run);
      }
    });
    witness.onStart(run, claim.payload);
    try {
      await handle(context);
      run.end = "succeeded";
    } catch (error) {
      run.end = "failed";
      throw error;
    } finally {
      witness.onEnd(run);
    }
    return { item: claim.item_id, fence: claim.fence };
  }

  async function handle({ signal, progress, update }: Parameters<typeof handler>[1]): Promise<void> {
    const isDeaf = !plan.isWellBehaved && chance(0.15);
    const ms = chance(0.1) ? pick(turns) * (plan.leaseSeconds ?? 10) * 1000 + below(40) : plan.handlerMs * random();
    progress(random());
    if (!plan.isWellBehaved && chance(0.05)) {
      await update({ capabilities: { gpu: random() } });
    }
    await machine.sleep(ms, isDeaf ? undefined : signal);
    if (!isDeaf) {
      signal.throwIfAborted();
    }
    if (!plan.isWellBehaved && chance(0.2)) {
      throw pick([new Error("by chance"), new RetryAfter(5), new FinalError("for good")]);
    }
  }

  const options: WorkOptions = {
    url: "http://stack.test",
    key: "sb_secret_canary0123456789",
    workerId: name,
    concurrency: plan.concurrency,
    ...(plan.batch === null ? {} : { batch: plan.batch }),
    graceSeconds: plan.graceSeconds,
    untilEmpty: plan.untilEmpty,
    ...(plan.leaveAfterSeconds === null ? {} : { leaveAfterSeconds: plan.leaveAfterSeconds }),
    ...(Number.isFinite(plan.maxClaims) && { maxClaims: plan.maxClaims }),
    ...(plan.pool === null ? {} : { pool: plan.pool }),
    ...(plan.leaseSeconds === null ? {} : { leaseSeconds: plan.leaseSeconds }),
    clock: machine,
    random,
    fetch,
    log(line) {
      lines.push(line);
      worker.isLeaving ||= line.includes("claiming no more");
      worker.isLimited ||= line.includes("to finish within");
      witness.log(`${name} says: ${line}`);
    },
  };
  const before = process.listeners("SIGTERM");
  const working = work<{ n: number }>("embed", handler, options);
  const [onSignal] = process.listeners("SIGTERM").filter((listener) => !before.includes(listener)) as [() => void];
  // Signals come from the simulation alone.
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.off(signal, process.listeners(signal).at(-1) as () => void);
  }
  working
    .then(
      (summary) => witness.onLeft(worker, lines, summary),
      (error) => witness.onThrown(worker, error),
    )
    .then(leave);
  return worker;
}
