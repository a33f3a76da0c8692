// One list of cases for all transports of the client: whichever carries a call, the same comes of it.
import { join } from "node:path";
import { createClient } from "@supabase/supabase-js";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  createWorkClient,
  defineWork,
  type Json,
  RequestError,
  SchemaError,
  type WorkClient,
  WorkFailedError,
} from "../src/index.ts";
import { overConnection } from "../src/sql/client.ts";
import { startStack } from "../src/stack/stack.ts";
import { overFetch, overSupabase, type Transport } from "../src/transport.ts";
import { badCalls } from "./support/bad-calls.ts";
import { claimNext, release } from "./support/calls.ts";

const stack = await startStack({ ephemeral: true, migrations: join(import.meta.dirname, "..") });
const owner = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
// A connection with settings of its own: no setting of the caller's may change what comes of a call.
const sql = postgres(stack.dbUrl, {
  ...{ max: 4, onnotice: () => {}, transform: postgres.camel, connection: { TimeZone: "UTC" } },
});
afterAll(async () => {
  // A query that was lost with its connection never ends by itself.
  await Promise.all([sql.end({ timeout: 1 }), owner.end({ timeout: 1 })]);
  await stack.stop();
});

const address = { url: stack.url, key: stack.serviceKey };
const supabase = createClient(stack.url, stack.secretKey);
const transports: [string, Transport, WorkClient][] = [
  ["plain fetch", overFetch(address, 30_000), createWorkClient(address)],
  ["supabase-js", overSupabase(supabase, 30_000), createWorkClient({ supabase })],
  ["SQL", overConnection(sql, 30_000), createWorkClient({ sql })],
];

const payload = z.object({ title: z.string(), pages: z.array(z.object({ text: z.string() })).default([]) });
const result = z.object({ words: z.number().int(), on: z.coerce.date() });

/** A work type of its own, with what it was given so far. */
async function declared(client: WorkClient, name: string) {
  const work = defineWork({
    name: `${name} ${crypto.randomUUID()}`,
    payload,
    result,
    maxFailures: 1,
    backoffSeconds: 0,
  });
  await work.declare(client);
  return work;
}

/** Does the oldest item of a work type. */
async function finish(type: string, outcome: string, more: Record<string, unknown>): Promise<void> {
  const [claim] = await claimNext(owner, type, "a");
  expect(await release(owner, "a", claim, outcome, more)).toBe(outcome);
}

describe.each(transports)("over %s", (name, transport, client) => {
  test("a declared work type has its rules, its schemas and a pool of its own", async () => {
    const work = defineWork({
      name: `rules over ${name}`,
      payload,
      result,
      lease: 90,
      maxFailures: 7,
      keepSucceeded: "30 days",
      minWorkerVersion: "1.2",
    });
    await work.declare(client);
    expect(await work.declare(client)).toMatchObject({
      name: `rules over ${name}`,
      pool: `rules over ${name}`,
      lease_seconds: 90,
      max_failures: 7,
      keep_succeeded: "30 days",
      min_worker_version: "1.2",
      payload_schema: { type: "object", required: ["title"], properties: { title: { type: "string" } } },
      result_schema: { properties: { words: { type: "integer" } } },
    });
  });

  test("an item goes with its options, and with the condition of its work", async () => {
    const work = defineWork({ name: `options over ${name}`, payload, requires: { gpu: "a100" } });
    await work.declare(client);
    const runAfter = new Date(Date.now() + 3_600_000);
    const options = { priority: 5, dedupeKey: "one", runAfter, labels: { customer: "acme" }, affinity: "llama" };
    const id = await client.enqueue(
      work,
      { title: "'quoted' \\ \"text\" 🙂" },
      { ...options, workflow: `flow of ${name}` },
    );
    expect(await client.enqueue(work, { title: "other" }, { dedupeKey: "one" })).toBe(id);
    const { rows } = await client.items({ pool: work.pool }, { withPayload: true });
    expect(rows).toMatchObject([
      {
        ...{ id, priority: 5, dedupe_key: "one", affinity: "llama", workflow: `flow of ${name}` },
        ...{ requires: { gpu: "a100" }, labels: { customer: "acme" }, payload: { title: "'quoted' \\ \"text\" 🙂" } },
      },
    ]);
    expect(new Date(rows[0]?.run_after ?? "")).toEqual(runAfter);
  });

  test("a payload that does not fit throws with its path, and nothing is sent", async () => {
    const work = await declared(client, name);
    const wrong = { title: "one", pages: [{ text: "fits" }, { text: 7 }] } as never;
    const error = await client.enqueue(work, wrong).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(SchemaError);
    expect((error as Error).message).toMatch(/^payload\.pages\[1\]\.text: .*string/);
    expect((await client.items({ pool: work.pool })).rows).toEqual([]);
  });

  test("an option that no item has is refused by its name", async () => {
    const work = await declared(client, name);
    const options = { dedupKey: "one" } as object;
    await expect(client.enqueue(work, { title: "a" }, options)).rejects.toThrow(
      /^enqueue_items: items\[0\]: .* and no dedup_key$/,
    );
    await expect(client.enqueueMany(work, [{ title: "a" }], options)).rejects.toThrow(
      "dedupKey is no option of enqueueMany(); its options are each, batch, onProgress, signal",
    );
    expect((await client.items({ pool: work.pool })).rows).toEqual([]);
  });

  test("a rule that is misspelt is refused by its name", async () => {
    const work = defineWork({ name: `misspelt over ${name}`, payload, maxFailure: 3 } as {
      name: string;
      payload: typeof payload;
    });
    await expect(work.declare(client)).rejects.toThrow(/misspelt.*max_failure|max_failure.*misspelt/);
  });

  test("a stream goes in batches, with each item's options, and reports its progress", async () => {
    const work = await declared(client, name);
    const said: number[] = [];
    const ids: string[] = [];
    async function* stream() {
      for (let n = 0; n < 1203; n++) yield { title: `n ${n}` };
    }
    const enqueued = await client.enqueueMany(work, stream(), {
      each: ({ title }, n) => ({ dedupeKey: title, priority: n % 2 }),
      onProgress: (done) => {
        said.push(done.enqueued);
        ids.push(...done.ids);
      },
    });
    expect([enqueued, said, new Set(ids).size]).toEqual([1203, [500, 1000, 1203], 1203]);
    const [first] = (await client.items({ pool: work.pool, dedupe_key: "n 1001" })).rows;
    expect(first).toMatchObject({ id: ids[1001], priority: 1 });
  });

  test("a stream ends at the first payload that does not fit, and names it", async () => {
    const work = await declared(client, name);
    const payloads = [{ title: "0" }, { title: "1" }, { title: 2 }] as { title: string }[];
    await expect(client.enqueueMany(work, payloads, { batch: 1 })).rejects.toThrow(/^items\[2\]\.payload\.title: /);
    expect((await client.items({ pool: work.pool })).rows.map((item) => item.dedupe_key)).toEqual([null, null]);
    expect(await client.enqueueMany(work, [])).toBe(0);
    await expect(client.enqueueMany(work, payloads, { batch: 1001 })).rejects.toThrow("batch is 1001");
  });

  test("a call repeated with its request id adds nothing", async () => {
    const work = await declared(client, name);
    const [items, requestId] = [[{ pool: work.pool }, { pool: work.pool }], crypto.randomUUID()];
    const ids = await client.enqueueItems(items, { requestId });
    expect(await client.enqueueItems(items, { requestId })).toEqual(ids);
    expect((await client.items({ pool: work.pool })).rows).toHaveLength(2);
  });

  test("an item waits for needs that are added, once however often the call is made", async () => {
    const work = await declared(client, name);
    const [scene, film] = [
      await client.enqueue(work, { title: "a" }, { dedupeKey: "scene" }),
      await client.enqueue(work, { title: "b" }),
    ];
    expect([await client.addNeeds(film, ["scene"]), await client.addNeeds(film, [{ id: scene }])]).toEqual([1, 1]);
    expect((await client.result(work, film))?.status).toBe("blocked");
    expect(await owner`select jsonb_array_length(needs) as needs from work_items where id = ${film}`).toEqual([
      { needs: 1 },
    ]);
    await finish(work.name, "succeeded", { result: { words: 3, on: "2030-01-31T12:00:00Z" } });
    const [claim] = await client.claimNext([work.name], "a");
    expect(claim).toMatchObject({
      item_id: film,
      needs: [{ item_id: scene, status: "succeeded", result: { words: 3 } }],
    });
    expect(await client.addNeeds(scene, [])).toBe(0);
    await expect(client.addNeeds(film, ["gone"])).rejects.toThrow('needs: there is no item "gone"');
    await expect(client.addNeeds(film, [{ id: film }])).rejects.toThrow("would need itself");
    await expect(client.addNeeds(crypto.randomUUID(), [])).rejects.toMatchObject({ status: 404 });
  });

  test("a result has its status, and the type that the schema makes of it", async () => {
    const work = await declared(client, name);
    const [done, failed] = [await client.enqueue(work, { title: "a" }), await client.enqueue(work, { title: "b" })];
    expect(await client.result(work, crypto.randomUUID())).toBeNull();
    expect(await client.result(work, done)).toMatchObject({ status: "ready", result: undefined, stale: null });
    await finish(work.name, "succeeded", { result: { words: 3, on: "2030-01-31T12:00:00Z" } });
    await finish(work.name, "failed", { error: "no words" });
    expect(await client.result(work, done)).toEqual({
      ...{ status: "succeeded", stale: null, error: null },
      result: { words: 3, on: new Date("2030-01-31T12:00:00Z") },
    });
    expect(await client.result(work, failed)).toMatchObject({ status: "failed", error: "no words", result: undefined });
  });

  test("a wait ends with the result", async () => {
    const work = await declared(client, name);
    const id = await client.enqueue(work, { title: "a" });
    const waited = client.wait(work, id);
    await finish(work.name, "succeeded", { result: { words: 3, on: "2030-01-31T12:00:00Z" } });
    expect((await waited).on).toEqual(new Date("2030-01-31T12:00:00Z"));
  });

  test("a wait throws where the claim fails or is cancelled, and where its time is over", async () => {
    const work = await declared(client, name);
    const failing = await client.enqueue(work, { title: "a" });
    await finish(work.name, "failed", { error: "no words" });
    const failure = await client.wait(work, failing).catch((thrown: unknown) => thrown);
    expect(failure).toBeInstanceOf(WorkFailedError);
    expect((failure as WorkFailedError).message).toBe(`${work.name} of item ${failing} failed: no words`);
    const id = await client.enqueue(work, { title: "b" });
    await expect(client.wait(work, id, { timeoutMs: 1 })).rejects.toThrow(/ is ready after 1 ms$/);
    const stop = new AbortController();
    const stopped = client.wait(work, id, { signal: stop.signal });
    stop.abort(new Error("enough"));
    await expect(stopped).rejects.toThrow("enough");
    await client.cancelItems(work.name, { itemIds: [id] });
    await expect(client.wait(work, id)).rejects.toMatchObject({ status: "cancelled" });
    await expect(client.wait(work, crypto.randomUUID())).rejects.toThrow(/has no claim/);
  });

  test("a function that is not there is named, and the call is not tried again", async () => {
    await expect(transport.rpc("no_such_function", {})).rejects.toMatchObject({
      ...{ name: "RequestError", status: 404, code: "PGRST202", isRetryable: false },
      message: expect.stringContaining("no_such_function is not there: work-claims is not installed"),
    });
    await expect(transport.rpc("claim_next", { no_such_argument: 1 })).rejects.toMatchObject({ status: 404 });
  });

  test("a call that the database is not there for is made again until it answers", async () => {
    await stack.postgres.stop("immediate");
    const answered = client.workTypes();
    const enqueued = client.enqueueItems([{ payload: { over: name } }]);
    await stack.postgres.start();
    expect((await answered).length).toBeGreaterThan(0);
    expect(await enqueued).toHaveLength(1);
  });

  test("a call gives up when its time is over, and says that it may be made again", async () => {
    const hasty = createWorkClient({
      ...(name === "SQL" ? { sql } : name === "supabase-js" ? { supabase } : address),
      retryForMs: 0,
    });
    await stack.postgres.stop("immediate");
    const error = await hasty.workTypes().catch((thrown: unknown) => thrown);
    await stack.postgres.start();
    expect(error).toBeInstanceOf(RequestError);
    expect(error).toMatchObject({ isRetryable: true });
  });
});

const text = defineWork({ name: "text", payload: z.string() });
const anyOf = (given: unknown): never => given as never;

test.each<[string, () => unknown, string]>([
  [
    "a name of a work type",
    () => transports[0]?.[2].enqueue(anyOf("text"), anyOf({})),
    'was expected, and "text" was given',
  ],
  [
    "a work type that is undefined",
    () => transports[0]?.[2].result(anyOf(undefined), "id"),
    "a value of type undefined was given",
  ],
  [
    "an option of wait()",
    () => transports[0]?.[2].wait(text, "id", anyOf({ timeout: 1 })),
    "timeout is no option of wait()",
  ],
  [
    "a payload for a schema",
    () => defineWork({ name: "a", payload: anyOf({ text: "string" }) }),
    "the payload of a is no schema",
  ],
  ["a name of a work", () => defineWork(anyOf({ payload })), "the name of a work is of type undefined"],
  [
    "a key",
    () => createWorkClient(anyOf({ url: stack.url, key: undefined })),
    "the key is undefined; a text was expected",
  ],
  ["a connection", () => createWorkClient({ sql: anyOf("postgres://db") }), "sql is of type string; a connection"],
])("a wrong value in place of %s is named", async (_, call, message) => {
  await expect((async () => call())()).rejects.toThrow(message);
});

test("every bad call has the same status, code, sentence and hint over all transports", async () => {
  await owner`create table keyless (id integer)`;
  await owner`create table keyed (id integer primary key, body text)`;
  await owner`grant all on keyless, keyed to service_role`;
  for (const { what, name, args, code } of await badCalls(owner)) {
    const errors = await Promise.all(
      transports.map(async ([, transport]) => {
        const error = await transport.rpc(name, args).catch((thrown: unknown) => thrown);
        expect(error, what).toBeInstanceOf(RequestError);
        const { status, message, hint, isRetryable } = error as RequestError;
        return { code: (error as RequestError).code, status, message, hint, isRetryable };
      }),
    );
    expect(errors[0]?.code, what).toBe(code);
    expect([errors[1], errors[2]], what).toEqual([errors[0], errors[0]]);
  }
});

test.each<[string, Record<string, unknown>]>([
  ["claim_next", { work_types: "no list", worker_id: "a" }],
  ["claim_next", { work_types: ["embed"], worker_id: "a", max_items: "many" }],
  ["claim_next", { work_types: ["embed"] }],
  ["claim_items", { item_ids: ["no uuid"], work_type: "embed", worker_id: "a" }],
  ["enqueue_items", { items: [{ payload: { text: "a\0b" } }] }],
  ["define_work_type", { work_type: "embed", keep_succeeded: "some time" }],
  ["pulse", {}],
])("%s with %o has the same status and code over all transports", async (name, args) => {
  const told = await Promise.all(
    transports.map(([, transport]) =>
      transport.rpc(name, args).then(
        () => "an answer",
        ({ status, code }: RequestError) => ({ status, code }),
      ),
    ),
  );
  expect(told[0]).not.toBe("an answer");
  expect(told).toEqual([told[0], told[0], told[0]]);
});

test("lists, filters and views answer the same rows over all transports", async () => {
  const [[, , client]] = transports as [(typeof transports)[0]];
  const work = await declared(client, "lists");
  const titles = ["plain", 'it\'s "quoted", (and) \\ more', "über\n2 lines"];
  await client.enqueueMany(
    work,
    titles.map((title) => ({ title })),
    {
      each: ({ title }, n) => ({ dedupeKey: title, priority: n, labels: { title, deep: { n }, list: [n, "x"] } }),
    },
  );
  const selectors: Parameters<WorkClient["items"]>[0][] = [
    { pool: work.pool },
    ...titles.map((title) => ({ pool: work.pool, dedupe_key: title })),
    ...titles.map((title) => ({ pool: work.pool, "labels.title": title })),
    { pool: work.pool, dedupe_key: { in: titles.slice(1) } },
    { pool: work.pool, "labels.deep.n": { ">=": 1 } },
    { pool: work.pool, "labels.title": { "<": "q" } },
    { pool: work.pool, "labels.list": "x", priority: { "!=": 1 } },
    { pool: work.pool, "labels.none": { exists: false }, affinity: { exists: false } },
    {
      pool: work.pool,
      any: [{ priority: 0 }, { all: [{ dedupe_key: titles[1] as string }, { priority: { ">": 0 } }] }],
    },
    { pool: work.pool, not: { dedupe_key: { in: [titles[1] as string] } } },
    { pool: work.pool, created_at: { ">": "1 hour ago" } },
  ];
  for (const selector of selectors) {
    const pages = await Promise.all(
      transports.map(([, , each]) => each.items(selector, { withPayload: true, order: ["priority.desc", "id"] })),
    );
    expect(pages[0]?.rows.length, JSON.stringify(selector)).toBeGreaterThan(0);
    expect([pages[1], pages[2]], JSON.stringify(selector)).toEqual([pages[0], pages[0]]);
  }
  const rest = await Promise.all(
    transports.map(async ([, , each]) => {
      const keys: (string | null)[] = [];
      for (let after: Json = null; ; ) {
        const page = await each.claims({ work_type: work.name }, { limit: 2, after: after as null });
        if (page.next === null) break;
        keys.push(...page.rows.map((row) => row.item_id));
        after = page.next;
      }
      const overview = (await each.overview()).map(({ work_type, open }) => ({ work_type, open }));
      return { keys, overview, work_types: await each.workTypes(), live: await each.liveWorkers(new Date(0)) };
    }),
  );
  expect(rest[0]?.keys).toHaveLength(3);
  expect([rest[1], rest[2]]).toEqual([rest[0], rest[0]]);
});
