import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { type Claim, call, someoneWaits } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { register } from "./support/matching-oracle.ts";

const { sql, admin, as } = await openDatabase();
await call(sql, "define_work_type", { work_type: "type", pool: "default" });
beforeEach(() => sql`delete from work_items`);
afterAll(() => expectInvariants(sql));

function enqueue(items: object[], connection = sql): Promise<string[]> {
  return call(connection, "enqueue_items", { items });
}

async function take(max_items = 20, more: Record<string, unknown> = {}): Promise<string[]> {
  const args = { work_types: ["type"], worker_id: "w", max_items, ...more };
  return (await call<Claim[]>(sql, "claim_next", args)).map((claim) => claim.item_id);
}

async function open(): Promise<Sql> {
  const other = as("service_role");
  await other`begin`;
  return other;
}

test("the older workflow goes first, and its items keep their order", async () => {
  const ids = await enqueue([
    { workflow: "z, the first" },
    {},
    { workflow: "a, the second" },
    { workflow: "z, the first" },
    {},
    { workflow: "a, the second" },
    { workflow: "z, the first", requires: { a: 1 } },
  ]);
  const more = await enqueue([{ workflow: "a, the second" }, { workflow: "a third" }, {}]);
  await register(sql, { id: "w", capabilities: { a: 1 } });
  expect(await take()).toEqual([...[0, 3, 6, 2, 5].map((n) => ids[n]), more[0], ids[1], ids[4], more[1], more[2]]);
});

test("a workflow's priority changes all its open claims at once", async () => {
  const ids = await enqueue([
    {},
    { workflow: "moves", priority: -5 },
    { workflow: "moves", priority: 7 },
    { priority: 3 },
  ]);
  const [held] = await call<Claim[]>(sql, "claim_next", { work_types: ["type"], worker_id: "w" });
  expect(held?.item_id).toBe(ids[3]);
  await call(sql, "define_workflow", { workflow: "moves", priority: 4 });
  await expectInvariants(sql);
  await call(sql, "release_claims_for_worker", { worker_id: "w" });
  expect(await take()).toEqual([1, 2, 3, 0].map((n) => ids[n]));
  await call(sql, "define_workflow", { workflow: "moves" });
  await call(sql, "release_claims_for_worker", { worker_id: "w" });
  expect(await take()).toEqual([3, 1, 2, 0].map((n) => ids[n]));
});

test("open claims of any state get the workflow's new priority, and ended ones are not read", async () => {
  const session = as("service_role");
  const define = (priority: number): Promise<unknown> =>
    call(session, "define_workflow", { workflow: "is long", priority });
  // Plans that are made now are kept by the session.
  for (let turn = 0; turn < 6; turn += 1) {
    await define(turn);
  }
  await session`
    insert into work_items (pool, workflow_id)
    select 'default', (select id from work_workflows where name = 'is long') from generate_series(1, 20000)`;
  await session`update work_claims set status = 'succeeded', finished_at = now() where position % 500 > 3`;
  await session`
    update work_claims
       set status = (array['ready', 'blocked', 'waiting', 'claimed'])[1 + position % 500],
           worker_id = 'w', fence = nextval('work.fence'), expires_at = now() + interval '1 hour'
     where status = 'ready'`;
  await session`select work.recount_claims()`;
  const read = (): Promise<{ rows: number }[]> => session`
    select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as rows
      from pg_stat_xact_user_tables where relname in ('work_items', 'work_claims')`;
  await session`begin`;
  const [before] = await read();
  await define(77);
  const [after] = await read();
  await session`commit`;
  expect(Number(after?.rows) - Number(before?.rows)).toBeLessThan(1000);
  expect(
    await sql`select status, priority, count(*)::integer from work_claims group by 1, 2 order by status collate "C"`,
  ).toEqual([
    { status: "blocked", priority: 77, count: 40 },
    { status: "claimed", priority: 77, count: 40 },
    { status: "ready", priority: 77, count: 40 },
    { status: "succeeded", priority: 5, count: 19840 },
    { status: "waiting", priority: 77, count: 40 },
  ]);
});

test("items of a deleted workflow get ranks of their own", async () => {
  const ids = await enqueue([{ priority: 5 }, { workflow: "ends" }, { workflow: "ends", priority: 6 }]);
  await call(sql, "define_workflow", { workflow: "ends", priority: 100 });
  await sql`delete from work_workflows where name = 'ends'`;
  await expectInvariants(sql);
  expect(await take()).toEqual([2, 0, 1].map((n) => ids[n]));
});

test("a warm worker claims through many priorities in order", async () => {
  const ids = await enqueue(Array.from({ length: 60 }, (_, n) => ({ priority: -n, affinity: n % 2 ? "a" : "b" })));
  const [first, second, third] = [await take(50, { warm: ["a"] }), await take(50, { warm: ["a"] }), await take(50)];
  expect([...first, ...second, ...third]).toEqual(ids);
  expect(first).toHaveLength(50);
});

describe("an item that is added while its workflow's priority changes has the new one", () => {
  test("if the change comes first", async () => {
    await call(sql, "define_workflow", { workflow: "change first", priority: 1 });
    const other = await open();
    await call(other, "define_workflow", { workflow: "change first", priority: 2 });
    const adding = enqueue([{ workflow: "change first" }], as("service_role"));
    await someoneWaits(admin);
    await other`commit`;
    await adding;
    expect(await sql`select priority from work_claims`).toEqual([{ priority: 2 }]);
  });

  test("if the item comes first", async () => {
    await call(sql, "define_workflow", { workflow: "item first", priority: 1 });
    const other = await open();
    await enqueue([{ workflow: "item first" }], other);
    const changing = call(as("service_role"), "define_workflow", { workflow: "item first", priority: 2 });
    await someoneWaits(admin);
    await other`commit`;
    await changing;
    expect(await sql`select priority from work_claims`).toEqual([{ priority: 2 }]);
  });

  test("if the item makes the workflow", async () => {
    const other = await open();
    await enqueue([{ workflow: "made" }], other);
    const changing = call(as("service_role"), "define_workflow", { workflow: "made", priority: 2 });
    await someoneWaits(admin);
    await other`commit`;
    await changing;
    expect(await sql`select priority from work_claims`).toEqual([{ priority: 2 }]);
  });

  test("if its claim is reopened", async () => {
    const [item] = await enqueue([{ workflow: "reopened" }]);
    await call(sql, "cancel_items", { work_type: "type", item_ids: [item] });
    const other = await open();
    await call(other, "retry_items", { work_type: "type", item_ids: [item] });
    const changing = call(as("service_role"), "define_workflow", { workflow: "reopened", priority: 2 });
    await someoneWaits(admin);
    await other`commit`;
    await changing;
    expect(await sql`select priority from work_claims`).toEqual([{ priority: 2 }]);
  });
});

describe("a workflow whose priority changes at the moment in which", () => {
  const meanwhile: [string, (other: Sql, item: string) => Promise<unknown>][] = [
    ["a claim is taken", (other) => call(other, "claim_next", { work_types: ["type"], worker_id: "w" })],
    ["a claim is handed back", (other) => call(other, "release_claims_for_worker", { worker_id: "holder" })],
    ["an item leaves it", (other, item) => other`update work_items set workflow_id = null where id = ${item}`],
    [
      "an item goes to another",
      (other, item) => other`
        update work_items set workflow_id = (select id from work_workflows where name = 'stays') where id = ${item}`,
    ],
  ];
  test.each(meanwhile)("%s moves all that is its own, and no more", async (_, act) => {
    await call(sql, "define_workflow", { workflow: "stays", priority: -3 });
    await call(sql, "define_workflow", { workflow: "changes", priority: 1 });
    const [item = ""] = await enqueue([{ workflow: "changes" }, { workflow: "changes" }, { workflow: "changes" }]);
    await take(1, { worker_id: "holder" });
    const other = await open();
    await act(other, item);
    const changing = call(as("service_role"), "define_workflow", { workflow: "changes", priority: 2 });
    await someoneWaits(admin);
    await other`commit`;
    await changing;
    await expectInvariants(sql);
    expect(await sql`select count(*)::integer from work_claims where priority = 1`).toEqual([{ count: 0 }]);
  });
});

describe("an item whose requirement changes during its first claim by id", () => {
  const byId = { work_type: "by id", worker_id: "nobody" };
  const changed = (item: string | undefined, connection: Sql): Promise<unknown> =>
    connection`update work_items set class_id = (select id from work_classes where tag = 'c:mind=changed') where id = ${item ?? ""}`;

  test("has the new one afterwards if the claim comes first", async () => {
    const [item] = await enqueue([{}, { requires: { mind: "changed" } }]);
    const other = await open();
    await call(other, "claim_items", { item_ids: [item], ...byId });
    const changing = changed(item, as("service_role"));
    const isDone = changing.then(() => true);
    // It may wait or not: what counts is what is there when both are done.
    await Promise.race([isDone, someoneWaits(admin)]);
    await other`commit`;
    await changing;
    await call(sql, "release_claims_for_worker", { worker_id: "nobody" });
    await expectInvariants(sql);
  });

  test("is not claimed by a worker that does not meet the new one if the change comes first", async () => {
    const [item] = await enqueue([{}, { requires: { mind: "changed" } }]);
    const other = await open();
    await changed(item, other);
    const claiming = call<Claim[]>(as("service_role"), "claim_items", { item_ids: [item], ...byId });
    await Promise.race([claiming, someoneWaits(admin)]);
    await other`commit`;
    await claiming;
    await call(sql, "release_claims_for_worker", { worker_id: "nobody" });
    await expectInvariants(sql);
  });
});
