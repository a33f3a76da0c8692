import { afterAll, expect, test } from "vitest";
import { type Claim, call, claimNext, endLeases, release, stored, typeWithItems } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, as } = await openDatabase();
afterAll(() => expectInvariants(sql));

const later = "now() + interval '1 hour'";

function idsOf(claims: Claim[]): string[] {
  return claims.map((claim) => claim.item_id);
}

test("first come, first served", async () => {
  const { type, ids } = await typeWithItems(sql, 5);
  expect(idsOf(await claimNext(sql, type, "a", 2))).toEqual(ids.slice(0, 2));
  expect(idsOf(await claimNext(sql, type, "a", 9))).toEqual(ids.slice(2));
});

test("a higher priority goes first, old or new", async () => {
  const { type } = await typeWithItems(sql, 0);
  const items = [0, 5, -3, 5].map((priority) => ({ priority }));
  const [zero, five, low, alsoFive] = await call<string[]>(sql, "enqueue_items", { items });
  expect(idsOf(await claimNext(sql, type, "a", 4))).toEqual([five, alsoFive, zero, low]);
});

test("a later change of priority moves unclaimed items", async () => {
  const { type, ids } = await typeWithItems(sql, 3);
  await sql`update work_items set priority = 10 where id = ${ids[2] ?? ""}`;
  expect(idsOf(await claimNext(sql, type, "a", 3))).toEqual([ids[2], ids[0], ids[1]]);
});

test("an item that comes back keeps its position", async () => {
  const { type, ids } = await typeWithItems(sql, 2);
  const [claim] = await claimNext(sql, type, "a");
  await release(sql, "a", claim, "released");
  expect(idsOf(await claimNext(sql, type, "a"))).toEqual(ids.slice(0, 1));
});

test("one call returns several work types in one order", async () => {
  const first = await typeWithItems(sql, 2);
  const second = await typeWithItems(sql, 0);
  const [urgent] = await call<string[]>(sql, "enqueue_items", { items: [{ priority: 1 }] });
  const args = { work_types: [first.type, second.type, first.type], worker_id: "a", max_items: 4 };
  const claims = await call<Claim[]>(sql, "claim_next", args);
  expect(claims.map((claim) => [claim.item_id, claim.work_type]).sort()).toEqual(
    [
      [urgent, first.type],
      [urgent, second.type],
      [first.ids[0], first.type],
      [first.ids[1], first.type],
    ].sort(),
  );
  expect(idsOf(claims)).toEqual([urgent, urgent, ...first.ids]);
});

test("a call returns at most max_items over all work types", async () => {
  const first = await typeWithItems(sql, 3);
  const second = await typeWithItems(sql, 3);
  const args = { work_types: [first.type, second.type], worker_id: "a", max_items: 2 };
  expect(await call(sql, "claim_next", args)).toHaveLength(2);
});

test.each([1, 5])("a paused work type gives no item, and resumes in its order, by %i", async (max) => {
  const { type, ids } = await typeWithItems(sql, 1);
  await call(sql, "define_work_type", { work_type: type, paused: true });
  expect(await claimNext(sql, type, "a", max)).toEqual([]);
  expect(await call(sql, "claim_items", { item_ids: ids, work_type: type, worker_id: "a" })).toEqual([]);
  await call(sql, "define_work_type", { work_type: type, paused: false });
  expect(await claimNext(sql, type, "a", max)).toHaveLength(1);
});

test.each([1, 2])("a claim skips locked rows, by %i", async (max) => {
  const { type, ids } = await typeWithItems(sql, 3);
  const blocker = as("service_role");
  const taken = await blocker.begin(async (own) => {
    await own`select from work_claims where item_id = ${ids[0] ?? ""} and work_type = ${type} for update`;
    return claimNext(sql, type, "a", max);
  });
  expect(taken.map((claim) => claim.item_id)).toEqual(ids.slice(1, 1 + max));
  expect(await claimNext(sql, type, "a")).toMatchObject([{ item_id: ids[0] }]);
});

test("a paused work type does not block another in the same call", async () => {
  const paused = await typeWithItems(sql, 1, { paused: true });
  const open = await typeWithItems(sql, 1);
  const args = { work_types: [paused.type, open.type], worker_id: "a", max_items: 9 };
  expect(await call(sql, "claim_next", args)).toMatchObject([{ work_type: open.type }]);
});

test("a worker in a paused work type finishes what it holds", async () => {
  const { type } = await typeWithItems(sql, 1);
  const [claim] = await claimNext(sql, type, "a");
  await call(sql, "define_work_type", { work_type: type, paused: true });
  expect(await release(sql, "a", claim, "succeeded")).toBe("succeeded");
});

test("claim_next and claim_items claim no item before its run_after", async () => {
  const { type } = await typeWithItems(sql, 0);
  const [item] = await call<string[]>(sql, "enqueue_items", { items: [{ run_after: "2999-01-01T00:00:00Z" }] });
  const byId = { item_ids: [item], work_type: type, worker_id: "a" };
  expect(await claimNext(sql, type, "a")).toEqual([]);
  expect(await call(sql, "claim_items", byId)).toEqual([]);
  expect(await call(sql, "claim_items", { ...byId, work_type: "another type" })).toEqual([]);
  await sql`update work_items set run_after = now() - interval '1 second' where id = ${item ?? ""}`;
  expect(await claimNext(sql, type, "a")).toMatchObject([{ item_id: item }]);
});

test("a claim that is cancelled and retried before its run_after still waits for it", async () => {
  const { type } = await typeWithItems(sql, 0);
  const items = [{ run_after: "2999-01-01T00:00:00Z" }];
  const item_ids = await call<string[]>(sql, "enqueue_items", { items });
  await call(sql, "cancel_items", { work_type: type, item_ids });
  expect(await call(sql, "retry_items", { work_type: type, item_ids })).toBe(1);
  expect(await claimNext(sql, type, "a")).toEqual([]);
  expect(await call(sql, "claim_items", { item_ids, work_type: type, worker_id: "a" })).toEqual([]);
  expect(await stored(sql, item_ids[0], type)).toMatchObject({ status: "waiting", due_at: new Date("2999-01-01") });
  await sql`update work_items set run_after = now() - interval '1 second' where id = any (${item_ids})`;
  expect(await claimNext(sql, type, "a")).toMatchObject([{ item_id: item_ids[0] }]);
});

test("a ready item can be postponed", async () => {
  const { type, ids } = await typeWithItems(sql, 2);
  await sql.unsafe(`update work_items set run_after = ${later} where id = $1`, [ids[0] ?? ""]);
  expect(idsOf(await claimNext(sql, type, "a", 2))).toEqual(ids.slice(1));
});

test("claim_next takes only declared work types; claim_items makes any", async () => {
  const { ids } = await typeWithItems(sql, 1);
  expect(await claimNext(sql, "undeclared", "a")).toEqual([]);
  expect(await sql`select from work_types where name = 'undeclared'`).toHaveLength(0);
  expect(await call(sql, "claim_items", { item_ids: ids, work_type: "undeclared", worker_id: "a" })).toHaveLength(1);
  expect(await sql`select from work_types where name = 'undeclared' and pool is null`).toHaveLength(1);
});

test("claim_next claims an item that claim_items claimed for a dead worker", async () => {
  const { ids } = await typeWithItems(sql, 1);
  await call(sql, "claim_items", { item_ids: ids, work_type: "left", worker_id: "dead" });
  await endLeases(sql, "left");
  expect(await claimNext(sql, "left", "b")).toMatchObject([{ item_id: ids[0] }]);
});

test("a dedupe key answers the item that has it, within its pool", async () => {
  await typeWithItems(sql, 0);
  const [first] = await call<string[]>(sql, "enqueue_items", { items: [{ dedupe_key: "k", payload: 1 }] });
  const answer = await call<string[]>(sql, "enqueue_items", {
    items: [{ dedupe_key: "new" }, { dedupe_key: "k", payload: 2 }, {}, { dedupe_key: "new" }],
  });
  expect(answer[1]).toBe(first);
  expect(answer[3]).toBe(answer[0]);
  expect(new Set(answer).size).toBe(3);
  expect(await sql`select payload from work_items where id = ${first ?? ""}`).toEqual([{ payload: 1 }]);
});

test("a null argument of define_work_type keeps the value", async () => {
  await call(sql, "define_work_type", { work_type: "rules", lease_seconds: 5, max_failures: 9 });
  const args = { work_type: "rules", max_crashes: 2, pool: null, lease_seconds: null };
  expect(await call(sql, "define_work_type", args)).toMatchObject({
    name: "rules",
    pool: null,
    lease_seconds: 5,
    max_failures: 9,
    max_crashes: 2,
  });
});

test("past items are enrolled in bounded steps", async () => {
  await sql`insert into work_pools (name) values ('past')`;
  const ids = await call<string[]>(sql, "enqueue_items", {
    items: Array.from({ length: 12 }, () => ({ pool: "past" })),
  });
  await call(sql, "define_work_type", { work_type: "late comer", pool: "past" });
  expect(await claimNext(sql, "late comer", "a")).toEqual([]);
  for (let step = await enroll(); !step.done; step = await enroll()) {
    expect(step.enrolled).toBeLessThanOrEqual(5);
  }
  expect(idsOf(await claimNext(sql, "late comer", "a", 12))).toEqual(ids);

  function enroll(): Promise<{ enrolled: number; done: boolean }> {
    return call(sql, "enroll_pool", { pool: "past", max_items: 5 });
  }
});

test("one call claims through fifty priorities, also where others hold the first ones", async () => {
  const { type } = await typeWithItems(sql, 0);
  const items = Array.from({ length: 50 }, (_, n) => ({ priority: -n }));
  const ids = await call<string[]>(sql, "enqueue_items", { items });
  await sql.begin(async (other) => {
    await other`select from work_claims where item_id = any (${ids.slice(0, 30)}) and work_type = ${type} for update`;
    expect(idsOf(await claimNext(sql, type, "a", 5))).toEqual(ids.slice(30, 35));
  });
  expect(idsOf(await claimNext(sql, type, "a", 100))).toEqual([...ids.slice(0, 30), ...ids.slice(35)]);
});

test("a failed item that was put off while it ran waits until then", async () => {
  const { type, ids } = await typeWithItems(sql, 1, { backoff_seconds: 0 });
  const [claim] = await claimNext(sql, type, "a");
  await sql.unsafe(`update work_items set run_after = ${later} where id = '${ids[0]}'`);
  expect(await release(sql, "a", claim, "failed")).toBe("waiting");
  expect(await claimNext(sql, type, "a")).toEqual([]);
});
