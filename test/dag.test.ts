import { expect, test } from "vitest";
import { type Claim, call, claimNext, release, unlessItGaveWay } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { seed, seeded } from "./support/random.ts";

const { sql, as } = await openDatabase();
const layers = 10;
const width = 500;

async function typeOfPool(name: string): Promise<void> {
  await sql`insert into public.work_pools (name) values (${name})`;
  await call(sql, "define_work_type", { work_type: name, pool: name, max_crashes: 1000 });
}

test(`${layers * width} items in ten layers, 20 workers of which some die: each after its needs, once (SEED=${seed})`, {
  timeout: 180_000,
}, async () => {
  await typeOfPool("dag");
  const { below, chance } = seeded(seed);
  for (let layer = 0; layer < layers; layer += 1) {
    const items = Array.from({ length: width }, (_, place) => ({
      ...{ pool: "dag", dedupe_key: `${layer} ${place}` },
      needs: layer === 0 ? [] : Array.from({ length: 1 + below(3) }, () => `${below(layer)} ${below(width)}`),
    }));
    await call(sql, "enqueue_items", { items });
  }

  const succeeded: string[] = [];
  let deaths = 0;
  const worker = async (index: number): Promise<void> => {
    const own = as("service_role");
    let worker_id = `worker ${index}`;
    let outcomes: object[] = [];
    while (succeeded.length < layers * width) {
      const answer = await call<{ released: string[]; claimed: Claim[] }>(own, "finish_and_claim", {
        ...{ worker_id, outcomes, work_types: ["dag"], max_items: 1 + below(20) },
      }).catch(unlessItGaveWay);
      if (answer === undefined) {
        continue;
      }
      const { released, claimed } = answer;
      succeeded.push(...outcomes.flatMap((each, n) => (released[n] === "succeeded" ? (each as Claim).item_id : [])));
      outcomes = claimed.map(({ item_id, work_type, fence }) => ({ item_id, work_type, fence, outcome: "succeeded" }));
      if (chance(0.05)) {
        // It stops with all that it holds, and another one comes in its place.
        deaths += 1;
        worker_id = `worker ${index}, after ${deaths} deaths`;
        outcomes = [];
        await sql`
          update work_claims set expires_at = now() - interval '1 s'
           where ctid = any (array(select ctid from work_claims where status = 'claimed' for no key update skip locked))`;
      }
    }
  };
  await Promise.all(Array.from({ length: 20 }, (_, index) => worker(index)));

  expect(deaths).toBeGreaterThan(5);
  expect(succeeded).toHaveLength(layers * width);
  expect(new Set(succeeded).size).toBe(layers * width);
  const [row] = await sql`
    select count(*)::integer as needs, count(*) filter (where c.claimed_at < k.finished_at)::integer as too_early
      from work_dependencies d
      join work_claims c using (item_id, work_type)
      join work_claims k on k.item_id = d.needs_item_id and k.work_type = d.needs_work_type`;
  expect(row).toMatchObject({ too_early: 0 });
  expect(row?.needs).toBeGreaterThan(layers * width - width);
  await expectInvariants(sql);
});

test("other calls go on while an item is released that thousands need", async () => {
  await typeOfPool("wide");
  await typeOfPool("others");
  await call(sql, "enqueue_items", { items: [{ pool: "wide", dedupe_key: "needed" }] });
  for (let n = 0; n < 3; n += 1) {
    const items = Array.from({ length: 1000 }, () => ({ pool: "wide", needs: ["needed"] }));
    await call(sql, "enqueue_items", { items });
  }
  await call(sql, "enqueue_items", { items: Array.from({ length: 5 }, () => ({ pool: "others" })) });
  const [needed] = await claimNext(sql, "wide", "w");
  const other = as("service_role");
  await other`set statement_timeout = '10s'`;
  await sql.begin(async (transaction) => {
    expect(await release(transaction as unknown as Sql, "w", needed, "succeeded")).toBe("succeeded");
    // Its release is not over yet: a call that waits for it ends by its timeout.
    for (let n = 0; n < 5; n += 1) {
      const [claim] = await claimNext(other, "others", "o");
      expect(await release(other, "o", claim, "succeeded")).toBe("succeeded");
    }
    expect(await claimNext(other, "wide", "o")).toEqual([]);
    await call(other, "enqueue_items", { items: [{ pool: "others" }] });
  });
  expect(await claimNext(sql, "wide", "w", 1000)).toHaveLength(1000);
  const [row] =
    await sql`select count(*)::integer as ready from work_claims where work_type = 'wide' and status = 'ready'`;
  expect(row?.ready).toBe(2000);
});
