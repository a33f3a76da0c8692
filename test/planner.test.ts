import { afterAll, describe, expect, test } from "vitest";
import { type Claim, call, endLeases, endWaits, typeWithItems } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import type { Version } from "./support/servers.ts";

const all = [
  ...["bitmapscan", "hashagg", "hashjoin", "incremental_sort", "indexonlyscan", "indexscan", "material", "memoize"],
  ...["mergejoin", "nestloop", "seqscan", "sort", "tidscan"],
];

/** Each forces one way to join, to read or to plan, whatever the functions themselves set. */
const forced: Record<string, Record<string, string>> = {
  "as they are": {},
  "nested loops only": { enable_hashjoin: "off", enable_mergejoin: "off", enable_nestloop: "on" },
  "hash joins only": { enable_hashjoin: "on", enable_mergejoin: "off", enable_nestloop: "off" },
  "merge joins only": { enable_hashjoin: "off", enable_mergejoin: "on", enable_nestloop: "off" },
  "no sort": { enable_sort: "off", enable_incremental_sort: "off" },
  "no materialize": { enable_material: "off", enable_memoize: "off" },
  "sequential scans only": {
    enable_seqscan: "on",
    enable_indexscan: "off",
    enable_bitmapscan: "off",
    enable_indexonlyscan: "off",
    enable_tidscan: "off",
  },
  "bitmap scans only": {
    enable_seqscan: "off",
    enable_indexscan: "off",
    enable_bitmapscan: "on",
    enable_indexonlyscan: "off",
  },
  "everything allowed": Object.fromEntries(all.map((name) => [`enable_${name}`, "on"])),
  "generic plans": { plan_cache_mode: "force_generic_plan" },
  "custom plans": { plan_cache_mode: "force_custom_plan" },
};

async function force(owner: Sql, settings: Record<string, string>): Promise<void> {
  await owner.unsafe(`
    do $$
    declare f record;
    begin
      for f in select oid::regprocedure as name from pg_proc
                where pronamespace in ('public'::regnamespace, 'work'::regnamespace) and prolang <> (select oid from pg_language where lanname = 'sql')
      loop
        ${Object.entries(settings)
          .map(([name, value]) => `execute format('alter function %s set ${name} = ''${value}''', f.name);`)
          .join("\n")}
        null;
      end loop;
    end $$`);
}

const versions: Version[] = [17, 15];

describe.each(versions)("on Postgres %s", (version) => {
  describe.each(Object.entries(forced))("with %s", async (_, settings) => {
    const { sql, owner, as } = await openDatabase({ version });
    await force(owner, settings);
    const { type, ids } = await typeWithItems(sql, 400, { max_failures: 100, max_crashes: 100, backoff_seconds: 0 });
    await typeWithItems(sql, 0);
    await owner`analyze`;
    const workers = ["a", "b", "c", "d"].map((name) => ({ name, sql: as("service_role") }));
    afterAll(() => expectInvariants(sql));

    /** All workers call at once; nobody gets more than asked, and nobody what another has. */
    async function claimAtOnce(name: string, args: Record<string, unknown>, asked: number): Promise<Claim[][]> {
      const answers = await Promise.all(
        workers.map(async (worker) => {
          const answer = await call<Claim[] | { claimed: Claim[] }>(worker.sql, name, {
            ...args,
            worker_id: worker.name,
          });
          return Array.isArray(answer) ? answer : answer.claimed;
        }),
      );
      for (const claims of answers) {
        expect(claims.length).toBeLessThanOrEqual(asked);
      }
      const won = answers.flat().map((claim) => claim.item_id);
      expect(new Set(won).size).toBe(won.length);
      const [held] = await sql`select count(*)::integer as count from work_claims where status = 'claimed'`;
      expect(held?.count).toBe(won.length);
      expect(won.length).toBeGreaterThan(0);
      return answers;
    }

    async function handBack(answers: Claim[][], outcome: string): Promise<void> {
      await Promise.all(
        workers.map(async (worker, index) => {
          const outcomes = answers[index]?.map((claim) => ({ ...claim, outcome })) ?? [];
          const states = await call<string[]>(worker.sql, "release_items", { worker_id: worker.name, outcomes });
          expect(states).toEqual(
            outcomes.map(() => ({ released: "ready", failed: "waiting", succeeded: "succeeded" })[outcome]),
          );
        }),
      );
      const [held] = await sql`select count(*)::integer as count from work_claims where status = 'claimed'`;
      expect(held?.count).toBe(0);
    }

    test("claim_next, and release", async () => {
      const answers = await claimAtOnce("claim_next", { work_types: [type], max_items: 7 }, 7);
      expect(answers[0]).toHaveLength(7);
      await handBack(answers, "released");
    });

    test("claim_items, and failures that are due again", async () => {
      const answers = await claimAtOnce("claim_items", { item_ids: ids.slice(0, 9), work_type: type }, 9);
      expect(answers.flat()).toHaveLength(9);
      await handBack(answers, "failed");
      await endWaits(sql, type);
      await handBack(await claimAtOnce("claim_next", { work_types: [type], max_items: 9 }, 9), "released");
      const [waiting] = await sql`select count(*)::integer as count from work_claims where status = 'waiting'`;
      expect(waiting?.count).toBe(0);
    });

    test("extend_claims extends held claims only", async () => {
      const answers = await claimAtOnce("claim_next", { work_types: [type], max_items: 5 }, 5);
      for (const [index, worker] of workers.entries()) {
        const held = answers.flat();
        const states = await call<Claim[]>(worker.sql, "extend_claims", {
          worker_id: worker.name,
          held,
          ttl_seconds: 500,
        });
        const own = new Set(answers[index]?.map((claim) => claim.item_id));
        expect(states).toMatchObject(held.map((claim) => ({ state: own.has(claim.item_id) ? "held" : "lost" })));
      }
      await handBack(answers, "released");
    });

    test("expired leases are taken back once", async () => {
      await claimAtOnce("claim_next", { work_types: [type], max_items: 6 }, 6);
      await endLeases(sql, type);
      const reaped = await Promise.all(
        workers.map((worker) => call<number>(worker.sql, "reap_expired_claims", { max_items: 5 })),
      );
      expect(reaped.every((count) => count <= 5)).toBe(true);
      while ((await call<number>(sql, "reap_expired_claims")) > 0) {}
      const [crashed] =
        await sql`select sum(crashes)::integer as sum, count(*) filter (where status <> 'ready')::integer as others from work_claims where work_type = ${type}`;
      expect(crashed).toEqual({ sum: 24, others: 0 });
    });

    test("finish_and_claim closes one batch and takes the next", async () => {
      const answers = await claimAtOnce("claim_next", { work_types: [type], max_items: 4 }, 4);
      const next = await Promise.all(
        workers.map((worker, index) =>
          call<{ released: string[]; claimed: Claim[] }>(worker.sql, "finish_and_claim", {
            worker_id: worker.name,
            outcomes: answers[index]?.map((claim) => ({ ...claim, outcome: "succeeded" })) ?? [],
            work_types: [type],
            max_items: 3,
          }),
        ),
      );
      const claimed = next.map((answer) => answer.claimed);
      expect(next.flatMap((answer) => answer.released)).toEqual(Array(16).fill("succeeded"));
      expect(claimed.every((claims) => claims.length <= 3)).toBe(true);
      await handBack(claimed, "released");
      const [done] = await sql`select count(*)::integer as count from work_claims where status = 'succeeded'`;
      expect(done?.count).toBe(16);
    });

    test("cancel_items, retry_items and a retiring worker change only their own claims", async () => {
      await call(sql, "claim_next", { work_types: [type], worker_id: "leaves", max_items: 5 });
      expect(await call(sql, "release_claims_for_worker", { worker_id: "leaves" })).toBe(5);
      expect(await call(sql, "cancel_items", { work_type: type, max_items: 8 })).toBe(8);
      const chosen = ids.slice(300, 310);
      expect(await call(sql, "cancel_items", { work_type: type, item_ids: chosen })).toBe(10);
      expect(await call(sql, "retry_items", { work_type: type, item_ids: chosen })).toBe(10);
      expect(await call(sql, "retry_items", { work_type: type, item_ids: chosen })).toBe(0);
      const [left] =
        await sql`select count(*)::integer as count from work_claims where work_type = ${type} and status = 'cancelled'`;
      expect(left?.count).toBe(8);
    });
  });
});
