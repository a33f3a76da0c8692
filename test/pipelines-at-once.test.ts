import { expect, test } from "vitest";
import { type Claim, call } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { seed, seeded } from "./support/random.ts";

const { sql, owner, as } = await openDatabase();
const stages = ["extract", "embed", "sum"];
const turnsEach = 150;

const isDeadlock = (error: unknown): boolean => (error as { code?: string }).code === "40P01";
/** A release gave way to a person's update: its worker repeats it. */
const gaveWay = (error: unknown): boolean => (error as { code?: string }).code === "55P03";

/** Repeats an act by chance; answers how many deadlocks it was the victim of. */
async function repeat(act: () => Promise<unknown>): Promise<number> {
  let deadlocks = 0;
  for (let turn = 0; turn < turnsEach; turn += 1) {
    try {
      await act();
    } catch (error) {
      if (!isDeadlock(error)) {
        throw error;
      }
      deadlocks += 1;
      console.log((error as { detail?: string; where?: string }).detail, (error as { where?: string }).where);
    }
  }
  return deadlocks;
}

test(`a person's updates and a pipeline's calls, all at once, are hardly ever victims of a deadlock (SEED=${seed})`, {
  timeout: 180_000,
}, async () => {
  await owner.unsafe(`
    create table documents (id integer primary key, body text, note text, sum jsonb);
    insert into documents (id, body) select n, 'body' from generate_series(1, 60) as n`);
  await call(owner, "attach_pool", { source: "documents", pool: "documents", payload_columns: ["body", "note"] });
  for (const [index, work_type] of stages.entries()) {
    const rules = { depends_on: index === 0 ? [] : [stages[index - 1]], backoff_seconds: 0, max_failures: 1000 };
    await call(owner, "define_work_type", { work_type, pool: "documents", ...rules });
  }
  await call(owner, "define_work_type", { work_type: "extract", input_columns: ["body"] });
  await call(owner, "define_work_type", { work_type: "sum", into_column: "documents.sum" });
  await call(owner, "enroll_pool", { pool: "documents" });

  let next = 1000;
  const person = (index: number): Promise<number> => {
    const { below, chance, pick } = seeded(seed * 100 + index);
    const own = as("postgres");
    return repeat(() => {
      const from = below(60);
      next += 1;
      return pick([
        () =>
          own`update documents set body = ${`body ${next}`} where id between ${from} and ${from + (chance(0.3) ? 20 : 0)}`,
        () => own`update documents set note = ${`note ${next}`} where id = any (${[from, below(60), below(60)]})`,
        () => own`delete from documents where id between ${from} and ${from + 1}`,
        () => own`insert into documents (id, body) values (${next}, 'late') on conflict do nothing`,
        () =>
          own`insert into documents (id, body) select n, 'again' from generate_series(1, 60) as n on conflict do nothing`,
      ])();
    });
  };
  const worker = (index: number): Promise<number> => {
    const { below, pick } = seeded(seed * 1000 + index);
    const own = as("service_role");
    const worker_id = `worker ${index}`;
    let held: Claim[] = [];
    return repeat(async () => {
      const outcomes = held.map((claim) => ({
        ...{ item_id: claim.item_id, work_type: claim.work_type, fence: claim.fence, result: { n: below(10) } },
        outcome: pick(["succeeded", "succeeded", "succeeded", "failed", "released"]),
        ...(below(20) === 0 ? { final: true } : {}),
      }));
      held = [];
      const wanted = { worker_id, outcomes, work_types: stages, max_items: 1 + below(8) };
      const answer = await call<{ claimed: Claim[] }>(own, "finish_and_claim", wanted).catch((error: unknown) => {
        if (!gaveWay(error)) {
          throw error;
        }
      });
      held = answer?.claimed ?? [];
    });
  };
  const operator = (index: number): Promise<number> => {
    const { below, pick } = seeded(seed * 10_000 + index);
    const own: Sql = as("service_role");
    return repeat(async () => {
      const rows = await own<
        { id: string }[]
      >`select id from work_items order by md5(id::text || ${below(1000)}::text) limit 5`;
      const ids = rows.map((row) => row.id);
      const work_type = pick(stages);
      await pick([
        () => call(own, "cancel_items", { work_type, item_ids: ids }),
        () => call(own, "retry_items", { work_type, item_ids: ids }),
        () => call(own, "retry_items", { work_type }),
        () => call(own, "invalidate_items", { work_type, item_ids: ids }),
        () => call(own, "enqueue_items", { items: [{ pool: "documents", needs: ids.slice(0, 3) }] }).catch(isGone),
        () => call(own, "add_needs", { item_id: ids[0], needs: ids.slice(3) }).catch(isGone),
        () =>
          own`update work_claims set expires_at = now() - interval '1 s' where status = 'claimed' and item_id = ${ids[0] ?? null} and work_type = ${work_type}`,
        () => call(own, "reap_expired_claims"),
      ])();
    });
  };
  const [persons, workers, operators] = await Promise.all([
    Promise.all([1, 2, 3].map(person)),
    Promise.all([1, 2, 3, 4].map(worker)),
    Promise.all([1, 2].map(operator)),
  ]);
  console.log(`deadlocks of persons ${persons}, of workers ${workers}, of operators ${operators}`);
  // One in 450 updates was seen once, on a busy machine; most runs have none. With a wrong order of locks there are many.
  expect(persons.reduce((sum, each) => sum + each, 0)).toBeLessThan(4);
  await expectInvariants(sql);
});

/** An item that was deleted meanwhile, or a circle, is refused. */
function isGone(error: { code?: string }): void {
  if (error.code !== "PT400" && error.code !== "PT404") {
    throw error;
  }
}
