// Named locks: claims take slots of them.
import { type Claim, claimOf, type Lock, type Model, type Receipt, recordLate } from "./model.ts";
import { lapsed, takeBack } from "./model-claiming.ts";

/** Its claim is held, under the fence with which it took the slot. A lease that has ended counts until it is taken back. */
export function isTaken(model: Model, { item, type, claimFence }: Lock): boolean {
  const claim = claimOf(model, item, type);
  return claim?.status === "claimed" && claim.fence === claimFence && !claim.isParked;
}

/** The slot that a claim gets of so many, or has already; null where each is taken. A new one takes its fence from the database. */
export function takeLock(
  model: Model,
  name: string,
  slots: number,
  { item, type, worker, fence }: Receipt,
  told: number,
): Pick<Lock, "slot" | "fence"> | "lost" | null {
  const claim = claimOf(model, item, type);
  const isHeld = claim?.status === "claimed" && claim.worker === worker && claim.fence === fence;
  if (!isHeld || claim.isParked || claim.expiresAt <= model.now) {
    if (claim) {
      recordLate(claim, "stale_lock");
    }
    return "lost";
  }
  model.locks = model.locks.filter((lock) => isTaken(model, lock));
  const taken = model.locks.filter((lock) => lock.name === name);
  const late = lapsed(model).filter((each) => taken.some((lock) => claimOf(model, lock.item, lock.type) === each));
  const isAmong = ({ item: of, type: work }: Claim): boolean =>
    late.some((each) => each.item === of) && late.some((each) => each.type === work);
  takeBack(model, lapsed(model).filter(isAmong));
  const left = taken.filter((lock) => isTaken(model, lock));
  const own = left.find((lock) => lock.item === item && lock.type === type);
  if (own || left.length >= slots) {
    return own ? { slot: own.slot, fence: own.fence } : null;
  }
  const numbers = Array.from({ length: slots }, (_, index) => index + 1);
  const slot = numbers.find((number) => !left.some((lock) => lock.slot === number)) ?? 0;
  model.locks = model.locks.filter((lock) => lock.name !== name || lock.slot !== slot);
  model.locks.push({ name, slot, item, type, claimFence: fence, fence: told });
  return { slot, fence: told };
}

/** Whether the claim had a slot. A slot of a claim that has ended is no longer taken, but is there until the next caller. */
export function dropLock(model: Model, name: string, { item, type, worker, fence }: Receipt): boolean {
  const claim = claimOf(model, item, type);
  const own = model.locks.find(
    (lock) => lock.name === name && lock.item === item && lock.type === type && lock.claimFence === fence,
  );
  if (!own || claim?.worker !== worker || claim.fence !== fence) {
    return false;
  }
  model.locks = model.locks.filter((lock) => lock !== own);
  return true;
}
