import { afterAll, describe, expect, test } from "vitest";
import {
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

describe("a dead worker", () => {
  test("its items come back at the first claim call after the lease", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [held] = await claimNext(sql, type, "dead");
    expect(await claimNext(sql, type, "b")).toEqual([]);
    await endLeases(sql, type);
    const [taken] = await claimNext(sql, type, "b");
    expect(taken).toMatchObject({ item_id: ids[0], crashes: 1, failures: 0 });
    expect(taken?.fence).toBeGreaterThan(held?.fence ?? 0);
    expect(await events(sql, ids[0], type)).toEqual(["expired"]);
  });

  test("its items are taken over by id", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    await claimNext(sql, type, "dead");
    await endLeases(sql, type);
    const args = { item_ids: ids, work_type: type, worker_id: "b" };
    expect(await call(sql, "claim_items", args)).toMatchObject([{ item_id: ids[0], crashes: 1 }]);
  });

  test("a claim call with an empty list takes its items back", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    await claimNext(sql, type, "dead");
    await endLeases(sql, type);
    expect(await call(sql, "claim_items", { item_ids: [], work_type: type, worker_id: "b" })).toEqual([]);
    expect(await stored(sql, ids[0], type)).toMatchObject({ status: "ready", worker_id: null, crashes: 1 });
  });

  test("reap_expired_claims counts the claims it took back, and leaves live ones", async () => {
    const { type } = await typeWithItems(sql, 3);
    await claimNext(sql, type, "dead", 2);
    await endLeases(sql, type);
    const live = await claimNext(sql, (await typeWithItems(sql, 1)).type, "alive");
    expect(live).toHaveLength(1);
    await sql`
      update work_claims set expires_at = clock_timestamp() - interval '1 second', status = 'claimed', worker_id = 'dead'
       where work_type = ${type} and fence is not null`;
    expect(await call(sql, "reap_expired_claims", { max_items: 1 })).toBe(1);
    expect(await call(sql, "reap_expired_claims")).toBe(1);
    expect(await call(sql, "reap_expired_claims")).toBe(0);
    expect(await extend(sql, "alive", live[0])).toBe("held");
  });

  test("an item that kills its workers ends failed and does not block later items", async () => {
    const { type, ids } = await typeWithItems(sql, 2, { max_crashes: 2 });
    for (const worker of ["first", "second"]) {
      expect(await claimNext(sql, type, worker)).toMatchObject([{ item_id: ids[0] }]);
      await endLeases(sql, type);
    }
    expect(await claimNext(sql, type, "third")).toMatchObject([{ item_id: ids[1] }]);
    expect(await stored(sql, ids[0], type)).toMatchObject({
      status: "failed",
      crashes: 2,
      error: "the lease of worker second ended without a release (crash 2 of 2)",
    });
  });

  test("its items come back in an undeclared work type", async () => {
    const { ids } = await typeWithItems(sql, 1);
    const args = { item_ids: ids, work_type: "never declared", worker_id: "dead" };
    expect(await call(sql, "claim_items", args)).toHaveLength(1);
    await endLeases(sql, "never declared");
    expect(await call(sql, "claim_items", { ...args, worker_id: "b" })).toMatchObject([
      { crashes: 1, ttl_seconds: 60 },
    ]);
  });
});

describe("a late worker", () => {
  test("its release succeeds before another call takes the claim back", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "late");
    await endLeases(sql, type);
    expect(await release(sql, "late", claim, "succeeded", { result: "in time" })).toBe("succeeded");
    expect(await stored(sql, ids[0], type)).toMatchObject({ status: "succeeded", result: "in time", crashes: 0 });
  });

  test("its release is lost and recorded after the claim was taken back", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "late");
    await endLeases(sql, type);
    await call(sql, "reap_expired_claims");
    const before = await stored(sql, ids[0], type);
    expect(await release(sql, "late", claim, "succeeded", { result: "too late" })).toBe("lost");
    expect(await stored(sql, ids[0], type)).toEqual(before);
    expect(await events(sql, ids[0], type)).toEqual(["expired", "stale_release"]);
  });

  test("its release is lost after another worker claimed the item, and that worker keeps it", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [late] = await claimNext(sql, type, "late");
    await endLeases(sql, type);
    const [current] = await claimNext(sql, type, "b");
    for (const outcome of ["succeeded", "failed", "released"]) {
      expect(await release(sql, "late", late, outcome)).toBe("lost");
    }
    expect(await release(sql, "b", current, "succeeded", { result: "b" })).toBe("succeeded");
    expect(await stored(sql, ids[0], type)).toMatchObject({ result: "b", failures: 0 });
  });

  test("its release with the old fence is lost although it holds the claim again", async () => {
    const { type } = await typeWithItems(sql, 1);
    const [old] = await claimNext(sql, type, "late");
    await endLeases(sql, type);
    const [again] = await claimNext(sql, type, "late");
    expect(again?.fence).toBeGreaterThan(old?.fence ?? Number.POSITIVE_INFINITY);
    expect(await extend(sql, "late", old)).toBe("lost");
    for (const outcome of ["succeeded", "failed", "released"]) {
      expect(await release(sql, "late", old, outcome)).toBe("lost");
    }
    expect(await extend(sql, "late", again)).toBe("held");
  });

  test("its heartbeat is lost and recorded", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [late] = await claimNext(sql, type, "late");
    await endLeases(sql, type);
    await claimNext(sql, type, "b");
    const before = await stored(sql, ids[0], type);
    expect(await extend(sql, "late", late)).toBe("lost");
    expect(await stored(sql, ids[0], type)).toEqual(before);
    expect(await events(sql, ids[0], type)).toEqual(["expired", "stale_extend"]);
  });

  test("a worker with the right fence and another name is refused", async () => {
    const { type } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    expect(await extend(sql, "thief", claim)).toBe("lost");
    expect(await release(sql, "thief", claim, "succeeded")).toBe("lost");
    expect(await extend(sql, "a", claim)).toBe("held");
  });

  test("only the newest twenty events of a claim are kept", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    await extend(sql, "first", claim);
    for (let time = 0; time < 20; time += 1) {
      await extend(sql, "thief", claim);
    }
    const rows =
      await sql`select distinct worker_id, count(*)::integer from work_events where item_id = ${ids[0] ?? ""} group by 1`;
    expect(rows).toEqual([{ worker_id: "thief", count: 20 }]);
  });
});

describe("a heartbeat", () => {
  test("extends all claims of a worker and answers in their order", async () => {
    const { type } = await typeWithItems(sql, 2);
    const claims = await claimNext(sql, type, "a", 2);
    await endLeases(sql, type);
    const held = claims.map((claim, index) => ({ ...claim, progress: index / 2 })).reverse();
    const args = { worker_id: "a", held, ttl_seconds: 500 };
    expect(await call(sql, "extend_claims", args)).toMatchObject([
      { item_id: claims[1]?.item_id, state: "held", ttl_seconds: 500 },
      { item_id: claims[0]?.item_id, state: "held", ttl_seconds: 500 },
    ]);
    const rows = await sql`
      select progress, extract(epoch from expires_at - clock_timestamp())::integer as left
        from work_claims where work_type = ${type} order by position`;
    expect(rows.map((row) => row.progress)).toEqual([0, 0.5]);
    expect(rows.every((row) => row.left >= 498)).toBe(true);
  });

  test("names the same claim twice and holds it", async () => {
    const { type } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    const states = await call<{ state: string }[]>(sql, "extend_claims", { worker_id: "a", held: [claim, claim] });
    expect(states.map(({ state }) => state)).toEqual(["held", "held"]);
  });

  test("without claims keeps the worker alive", async () => {
    await call(sql, "register_worker", { worker_id: "idle", instance: crypto.randomUUID() });
    await sql`update work_workers set last_seen_at = clock_timestamp() - interval '1 hour' where id = 'idle'`;
    expect(await call(sql, "extend_claims", { worker_id: "idle", held: [] })).toEqual([]);
    const [row] =
      await sql`select last_seen_at > clock_timestamp() - interval '1 minute' as alive from work_workers where id = 'idle'`;
    expect(row?.alive).toBe(true);
  });
});

describe("by hand", () => {
  test("the next heartbeat reports a cancelled claim, and its release is lost", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    expect(await call(sql, "cancel_items", { work_type: type, item_ids: ids })).toBe(1);
    expect(await extend(sql, "a", claim)).toBe("cancelled");
    expect(await release(sql, "a", claim, "succeeded")).toBe("lost");
    expect(await stored(sql, ids[0], type)).toMatchObject({ status: "cancelled" });
  });

  test("cancel_items cancels all open claims and leaves ended ones", async () => {
    const { type, ids } = await typeWithItems(sql, 4);
    const [done, waiting, held] = await claimNext(sql, type, "a", 3);
    await release(sql, "a", done, "succeeded");
    await release(sql, "a", waiting, "failed");
    expect(held).toBeDefined();
    expect(await call(sql, "cancel_items", { work_type: type })).toBe(3);
    expect(await stored(sql, ids[0], type)).toMatchObject({ status: "succeeded" });
    expect(await claimNext(sql, type, "a")).toEqual([]);
  });

  test("cancel_items cancels unclaimed items in steps of max_items", async () => {
    const { type } = await typeWithItems(sql, 3);
    expect(await call(sql, "cancel_items", { work_type: type, max_items: 2 })).toBe(2);
    expect(await claimNext(sql, type, "a", 3)).toHaveLength(1);
  });

  test("failed claims are retried with their tries reset, succeeded ones are not", async () => {
    const { type, ids } = await typeWithItems(sql, 2, { max_failures: 1, max_crashes: 1 });
    const [one, two] = await claimNext(sql, type, "a", 2);
    await release(sql, "a", one, "failed");
    await release(sql, "a", two, "succeeded");
    expect(await call(sql, "retry_items", { work_type: type })).toBe(1);
    expect(await claimNext(sql, type, "a", 2)).toMatchObject([{ item_id: ids[0], failures: 0, crashes: 0 }]);
    expect(await call(sql, "retry_items", { work_type: type, item_ids: ids })).toBe(0);
    expect(await events(sql, ids[0], type)).toEqual(["failed", "retried"]);
  });

  test("retry_items reopens a cancelled claim only by its id", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    await call(sql, "cancel_items", { work_type: type });
    expect(await call(sql, "retry_items", { work_type: type })).toBe(0);
    expect(await call(sql, "retry_items", { work_type: type, item_ids: ids })).toBe(1);
    expect(await claimNext(sql, type, "a")).toHaveLength(1);
  });
});

describe("leaving", () => {
  test("a worker that leaves returns all its claims at once, and no try is counted", async () => {
    const { type, ids } = await typeWithItems(sql, 3);
    const other = await claimNext(sql, type, "stays");
    await claimNext(sql, type, "leaves", 2);
    expect(await call(sql, "release_claims_for_worker", { worker_id: "leaves" })).toBe(2);
    expect(await call(sql, "release_claims_for_worker", { worker_id: "leaves" })).toBe(0);
    expect(await claimNext(sql, type, "b", 3)).toMatchObject([
      { item_id: ids[1], failures: 0, crashes: 0 },
      { item_id: ids[2] },
    ]);
    expect(await extend(sql, "stays", other[0])).toBe("held");
  });

  test("an id that is alive in another process is refused, a dead or retired one is not", async () => {
    const first = { worker_id: "gpu-1", instance: crypto.randomUUID(), work_types: ["embed"] };
    const second = { ...first, instance: crypto.randomUUID() };
    await call(sql, "register_worker", first);
    await call(sql, "register_worker", first);
    await expect(call(sql, "register_worker", second)).rejects.toMatchObject({
      code: "PT409",
      message: expect.stringContaining("worker_id is gpu-1; a living worker has that id"),
    });
    await sql`update work_workers set last_seen_at = clock_timestamp() - interval '61 seconds' where id = 'gpu-1'`;
    expect(await call(sql, "register_worker", second)).toEqual({ worker_id: "gpu-1" });
    expect(await call(sql, "retire_worker", { worker_id: "gpu-1" })).toBe(true);
    expect(await call(sql, "retire_worker", { worker_id: "gpu-1" })).toBe(false);
    await call(sql, "register_worker", first);
  });

  test("a retired worker's claims are ready at once", async () => {
    const { type } = await typeWithItems(sql, 1);
    await call(sql, "register_worker", { worker_id: "retires", instance: crypto.randomUUID() });
    await claimNext(sql, type, "retires");
    await call(sql, "retire_worker", { worker_id: "retires" });
    expect(await claimNext(sql, type, "b")).toHaveLength(1);
  });
});

test("claim_items claims a waiting item that is due", async () => {
  const { type, ids } = await typeWithItems(sql, 1);
  const [claim] = await claimNext(sql, type, "a");
  await release(sql, "a", claim, "failed");
  await endWaits(sql, type);
  expect(await call(sql, "claim_items", { item_ids: ids, work_type: type, worker_id: "a" })).toHaveLength(1);
});
