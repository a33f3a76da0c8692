// A session remembers how far back in line its last call found what it took. Whatever has changed since, the next answer is
// what a sort of all rows gives.
import { afterAll, describe, expect, test } from "vitest";
import { type Claim, call, endWaits } from "./calls.ts";
import { openDatabase, type Sql } from "./database.ts";
import { expectInvariants } from "./invariants.ts";
import { expectedItems, register, type Worker } from "./matching-oracle.ts";
import { seed, seeded } from "./random.ts";

describe.each([
  ["a few lines of many", 17, 60, 12],
  ["most lines, which it may walk as well", 17, 300, 200],
  ["a few lines of many, on Postgres 15", 15, 60, 12],
] as const)("for a worker of %s", async (_what, version, classes, matched) => {
  const { sql, as } = await openDatabase({ version });
  const { pick, below, chance } = seeded(seed + classes + version);
  const sessions = [as("service_role"), as("service_role")];
  const jobs = Array.from({ length: classes }, (_, n) => `job ${n}`);
  const mine = jobs.slice(0, matched);
  const worker: Worker = { id: "w", capabilities: { job: mine } };
  let held: Claim[] = [];

  const enqueue = async (count: number, more: () => object): Promise<void> => {
    const items = Array.from({ length: count }, () => ({
      requires: { job: pick(chance(0.5) ? mine : jobs) },
      ...more(),
    }));
    await call(sql, "enqueue_items", { items });
  };
  const close = async (outcome: string): Promise<void> => {
    await call(sql, "release_items", { worker_id: "w", outcomes: held.map((claim) => ({ ...claim, outcome })) });
    held = [];
  };
  const changes = {
    nothing: async () => {},
    "what was taken is done": () => close("succeeded"),
    "what was taken is handed back": () => close("released"),
    "more comes": () => enqueue(1 + below(80), () => ({})),
    "some of it is urgent": () => enqueue(1 + below(20), () => ({ priority: pick([1, 2]) })),
    "a crowd comes behind": () => enqueue(450, () => ({ requires: { job: pick(jobs.slice(0, 3)) } })),
    "a workflow grows": () =>
      enqueue(450, () => ({ workflow: pick(["old", "young"]), requires: { job: pick(jobs.slice(0, 20)) } })),
    "a workflow changes its priority": () =>
      call(sql, "define_workflow", { workflow: pick(["old", "young"]), priority: pick([0, 0, 1]) }),
    "half of all is gone": () =>
      sql`delete from work_items i using work_claims c where c.item_id = i.id and c.status = 'ready' and random() < 0.5`,
    "the type is paused": () => sql`update work_types set paused = true where name = 't'`,
  };
  const names = Object.keys(changes) as (keyof typeof changes)[];
  afterAll(() => expectInvariants(sql));

  test("each answer is what a sort of all rows gives, whatever was remembered", async () => {
    await call(sql, "define_work_type", { work_type: "t", pool: "default" });
    await call(sql, "define_workflow", { workflow: "old" });
    // A walk does not get past these.
    await enqueue(400, () => ({ requires: { job: "nobody's" } }));
    await enqueue(1000, () => ({}));
    await call(sql, "define_workflow", { workflow: "young" });
    await register(sql, worker);
    let remembered = 0;
    for (let step = 0; step < 100; step += 1) {
      const change = step % 50 < 25 ? "what was taken is done" : pick(names);
      await changes[change]();
      const session = pick(sessions);
      remembered += await remembers(session);
      const wish = { work_types: ["t"], max_items: pick([1, 1, 1, 5, 10, 10, 30]) };
      const expected = await expectedItems(sql, worker, wish);
      const claims = await call<Claim[]>(session, "claim_next", { ...wish, worker_id: "w" });
      const hint = `SEED=${seed}, step ${step}, ${change}, ${JSON.stringify(wish)}`;
      expect(
        claims.map((claim) => claim.item_id),
        hint,
      ).toEqual(expected);
      held.push(...claims);
      if (held.length > 900 || chance(0.05)) {
        await close("succeeded");
      }
      await sql`update work_types set paused = false where paused`;
    }
    expect(remembered, `SEED=${seed}`).toBeGreaterThan(15);
  });
});

/** 1 where the session's next call has something to go by. */
async function remembers(session: Sql): Promise<number> {
  const [row] = await session`
    select coalesce((nullif(current_setting('work.front' || profile_id % 16, true), '')::bigint[])[2] is not null, false) as is_so
      from work_workers where id = 'w'`;
  return row?.is_so ? 1 : 0;
}

test("what was remembered may reach over a crowd that has come since", async () => {
  const { sql, as } = await openDatabase();
  const session = as("service_role");
  await call(sql, "define_work_type", { work_type: "t", pool: "default" });
  await register(sql, { id: "w", capabilities: { shelf: 7 } });
  const soon = new Date(Date.now() + 3_600_000).toISOString();
  const shelved = (n: number) => ({ requires: { shelf: n % 8 }, ...(n % 50 === 0 ? {} : { run_after: soon }) });
  const ids: string[] = [];
  for (let from = 0; from < 3000; from += 1000) {
    const items = Array.from({ length: 1000 }, (_, n) => shelved(from + n));
    ids.push(...(await call<string[]>(sql, "enqueue_items", { items })));
  }
  const take = async (max_items: number): Promise<string[]> => {
    const claims = await call<Claim[]>(session, "claim_next", { work_types: ["t"], worker_id: "w", max_items });
    return claims.map((claim) => claim.item_id);
  };
  const first = [...(await take(10)), ...(await take(10))];
  expect(first).toEqual(ids.filter((_, n) => n % 50 === 0).slice(0, 20));
  expect(await remembers(session)).toBe(1);
  await endWaits(sql, "t");
  const left = ids.filter((id) => !first.includes(id));
  expect(await take(10)).toEqual(left.slice(0, 10));
  expect(await take(900)).toEqual(left.slice(10, 910));
});
