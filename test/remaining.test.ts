import { afterAll, expect, test } from "vitest";
import { call, claimNext, endLeases, release, typeWithPool } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, as } = await openDatabase();
afterAll(() => expectInvariants(sql));

async function remaining(...work_types: string[]): Promise<Record<string, unknown>[]> {
  return call(sql, "work_remaining", { work_types });
}

test("work_remaining counts each state of each work type, in the order asked", async () => {
  const { type, ids } = await typeWithPool(sql, 7, { max_failures: 1 });
  const other = await typeWithPool(sql, 1);
  const later = { pool: type, run_after: "2100-01-01T00:00:00Z" };
  await call(sql, "enqueue_items", { items: [later, { pool: type, needs: [ids[6]] }] });
  const [one, two, three, four] = await claimNext(sql, type, "a", 5);
  await release(sql, "a", one, "succeeded");
  await release(sql, "a", two, "failed");
  await release(sql, "a", three, "parked", { seconds: 600, external_id: "a job" });
  await call(sql, "cancel_items", { work_type: type, item_ids: [four?.item_id] });
  await call(sql, "define_work_type", { work_type: type, paused: true });
  expect(await remaining("none", other.type, type)).toMatchObject([
    { work_type: "none", is_declared: false, open: 0, done: 0, waiting_until: null, workers: 0 },
    { work_type: other.type, is_declared: true, ready: 1, open: 1, is_paused: false },
    {
      ...{
        ready: 2,
        running: 1,
        parked: 1,
        waiting: 1,
        waiting_until: "2100-01-01T00:00:00+00:00",
        blocked: 1,
        open: 6,
      },
      ...{ done: 1, failed: 1, cancelled: 1, is_capped: false, is_paused: true, stopped: null, is_reopening: false },
    },
  ]);
  await sql`update work_types set stopped = 'an item failed', redone_through = ${ids[0] ?? ""} where name = ${type}`;
  expect(await remaining(type)).toMatchObject([{ stopped: "an item failed", is_reopening: true }]);
});

test("work_remaining counts live workers that take the work type", async () => {
  const { type } = await typeWithPool(sql, 1);
  for (const [id, work_types] of [
    ["one", [type]],
    ["two", null],
    ["three", ["another"]],
    ["four", [type]],
  ] as const) {
    await call(sql, "register_worker", { worker_id: id, instance: crypto.randomUUID(), work_types });
  }
  await call(sql, "retire_worker", { worker_id: "four" });
  expect(await remaining(type)).toMatchObject([{ workers: 2 }]);
});

test("work_remaining counts thousands of ready claims beside blocked ones", async () => {
  const { type, ids } = await typeWithPool(sql, 1000);
  const more = Array.from({ length: 300 }, () => ({ pool: type, needs: [ids[0]] }));
  await call(sql, "enqueue_items", { items: [...more, { pool: type }, { pool: type }] });
  expect(await remaining(type)).toMatchObject([{ ready: 1002, blocked: 300, open: 1302, is_capped: false }]);
});

test("work_remaining counts a claim whose lease has ended as running", async () => {
  const { type } = await typeWithPool(sql, 1);
  await claimNext(sql, type, "a");
  await endLeases(sql, type);
  expect(await remaining(type)).toMatchObject([{ ready: 0, running: 1, open: 1 }]);
});

test("work_remaining reads a bounded number of claims, and keeps open exact", async () => {
  const { type } = await typeWithPool(sql, 0);
  const later = Array.from({ length: 1000 }, () => ({ pool: type, run_after: "2099-01-01T00:00:00Z" }));
  const items = Array.from({ length: 1000 }, () => ({ pool: type }));
  for (let n = 0; n < 11; n++) await call(sql, "enqueue_items", { items: later });
  for (let n = 0; n < 3; n++) await call(sql, "enqueue_items", { items });
  const read = (await as("service_role").begin(async (transaction) => {
    const answer = await call(transaction as never, "work_remaining", { work_types: [type] });
    expect(answer).toMatchObject([{ open: 14_000, is_capped: true, waiting_until: "2099-01-01T00:00:00+00:00" }]);
    const [counted] = await transaction`
      select sum(seq_tup_read + idx_tup_fetch)::integer as claims
        from pg_stat_xact_user_tables where relid = 'public.work_claims'::regclass`;
    return counted?.claims;
  })) as number;
  // 10,000 waiting ones are read twice, and 1,000 ready ones of each work type.
  expect(read).toBeLessThan(24_000);
  await sql`delete from work_items where pool = ${type}`;
});

test.each([[null], [[]], [Array.from({ length: 1001 }, (_, n) => `t${n}`)]])(
  "work_remaining refuses the list %#",
  async (work_types) => {
    await expect(call(sql, "work_remaining", { work_types })).rejects.toMatchObject({
      code: "PT400",
      message: expect.stringContaining("a list of 1 to 1000 work types was expected"),
    });
  },
);

test("define_pool makes a pool once, and refuses the name of a pool that mirrors a table", async () => {
  const made = await call(sql, "define_pool", { pool: "plain" });
  expect(made).toMatchObject({ name: "plain" });
  expect(await call(sql, "define_pool", { pool: "plain" })).toEqual(made);
  await call(sql, "define_work_type", { work_type: "of plain", pool: "plain" });
  await call(sql, "enqueue_items", { items: [{ pool: "plain" }] });
  expect(await remaining("of plain")).toMatchObject([{ ready: 1 }]);
  const owner = as("postgres");
  await owner`create table pictures (id integer primary key)`;
  await call(owner as never, "attach_pool", { source: "pictures" });
  await expect(call(sql, "define_pool", { pool: "pictures" })).rejects.toMatchObject({
    code: "PT409",
    message: expect.stringContaining("it mirrors the table public.pictures"),
  });
  await expect(call(sql, "define_pool", { pool: "" })).rejects.toMatchObject({ code: "PT400" });
});
