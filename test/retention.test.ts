import { afterAll, describe, expect, test } from "vitest";
import { type Claim, call, claimNext, events, release, stored, typeWithPool } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, owner, as } = await openDatabase();
afterAll(() => expectInvariants(sql));

const typeWithItems = (length: number, rules = {}): Promise<{ type: string; ids: string[] }> =>
  typeWithPool(sql, length, rules);
const enqueue = (pool: string, items: object[]): Promise<string[]> =>
  call(sql, "enqueue_items", { items: items.map((item) => ({ pool, ...item })) });

const prune = (
  work_type: string,
  older_than: string | null = "30 days",
  at_most?: number,
): Promise<{ pruned: number; done: boolean }> => call(sql, "prune_finished", { work_type, older_than, at_most });

/** Prunes to the end, a page a call. */
async function pruneAll(type: string, older_than = "30 days", at_most = 100): Promise<number> {
  for (let total = 0; ; ) {
    const { pruned, done } = await prune(type, older_than, at_most);
    total += pruned;
    if (done) return total;
  }
}

/** As if it had all ended 40 days ago. */
const age = (type: string): Promise<unknown> =>
  sql`update work_claims set finished_at = finished_at - interval '40 days' where work_type = ${type} and finished_at is not null`;

async function finish(type: string, howMany: number, outcome = "succeeded"): Promise<Claim[]> {
  const claims = await claimNext(sql, type, "w", howMany);
  await call(sql, "release_items", {
    worker_id: "w",
    outcomes: claims.map((claim) => ({ ...claim, outcome, final: true, result: { large: "x" }, error: "why" })),
  });
  return claims;
}

const itemsLeft = async (ids: string[]): Promise<string[]> =>
  (await sql`select id from work_items where id = any (${ids}::uuid[]) order by id`).map((row) => row.id);
const succeededCount = async (type: string): Promise<unknown> =>
  (await sql`select succeeded::integer from work_overview where work_type = ${type}`)[0]?.succeeded;

let tables = 0;

/** A table of its own with so many rows, attached and enrolled for a work type. */
async function attached(rows: number): Promise<{ table: string; pool: string; type: string }> {
  tables += 1;
  const table = `public.papers_${tables}`;
  await owner.unsafe(`create table ${table} (id integer primary key, title text)`);
  await owner.unsafe(`insert into ${table} select n, 'title' from generate_series(1, ${rows}) n`);
  const { pool } = await call<{ pool: string }>(owner, "attach_pool", { source: table });
  const type = `papers ${tables}`;
  await call(sql, "define_work_type", { work_type: type, pool });
  while (!(await call<{ done: boolean }>(owner, "enroll_pool", { pool })).done) {}
  return { table, pool, type };
}

describe("an item that was enqueued", () => {
  test("goes with its claim once it ended long ago, and not before", async () => {
    const { type, ids } = await typeWithItems(3);
    await finish(type, 1);
    await age(type);
    await finish(type, 1);
    expect(await pruneAll(type)).toBe(1);
    expect(await itemsLeft(ids)).toEqual(ids.slice(1));
    expect(await succeededCount(type)).toBe(1);
    expect(await claimNext(sql, type, "w", 5)).toHaveLength(1);
  });

  test("stays while another of its claims is open or kept, and goes with the last one", async () => {
    const a = await typeWithItems(1);
    const b = await typeWithItems(0);
    await finish(a.type, 1);
    await age(a.type);
    await call(sql, "claim_items", { item_ids: a.ids, work_type: b.type, worker_id: "w" });
    expect(await pruneAll(a.type)).toBe(1);
    expect(await itemsLeft(a.ids)).toEqual(a.ids);
    expect(await stored(sql, a.ids[0], a.type)).toMatchObject({ status: "succeeded", result: null, fence: null });

    const held = (await stored(sql, a.ids[0], b.type)) as never;
    await release(sql, "w", held, "succeeded");
    expect(await pruneAll(a.type)).toBe(0);
    expect(await pruneAll(b.type)).toBe(0);
    await age(b.type);
    expect(await pruneAll(b.type)).toBe(2);
    expect(await itemsLeft(a.ids)).toEqual([]);
  });

  test("frees its dedupe key", async () => {
    const { type } = await typeWithItems(0);
    const item = { dedupe_key: "once" };
    const [first] = await enqueue(type, [item]);
    await finish(type, 1);
    expect(await enqueue(type, [item])).toEqual([first]);
    await age(type);
    await pruneAll(type);
    const [second] = await enqueue(type, [item]);
    expect(second).not.toBe(first);
    await finish(type, 1);
  });

  test.each(["failed", "cancelled"])("goes where its claim is %s too", async (end) => {
    const { type, ids } = await typeWithItems(2);
    if (end === "failed") await finish(type, 2, "failed");
    else await call(sql, "cancel_items", { work_type: type });
    await age(type);
    expect(await pruneAll(type)).toBe(2);
    expect(await itemsLeft(ids)).toEqual([]);
  });
});

describe("a row of an attached table", () => {
  test("keeps its claim, without result, error and events, and is not handed out again by any way in", async () => {
    const { table, pool, type } = await attached(3);
    const [one] = await claimNext(sql, type, "w");
    await release(sql, "other", one, "succeeded");
    await release(sql, "w", one, "succeeded", { result: { vector: [1] } });
    await finish(type, 2, "failed");
    await age(type);
    expect(await pruneAll(type)).toBe(3);
    expect(await stored(sql, one?.item_id, type)).toMatchObject({
      ...{ status: "succeeded", result: null, error: null, worker_id: null, fence: null, claimed_at: null },
      finished_at: expect.any(Date),
    });
    expect(await events(sql, one?.item_id, type)).toEqual([]);

    const ids = (await sql`select id from work_items where pool = ${pool}`).map((row) => row.id);
    expect(await call(sql, "claim_items", { item_ids: ids, work_type: type, worker_id: "w" })).toEqual([]);
    expect(await claimNext(sql, type, "w", 5)).toEqual([]);
    await owner.unsafe(`update ${table} set title = 'new'`);
    expect(await call(owner, "enroll_pool", { pool })).toMatchObject({ enrolled: 0 });
    await call(owner, "detach_pool", { pool });
    await age(type);
    expect(await pruneAll(type)).toBe(0);
    await call(owner, "attach_pool", { source: table });
    while (!(await call<{ done: boolean }>(owner, "enroll_pool", { pool })).done) {}
    expect(await claimNext(sql, type, "w", 5)).toEqual([]);
    expect(
      await sql`select status, count(*)::integer as count from work_claims where work_type = ${type} group by 1 order by 1`,
    ).toEqual([
      { status: "failed", count: 2 },
      { status: "succeeded", count: 1 },
    ]);
    expect(await call(sql, "retry_items", { work_type: type })).toBe(2);
    expect(await claimNext(sql, type, "w", 5)).toHaveLength(2);
  });

  test("is not offered as a candidate by the query that lists what has no claim", async () => {
    const { pool, type } = await attached(2);
    await finish(type, 2);
    await age(type);
    await pruneAll(type);
    const unclaimed = await sql`
      select i.id from work_items i where i.pool = ${pool}
         and not exists (select from work_claims c where c.item_id = i.id and c.work_type = ${type})`;
    expect(unclaimed).toEqual([]);
  });
});

describe("pruning", () => {
  test("goes through many claims a page a call, at most at_most each, whatever else lies between them", async () => {
    const { type, ids } = await typeWithItems(600);
    const other = await typeWithItems(0);
    await call(sql, "claim_items", { item_ids: ids.slice(0, 300), work_type: other.type, worker_id: "w" });
    await finish(type, 500);
    await age(type);
    const pages: number[] = [];
    for (let done = false; !done; ) {
      const page = await prune(type, "30 days", 7);
      pages.push(page.pruned);
      done = page.done;
    }
    expect(Math.max(...pages)).toBe(7);
    expect(pages.reduce((sum, pruned) => sum + pruned, 0)).toBe(500);
    expect(await prune(type)).toEqual({ pruned: 0, done: true });
    expect(await claimNext(sql, type, "w", 1000)).toHaveLength(100);
  });

  test("leaves what another transaction has locked to a later call, and does not wait", async () => {
    const { type, ids } = await typeWithItems(4);
    await finish(type, 4);
    await age(type);
    await as("service_role").begin(async (transaction) => {
      await transaction`select from work_items where id = ${ids[0] ?? ""} for share`;
      await transaction`select from work_claims where item_id = ${ids[1] ?? ""} and work_type = ${type} for key share`;
      expect(await pruneAll(type)).toBe(2);
    });
    expect(await pruneAll(type)).toBe(2);
    expect(await itemsLeft(ids)).toEqual([]);
  });

  test("by two calls at once removes each claim once", async () => {
    const { type, ids } = await typeWithItems(300);
    await finish(type, 300);
    await age(type);
    const both = await Promise.all([pruneAll(type, "30 days", 20), pruneAll(type, "30 days", 20)]);
    expect(both.reduce((sum, pruned) => sum + pruned, 0)).toBe(300);
    expect(await itemsLeft(ids)).toEqual([]);
  });

  test.each([
    [{ work_type: "nothing" }, "PT404"],
    [{ older_than: null }, "PT400"],
    [{ older_than: "-1 day" }, "PT400"],
    [{ at_most: 0 }, "PT400"],
    [{ at_most: 10_001 }, "PT400"],
  ])("refuses %j", async (wrong, code) => {
    const { type } = await typeWithItems(0);
    const args = { work_type: type, older_than: "1 day", ...wrong };
    await expect(call(sql, "prune_finished", args)).rejects.toMatchObject({ code });
  });
});

describe("a work type that keeps its record for a time", () => {
  /** A claim call that sees to what is due. */
  const claimCall = async (type: string): Promise<void> => {
    await sql`update work.upkeep set due_at = '-infinity'`;
    await call(sql, "claim_next", { work_types: [type], worker_id: "idle" });
  };

  test("is pruned by claim calls, successes and failures each after their own time", async () => {
    const { type } = await typeWithItems(0, { keep_succeeded: "30 days", keep_failed: "60 days" });
    const ids = await enqueue(type, [{}, {}, {}]);
    await finish(type, 1);
    await finish(type, 1, "failed");
    await age(type);
    await finish(type, 1);
    await claimCall(type);
    expect(await itemsLeft(ids)).toEqual(ids.slice(1));
    await age(type);
    await claimCall(type);
    await claimCall(type);
    expect(await itemsLeft(ids)).toEqual([]);
  });

  test("keeps all for ever where it does not say so", async () => {
    const { type, ids } = await typeWithItems(1);
    await finish(type, 1);
    await age(type);
    await claimCall(type);
    expect(await itemsLeft(ids)).toEqual(ids);
  });

  test("is pruned in turns with others", async () => {
    const types = [];
    for (let n = 0; n < 3; n++) {
      const { type, ids } = await typeWithItems(1, { keep_succeeded: "1 day" });
      await finish(type, 1);
      await age(type);
      types.push({ type, ids });
    }
    for (let round = 0; round < 6; round++) await claimCall(types[0]?.type ?? "");
    for (const { ids } of types) expect(await itemsLeft(ids)).toEqual([]);
  });

  test("refuses a time below zero", async () => {
    await expect(typeWithItems(0, { keep_failed: "-1 s" })).rejects.toMatchObject({ code: "PT400" });
  });
});
