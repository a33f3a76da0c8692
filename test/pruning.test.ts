import { afterEach, describe, expect, test } from "vitest";
import { call, claimNext as next, release, someoneWaits } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { seeded } from "./support/random.ts";

const { sql, owner, as } = await openDatabase();
await call(sql, "define_work_type", { work_type: "t", pool: "default" });

const enqueue = (connection: typeof sql, ...asked: object[]): Promise<string[]> =>
  call(connection, "enqueue_items", { items: asked.map((requires) => ({ requires })) });
const prune = (connection: typeof sql = sql, max_classes?: number): Promise<number> =>
  call(connection, "prune_classes", { max_classes });
const register = (worker_id: string, capabilities: object): Promise<unknown> =>
  call(sql, "register_worker", { worker_id, instance: crypto.randomUUID(), capabilities });
const classes = async (): Promise<unknown[]> =>
  (await sql`select requires from work_classes where id <> 1 order by id`).map((row) => row.requires);

/** Leaves only what no call may have removed. */
async function clear(): Promise<void> {
  await sql`delete from work_items`;
  await sql`delete from work_workers`;
  await prune();
}

afterEach(async () => {
  const lost = await sql`
    select i.id from work_items i where not exists (select from work_classes c where c.id = i.class_id)
     union all
    select c.item_id from work_claims c
     where c.finished_at is null and not exists (select from work_classes k where k.id = c.class_id)`;
  expect(lost).toEqual([]);
});

test("prune_classes deletes the classes that no item has, from profiles too, and keeps others", async () => {
  await clear();
  await register("w", { n: 9 });
  const ids: string[] = [];
  for (const n of [1, 2, 3, 4]) ids.push(...(await enqueue(sql, { n })));
  expect(await next(sql, "t", "w")).toHaveLength(1);
  const matched = async (): Promise<unknown> =>
    (await sql`select cardinality(class_ids) as count from work.profiles where capabilities = '{"n": 9}'`)[0]?.count;
  const before = (await matched()) as number;
  await sql`delete from work_items where id in (${ids[0] ?? ""}, ${ids[2] ?? ""})`;
  expect(await prune(sql, 1)).toBe(1);
  expect(await prune()).toBe(1);
  expect(await prune()).toBe(0);
  expect((await classes()).slice(-2)).toEqual([{ n: 2 }, { n: 4 }]);
  expect(await matched()).toBe(before - 2);
});

test("what was pruned is made anew, and found by a worker that had judged it before", async () => {
  await clear();
  await register("w", { n: 9 });
  await enqueue(sql, { n: 5 });
  await enqueue(sql, { n: 6 });
  await next(sql, "t", "w", 9);
  await sql`delete from work_items`;
  expect(await prune()).toBeGreaterThan(0);
  expect(await classes()).toEqual([]);
  await enqueue(sql, { n: 5 }, { n: 7 });
  expect(await next(sql, "t", "w", 9)).toHaveLength(2);
});

test("classes that no claim call has seen yet go too, and the one of items without conditions never", async () => {
  await clear();
  await enqueue(sql, { unseen: 1 }, {});
  await sql`delete from work_items`;
  expect(await prune()).toBe(1);
  expect(await sql`select id from work_classes where id = 1`).toHaveLength(1);
});

test("the class of an item whose claim has failed stays, and of one that was given another class goes", async () => {
  await clear();
  await register("w", { n: 9 });
  const [one, two] = await enqueue(sql, { n: 1 }, { n: 2 });
  for (const claim of await next(sql, "t", "w", 2)) await release(sql, "w", claim, "failed", { final: true });
  await sql`update work_items set class_id = (select class_id from work_items where id = ${two ?? ""}) where id = ${one ?? ""}`;
  expect(await prune()).toBeGreaterThan(0);
  expect(await call(sql, "retry_items", { work_type: "t" })).toBe(2);
  expect(await next(sql, "t", "w", 2)).toHaveLength(2);
});

describe("beside an open transaction", () => {
  test("that enqueues with an unused class, nothing is pruned, and the call does not wait for long", async () => {
    await clear();
    await enqueue(sql, { n: 1 }, { n: 2 });
    await sql`delete from work_items`;
    await as("service_role").begin(async (transaction) => {
      await enqueue(transaction as never, { n: 1 });
      expect(await prune()).toBe(0);
    });
    expect(await prune()).toBe(1);
    expect(await classes()).toContainEqual({ n: 1 });
  });

  test("that ends within the second, what it has used stays", async () => {
    await clear();
    await enqueue(sql, { n: 1 }, { n: 2 }, { n: 3 });
    await sql`delete from work_items`;
    let pruning: Promise<number> = Promise.resolve(-1);
    await as("service_role").begin(async (transaction) => {
      await enqueue(transaction as never, { n: 1 });
      pruning = prune(as("service_role"));
      await someoneWaits(owner);
    });
    expect(await pruning).toBeGreaterThan(0);
    expect(await classes()).toContainEqual({ n: 1 });
  });

  test.each([
    ["commits", false],
    ["is rolled back", true],
  ])("that has pruned and %s, an enqueue waits and keeps its class", async (_, isUndone) => {
    await clear();
    await enqueue(sql, { n: 1 }, { n: 2 }, { n: 3 });
    await sql`delete from work_items`;
    let enqueuing: Promise<unknown> = Promise.resolve();
    const pruned = as("service_role").begin(async (transaction) => {
      await prune(transaction as never);
      enqueuing = enqueue(as("service_role"), { n: 1 }, { n: 2 }, { n: 3 });
      await someoneWaits(owner);
      if (isUndone) throw new Error("undone");
    });
    await pruned.catch((error) => expect(error.message).toBe("undone"));
    await enqueuing;
    expect(await classes()).toEqual(expect.arrayContaining([{ n: 1 }, { n: 2 }, { n: 3 }]));
    await register("w", { n: 9 });
    expect(await next(sql, "t", "w", 9)).toHaveLength(3);
  });

  test("that deletes the last item of a class, the class stays until it is committed", async () => {
    await clear();
    await enqueue(sql, { n: 1 }, { n: 2 });
    await register("w", { n: 0 });
    await as("service_role").begin(async (transaction) => {
      await transaction`delete from work_items where class_id = (select id from work_classes where requires = '{"n": 1}')`;
      expect(await prune()).toBe(0);
    });
    expect(await prune()).toBe(1);
  });

  test("that has judged new classes, nobody waits, and the worker goes on finding its items", async () => {
    await clear();
    await register("w", { n: 9 });
    await enqueue(sql, { n: 4 }, { n: 5 });
    expect(await next(sql, "t", "w", 2)).toHaveLength(2);
    await sql`delete from work_items`;
    await enqueue(sql, { n: 1 }, { n: 2 });
    await as("service_role").begin(async (transaction) => {
      expect(await next(transaction as never, "t", "w", 2)).toHaveLength(2);
      expect(await prune()).toBeGreaterThan(0);
    });
    await sql`delete from work_items`;
    await prune();
    await enqueue(sql, { n: 3 }, { n: 1 }, { n: 2 });
    expect(await next(sql, "t", "w", 9)).toHaveLength(3);
  });

  test("with one snapshot, an enqueue that would use a pruned class fails, and pruning is refused", async () => {
    await clear();
    await enqueue(sql, { n: 1 }, { n: 2 });
    await sql`delete from work_items`;
    const enqueuing = as("service_role").begin("isolation level repeatable read", async (transaction) => {
      await transaction`select count(*) from work_items`;
      await prune();
      await enqueue(transaction as never, { n: 1 });
    });
    await expect(enqueuing).rejects.toMatchObject({ code: "40001" });
    await expect(
      as("service_role").begin("isolation level repeatable read", (transaction) => prune(transaction as never)),
    ).rejects.toMatchObject({ code: "PT400", message: expect.stringContaining("call it in read committed") });
  });
});

test("with items coming and going and workers claiming, no item loses its class and none is passed over", async () => {
  await clear();
  const { below } = seeded(20261101);
  await register("churn", { n: 99 });
  const enqueuers = Array.from({ length: 3 }, () => as("service_role"));
  const worker = as("service_role");
  const pruner = as("service_role");
  const asked = Array.from({ length: 3 }, () => Array.from({ length: 40 }, () => ({ n: below(25) })));
  let isOver = false;
  let pruned = 0;
  const going = (async () => {
    for (; !isOver; pruned += await prune(pruner, 5)) {}
  })();
  const handed: string[] = [];
  const taking = (async () => {
    for (;;) {
      const wasOver = isOver;
      const claims = await next(worker, "t", "churn", 5);
      handed.push(...claims.map((claim) => claim.item_id));
      for (const claim of claims) await worker`delete from work_items where id = ${claim.item_id}`;
      if (wasOver && claims.length === 0) return;
    }
  })();
  const added = await Promise.all(
    enqueuers.map(async (connection, index) => {
      const ids: string[] = [];
      for (const requires of asked[index] ?? []) ids.push(...(await enqueue(connection, requires)));
      return ids;
    }),
  );
  isOver = true;
  await Promise.all([going, taking]);
  expect(handed.sort()).toEqual(added.flat().sort());
  expect(pruned).toBeGreaterThan(0);
});

test.each([0, -1, 10_001, null])("max_classes of %s is refused", async (max_classes) => {
  await expect(call(sql, "prune_classes", { max_classes })).rejects.toMatchObject({
    code: "PT400",
    message: expect.stringContaining("max_classes is"),
  });
});
