import { expect, test } from "vitest";
import { call, claimNext, typeWithItems } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, owner } = await openDatabase();

const setPriority = (item_ids: unknown, priority: unknown): Promise<number> =>
  call(sql, "set_priority", { item_ids, priority });

test("set_priority moves the open claims of the items, and answers how many had another priority", async () => {
  const { type, ids } = await typeWithItems(sql, 4);
  expect(await setPriority([ids[2], ids[3], ids[2]], 5)).toBe(2);
  expect(await setPriority([ids[2], ids[1]], 5)).toBe(1);
  expect((await claimNext(sql, type, "a", 4)).map((claim) => claim.item_id)).toEqual([ids[1], ids[2], ids[3], ids[0]]);
  expect(await setPriority([], 5)).toBe(0);
  expect(await setPriority([crypto.randomUUID()], 5)).toBe(0);
  await expectInvariants(sql);
});

test("a claim of a workflow keeps the priority of its workflow", async () => {
  const { type } = await typeWithItems(sql, 0);
  await call(sql, "define_workflow", { workflow: "film", priority: 3 });
  const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ workflow: "film" }] });
  expect(await setPriority([id], 9)).toBe(1);
  const [row] = await owner`
    select i.priority as item, c.priority as claim from work_items i join work_claims c on c.item_id = i.id
     where i.id = ${id ?? ""} and c.work_type = ${type}`;
  expect(row).toEqual({ item: 9, claim: 3 });
});

test("two calls with the same items in opposite orders both end", async () => {
  const { ids } = await typeWithItems(sql, 200);
  const answers = await Promise.all(
    Array.from({ length: 10 }, (_, n) => setPriority(n % 2 ? ids : ids.toReversed(), n + 1)),
  );
  expect(answers).toEqual(Array(10).fill(200));
});

test.each([
  [null, 1, "item_ids is null; a list of at most 1000 was expected"],
  [Array.from({ length: 1001 }, () => crypto.randomUUID()), 1, "item_ids is 1001 long; a list of at most 1000"],
  [[], null, "priority is null; a whole number from -1000000 to 1000000 was expected"],
  [[], 1_000_001, "priority is 1000001; a whole number"],
])("set_priority refuses bad input with its sentence %#", async (ids, priority, message) => {
  await expect(setPriority(ids, priority)).rejects.toMatchObject({
    code: "PT400",
    message: expect.stringContaining(message),
  });
});
