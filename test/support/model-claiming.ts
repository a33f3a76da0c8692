// How claims are taken, and taken back when their lease ends.
import { compare, inOrder, judgeClass, type Row, type Wish, type Worker } from "./matching-oracle.ts";
import {
  type Claim,
  claimOf,
  defaults,
  end,
  type Item,
  inRank,
  type Model,
  move,
  rankOf,
  reopen,
  rulesOf,
} from "./model.ts";
import { stopAtDeadEnds } from "./model-ending.ts";
import { enroll, follow } from "./model-needs.ts";

const isLastCrash = (model: Model, { type, crashes }: Claim): boolean =>
  crashes + 1 >= rulesOf(model, type).max_crashes;

function lapse(model: Model, claim: Claim, isLast: boolean): void {
  claim.crashes += 1;
  claim.worker = null;
  claim.isParked = claim.job !== null && isLast;
  if (isLast) {
    claim.progress = null;
    claim.dueAt = Math.max(claim.dueAt, model.now);
    end(claim, "expired", "failed", model.now);
    follow(model, [claim]);
  } else {
    reopen(claim, "expired", claim.dueAt, model.now);
  }
}

export function lapsed(model: Model): Claim[] {
  return [...model.claims.values()].filter((claim) => claim.status === "claimed" && claim.expiresAt <= model.now);
}

/** Takes back these claims, which have lapsed. Those that fail with it come last, since others may follow them. */
export function takeBack(model: Model, claims: Claim[]): void {
  const last = claims.filter((claim) => isLastCrash(model, claim));
  for (const claim of claims.filter((each) => !last.includes(each))) {
    lapse(model, claim, false);
  }
  for (const claim of last) {
    lapse(model, claim, true);
  }
  stopAtDeadEnds(model, last);
}

/** The start of every claim call. */
export function catchUp(model: Model): void {
  takeBack(model, lapsed(model));
  for (const claim of model.claims.values()) {
    if (claim.status === "waiting" && claim.dueAt <= model.now) {
      move(claim, "due", "ready");
    }
  }
}

/** True where this request has been made before. */
function isRepeated(model: Model, request: string | null): boolean {
  const isKnown = request !== null && model.requests.has(request);
  if (request !== null) {
    model.requests.add(request);
  }
  return isKnown;
}

/** The claims that a worker still holds of an earlier request. */
function heldOf(model: Model, worker: string, request: string | null): Claim[] {
  return [...model.claims.values()]
    .filter((claim) => claim.status === "claimed" && claim.worker === worker && claim.request === request)
    .filter((claim) => !claim.isParked)
    .sort((one, other) => inRank(model, one, other));
}

function workerOf(model: Model, id: string): Worker {
  return model.workers.get(id) ?? { id, capabilities: {} };
}

export interface Ask {
  worker: string;
  ttl: number | null;
  request: string | null;
}

/** The worker holds the claim from here on, with the fence of the database's answer. */
export function hold(model: Model, claim: Claim, { worker, ttl, request }: Ask, fence: number): void {
  if (claim.status === "waiting") {
    move(claim, "due", "ready");
  }
  move(claim, "claimed", "claimed");
  claim.worker = worker;
  claim.fence = fence;
  claim.request = request;
  claim.expiresAt = model.now + (ttl ?? rulesOf(model, claim.type).lease_seconds);
  claim.progress = null;
  claim.isParked = false;
  model.moment += 1;
  Object.assign(claim, { claimedAt: model.moment, readInput: null, isAgain: false });
  model.receipts.push({ item: claim.item.id, type: claim.type, worker, fence });
}

function rowOf(model: Model, claim: Claim): Row {
  const { item, type } = claim;
  return {
    item_id: item.id,
    work_type: type,
    class_id: kindNumber(item),
    ...rankOf(model, item),
    affinity: item.affinity,
    pool: item.pool,
    workflow: item.workflow,
    requires: item.requires,
    labels: item.labels,
    ready_seconds: model.now - claim.dueAt,
    passed_over_seconds: rulesOf(model, type).passed_over_seconds,
  };
}

const kinds: string[] = [];
function kindNumber({ requires, labels }: Item): number {
  const kind = JSON.stringify([requires, labels]);
  if (!kinds.includes(kind)) {
    kinds.push(kind);
  }
  return kinds.indexOf(kind);
}

/** The right answer of a claim call: these claims in order. A repeated call gets those still held of the first. */
export interface Expected {
  isRepeated: boolean;
  claims: Claim[];
  /** Whether another claim may replace it: the same item's, for another work type. */
  isAsGood(one: Claim, other: Claim): boolean;
}

export function claimNext(model: Model, ask: Ask, wish: Wish): Expected {
  if (isRepeated(model, ask.request)) {
    return {
      isRepeated: true,
      claims: heldOf(model, ask.worker, ask.request),
      isAsGood: (one, other) => inRank(model, one, other) === 0 && other.request === ask.request,
    };
  }
  catchUp(model);
  const ready = [...model.claims.values()].filter(
    ({ status, type }) => status === "ready" && wish.work_types.includes(type) && !rulesOf(model, type).paused,
  );
  const rows = inOrder(
    ready.map((claim) => rowOf(model, claim)),
    workerOf(model, ask.worker),
    wish,
  );
  const claimed = (row: Row): Claim => claimOf(model, row.item_id, row.work_type) as Claim;
  return {
    isRepeated: false,
    claims: rows.slice(0, wish.max_items).map(claimed),
    isAsGood: (one, other) =>
      rows.some((row) => claimed(row) === other) && compare(rowOf(model, one), rowOf(model, other)) === 0,
  };
}

export function claimItems(model: Model, ask: Ask, type: string, ids: string[]): Expected {
  const isAsGood = (one: Claim, other: Claim): boolean => one === other;
  if (isRepeated(model, ask.request)) {
    return { isRepeated: true, claims: heldOf(model, ask.worker, ask.request), isAsGood };
  }
  // A call that names items leaves the others alone: it may wait for rows, and must not hold rows of others then.
  if (ids.length === 0) {
    catchUp(model);
  }
  if (ids.length > 0 && !model.types.has(type)) {
    model.types.set(type, { ...defaults });
  }
  if (rulesOf(model, type).paused) {
    return { isRepeated: false, claims: [], isAsGood };
  }
  takeBack(
    model,
    lapsed(model).filter((claim) => claim.type === type && ids.includes(claim.item.id)),
  );
  const worker = workerOf(model, ask.worker);
  const items = [...new Set(ids)].flatMap((id) => model.items.get(id) ?? []);
  const isDue = (item: Item): boolean => item.runAfter === null || item.runAfter <= model.now;
  enroll(
    model,
    items.filter((item) => isDue(item) && judgeClass(item, worker) !== "never" && !claimOf(model, item.id, type)),
    [type],
  );
  const claims = items
    .flatMap((item) => {
      const claim = claimOf(model, item.id, type);
      const judged = judgeClass(item, worker);
      const isOldEnough = claim !== undefined && model.now - claim.dueAt >= (worker.yield_seconds ?? 0);
      const isMatched = judged === "at once" || (judged === "after a while" && isOldEnough);
      const isFree = claim?.status === "ready" || (claim?.status === "waiting" && claim.dueAt <= model.now);
      return claim && isFree && isMatched ? [claim] : [];
    })
    .sort((one, other) => inRank(model, one, other));
  return { isRepeated: false, claims, isAsGood };
}
