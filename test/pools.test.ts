import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Claim, call, claimNext } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, owner, as } = await openDatabase();
afterAll(() => expectInvariants(sql));

interface Item {
  source_key: string;
  payload: unknown;
}

async function itemsOf(pool: string): Promise<Item[]> {
  const rows = await sql<Item[]>`select source_key, payload from work_items where pool = ${pool} order by seq`;
  return [...rows];
}

async function keysOf(pool: string): Promise<string[]> {
  return (await itemsOf(pool)).map((item) => item.source_key).sort();
}

async function enroll(pool: string, max_items: number): Promise<{ mirrored: number; enrolled: number; done: boolean }> {
  return call(owner, "enroll_pool", { pool, max_items });
}

describe("an attached table", () => {
  test.each([
    ["uuid", "id uuid primary key", ["11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"]],
    ["bigint", "id bigint primary key", ["-9223372036854775808", "9007199254740993"]],
    ["text", "id text primary key", ["", `it's "quoted"; $$ ü 🙂`]],
    ["citext-like name", `id varchar(20) primary key`, ["a", "A"]],
    ["date", "id date primary key", ["2026-02-28", "2026-03-01"]],
    ["unique, not null", "id integer not null unique", ["1", "2"]],
  ])("has items for rows with a key that is %s", async (name, column, keys) => {
    const pool = `keyed ${name}`;
    await owner.unsafe(`create table "${pool}" (${column}, body text)`);
    await owner.unsafe(`insert into "${pool}" values ($1, 'old')`, [keys[0] ?? ""]);
    expect(await call(owner, "attach_pool", { source: `"${pool}"` })).toEqual({ pool, key: ["id"] });
    expect(await keysOf(pool)).toEqual([]);
    expect(await enroll(pool, 100)).toEqual({ mirrored: 1, enrolled: 0, done: true });
    await owner.unsafe(`insert into "${pool}" values ($1, 'new')`, [keys[1] ?? ""]);
    expect(await keysOf(pool)).toEqual([...keys].sort());

    await owner.unsafe(`update "${pool}" set body = 'changed'`);
    const payloads = (await itemsOf(pool)).map((item) => item.payload);
    expect(payloads).toMatchObject([{ body: "changed" }, { body: "changed" }]);
    await owner.unsafe(`delete from "${pool}" where id = $1`, [keys[0] ?? ""]);
    expect(await keysOf(pool)).toEqual(keys.slice(1));
  });

  test("has items for rows with a key of several columns", async () => {
    await owner`create table pages (site text, number integer, primary key (site, number))`;
    expect(await call(owner, "attach_pool", { source: "pages" })).toEqual({ pool: "pages", key: ["site", "number"] });
    await owner`insert into pages values ('a', 1), ('a', 2), ('a,1', 1)`;
    expect(await keysOf("pages")).toEqual(['["a", 1]', '["a", 2]', '["a,1", 1]']);
    await owner`delete from pages where number = 1`;
    expect(await keysOf("pages")).toEqual(['["a", 2]']);
  });

  test("has one item for a row with a time in its key, whatever the writer's time zone", async () => {
    await owner`create table readings (sensor text, at timestamptz, value integer, primary key (sensor, at))`;
    await owner`insert into readings values ('past', '2026-01-01T00:00:00Z', 0)`;
    await call(owner, "attach_pool", { source: "readings" });
    const berlin = as("postgres", { connection: { TimeZone: "Europe/Berlin" } });
    const tokyo = as("postgres", { connection: { TimeZone: "Asia/Tokyo" } });
    await call(tokyo, "enroll_pool", { pool: "readings" });
    await berlin`insert into readings values ('s', '2026-01-01T00:00:00Z', 1)`;
    await tokyo`update readings set value = 2`;
    expect(await keysOf("readings")).toHaveLength(2);
    await tokyo`delete from readings`;
    expect(await keysOf("readings")).toEqual([]);
  });

  test("gives its uuid keys to its items, so that a worker claims rows by their own ids", async () => {
    await owner`create table docs (id uuid primary key default gen_random_uuid(), body text)`;
    await call(owner, "attach_pool", { source: "docs" });
    const [row] = await owner`insert into docs (body) values ('x') returning id`;
    const args = { item_ids: [row?.id], work_type: "read docs", worker_id: "a" };
    expect(await call(sql, "claim_items", args)).toMatchObject([{ item_id: row?.id }]);
  });

  test("has an item of its own for a uuid that another table has too", async () => {
    await owner`create table twins (id uuid primary key)`;
    await owner`create table siblings (id uuid primary key)`;
    await call(owner, "attach_pool", { source: "twins" });
    await call(owner, "attach_pool", { source: "siblings" });
    await owner`insert into twins values ('33333333-3333-3333-3333-333333333333')`;
    await owner`insert into siblings values ('33333333-3333-3333-3333-333333333333')`;
    await owner`delete from twins`;
    expect(await keysOf("twins")).toEqual([]);
    expect(await keysOf("siblings")).toEqual(["33333333-3333-3333-3333-333333333333"]);
  });

  test("of another schema is a pool under its full name, or the name given", async () => {
    await owner`create schema shop`;
    await owner`create table shop.orders (id integer primary key)`;
    expect(await call(owner, "attach_pool", { source: "shop.orders" })).toMatchObject({ pool: "shop.orders" });
    await owner`create table shop.lines (id integer primary key)`;
    expect(await call(owner, "attach_pool", { source: "shop.lines", pool: "lines" })).toMatchObject({ pool: "lines" });
  });

  test("feeds payload, priority and time from the columns named", async () => {
    await owner`create table mails (id integer primary key, subject text, secret text, urgency double precision, send_at timestamptz)`;
    await call(owner, "attach_pool", {
      source: "mails",
      payload_columns: ["subject"],
      priority_column: "urgency",
      run_after_column: "send_at",
    });
    await call(owner, "define_work_type", { work_type: "send", pool: "mails" });
    await owner`insert into mails values (1, 'low', 's', 0.4, null), (2, 'high', 's', 7.6, null), (3, 'huge', 's', 1e300, '2999-01-01'), (4, 'none', 's', null, null)`;
    expect(await itemsOf("mails")).toMatchObject([{ payload: { subject: "low" } }, {}, {}, {}]);
    expect((await itemsOf("mails"))[0]?.payload).toEqual({ subject: "low" });
    const rows = await sql`select priority from work_items where pool = 'mails' order by seq`;
    expect(rows.map((row) => row.priority)).toEqual([0, 8, 1000000, 0]);
    expect((await claimNext(sql, "send", "a", 9)).map((claim) => claim.source_key)).toEqual(["2", "1", "4"]);
    await owner`update mails set send_at = '2020-01-01' where id = 3`;
    expect((await claimNext(sql, "send", "a", 9)).map((claim) => claim.source_key)).toEqual(["3"]);
  });

  test("may have columns with the names of variables in the SQL", async () => {
    const columns = ["n", "o", "r", "i", "m", "page", "source_row", "row_number", "attached", "pool", "order"];
    await owner.unsafe(
      `create table words (id integer primary key, ${columns.map((name) => `"${name}" text`).join(", ")})`,
    );
    await owner`insert into words (id, n) values (0, 'past')`;
    await call(owner, "attach_pool", { source: "words" });
    await enroll("words", 10);
    await owner`insert into words (id, n, r) values (1, 'a', 'b'), (2, 'a', 'b')`;
    const before = await sql`select id, source_key from work_items where pool = 'words' order by seq`;
    await owner`update words set n = id::text, o = 'x', r = 'y', page = 'z'`;
    expect(await sql`select id, source_key from work_items where pool = 'words' order by seq`).toEqual(before);
    expect((await itemsOf("words"))[2]?.payload).toMatchObject({
      id: 2,
      n: "2",
      o: "x",
      r: "y",
      page: "z",
      order: null,
    });
    await owner`delete from words where id < 2`;
    expect(await keysOf("words")).toEqual(["2"]);
  });

  test("needs a key: one without is refused", async () => {
    await owner`create table keyless (id integer)`;
    await owner`create unique index on keyless (id)`;
    await expect(call(owner, "attach_pool", { source: "keyless" })).rejects.toMatchObject({
      code: "PT400",
      message: expect.stringContaining("source is public.keyless; a table with a primary key was expected"),
    });
  });
});

describe("items follow rows", () => {
  beforeAll(async () => {
    await owner`create table notes (id integer primary key, body text)`;
    await call(owner, "attach_pool", { source: "notes" });
    await call(owner, "define_work_type", { work_type: "file", pool: "notes" });
  });

  test("an upsert adds and changes items", async () => {
    await owner`insert into notes values (1, 'one'), (2, 'two')`;
    await owner`insert into notes values (2, 'TWO'), (3, 'three') on conflict (id) do update set body = excluded.body`;
    expect((await itemsOf("notes")).map((item) => item.payload)).toEqual([
      { id: 1, body: "one" },
      { id: 2, body: "TWO" },
      { id: 3, body: "three" },
    ]);
  });

  test("a changed row keeps its item, and its claim can be released", async () => {
    const [claim] = await claimNext(sql, "file", "a");
    await owner`update notes set body = 'changed while it ran' where id = ${Number(claim?.source_key)}`;
    expect(await call(sql, "release_item", { ...release(claim), outcome: "succeeded" })).toBe(true);
  });

  test("a row whose key changes is another item", async () => {
    await owner`update notes set id = id + 10`;
    expect(await keysOf("notes")).toEqual(["11", "12", "13"]);
    await owner`update notes set id = id - 10`;
    expect(await keysOf("notes")).toEqual(["1", "2", "3"]);
  });

  test("a deleted row takes its claims with it", async () => {
    await owner`delete from notes where id = 2`;
    expect(
      await sql`select from work_claims c join work_items i on i.id = c.item_id where i.source_key = '2' and i.pool = 'notes'`,
    ).toEqual([]);
  });

  test("a write that is rolled back changes no item", async () => {
    const before = await itemsOf("notes");
    await owner
      .begin(async (transaction) => {
        await transaction`insert into notes values (99, 'gone')`;
        await transaction`delete from notes where id = 1`;
        throw new Error("changed my mind");
      })
      .catch(() => {});
    expect(await itemsOf("notes")).toEqual(before);
  });

  test("truncate deletes all items", async () => {
    await owner`truncate notes`;
    expect(await keysOf("notes")).toEqual([]);
    expect(await call(sql, "claim_next", { work_types: ["file"], worker_id: "a", max_items: 9 })).toEqual([]);
  });

  test("rows that COPY writes become items in the order of the file", async () => {
    const copy = await owner`copy notes from stdin`.writable();
    for (let id = 1; id <= 2500; id += 1) {
      copy.write(`${id}\tnote ${id}\n`);
    }
    await new Promise<void>((resolve, reject) => {
      copy.once("finish", resolve);
      copy.once("error", reject);
      copy.end();
    });
    const keys = (await itemsOf("notes")).map((item) => Number(item.source_key));
    expect(keys).toEqual(Array.from({ length: 2500 }, (_, index) => index + 1));
    const claims = await claimNext(sql, "file", "a", 3);
    expect(claims.map((claim) => claim.source_key)).toEqual(["1", "2", "3"]);
  });

  test("a statement inserts, changes or deletes the items of a hundred thousand rows", {
    timeout: 180_000,
  }, async () => {
    await owner`create table lots (id bigint primary key, n integer)`;
    await call(owner, "attach_pool", { source: "lots" });
    await call(owner, "define_work_type", { work_type: "chew", pool: "lots" });
    await owner`insert into lots select g, 0 from generate_series(1, 100000) g`;
    const [inserted] = await sql`
      select count(*)::integer as items, count(c.*)::integer as claims
        from work_items i left join work_claims c on c.item_id = i.id where i.pool = 'lots'`;
    expect(inserted).toEqual({ items: 100000, claims: 100000 });
    await owner`update lots set n = 1 where id % 10 = 0`;
    const [changed] =
      await sql`select count(*)::integer as items from work_items where pool = 'lots' and payload @> '{"n": 1}'`;
    expect(changed).toEqual({ items: 10000 });
    await owner`delete from lots where id % 2 = 0`;
    const [left] = await sql`select count(*)::integer as items from work_items where pool = 'lots'`;
    expect(left).toEqual({ items: 50000 });
  });

  test("a write looks up each row's item by its key, although statistics do not know the pool", async () => {
    const session = as("postgres");
    await session`create table newcomers (id bigint primary key, n integer default 0)`;
    await call(session, "attach_pool", { source: "newcomers" });
    await call(session, "enqueue_items", { items: Array(500).fill({}) });
    await session`analyze work_items`;
    const rowsRead = async (): Promise<number> => {
      const [read] = await session`
        select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as rows
          from pg_stat_xact_user_tables where relname in ('work_items', 'work_claims')`;
      return Number(read?.rows);
    };
    await session`begin`;
    await session`insert into newcomers select generate_series(1, 5000)`;
    const inserted = await rowsRead();
    await session`update newcomers set n = 1 where id % 50 = 1`;
    const updated = await rowsRead();
    await session`delete from newcomers where id % 50 = 1`;
    const deleted = await rowsRead();
    await session`commit`;
    expect(inserted).toBeLessThan(20_000);
    expect(updated - inserted).toBeLessThan(2000);
    expect(deleted - updated).toBeLessThan(2000);
  });

  test("a writer needs no right on work-claims", async () => {
    await owner`create table posts (id integer primary key, body text)`;
    await owner`grant select, insert, update, delete on posts to authenticated`;
    await call(owner, "attach_pool", { source: "posts" });
    await call(owner, "define_work_type", { work_type: "moderate", pool: "posts" });
    const writer = as("authenticated");
    await writer`insert into posts values (1, 'a'), (2, 'b')`;
    await writer`update posts set body = 'c' where id = 1`;
    await writer`delete from posts where id = 2`;
    expect(await itemsOf("posts")).toEqual([{ source_key: "1", payload: { id: 1, body: "c" } }]);
    await expect(writer`select * from work_items`).rejects.toMatchObject({ code: "42501" });
  });
});

describe("a detached table", () => {
  test("is not followed, and can be attached again", async () => {
    await owner`create table drafts (id integer primary key)`;
    await call(owner, "attach_pool", { source: "drafts" });
    await owner`insert into drafts values (1)`;
    expect(await call(owner, "detach_pool", { pool: "drafts" })).toBe(true);
    expect(await call(owner, "detach_pool", { pool: "drafts" })).toBe(false);
    await owner`insert into drafts values (2)`;
    expect(await keysOf("drafts")).toEqual(["1"]);
    await call(owner, "attach_pool", { source: "drafts" });
    await enroll("drafts", 10);
    expect(await keysOf("drafts")).toEqual(["1", "2"]);
  });
});

/** The rows of work.broken_pools about a pool. */
async function brokenReason(pool: string): Promise<string | undefined> {
  const [row] = await sql`select reason from work.broken_pools where pool = ${pool}`;
  return row?.reason;
}

describe("a named column changes", () => {
  const payloadsOf = async (pool: string): Promise<unknown[]> => (await itemsOf(pool)).map((item) => item.payload);

  async function attach(table: string, columns: string, args: Record<string, unknown>): Promise<void> {
    await owner.unsafe(`create table ${table} (id integer primary key, ${columns})`);
    await call(owner, "attach_pool", { source: table, ...args });
  }

  test("a renamed payload column keeps its name in payloads", async () => {
    await attach("renamed", "body text, hint text", { payload_columns: ["body"] });
    await owner`insert into renamed values (1, 'a', 'no')`;
    await owner`alter table renamed rename column body to content`;
    await owner`insert into renamed values (2, 'b', 'no')`;
    await owner`update renamed set content = 'A' where id = 1`;
    expect(await payloadsOf("renamed")).toEqual([{ body: "A" }, { body: "b" }]);
    await call(owner, "attach_pool", { source: "renamed" });
    expect(await enroll("renamed", 10)).toEqual({ mirrored: 0, enrolled: 0, done: true });
    expect(await brokenReason("renamed")).toBe(undefined);
    await call(owner, "attach_pool", { source: "renamed", payload_columns: ["content"] });
    await enroll("renamed", 10);
    expect(await payloadsOf("renamed")).toEqual([{ content: "A" }, { content: "b" }]);
  });

  test("a renamed priority column is followed", async () => {
    await attach("ranked", "urgency integer", { priority_column: "urgency" });
    await owner`alter table ranked rename column urgency to rank`;
    await owner`insert into ranked values (1, 7)`;
    expect(await sql`select priority from work_items where pool = 'ranked'`).toEqual([{ priority: 7 }]);
  });

  test("a column that takes the name of another is read in its place", async () => {
    await attach("swapped", "body text", { payload_columns: ["body"] });
    await owner`insert into swapped values (1, 'old')`;
    await owner`alter table swapped add column next text`;
    await owner`alter table swapped rename column body to former`;
    await owner`alter table swapped rename column next to body`;
    await owner`update swapped set body = 'new'`;
    expect(await payloadsOf("swapped")).toEqual([{ body: "new" }]);
  });

  test.each([
    { change: "dropped", alter: "drop column body", says: "dropped has no such column" },
    { change: "retyped", alter: "alter column rank type text", says: "a column of numbers was expected" },
  ])(
    "a column that is $change stops the pool and no write, and no row is lost",
    async ({ change: table, alter, says }) => {
      await attach(table, "body text, rank integer", { payload_columns: ["body"], priority_column: "rank" });
      await owner.unsafe(`insert into ${table} values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)`);
      await owner.unsafe(`alter table ${table} ${alter}`);
      await owner.unsafe(`insert into ${table} (id) values (4)`);
      await owner.unsafe(`update ${table} set rank = null where id = 1`);
      await owner.unsafe(`update ${table} set id = 5 where id = 2`);
      await owner.unsafe(`delete from ${table} where id = 3`);
      expect(await itemsOf(table)).toEqual([{ source_key: "1", payload: { body: "a" } }]);
      expect(await brokenReason(table)).toContain(
        `${says}: rows are not followed until attach_pool() is given columns that fit`,
      );
      await expect(enroll(table, 10)).rejects.toMatchObject({ code: "PT409", message: expect.stringContaining(says) });
      await expect(call(owner, "attach_pool", { source: table })).rejects.toMatchObject({ code: "PT400" });

      await call(owner, "attach_pool", { source: table, payload_columns: ["id"], priority_column: "" });
      expect(await brokenReason(table)).toContain("call enroll_pool() until it says done");
      expect(await enroll(table, 2)).toMatchObject({ mirrored: 2, done: false });
      expect(await brokenReason(table)).toBeDefined();
      expect(await enroll(table, 2)).toMatchObject({ mirrored: 1, done: true });
      expect(await itemsOf(table)).toEqual([1, 4, 5].map((id) => ({ source_key: String(id), payload: { id } })));
      expect(await brokenReason(table)).toBe(undefined);
    },
  );

  test("a column that comes back is read again, and enroll_pool() enrols the missed rows", async () => {
    await attach("returned", "body text", { payload_columns: ["body"] });
    await owner`alter table returned drop column body`;
    await owner`insert into returned values (1)`;
    await owner`alter table returned add column body text default 'x'`;
    await owner`insert into returned values (2)`;
    expect(await keysOf("returned")).toEqual(["2"]);
    expect(await brokenReason("returned")).toContain("has rows that are no items yet: call enroll_pool()");
    expect(await enroll("returned", 10)).toEqual({ mirrored: 1, enrolled: 0, done: true });
    expect(await keysOf("returned")).toEqual(["1", "2"]);
    expect(await brokenReason("returned")).toBe(undefined);
  });

  test("enroll_pool() enrols a row that the trigger missed during its pass", async () => {
    await attach("between", "body text", { payload_columns: ["body"] });
    await owner`insert into between values (1), (2), (3)`;
    await call(owner, "attach_pool", { source: "between" });
    await enroll("between", 2);
    await owner`alter table between drop column body`;
    await owner`insert into between values (0)`;
    await owner`alter table between add column body text`;
    expect(await enroll("between", 2)).toMatchObject({ done: false });
    while (!(await enroll("between", 2)).done) {}
    expect(await keysOf("between")).toEqual(["0", "1", "2", "3"]);
  });

  test("a dropped key column stops the pool and no write", async () => {
    await attach("unkeyed", "body text", {});
    await owner`insert into unkeyed values (1, 'a')`;
    await owner`alter table unkeyed drop column id`;
    await owner`insert into unkeyed values ('b')`;
    await owner`update unkeyed set body = 'c'`;
    await owner`delete from unkeyed`;
    expect(await brokenReason("unkeyed")).toContain("key_column is id; unkeyed has no such column");
    await owner`truncate unkeyed`;
    expect(await keysOf("unkeyed")).toEqual([]);
  });

  test("work.broken_pools shows a pool with a disabled trigger", async () => {
    await attach("silenced", "body text", {});
    await owner`alter table silenced disable trigger work_claims_mirror_update`;
    expect(await brokenReason("silenced")).toContain("silenced is missing or disabled: call attach_pool() again");
  });
});

describe("a dropped table closes its pool", () => {
  /** Another call of the worker, some seconds later. */
  async function callLater(type: string, max_items = 1): Promise<Claim[]> {
    await sql`update work_workers set last_seen_at = last_seen_at - interval '10 seconds' where id = 'closer'`;
    return claimNext(sql, type, "closer", max_items);
  }
  const pausedTypes = async (pool: string): Promise<unknown[]> => {
    const rows = await sql`select name from work_types where pool = ${pool} and paused order by name`;
    return rows.map((row) => row.name);
  };

  test("no item is claimed until a table is attached in its place", async () => {
    await call(sql, "register_worker", { worker_id: "closer", instance: crypto.randomUUID() });
    await owner`create table gone (id integer primary key)`;
    await call(owner, "attach_pool", { source: "gone" });
    await call(owner, "define_work_type", { work_type: "remember", pool: "gone" });
    await call(owner, "define_work_type", { work_type: "paused before", pool: "gone", paused: true });
    await owner`insert into gone values (1), (2)`;
    const [held] = await claimNext(sql, "remember", "closer");
    await owner`drop table gone`;
    expect(await brokenReason("gone")).toContain("its table was dropped");
    expect(await callLater("remember")).toEqual([]);
    expect(await pausedTypes("gone")).toEqual(["paused before", "remember"]);
    expect(
      await call(sql, "claim_items", { ...{ item_ids: [held?.item_id], work_type: "remember" }, worker_id: "b" }),
    ).toEqual([]);
    expect(await call(sql, "release_item", { ...release(held), worker_id: "closer", outcome: "succeeded" })).toBe(true);
    await expect(enroll("gone", 10)).rejects.toMatchObject({ code: "PT409" });

    await owner`create table gone (id integer primary key)`;
    await owner`insert into gone values (1), (2), (3)`;
    await call(owner, "attach_pool", { source: "gone" });
    await enroll("gone", 10);
    expect(await pausedTypes("gone")).toEqual(["paused before"]);
    expect(await brokenReason("gone")).toBe(undefined);
    expect((await callLater("remember", 9)).map((claim) => claim.source_key)).toEqual(["2", "3"]);
  });

  test("a work type that is resumed by hand is not paused again", async () => {
    await owner`create table lost (id integer primary key)`;
    await call(owner, "attach_pool", { source: "lost" });
    await call(owner, "define_work_type", { work_type: "finish", pool: "lost" });
    await owner`insert into lost values (1)`;
    await owner`drop table lost`;
    await call(sql, "reap_expired_claims");
    expect(await pausedTypes("lost")).toEqual(["finish"]);
    await call(sql, "define_work_type", { work_type: "finish", paused: false });
    expect(await callLater("finish")).toHaveLength(1);
    expect(await pausedTypes("lost")).toEqual([]);
  });

  test("detach_pool() leaves its work types paused", async () => {
    await owner`create table parted (id integer primary key)`;
    await call(owner, "attach_pool", { source: "parted" });
    await call(owner, "define_work_type", { work_type: "part", pool: "parted" });
    await owner`drop table parted`;
    await call(sql, "reap_expired_claims");
    expect(await call(owner, "detach_pool", { pool: "parted" })).toBe(true);
    expect(await brokenReason("parted")).toBe(undefined);
    expect(await pausedTypes("parted")).toEqual(["part"]);
  });
});

function release(claim: Claim | undefined): Record<string, unknown> {
  return { item_id: claim?.item_id, work_type: claim?.work_type, fence: claim?.fence, worker_id: "a" };
}
