import { describe, expect, test } from "vitest";
import { createLists, eachRow, type Page } from "../src/select/lists.ts";
import { call } from "./calls.ts";
import { openDatabase, type Sql } from "./database.ts";
import type { Version } from "./servers.ts";

/** So many items, claims and workers; what is looked for is behind most of them. */
const crowd = 80_000;

type Row = Record<string, unknown>;

/** Rows of each of our tables that this transaction has read. */
async function rowsRead(transaction: Sql): Promise<Record<string, number>> {
  const rows = await transaction`
    select relname::text as name, (seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as read
      from pg_stat_xact_user_tables where relname in ('work_items', 'work_claims', 'work_workers')`;
  return Object.fromEntries(rows.map((row) => [row.name, row.read]));
}

/** How many rows of any one table a call reads, and its answer. */
async function measured(transaction: Sql, name: string, args: object): Promise<[number, Page<Row>]> {
  const before = await rowsRead(transaction);
  const page = await call<Page<Row>>(transaction, name, args as Row);
  const after = await rowsRead(transaction);
  return [Math.max(...Object.keys(after).map((table) => Number(after[table]) - Number(before[table]))), page];
}

/** Without statistics the planner is as wrong as it can be. */
const worlds: [Version, "analyzed" | "never analyzed"][] = [
  [17, "analyzed"],
  [15, "never analyzed"],
];

describe.each(worlds)("on Postgres %s, %s:", async (version, analyzed) => {
  const { sql, owner } = await openDatabase({ version });
  await owner.unsafe(`
    alter table work_items set (autovacuum_enabled = off);
    alter table work_claims set (autovacuum_enabled = off);
    alter table work_workers set (autovacuum_enabled = off)`);
  await call(sql, "define_work_type", { work_type: "t", pool: "default" });
  await call(sql, "enqueue_items", { items: [{ labels: { customer: "acme" }, workflow: "whole" }] });
  await owner.unsafe(`
    delete from work_items;
    alter table work_items disable trigger user;
    insert into work_items (id, seq, pool, class_id, workflow_id, priority)
    select ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, n, case when n % 10 = 3 then 'second' else 'default' end,
           k.id, w.id, case when n > 70000 and n % 2999 = 0 then 77 else 0 end
      from generate_series(1, ${crowd}) n, work_workflows w, work_classes k where k.id <> 1;
    alter table work_items enable trigger user;
    insert into work_claims (item_id, work_type, status, priority, position, class_id, workflow_id, worker_id, finished_at)
    select i.id, 't', case when i.seq % 2 = 0 then 'succeeded' else 'ready' end, i.priority, i.seq, i.class_id, i.workflow_id,
           case when i.seq > 70000 and i.seq % 2999 = 0 then 'rare' else 'crowd' end, case when i.seq % 2 = 0 then now() end
      from work_items i;
    insert into work_claims (item_id, work_type, status, position, class_id, workflow_id, finished_at, error)
    select i.id, 'u', 'failed', i.seq, i.class_id, i.workflow_id, now(), 'odd' from work_items i where i.seq % 39999 = 0;
    insert into work_workers (id, instance, capabilities)
    select 'worker ' || lpad(n::text, 5, '0'), gen_random_uuid(), case n % 39999 when 0 then '{"odd": 1}' else '{}' end::jsonb
      from generate_series(1, ${crowd}) n`);
  for (const table of analyzed === "analyzed" ? ["work_items", "work_claims", "work_workers"] : []) {
    await owner.unsafe(`vacuum analyze ${table}`);
  }

  test.each<[string, "items" | "claims" | "workers", object, string]>([
    ["claims by a column without an index", "claims", { worker_id: "rare" }, "worker_id = 'rare'"],
    [
      "… and by what is true of many items",
      "claims",
      { worker_id: "rare", workflow: "whole", "labels.customer": "acme" },
      "worker_id = 'rare'",
    ],
    [
      "… and by a status that many have",
      "claims",
      { worker_id: "rare", status: "ready" },
      "worker_id = 'rare' and status = 'ready'",
    ],
    [
      "… and by either of two",
      "claims",
      { worker_id: "rare", status: { in: ["ready", "succeeded"] } },
      "worker_id = 'rare'",
    ],
    ["claims that are judged", "claims", { error: { exists: true } }, "error is not null"],
    ["claims of nobody", "claims", { worker_id: "nobody" }, "false"],
    ["items by a number", "items", { priority: 77 }, "priority = 77"],
    ["items that are judged", "items", { not: { priority: 0 } }, "priority <> 0"],
    [
      "items of a workflow and class that many have",
      "items",
      { priority: 77, workflow: "whole", "labels.customer": "acme" },
      "priority = 77",
    ],
    [
      "items in a range, from one pool",
      "items",
      { priority: 77, pool: "default", seq: { ">": 100, "<": 79_000 } },
      "priority = 77 and pool = 'default' and seq < 79000",
    ],
    ["items that are not there", "items", { priority: -1 }, "false"],
    ["workers", "workers", { "capabilities.odd": 1 }, "capabilities <> '{}'"],
  ])("the whole of %s is found, and no call reads without bound", async (_, list, selector, where) => {
    const key = list === "claims" ? "item_id" : "id";
    const there = await owner.unsafe(`select ${key} as key from work_${list} where ${where} order by ${key}`);
    for (const limit of [1, 1000]) {
      await owner.begin(async (transaction) => {
        const pages: Page<Row>[] = [];
        const lists = createLists((async (name: string, args: object) => {
          const [read, page] = await measured(transaction as never, name, args);
          // 20,000, as many to see where they end, and some more in vain in an index that leaves too many.
          expect(read).toBeLessThan(60_000);
          pages.push(page);
          return page;
        }) as never);
        const found: unknown[] = [];
        for await (const row of eachRow((after) => lists[list](selector, { limit, after }) as Promise<Page<unknown>>)) {
          found.push((row as Row)[key]);
        }
        expect(found).toEqual(there.map((row) => row.key));
        expect(pages.some((page) => page.rows.length < limit && page.next !== null)).toBe(true);
        expect(pages.length).toBeLessThan(20);
      });
    }
  });

  test.each<[string, string, object, number, boolean]>([
    ["list_claims", "all", {}, 20, false],
    ["list_claims", "what is ready", { status: "ready" }, 20, false],
    ["list_claims", "what somebody did", { worker_id: "crowd" }, 20, false],
    ["list_claims", "what failed", { status: "failed" }, 2, true],
    ["list_items", "all", {}, 20, false],
    ["list_items", "a pool", { pool: "second" }, 20, false],
    ["list_items", "a label", { "labels.customer": "acme" }, 20, false],
    ["list_workers", "all", {}, 20, false],
  ])("%s of %s reads little for a page", async (name, _, selector, length, isAll) => {
    await owner.begin(async (transaction) => {
      const [read, page] = await measured(transaction as never, name, { selector, max_items: 20 });
      expect([page.rows.length, page.next === null]).toEqual([length, isAll]);
      expect(read).toBeLessThan(2000);
    });
  });

  test("items with one place in line do not hold a list up", async () => {
    const undo = new Error("all is as before");
    await owner
      .begin(async (transaction) => {
        await transaction`alter table work_items disable trigger user`;
        await transaction`update work_items set seq = 5000 where seq between 5000 and 35000`;
        const lists = createLists((name, args) => call(transaction as never, name, args as Row));
        const found: string[] = [];
        for await (const row of lists.eachItem({ not: { priority: 0 } })) found.push(row.id);
        expect(found).toHaveLength(3);
        throw undo;
      })
      .catch((error) => expect(error).toBe(undo));
  });
});
