import { describe, expect, test } from "vitest";
import { type Claim, call } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { register } from "./support/matching-oracle.ts";
import type { Version } from "./support/servers.ts";

const versions: Version[] = [17, 15];
const kinds = 100;

/** Rows of ours that a session has read so far, flushed to the statistics or not. */
async function rowsRead(session: Sql): Promise<number> {
  await session`select pg_stat_force_next_flush()`;
  await session`select pg_stat_clear_snapshot()`;
  const [read] = await session`
    select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) + coalesce(idx_blks_hit + idx_blks_read, 0))::integer as rows
      from pg_stat_user_tables join pg_statio_user_tables using (relid)
     where pg_stat_user_tables.relname in ('work_claims', 'work_items', 'work_events', 'work_workers')`;
  return read?.rows as number;
}

// PL/pgSQL keeps a plan as long as its connection: what was planned on empty tables runs when they are full.
describe.each(versions)(
  "on Postgres %s, with plans made on empty tables and a hundred thousand items",
  async (version) => {
    const { sql, owner, as } = await openDatabase({ version });
    const session = as("service_role");
    // The statistics of Postgres 15 have no way to be flushed at once by another name.
    const settings = ["work_items", "work_claims", "work_events", "work_classes"];
    await owner.unsafe(settings.map((name) => `alter table ${name} set (autovacuum_enabled = off)`).join(";"));
    await call(sql, "define_work_type", { work_type: "type", pool: "default", passed_over_seconds: 600 });
    await call(sql, "define_work_type", { work_type: "other", passed_over_seconds: 600 });
    await call(sql, "define_workflow", { workflow: "flow" });
    const names = Array.from({ length: kinds }, (_, n) => `k${n}`);
    const workers = {
      "one class": { capabilities: { kind: "k7" } },
      "few classes": { capabilities: { kind: ["k1", "k5"] } },
      "half of the classes": { capabilities: { kind: names.slice(0, 50) } },
      "all classes": { capabilities: { kind: names, gpu: true } },
      "a dear one": { capabilities: { kind: names, gpu: true }, exclusive: ["gpu"], yield_seconds: 3600 },
      "nothing to run": { capabilities: { kind: "none" }, accepts: { tenant: "nobody" } },
    };
    for (const [id, worker] of Object.entries(workers)) {
      await register(sql, { id, ...worker });
    }
    const wishes: Record<string, object> = {
      "what is next": {},
      "of two work types": { work_types: ["type", "other"] },
      warm: { warm: ["a1", "a2", "nowhere"] },
    };
    async function claimAll(): Promise<Record<string, number>> {
      const read: Record<string, number> = {};
      for (const worker_id of Object.keys(workers)) {
        for (const [wish, more] of Object.entries(wishes)) {
          const before = await rowsRead(session);
          const args = { work_types: ["type"], worker_id, max_items: 5, ...more };
          const claims = await call<Claim[]>(session, "claim_next", args);
          const outcomes = claims.map((claim) => ({ ...claim, outcome: "released" }));
          await call(session, "release_items", { worker_id, outcomes });
          read[`${worker_id}: ${wish}`] = (await rowsRead(session)) - before;
        }
        for (let calls = 0; calls < 8; calls += 1) {
          const before = await rowsRead(session);
          const claims = await call<Claim[]>(session, "claim_next", { work_types: ["type"], worker_id, max_items: 5 });
          read[`${worker_id}: what is next, call ${calls}`] = (await rowsRead(session)) - before;
          const outcomes = claims.map((claim) => ({ ...claim, outcome: "succeeded" }));
          await call(session, "release_items", { worker_id, outcomes });
        }
      }
      return read;
    }

    test("a claim call reads a few rows for each class", async () => {
      const requires = names.map((kind) => ({ requires: { kind }, labels: kind === "k3" ? { tenant: "x" } : {} }));
      await call(sql, "enqueue_items", { items: [...requires, { requires: { gpu: true } }, {}] });
      await owner`delete from work_items`;
      for (let turn = 0; turn < 6; turn += 1) {
        await claimAll();
      }
      await owner.unsafe(`
      alter table work_items disable trigger user;
      insert into work_items (pool, class_id, priority, affinity, workflow_id)
      select 'default', k.id, n % 3, case when n % 5 = 0 then 'a' || n % 7 end,
             case when n % 4 = 0 then (select id from work_workflows where name = 'flow') end
        from generate_series(1, 100000) as n
        join (select id, row_number() over (order by id) as m from work_classes) as k on k.m = 1 + n % ${kinds + 2};
      alter table work_items enable trigger user;
      insert into work_claims (item_id, work_type, status, priority, rank, position, class_id, affinity, workflow_id,
                               worker_id, fence, expires_at, finished_at, due_at)
      select item_id, 'type', kind, priority, rank, position, class_id, affinity, workflow_id, 'crowd', position,
             case when kind = 'claimed' then now() + interval '1 h' else '-infinity' end,
             case when kind in ('succeeded', 'failed') then now() end,
             case when kind = 'waiting' then now() + interval '1 h' else now() end
        from (select *, (array['ready', 'ready', 'ready', 'ready', 'waiting', 'claimed', 'succeeded', 'failed'])[1 + position % 8] as kind
                from work.ranked_items) as i`);
      // Rows and pages: the heads of a hundred lanes, and some more rows of each.
      const isTooMuch = ([, rows]: [string, number]): boolean => rows >= 2500;
      const stale = Object.entries(await claimAll()).filter(isTooMuch);
      await owner`analyze`;
      await session`discard plans`;
      const fresh = Object.entries(await claimAll()).filter(isTooMuch);
      await session`set plan_cache_mode = force_custom_plan`;
      const custom = Object.entries(await claimAll()).filter(isTooMuch);
      expect({ stale, fresh, custom }).toEqual({ stale: [], fresh: [], custom: [] });
    });
  },
);
