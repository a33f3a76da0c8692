// Workers with different capabilities, over HTTP: each gets the items that it matches.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { createWorkClient } from "../src/client.ts";
import type { NewItem } from "../workers/runtime/new-item.ts";
import { type WorkOptions, work } from "../workers/runtime/work.ts";
import { openApi } from "./support/api.ts";
import { expectInvariants } from "./support/invariants.ts";

const root = join(import.meta.dirname, "..");
const stack = await openApi();
const sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
const client = createWorkClient({ url: stack.url, key: stack.secretKey });
afterAll(async () => {
  await expectInvariants(sql);
  await sql.end({ timeout: 1 });
});

/** The worker that people copy, as a process that leaves when nothing is left for it. */
async function runWorker(name: string, more: Record<string, string>): Promise<void> {
  const child = spawn(process.execPath, [join(root, "dist", "workers", "worker.js")], {
    stdio: "ignore",
    env: {
      ...process.env,
      SUPABASE_URL: stack.url,
      SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
      WORK_ID: name,
      WORK_UNTIL_EMPTY: "1",
      ...more,
    },
  });
  const [code] = await once(child, "exit");
  expect(code).toBe(0);
}

const inProcess: WorkOptions = {
  url: stack.url,
  key: stack.secretKey,
  untilEmpty: true,
  handleSignals: false,
  idleMinSeconds: 0.02,
  log: () => {},
};

const times = (count: number, item: NewItem): NewItem[] => Array.from({ length: count }, () => item);

/** How many items of each kind each worker did. The kind is the item's payload. */
async function doneBy(workType: string): Promise<Record<string, number>> {
  const rows = await sql`
    select c.worker_id || ' did ' || coalesce(i.payload #>> '{}', '') as what, count(*)::integer as times
      from work_claims c join work_items i on i.id = c.item_id
     where c.work_type = ${workType} and c.status = 'succeeded'
     group by 1 order by 1`;
  return Object.fromEntries(rows.map((row) => [row.what, row.times]));
}

const mixed: NewItem[] = [
  ...times(30, { payload: "large", requires: { gpu: "a100", gpu_memory_gb: 40 } }),
  ...times(30, { payload: "small", requires: { gpu_memory_gb: 8 }, labels: { customer: "acme" } }),
  ...times(30, { payload: "theirs", requires: { gpu_memory_gb: 8 }, labels: { customer: "other" } }),
  ...times(30, { payload: "impossible", requires: { gpu: "none has it" } }),
];
const workers = {
  big: { WORK_CAPABILITIES: '{"gpu": "a100", "gpu_memory_gb": 80}', WORK_EXCLUSIVE: "gpu" },
  little: { WORK_CAPABILITIES: '{"gpu": "t4", "gpu_memory_gb": 16}', WORK_ACCEPTS: '{"customer": {"==": "acme"}}' },
};

test.each([
  ["pull", {}],
  ["page candidates", { WORK_POOL: "default" }],
])("two workers that %s get the items that they match", async (way, more) => {
  await sql`delete from work_items`;
  if (way === "pull") {
    await client.defineWorkType(way, { pool: "default" });
  }
  await client.enqueueItems(mixed);
  await Promise.all(
    Object.entries(workers).map(([name, has]) => runWorker(`${name} ${way}`, { WORK_TYPE: way, ...has, ...more })),
  );
  // "big" is exclusive about its gpu: items that require only memory yield to other workers.
  expect(await doneBy(way)).toEqual({ [`big ${way} did large`]: 30, [`little ${way} did small`]: 30 });
});

test("a worker does not count locked candidates as refused", async () => {
  await sql`delete from work_items`;
  await client.enqueueItems([
    ...times(5, { requires: { gpu: "a" } }),
    ...times(25, { requires: { gpu: "a" }, labels: { customer: "acme" } }),
  ]);
  let release = (): void => {};
  const isOver = new Promise<void>((resolve) => {
    release = resolve;
  });
  let locked = (): void => {};
  const isLocked = new Promise<void>((resolve) => {
    locked = resolve;
  });
  const change = sql.begin(async (held) => {
    await held`update work_items set payload = payload where id in (select id from work_items order by seq offset 5)`;
    locked();
    await isOver;
  });
  await isLocked;
  setTimeout(release, 1000);
  const capabilities = { gpu: "a" };
  const done = await work("tune", () => null, { ...inProcess, pool: "default", capabilities, concurrency: 30 });
  await change;
  expect(done.succeeded).toBe(30);
});

test("a worker that updates its capabilities gets the items that require them", async () => {
  await sql`delete from work_items`;
  await client.defineWorkType("draw", { pool: "default" });
  await client.enqueueItems([{ payload: "load" }, ...times(5, { payload: "draw", requires: { models: ["sdxl"] } })]);
  await work(
    "draw",
    async (claim, { update }) => {
      if (claim.payload === "load") {
        await update({ capabilities: { models: ["sdxl"] } });
      }
    },
    { ...inProcess, workerId: "loader" },
  );
  expect(await doneBy("draw")).toEqual({ "loader did draw": 5, "loader did load": 1 });
});

test("a worker that accepts one label claims its items, warm ones first", async () => {
  await sql`delete from work_items`;
  await client.defineWorkType("render", { pool: "default" });
  const affinities = ["flux", "sdxl", "flux", "sdxl"];
  await client.enqueueItems([
    ...affinities.map((affinity): NewItem => ({ payload: affinity, affinity, labels: { film: "dune" } })),
    { payload: "of another film", affinity: "sdxl", labels: { film: "alien" } },
  ]);
  const done: unknown[] = [];
  await work("render", (claim) => void done.push(claim.payload), {
    ...inProcess,
    workerId: "renderer",
    warm: () => ["sdxl"],
    accepts: { film: "dune" },
    batch: 1,
  });
  expect(done).toEqual(["sdxl", "sdxl", "flux", "flux"]);
});

test("the typed client registers a profile and claims by it", async () => {
  await sql`delete from work_items`;
  await client.defineWorkType("type", { pool: "default", passedOverSeconds: 30 });
  const [, near] = await client.enqueueItems([
    { requires: { region: "us" } },
    { requires: { region: { in: ["eu", "uk"] } }, labels: { tier: "paid" } },
  ]);
  await client.registerWorker("typed", crypto.randomUUID(), {
    capabilities: { region: "eu", gpu: true },
    accepts: { tier: "paid" },
    exclusive: ["region"],
    yieldSeconds: 60,
  });
  const [claim, ...more] = await client.claimNext(["type"], "typed", {
    maxItems: 5,
    warm: ["any"],
  });
  expect([claim?.item_id, more]).toEqual([near, []]);
  expect((await client.workTypes()).find(({ name }) => name === "type")?.passed_over_seconds).toBe(30);
  const [worker] = (await client.liveWorkers(new Date(Date.now() - 60_000))).filter(({ id }) => id === "typed");
  expect(worker).toMatchObject({ accepts: { tier: "paid" }, exclusive: ["region"], yield_seconds: 60 });
});

test("the typed client attaches a table with its matching columns", async () => {
  await sql`
    create table scenes (id integer primary key, needs jsonb, shows jsonb, model text, film text, at timestamptz, rank int)`;
  await sql`grant trigger, select on scenes to service_role`;
  const columns = {
    requiresColumn: "needs",
    labelsColumn: "shows",
    affinityColumn: "model",
    workflowColumn: "film",
    payloadColumns: ["id"],
    priorityColumn: "rank",
    runAfterColumn: "at",
  };
  expect(await client.attachPool("scenes", { pool: "shots", ...columns })).toEqual({ pool: "shots", key: ["id"] });
  const [pool] = await sql`select * from work_pools where name = 'shots'`;
  expect(pool).toMatchObject({
    requires_column: "needs",
    labels_column: "shows",
    affinity_column: "model",
    workflow_column: "film",
    payload_columns: ["id"],
    priority_column: "rank",
    run_after_column: "at",
  });
});
