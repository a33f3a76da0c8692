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

interface Job {
  item_id: string;
  external_id: string;
  fence: number;
  is_ended: boolean;
  state: unknown;
}

const takeParked = (type: string, more = {}): Promise<Job[]> =>
  call(sql, "take_parked", { work_types: [type], worker_id: "poller", ...more });

let jobs = 0;

/** Claims one item and parks it under an id of its own. */
async function parkOne(rules = {}): Promise<{ type: string; id: string; job: string; claim: { fence: number } }> {
  const { type, ids } = await typeWithItems(sql, 1, rules);
  const [claim] = await claimNext(sql, type, "submitter");
  jobs += 1;
  const job = `job ${jobs}`;
  expect(await release(sql, "submitter", claim, "parked", { external_id: job, seconds: 3600 })).toBe("parked");
  return { type, id: ids[0] as string, job, claim: claim as never };
}

describe("a parked claim", () => {
  test("stays claimed for as long as it was asked for, and its worker may leave", async () => {
    const { type, id, job } = await parkOne();
    expect(await call(sql, "retire_worker", { worker_id: "submitter" })).toBe(false);
    expect(await claimNext(sql, type, "other")).toEqual([]);
    const claim = await stored(sql, id, type);
    expect(claim).toMatchObject({ status: "claimed", external_id: job });
    expect((claim.expires_at as Date).getTime()).toBeGreaterThan(Date.now() + 3_000_000);
  });

  test("is not shortened by a heartbeat that was under way", async () => {
    const { type, id, claim } = await parkOne();
    const before = await stored(sql, id, type);
    await extend(sql, "submitter", { ...claim, item_id: id, work_type: type } as never);
    expect(await stored(sql, id, type)).toEqual(before);
  });

  test("is not lengthened by a repeated call, which is answered as before", async () => {
    const { type, id, job, claim } = await parkOne();
    const before = await stored(sql, id, type);
    const again = { external_id: job, seconds: 7200 };
    expect(await release(sql, "submitter", { ...claim, item_id: id, work_type: type } as never, "parked", again)).toBe(
      "parked",
    );
    expect(await stored(sql, id, type)).toEqual(before);
  });

  test("is closed by the id of its job, once", async () => {
    const { type, id, job } = await parkOne();
    const closing = { external_id: job, outcome: "succeeded", result: { url: "there" } };
    expect(await call(sql, "release_parked", closing)).toEqual([{ item_id: id, work_type: type, state: "succeeded" }]);
    expect(await call(sql, "release_parked", closing)).toEqual([]);
    expect(await stored(sql, id, type)).toMatchObject({
      status: "succeeded",
      result: { url: "there" },
      external_id: null,
    });
  });

  test("that fails counts a try, and is tried again", async () => {
    const { type, id, job } = await parkOne({ backoff_seconds: 0 });
    const closing = { external_id: job, outcome: "failed", error: "out of memory" };
    expect(await call(sql, "release_parked", closing)).toMatchObject([{ state: "waiting" }]);
    expect(await stored(sql, id, type)).toMatchObject({ failures: 1, error: "out of memory", external_id: null });
    expect(await events(sql, id, type)).toEqual(["failed"]);
    expect(await claimNext(sql, type, "other")).toMatchObject([{ external_id: null, failures: 1 }]);
  });

  test("that fails for good is not tried again", async () => {
    const { type, id, job } = await parkOne();
    await call(sql, "release_parked", { external_id: job, outcome: "failed", error: "no", final: true });
    expect(await stored(sql, id, type)).toMatchObject({ status: "failed" });
  });

  test("is not closed with another fence, nor for other work types", async () => {
    const { type, job, claim } = await parkOne();
    const closing = { external_id: job, outcome: "succeeded" };
    expect(await call(sql, "release_parked", { ...closing, fence: claim.fence + 1 })).toEqual([]);
    expect(await call(sql, "release_parked", { ...closing, work_types: ["another"] })).toEqual([]);
    expect(await call(sql, "release_parked", { ...closing, fence: claim.fence, work_types: [type] })).toHaveLength(1);
  });

  test("two claims under one id of a job are closed together", async () => {
    const { type } = await typeWithItems(sql, 2);
    for (const claim of await claimNext(sql, type, "submitter", 2)) {
      await release(sql, "submitter", claim, "parked", { external_id: "shared", seconds: 60 });
    }
    expect(await call(sql, "release_parked", { external_id: "shared", outcome: "succeeded" })).toHaveLength(2);
  });

  test("goes to another worker when its time has passed, with the id of the job; a late callback changes nothing", async () => {
    const { type, id, job } = await parkOne();
    await endLeases(sql, type);
    const [next] = await claimNext(sql, type, "other");
    expect(next).toMatchObject({ external_id: job, crashes: 1 });
    expect((await stored(sql, id, type)).error).toMatch(new RegExp(`^the time for the job ${job} ended`));
    expect(await call(sql, "release_parked", { external_id: job, outcome: "succeeded" })).toEqual([]);
    expect(await release(sql, "other", next, "succeeded")).toBe("succeeded");
  });

  test.each([
    ["released", {}],
    ["snoozed", { seconds: 0 }],
  ])("whose next holder ends its claim as %s keeps the id of its job for the one after", async (outcome, more) => {
    const { type, job } = await parkOne();
    await endLeases(sql, type);
    const [next] = await claimNext(sql, type, "other");
    await release(sql, "other", next, outcome, more);
    expect(await claimNext(sql, type, "third")).toMatchObject([{ external_id: job }]);
  });

  test("that is given back by the id of its job is tried without it", async () => {
    const { type, job } = await parkOne();
    await call(sql, "release_parked", { external_id: job, outcome: "released" });
    expect(await claimNext(sql, type, "other")).toMatchObject([{ external_id: null }]);
  });

  test("is counted apart", async () => {
    const { type, job } = await parkOne();
    const [counts] = await sql`select claimed, parked, ready from work_overview where work_type = ${type}`;
    expect(counts).toMatchObject({ claimed: "0", parked: "1", ready: "0" });
    expect(await call(sql, "work_depth", { work_type: type })).toMatchObject({ ready: 0, held: 0 });
    expect(await sql`select parked_as from work_held where work_type = ${type}`).toEqual([{ parked_as: job }]);
    expect(await sql`select parked, external_id from work_claim_list where work_type = ${type}`).toMatchObject([
      { parked: true, external_id: job },
    ]);
    const [item] = await sql`select item_id from work_claims where work_type = ${type}`;
    expect(await call(sql, "explain_item", { item_id: item?.item_id, work_type: type })).toMatchObject({
      reason: `${type}: it is parked: its work is done elsewhere`,
    });
    const described = await call(sql, "describe_work_types", { work_types: [type, "none"] });
    expect(described).toMatchObject([
      { name: type, is_declared: true, has_ready: false, has_open: false, has_parked: true },
      { name: "none", is_declared: false, has_ready: false, has_open: false, has_parked: false },
    ]);
  });
});

describe("asking about parked claims", () => {
  test("goes round: a job is answered to one worker, and to the next after the given seconds", async () => {
    const { type, job } = await parkOne();
    expect(await takeParked(type)).toMatchObject([{ external_id: job, is_ended: false, payload: { index: 0 } }]);
    expect(await takeParked(type)).toEqual([]);
    await sql`update work_claims set poll_at = clock_timestamp() where external_id = ${job}`;
    expect(await takeParked(type)).toHaveLength(1);
  });

  test("two workers at once are given different jobs", async () => {
    const { type } = await typeWithItems(sql, 20);
    for (const claim of await claimNext(sql, type, "submitter", 20)) {
      await release(sql, "submitter", claim, "parked", { external_id: claim.item_id, seconds: 60 });
    }
    const taken = await Promise.all([1, 2, 3].map(() => takeParked(type, { max_items: 10 })));
    const all = taken.flat().map((job) => job.external_id);
    expect(new Set(all).size).toBe(all.length);
    expect(all).toHaveLength(20);
  });

  test("a cancelled claim comes up until its job is said to be stopped", async () => {
    const { type, id, job } = await parkOne();
    await takeParked(type);
    expect(await call(sql, "cancel_items", { work_type: type, item_ids: [id] })).toBe(1);
    expect(await takeParked(type)).toMatchObject([{ external_id: job, is_ended: true }]);
    expect(await call(sql, "release_parked", { external_id: job, outcome: "succeeded" })).toEqual([]);
    expect(await call(sql, "release_parked", { external_id: job, outcome: "abandoned" })).toMatchObject([
      { state: "cancelled" },
    ]);
    await sql`update work_claims set poll_at = clock_timestamp() where item_id = ${id} and poll_at is not null`;
    expect(await takeParked(type)).toEqual([]);
  });

  test("a claim that failed since its time has passed too often comes up to be stopped", async () => {
    const { type, job } = await parkOne({ max_crashes: 1 });
    await endLeases(sql, type);
    expect(await claimNext(sql, type, "other")).toEqual([]);
    expect(await takeParked(type)).toMatchObject([{ external_id: job, is_ended: true }]);
  });

  test("a claim that is cancelled after the time for its job has passed comes up to be stopped", async () => {
    const { type, id, job } = await parkOne();
    await endLeases(sql, type);
    await claimNext(sql, type, "other");
    await call(sql, "cancel_items", { work_type: type, item_ids: [id] });
    expect(await takeParked(type)).toMatchObject([{ external_id: job, is_ended: true }]);
  });

  test("a claim whose next holder crashes for the last time comes up to be stopped", async () => {
    const { type, job } = await parkOne({ max_crashes: 2 });
    for (const worker of ["other", "third"]) {
      await endLeases(sql, type);
      await claimNext(sql, type, worker);
    }
    expect(await takeParked(type)).toMatchObject([{ external_id: job, is_ended: true }]);
  });

  test.each([
    [{ work_types: [], worker_id: "w" }, /work_types/],
    [{ work_types: ["t"], worker_id: "" }, /worker_id/],
    [{ work_types: ["t"], worker_id: "w", max_items: 0 }, /max_items/],
    [{ work_types: ["t"], worker_id: "w", every_seconds: 0 }, /every_seconds is 0/],
    [{ work_types: ["t"], worker_id: "w", every_seconds: null }, /every_seconds is null/],
  ])("%j is refused", async (args, message) => {
    await expect(call(sql, "take_parked", args)).rejects.toThrow(message);
  });
});

describe("a snoozed claim", () => {
  test("waits without a try counted, and its note is an event", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "w");
    const snooze = { seconds: 600, note: "the quota is used up" };
    expect(await release(sql, "w", claim, "snoozed", snooze)).toBe("waiting");
    expect(await claimNext(sql, type, "w")).toEqual([]);
    expect(await stored(sql, ids[0], type)).toMatchObject({ status: "waiting", failures: 0, crashes: 0, error: null });
    const [event] = await sql`select event, detail from work_events where item_id = ${ids[0] ?? ""}`;
    expect(event).toEqual({ event: "snoozed", detail: "the quota is used up" });
    expect(await call(sql, "describe_work_types", { work_types: [type] })).toMatchObject([{ has_open: true }]);
    await endWaits(sql, type);
    expect(await claimNext(sql, type, "w")).toHaveLength(1);
  });

  test("a late snooze changes nothing", async () => {
    const { type } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "w");
    await endLeases(sql, type);
    const [next] = await claimNext(sql, type, "other");
    expect(await release(sql, "w", claim, "snoozed", { seconds: 1 })).toBe("lost");
    expect(await release(sql, "other", next, "succeeded")).toBe("succeeded");
  });
});

describe("saved state", () => {
  test("of a heartbeat goes to the next holder after a crash, and is gone after success", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "w");
    const held = [{ item_id: claim?.item_id, work_type: type, fence: claim?.fence, state: { steps: 9 } }];
    await call(sql, "extend_claims", { worker_id: "w", held });
    await extend(sql, "w", claim);
    await endLeases(sql, type);
    const [next] = await claimNext(sql, type, "other");
    expect(next).toMatchObject({ state: { steps: 9 } });
    await release(sql, "other", next, "succeeded");
    expect(await stored(sql, ids[0], type)).toMatchObject({ state: null });
  });

  test.each(["failed", "released", "snoozed", "parked"])("may come with the outcome %s", async (outcome) => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "w");
    await release(sql, "w", claim, outcome, { seconds: 60, external_id: "x", state: [1] });
    expect(await stored(sql, ids[0], type)).toMatchObject({ state: [1] });
  });

  test("of another worker's claim is not written", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "w");
    const held = [{ item_id: claim?.item_id, work_type: type, fence: claim?.fence, state: "stolen" }];
    expect(await call(sql, "extend_claims", { worker_id: "thief", held })).toMatchObject([{ state: "lost" }]);
    expect(await stored(sql, ids[0], type)).toMatchObject({ state: null });
  });

  test("of more than 65536 bytes is refused", async () => {
    const { type } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "w");
    // Postgres would compress a text that repeats itself.
    const state = Array.from({ length: 20_000 }, (_, n) => n * 7919);
    const held = [{ item_id: claim?.item_id, work_type: type, fence: claim?.fence, state }];
    await expect(call(sql, "extend_claims", { worker_id: "w", held })).rejects.toThrow(/state has at most 65536 bytes/);
    await expect(release(sql, "w", claim, "released", { state })).rejects.toThrow(/outcomes\[0\]: state has \d+ bytes/);
  });
});

test.each([
  ["parked", { seconds: 60 }, /external_id is a text/],
  ["parked", { external_id: "x" }, /seconds is a number from 1 to 604800/],
  ["parked", { external_id: "x", seconds: 604_801 }, /seconds is a number from 1 to 604800/],
  ["parked", { external_id: 7, seconds: 60 }, /external_id is a text/],
  ["snoozed", {}, /seconds is a number from 0 to 2592000/],
  ["snoozed", { seconds: "soon" }, /seconds is a number from 0 to 2592000/],
])("a claim %s with %j is refused", async (outcome, more, message) => {
  const { type } = await typeWithItems(sql, 1);
  const [claim] = await claimNext(sql, type, "w");
  await expect(release(sql, "w", claim, outcome, more)).rejects.toThrow(message);
});

test.each([
  [{ external_id: "", outcome: "succeeded" }, /external_id/],
  [{ external_id: "x".repeat(501), outcome: "succeeded" }, /external_id/],
  [{ external_id: "x", outcome: "done" }, /outcome is done/],
  [{ external_id: "x", outcome: null }, /outcome is null/],
])("release_parked refuses %j", async (args, message) => {
  await expect(call(sql, "release_parked", args)).rejects.toThrow(message);
});

describe("a trace", () => {
  const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

  test("given at enqueue comes with the claim, also in a repeated answer", async () => {
    const { type } = await typeWithItems(sql, 0);
    await call(sql, "enqueue_items", { items: [{ traceparent }] });
    const args = { work_types: [type], worker_id: "w", request_id: "b1d7a9a5-3b1e-4a57-9c9d-0c2a3a7d1f10" };
    expect(await call(sql, "claim_next", args)).toMatchObject([{ traceparent }]);
    expect(await call(sql, "claim_next", args)).toMatchObject([
      { traceparent, state: null, external_id: null, try_seconds: null },
    ]);
  });

  test.each([
    traceparent.toUpperCase(),
    traceparent.replace("00-4", "ff-4"),
    `00-${"0".repeat(32)}-00f067aa0ba902b7-01`,
    `00-4bf92f3577b34da6a3ce929d0e0e4736-${"0".repeat(16)}-01`,
    `${traceparent}x`,
    `${traceparent}-more`,
    "",
    7,
  ])("%s is refused at enqueue", async (wrong) => {
    await expect(call(sql, "enqueue_items", { items: [{ traceparent: wrong }] })).rejects.toThrow(
      /traceparent is a text such as/,
    );
  });
});

describe("the rules for tries and versions", () => {
  test("come with the claim, and with the description of the work type", async () => {
    const { type } = await typeWithItems(sql, 1, { try_seconds: 90, min_worker_version: "1.10.0" });
    expect(await claimNext(sql, type, "w")).toMatchObject([{ try_seconds: 90 }]);
    expect(await call(sql, "describe_work_types", { work_types: [type] })).toMatchObject([
      { min_worker_version: "1.10.0", has_ready: false, has_open: true },
    ]);
  });

  test.each([
    [{ try_seconds: 0 }, /try_seconds is 0/],
    [{ min_worker_version: "new" }, /min_worker_version is new; numbers with points/],
    [{ min_worker_version: "1.2.3.4.5" }, /min_worker_version is 1.2.3.4.5/],
  ])("%j is refused", async (rules, message) => {
    await expect(call(sql, "define_work_type", { work_type: "wrong rules", ...rules })).rejects.toThrow(message);
  });
});
