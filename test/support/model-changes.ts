// How done work is done again: its input changed, its work type has a new version, or a person wants it.
import type { Json } from "../../src/answers.ts";
import { type Claim, claimOf, type Item, type Model, type Rules, rulesOf, withCopies } from "./model.ts";
import { openAgain } from "./model-needs.ts";

function inputOf({ payload, fingerprint }: Pick<Item, "payload" | "fingerprint">, { input_columns }: Rules): string {
  if (input_columns) {
    const members = (payload ?? {}) as Record<string, Json>;
    return JSON.stringify(input_columns.map((name) => members[name] ?? null));
  }
  return fingerprint ?? JSON.stringify(payload);
}

/** An item gets another payload or fingerprint. */
export function changeInput(model: Model, item: Item, to: Pick<Item, "payload" | "fingerprint">): void {
  const before = { payload: item.payload, fingerprint: item.fingerprint };
  Object.assign(item, to);
  const followed = [...model.types].filter(
    ([, { pool, on_change, input_columns }]) =>
      pool === item.pool &&
      (on_change === "again" || (on_change === null && (input_columns !== null || to.fingerprint !== null))),
  );
  const changed = followed
    .filter(([, rules]) => inputOf(before, rules) !== inputOf(to, rules))
    .flatMap(([type, rules]) => {
      const claim = claimOf(model, item.id, type);
      return claim ? [{ claim, was: claim.status, had: inputOf(before, rules), has: inputOf(to, rules) }] : [];
    });
  for (const { claim, had, has } of changed.filter(({ was }) => was === "claimed")) {
    claim.readInput = claim.readInput === has ? null : (claim.readInput ?? had);
  }
  openChanged(
    model,
    changed.filter(({ was }) => was === "succeeded" || was === "failed").map(({ claim }) => claim),
  );
}

/** How long a claim waits after this change: after ten, each within an hour of the one before, longer each time. */
function pauseAfterChange(model: Model, claim: Claim): number {
  claim.changes = claim.changedAt > model.now - 3600 ? claim.changes + 1 : 1;
  claim.changedAt = model.now;
  return claim.changes > 10 ? Math.min(3600, 10 * 2 ** (Math.min(claim.changes, 20) - 11)) : 0;
}

/** Done work whose input changed is done again. */
export function openChanged(model: Model, claims: Claim[]): void {
  openAgain(model, claims, "reopened: its input changed", (claim) => pauseAfterChange(model, claim));
}

/** A held claim is done again after its holder. Answers how many. */
export function invalidate(model: Model, type: string, ids: string[]): number {
  const named = [...new Set(ids)].flatMap((id) => claimOf(model, id, type) ?? []);
  const held = named.filter((claim) => claim.status === "claimed");
  const done = named.filter((claim) => claim.status === "succeeded");
  for (const claim of held) {
    claim.isAgain = true;
  }
  openAgain(model, done, "reopened: by hand");
  return held.length + done.length;
}

export function raiseVersion(model: Model, type: string): void {
  model.moment += 1;
  for (const name of withCopies(model, type)) {
    model.raised.set(name, model.moment);
  }
  rulesOf(model, type).version += 1;
}

export const isOfOlderVersion = (model: Model, claim: Claim): boolean =>
  claim.claimedAt < (model.raised.get(claim.type) ?? 0);

/** The upkeep of a claim call opens what was done under an older version. */
export function sweep(model: Model, type: string): void {
  const old = [...model.claims.values()].filter(
    (claim) => claim.type === type && claim.status === "succeeded" && isOfOlderVersion(model, claim),
  );
  openAgain(model, old, "reopened: an older version");
}
