// What claims wait for, and what follows from the end of a claim, or from its opening again.
import {
  type Claim,
  claimOf,
  end,
  firstName,
  type Item,
  isOpen,
  key,
  type Model,
  move,
  type Need,
  newClaim,
  openStatus,
  Refused,
  reopen,
  rulesOf,
  schedule,
  withCopies,
} from "./model.ts";

const hasFailed = (claim: Claim | undefined): boolean => claim?.status === "failed" || claim?.status === "cancelled";

/** A need is met by a success; for a work type that runs anyway, by any end. */
const isMetBy = (model: Model, type: string, needed: Claim | undefined): boolean =>
  needed?.status === "succeeded" || (rulesOf(model, type).on_failed_need === "run" && hasFailed(needed));

/** The work types of the same item that a work type needs: each claim of one that has several. */
const typesNeeded = (model: Model, type: string): string[] =>
  rulesOf(model, type).depends_on.flatMap((name) => withCopies(model, name));

/** Those that belong to a workflow, besides the items that wait for it. */
const membersOf = (model: Model, workflow: string): Item[] =>
  [...model.items.values()].filter((item) => item.workflow === workflow && item.gathers !== workflow);

const claimsOf = (model: Model, item: Item): Claim[] =>
  [...model.claims.values()].filter((claim) => claim.item === item);

function endOf(model: Model, workflow: string): { isOver: boolean; isSucceeded: boolean } {
  const members = membersOf(model, workflow);
  const claims = members.flatMap((item) => claimsOf(model, item));
  const isOver = members.length > 0 && !claims.some(isOpen);
  return { isOver, isSucceeded: isOver && !claims.some(hasFailed) };
}

/** The claims that a claim needs, by its work type's rules, its item's needs and workflows. */
export function neededClaims(model: Model, claim: Claim): Claim[] {
  const needed = claim.needs.flatMap((need) =>
    "workflow" in need
      ? membersOf(model, need.workflow).flatMap((item) => claimsOf(model, item))
      : (claimOf(model, need.item, need.type) ?? []),
  );
  const own = typesNeeded(model, claim.type).flatMap((type) => claimOf(model, claim.item.id, type) ?? []);
  return [...new Set([...own, ...needed])];
}

function unmet(model: Model, claim: Claim): number {
  const own = typesNeeded(model, claim.type).map((type) => claimOf(model, claim.item.id, type));
  return (
    claim.needs.filter((need) => !need.isMet).length +
    own.filter((needed) => !isMetBy(model, claim.type, needed)).length
  );
}

/** Work types of the needed item: the named one, else the claim's own, else all of the needed item's pool. */
function neededTypes(model: Model, type: string, pool: string, named: string | null): string[] {
  const ofPool = [...model.types].filter(([, rules]) => rules.pool === pool).map(([name]) => name);
  const one = named ?? (ofPool.includes(type) ? firstName(type) : null);
  return one === null ? ofPool : [...new Set([one, ...withCopies(model, one)])];
}

const isSame = (one: Need, other: Need): boolean =>
  "workflow" in one
    ? "workflow" in other && one.workflow === other.workflow
    : "item" in other && one.item === other.item && one.type === other.type;

/** Whether a part of a workflow needs something that waits for the whole of it. */
export function needsItsWhole(model: Model, workflow: string | null): boolean {
  const claims = [...model.claims.values()];
  const waits = (claim: Claim, name: string | null): boolean =>
    claim.needs.some((need) => "workflow" in need && need.workflow === name);
  const needs = (claim: Claim, { item, type }: Claim): boolean =>
    (claim.item === item && typesNeeded(model, claim.type).includes(type)) ||
    claim.needs.some((need) => "item" in need && need.item === item.id && need.type === type) ||
    (item.workflow !== null && waits(claim, item.workflow));
  const down = workflow === null ? [] : claims.filter((claim) => waits(claim, workflow));
  const after = new Set<Claim>();
  for (const claim of down) {
    for (const each of claims.filter((other) => needs(other, claim) && !after.has(other))) {
      after.add(each);
      down.push(each);
    }
  }
  return [...after].some(({ item }) => item.workflow === workflow && item.gathers !== workflow);
}

/** Makes claims for items that have none, and counts what they wait for. */
export function enroll(model: Model, items: Item[], types: string[]): void {
  let isNew = false;
  for (const item of items) {
    for (const type of types.filter((name) => !claimOf(model, item.id, name))) {
      const dueAt = Math.max(item.runAfter ?? model.now, model.now);
      const mayWait = item.needs.length > 0 || item.gathers !== null || rulesOf(model, type).depends_on.length > 0;
      const claim = newClaim(item, type, openStatus(mayWait ? 1 : 0, dueAt, model.now), dueAt);
      model.claims.set(key(item.id, type), claim);
      isNew = true;
    }
  }
  if (isNew) {
    countNeeds(model, items, types);
  }
}

/** Each item gets more claims for this work type: later items at once, earlier ones by enrollPool(). */
export function raiseSeveral(model: Model, type: string, several: number): void {
  const rules = rulesOf(model, type);
  if (several > rules.several) {
    for (; rules.several < several; rules.several += 1) {
      model.types.set(`${type}#${rules.several + 1}`, rules);
    }
    countNeedsOf(
      model,
      [...model.types.keys()].filter((name) => rulesOf(model, name).depends_on.includes(type)),
    );
  }
}

export function dependOn(model: Model, type: string, on: string[]): void {
  const reaches = (from: string): boolean => from === type || rulesOf(model, from).depends_on.some(reaches);
  if (on.some(reaches)) {
    throw new Refused();
  }
  const rules = rulesOf(model, type);
  if (JSON.stringify(rules.depends_on) !== JSON.stringify(on)) {
    rules.depends_on = on;
    countNeedsOf(model, withCopies(model, type));
  }
}

/** Work types got other needs. */
function countNeedsOf(model: Model, types: string[]): void {
  for (const type of types.sort()) {
    const items = [...model.items.values()].filter((item) => claimOf(model, item.id, type));
    countNeeds(model, items, [type]);
  }
}

/** Claims for items that were there before. Answers how many. */
export function enrollPool(model: Model, pool: string): number {
  const before = model.claims.size;
  const items = [...model.items.values()].filter((item) => item.pool === pool);
  for (const type of [...model.types.keys()].filter((name) => rulesOf(model, name).pool === pool).sort()) {
    enroll(
      model,
      items.filter((item) => !claimOf(model, item.id, type)),
      [type],
    );
  }
  return model.claims.size - before;
}

/** Writes down the needs of these items' claims, and blocks or readies those that are open. Done work stays done. */
export function countNeeds(model: Model, items: Item[], types: string[]): void {
  const claims = items.flatMap((item) => claimsOf(model, item)).filter((claim) => types.includes(claim.type));
  for (const claim of claims) {
    const named = claim.item.needs.flatMap(({ item, type }): Need[] => {
      const pool = model.items.get(item)?.pool;
      const needed = pool === undefined ? [] : neededTypes(model, claim.type, pool, type);
      return needed.map((name) => ({
        ...{ item, type: name },
        isMet: isMetBy(model, claim.type, claimOf(model, item, name)),
      }));
    });
    const gathered: Need[] =
      claim.item.gathers === null ? [] : [{ workflow: claim.item.gathers, isMet: isGathered(model, claim) }];
    for (const need of [...named, ...gathered]) {
      if (!claim.needs.some((each) => isSame(each, need))) {
        claim.needs.push(need);
      }
    }
    claim.waitsFor = unmet(model, claim);
    if (claim.status === "blocked" || (["waiting", "ready"].includes(claim.status) && claim.waitsFor > 0)) {
      settle(model, claim, claim.dueAt);
    }
  }
  // The needs may have failed long ago.
  for (const claim of claims.filter((each) => each.status === "blocked" && failsWithNeeds(model, each))) {
    failWithNeed(model, claim);
  }
  lookAt(
    model,
    items.flatMap(({ workflow, gathers }) => [...(workflow === gathers ? [] : [workflow]), gathers]),
  );
}

function isGathered(model: Model, claim: Claim): boolean {
  const ended = endOf(model, claim.item.gathers ?? "");
  return rulesOf(model, claim.type).on_failed_need === "run" ? ended.isOver : ended.isSucceeded;
}

function failsWithNeeds(model: Model, claim: Claim): boolean {
  const single = claim.needs.filter((need) => "item" in need && !need.isMet) as { item: string; type: string }[];
  const own = typesNeeded(model, claim.type).map((type) => ({ item: claim.item.id, type }));
  return (
    rulesOf(model, claim.type).on_failed_need === "fail" &&
    [...single, ...own].some((need) => hasFailed(claimOf(model, need.item, need.type)))
  );
}

function failWithNeed(model: Model, claim: Claim): void {
  end(claim, "failed: with its need", "failed", model.now);
  claim.isParked = false;
  follow(model, [claim]);
}

/** These claims ended or were opened again: what needs them changes, and what needs that. */
export function follow(model: Model, changed: Claim[]): void {
  for (const needed of changed) {
    const { item, type } = needed;
    const isNeed = (need: Need): boolean => "item" in need && need.item === item.id && need.type === type;
    const dependents = [...model.claims.values()].filter(
      (claim) => claim.needs.some(isNeed) || (claim.item === item && typesNeeded(model, claim.type).includes(type)),
    );
    for (const claim of dependents) {
      for (const need of claim.needs.filter(isNeed)) {
        need.isMet = isMetBy(model, claim.type, needed);
      }
    }
    for (const claim of dependents) {
      recount(model, claim, rulesOf(model, claim.type).on_failed_need === "fail" && hasFailed(needed));
    }
    lookAt(model, [item.workflow], false);
  }
}

/** Looks whether these workflows are over. Items that came or went do not undo what is done; work that is done again does. */
export function lookAt(model: Model, workflows: (string | null)[], staysDone = true): void {
  for (const name of new Set(workflows)) {
    if (name === null || !model.workflows.get(name)?.isGathered) {
      continue;
    }
    const { isOver, isSucceeded } = endOf(model, name);
    for (const claim of model.claims.values()) {
      const rule = rulesOf(model, claim.type).on_failed_need;
      for (const need of claim.needs) {
        if ("workflow" in need && need.workflow === name) {
          need.isMet = rule === "run" ? isOver : isSucceeded;
          recount(model, claim, rule === "fail" && isOver && !isSucceeded, staysDone);
        }
      }
    }
  }
}

/** Counts anew what a claim waits for, with what follows from that. */
export function recount(model: Model, claim: Claim, fails = false, staysDone = false): void {
  const more = unmet(model, claim) - claim.waitsFor;
  claim.waitsFor += more;
  if (claim.status === "blocked" && fails) {
    failWithNeed(model, claim);
  } else if (claim.status === "blocked" && claim.waitsFor === 0) {
    settle(model, claim, Math.max(claim.dueAt, model.now));
  } else if (more > 0 && (claim.status === "waiting" || claim.status === "ready")) {
    move(claim, "blocked", "blocked");
  } else if (more > 0 && claim.status === "claimed") {
    claim.isAgain = true;
  } else if (more > 0 && !staysDone && (claim.status === "succeeded" || claim.status === "failed")) {
    openAgain(model, [claim], "reopened: its need is open");
  }
}

/** Its wait stays as it was drawn. */
function settle(model: Model, claim: Claim, dueAt: number): void {
  const { dueBy } = claim;
  schedule(claim, claim.waitsFor > 0 ? "blocked" : "unblocked", dueAt, model.now);
  claim.dueBy = dueBy !== null && dueBy > model.now ? dueBy : null;
}

/** Opens claims that have ended, with their tries reset. Their results stay, marked stale. */
export function openAgain(model: Model, claims: Claim[], cause: string, pauseOf = (_: Claim) => 0): void {
  for (const claim of claims) {
    claim.isStale ||= claim.status === "succeeded";
    reopen(claim, cause, Math.max(claim.item.runAfter ?? model.now, model.now + pauseOf(claim)), model.now);
    Object.assign(claim, { isParked: false, failures: 0, crashes: 0 });
  }
  follow(model, claims);
}

/** Nothing waits for an item that is gone. */
export function forget(model: Model, id: string): void {
  const gone = model.items.get(id);
  model.items.delete(id);
  for (const [name, claim] of model.claims) {
    if (claim.item.id === id) {
      model.claims.delete(name);
    }
  }
  for (const claim of model.claims.values()) {
    claim.needs = claim.needs.filter((need) => !("item" in need && need.item === id));
    recount(model, claim);
  }
  const workflow = gone?.workflow ?? null;
  // A workflow whose last part is gone changes nothing of the claims that waited for it.
  if ([...model.items.values()].some((item) => item.workflow === workflow && item.gathers !== workflow)) {
    lookAt(model, [workflow]);
  }
}

/** The items go on without their workflow, and nothing waits for it. */
export function forgetWorkflow(model: Model, name: string): void {
  model.workflows.delete(name);
  for (const item of model.items.values()) {
    item.workflow = item.workflow === name ? null : item.workflow;
    item.gathers = item.gathers === name ? null : item.gathers;
  }
  for (const claim of model.claims.values()) {
    claim.needs = claim.needs.filter((need) => !("workflow" in need && need.workflow === name));
    recount(model, claim);
  }
}
