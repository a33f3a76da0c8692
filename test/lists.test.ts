import { createClient } from "@supabase/supabase-js";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { createWorkClient, type WorkClient } from "../src/client.ts";
import type { Database } from "../src/database.types.ts";
import type { PageOptions } from "../src/lists/pages.ts";
import { claimOrders } from "../src/lists/rows.ts";
import type { ClaimSelector, ItemSelector, WorkerSelector } from "../src/lists/selector.ts";
import { openApi } from "./support/api.ts";

const stack = await openApi();
const owner = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
afterAll(async () => {
  await owner.end();
});
const client: WorkClient = createWorkClient({ url: stack.url, key: stack.secretKey, retryForMs: 0 });
const overSupabase = createWorkClient({ supabase: createClient<Database>(stack.url, stack.secretKey), retryForMs: 0 });

let pools = 0;
/** A pool of nobody else, with these items in it. */
async function pool(items: object[] = []): Promise<{ pool: string; ids: string[] }> {
  pools += 1;
  const name = `pool ${pools}`;
  await owner`insert into work_pools (name) values (${name})`;
  return { pool: name, ids: await client.enqueueItems(items.map((item) => ({ ...item, pool: name }))) };
}

/** The answers of both clients: plain fetch and supabase-js send the same query. */
async function both<Answer>(ask: (client: WorkClient) => Promise<Answer>): Promise<Answer> {
  const [answer, other] = await Promise.all([ask(client), ask(overSupabase)]);
  expect(other).toEqual(answer);
  return answer as Answer;
}
const itemIds = (selector: ItemSelector): Promise<string[]> =>
  both(async (by) => (await by.items(selector)).rows.map((row) => row.id));
const claimIds = (selector: ClaimSelector, options: PageOptions = {}): Promise<string[]> =>
  both(async (by) => (await by.claims(selector, options)).rows.map((row) => row.item_id));
const workerIds = (selector: WorkerSelector): Promise<string[]> =>
  both(async (by) => (await by.workers(selector)).rows.map((row) => row.id));

describe("items", async () => {
  const { pool: name, ids } = await pool([
    { priority: 1, dedupe_key: "k,1", labels: { customer: "acme", tier: 2 }, requires: { gpu: "a100" } },
    {
      priority: 5,
      affinity: "sdxl",
      labels: { customer: ["acme", "b"] },
      requires: { gpu: { "==": "a100" }, gpu_memory_gb: 20 },
    },
    {
      priority: 9,
      workflow: "night",
      run_after: "2099-01-01T00:00:00Z",
      requires: { hardware: { gpu_memory_gb: { ">=": 40 } } },
    },
    { payload: { file: { size: 7 }, on: true }, requires: { any: [{ gpu: "a100" }, { tpu: true }] } },
  ] as object[]);
  const [a = "", b = "", c = "", d = ""] = ids;
  const at = (number: number): number => Number(seqs[number]);
  const seqs = (await owner`select seq from work_items where pool = ${name} order by seq`).map((row) => row.seq);

  test.each<[string, object, string[]]>([
    ["id", { id: b }, [b]],
    ["id, in other letters", { id: b.toUpperCase() }, [b]],
    ["any of some ids", { id: { in: [a, c, a] } }, [a, c]],
    ["seq", { seq: at(1) }, [b]],
    ["a range of seq", { seq: { ">": at(0), "<": at(3) } }, [b, c]],
    ["priority", { priority: 5 }, [b]],
    ["a range of priorities", { priority: { ">=": 5 } }, [b, c]],
    ["a number as text", { priority: "5" }, [b]],
    ["any of some priorities", { priority: { in: [1, 9] } }, [a, c]],
    ["not a priority", { priority: { "!=": 5 } }, [a, c, d]],
    ["dedupe_key", { dedupe_key: "k,1" }, [a]],
    ["no dedupe_key", { dedupe_key: { exists: false } }, [b, c, d]],
    ["affinity", { affinity: "sdxl" }, [b]],
    ["workflow", { workflow: "night" }, [c]],
    ["not that workflow", { workflow: { "!=": "night" } }, [a, b, d]],
    ["run_after", { run_after: { ">": "2098-12-31" } }, [c]],
    ["run_after at that moment in another zone", { run_after: "2099-01-01T02:00:00+02:00" }, [c]],
    ["run_after before that moment", { run_after: { "<": "2099-01-01T00:00:00Z" } }, []],
    ["created lately", { created_at: { ">": "1 hour ago", "<=": "now" } }, [a, b, c, d]],
    ["created before", { created_at: { "<": new Date(0) } }, []],
    ["a label, and a list that has it", { "labels.customer": "acme" }, [a, b]],
    ["all of a list", { "labels.customer": ["acme", "b"] }, [b]],
    ["a label that is a number", { "labels.tier": 2 }, [a]],
    ["a plain number is that number, not a minimum", { "labels.tier": 1 }, []],
    ["no such label", { "labels.customer": { exists: false } }, [c, d]],
    ["labels as an object", { labels: { customer: "acme", tier: { ">": 1 } } }, [a]],
    ["a requirement as it was written", { "requires.gpu": "a100" }, [a]],
    ["a requirement in another spelling", { "requires.gpu.==": "a100" }, [b]],
    ["a minimum that is asked for", { "requires.gpu_memory_gb": { ">=": 20 } }, [b]],
    ["a nested one", { "requires.hardware.gpu_memory_gb.>=": { ">": 24 } }, [c]],
    ["not that label", { "labels.customer": { "!=": "acme" } }, [c, d]],
    ["any of some labels", { "labels.customer": { in: ["b", "c"] } }, [b]],
    ["= as ==", { priority: { "=": 5 }, "labels.customer": { "=": "acme" } }, [b]],
    ["nothing asked of it", { "requires.gpu": { exists: false } }, [c, d]],
    ["payload", { "payload.file.size": { "<": 8 }, "payload.on": true }, [d]],
    ["several at once", { "labels.customer": "acme", priority: { ">=": 5 }, "requires.gpu_memory_gb": 20 }, [b]],
    ["either of two", { any: [{ priority: 1 }, { "labels.customer": "b" }] }, [a, b]],
    ["not both", { not: { priority: 5, affinity: "sdxl" } }, [a, c, d]],
    ["all of some", { all: [{ priority: { ">": 1 } }, { affinity: { exists: true } }] }, [b]],
  ])("by %s", async (_, selector, found) => {
    expect(await itemIds({ ...selector, pool: name } as ItemSelector)).toEqual(found);
  });

  test("return all columns, and the payload on request", async () => {
    expect(await both((by) => by.items({ id: b }))).toEqual({
      rows: [
        {
          ...{ id: b, seq: at(1), pool: name, source_key: null, dedupe_key: null, priority: 5, workflow: null },
          ...{ affinity: "sdxl", run_after: null, created_at: expect.stringMatching(/^2.*\+00:00$/) },
          labels: { customer: ["acme", "b"] },
          requires: { gpu: { "==": "a100" }, gpu_memory_gb: 20 },
        },
      ],
      next: { id: b },
    });
    expect((await client.items({ id: d }, { withPayload: true })).rows).toMatchObject([
      { payload: { file: { size: 7 }, on: true } },
    ]);
  });
});

describe("claims", async () => {
  await client.defineWorkflow("claims", { priority: 2 });
  const { pool: name, ids } = await pool([
    { priority: 3, labels: { customer: "acme" } },
    { workflow: "claims" },
    { priority: 1 },
    { run_after: "2099-01-01T00:00:00Z", requires: { gpu: "a100" } },
    { requires: { gpu: "a100" } },
  ] as object[]);
  const [a = "", b = "", c = "", d = "", e = ""] = ids;
  const type = "list claims";
  await client.defineWorkType(type, { pool: name, maxFailures: 1 });
  await client.enrollPool(name);
  const claimed = await client.claimNext([type], "holder", { maxItems: 3 });
  const claimOf = (id: string) => claimed.find((claim) => claim.item_id === id) as (typeof claimed)[0];
  await client.releaseItem(claimOf(b), "holder", "succeeded", { result: { score: 0.9 } });
  await client.releaseItem(claimOf(c), "holder", "failed", { error: "out of (memory), 100%" });
  await client.extendClaims("holder", [{ ...claimOf(a), progress: 0.5 }]);

  test.each<[string, object, string[]]>([
    ["status", { status: "claimed" }, [a]],
    ["any of some", { status: { in: ["ready", "waiting"] } }, [d, e]],
    ["not a status", { status: { "!=": "ready" } }, [a, b, c, d]],
    ["item_id", { item_id: b }, [b]],
    ["worker_id", { worker_id: "holder" }, [a, b, c]],
    ["nobody", { worker_id: { exists: false } }, [d, e]],
    ["priority, the larger ones", { priority: { ">=": 2 } }, [a, b]],
    ["fence", { fence: claimOf(a).fence }, [a]],
    ["failures", { failures: { ">": 0 } }, [c]],
    ["crashes", { crashes: 0, status: "failed" }, [c]],
    ["progress", { progress: { "<=": 0.5 } }, [a]],
    ["error", { error: "out of (memory), 100%" }, [c]],
    ["either of two texts with signs", { error: { in: ["a,b", "out of (memory), 100%"] } }, [c]],
    ["result", { "result.score": { ">": 0.5 } }, [b]],
    ["a lease that goes on", { expires_at: { ">": "now" }, status: "claimed" }, [a]],
    ["a lease that has ended", { expires_at: { "<=": "now" }, status: "claimed" }, []],
    ["when it ended", { finished_at: { ">": "1 hour ago" } }, [b, c]],
    ["when it was taken", { claimed_at: { ">": "1 hour ago" } }, [a, b, c]],
    ["when it is due", { due_at: { ">": "2098-12-31" } }, [d]],
    ["how much of the lease is left", { lease_left: { ">": "30 seconds" } }, [a]],
    ["workflow", { workflow: "claims" }, [b]],
    ["a label", { "labels.customer": "acme" }, [a]],
    ["a requirement", { "requires.gpu": "a100", status: "ready" }, [e]],
    ["either of two", { any: [{ "labels.customer": "acme" }, { "result.score": 0.9 }] }, [a, b]],
  ])("by %s", async (_, selector, found) => {
    expect((await claimIds({ ...selector, pool: name } as ClaimSelector)).sort()).toEqual(found.sort());
    expect((await claimIds({ ...selector, work_type: type } as ClaimSelector)).sort()).toEqual(found.sort());
  });

  test("return all columns, and the result on request", async () => {
    const { rows } = await client.claims({ item_id: b, work_type: type }, { withResult: true });
    expect(rows).toEqual([
      {
        ...{ item_id: b, work_type: type, status: "succeeded", pool: name, source_key: null, priority: 2 },
        ...{
          rank: expect.any(Number),
          position: expect.any(Number),
          workflow: "claims",
          affinity: null,
          worker_id: "holder",
        },
        ...{ fence: claimOf(b).fence, request_id: expect.any(String), failures: 0, crashes: 0, progress: 1 },
        ...{ error: null, due_at: expect.any(String), claimed_at: expect.any(String) },
        ...{
          expires_at: expect.any(String),
          lease_left: null,
          finished_at: expect.any(String),
          parked: false,
          stale: null,
          waits_for: 0,
          external_id: null,
          labels: {},
          requires: {},
          result: { score: 0.9 },
        },
      },
    ]);
  });
});

describe("workers", async () => {
  const { pool: name, ids } = await pool([{}, {}]);
  const elsewhere = await pool();
  await client.defineWorkType("paint here", { pool: name });
  await client.defineWorkType("paint there", { pool: elsewhere.pool });
  const register = (id: string, workTypes: string[] | undefined, capabilities: object): Promise<unknown> =>
    client.registerWorker(id, crypto.randomUUID(), { workTypes, capabilities: capabilities as never, version: "1.2" });
  await register("a-here", ["paint here"], { gpu_memory_gb: 24, services: ["comfyui", "a1111"] });
  await register("b-there", ["paint there"], { gpu_memory_gb: 48, region: "eu" });
  await register("c-any", undefined, { gpu_memory_gb: "20" });
  await register("d-busy", ["paint here", "paint there"], { hardware: { gpu_memory_gb: 80 } });
  await register("e-silent", ["paint here"], {});
  await register("f-retired", ["paint here"], {});
  await register("g-late", ["paint here"], {});
  await client.claimItems(ids.slice(0, 1), "paint here", "d-busy");
  await client.claimItems(ids.slice(1), "paint here", "g-late");
  await owner`update work_claims set expires_at = now() - interval '1 second' where worker_id = 'g-late'`;
  await owner`update work_workers set last_seen_at = now() - interval '3 minutes' where id = 'e-silent'`;
  await owner`update work_workers set accepts = '{"customer": {"in": ["acme", "b"]}}', exclusive = '{services}' where id = 'a-here'`;
  await client.retireWorker("f-retired");

  test.each<[string, WorkerSelector, string[]]>([
    ["free ones of a pool", { pools: name, free: true }, ["a-here", "c-any", "g-late"]],
    ["free ones of another", { pools: elsewhere.pool, free: true }, ["b-there", "c-any"]],
    ["busy ones", { alive: true, free: false }, ["d-busy"]],
    ["live ones", { alive: true, pools: name }, ["a-here", "c-any", "d-busy", "g-late"]],
    ["silent ones", { alive: false, retired_at: { exists: false } }, ["e-silent"]],
    ["how many they hold", { holds: { ">": 0 } }, ["d-busy"]],
    ["work type", { work_types: "paint there" }, ["b-there", "c-any", "d-busy"]],
    ["a work type that nobody declared", { work_types: "new" }, ["c-any"]],
    ["a minimum of a capability", { "capabilities.gpu_memory_gb": { ">=": 24 } }, ["a-here", "b-there"]],
    ["one in a list", { "capabilities.services": "comfyui" }, ["a-here"]],
    ["all of a list", { "capabilities.services": ["comfyui", "a1111"] }, ["a-here"]],
    ["a nested capability", { "capabilities.hardware.gpu_memory_gb": 80 }, ["d-busy"]],
    ["what they accept", { "accepts.customer": { exists: true } }, ["a-here"]],
    ["what they are exclusive about", { exclusive: "services" }, ["a-here"]],
    ["when last heard of", { last_seen_at: { "<": "2 minutes ago" } }, ["e-silent"]],
    ["id", { id: { in: ["a-here", "f-retired"] }, version: "1.2" }, ["a-here", "f-retired"]],
  ])("by %s", async (_, selector, found) => {
    expect(await workerIds(selector)).toEqual(found);
  });

  test("filter by an exact value of accepts", async () => {
    await owner`update work_workers set accepts = '{"customer": "acme"}' where id = 'b-there'`;
    expect(await workerIds({ "accepts.customer": "acme" })).toEqual(["b-there"]);
  });

  test("come page by page", async () => {
    const first = await client.workers({}, { limit: 3 });
    const second = await client.workers({}, { limit: 100, after: first.next });
    expect([...first.rows, ...second.rows].map((row) => row.id)).toEqual([
      "a-here",
      "b-there",
      "c-any",
      "d-busy",
      "e-silent",
      "f-retired",
      "g-late",
    ]);
    expect(first.rows[0]).toMatchObject({ alive: true, free: true, holds: 0, work_types: ["paint here"] });
  });
});

describe("values with special characters are compared as text:", async () => {
  const hostile = [
    ...["a,b", "a|b", '"', '\\"', "(", ")", "a.b.c", "%", "100%25", "eq.acme", "in.(a,b)", "null", "true", "5", "all"],
    ...["*", "'; drop table work_items; --", "\\", " padded ", "", "é", "𝒳毫", "\u001b[2J", "a\nb", "$.x", "&limit=0"],
    ...["not.is.null", "{}", "[]", "@", "#", "+", "now", "-", "\u202e"],
  ];
  const keys = hostile.filter((text) => text !== "");
  const { pool: name, ids } = await pool(
    keys.map((text) => ({ dedupe_key: text, labels: { text, [`n ${text.replaceAll(".", "_")}`]: 1 } })),
  );
  const type = "hostile";
  await client.defineWorkType(type);
  const [id = ""] = ids;

  test.each(keys.map((text, index) => [JSON.stringify(text), text, ids[index] as string]))(
    "%s",
    async (_, text, found) => {
      expect(await itemIds({ pool: name, dedupe_key: text })).toEqual([found]);
      expect(await itemIds({ pool: name, dedupe_key: { in: [text] } })).toEqual([found]);
      expect(await itemIds({ pool: name, "labels.text": text })).toEqual([found]);
      expect(await itemIds({ pool: name, [`labels.n ${text.replaceAll(".", "_")}`]: 1 })).toEqual([found]);
      expect(await itemIds({ pool: name, [`labels.n ${text.replaceAll(".", "_")}`]: { ">=": 1 } })).toEqual([found]);
      expect(await itemIds({ any: [{ dedupe_key: text }, { id: { exists: false } }] })).toEqual([found]);
      expect(await itemIds({ pool: name, dedupe_key: { "!=": text } })).toHaveLength(ids.length - 1);
    },
  );

  test.each(hostile)("as a worker's id: %j", async (text) => {
    await owner`delete from work_claims where work_type = ${type}`;
    await client.claimItems([id], type, text === "" ? "x" : text);
    expect(await claimIds({ work_type: type, worker_id: text })).toEqual(text === "" ? [] : [id]);
  });
});

describe("orders", async () => {
  const { pool: name } = await pool([{ priority: 1 }, { priority: 9 }, { priority: 5 }, { priority: 5 }]);
  const type = "ordered";
  await client.defineWorkType(type, { pool: name, maxFailures: 1 });
  await client.enrollPool(name);
  const inOrder = (selector: ClaimSelector, order: readonly string[], offset?: number): Promise<string[]> =>
    claimIds({ work_type: type, ...selector }, { order, offset });

  test("the queue order is the order of claims", async () => {
    const queue = await inOrder({ status: "ready" }, claimOrders.queue);
    expect(await inOrder({ status: "ready" }, claimOrders.queue, 3)).toEqual(queue.slice(3));
    const claimed = await client.claimNext([type], "orderly", { maxItems: 4 });
    expect(claimed.map((claim) => claim.item_id)).toEqual(queue);
    expect(await inOrder({ status: "claimed" }, claimOrders.nextLease)).toHaveLength(4);
    for (const claim of claimed) await client.releaseItem(claim, "orderly", "failed");
    expect(await inOrder({ status: "failed" }, claimOrders.newestFailed)).toEqual(queue.reverse());
    expect(await inOrder({ status: "waiting" }, claimOrders.nextDue)).toEqual([]);
  });
});

test("5,000 claims and items come once each while others come and go", async () => {
  const { pool: name } = await pool();
  const type = "many";
  await client.defineWorkType(type, { pool: name });
  await owner`insert into work_items (pool, priority) select ${name}, n % 7 from generate_series(1, 5000) n`;
  const before = (await owner`select id from work_items where pool = ${name} order by id`).map((row) => row.id);
  const items: string[] = [];
  for await (const row of client.eachItem({ pool: name })) {
    items.push(row.id);
    if (items.length % 1000 === 1) await owner`insert into work_items (pool) values (${name})`;
  }
  expect(items.filter((id) => before.includes(id))).toEqual(before);
  expect(new Set(items).size).toBe(items.length);

  const claims: string[] = [];
  for await (const row of overSupabase.eachClaim({ work_type: type })) {
    claims.push(row.item_id);
    if (claims.length % 1000 === 1) await client.claimNext([type], "meanwhile", { maxItems: 50 });
  }
  expect(claims.filter((id) => before.includes(id))).toEqual(before);
  expect(new Set(claims).size).toBe(claims.length);
});

test("an item's claims of several work types are split by a page and come once each", async () => {
  const { ids } = await pool([{}]);
  const types = ["a", "b", "c d", "e,f"].map((type) => `split ${type}`);
  for (const type of types) await client.claimItems(ids, type, "w");
  const seen: string[] = [];
  let after: Parameters<WorkClient["claims"]>[1] = { limit: 1 };
  for (;;) {
    const { rows, next } = await client.claims({ item_id: ids[0] as string }, after);
    seen.push(...rows.map((row) => row.work_type));
    if (next === null) break;
    after = { limit: 1, after: next };
  }
  expect(seen).toEqual(types);
});

test("in TypeScript a misspelt name, or a value of another kind, does not compile", async () => {
  // @ts-expect-error no such column
  await expect(client.claims({ stauts: "ready" })).rejects.toThrow();
  // @ts-expect-error no such status
  await expect(client.claims({ status: "redy" })).rejects.toThrow();
  // @ts-expect-error a number
  await expect(client.items({ priority: { ">": "high" } })).rejects.toThrow();
  // @ts-expect-error claims have no capabilities
  await expect(client.claims({ "capabilities.gpu": "a100" })).rejects.toThrow();
});

describe("supabase-js", () => {
  test("calls functions as plain fetch does", async () => {
    const { ids } = await pool([{}]);
    const [claim] = await overSupabase.claimItems(ids, "by supabase-js", "w");
    expect(claim).toMatchObject({ item_id: ids[0], work_type: "by supabase-js" });
    expect(await overSupabase.releaseItem(claim as NonNullable<typeof claim>, "w", "succeeded")).toBe(true);
    await expect(overSupabase.defineWorkType("")).rejects.toMatchObject({ code: "PT400", status: 400 });
  });

  test("without a server fails like plain fetch", async () => {
    const nobody = createWorkClient({ supabase: createClient("http://127.0.0.1:9", "x"), retryForMs: 300 });
    await expect(nobody.workTypes()).rejects.toMatchObject({ name: "RequestError", code: "network" });
  });
});
