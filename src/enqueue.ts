import { batchesOf, type ItemOptions, type NewItem, newItem } from "../workers/runtime/new-item.ts";
import { onlyKnown } from "../workers/runtime/variable.ts";
import { checkWork, type Work } from "./define-work.ts";

export type EnqueueManyOptions<Payload> = {
  /** The options of each item. */
  readonly each?: ((payload: Payload, n: number) => ItemOptions) | undefined;
  /** The most items of one call, 1 to 1000; 500 without. A call has about a megabyte of payloads at most. */
  readonly batch?: number | undefined;
  /** After each call: how many there are so far, and the ids of this call. The next call waits for it. */
  readonly onProgress?: ((done: { enqueued: number; ids: string[] }) => void | Promise<void>) | undefined;
  readonly signal?: AbortSignal | undefined;
};

type EnqueueItems = (items: readonly NewItem[]) => Promise<string[]>;

export async function enqueue<Payload>(
  send: EnqueueItems,
  work: Work<Payload>,
  payload: Payload,
  options: ItemOptions = {},
): Promise<string> {
  const [id] = await send([await itemOf(work, payload, options)]);
  return id as string;
}

/** Reads the payloads no faster than the database takes them. Each call has a request id of its own. */
export async function enqueueMany<Payload>(
  send: EnqueueItems,
  work: Work<Payload>,
  payloads: Iterable<Payload> | AsyncIterable<Payload>,
  options: EnqueueManyOptions<Payload> = {},
): Promise<number> {
  onlyKnown("enqueueMany()", options, ["each", "batch", "onProgress", "signal"]);
  const { each, batch: most = 500, onProgress, signal } = options;
  if (!Number.isInteger(most) || most < 1 || most > 1000) {
    throw new RangeError(`batch is ${most}; 1 to 1000 items a call were expected`);
  }
  async function* items(): AsyncGenerator<{ item: NewItem }, void> {
    let n = 0;
    for await (const payload of payloads) {
      yield { item: await itemOf(work, payload, each?.(payload, n), `items[${n}].payload`) };
      n += 1;
    }
  }
  let enqueued = 0;
  for await (const batch of batchesOf(items(), most)) {
    signal?.throwIfAborted();
    const ids = await send(batch.map(({ item }) => item));
    enqueued += ids.length;
    await onProgress?.({ enqueued, ids });
  }
  return enqueued;
}

async function itemOf<Payload>(
  work: Work<Payload>,
  payload: Payload,
  options: ItemOptions | undefined,
  what?: string,
): Promise<NewItem> {
  checkWork(work);
  await work.judge(payload, what);
  return newItem(work.pool, payload, { requires: work.requires, ...options });
}
