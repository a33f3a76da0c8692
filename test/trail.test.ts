import { describe, expect, test } from "vitest";
import { type Claim, call, claimNext, endLeases, endWaits, events, release, typeWithPool } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";

const { sql, owner } = await openDatabase();

interface Step {
  event: string;
  from: string | null;
  to: string | null;
  worker: string | null;
  actor: string | null;
  fence: number | null;
  input: string | null;
  detail: string | null;
}

async function steps(item: string | undefined, type: string): Promise<Step[]> {
  return owner`
    select event, from_status as from, to_status as to, worker_id as worker, actor, fence::integer, input, detail
      from work_events where item_id = ${item ?? ""} and work_type = ${type} order by id`;
}

/** Calls as PostgREST does for a request with these headers and this JWT. */
function asPerson<Answer>(
  headers: object,
  claims: object,
  name: string,
  args: Record<string, unknown>,
): Promise<Answer> {
  return sql.begin(async (begun) => {
    const transaction = begun as unknown as Sql;
    await transaction`select set_config('request.headers', ${JSON.stringify(headers)}, true)`;
    await transaction`select set_config('request.jwt.claims', ${JSON.stringify(claims)}, true)`;
    return call<Answer>(transaction, name, args);
  }) as Promise<Answer>;
}

describe("a full history", () => {
  test("records each step of a claim in order, with the states, the worker and the fence", async () => {
    const { type, ids } = await typeWithPool(sql, 1, { history: "full" });
    const [first] = await claimNext(sql, type, "w");
    await release(sql, "w", first, "released");
    const [second] = await claimNext(sql, type, "w");
    await release(sql, "w", second, "failed", { error: "no disk" });
    await endWaits(owner, type);
    const [third] = await claimNext(sql, type, "v");
    await release(sql, "v", third, "succeeded");
    expect(
      (await steps(ids[0], type)).map(({ event, from, to, worker, fence, detail }) => [
        event,
        from,
        to,
        worker,
        fence,
        detail,
      ]),
    ).toEqual([
      ["enrolled", null, "ready", null, null, null],
      ["claimed", "ready", "claimed", "w", first?.fence, null],
      ["handed_back", "claimed", "ready", "w", first?.fence, null],
      ["claimed", "ready", "claimed", "w", second?.fence, null],
      ["failed", "claimed", "waiting", "w", second?.fence, "no disk"],
      ["claimed", "ready", "claimed", "v", third?.fence, null],
      ["succeeded", "claimed", "succeeded", "v", third?.fence, null],
    ]);
  });

  test("records with each claim the input that it was claimed with", async () => {
    const { type, ids } = await typeWithPool(sql, 0, { history: "full", on_change: "again" });
    const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ pool: type, payload: { n: 1 } }] });
    const [claim] = await claimNext(sql, type, "w");
    await release(sql, "w", claim, "succeeded");
    await owner`update work_items set payload = '{"n": 2}' where id = ${id ?? ""}`;
    await claimNext(sql, type, "w");
    const inputs = (await steps(id, type))
      .filter(({ input }) => input !== null)
      .map(({ event, input }) => [event, input]);
    expect(inputs.map(([event]) => event)).toEqual(["claimed", "reopened", "claimed"]);
    expect(inputs[0]?.[1]).not.toBe(inputs[1]?.[1]);
    expect(inputs[1]?.[1]).toBe(inputs[2]?.[1]);
    expect(ids).toEqual([]);
  });

  test("is recorded for all claims of one call, and for no other work type", async () => {
    const full = await typeWithPool(sql, 3, { history: "full" });
    const plain = await typeWithPool(sql, 3);
    const claims = await call<Claim[]>(sql, "claim_next", {
      work_types: [full.type, plain.type],
      worker_id: "w",
      max_items: 6,
    });
    await call(sql, "release_items", {
      worker_id: "w",
      outcomes: claims.map(({ item_id, work_type, fence }) => ({ item_id, work_type, fence, outcome: "succeeded" })),
    });
    for (const id of full.ids) {
      expect(await events(sql, id, full.type)).toEqual(["enrolled", "claimed", "succeeded"]);
    }
    for (const id of plain.ids) {
      expect(await events(sql, id, plain.type)).toEqual([]);
    }
  });

  test("keeps the newest events of each claim, as many as its work type says", async () => {
    const { type, ids } = await typeWithPool(sql, 1, { history: "full", keep_events: 3 });
    for (let n = 0; n < 3; n++) {
      const [claim] = await claimNext(sql, type, "w");
      await release(sql, "w", claim, "released");
    }
    expect(await events(sql, ids[0], type)).toEqual(["handed_back", "claimed", "handed_back"]);
    await call(sql, "define_work_type", { work_type: type, keep_events: 5 });
    const [claim] = await claimNext(sql, type, "w");
    await release(sql, "w", claim, "succeeded");
    expect(await events(sql, ids[0], type)).toHaveLength(5);
  });

  test("is not written twice by a repeated release or claim call", async () => {
    const { type, ids } = await typeWithPool(sql, 1, { history: "full" });
    const request_id = crypto.randomUUID();
    const claimArgs = { work_types: [type], worker_id: "w", request_id };
    const [claim] = await call<Claim[]>(sql, "claim_next", claimArgs);
    await call(sql, "claim_next", claimArgs);
    await release(sql, "w", claim, "succeeded");
    await release(sql, "w", claim, "succeeded");
    expect(await events(sql, ids[0], type)).toEqual(["enrolled", "claimed", "succeeded"]);
  });

  test("has one parked step where the call is repeated", async () => {
    const { type, ids } = await typeWithPool(sql, 1, { history: "full" });
    const [claim] = await claimNext(sql, type, "w");
    const parking = { external_id: "job", seconds: 60 };
    await release(sql, "w", claim, "parked", parking);
    await release(sql, "w", claim, "parked", parking);
    expect(await events(sql, ids[0], type)).toEqual(["enrolled", "claimed", "parked"]);
  });

  test("has a claim that gets a need later as blocked, and as unblocked", async () => {
    const { type, ids } = await typeWithPool(sql, 2, { history: "full" });
    await call(sql, "add_needs", { item_id: ids[1], needs: [ids[0]] });
    const [claim] = await claimNext(sql, type, "w");
    await release(sql, "w", claim, "succeeded");
    expect((await steps(ids[1], type)).map(({ event, from, to }) => [event, from, to])).toEqual([
      ["enrolled", null, "ready"],
      ["blocked", "ready", "blocked"],
      ["unblocked", "blocked", "ready"],
    ]);
  });
});

test("events without a full history have the states before and after", async () => {
  const { type, ids } = await typeWithPool(sql, 1, { max_failures: 2 });
  await claimNext(sql, type, "w");
  await endLeases(owner, type);
  const [second] = await claimNext(sql, type, "w");
  await release(sql, "w", second, "snoozed", { seconds: 60 });
  await endWaits(owner, type);
  const [third] = await claimNext(sql, type, "w");
  await release(sql, "w", third, "failed", { final: true });
  await claimNext(sql, type, "w");
  await call(sql, "retry_items", { work_type: type, item_ids: ids });
  await claimNext(sql, type, "w");
  await call(sql, "release_claims_for_worker", { worker_id: "w" });
  await call(sql, "cancel_items", { work_type: type, item_ids: ids });
  expect((await steps(ids[0], type)).map(({ event, from, to }) => [event, from, to])).toEqual([
    ["expired", "claimed", "ready"],
    ["snoozed", "claimed", "waiting"],
    ["failed", "claimed", "failed"],
    ["retried", "failed", "ready"],
    ["handed_back", "claimed", "ready"],
    ["cancelled", "ready", "cancelled"],
  ]);
});

describe("an act by hand", () => {
  test("is recorded with the person's name, the user of the JWT, or the role", async () => {
    const { type, ids } = await typeWithPool(sql, 1);
    const jwt = { sub: "user-7", role: "service_role" };
    await asPerson({ "x-work-as": "ada" }, jwt, "cancel_items", { work_type: type, item_ids: ids });
    await asPerson({ host: "project" }, jwt, "retry_items", { work_type: type, item_ids: ids });
    await asPerson({ "x-work-as": "" }, { role: "service_role" }, "set_priority", { item_ids: ids, priority: 7 });
    await call(sql, "cancel_items", { work_type: type, item_ids: ids });
    expect((await steps(ids[0], type)).map(({ event, actor, detail }) => [event, actor, detail])).toEqual([
      ["cancelled", "ada", null],
      ["retried", "user-7", null],
      ["prioritized", "service_role", "priority 7 in place of 0"],
      ["cancelled", "authenticator", null],
    ]);
  });

  test("that invalidates done work says who and why", async () => {
    const { type, ids } = await typeWithPool(sql, 1);
    const [claim] = await claimNext(sql, type, "w");
    await release(sql, "w", claim, "succeeded");
    await asPerson({ "x-work-as": "ada" }, {}, "invalidate_items", {
      work_type: type,
      item_ids: ids,
      reason: "bad model",
    });
    expect(await steps(ids[0], type)).toMatchObject([
      { event: "reopened", actor: "ada", detail: "bad model", from: "succeeded", to: "ready" },
    ]);
  });

  test("keeps the first 200 characters of a name", async () => {
    const { type, ids } = await typeWithPool(sql, 1);
    await asPerson({ "x-work-as": "x".repeat(5000) }, {}, "cancel_items", { work_type: type, item_ids: ids });
    expect((await steps(ids[0], type))[0]?.actor).toBe("x".repeat(200));
  });

  test("a cancelled claim's event names the worker that held it", async () => {
    const { type, ids } = await typeWithPool(sql, 1);
    await claimNext(sql, type, "holder");
    await call(sql, "cancel_items", { work_type: type, item_ids: ids });
    expect(await steps(ids[0], type)).toMatchObject([{ event: "cancelled", worker: "holder", from: "claimed" }]);
  });

  test("that changes no priority is not recorded", async () => {
    const { type, ids } = await typeWithPool(sql, 1);
    expect(await call(sql, "set_priority", { item_ids: ids, priority: 0 })).toBe(0);
    expect(await steps(ids[0], type)).toEqual([]);
  });
});
