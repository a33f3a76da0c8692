import { afterAll, describe, expect, test } from "vitest";
import { call, claimNext, endLeases, endWaits, release, typeWithPool } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, as } = await openDatabase();
afterAll(() => expectInvariants(sql));

interface Pulse {
  held: number;
  late: number;
  live_workers: number;
  types: Record<string, unknown>[];
  workers: { id: string; held: number; late: number; progress: number | null }[];
  events: { id: number; event: string; work_type: string }[];
}

const pulse = (since_event?: number): Promise<Pulse> => call(sql, "work_pulse", { since_event });
const depth = (work_type: string, capabilities?: object, at_most?: number): Promise<Record<string, number>> =>
  call(sql, "work_depth", { work_type, capabilities, at_most });
const typeWithItems = (length: number, rules = {}): Promise<{ type: string; ids: string[] }> =>
  typeWithPool(sql, length, rules);
const enqueue = (pool: string, items: object[]): Promise<string[]> =>
  call(sql, "enqueue_items", { items: items.map((item) => ({ pool, ...item })) });
const register = (worker_id: string, work_types: string[] | null, capabilities = {}): Promise<unknown> =>
  call(sql, "register_worker", { worker_id, instance: crypto.randomUUID(), work_types, capabilities });

async function overview(type: string): Promise<Record<string, unknown>> {
  const [row] = await sql`
    select ready::integer, waiting::integer, blocked::integer, claimed::integer, late::integer, open::integer, is_capped,
           succeeded::integer, finished_last_minute::integer, extract(epoch from oldest_wait)::integer as oldest_wait
      from work_overview where work_type = ${type}`;
  return row ?? {};
}

describe("work_overview", () => {
  test("counts thousands of ready claims exactly, beside waiting and held ones", async () => {
    const { type } = await typeWithItems(1000);
    await enqueue(
      type,
      Array.from({ length: 700 }, () => ({})),
    );
    await enqueue(type, [{ run_after: "2100-01-01T00:00:00Z" }, {}]);
    await claimNext(sql, type, "a", 30);
    expect(await overview(type)).toMatchObject({
      ...{ ready: 1671, waiting: 1, blocked: 0, claimed: 30, open: 1702, is_capped: false },
    });
  });

  test("counts blocked claims, and held ones whose lease has ended as late", async () => {
    const { type, ids } = await typeWithItems(3);
    await enqueue(type, [{ needs: [ids[2]] }]);
    await claimNext(sql, type, "a", 2);
    await endLeases(sql, type);
    expect(await overview(type)).toMatchObject({ ready: 1, blocked: 1, claimed: 2, late: 2, open: 4 });
  });

  test("counts thousands of ready and thousands of blocked claims exactly", async () => {
    const { type, ids } = await typeWithItems(1000);
    await enqueue(
      type,
      Array.from({ length: 300 }, () => ({})),
    );
    for (let call = 0; call < 2; call++) {
      await enqueue(
        type,
        Array.from({ length: 1000 }, () => ({ needs: [ids[999]] })),
      );
    }
    expect(await overview(type)).toMatchObject({ ready: 1300, blocked: 2000, open: 3300, is_capped: false });
  });

  test("says that its numbers are lower bounds where more than 10,000 wait, and keeps the open ones exact", async () => {
    const { type } = await typeWithItems(3);
    for (let call = 0; call < 11; call++) {
      await enqueue(
        type,
        Array.from({ length: 1000 }, () => ({ run_after: "2100-01-01T00:00:00Z" })),
      );
    }
    const row = await overview(type);
    expect(row).toMatchObject({ ready: 3, open: 11_003, is_capped: true });
    expect(row.waiting).toBeLessThanOrEqual(10_000);
    await sql`delete from work_items where run_after > '2099-01-01'`;
    expect(await overview(type)).toMatchObject({ ready: 3, waiting: 0, open: 3, is_capped: false });
  });

  test("counts what finished in the last minute, also once it is folded or deleted", async () => {
    const { type, ids } = await typeWithItems(3);
    for (const claim of await claimNext(sql, type, "a", 2)) await release(sql, "a", claim, "succeeded");
    expect(await overview(type)).toMatchObject({ succeeded: 2, finished_last_minute: 2 });
    await sql`select work.fold_tallies(10000)`;
    await sql`delete from work_items where id = ${ids[0] ?? ""}`;
    expect(await overview(type)).toMatchObject({ succeeded: 1, finished_last_minute: 2, open: 1 });
  });
});

describe("work_pulse", () => {
  test("has the types with their live workers, who holds what, and the last events", async () => {
    const { type } = await typeWithItems(4);
    await register("pulse a", [type]);
    await register("pulse b", null);
    const [one, two] = await claimNext(sql, type, "pulse a", 2);
    await call(sql, "extend_claims", { worker_id: "pulse a", held: [{ ...one, progress: 0.5 }] });
    await release(sql, "pulse a", two, "failed");
    const seen = await pulse();
    expect(seen.types.find((row) => row.work_type === type)).toMatchObject({
      ready: 2,
      claimed: 1,
      waiting: 1,
      workers: 2,
    });
    expect(seen.workers.find(({ id }) => id === "pulse a")).toMatchObject({ held: 1, late: 0, progress: 0.5 });
    expect(seen.events.at(-1)).toMatchObject({ event: "failed", work_type: type });
    expect((await pulse(seen.events.at(-1)?.id)).events).toEqual([]);
    await endLeases(sql, type);
    expect((await pulse()).workers.find(({ id }) => id === "pulse a")).toMatchObject({ held: 1, late: 1 });
  });

  test("names at most 200 workers, the late ones first, and counts them all", async () => {
    const { type } = await typeWithItems(1);
    for (let n = 0; n < 210; n++) await register(`crowd ${n}`, [type]);
    await claimNext(sql, type, "crowd 99");
    await endLeases(sql, type);
    const { workers, live_workers } = await pulse();
    expect(workers).toHaveLength(200);
    expect(workers.slice(0, 2).map(({ id }) => id)).toContain("crowd 99");
    expect(live_workers).toBeGreaterThanOrEqual(210);
    await sql`delete from work_workers`;
  });
});

describe("work_depth", () => {
  test("counts what a worker with these capabilities could take", async () => {
    const { type } = await typeWithItems(2);
    await enqueue(type, [{ requires: { gpu: "a100" } }, { requires: { gpu: "h100" } }, { requires: { gpu: "a100" } }]);
    expect(await depth(type)).toMatchObject({ ready: 5, held: 0 });
    expect(await depth(type, { gpu: "a100" })).toMatchObject({ ready: 4, held: 0 });
    expect(await depth(type, {})).toMatchObject({ ready: 2 });
    await register("a100", [type], { gpu: "a100" });
    await claimNext(sql, type, "a100", 3);
    expect(await depth(type, { gpu: "a100" })).toMatchObject({ ready: 1, held: 3 });
    expect(await depth(type, {})).toMatchObject({ ready: 0, held: 2 });
  });

  test("counts nothing as ready while its work type is paused", async () => {
    const { type } = await typeWithItems(3);
    await claimNext(sql, type, "paused", 1);
    await call(sql, "define_work_type", { work_type: type, paused: true });
    expect(await depth(type)).toMatchObject({ ready: 0, held: 1 });
    await call(sql, "define_work_type", { work_type: type, paused: false });
    expect(await depth(type)).toMatchObject({ ready: 2, held: 1 });
  });

  test("counts as ready what is due again and what a dead worker holds, where no worker runs", async () => {
    const { type } = await typeWithItems(2, { backoff_seconds: 100 });
    const [one] = await claimNext(sql, type, "a", 2);
    await release(sql, "a", one, "failed");
    expect(await depth(type)).toMatchObject({ ready: 0, held: 1 });
    await endWaits(sql, type);
    await endLeases(sql, type);
    expect(await depth(type)).toMatchObject({ ready: 2, held: 0 });
  });

  test("tells the longest wait, stops at at_most, and is zero of nothing", async () => {
    const { type } = await typeWithItems(5);
    await sql`update work_claims set due_at = now() - interval '50 s' where work_type = ${type}`;
    const { ready, oldest_wait_seconds } = await depth(type, undefined, 3);
    expect(ready).toBe(3);
    expect(oldest_wait_seconds).toBeGreaterThanOrEqual(50);
    await call(sql, "cancel_items", { work_type: type });
    expect(await depth(type)).toEqual({ ready: 0, held: 0, oldest_wait_seconds: 0 });
  });

  test.each([
    [{ work_type: "nothing" }, "PT404", "there is no such work type"],
    [{ capabilities: [] }, "PT400", "a JSON object was expected"],
    [{ at_most: 0 }, "PT400", "at_most is 0"],
    [{ at_most: 100_001 }, "PT400", "at_most is 100001"],
  ])("refuses %j", async (wrong, code, message) => {
    const { type } = await typeWithItems(0);
    await expect(call(sql, "work_depth", { work_type: type, ...wrong })).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
  });
});

test("each reads a bounded number of claims, on statistics of an empty table", async () => {
  const { type } = await typeWithItems(0);
  await sql`delete from work_items`;
  for (let page = 0; page < 5; page++) {
    await enqueue(
      type,
      Array.from({ length: 1000 }, () => ({})),
    );
    await call(sql, "cancel_items", { work_type: type });
  }
  for (let page = 0; page < 3; page++)
    await enqueue(
      type,
      Array.from({ length: 1000 }, () => ({})),
    );
  const readBy = (ask: (transaction: typeof sql) => Promise<unknown>): Promise<number> =>
    as("service_role").begin(async (transaction) => {
      await ask(transaction as never);
      const [read] = await transaction`
        select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::integer as claims
          from pg_stat_xact_user_tables where relid = 'public.work_claims'::regclass`;
      return read?.claims ?? 0;
    }) as Promise<number>;
  expect(await readBy((transaction) => transaction`select * from work_overview`)).toBe(1000);
  expect(await readBy((transaction) => call(transaction, "work_pulse"))).toBe(1000);
  expect(await readBy((transaction) => call(transaction, "work_depth", { work_type: type, at_most: 100 }))).toBe(100);
  const page = { work_type: type, older_than: "1 day", at_most: 100 };
  expect(await readBy((transaction) => call(transaction, "prune_finished", page))).toBeLessThan(4100);
});
