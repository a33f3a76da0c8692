// A page of a large table reads about as many rows as it shows, with statistics of the table and without.
import { describe, expect, test } from "vitest";
import { type PageOptions, pageQuery } from "../src/lists/pages.ts";
import { claimList, claimOrders } from "../src/lists/rows.ts";
import { call } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import type { Version } from "./support/servers.ts";

const operatorsOf: Record<string, string> = { eq: "=", gte: ">=" };

/** The rows of a page, by the statement that PostgREST sends: prepared, with untyped parameters. */
async function ask(sql: Sql, selector: object, options: PageOptions): Promise<{ item_id: string }[]> {
  const { select, filters, order } = pageQuery(claimList, selector, options, false, new Date());
  const conditions = filters.map(([column, operator], n) => `${column} ${operatorsOf[operator]} $${n + 1}`);
  return sql.unsafe(
    `select ${select} from public.work_claim_list where ${["true", ...conditions].join(" and ")}
      order by ${order.map((term) => term.replace(".desc", " desc"))} limit $${filters.length + 1}`,
    [...filters.map(([, , value]) => value), 50] as never[],
  );
}

/** Rows of items and claims that this transaction has read. */
async function rowsRead(sql: Sql): Promise<number> {
  const [row] = await sql`
    select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as read
      from pg_stat_xact_user_tables where relname in ('work_items', 'work_claims')`;
  return row?.read;
}

const worlds: [Version, "analyzed" | "never analyzed"][] = [
  [17, "analyzed"],
  [15, "never analyzed"],
];

describe.each(worlds)("on Postgres %s, %s:", async (version, analyzed) => {
  const { sql, owner } = await openDatabase({ version });
  await owner.unsafe(`
    alter table work_items set (autovacuum_enabled = off);
    alter table work_claims set (autovacuum_enabled = off)`);
  for (const type of ["t", "rare"]) await call(sql, "define_work_type", { work_type: type });
  await call(sql, "enqueue_items", { items: [{ labels: { customer: "acme" } }, { labels: { customer: "b" } }] });
  await owner.unsafe(`
    insert into work_items (pool, priority, source_key, class_id)
    select 'default', n % 10, n::text, 1 + n % 2 from generate_series(1, 90000) n;
    insert into work_claims
      (item_id, work_type, status, priority, rank, position, class_id, finished_at, expires_at, due_at)
    select i.id, case i.seq % 1000 when 0 then 'rare' else 't' end,
           case i.seq % 20 when 1 then 'failed' when 2 then 'claimed' when 3 then 'waiting'
             else case when i.seq % 2 = 0 then 'ready' else 'succeeded' end end,
           i.priority, i.seq, i.seq, i.class_id, now() - i.seq * interval '1 second',
           now() + i.seq * interval '1 second', now() + i.seq * interval '1 second'
      from work_items i`);
  if (analyzed === "analyzed") {
    for (const table of ["work_items", "work_claims", "work_classes"]) await owner.unsafe(`vacuum analyze ${table}`);
  }
  const [some] = await owner`select id from work_items order by id offset 30000 limit 1`;

  const { queue, newestFailed, nextLease, nextDue } = claimOrders;
  test.each<[string, object, PageOptions, number]>([
    ["ready ones of a type", { status: "ready", work_type: "t" }, { order: queue }, 500],
    ["ready ones of all types", { status: "ready" }, { order: queue }, 500],
    ["ready ones of a rare type", { status: "ready", work_type: "rare" }, { order: queue }, 500],
    ["newest failed", { status: "failed", work_type: "t" }, { order: newestFailed }, 500],
    ["leases that end first", { status: "claimed" }, { order: nextLease }, 500],
    ["next due", { status: "waiting" }, { order: nextDue }, 500],
    ["first of all", {}, {}, 500],
    ["ones after a key", {}, { after: { item_id: some?.id, work_type: "t" } }, 500],
    ["ones of an item", { item_id: some?.id }, {}, 10],
  ])("the %s are read along an index", async (_, selector, options, most) => {
    await owner.begin(async (transaction) => {
      const before = await rowsRead(transaction as never);
      const rows = await ask(transaction as never, selector, options);
      expect(rows.length).toBeGreaterThan(0);
      expect((await rowsRead(transaction as never)) - before).toBeLessThan(most);
    });
  });
});
