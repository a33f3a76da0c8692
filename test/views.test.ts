import { afterAll, describe, expect, test } from "vitest";
import { call, claimNext, endLeases, release, typeWithItems } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql } = await openDatabase();
afterAll(() => expectInvariants(sql));

test("work_overview counts each work type by state, its longest wait, its rate and the time left", async () => {
  const { type } = await typeWithItems(sql, 8, { max_failures: 2 });
  const [one, two, three, four] = await claimNext(sql, type, "a", 5);
  await release(sql, "a", one, "succeeded");
  await release(sql, "a", two, "succeeded");
  await release(sql, "a", three, "failed", { final: true });
  await release(sql, "a", four, "failed");
  await call(sql, "cancel_items", { work_type: type, max_items: 1 });
  await sql`update work_claims set due_at = now() - interval '90 seconds' where work_type = ${type} and status = 'ready'`;
  const [row] = await sql`
    select ready::integer, waiting::integer, blocked::integer, claimed::integer, succeeded::integer, failed::integer,
           cancelled::integer, finished_last_minute::integer, paused,
           extract(epoch from oldest_wait)::integer as oldest_wait, extract(epoch from time_left)::integer as time_left
      from work_overview where work_type = ${type}`;
  expect(row).toEqual({
    ...{ ready: 2, waiting: 1, blocked: 0, claimed: 1, succeeded: 2, failed: 1, cancelled: 1, paused: false },
    ...{
      finished_last_minute: 3,
      oldest_wait: expect.toSatisfy((seconds) => seconds >= 90 && seconds < 95),
      time_left: 80,
    },
  });
});

test("work_held shows each held claim with its worker and remaining lease", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  const [claim] = await claimNext(sql, type, "holder");
  await call(sql, "extend_claims", { worker_id: "holder", held: [{ ...claim, progress: 0.5 }] });
  const held = sql`
    select item_id, worker_id, progress, fence::integer, extract(epoch from lease_left)::integer > 50 as lives
      from work_held where work_type = ${type}`;
  expect(await held).toEqual([
    { item_id: ids[0], worker_id: "holder", progress: 0.5, fence: claim?.fence, lives: true },
  ]);
});

test("work_failures shows final failures with their errors, newest first", async () => {
  const { type, ids } = await typeWithItems(sql, 2);
  const [one, two] = await claimNext(sql, type, "a", 2);
  await release(sql, "a", one, "failed", { final: true, error: "first" });
  await release(sql, "a", two, "failed", { final: true, error: "second" });
  const rows = await sql`select item_id, error, failures, worker_id from work_failures where work_type = ${type}`;
  expect(rows).toEqual([
    { item_id: ids[1], error: "second", failures: 1, worker_id: "a" },
    { item_id: ids[0], error: "first", failures: 1, worker_id: "a" },
  ]);
});

describe("work_stuck", () => {
  const reasons = async (type: string): Promise<string[]> => {
    const rows = await sql<{ reason: string }[]>`select reason from work_stuck where work_type = ${type} order by 1`;
    return rows.map((row) => row.reason);
  };
  const register = (worker_id: string, type: string, capabilities: object, more: object = {}): Promise<unknown> =>
    call(sql, "register_worker", {
      worker_id,
      instance: crypto.randomUUID(),
      work_types: [type],
      capabilities,
      ...more,
    });

  test("shows each stuck claim with its reason, and no row if none is stuck", async () => {
    const { type } = await typeWithItems(sql, 4, { max_failures: 9 });
    const [failing] = await claimNext(sql, type, "a", 2);
    expect(await reasons(type)).toEqual([]);

    await endLeases(sql, type);
    await sql`update work_claims set expires_at = now() - interval '1 minute' where work_type = ${type} and status = 'claimed'`;
    expect(await reasons(type)).toEqual(Array(2).fill("its lease has ended and no worker has called since"));
    await call(sql, "extend_claims", { worker_id: "a", held: [failing] });
    await release(sql, "a", failing, "failed");
    await sql`update work_claims set due_at = now() - interval '1 minute', failures = 2, error = 'e' where work_type = ${type} and status = 'waiting'`;
    expect(await reasons(type)).toContain("it is due and no worker has called since");
    await sql`update work_claims set due_at = now() + interval '1 minute' where work_type = ${type} and status = 'waiting'`;
    expect(await reasons(type)).toContain("it fails again and again: 2 failures, 0 crashes; e");
  });

  test("has the head of a lane that no worker takes for five minutes, and of a paused work type at once", async () => {
    const { type, ids } = await typeWithItems(sql, 2);
    await sql`update work_claims set due_at = now() - interval '1 hour' where work_type = ${type}`;
    await sql`update work_items set priority = 5 where id = ${ids[1] ?? ""}`;
    expect(await reasons(type)).toEqual(["no live worker does this work type"]);
    await register("alive", type, {});
    expect(await reasons(type)).toEqual(["it is the head of its lane, and no worker has taken it for five minutes"]);
    expect(await sql`select item_id from work_stuck where work_type = ${type}`).toEqual([{ item_id: ids[1] }]);
    await sql`update work_claims set due_at = now() where work_type = ${type}`;
    expect(await reasons(type)).toEqual([]);
    await call(sql, "define_work_type", { work_type: type, paused: true });
    expect(await reasons(type)).toEqual(["its work type is paused"]);
  });

  test("has ready work that no live worker can run at once, and drops it when one can or none is there", async () => {
    const { type } = await typeWithItems(sql, 0);
    await register("u 16", type, { vram: 16 });
    const [first] = await call<string[]>(sql, "enqueue_items", {
      items: [{ requires: { vram: 80 }, labels: { customer: "acme" } }, { requires: { vram: 8 } }],
    });
    const reason = 'no live worker can run it: it requires {"vram": 80} and shows {"customer": "acme"}';
    expect(await sql`select item_id, reason from work_stuck where work_type = ${type}`).toEqual([
      { item_id: first, reason },
    ]);
    await register("u picky", type, { vram: 80 }, { accepts: { customer: "globex" } });
    expect(await reasons(type)).toEqual([reason]);
    await register("u 80", type, { vram: 80 });
    expect(await reasons(type)).toEqual([]);
    await call(sql, "retire_worker", { worker_id: "u 80" });
    expect(await reasons(type)).toEqual([reason]);
    await call(sql, "retire_worker", { worker_id: "u picky" });
    await call(sql, "retire_worker", { worker_id: "u 16" });
    expect(await reasons(type)).toEqual([]);
  });

  test("has items that all workers yield for ever, and not those they yield for a time", async () => {
    const { type } = await typeWithItems(sql, 1);
    await register("dear", type, { gpu: 1 }, { exclusive: ["gpu"] });
    expect(await reasons(type)).toEqual(["no live worker can run it: it requires {} and shows {}"]);
    await register("kind", type, { gpu: 1 }, { exclusive: ["gpu"], yield_seconds: 30 });
    expect(await reasons(type)).toEqual([]);
  });
});
