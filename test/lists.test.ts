import { readFile } from "node:fs/promises";
import { join } from "node:path";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { createWorkClient, type WorkClient } from "../src/client.ts";
import type { Requirement } from "../src/requirement/requirement.ts";
import { parseSelector } from "../src/select/parse.ts";
import type { ClaimSelector, ItemSelector, WorkerSelector } from "../src/select/selector.ts";
import { startStack } from "../src/stack/stack.ts";
import { call } from "./calls.ts";
import { openDatabase } from "./database.ts";
import { seeded } from "./random.ts";
import { matches } from "./requirement-judge.ts";

const stack = await startStack({ ephemeral: true, migrations: join(import.meta.dirname, "..") });
const owner = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
afterAll(async () => {
  await owner.end();
  await stack.stop();
});
const client: WorkClient = createWorkClient({ url: stack.url, key: stack.secretKey, retryForMs: 0 });

let pools = 0;
/** A pool of nobody else, with these items in it. */
async function pool(items: object[] = []): Promise<{ pool: string; ids: string[] }> {
  pools += 1;
  const name = `pool ${pools}`;
  await owner`insert into work_pools (name) values (${name})`;
  return { pool: name, ids: await client.enqueueItems(items.map((item) => ({ ...item, pool: name }))) };
}

async function itemIds(selector: ItemSelector): Promise<string[]> {
  return (await client.items(selector)).rows.map((row) => row.id);
}
async function claimIds(selector: ClaimSelector): Promise<string[]> {
  return (await client.claims(selector)).rows.map((row) => row.item_id);
}
async function workerIds(selector: WorkerSelector): Promise<string[]> {
  return (await client.workers(selector)).rows.map((row) => row.id);
}

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
    ["a range between whole numbers", { priority: { ">": 4.5, "<": 5.5 } }, [b]],
    ["a number that none can be", { priority: 4.5 }, []],
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
    ["a requirement, however it was spelled", { "requires.gpu": "a100" }, [a, b]],
    ["a minimum that is asked for", { "requires.gpu_memory_gb": { ">=": 20 } }, [b]],
    ["a nested one", { "requires.hardware.gpu_memory_gb": { ">": 24 } }, [c]],
    ["nothing asked of it", { "requires.gpu": { exists: false } }, [c, d]],
    ["payload", { "payload.file.size": { "<": 8 }, "payload.on": true }, [d]],
    ["several at once", { "labels.customer": "acme", priority: { ">=": 5 }, "requires.gpu": "a100" }, [b]],
    ["either of two", { any: [{ priority: 1 }, { "labels.customer": "b" }] }, [a, b]],
    ["not both", { not: { priority: 5, affinity: "sdxl" } }, [a, c, d]],
    ["all of some", { all: [{ priority: { ">": 1 } }, { affinity: { exists: true } }] }, [b]],
  ])("by %s", async (_, selector, found) => {
    expect(await itemIds({ ...selector, pool: name } as ItemSelector)).toEqual(found);
  });

  test("in the order they came, whatever their pool", async () => {
    const other = await pool([{}, {}]);
    await client.enqueueItems([{ pool: name, priority: 1000 }]);
    const rows = (await client.items({ seq: { ">=": at(0) } })).rows;
    expect(rows.map((row) => row.seq)).toEqual(rows.map((row) => row.seq).sort((x, y) => x - y));
    expect(rows.map((row) => row.id)).toEqual(expect.arrayContaining([...ids, ...other.ids]));
  });

  test("with all their columns, and their payload where it is asked for", async () => {
    const { rows, next } = await client.items({ id: b });
    expect({ rows, next }).toEqual({
      rows: [
        {
          ...{ id: b, seq: at(1), pool: name, source_key: null, dedupe_key: null, priority: 5, workflow: null },
          ...{ affinity: "sdxl", run_after: null, created_at: expect.stringMatching(/^2.*\+00:00$/) },
          labels: { customer: ["acme", "b"] },
          requires: { gpu: { "==": "a100" }, gpu_memory_gb: 20 },
        },
      ],
      next: null,
    });
    expect((await client.items({ id: d }, { withPayload: true })).rows).toMatchObject([
      { payload: { file: { size: 7 }, on: true } },
    ]);
  });
});

describe("claims", async () => {
  const { pool: name, ids } = await pool([
    { priority: 3, labels: { customer: "acme" } },
    { priority: 2, workflow: "claims" },
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
    ["result", { "result.score": { ">": 0.5 } }, [b]],
    ["a lease that goes on", { expires_at: { ">": "now" }, status: "claimed" }, [a]],
    ["a lease that has ended", { expires_at: { "<=": "now" }, status: "claimed" }, []],
    ["when it ended", { finished_at: { ">": "1 hour ago" } }, [b, c]],
    ["when it was taken", { claimed_at: { ">": "1 hour ago" } }, [a, b, c]],
    ["when it is due", { due_at: { ">": "2098-12-31" } }, [d]],
    ["when it was taken, at the ends of time", { claimed_at: { ">": "4714-11-24 BC", "<": "infinity" } }, [a, b, c]],
    ["workflow", { workflow: "claims" }, [b]],
    ["a label", { "labels.customer": "acme" }, [a]],
    ["a requirement", { "requires.gpu": "a100", status: "ready" }, [e]],
    ["either of two", { any: [{ "labels.customer": "acme" }, { "result.score": 0.9 }] }, [a, b]],
  ])("by %s", async (_, selector, found) => {
    expect((await claimIds({ ...selector, pool: name } as ClaimSelector)).sort()).toEqual(found.sort());
    expect((await claimIds({ ...selector, work_type: type } as ClaimSelector)).sort()).toEqual(found.sort());
  });

  test("with all their columns, and their result where it is asked for", async () => {
    const { rows } = await client.claims({ item_id: b, work_type: type }, { withResult: true });
    expect(rows).toEqual([
      {
        ...{ item_id: b, work_type: type, status: "succeeded", pool: name, source_key: null, priority: 2 },
        ...{ position: expect.any(Number), workflow: "claims", affinity: null, worker_id: "holder" },
        ...{ fence: claimOf(b).fence, request_id: expect.any(String), failures: 0, crashes: 0, progress: 1 },
        ...{ error: null, due_at: expect.any(String), claimed_at: expect.any(String) },
        ...{
          expires_at: expect.any(String),
          finished_at: expect.any(String),
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
    ["free ones of a pool", { pool: name, free: true }, ["a-here", "c-any", "g-late"]],
    ["free ones of another", { pool: elsewhere.pool, free: true }, ["b-there", "c-any"]],
    ["busy ones", { alive: true, free: false }, ["d-busy"]],
    ["live ones", { alive: true, pool: name }, ["a-here", "c-any", "d-busy", "g-late"]],
    ["silent ones", { alive: false, retired_at: { exists: false } }, ["e-silent"]],
    ["how many they hold", { holds: { ">": 0 } }, ["d-busy"]],
    ["work type", { work_type: "paint there" }, ["b-there", "c-any", "d-busy"]],
    ["a work type that nobody declared", { work_type: "new" }, ["c-any"]],
    ["a minimum of a capability", { "capabilities.gpu_memory_gb": { ">=": 24 } }, ["a-here", "b-there"]],
    ["one in a list", { "capabilities.services": "comfyui" }, ["a-here"]],
    ["all of a list", { "capabilities.services": ["comfyui", "a1111"] }, ["a-here"]],
    ["a nested capability", { "capabilities.hardware.gpu_memory_gb": 80 }, ["d-busy"]],
    ["what they accept", { "accepts.customer": { exists: true } }, []],
    ["what they are exclusive about", { exclusive: "services" }, ["a-here"]],
    ["when last heard of", { last_seen_at: { "<": "2 minutes ago" } }, ["e-silent"]],
    ["id", { id: { in: ["a-here", "f-retired"] }, version: "1.2" }, ["a-here", "f-retired"]],
  ])("by %s", async (_, selector, found) => {
    expect(await workerIds(selector)).toEqual(found);
  });

  test("what a worker accepts in so many words", async () => {
    await owner`update work_workers set accepts = '{"customer": "acme"}' where id = 'b-there'`;
    expect(await workerIds({ "accepts.customer": "acme" })).toEqual(["b-there"]);
  });

  test("page by page", async () => {
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

describe("values that look like something else are what they are:", async () => {
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
      const spelled = `pool="${name}",dedupe_key=${JSON.stringify(text)},labels.text=${JSON.stringify(text)},labels.${JSON.stringify(`n ${text.replaceAll(".", "_")}`)}=1`;
      expect(await itemIds(parseSelector(spelled) as ItemSelector)).toEqual([found]);
      expect(await itemIds({ pool: name, dedupe_key: { "!=": text } })).toHaveLength(ids.length - 1);
    },
  );

  test.each(hostile)("as a worker's id: %j", async (text) => {
    await owner`delete from work_claims where work_type = ${type}`;
    await client.claimItems([id], type, text === "" ? "x" : text);
    expect(await claimIds({ work_type: type, worker_id: text })).toEqual(text === "" ? [] : [id]);
  });
});

describe("what is no selector is refused with its sentence:", () => {
  const refusals: [string, unknown, string][] = [
    [
      "an unknown name",
      { stauts: "ready" },
      'selector is about "stauts"; a row here has affinity, claimed_at, crashes',
    ],
    ["an unknown name inside any", { any: [{ stauts: 1 }] }, 'selector is about "stauts"'],
    ["a name into a plain column", { "status.x": 1 }, 'selector is about "status.x"'],
    [
      "an object's name alone",
      { labels: "acme" },
      'labels is "acme"; a name in it was expected, such as labels.customer',
    ],
    ["text for a number", { priority: "high" }, "priority is high; a number was expected"],
    ["a flag for a number", { priority: { ">": true } }, "priority is true; a number was expected"],
    ["text for a uuid", { item_id: "17" }, "item_id is 17; a uuid was expected"],
    ["text for a time", { due_at: { "<": "soon" } }, "due_at is soon; a time was expected"],
    ["a day that no calendar has", { due_at: "2030-02-30" }, "due_at is 2030-02-30; a time was expected"],
    ["a year that no clock has", { due_at: { ">": "300000-01-01" } }, "due_at is 300000-01-01; a time was expected"],
    [
      "longer ago than time is",
      { due_at: { ">": "300000 years ago" } },
      "due_at is 300000 years ago; a time was expected",
    ],
    ["more years than a number holds", { due_at: { ">": `${"9".repeat(20)} years ago` } }, "a time was expected"],
    ["a time without its number", { due_at: { ">": "ago" } }, "due_at is ago; a time was expected"],
    ["a zone that is none", { due_at: { ">": "2030-01-01 Nowhere/Here" } }, "a time was expected"],
    [
      "after the last moment",
      { due_at: { ">": "294276-12-31T23:59:59.999999Z" } },
      'due_at is {">": "294276-12-31T23:59:59.999999+00:00"}; a time was expected that has others before and after it',
    ],
    ["before the first moment", { due_at: { "<": "4714-11-24 BC" } }, "a time was expected that has others before"],
    ["a list for a column", { status: ["ready"] }, 'status is a list; a row has one value there; {"in": […]}'],
    ["null", { worker_id: null }, 'worker_id is null; a value was expected; {"exists": false}'],
    [
      "an operator that is none",
      { priority: { "=>": 5 } },
      'priority is {"=>": 5}; a value or an operator was expected',
    ],
    [
      "an operator without its kind",
      { priority: { exists: 1 } },
      "selector.priority.exists: expected true or false, got 1",
    ],
    ["an empty in", { status: { in: [] } }, "selector.status.in: expected a list of one or more"],
    ["a list", [], "selector: expected an object, got an empty list"],
    ["null at all", null, "selector: expected an object, got null"],
    ["any without a list", { any: {} }, "selector.any: expected a list of one or more objects"],
    [
      "more than a selector may hold",
      { item_id: { in: Array(101).fill("x") } },
      "a requirement has at most 100 values",
    ],
    ["a word as a label", { "labels.in": 1 }, "in is a word of the language"],
  ];
  test.each(refusals)("%s", async (_, selector, says) => {
    await expect(client.claims(selector as ClaimSelector)).rejects.toMatchObject({
      code: "PT400",
      message: expect.stringContaining(says),
    });
  });

  test("in TypeScript a misspelt name, or a value of another kind, does not compile", async () => {
    // @ts-expect-error there is no such column
    await expect(client.claims({ stauts: "ready" })).rejects.toThrow();
    // @ts-expect-error there is no such status
    expect((await client.claims({ status: "redy" })).rows).toEqual([]);
    // @ts-expect-error a number
    await expect(client.items({ priority: { ">": "high" } })).rejects.toThrow();
    // @ts-expect-error claims have no capabilities
    await expect(client.claims({ "capabilities.gpu": "a100" })).rejects.toThrow();
  });

  test("a page that is none", async () => {
    await expect(client.items({}, { limit: 0 })).rejects.toMatchObject({ code: "PT400" });
    await expect(client.items({}, { limit: 1001 })).rejects.toMatchObject({ code: "PT400" });
    await expect(client.items({}, { after: { seq: "x" } })).rejects.toMatchObject({ code: "PT400" });
    await expect(client.claims({}, { after: "x" })).rejects.toMatchObject({ code: "PT400" });
  });
});

describe("the page on lists has examples that run:", async () => {
  const page = await readFile(join(import.meta.dirname, "..", "docs", "lists.md"), "utf8");
  const commands = [...page.matchAll(/^\| `(items|claims|workers) '(.*)'` \|/gm)].map((match) => [
    match[1] as "items" | "claims" | "workers",
    (match[2] as string).replaceAll("\\|", "|"),
  ]);
  const pairs = [...page.matchAll(/^\| `([^`]+)` \| `(\{[^`]+\})` \|/gm)].map((match) =>
    [match[1], match[2]].map((text) => (text as string).replaceAll("\\|", "|")),
  );

  test.each(commands)("%s %s", async (list, text) => {
    expect((await client[list as "items"](parseSelector(text as string) as ItemSelector)).rows).toBeInstanceOf(Array);
  });

  test.each(pairs)("%s and %s find the same", async (text, object) => {
    const find = (selector: object) => (object?.includes("labels") ? client.items(selector) : client.claims(selector));
    expect(await find(parseSelector(text as string))).toEqual(await find(JSON.parse(object as string)));
  });

  test("enough of them", () => {
    expect([commands.length, pairs.length]).toEqual([14, 7]);
  });
});

test("5,000 rows come once each, in pages of any size, while others come and go", async () => {
  const { pool: name } = await pool();
  const type = "many";
  await client.defineWorkType(type, { pool: name });
  await owner`insert into work_items (pool, priority) select ${name}, n % 7 from generate_series(1, 5000) n`;
  const before = (await owner`select id from work_items where pool = ${name} order by seq`).map((row) => row.id);
  const items: string[] = [];
  for await (const row of client.eachItem({ pool: name })) {
    items.push(row.id);
    if (items.length % 1000 === 1) {
      await owner`insert into work_items (pool) values (${name})`;
    }
  }
  expect(items.slice(0, 5000)).toEqual(before);
  expect(new Set(items).size).toBe(items.length);

  const claims: string[] = [];
  let after: Parameters<WorkClient["claims"]>[1] = { limit: 777 };
  for (;;) {
    const { rows, next } = await client.claims({ work_type: type }, after);
    claims.push(...rows.map((row) => row.item_id));
    if (next === null) break;
    await client.claimNext([type], "meanwhile", { maxItems: 50 });
    await owner`insert into work_items (pool) values (${name})`;
    after = { limit: 777, after: next };
  }
  expect(claims.filter((id) => before.includes(id)).sort()).toEqual([...before].sort());
  expect(new Set(claims).size).toBe(claims.length);
});

test("a list finds what the judge of requirements finds, row by row", async () => {
  const { pool: name } = await pool();
  const { random, pick } = seeded(1917);
  const type = "differential";
  await client.defineWorkType(type, { pool: name });
  await client.enqueueItems(
    Array.from({ length: 60 }, () => ({
      ...{ pool: name, priority: Math.floor(random() * 5) },
      ...{ labels: { c: pick(["a", "b", ["a", "b"]]) }, requires: pick([{}, { gpu: "x" }, { mem: 3 }]) },
    })) as object[],
  );
  for (const worker of ["w1", "w2"]) {
    const held = await client.claimNext([type], worker, { maxItems: 15 });
    await client.releaseItems(
      worker,
      held.slice(0, 5).map((claim) => ({ ...claim, outcome: "succeeded" as const })),
    );
  }
  const rows: object[] = [];
  for await (const row of client.eachClaim({ work_type: type })) {
    rows.push(Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null)));
  }
  const condition = (): [string, object] => {
    const [column, values] = pick<[string, unknown[]]>([
      ["status", ["ready", "claimed", "succeeded", "none"]],
      ["priority", [0, 1, 2, 3, 4, 2.5]],
      ["worker_id", ["w1", "w2", "w3"]],
      ["labels.c", ["a", "b", "c"]],
      ["requires.gpu", ["x", "y"]],
      ["requires.mem", [2, 3, 4]],
    ]);
    const operator = pick(
      column === "priority" || column === "requires.mem"
        ? ["==", "!=", "<", "<=", ">", ">=", "in", "exists"]
        : ["==", "!=", "in", "exists"],
    );
    const operand =
      operator === "in" ? [pick(values), pick(values)] : operator === "exists" ? pick([true, false]) : pick(values);
    return [column, { [operator]: operand }];
  };
  const selectors = Array.from({ length: 250 }, (): Requirement => {
    const one = (): Requirement =>
      Object.fromEntries(Array.from({ length: 1 + Math.floor(random() * 2) }, condition)) as Requirement;
    return pick([one, () => ({ any: [one(), one()] }), () => ({ not: one() }), () => ({ ...one(), all: [one()] })])();
  });
  for (const selector of selectors) {
    const found = (await client.claims({ ...selector, work_type: type } as ClaimSelector)).rows.map(
      (row) => row.item_id,
    );
    const expected = rows
      .filter((row) => matches(selector, row as never))
      .map((row) => (row as { item_id: string }).item_id);
    expect({ selector, found }).toEqual({ selector, found: expected });
  }
});

describe.each([17, 15] as const)("on Postgres %s a page reads little of a large table:", async (version) => {
  const { sql, owner: theirs } = await openDatabase({ version });
  await call(sql, "define_work_type", { work_type: "t", pool: "default" });
  await call(sql, "enqueue_items", {
    items: Array.from({ length: 40 }, (_, n) => ({
      labels: { customer: `c${n}` },
      workflow: n === 7 ? "w" : undefined,
    })),
  });
  await theirs`
    insert into work_items (pool, class_id, priority)
    select 'default', 1 + n % 30, n % 10 from generate_series(1, 30000) n`;
  await theirs`
    update work_claims set status = 'succeeded', finished_at = now(), worker_id = 'w' where position % 100 < 80`;
  await theirs`
    update work_claims set status = 'failed', finished_at = now() where status = 'ready' and position % 100 < 90 and class_id = 3`;
  await theirs`vacuum analyze work_items`;
  await theirs`vacuum analyze work_claims`;
  await theirs`analyze work_classes`;
  const [some] = await theirs`select id, seq from work_items where seq > 20000 order by seq limit 1`;

  test.each<[string, string, object]>([
    ["list_items", "all", {}],
    ["list_items", "a later page", { after: { seq: some?.seq, id: some?.id } }],
    ["list_items", "a pool", { selector: { pool: "default" } }],
    ["list_items", "an id", { selector: { id: some?.id } }],
    ["list_items", "a rare label", { selector: { "labels.customer": "c35" } }],
    ["list_items", "a common label", { selector: { "labels.customer": "c3" } }],
    ["list_items", "a workflow", { selector: { workflow: "w" } }],
    [
      "list_items",
      "a priority and a judged condition",
      { selector: { priority: { ">": 5 }, affinity: { exists: false } } },
    ],
    ["list_claims", "all", {}],
    ["list_claims", "a later page", { after: { item_id: some?.id, work_type: "t" } }],
    ["list_claims", "what is ready", { selector: { status: "ready", work_type: "t" } }],
    ["list_claims", "what failed", { selector: { status: "failed" } }],
    ["list_claims", "what is held", { selector: { status: "claimed" } }],
    ["list_claims", "an item", { selector: { item_id: some?.id } }],
    ["list_claims", "what somebody did", { selector: { worker_id: "w", status: "succeeded" } }],
    ["list_claims", "a rare label", { selector: { "labels.customer": "c35" } }],
  ])("%s of %s", async (name, _, args) => {
    await theirs.begin(async (transaction) => {
      const read = async (): Promise<number> => {
        const [row] = await transaction`
          select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as read
            from pg_stat_xact_user_tables where relname in ('work_items', 'work_claims')`;
        return row?.read;
      };
      const earlier = await read();
      await call(transaction as never, name, { max_items: 20, ...args });
      // Of 30,000 items and as many claims.
      expect((await read()) - earlier).toBeLessThan(3000);
    });
  });
});
