import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { type Claim, call } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { register } from "./support/matching-oracle.ts";

const { sql } = await openDatabase();
await call(sql, "define_work_type", { work_type: "type", pool: "default" });
beforeEach(() => sql`delete from work_items`);
afterAll(() => expectInvariants(sql));

function enqueue(items: object[]): Promise<string[]> {
  return call(sql, "enqueue_items", { items });
}

async function take(worker_id: string, more: Record<string, unknown> = {}): Promise<string[]> {
  const args = { work_types: ["type"], worker_id, max_items: 10, ...more };
  return (await call<Claim[]>(sql, "claim_next", args)).map((claim) => claim.item_id);
}

describe("a hostile caller", () => {
  test("gets no item by an unknown class", async () => {
    const [item] = await enqueue([{}]);
    await sql`update work_items set class_id = 999999 where id = ${item ?? ""}`;
    await sql`update work_items set class_id = -1, workflow_id = -1 where id = ${item ?? ""}`;
    expect(await take("forger")).toEqual([]);
    await register(sql, { id: "forger", capabilities: { a: 1 } });
    expect(await take("forger")).toEqual([]);
    await sql`update work_items set class_id = 1 where id = ${item ?? ""}`;
    expect(await take("forger")).toEqual([item]);
  });

  test("may name a hundred affinities, none, or unknown ones", async () => {
    const ids = await enqueue(Array.from({ length: 20 }, (_, n) => ({ affinity: `a${n}` })));
    const warm = Array.from({ length: 100 }, (_, n) => `a${99 - n}`);
    await expect(take("warm", { warm: [...warm, "one more"] })).rejects.toMatchObject({ code: "PT400" });
    expect(await take("warm", { warm: [null, "nowhere", null], max_items: 1 })).toEqual([ids[0]]);
    expect(await take("warm", { warm: [null, "a7"], max_items: 1 })).toEqual([ids[7]]);
    expect(await take("warm", { warm, max_items: 50 })).toHaveLength(18);
  });

  test("is refused with a sentence for wrong capabilities or accepts", async () => {
    const wrong = [
      { capabilities: [] },
      { capabilities: { "a.b": 1 } },
      { capabilities: { a: [{ "b.c": 1 }] } },
      { accepts: null },
      { accepts: { a: null } },
      { exclusive: [null] },
      { exclusive: null },
      { yield_seconds: 5 },
      { exclusive: ["gpu"], yield_seconds: 0 },
    ];
    for (const given of wrong) {
      const args = { worker_id: "wrong", instance: crypto.randomUUID(), ...given };
      await expect(call(sql, "register_worker", args), JSON.stringify(given)).rejects.toMatchObject({
        code: "PT400",
      });
    }
    expect(await sql`select from work_workers where id = 'wrong'`).toHaveLength(0);
  });
});
