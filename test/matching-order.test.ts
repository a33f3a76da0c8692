import { afterAll, describe, expect, test } from "vitest";
import { type Claim, call } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { expectedItems, register, type Wish, type Worker } from "./support/matching-oracle.ts";
import { drawClasses, drawWish, drawWorker, fill } from "./support/matching-world.ts";
import { seed, seeded } from "./support/random.ts";
import type { Version } from "./support/servers.ts";

/** Claims, and compares the answer with the expected items. */
async function claimAsExpected(sql: Sql, worker: Worker, wish: Wish, hint: string): Promise<Claim[]> {
  const expected = await expectedItems(sql, worker, wish);
  const claims = await call<Claim[]>(sql, "claim_next", { ...wish, worker_id: worker.id });
  expect(
    claims.map((claim) => claim.item_id),
    `SEED=${seed}, ${hint}: ${JSON.stringify(worker)} ${JSON.stringify(wish)}`,
  ).toEqual(expected);
  return claims;
}

const worlds: [Version, number][] = [
  [17, 1],
  [17, 5],
  [17, 300],
  [15, 40],
];

describe.each(worlds)("on Postgres %s with %s classes", async (version, count) => {
  const { sql, owner } = await openDatabase({ version });
  const random = seeded(seed + count);
  const world = { types: ["t0", "t1", "t2"], classes: drawClasses(count, random) };
  for (const work_type of world.types) {
    await call(sql, "define_work_type", { work_type, pool: "default", passed_over_seconds: 200 });
  }
  await call(sql, "define_workflow", { workflow: "w1", priority: 1 });
  await call(sql, "define_workflow", { workflow: "w2", priority: -1 });
  await fill(sql, world, 1500, random);
  await owner`analyze`;
  afterAll(() => expectInvariants(sql));
  let workers = 0;

  async function claimAll(isWarm: boolean, outcomes = ["succeeded", "released"]): Promise<void> {
    for (let step = 0; step < 12; step += 1) {
      workers += 1;
      const worker = drawWorker(`worker ${workers}`, world, random.pick([0.02, 0.1, 0.5, 1]), random);
      await register(sql, worker);
      const wish = drawWish(world, random, isWarm);
      const claims = await claimAsExpected(sql, worker, wish, `step ${step}`);
      await call(sql, "release_items", {
        worker_id: worker.id,
        outcomes: claims.map((claim) => ({ ...claim, outcome: random.pick(outcomes) })),
      });
    }
  }

  test("each claim returns the first rows of a full sort", () => claimAll(false));

  test("the same with overdue items and workers that yield", async () => {
    await sql`update work_claims set due_at = due_at - interval '300 s' where position % 3 = 0 and status = 'ready'`;
    await claimAll(false);
  });

  test("the same with warm workers", async () => {
    await sql`update work_claims set due_at = clock_timestamp() + interval '1 hour' where status = 'ready'`;
    await claimAll(true);
  });

  test("the same with an overdue first item", async () => {
    await sql`
      update work_claims set due_at = clock_timestamp() + make_interval(secs => (case when rank < 700 then -300 else 3600 end))
       where status = 'ready'`;
    // An item that is handed back begins to wait anew: none is, here.
    await claimAll(true, ["succeeded"]);
  });
});
