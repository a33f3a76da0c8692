import type { NewItem } from "./answers.ts";
import type { Work } from "./define-work.ts";

/** The options of an item: all that it has beside its payload. */
export type EnqueueOptions = {
  /** More is earlier. */
  readonly priority?: number | undefined;
  /** At most one item of a pool has it: a second one is not added, and answers the id of the first. */
  readonly dedupeKey?: string | undefined;
  readonly runAfter?: Date | string | undefined;
  /** In place of the work's condition on a worker's capabilities. */
  readonly requires?: NewItem["requires"] | undefined;
  readonly labels?: NewItem["labels"] | undefined;
  readonly affinity?: string | undefined;
  readonly workflow?: string | undefined;
  readonly traceparent?: string | undefined;
  /** Names its input, in place of the payload: another one means another input. */
  readonly fingerprint?: string | undefined;
  /** In place of the work type's. */
  readonly maxFailures?: number | undefined;
  /** The items that it waits for. */
  readonly needs?: NewItem["needs"] | undefined;
  /** The workflow that it waits for as a whole. */
  readonly needsAllOf?: string | undefined;
};

export type EnqueueManyOptions<Payload> = {
  /** The options of each item. */
  readonly each?: ((payload: Payload, n: number) => EnqueueOptions) | undefined;
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
  options: EnqueueOptions = {},
): Promise<string> {
  await work.judge(payload);
  const [id] = await send([itemOf(work, payload, options)]);
  return id as string;
}

/** Reads the payloads no faster than the database takes them. Each call has a request id of its own. */
export async function enqueueMany<Payload>(
  send: EnqueueItems,
  work: Work<Payload>,
  payloads: Iterable<Payload> | AsyncIterable<Payload>,
  { each, batch = 500, onProgress, signal }: EnqueueManyOptions<Payload> = {},
): Promise<number> {
  if (!Number.isInteger(batch) || batch < 1 || batch > 1000) {
    throw new RangeError(`batch is ${batch}; 1 to 1000 items a call were expected`);
  }
  let enqueued = 0;
  for await (const items of batchesOf(itemsOf(work, payloads, each), batch)) {
    signal?.throwIfAborted();
    const ids = await send(items);
    enqueued += ids.length;
    await onProgress?.({ enqueued, ids });
  }
  return enqueued;
}

async function* itemsOf<Payload>(
  work: Work<Payload>,
  payloads: Iterable<Payload> | AsyncIterable<Payload>,
  each: EnqueueManyOptions<Payload>["each"],
): AsyncGenerator<NewItem, void> {
  let n = 0;
  for await (const payload of payloads) {
    await work.judge(payload, `items[${n}].payload`);
    yield itemOf(work, payload, each?.(payload, n));
    n += 1;
  }
}

/** A megabyte a call, or one item, whichever is more. */
const batchBytes = 1_000_000;

async function* batchesOf(items: AsyncIterable<NewItem>, most: number): AsyncGenerator<NewItem[], void> {
  let batch: NewItem[] = [];
  let bytes = 0;
  for await (const item of items) {
    const more = JSON.stringify(item).length;
    if (batch.length > 0 && bytes + more > batchBytes) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(item);
    bytes += more;
    if (batch.length === most) {
      yield batch;
      batch = [];
      bytes = 0;
    }
  }
  if (batch.length > 0) yield batch;
}

function itemOf(
  { pool, requires }: Work,
  payload: unknown,
  { dedupeKey, runAfter, maxFailures, needsAllOf, ...same }: EnqueueOptions = {},
): NewItem {
  // JSON leaves out undefined members: the database has its default for each.
  return {
    pool,
    requires,
    ...same,
    payload,
    dedupe_key: dedupeKey,
    run_after: runAfter instanceof Date ? runAfter.toISOString() : runAfter,
    max_failures: maxFailures,
    needs_all_of: needsAllOf,
  } as NewItem;
}
