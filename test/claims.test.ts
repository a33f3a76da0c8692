import { afterAll, describe, expect, test } from "vitest";
import {
  type Claim,
  call,
  claimNext,
  endLeases,
  endWaits,
  events,
  extend,
  release,
  stored,
  typeWithItems,
} from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql } = await openDatabase();
afterAll(() => expectInvariants(sql));

function claimItems(ids: string[], type: string, worker: string): Promise<Claim[]> {
  return call(sql, "claim_items", { item_ids: ids, work_type: type, worker_id: worker });
}

describe("claiming", () => {
  test("an item is claimed by its id, once", async () => {
    const { type, ids } = await typeWithItems(sql, 2);
    const [won] = await claimItems(ids.slice(0, 1), type, "a");
    expect(won).toMatchObject({ item_id: ids[0], work_type: type, ttl_seconds: 60, failures: 0, crashes: 0 });
    expect(await claimItems(ids, type, "b")).toMatchObject([{ item_id: ids[1] }]);
    expect(await stored(sql, ids[0], type)).toMatchObject({ status: "claimed", worker_id: "a" });
  });

  test("ids that do not exist or are held are just missing from the answer", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    await claimItems(ids, type, "a");
    expect(await claimItems([...ids, "00000000-0000-0000-0000-000000000000"], type, "b")).toEqual([]);
  });

  test("an id named twice is claimed once", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    expect(await claimItems([...ids, ...ids], type, "a")).toHaveLength(1);
  });

  test("one item is claimed for two work types side by side", async () => {
    const first = await typeWithItems(sql, 1);
    const second = await typeWithItems(sql, 0);
    expect(await claimItems(first.ids, first.type, "a")).toHaveLength(1);
    expect(await claimItems(first.ids, second.type, "b")).toHaveLength(1);
  });

  test("claim_next returns the next item with its payload", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    expect(claim).toMatchObject({ item_id: ids[0], payload: { index: 0 }, pool: "default", source_key: null });
  });

  test("the lease has the length of the call, or else of the work type", async () => {
    const { type } = await typeWithItems(sql, 2, { lease_seconds: 7 });
    const [usual] = await claimNext(sql, type, "a");
    const [asked] = await call<Claim[]>(sql, "claim_next", { work_types: [type], worker_id: "a", ttl_seconds: 3600 });
    expect([usual?.ttl_seconds, asked?.ttl_seconds]).toEqual([7, 3600]);
    const rows = await sql`
      select extract(epoch from expires_at - claimed_at)::integer as seconds
        from work_claims where work_type = ${type} order by position`;
    expect(rows.map((row) => row.seconds)).toEqual([7, 3600]);
  });

  test("the fence grows with every claim of an item", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [first] = await claimNext(sql, type, "a");
    await release(sql, "a", first, "released");
    const [second] = await claimItems(ids, type, "b");
    await endLeases(sql, type);
    const [third] = await claimNext(sql, type, "c");
    expect(second?.fence).toBeGreaterThan(first?.fence ?? 0);
    expect(third?.fence).toBeGreaterThan(second?.fence ?? 0);
  });

  test("the fence grows when an item is deleted and made again", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [before] = await claimNext(sql, type, "a");
    await sql`delete from work_items where id = ${ids[0] ?? ""}`;
    await sql`insert into work_items (id, pool) values (${ids[0] ?? ""}, 'default')`;
    const [after] = await claimNext(sql, type, "a");
    expect(after?.fence).toBeGreaterThan(before?.fence ?? 0);
    expect(await release(sql, "a", before, "succeeded")).toBe("lost");
  });
});

describe("releasing", () => {
  test("a claim that succeeded keeps its result and is never claimed again", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    expect(await release(sql, "a", claim, "succeeded", { result: { vector: [1, 2] } })).toBe("succeeded");
    expect(await stored(sql, ids[0], type)).toMatchObject({
      ...{ status: "succeeded", result: { vector: [1, 2] }, progress: 1, worker_id: "a" },
      finished_at: expect.any(Date),
    });
    expect(await claimNext(sql, type, "b")).toEqual([]);
    expect(await claimItems(ids, type, "b")).toEqual([]);
  });

  test("the happy path writes no event", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    await release(sql, "a", claim, "succeeded");
    expect(await events(sql, ids[0], type)).toEqual([]);
  });

  test("a claim that failed waits, longer each time, and is ready when it is due", async () => {
    const { type, ids } = await typeWithItems(sql, 1, {
      max_failures: 5,
      backoff_seconds: 10,
      backoff_limit_seconds: 25,
    });
    const waits: number[] = [];
    for (const _ of [1, 2, 3]) {
      const [claim] = await claimNext(sql, type, "a");
      expect(await release(sql, "a", claim, "failed", { error: "no luck" })).toBe("waiting");
      const [row] = await sql`
        select extract(epoch from c.due_at - max(e.at))::real as wait, c.status, c.error
          from work_claims c join work_events e using (item_id, work_type)
         where c.work_type = ${type} group by c.due_at, c.status, c.error`;
      expect(row).toMatchObject({ status: "waiting", error: "no luck" });
      waits.push(row?.wait);
      expect(await claimNext(sql, type, "a")).toEqual([]);
      expect(await claimItems(ids, type, "a")).toEqual([]);
      await endWaits(sql, type);
    }
    // Up to a fifth is added by chance.
    for (const [n, least] of [10, 20, 25].entries()) {
      expect(waits[n]).toBeGreaterThan(least - 1);
      expect(waits[n]).toBeLessThanOrEqual(least * 1.2);
    }
    expect(await claimItems(ids, type, "a")).toMatchObject([{ failures: 3 }]);
  });

  test("a worker sets the time of the next try", async () => {
    const { type } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    await release(sql, "a", claim, "failed", { retry_after_seconds: 300 });
    const [row] =
      await sql`select due_at > clock_timestamp() + interval '290 seconds' as far from work_claims where work_type = ${type}`;
    expect(row?.far).toBe(true);
  });

  test("a claim with no tries left ends failed, with the last error", async () => {
    const { type, ids } = await typeWithItems(sql, 1, { max_failures: 2 });
    const [first] = await claimNext(sql, type, "a");
    await release(sql, "a", first, "failed", { error: "one" });
    await endWaits(sql, type);
    const [second] = await claimNext(sql, type, "a");
    expect(await release(sql, "a", second, "failed", { error: "two" })).toBe("failed");
    expect(await stored(sql, ids[0], type)).toMatchObject({ status: "failed", failures: 2, error: "two" });
    expect(await claimNext(sql, type, "a")).toEqual([]);
    expect(await events(sql, ids[0], type)).toEqual(["failed", "failed"]);
  });

  test("a worker marks a failure as final", async () => {
    const { type } = await typeWithItems(sql, 1, { max_failures: 9 });
    const [claim] = await claimNext(sql, type, "a");
    expect(await release(sql, "a", claim, "failed", { final: true })).toBe("failed");
  });

  test("a returned claim is ready at once and counts no try", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    expect(await release(sql, "a", claim, "released")).toBe("ready");
    expect(await stored(sql, ids[0], type)).toMatchObject({ status: "ready", failures: 0, crashes: 0 });
    expect(await claimNext(sql, type, "b")).toHaveLength(1);
  });

  test("release_item is true for the holder only", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    const args = { item_id: ids[0], work_type: type, outcome: "succeeded", fence: claim?.fence, result: 1 };
    expect(await call(sql, "release_item", { ...args, worker_id: "b" })).toBe(false);
    expect(await call(sql, "release_item", { ...args, worker_id: "a", fence: (claim?.fence ?? 0) + 1 })).toBe(false);
    expect(await stored(sql, ids[0], type)).toMatchObject({ status: "claimed" });
    expect(await call(sql, "release_item", { ...args, worker_id: "a" })).toBe(true);
    expect(await events(sql, ids[0], type)).toEqual(["stale_release", "stale_release"]);
  });

  test("release_item does not say that a claim succeeded which its holder has failed already", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    const args = { item_id: ids[0], work_type: type, fence: claim?.fence, worker_id: "a" };
    expect(await call(sql, "release_item", { ...args, outcome: "failed" })).toBe(true);
    expect(await call(sql, "release_item", { ...args, outcome: "failed" })).toBe(true);
    expect(await call(sql, "release_item", { ...args, outcome: "succeeded", result: 1 })).toBe(false);
    expect(await stored(sql, ids[0], type)).toMatchObject({ status: "waiting", failures: 1, result: null });
  });

  test("an item with a past run_after is ready since it was added", async () => {
    const { type } = await typeWithItems(sql, 0);
    const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ run_after: "2020-01-01T00:00:00Z" }] });
    const { due_at } = await stored(sql, id, type);
    expect(Date.now() - (due_at as Date).getTime()).toBeLessThan(60_000);
  });

  test("release_items answers in the order of its outcomes", async () => {
    const { type } = await typeWithItems(sql, 4, { max_failures: 2 });
    const claims = await claimNext(sql, type, "a", 4);
    const outcomes = ["failed", "released", "succeeded", "succeeded"].map((outcome, index) => ({
      ...{ item_id: claims[index]?.item_id, work_type: type, outcome },
      fence: (claims[index]?.fence ?? 0) + (index === 3 ? 1000 : 0),
    }));
    expect(await call(sql, "release_items", { worker_id: "a", outcomes })).toEqual([
      ...["waiting", "ready", "succeeded", "lost"],
    ]);
  });

  test("finish_and_claim closes one batch and claims the next", async () => {
    const { type, ids } = await typeWithItems(sql, 2);
    const [claim] = await claimNext(sql, type, "a");
    const outcomes = [{ item_id: claim?.item_id, work_type: type, fence: claim?.fence, outcome: "succeeded" }];
    expect(await call(sql, "finish_and_claim", { worker_id: "a", outcomes, work_types: [type] })).toMatchObject({
      released: ["succeeded"],
      claimed: [{ item_id: ids[1], payload: { index: 1 } }],
    });
  });
});

test.each([
  ["in no state", { status: "finished" }, "23514"],
  ["with no end of its lease", { status: "claimed", expires_at: null }, "23502"],
])("a claim that is written by hand %s is refused", async (_how, change, code) => {
  const { ids } = await typeWithItems(sql, 1);
  await expect(sql`update work_claims set ${sql(change)} where item_id = ${ids[0] as string}`).rejects.toMatchObject({
    code,
  });
});

test("a claim that is set to claimed by hand, without a lease, is taken back by the next call", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  const id = ids[0] as string;
  await sql`update work_claims set status = 'claimed', worker_id = 'x' where item_id = ${id} and work_type = ${type}`;
  expect(await sql`select lease_left from work_held where work_type = ${type}`).toMatchObject([{ lease_left: null }]);
  const told = await call(sql, "explain_item", { item_id: id, work_type: type });
  expect(JSON.stringify(told)).toContain("its lease has ended");
  expect(await claimNext(sql, type, "a")).toMatchObject([{ item_id: id, crashes: 1 }]);
});

test("no worker closes a claimed row without a fence", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  await sql`
    update work_claims set status = 'claimed', worker_id = 'x', expires_at = now() + interval '1 minute'
     where item_id = ${ids[0] as string}`;
  const outcomes = [{ item_id: ids[0], work_type: type, outcome: "succeeded" }];
  await expect(call(sql, "release_items", { worker_id: "x", outcomes })).rejects.toMatchObject({ code: "PT400" });
  expect(await stored(sql, ids[0], type)).toMatchObject({ status: "claimed" });
  await sql`delete from work_items where id = ${ids[0] as string}`;
});

test("deleting an item deletes its claims, and its worker gets lost as the answer", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  const [claim] = await claimNext(sql, type, "a");
  await sql`delete from work_items where id = ${ids[0] ?? ""}`;
  expect(await extend(sql, "a", claim)).toBe("lost");
  expect(await release(sql, "a", claim, "succeeded")).toBe("lost");
  expect(await stored(sql, ids[0], type)).toEqual({});
});
