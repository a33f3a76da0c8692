// The numbers that a command was drawn with become the claims and items that are there at that moment.
import type { Wish } from "./matching-oracle.ts";
import { type Claim, claimOf, key, type Model, type Receipt } from "./model.ts";
import type { Drawn, Named, Said, Wanted } from "./model-commands.ts";
import { type Given, jobOf, parkSeconds, snoozeSeconds } from "./model-ending.ts";
import type { NewItem, Reference } from "./model-enqueueing.ts";

/** The same, with the claim that it is said of. */
export type Spoken = Said & Receipt;

export function nth<Value>(values: Value[], n: number): Value | undefined {
  return values[n % values.length];
}

export const nobody = "00000000-0000-4000-8000-000000000000";

/** Items by number. The number after the last means an item that was never enqueued. */
export const itemsOf = (model: Model, numbers: number[]): string[] =>
  numbers.map((number) => nth([...model.items.keys(), nobody], number) ?? nobody);

/** An item by number: more often than not one that a worker has had. */
export function itemOf(model: Model, number: number): string {
  const worked = [...model.items.keys()].filter((id) => model.receipts.some((receipt) => receipt.item === id));
  return (number % 3 > 0 ? nth(worked, number) : undefined) ?? itemsOf(model, [number])[0] ?? nobody;
}

/** The time until the last lease or wait ends. */
export function restOf({ claims, now }: Model): number {
  const ends = [...claims.values()].map(({ status, expiresAt, dueAt }) =>
    status === "claimed" ? expiresAt : status === "waiting" ? dueAt : now,
  );
  return Math.max(130, ...ends.map((end) => Math.ceil(end - now)));
}

export const isHeld = (model: Model, { item, type: of, worker: by, fence }: Receipt): boolean => {
  const claim = claimOf(model, item, of);
  return claim?.status === "claimed" && claim.worker === by && claim.fence === fence;
};

function receiptOf(model: Model, by: string | null, { receipt, of }: Said): Receipt | undefined {
  const newestFirst = [...model.receipts].reverse();
  const held = newestFirst.filter((each) => isHeld(model, each) && (by === null || each.worker === by));
  return nth(of === "held" && held.length > 0 ? held : newestFirst, receipt);
}

/** The worker that reports, and its claims. A call has at most one outcome for a claim. */
export function spoken(model: Model, by: string | null, all: Said[]): [string, Spoken[]] {
  const speaks = by ?? (all[0] && receiptOf(model, by, all[0])?.worker) ?? "plain";
  const given = all.map((each): Spoken => {
    const found = receiptOf(model, speaks, each) ?? { item: nobody, type: "draw", worker: speaks, fence: 1 };
    const fence = { given: found.fence, next: found.fence + 1, invented: model.lastFence + 1000 }[each.withFence];
    return { ...each, ...found, fence };
  });
  const first = (each: Spoken): Spoken | undefined =>
    given.find((other) => key(other.item, other.type) === key(each.item, each.type));
  return [speaks, given.filter((each) => first(each) === each)];
}

/** The claim that has this lock's slot or had it, or another one. */
export function lockSaid(model: Model, lock: number | null, said: Said): Receipt & { name: string } {
  const slot = lock === null ? undefined : nth(model.locks, lock);
  const taker = model.receipts.find((receipt) => receipt.fence === slot?.claimFence);
  const [, [given]] = spoken(model, null, [said]) as [string, [Spoken]];
  return { name: slot?.name ?? "licence", ...(said.withFence === "given" && taker ? taker : given) };
}

/** A need of an item of a call of so many items. */
export function referenceOf(model: Model, { by, n, type }: Named, howMany: number): Reference {
  const to =
    by === "key"
      ? { key: `k${1 + n}` }
      : by === "index" && howMany > 0
        ? { index: n % howMany }
        : { id: itemsOf(model, [n])[0] ?? nobody };
  return { ...to, ...(type === null ? {} : { work_type: type }) };
}

/** The items of a call. Most of them that need others by place need earlier ones. */
export const itemsDrawn = (model: Model, drawn: Drawn[]): NewItem[] =>
  drawn.map(({ needs, ...rest }, index) => ({
    ...rest,
    ...(needs ? { needs: needs.map((each) => referenceOf(model, each, each.n === 4 ? drawn.length : index)) } : {}),
  }));

/** As enqueue_items() takes them. */
export const itemsOut = (items: NewItem[]): object[] =>
  items.map(({ runAfterSeconds, dedupeKey, needsAllOf, maxFailures, ...rest }) => ({
    ...rest,
    ...(maxFailures ? { max_failures: maxFailures } : {}),
    ...(dedupeKey ? { dedupe_key: dedupeKey } : {}),
    ...(needsAllOf ? { needs_all_of: needsAllOf } : {}),
    ...(runAfterSeconds === undefined ? {} : { run_after: new Date(Date.now() + runAfterSeconds * 1000) }),
  }));

/** The work type and the items of a person's call. */
export function choice(
  model: Model,
  { claim, type: named, items }: { claim: number; type: string; items: number[] | null },
  isFit: (claim: Claim) => boolean,
): { work_type: string; item_ids: string[] | null } {
  const fit = nth([...model.claims.values()].filter(isFit), claim);
  const item_ids = items && itemsOf(model, items);
  return {
    work_type: fit?.type ?? named,
    item_ids: item_ids && fit ? item_ids.toSpliced(0, 1, fit.item.id) : item_ids,
  };
}

export function outcomeOf(said: Given): object {
  const {
    item,
    type: work_type,
    fence,
    outcome,
    final,
    retryAfter,
    result,
    state = null,
    items = [],
    needs = [],
  } = said;
  return {
    ...{ item_id: item, work_type, fence, outcome },
    ...(outcome === "succeeded" ? { result } : {}),
    ...(outcome === "failed" ? { error: "it broke", final, retry_after_seconds: retryAfter } : {}),
    ...(outcome === "snoozed" ? { seconds: snoozeSeconds, note: "not yet" } : {}),
    ...(outcome === "parked" ? { seconds: parkSeconds, external_id: jobOf(said) } : {}),
    ...(state === null ? {} : { state }),
    ...(items.length > 0 ? { items: itemsOut(items) } : {}),
    ...(needs.length > 0 ? { needs } : {}),
  };
}

/** New items come with a success or a snooze only, needs with a snooze. */
export const asGiven = (model: Model, given: Spoken[]): Given[] =>
  given.map(({ items, needs, retryAfter, ...rest }) => {
    const isMore = rest.outcome === "succeeded" || rest.outcome === "snoozed";
    const drawn = isMore ? items : [];
    return {
      ...rest,
      retryAfter: retryAfter ?? undefined,
      items: itemsDrawn(model, drawn),
      needs: rest.outcome === "snoozed" ? needs.map((each) => referenceOf(model, each, drawn.length)) : [],
    };
  });

export function wishOf({ types: work_types, max: max_items, warm }: Wanted): Wish {
  return { work_types, max_items, ...(warm.length > 0 ? { warm } : {}) };
}
