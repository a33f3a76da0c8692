import { afterAll, expect, test } from "vitest";
import { createWorkClient } from "../src/client.ts";
import {
  type Claim,
  call,
  claimNext,
  events,
  someoneWaits,
  stored,
  typeWithItems,
  waitUntil,
} from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, as } = await openDatabase();
afterAll(() => expectInvariants(sql));

test("claim_next sent twice claims once and answers the same", async () => {
  const { type } = await typeWithItems(sql, 5);
  const args = { work_types: [type], worker_id: "a", max_items: 2, request_id: crypto.randomUUID() };
  const first = await call<Claim[]>(sql, "claim_next", args);
  expect(first).toHaveLength(2);
  expect(await call(sql, "claim_next", args)).toEqual(first);
  expect(await claimNext(sql, type, "b", 9)).toHaveLength(3);
});

test("claim_items sent twice claims once and answers the same", async () => {
  const { type, ids } = await typeWithItems(sql, 3);
  const args = { item_ids: ids, work_type: type, worker_id: "a", ttl_seconds: 77, request_id: crypto.randomUUID() };
  const first = await call<Claim[]>(sql, "claim_items", args);
  expect(first).toHaveLength(3);
  expect(await call(sql, "claim_items", args)).toEqual(first);
});

test("an empty answer stays empty when the call is sent again", async () => {
  const { type } = await typeWithItems(sql, 0);
  const args = { work_types: [type], worker_id: "a", request_id: crypto.randomUUID() };
  expect(await call(sql, "claim_next", args)).toEqual([]);
  await call(sql, "enqueue_items", { items: [{}] });
  expect(await call(sql, "claim_next", args)).toEqual([]);
});

test("two copies of a call at once claim once and get the same answer", async () => {
  const { type } = await typeWithItems(sql, 50);
  const connections = Array.from({ length: 4 }, () => as("service_role"));
  for (let round = 0; round < 10; round += 1) {
    const args = { work_types: [type], worker_id: "a", max_items: 3, request_id: crypto.randomUUID() };
    const answers = await Promise.all(connections.map((each) => call<Claim[]>(each, "claim_next", args)));
    expect(answers[0]).toHaveLength(3);
    expect(answers).toEqual(connections.map(() => answers[0]));
  }
  expect(await sql`select from work_claims where work_type = ${type} and status = 'claimed'`).toHaveLength(30);
});

test("a copy waits for the first call to end", async () => {
  const { type } = await typeWithItems(sql, 4);
  const first = as("service_role");
  const second = as("service_role");
  const args = { work_types: [type], worker_id: "a", max_items: 2, request_id: crypto.randomUUID() };
  await first`begin`;
  const answer = await call<Claim[]>(first, "claim_next", args);
  const copy = call<Claim[]>(second, "claim_next", args);
  await someoneWaits(sql);
  await first`commit`;
  expect(await copy).toEqual(answer);
});

test("a request id of another worker gives no answer of the first worker", async () => {
  const { type } = await typeWithItems(sql, 2);
  const args = { work_types: [type], request_id: crypto.randomUUID() };
  await call(sql, "claim_next", { ...args, worker_id: "a" });
  expect(await call(sql, "claim_next", { ...args, worker_id: "b" })).toEqual([]);
});

test.each(["succeeded", "released", "failed"])(
  "finish_and_claim as %s sent twice answers the same",
  async (outcome) => {
    const { type, ids } = await typeWithItems(sql, 2);
    const [claim] = await claimNext(sql, type, "a");
    const args = {
      worker_id: "a",
      outcomes: [{ ...claim, outcome, result: 1, retry_after_seconds: 0 }],
      work_types: [type],
      max_items: 2,
      request_id: crypto.randomUUID(),
    };
    const first = await call(sql, "finish_and_claim", args);
    const before = [await stored(sql, ids[0], type), await stored(sql, ids[1], type), await events(sql, ids[0], type)];
    expect(await call(sql, "finish_and_claim", args)).toEqual(first);
    const after = [await stored(sql, ids[0], type), await stored(sql, ids[1], type), await events(sql, ids[0], type)];
    expect(after).toEqual(before);
  },
);

test.each(["succeeded", "released", "failed"])("release_items as %s sent twice answers the same", async (outcome) => {
  const { type, ids } = await typeWithItems(sql, 1);
  const [claim] = await claimNext(sql, type, "a");
  const args = { worker_id: "a", outcomes: [{ ...claim, outcome, result: 1, error: "e" }] };
  const first = await call(sql, "release_items", args);
  const before = [await stored(sql, ids[0], type), await events(sql, ids[0], type)];
  expect(await call(sql, "release_items", args)).toEqual(first);
  expect([await stored(sql, ids[0], type), await events(sql, ids[0], type)]).toEqual(before);
});

test("enqueue_items sent twice adds once and answers the same ids", async () => {
  const args = { items: [{ payload: 1 }, { dedupe_key: "once" }, {}], request_id: crypto.randomUUID() };
  const first = await call<string[]>(sql, "enqueue_items", args);
  const [before] = await sql`select count(*) from work_items`;
  expect(await call(sql, "enqueue_items", args)).toEqual(first);
  expect(await sql`select count(*) from work_items`).toEqual([before]);
});

test("a repeated call refuses bad arguments as the first call does", async () => {
  const { type } = await typeWithItems(sql, 3);
  const request_id = crypto.randomUUID();
  const [claim] = await call<Claim[]>(sql, "claim_next", { work_types: [type], worker_id: "a", request_id });
  const outcomes = [{ ...claim, outcome: "succeeded" }];
  for (const [name, args] of [
    ["claim_next", { work_types: [], worker_id: "a", request_id }],
    ["claim_next", { work_types: [type], worker_id: "", max_items: 0, request_id }],
    ["finish_and_claim", { outcomes, work_types: [], worker_id: "a", request_id }],
    ["finish_and_claim", { outcomes, work_types: [type], worker_id: null, request_id }],
  ] as const) {
    await expect(call(sql, name, args)).rejects.toMatchObject({ code: "PT400" });
  }
  expect(await stored(sql, claim?.item_id, type)).toMatchObject({ status: "claimed" });
  expect(await events(sql, claim?.item_id, type)).toEqual([]);
});

test("ids of one call are valid uuids in its order, after those of earlier calls", async () => {
  await typeWithItems(sql, 0);
  const added: string[] = [];
  for (const request_id of [null, null, null]) {
    added.push(...(await call<string[]>(sql, "enqueue_items", { items: Array(1000).fill({}), request_id })));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  expect(added).toEqual(added.toSorted());
  expect(new Set(added).size).toBe(3000);
  const requested = await call<string[]>(sql, "enqueue_items", {
    items: Array(20).fill({}),
    request_id: crypto.randomUUID(),
  });
  expect(requested).toEqual(requested.toSorted());
  for (const id of [...added.slice(0, 9), ...requested]) {
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  }
});

test("the client's calls that add items have request ids in the order of time", async () => {
  const sent: string[] = [];
  const client = createWorkClient({
    url: "http://localhost",
    key: "key",
    fetch: async (_, init) => {
      sent.push(JSON.parse(String(init?.body)).request_id);
      return Response.json([]);
    },
  });
  for (let n = 0; n < 3; n += 1) {
    await client.enqueueItems([{}]);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  expect(sent).toEqual([...new Set(sent)].toSorted());
  for (const id of sent) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("similar request ids make separate items", async () => {
  await typeWithItems(sql, 0);
  const ids: string[] = [];
  for (let n = 1; n <= 50; n += 1) {
    const request_id = `00000000-0000-0000-0000-${n.toString().padStart(12, "0")}`;
    ids.push(...(await call<string[]>(sql, "enqueue_items", { items: Array(20).fill({}), request_id })));
  }
  expect(new Set(ids).size).toBe(1000);
  expect(await sql`select from work_items where id = any (${ids})`).toHaveLength(1000);
});

test("request ids are kept for an hour and then forgotten", async () => {
  await sql`insert into work.requests (request_id, made_at) select gen_random_uuid(), now() - interval '2 hours' from generate_series(1, 200)`;
  const recent =
    await sql`select count(*)::integer as count from work.requests where made_at > now() - interval '1 hour'`;
  await waitUntil(async () => {
    await call(sql, "claim_next", { work_types: ["none"], worker_id: "a", request_id: crypto.randomUUID() });
    return (await sql`select from work.requests where made_at < now() - interval '1 hour'`).length === 0;
  });
  const [kept] = await sql`select count(*)::integer as count from work.requests`;
  expect(kept?.count).toBeGreaterThan(recent[0]?.count);
});

test("enqueue_items sent twice adds no item again that was deleted in between", async () => {
  const args = { items: [{ payload: { n: 1 } }], request_id: crypto.randomUUID() };
  const [id = ""] = await call<string[]>(sql, "enqueue_items", args);
  await sql`delete from work_items where id = ${id}`;
  expect(await call(sql, "enqueue_items", args)).toEqual([id]);
  expect(await sql`select from work_items where id = ${id}`).toHaveLength(0);
});

test("enqueue_items refuses a request id that came with other items", async () => {
  const request_id = crypto.randomUUID();
  await call(sql, "enqueue_items", { items: [{ payload: 1 }], request_id });
  await expect(call(sql, "enqueue_items", { items: [{ payload: 2 }], request_id })).rejects.toMatchObject({
    code: "PT409",
    message: expect.stringContaining("another call with other items has used it"),
  });
});
