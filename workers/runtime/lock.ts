import type { CallOptions } from "./client.ts";
import type { Held } from "./held.ts";
import { abortError } from "./host.ts";
import { errorType, itemFields, operations } from "./log.ts";
import { messageOf } from "./outcome.ts";
import { onlyKnown } from "./variable.ts";
import { lose, type Worker } from "./worker.ts";

export interface LockOptions {
  /** How many claims may have the lock at once; 1 unless said otherwise. Each caller of one name gives the same number. */
  slots?: number;
  /** A lock of this item alone, for work of several types on it. */
  perItem?: boolean;
}

/** A slot is asked for again after half a second to two, at random, so that many who wait do not ask in step. */
const pauseMs = 500;
const longestPauseMs = 2000;

/**
 * Runs a function while this claim has a slot of a lock, and waits for one before. The function gets the fence of the
 * slot. The lock ends with the claim at the latest: then its signal aborts, and the wait ends with it.
 */
export async function lock<Result>(
  worker: Worker,
  held: Held,
  name: string,
  options: LockOptions,
  action: (lockFence: number) => Result | Promise<Result>,
): Promise<Result> {
  onlyKnown("a lock", options, ["slots", "perItem"]);
  if (typeof action !== "function") {
    throw new Error(
      `lock() got an action of type ${typeof action}; expected is lock("${name}", { slots: 1 }, () => …)`,
    );
  }
  const { slots = 1, perItem = false } = options;
  const { signal } = held.abort;
  const { item_id, work_type, fence } = held.claim;
  const fullName = perItem ? `${name} ${item_id}` : name;
  if (held.locks.has(fullName)) {
    throw new Error(`the lock ${name} is held by this claim already; one call of lock() must end before the next`);
  }
  const key = { name: fullName, item_id, work_type, worker_id: worker.settings.workerId, fence };
  held.locks.add(fullName);
  try {
    const lockFence = await waitForSlot(worker, held, { ...key, slots });
    try {
      return await action(lockFence);
    } finally {
      await drop(worker, held, key);
    }
  } finally {
    held.locks.delete(fullName);
  }

  /** The end of the claim frees it too, so an error here must not fail what the handler has done. */
  async function drop({ client, log }: Worker, { claim }: Held, args: Record<string, unknown>): Promise<void> {
    const call: CallOptions = signal.aborted ? { retryForMs: 0 } : { signal };
    await client.rpc("drop_lock", args, call).catch((error: unknown) =>
      log(`could not drop the lock ${name}, it ends with its claim: ${messageOf(error)}`, {
        ...operations.handle,
        ...itemFields(claim),
        ...errorType(error),
      }),
    );
  }
}

async function waitForSlot(worker: Worker, held: Held, args: Record<string, unknown>): Promise<number> {
  const { client, clock, random } = worker;
  const { signal } = held.abort;
  for (let pause = pauseMs; ; pause = Math.min(longestPauseMs, pause * 1.5)) {
    signal.throwIfAborted();
    // A repeated call gets the same slot, so an answer that was lost costs nothing.
    const answer: { fence: number } | "lost" | null = await client
      .rpc("take_lock", args, { signal, retryForMs: Number.POSITIVE_INFINITY })
      .catch((error: unknown) => {
        signal.throwIfAborted();
        throw error;
      });
    if (answer === "lost") {
      lose(worker, held, "it asked for a lock too late");
      throw signal.reason ?? abortError("the claim is gone");
    }
    if (answer !== null) {
      return answer.fence;
    }
    await clock.sleep(pause * (0.5 + 0.5 * random()), signal);
  }
}
