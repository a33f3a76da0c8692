import { describe, expect, test } from "vitest";
import {
  type Claim,
  call,
  claimNext,
  endLeases,
  events,
  release,
  stored,
  typeWithItems,
  typeWithPool,
} from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { createToken, request } from "./support/tokens.ts";

const { sql, owner, as } = await openDatabase({ tokens: true });

async function rules(type: string): Promise<Record<string, unknown>> {
  const [row] = await owner`select paused, stopped from work_types where name = ${type}`;
  return row ?? {};
}

describe("a work type that stops at dead ends", () => {
  test("is paused by the first claim that fails for good, and says which and why", async () => {
    const { type } = await typeWithPool(sql, 3, { on_dead_end: "stop", max_failures: 2, backoff_seconds: 0 });
    const [first] = await claimNext(sql, type, "w");
    await release(sql, "w", first, "failed", { error: "no disk" });
    expect(await rules(type)).toEqual({ paused: false, stopped: null });
    const claims = await claimNext(sql, type, "w", 3);
    const again = claims.find(({ item_id }) => item_id === first?.item_id);
    await release(sql, "w", again, "failed", { error: "no disk" });
    const why = `item ${first?.item_id} failed for good in ${type}: no disk`;
    expect(await rules(type)).toEqual({ paused: true, stopped: why });
    expect(await events(sql, first?.item_id, type)).toEqual(["failed", "failed", "stopped"]);
    expect(await call(sql, "describe_work_types", { work_types: [type] })).toMatchObject([
      { is_paused: true, stopped: why },
    ]);
    expect(await claimNext(sql, type, "v")).toEqual([]);
  });

  test("goes on after define_work_type(paused => false), and stops at the next one", async () => {
    const { type } = await typeWithPool(sql, 2, { on_dead_end: "stop" });
    for (let n = 0; n < 2; n++) {
      const [claim] = await claimNext(sql, type, "w");
      await release(sql, "w", claim, "failed", { final: true, error: `reason ${n}` });
      expect(await rules(type)).toMatchObject({ paused: true, stopped: expect.stringContaining(`reason ${n}`) });
      await call(sql, "define_work_type", { work_type: type, lease_seconds: 30 });
      expect(await rules(type)).toMatchObject({ paused: true });
      await call(sql, "define_work_type", { work_type: type, paused: false });
      expect(await rules(type)).toEqual({ paused: false, stopped: null });
    }
  });

  test("is stopped by the last crash, and by finish_and_claim in the same transaction", async () => {
    const crashed = await typeWithPool(sql, 1, { on_dead_end: "stop", max_crashes: 1 });
    await claimNext(sql, crashed.type, "w");
    await endLeases(owner, crashed.type);
    await call(sql, "reap_expired_claims");
    expect(await rules(crashed.type)).toMatchObject({ paused: true, stopped: expect.stringContaining("crash 1 of 1") });

    const { type } = await typeWithPool(sql, 2, { on_dead_end: "stop" });
    const [claim] = (await claimNext(sql, type, "w")) as [Claim];
    const outcome = { item_id: claim.item_id, work_type: type, fence: claim.fence, outcome: "failed", final: true };
    const answer = await call(sql, "finish_and_claim", { worker_id: "w", outcomes: [outcome], work_types: [type] });
    expect(answer).toEqual({ released: ["failed"], claimed: [] });
  });

  test("is not stopped by a cancelled claim, nor by a failure that is tried again", async () => {
    const { type, ids } = await typeWithPool(sql, 2, { on_dead_end: "stop" });
    const [claim] = await claimNext(sql, type, "w");
    await release(sql, "w", claim, "failed");
    await call(sql, "cancel_items", { work_type: type, item_ids: ids });
    expect(await rules(type)).toEqual({ paused: false, stopped: null });
  });

  test("stops other work types by none of its failures", async () => {
    const stops = await typeWithPool(sql, 1, { on_dead_end: "stop" });
    const goesOn = await typeWithPool(sql, 1);
    const [one] = await claimNext(sql, stops.type, "w");
    const [two] = await claimNext(sql, goesOn.type, "w");
    await call(sql, "release_items", {
      worker_id: "w",
      outcomes: [one, two].map((claim) => ({
        item_id: claim?.item_id,
        work_type: claim?.work_type,
        fence: claim?.fence,
        outcome: "failed",
        final: true,
      })),
    });
    expect([await rules(stops.type), await rules(goesOn.type)]).toMatchObject([{ paused: true }, { paused: false }]);
  });

  test("is stopped by a worker with a token, and each step of it is recorded", async () => {
    const { type, ids } = await typeWithPool(sql, 1, { on_dead_end: "stop", history: "full" });
    const token = await createToken(sql, `stops-${type.replace(" ", "-")}`, [type]);
    const anon = as("anon");
    const [claim] = await request<Claim[]>(anon, token, "token_claim_next");
    const outcome = { item_id: claim?.item_id, work_type: type, fence: claim?.fence, outcome: "failed", final: true };
    expect(await request(anon, token, "token_release_items", { outcomes: [outcome] })).toEqual(["failed"]);
    expect(await rules(type)).toMatchObject({ paused: true });
    expect(await events(sql, ids[0], type)).toEqual(["enrolled", "claimed", "failed", "stopped"]);
    expect(await request(anon, token, "token_describe_work_types")).toMatchObject([{ name: type, is_paused: true }]);
  });

  test("is stopped once by many failures at the same time, and none of them is lost", async () => {
    const { type, ids } = await typeWithPool(sql, 40, { on_dead_end: "stop" });
    const claims = await claimNext(sql, type, "w", 40);
    const callers: Sql[] = Array.from({ length: 8 }, () => as("service_role"));
    const states = await Promise.all(
      claims.map((claim, n) => release(callers[n % 8] as Sql, "w", claim, "failed", { final: true })),
    );
    expect(new Set(states)).toEqual(new Set(["failed"]));
    const stopped = await owner`select from work_events where item_id = any (${ids}) and event = 'stopped'`;
    expect(stopped).toHaveLength(1);
  });
});

test("a failed claim waits up to a fifth longer than its backoff, by chance", async () => {
  const { type, ids } = await typeWithPool(sql, 50, { backoff_seconds: 100, backoff_limit_seconds: 100 });
  for (const claim of await claimNext(sql, type, "w", 50)) {
    await release(sql, "w", claim, "failed");
  }
  const [row] = await owner`
    select min(due_at - at) as least, max(due_at - at) as most, count(distinct round(extract(epoch from due_at - at)))::integer as different
      from (select c.due_at, (select e.at from work_events e where e.item_id = c.item_id and e.work_type = c.work_type) as at
              from work_claims c where c.item_id = any (${ids})) as waits`;
  const [within] = await owner`
    select ${row?.least}::interval >= interval '95 s' and ${row?.most}::interval <= interval '120 s' as is_within`;
  expect(within).toEqual({ is_within: true });
  expect(row?.different).toBeGreaterThan(5);
});

test("an item's own number of tries counts in place of its work type's", async () => {
  const { type } = await typeWithPool(sql, 0, { max_failures: 2, backoff_seconds: 0 });
  const [once, often] = await call<string[]>(sql, "enqueue_items", {
    items: [{ pool: type, max_failures: 1 }, { pool: type, max_failures: 4 }, { pool: type }],
  });
  const tries: Record<string, number> = {};
  for (
    let claims = await claimNext(sql, type, "w", 3);
    claims.length > 0;
    claims = await claimNext(sql, type, "w", 3)
  ) {
    for (const claim of claims) {
      tries[claim.item_id] = (tries[claim.item_id] ?? 0) + 1;
      await release(sql, "w", claim, "failed");
    }
  }
  expect([tries[once ?? ""], tries[often ?? ""]]).toEqual([1, 4]);
  expect(Object.values(tries).sort()).toEqual([1, 2, 4]);
  expect(await stored(owner, once, type)).toMatchObject({ status: "failed" });
});

describe("several claims an item", () => {
  const copiesOf = async (type: string): Promise<string[]> =>
    (await owner`select name from work_types where copy_of = ${type} order by name`).map(({ name }) => name);

  test("are made for each new item, each with a fence and an end of its own", async () => {
    const { type, ids } = await typeWithPool(sql, 2, { several: 3 });
    expect(await copiesOf(type)).toEqual([`${type}#2`, `${type}#3`]);
    const types = [type, `${type}#2`, `${type}#3`];
    const claims = await call<Claim[]>(sql, "claim_next", { work_types: types, worker_id: "w", max_items: 10 });
    expect(claims).toHaveLength(6);
    expect(new Set(claims.map(({ fence }) => fence)).size).toBe(6);
    await release(sql, "w", claims[0], "succeeded");
    await release(sql, "w", claims[1], "failed", { final: true });
    const rows = await owner`select status from work_claims where item_id = any (${ids}) order by status`;
    expect(rows.map(({ status }) => status)).toEqual([
      "claimed",
      "claimed",
      "claimed",
      "claimed",
      "failed",
      "succeeded",
    ]);
  });

  test("are made for earlier items by enroll_pool, where the number grows", async () => {
    const { type, ids } = await typeWithPool(sql, 2);
    await call(sql, "define_work_type", { work_type: type, several: 2 });
    const [late] = await call<string[]>(sql, "enqueue_items", { items: [{ pool: type }] });
    await call(sql, "enroll_pool", { pool: type });
    for (const id of [...ids, late]) {
      expect(await stored(owner, id, `${type}#2`)).toMatchObject({ status: "ready" });
    }
  });

  test("are waited for by open work that depends on their work type, where the number grows", async () => {
    const { type } = await typeWithPool(sql, 0);
    const after = `after ${type}`;
    await call(sql, "define_work_type", { work_type: after, pool: type, depends_on: [type] });
    const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ pool: type }] });
    await call(sql, "define_work_type", { work_type: type, several: 2 });
    expect(await stored(owner, id, after)).toMatchObject({ status: "blocked", waits_for: 2 });
    await call(sql, "enroll_pool", { pool: type });
    for (const one of [`${type}#2`, type]) {
      expect(await stored(owner, id, after)).toMatchObject({ status: "blocked" });
      const [claim] = await claimNext(sql, one, "w");
      await release(sql, "w", claim, "succeeded");
    }
    expect(await stored(owner, id, after)).toMatchObject({ status: "ready", waits_for: 0 });
  });

  test("wait like the first one where their work type comes to depend on another", async () => {
    const { type } = await typeWithPool(sql, 0);
    const scored = `scored ${type}`;
    await call(sql, "define_work_type", { work_type: scored, pool: type, several: 2 });
    const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ pool: type }] });
    await call(sql, "define_work_type", { work_type: scored, depends_on: [type] });
    expect(await stored(owner, id, scored)).toMatchObject({ status: "blocked", waits_for: 1 });
    expect(await stored(owner, id, `${scored}#2`)).toMatchObject({ status: "blocked", waits_for: 1 });
  });

  test("have the rules of their work type, also when these change", async () => {
    const { type } = await typeWithPool(sql, 0, { several: 2, max_failures: 7 });
    await call(sql, "define_work_type", { work_type: type, lease_seconds: 5, paused: true });
    const [copy] = await owner`select max_failures, lease_seconds, paused from work_types where name = ${`${type}#2`}`;
    expect(copy).toEqual({ max_failures: 7, lease_seconds: 5, paused: true });
  });

  test("are named by describe_work_types, and are in the row of a worker of their work type", async () => {
    const { type } = await typeWithPool(sql, 0, { several: 11 });
    const copies = Array.from({ length: 10 }, (_, n) => `${type}#${n + 2}`);
    expect(await call(sql, "describe_work_types", { work_types: [type] })).toMatchObject([{ name: type, copies }]);
    await call(sql, "register_worker", { worker_id: `of ${type}`, instance: crypto.randomUUID(), work_types: [type] });
    const [worker] = await owner`select work_types from work_workers where id = ${`of ${type}`}`;
    expect(worker?.work_types).toEqual([type, ...copies]);
  });

  test("are opened by a token for their work type", async () => {
    const { type, ids } = await typeWithPool(sql, 1, { several: 2 });
    const token = await createToken(sql, `several-${type.replace(" ", "-")}`, [type]);
    const anon = as("anon");
    const claims = await request<Claim[]>(anon, token, "token_claim_next", { max_items: 5 });
    expect(claims.map(({ work_type }) => work_type).sort()).toEqual([type, `${type}#2`]);
    const outcomes = claims.map(({ item_id, work_type, fence }) => ({
      item_id,
      work_type,
      fence,
      outcome: "succeeded",
    }));
    expect(await request(anon, token, "token_release_items", { outcomes })).toEqual(["succeeded", "succeeded"]);
    expect(await stored(owner, ids[0], `${type}#2`)).toMatchObject({ status: "succeeded" });
  });

  test("stop together at a dead end, and go on together", async () => {
    const { type } = await typeWithPool(sql, 1, { several: 2, on_dead_end: "stop" });
    const [claim] = await claimNext(sql, `${type}#2`, "w");
    await release(sql, "w", claim, "failed", { final: true });
    expect([await rules(type), await rules(`${type}#2`)]).toMatchObject([{ paused: true }, { paused: true }]);
    await call(sql, "define_work_type", { work_type: type, paused: false });
    expect(await rules(`${type}#2`)).toEqual({ paused: false, stopped: null });
  });

  test("with fewer than before are refused, and leave the number", async () => {
    const { type } = await typeWithItems(sql, 0, { several: 3 });
    await expect(call(sql, "define_work_type", { work_type: type, several: 2 })).rejects.toThrow(
      `several is 2; ${type} has 3 claims an item already; that number only grows`,
    );
    expect(await copiesOf(type)).toHaveLength(2);
  });

  test("are refused where a work type has such a name, or the name is too long, or a further claim asks for it", async () => {
    await owner`insert into work_types (name) values ('own#2')`;
    await expect(call(sql, "define_work_type", { work_type: "own", several: 2 })).rejects.toThrow(
      "several is 2; own#2 is a work type of its own, and would have to be a further claim of own",
    );
    await expect(call(sql, "define_work_type", { work_type: "x".repeat(197), several: 2 })).rejects.toThrow(
      "has a name of at most 196 characters",
    );
    await expect(call(sql, "define_work_type", { work_type: "new#2" })).rejects.toThrow(
      "work_type is new#2; a name that ends in # and a number is for the further claims of a work type",
    );
    const { type } = await typeWithItems(sql, 0, { several: 2 });
    await call(sql, "define_work_type", { work_type: `${type}#2` });
    await expect(call(sql, "define_work_type", { work_type: `${type}#2`, several: 3 })).rejects.toThrow(
      `${type}#2 is a further claim of ${type}; declare the number there`,
    );
  });
});
