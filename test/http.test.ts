import { createClient } from "@supabase/supabase-js";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { openApi } from "./support/api.ts";
import { badCalls } from "./support/bad-calls.ts";
import { type Claim, call, claimNext, endLeases, release, typeWithItems } from "./support/calls.ts";

const stack = await openApi();
const owner = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
afterAll(async () => {
  await owner.end();
});
const supabase = createClient(stack.url, stack.secretKey);

interface Answer {
  status: number;
  body: unknown;
}

async function send(path: string, init: RequestInit, key = stack.secretKey): Promise<Answer> {
  const isToken = key.split(".").length === 3;
  const response = await fetch(`${stack.url}/rest/v1/${path}`, {
    ...init,
    headers: {
      apikey: key,
      "content-type": "application/json",
      ...(isToken ? { authorization: `Bearer ${key}` } : {}),
    },
  });
  const text = await response.text();
  return { status: response.status, body: text === "" ? null : JSON.parse(text) };
}

function rpc(name: string, args: Record<string, unknown>, key?: string): Promise<Answer> {
  return send(`rpc/${name}`, { method: "POST", body: JSON.stringify(args) }, key);
}

describe("the page of candidates", () => {
  const pageOf = async (type: string, more = ""): Promise<string[]> => {
    const query = [
      "select=id,seq,payload,work_taken()&pool=eq.default",
      `work_taken.work_type=eq.${encodeURIComponent(type)}`,
      "work_taken=is.null&order=seq",
    ].join("&");
    const { status, body } = await send(`work_items?${query}${more}`, { method: "GET" });
    expect(status).toBe(200);
    return (body as { id: string }[]).map((item) => item.id);
  };

  test("holds ready items and expired claims, and no held, done, blocked or future ones", async () => {
    const { type, ids } = await typeWithItems(owner, 9);
    const [held, lapsed, done, failed, waiting] = await claimNext(owner, type, "a", 5);
    await release(owner, "a", done, "succeeded");
    await release(owner, "a", failed, "failed", { final: true });
    await release(owner, "a", waiting, "failed");
    await owner`update work_claims set expires_at = now() - interval '1 second' where item_id = ${lapsed?.item_id ?? ""} and work_type = ${type}`;
    await owner`update work_claims set status = 'blocked' where item_id = ${ids[5] ?? ""} and work_type = ${type}`;
    await call(owner, "cancel_items", { work_type: type, item_ids: [ids[6]] });
    const page = (await pageOf(type)).filter((id) => ids.includes(id));
    expect(page).toEqual([lapsed?.item_id, ids[7], ids[8]]);
    expect(page).not.toContain(held?.item_id);
    await owner`update work_claims set due_at = now() - interval '1 second' where status = 'waiting' and work_type = ${type}`;
    expect(await pageOf(type)).toContain(waiting?.item_id);
  });

  test("holds every item for a new work type, page by page", async () => {
    const { ids } = await typeWithItems(owner, 5);
    const [row] = await owner`select min(seq)::integer as seq from work_items where id = any(${ids})`;
    const first = await pageOf("never seen", `&seq=gt.${row?.seq - 1}&limit=3`);
    const second = await pageOf("never seen", `&seq=gt.${row?.seq + 2}&limit=3`);
    expect([...first, ...second]).toEqual(ids);
  });

  test("leads to the same rows as claim_next", async () => {
    const { type, ids } = await typeWithItems(owner, 3);
    const page = (await pageOf(type)).filter((id) => ids.includes(id));
    const byId = await rpc("claim_items", { item_ids: page.slice(0, 1), work_type: type, worker_id: "a" });
    const pulled = await rpc("claim_next", { work_types: [type], worker_id: "b", max_items: 9 });
    expect([...(byId.body as Claim[]), ...(pulled.body as Claim[])].map((claim) => claim.item_id)).toEqual(ids);
  });
});

describe("every function, through supabase-js and through plain fetch", () => {
  const both: [string, (name: string, args: Record<string, unknown>) => Promise<unknown>][] = [
    [
      "supabase-js",
      async (name, args) => {
        const { data, error } = await supabase.rpc(name, args);
        expect(error).toBeNull();
        return data;
      },
    ],
    [
      "fetch with a secret key",
      async (name, args) => {
        const { status, body } = await rpc(name, args);
        expect(status).toBe(200);
        return body;
      },
    ],
    ["fetch with a service_role token", async (name, args) => (await rpc(name, args, stack.serviceKey)).body],
  ];

  test.each(both)("%s", async (way, send) => {
    const type = `by ${way}`;
    const table = `rows by ${way}`;
    const key = (claim: Claim | undefined) => ({ item_id: claim?.item_id, work_type: type, fence: claim?.fence });
    await owner.unsafe(`create table "${table}" (id integer primary key)`);
    await owner.unsafe(`insert into "${table}" values (1), (2)`);

    expect(await send("register_worker", { worker_id: way, instance: crypto.randomUUID() })).toEqual({
      worker_id: way,
    });
    expect(await send("attach_pool", { source: `"${table}"` })).toEqual({ pool: table, key: ["id"] });
    expect(await send("define_work_type", { work_type: type, pool: table })).toMatchObject({ name: type, pool: table });
    expect(await send("enroll_pool", { pool: table })).toEqual({ mirrored: 2, enrolled: 0, done: true });
    expect(await send("enqueue_items", { items: [{ pool: table, payload: { id: 3 } }] })).toHaveLength(1);
    expect(await send("define_workflow", { workflow: way, priority: 1 })).toMatchObject({ name: way, priority: 1 });
    const claims = (await send("claim_next", { work_types: [type], worker_id: way, max_items: 2 })) as Claim[];
    expect(claims.map((claim) => claim.payload)).toEqual([{ id: 1 }, { id: 2 }]);
    expect(await send("extend_claims", { worker_id: way, held: claims.map(key) })).toMatchObject([
      { state: "held" },
      { state: "held" },
    ]);
    expect(await send("release_item", { ...key(claims[0]), worker_id: way, outcome: "succeeded", result: [1] })).toBe(
      true,
    );
    expect(
      await send("release_items", {
        worker_id: way,
        outcomes: [{ ...key(claims[1]), outcome: "failed", final: true }],
      }),
    ).toEqual(["failed"]);
    expect(await send("retry_items", { work_type: type })).toBe(1);
    const finished = (await send("finish_and_claim", { worker_id: way, outcomes: [], work_types: [type] })) as {
      claimed: Claim[];
    };
    expect(finished.claimed).toHaveLength(1);
    expect(await send("release_claims_for_worker", { worker_id: way })).toBe(1);
    expect(await send("claim_items", { item_ids: [claims[1]?.item_id], work_type: type, worker_id: way })).toHaveLength(
      1,
    );
    expect(await send("explain_item", { item_id: claims[1]?.item_id })).toMatchObject({
      claims: [{ work_type: type, status: "claimed", worker_id: way }],
    });
    expect(await send("would_match", { requires: { gpu: way } })).toMatchObject({ matching: 0 });
    expect(await send("prune_classes", {})).toBe(0);
    expect(await send("work_depth", { work_type: type })).toMatchObject({ held: 1 });
    expect(await send("define_pool", { pool: way })).toMatchObject({ name: way });
    expect(await send("work_remaining", { work_types: [type] })).toMatchObject([{ open: 2, running: 1 }]);
    expect(await send("work_pulse", {})).toMatchObject({ live_workers: expect.any(Number) });
    expect(await send("prune_finished", { work_type: type, older_than: "1 day" })).toEqual({ pruned: 0, done: true });
    expect(await send("refused_classes", { worker_id: way, class_ids: [1, 123456] })).toEqual([123456]);
    expect(await send("set_priority", { item_ids: [claims[1]?.item_id], priority: 7 })).toBe(1);
    expect(await send("describe_work_types", { work_types: [type] })).toMatchObject([
      { has_open: true, has_parked: false },
    ]);
    const [again] = (await send("claim_next", { work_types: [type], worker_id: way })) as Claim[];
    await send("release_items", {
      worker_id: way,
      outcomes: [{ ...key(again), outcome: "parked", external_id: way, seconds: 60 }],
    });
    expect(await send("take_parked", { work_types: [type], worker_id: way })).toMatchObject([{ external_id: way }]);
    expect(await send("release_parked", { external_id: way, outcome: "released" })).toMatchObject([{ state: "ready" }]);
    const [last] = (await send("claim_next", { work_types: [type], worker_id: way })) as Claim[];
    expect(await send("take_lock", { ...key(last), worker_id: way, name: way, slots: 2 })).toMatchObject({ slot: 1 });
    expect(await send("drop_lock", { ...key(last), worker_id: way, name: way })).toBe(true);
    expect(await send("reread_claim", { ...key(last), worker_id: way })).toMatchObject({ payload: last?.payload });
    expect(await send("add_needs", { item_id: last?.item_id, needs: [{ id: claims[0]?.item_id }] })).toBe(0);
    expect(await send("invalidate_items", { work_type: type, item_ids: [claims[0]?.item_id] })).toBe(1);
    expect(await send("cancel_items", { work_type: type })).toBe(3);
    expect(await send("reap_expired_claims", {})).toBe(0);
    expect(await send("retire_worker", { worker_id: way })).toBe(true);
  });

  test("every public function has an example", async () => {
    const text = await import("node:fs/promises").then((fs) => fs.readFile(import.meta.filename, "utf8"));
    const rows = await owner<
      { name: string }[]
    >`select distinct proname::text as name from pg_proc where pronamespace = 'public'::regnamespace`;
    expect(rows.filter(({ name }) => !text.includes(`"${name}"`)).map(({ name }) => name)).toEqual([]);
  });
});

test("only the owner of a table detaches it, no worker", async () => {
  await owner`create table owned (id integer primary key)`;
  await rpc("attach_pool", { source: "owned" });
  expect(await rpc("detach_pool", { pool: "owned" })).toMatchObject({ status: 403, body: { code: "42501" } });
  expect(await call(owner, "detach_pool", { pool: "owned" })).toBe(true);
});

test("PostgREST's limit of rows does not cut a thousand claims", async () => {
  const { type } = await typeWithItems(owner, 0);
  await rpc("enqueue_items", { items: Array(1000).fill({}) });
  await rpc("enqueue_items", { items: Array(500).fill({}) });
  const { body } = await rpc("claim_next", { work_types: [type], worker_id: "a", max_items: 5000 });
  expect(body).toHaveLength(1000);
  const rows =
    await owner`select count(*)::integer as held from work_claims where work_type = ${type} and status = 'claimed'`;
  expect(rows).toEqual([{ held: 1000 }]);
});

test("a claim by GET is refused, so a link claims no item", async () => {
  const { type } = await typeWithItems(owner, 1);
  const { status } = await send(`rpc/claim_next?work_types={${type}}&worker_id=a`, { method: "GET" });
  expect(status).toBe(405);
});

test("a fence passes through JSON unchanged, up to the largest one", async () => {
  const { type } = await typeWithItems(owner, 1);
  const [sequence] = await owner`select last_value from work.fence`;
  await owner`select setval('work.fence', 9007199254740900)`;
  const { body } = await rpc("claim_next", { work_types: [type], worker_id: "a" });
  const [claim] = body as Claim[];
  expect(claim?.fence).toBe(9007199254740901);
  expect((await rpc("release_items", { worker_id: "a", outcomes: [{ ...claim, outcome: "succeeded" }] })).body).toEqual(
    ["succeeded"],
  );
  await owner`select setval('work.fence', ${sequence?.last_value})`;
});

test("a dead worker's items come back over HTTP, and its late release is lost", async () => {
  const { type } = await typeWithItems(owner, 1);
  const dead = await rpc("claim_next", { work_types: [type], worker_id: "dead" });
  await endLeases(owner, type);
  expect((await rpc("claim_next", { work_types: [type], worker_id: "b" })).body).toHaveLength(1);
  const [claim] = dead.body as Claim[];
  const late = { ...claim, outcome: "succeeded" };
  expect(await rpc("release_items", { worker_id: "dead", outcomes: [late] })).toEqual({ status: 200, body: ["lost"] });
});

describe("a call answers bad input with its sentence and a 4xx:", async () => {
  await owner`create table keyless (id integer)`;
  await owner`create table keyed (id integer primary key, body text)`;
  const calls = await badCalls(owner);

  test.each(calls)("$what ($name)", async ({ name, args, code, says }) => {
    const { status, body } = await rpc(name, args);
    expect(body).toMatchObject({ code, message: expect.stringContaining(says) });
    expect(status).toBe(code.startsWith("PT") ? Number(code.slice(2)) : code === "42P01" ? 404 : 400);
  });
});

describe.each([
  ["anon", stack.anonKey],
  ["publishable", stack.publishableKey],
  ["made up", "sb_secret_made_up"],
  ["no", ""],
])("with %s key", (_, key) => {
  test("no object of work-claims is read or called", async () => {
    const relations = await owner<{ name: string }[]>`
      select relname::text as name from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v') and relname like 'work\\_%'`;
    expect(relations.length).toBeGreaterThanOrEqual(19);
    for (const { name } of relations) {
      const { status, body } = await send(`${name}?limit=1`, { method: "GET" }, key);
      expect({ name, status, isArray: Array.isArray(body) }).toEqual({
        name,
        status: expect.any(Number),
        isArray: false,
      });
      expect([401, 403, 404]).toContain(status);
    }
    for (const { name } of relations) {
      expect([401, 403, 404]).toContain((await send(name, { method: "DELETE" }, key)).status);
      expect([401, 403, 404]).toContain((await send(name, { method: "POST", body: "[{}]" }, key)).status);
    }
    const functions = await owner<
      { name: string }[]
    >`select proname::text as name from pg_proc where pronamespace = 'public'::regnamespace`;
    for (const { name } of functions) {
      expect([401, 403, 404]).toContain((await rpc(name, {}, key)).status);
    }
    expect([401, 403]).toContain((await rpc("claim_next", { work_types: ["a"], worker_id: "a" }, key)).status);
  });
});
