// How items come, with the items that they need.
import { type Item, type Model, nameWorkflow, Refused } from "./model.ts";
import { changeInput } from "./model-changes.ts";
import { countNeeds, enroll, needsItsWhole } from "./model-needs.ts";

/** How a caller names an item: by its place in the call, by its id, or by its dedupe key; and one of its work types. */
export type Reference = ({ index: number } | { id: string } | { key: string }) & { work_type?: string };

export type NewItem = Partial<
  Pick<
    Item,
    | "pool"
    | "priority"
    | "dedupeKey"
    | "affinity"
    | "workflow"
    | "requires"
    | "labels"
    | "payload"
    | "fingerprint"
    | "maxFailures"
  >
> & { runAfterSeconds?: number; needs?: Reference[]; needsAllOf?: string };

const poolOf = (item: NewItem): string => item.pool ?? "default";

const keeperOf = (model: Model, pool: string, dedupeKey: string | null | undefined): Item | undefined =>
  [...model.items.values()].find((item) => dedupeKey && item.pool === pool && item.dedupeKey === dedupeKey);

/** The ids that enqueue_items() is to answer. A new item takes its id from the database. */
export function enqueue(model: Model, given: NewItem[], told: string[]): string[] {
  for (const { workflow } of given) {
    if (workflow) {
      nameWorkflow(model, workflow);
    }
  }
  const ids = given.map((item, index) => {
    const first = given.findIndex(
      (each) => item.dedupeKey && each.dedupeKey === item.dedupeKey && poolOf(each) === poolOf(item),
    );
    return (
      keeperOf(model, poolOf(item), item.dedupeKey)?.id ??
      told[first >= 0 ? first : index] ??
      `new ${first >= 0 ? first : index}`
    );
  });
  const needs = given.map((item) => (item.needs ?? []).map((each) => resolve(model, each, poolOf(item), given, ids)));
  refuseCircles(needs, ids);
  for (const { needsAllOf } of given) {
    if (needsAllOf) {
      nameWorkflow(model, needsAllOf).isGathered = true;
    }
  }

  const added: Item[] = [];
  for (const [index, item] of given.entries()) {
    model.seq += 1;
    const id = ids[index] as string;
    if (!model.items.has(id)) {
      added.push(newItem(model, id, item, needs[index] ?? []));
      model.items.set(id, added.at(-1) as Item);
    }
  }
  for (const pool of [...new Set(added.map((item) => item.pool))].sort()) {
    const types = [...model.types].filter(([, rules]) => rules.pool === pool).map(([name]) => name);
    enroll(
      model,
      added.filter((item) => item.pool === pool),
      types,
    );
  }
  const touched = added.flatMap(({ workflow, gathers }) => [workflow, gathers]);
  if (
    given.some((item) => item.needs || item.needsAllOf || item.fingerprint) &&
    touched.some((name) => needsItsWhole(model, name))
  ) {
    throw new Refused();
  }
  renew(model, given);
  return ids;
}

function newItem(model: Model, id: string, given: NewItem, needs: Item["needs"]): Item {
  return {
    id,
    pool: poolOf(given),
    seq: model.seq,
    priority: given.priority ?? 0,
    runAfter: given.runAfterSeconds === undefined ? null : model.now + given.runAfterSeconds,
    createdAt: model.now,
    dedupeKey: given.dedupeKey ?? null,
    affinity: given.affinity ?? null,
    workflow: given.workflow ?? null,
    requires: given.requires ?? {},
    labels: given.labels ?? {},
    payload: given.payload ?? {},
    fingerprint: given.fingerprint ?? null,
    needs,
    gathers: given.needsAllOf ?? null,
    maxFailures: given.maxFailures ?? null,
  };
}

function resolve(model: Model, to: Reference, pool: string, given: NewItem[], ids: string[]): Item["needs"][number] {
  const inCall = "key" in to ? given.findIndex((each) => each.dedupeKey === to.key && poolOf(each) === pool) : -1;
  const item =
    "index" in to
      ? ids[to.index]
      : "id" in to
        ? model.items.get(to.id)?.id
        : (ids[inCall] ?? keeperOf(model, pool, to.key)?.id);
  if (item === undefined) {
    throw new Refused();
  }
  return { item, type: to.work_type ?? null };
}

function refuseCircles(needs: Item["needs"][], ids: string[]): void {
  const next = (place: number): number[] =>
    (needs[place] ?? []).map(({ item }) => ids.indexOf(item)).filter((to) => to >= 0);
  const reaches = (from: number[], place: number, seen: number[] = []): boolean =>
    from.some((to) => to === place || (!seen.includes(to) && reaches(next(to), place, [...seen, to])));
  if (ids.some((_, place) => reaches(next(place), place))) {
    throw new Refused();
  }
}

function itemsNeededBy(model: Model, item: Item): Item[] {
  const named = item.needs.flatMap((need) => model.items.get(need.item) ?? []);
  const gathered = [...model.items.values()].filter(
    (each) => item.gathers !== null && each.workflow === item.gathers && each.gathers !== item.gathers,
  );
  return [...named, ...gathered];
}

function needsItself(model: Model, item: Item): boolean {
  const seen = new Set<Item>();
  const ahead = itemsNeededBy(model, item);
  for (const each of ahead) {
    if (!seen.has(each)) {
      seen.add(each);
      ahead.push(...itemsNeededBy(model, each));
    }
  }
  return seen.has(item);
}

/** An item that is there already gets the payload that came with another fingerprint. */
function renew(model: Model, given: NewItem[]): void {
  const last = new Map<Item, NewItem>();
  for (const item of given.filter((each) => each.fingerprint)) {
    const keeper = keeperOf(model, poolOf(item), item.dedupeKey);
    if (keeper) {
      last.set(keeper, item);
    }
  }
  for (const [item, { payload = {}, fingerprint }] of last) {
    if (item.fingerprint !== fingerprint) {
      changeInput(model, item, { payload, fingerprint: fingerprint ?? null });
    }
  }
}

/** Further needs of an item; references by index name these ids. */
export function addNeeds(model: Model, id: string, needs: Reference[], ids: string[] = []): void {
  const item = model.items.get(id) as Item;
  const resolved = needs.map((each) => resolve(model, each, item.pool, [], ids));
  item.needs = [...item.needs, ...resolved];
  if (needsItself(model, item)) {
    throw new Refused();
  }
  countNeeds(
    model,
    [item],
    [...model.claims.values()].filter((claim) => claim.item === item).map((claim) => claim.type),
  );
}
