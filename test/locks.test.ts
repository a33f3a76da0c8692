import { describe, expect, test } from "vitest";
import {
  type Claim,
  call,
  claimNext,
  endLeases,
  events,
  extend,
  release,
  someoneWaits,
  stored,
  typeWithPool,
} from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { seed, seeded } from "./support/random.ts";
import { createToken, request } from "./support/tokens.ts";

const { sql, owner, as } = await openDatabase({ tokens: true });

interface Lock {
  slot: number;
  fence: number;
}

let names = 0;
const newName = (): string => `lock ${++names}`;

const keyOf = ({ item_id, work_type, fence }: Claim) => ({ item_id, work_type, fence });

function take(of: Sql, name: string, slots: number, worker: string, claim: Claim): Promise<Lock | "lost" | null> {
  return call(of, "take_lock", { name, slots, worker_id: worker, ...keyOf(claim) });
}

function drop(name: string, worker: string, claim: Claim): Promise<boolean> {
  return call(sql, "drop_lock", { name, worker_id: worker, ...keyOf(claim) });
}

/** So many claims of a new work type, held by worker w. */
async function held(howMany: number): Promise<{ type: string; claims: Claim[] }> {
  const { type } = await typeWithPool(sql, howMany);
  return { type, claims: await claimNext(sql, type, "w", howMany) };
}

describe("a lock", () => {
  test("has as many holders as slots, and each slot a new fence", async () => {
    const name = newName();
    const { claims } = await held(3);
    const [one, two, three] = claims as [Claim, Claim, Claim];
    const first = (await take(sql, name, 2, "w", one)) as Lock;
    const second = (await take(sql, name, 2, "w", two)) as Lock;
    expect([first.slot, second.slot]).toEqual([1, 2]);
    expect(second.fence).toBeGreaterThan(first.fence);
    expect(first.fence).toBeGreaterThan(three.fence);
    expect(await take(sql, name, 2, "w", three)).toBeNull();
    expect(await drop(name, "w", one)).toBe(true);
    const third = (await take(sql, name, 2, "w", three)) as Lock;
    expect(third.slot).toBe(1);
    expect(third.fence).toBeGreaterThan(second.fence);
  });

  test("answers a claim that asks again with the slot that it has", async () => {
    const name = newName();
    const { claims } = await held(1);
    const first = await take(sql, name, 1, "w", claims[0] as Claim);
    expect(await take(sql, name, 1, "w", claims[0] as Claim)).toEqual(first);
  });

  test("with fewer slots than are held admits no one", async () => {
    const name = newName();
    const [one, two, three] = (await held(3)).claims as [Claim, Claim, Claim];
    await take(sql, name, 2, "w", one);
    await take(sql, name, 2, "w", two);
    await drop(name, "w", one);
    expect(await take(sql, name, 1, "w", three)).toBeNull();
  });

  test("is free when the claim that holds it ends", async () => {
    for (const outcome of ["succeeded", "failed", "released", "snoozed", "parked"]) {
      const name = newName();
      const [one, two] = (await held(2)).claims as [Claim, Claim];
      await take(sql, name, 1, "w", one);
      expect(await take(sql, name, 1, "w", two)).toBeNull();
      await release(sql, "w", one, outcome, { seconds: 60, external_id: name });
      expect(await take(sql, name, 1, "w", two)).toMatchObject({ slot: 1 });
    }
  });

  test("is free when its holder's lease has ended, and takes the claim back first", async () => {
    const name = newName();
    const first = await held(1);
    const second = await held(1);
    await take(sql, name, 1, "w", first.claims[0] as Claim);
    await endLeases(owner, first.type);
    expect(await take(sql, name, 1, "v", second.claims[0] as Claim)).toBe("lost");
    expect(await take(sql, name, 1, "w", second.claims[0] as Claim)).toMatchObject({ slot: 1 });
    expect(await stored(owner, first.claims[0]?.item_id, first.type)).toMatchObject({ status: "ready", crashes: 1 });
    expect(await extend(sql, "w", first.claims[0])).toBe("lost");
  });

  test("stays with a claim whose late heartbeat is under way", async () => {
    const name = newName();
    const first = await held(1);
    const second = await held(1);
    const lock = await take(sql, name, 1, "w", first.claims[0] as Claim);
    await endLeases(owner, first.type);
    await sql.begin(async (transaction) => {
      await extend(transaction as unknown as Sql, "w", first.claims[0]);
      expect(await take(sql, name, 1, "w", second.claims[0] as Claim)).toBeNull();
    });
    expect(await take(sql, name, 1, "w", first.claims[0] as Claim)).toEqual(lock);
  });

  test("is refused to a claim that is not held, and this is recorded", async () => {
    const name = newName();
    const { type, claims } = await held(2);
    const [one, two] = claims as [Claim, Claim];
    expect(await take(sql, name, 1, "someone else", one)).toBe("lost");
    expect(await take(sql, name, 1, "w", { ...one, fence: one.fence - 1 })).toBe("lost");
    await release(sql, "w", two, "succeeded");
    expect(await take(sql, name, 1, "w", two)).toBe("lost");
    expect(await events(sql, one.item_id, type)).toEqual(["stale_lock", "stale_lock"]);
    expect(await sql`select from work_locks where name = ${name}`).toHaveLength(0);
  });

  test("is dropped by its holder only", async () => {
    const name = newName();
    const [one, two] = (await held(2)).claims as [Claim, Claim];
    await take(sql, name, 1, "w", one);
    expect(await drop(name, "w", two)).toBe(false);
    expect(await drop(name, "someone else", one)).toBe(false);
    expect(await drop(name, "w", { ...one, fence: two.fence })).toBe(false);
    expect(await drop(name, "w", one)).toBe(true);
    expect(await drop(name, "w", one)).toBe(false);
  });

  test("is listed with its holder while it is held", async () => {
    const name = newName();
    const { type, claims } = await held(1);
    const lock = (await take(sql, name, 1, "w", claims[0] as Claim)) as Lock;
    const list = () => sql`select slot, item_id, work_type, worker_id, fence from work_lock_list where name = ${name}`;
    expect(await list()).toEqual([
      { slot: 1, item_id: claims[0]?.item_id, work_type: type, worker_id: "w", fence: String(lock.fence) },
    ]);
    await release(sql, "w", claims[0], "succeeded");
    expect(await list()).toEqual([]);
  });

  test("goes to one of two calls at the same time", async () => {
    const name = newName();
    const [one, two] = (await held(2)).claims as [Claim, Claim];
    let answer: Promise<unknown> = Promise.resolve();
    await sql.begin(async (transaction) => {
      await take(transaction as unknown as Sql, name, 1, "w", one);
      const other = take(sql, name, 1, "w", two);
      await someoneWaits(owner);
      answer = other;
    });
    expect(await answer).toBeNull();
  });

  test("leaves no rows of claims that have ended for long", async () => {
    const { claims } = await held(30);
    for (const claim of claims) {
      await take(sql, newName(), 1, "w", claim);
      await release(sql, "w", claim, "succeeded");
    }
    const [last] = (await held(1)).claims as [Claim];
    for (let asked = 0; asked < 5; asked++) {
      await take(sql, newName(), 1, "w", last);
    }
    const dead = await owner`
      select from work_locks l where not exists (select from work_lock_list h where h.name = l.name)`;
    expect(dead).toHaveLength(0);
  });

  test.for([
    ["a name that is empty", { name: "" }, "name is ; a name of 1 to 300 characters was expected"],
    ["no slots", { slots: 0 }, "slots is 0; 1 to 1000 were expected"],
    ["more than 1000 slots", { slots: 1001 }, "slots is 1001; 1 to 1000 were expected"],
    ["no fence", { fence: null }, "fence is null; the fence that the claim came with was expected"],
    ["no item", { item_id: null }, "item_id is null; the id of the claimed item was expected"],
  ] as const)("is refused with %s", async ([, wrong, message]) => {
    const right = { name: "a", slots: 1, item_id: crypto.randomUUID(), work_type: "t", worker_id: "w", fence: 1 };
    await expect(call(sql, "take_lock", { ...right, ...wrong })).rejects.toThrow(message);
  });
});

describe("a worker with a token", () => {
  test("takes and drops locks for its own claims", async () => {
    const name = newName();
    const { type } = await typeWithPool(sql, 1);
    const foreign = await held(1);
    const token = await createToken(sql, `tokened-${type.replace(" ", "-")}`, [type]);
    const anon = as("anon");
    const [claim] = await request<Claim[]>(anon, token, "token_claim_next");
    const key = { name, ...keyOf(claim as Claim) };
    expect(await request(anon, token, "token_take_lock", { ...key, slots: 1 })).toMatchObject({ slot: 1 });
    expect(await request(anon, token, "token_drop_lock", key)).toBe(true);
    const other = { name, ...keyOf(foreign.claims[0] as Claim) };
    await expect(request(anon, token, "token_take_lock", { ...other, slots: 1 })).rejects.toThrow(
      `of work type ${foreign.type}; the token does not open it`,
    );
    expect(await request(anon, token, "token_drop_lock", other)).toBe(false);
  });
});

test(`no moment has more holders than slots, whatever six workers do (SEED=${seed})`, async () => {
  const name = newName();
  const slots = 2;
  const { type } = await typeWithPool(sql, 12, { max_crashes: 1000, max_failures: 1000, backoff_seconds: 0 });
  // A worker counts from the answer that gave it the slot to the call that may end that.
  let holders = 0;
  let most = 0;
  let taken = 0;

  async function step(worker: string, own: Sql, dice: number): Promise<void> {
    const [claim] = await claimNext(own, type, worker);
    if (!claim) {
      return;
    }
    const lock = await take(own, name, slots, worker, claim);
    if (lock !== null && lock !== "lost") {
      taken++;
      holders++;
      most = Math.max(most, holders);
      await extend(own, worker, claim);
      holders--;
    }
    if (dice < 0.3) {
      // Its worker is dead: the lease ends.
      await owner`
        update work_claims set expires_at = clock_timestamp()
         where item_id = ${claim.item_id} and work_type = ${type} and status = 'claimed' and fence = ${claim.fence}`;
    } else if (dice < 0.6) {
      await drop(name, worker, claim);
      await release(own, worker, claim, "released");
    } else {
      await release(own, worker, claim, dice < 0.8 ? "failed" : "released");
    }
  }

  await Promise.all(
    Array.from({ length: 6 }, async (_, n) => {
      const own = as("service_role");
      const { random } = seeded(seed + n);
      for (let steps = 0; steps < 60; steps++) {
        await step(`worker ${n}`, own, random());
      }
    }),
  );
  expect(most).toBe(slots);
  expect(taken).toBeGreaterThan(30);
  await expectInvariants(owner);
});
