import { expect, test } from "vitest";
import { type Claim, call } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";

// PL/pgSQL keeps a plan as long as its connection, and PostgREST keeps connections for long: what was planned when the
// tables were empty runs when they are full, and nobody has analyzed them.
const { sql, owner, as } = await openDatabase();
const crowd = 20_000;

/** Calls every hot function for a few items of the session's own, and answers how many rows and pages of ours each looked at. */
async function callAll(session: Sql, type: string): Promise<Record<string, number>> {
  const looked: Record<string, number> = {};
  async function step<Answer>(label: string, name: string, args: Record<string, unknown>): Promise<Answer> {
    const before = await lookedAt(session);
    const answer = await call<Answer>(session, name, args);
    looked[label] = (await lookedAt(session)) - before;
    return answer;
  }
  const worker_id = `worker of ${type}`;
  const items = Array.from({ length: 30 }, (_, n) => ({ dedupe_key: `${crypto.randomUUID()} ${n}` }));
  const ids = await step<string[]>("enqueue_items", "enqueue_items", { items });
  const claimed = await step<Claim[]>("claim_next", "claim_next", { work_types: [type], worker_id, max_items: 20 });
  await step("extend_claims", "extend_claims", { worker_id, held: claimed });
  await step("a stale heartbeat", "extend_claims", { worker_id: "nobody", held: claimed.slice(0, 5) });
  const close = (from: number, to: number, outcome: string): object[] =>
    claimed.slice(from, to).map((claim) => ({ ...claim, outcome, final: true }));
  await step("release as failed", "release_items", { worker_id, outcomes: close(0, 5, "failed") });
  await step("a stale release", "release_items", { worker_id: "nobody", outcomes: close(5, 10, "succeeded") });
  const outcomes = close(5, 10, "succeeded");
  await step("finish_and_claim", "finish_and_claim", { worker_id, outcomes, work_types: [type], max_items: 5 });
  const item_ids = claimed.slice(0, 5).map((claim) => claim.item_id);
  await step("retry_items", "retry_items", { work_type: type, item_ids });
  await step("cancel_items", "cancel_items", { work_type: type, item_ids });
  await step("claim_items", "claim_items", { item_ids: ids, work_type: `${type} undeclared`, worker_id });
  await step("nothing lapsed", "reap_expired_claims", {});
  const [late, due] = await call<Claim[]>(session, "claim_next", { work_types: [type], worker_id, max_items: 2 });
  await owner`update work_claims set expires_at = now() - interval '1 s' where item_id = ${late?.item_id as string}`;
  await step("one lapsed", "reap_expired_claims", {});
  const failed = { ...due, outcome: "failed", retry_after_seconds: 0 };
  await step("release to try again", "release_items", { worker_id, outcomes: [failed] });
  await step("one due", "claim_next", { work_types: [type], worker_id });
  return looked;
}

/** So far in this session, flushed to the statistics or not. A walk along an index alone shows in its pages. */
async function lookedAt(session: Sql): Promise<number> {
  await session`select pg_stat_force_next_flush()`;
  await session`select pg_stat_clear_snapshot()`;
  const [read] = await session`
    select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) + coalesce(idx_blks_hit + idx_blks_read, 0))::integer as seen
      from pg_stat_user_tables join pg_statio_user_tables using (relid)
     where pg_stat_user_tables.relname in ('work_claims', 'work_items', 'work_events')`;
  return read?.seen as number;
}

test("plans made on empty tables read few rows a claim on tens of thousands of rows", async () => {
  await owner.unsafe(`
    alter table work_items set (autovacuum_enabled = off);
    alter table work_claims set (autovacuum_enabled = off);
    alter table work_events set (autovacuum_enabled = off)`);
  await call(sql, "define_work_type", { work_type: "plan", pool: "default" });
  const session = as("service_role");
  await call(session, "claim_items", { item_ids: [crypto.randomUUID()], work_type: "plan", worker_id: "early" });
  for (let turn = 0; turn < 6; turn += 1) {
    await callAll(session, "plan");
  }
  await owner.unsafe(`
    alter table work_items disable trigger user;
    insert into work_items (pool) select 'default' from generate_series(1, ${crowd * 5});
    alter table work_items enable trigger user;
    insert into work_claims (item_id, work_type, status, position, worker_id, fence, expires_at, finished_at, due_at)
    select id, 'plan', kind, seq, 'crowd', seq,
           case when kind = 'claimed' then now() + interval '1 h' else '-infinity' end,
           case when kind in ('succeeded', 'failed') then now() end,
           case when kind = 'waiting' then now() + interval '1 h' else now() end
      from (select *, (array['ready', 'waiting', 'claimed', 'succeeded', 'failed'])[1 + seq % 5] as kind from work_items) as i
    on conflict do nothing`);
  const looked = await callAll(session, "plan");
  // A call deals with 30 items at most and looks each up a few times; a walk would look at 20,000 rows and more, or at a
  // hundred pages for each item.
  expect(Object.entries(looked).filter(([, seen]) => seen >= 2500)).toEqual([]);
  expect(Object.keys(looked)).toHaveLength(14);
});
