import { expect, test } from "vitest";
import type { Json } from "../src/answers.ts";
import { type Claim, call } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { judgeClass, type Worker } from "./support/matching-oracle.ts";
import { drawClasses, drawWorker, type World } from "./support/matching-world.ts";
import { seed, seeded } from "./support/random.ts";

const assignments = Number(process.env.CHURN ?? 20_000);
const { sql, owner, as } = await openDatabase();
await call(sql, "define_work_type", {
  work_type: "churn",
  pool: "default",
  max_failures: 1000,
  max_crashes: 1000,
  backoff_seconds: 0,
});

const world: World = { types: ["churn"], classes: drawClasses(120, seeded(seed)) };
/** By item: who holds it, as the workers know. */
const holders = new Map<string, string>();
const wrong: string[] = [];
let given = 0;

/** Notes what was given to whom; a claim that is held elsewhere, or that the worker does not match, is wrong. */
async function check(connection: Sql, worker: Worker, claims: Claim[]): Promise<void> {
  for (const { item_id } of claims) {
    const holder = holders.get(item_id);
    if (holder !== undefined) {
      wrong.push(`${item_id} is held by ${holder} and was given to ${worker.id}`);
    }
    holders.set(item_id, worker.id);
  }
  given += claims.length;
  const classes = await connection<World["classes"]>`
    select k.requires, k.labels from work_classes k
     where k.id in (select i.class_id from work_items i where i.id = any (${claims.map((claim) => claim.item_id)}))`;
  for (const asked of classes) {
    if (judgeClass(asked, worker) !== "at once") {
      wrong.push(`an item of ${JSON.stringify(asked)} was given to ${JSON.stringify(worker)}`);
    }
  }
}

async function work(name: string, random: ReturnType<typeof seeded>): Promise<void> {
  const { chance, below, pick } = random;
  const connection = as("service_role");
  const instance = crypto.randomUUID();
  let worker: Worker = { id: name, capabilities: {} };
  let isNew = true;
  let seen: string[] = [];
  while (given < assignments) {
    if (isNew || chance(0.06)) {
      worker = { ...drawWorker(name, world, pick([0.05, 0.3, 1]), random), yield_seconds: undefined };
      const { id, ...rest } = worker;
      await call(connection, "register_worker", { worker_id: id, instance, ...rest });
      isNew = false;
    }
    if (chance(0.5)) {
      seen = [...seen.slice(-200), ...(await enqueue(connection, random))];
    }
    const isById = chance(0.1);
    const warm = chance(0.2) ? { warm: ["sdxl", "flux"] } : {};
    const claims = isById
      ? await call<Claim[]>(connection, "claim_items", { item_ids: seen, work_type: "churn", worker_id: name })
      : await call<Claim[]>(connection, "claim_next", {
          work_types: ["churn"],
          worker_id: name,
          max_items: 1 + below(100),
          ...warm,
        });
    await check(connection, worker, claims);
    for (const { item_id } of claims) {
      holders.delete(item_id);
    }
    const outcomes = claims.map((claim) => ({
      ...claim,
      outcome: pick(["succeeded", "succeeded", "succeeded", "failed", "released"]),
    }));
    if (chance(0.05)) {
      await call(connection, "release_claims_for_worker", { worker_id: name });
    } else {
      await call(connection, "release_items", { worker_id: name, outcomes });
    }
  }
}

async function enqueue(connection: Sql, { below, chance, pick }: ReturnType<typeof seeded>): Promise<string[]> {
  if (chance(0.2)) {
    const n = world.classes.length;
    world.classes.push({ requires: { jobs: `job ${n}`, memory_gb: 1 + (n % 50) }, labels: { n: n as Json } });
  }
  const items = Array.from({ length: 1 + below(40) }, () => ({
    ...pick(world.classes),
    priority: below(3),
    ...(chance(0.3) ? { affinity: pick(["sdxl", "flux"]) } : {}),
    ...(chance(0.2) ? { workflow: `flow ${below(20)}` } : {}),
  }));
  return call(connection, "enqueue_items", { items });
}

test(`${assignments} claims by changing workers and new classes: each matches, none is held twice, all end (SEED=${seed})`, {
  timeout: 600_000,
}, async () => {
  await Promise.all([1, 2, 3, 4, 5].map((n) => work(`worker ${n}`, seeded(seed + n))));
  expect(wrong.slice(0, 5)).toEqual([]);
  await expectInvariants(sql);

  // One worker that has everything ends what is left.
  const capabilities = {
    jobs: world.classes.map((_, n) => `job ${n}`),
    ...{ memory_gb: 50, hardware: { cores: 16 }, gpu: "a100", tier: "reserved" },
  };
  await call(sql, "register_worker", { worker_id: "last", instance: crypto.randomUUID(), capabilities });
  await owner`update work_claims set due_at = now() where status = 'waiting'`;
  for (let isOver = false; !isOver; ) {
    const claims = await call<Claim[]>(sql, "claim_next", {
      work_types: ["churn"],
      worker_id: "last",
      max_items: 1000,
    });
    const outcomes = claims.map((claim) => ({ ...claim, outcome: "succeeded" }));
    await call(sql, "release_items", { worker_id: "last", outcomes });
    isOver = claims.length === 0;
  }
  expect(await sql`select status, count(*) from work_claims group by status having status <> 'succeeded'`).toEqual([]);
});
