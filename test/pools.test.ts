import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Claim, call, next } from "./calls.ts";
import { openDatabase } from "./database.ts";
import { expectInvariants } from "./invariants.ts";

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

describe("a table becomes a pool", () => {
  test.each([
    ["uuid", "id uuid primary key", ["11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"]],
    ["bigint", "id bigint primary key", ["-9223372036854775808", "9007199254740993"]],
    ["text", "id text primary key", ["", `it's "quoted"; $$ ü 🙂`]],
    ["citext-like name", `id varchar(20) primary key`, ["a", "A"]],
    ["date", "id date primary key", ["2026-02-28", "2026-03-01"]],
    ["unique, not null", "id integer not null unique", ["1", "2"]],
  ])("with a key that is %s", async (name, column, keys) => {
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

  test("with a key of several columns", async () => {
    await owner`create table pages (site text, number integer, primary key (site, number))`;
    expect(await call(owner, "attach_pool", { source: "pages" })).toEqual({ pool: "pages", key: ["site", "number"] });
    await owner`insert into pages values ('a', 1), ('a', 2), ('a,1', 1)`;
    expect(await keysOf("pages")).toEqual(['["a", 1]', '["a", 2]', '["a,1", 1]']);
    await owner`delete from pages where number = 1`;
    expect(await keysOf("pages")).toEqual(['["a", 2]']);
  });

  test("with a time in its key, whatever the time zone of who writes", async () => {
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

  test("a uuid key is the item's id, so a worker claims rows by their own ids", async () => {
    await owner`create table docs (id uuid primary key default gen_random_uuid(), body text)`;
    await call(owner, "attach_pool", { source: "docs" });
    const [row] = await owner`insert into docs (body) values ('x') returning id`;
    const args = { item_ids: [row?.id], work_type: "read docs", worker_id: "a" };
    expect(await call(sql, "claim_items", args)).toMatchObject([{ item_id: row?.id }]);
  });

  test("two tables with the same uuid are two pools with an item each", async () => {
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

  test("in another schema, under its full name or one of one's own", async () => {
    await owner`create schema shop`;
    await owner`create table shop.orders (id integer primary key)`;
    expect(await call(owner, "attach_pool", { source: "shop.orders" })).toMatchObject({ pool: "shop.orders" });
    await owner`create table shop.lines (id integer primary key)`;
    expect(await call(owner, "attach_pool", { source: "shop.lines", pool: "lines" })).toMatchObject({ pool: "lines" });
  });

  test("the columns that are named feed payload, priority and time", async () => {
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
    expect((await next(sql, "send", "a", 9)).map((claim) => claim.source_key)).toEqual(["2", "1", "4"]);
    await owner`update mails set send_at = '2020-01-01' where id = 3`;
    expect((await next(sql, "send", "a", 9)).map((claim) => claim.source_key)).toEqual(["3"]);
  });

  test("with columns that are called what they like", async () => {
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

  test("a table without a key is refused", async () => {
    await owner`create table keyless (id integer)`;
    await owner`create unique index on keyless (id)`;
    await expect(call(owner, "attach_pool", { source: "keyless" })).rejects.toMatchObject({
      code: "PT400",
      message: expect.stringContaining("source is public.keyless; a table with a primary key was expected"),
    });
  });
});

describe("rows are followed", () => {
  beforeAll(async () => {
    await owner`create table notes (id integer primary key, body text)`;
    await call(owner, "attach_pool", { source: "notes" });
    await call(owner, "define_work_type", { work_type: "file", pool: "notes" });
  });

  test("through an upsert", async () => {
    await owner`insert into notes values (1, 'one'), (2, 'two')`;
    await owner`insert into notes values (2, 'TWO'), (3, 'three') on conflict (id) do update set body = excluded.body`;
    expect((await itemsOf("notes")).map((item) => item.payload)).toEqual([
      { id: 1, body: "one" },
      { id: 2, body: "TWO" },
      { id: 3, body: "three" },
    ]);
  });

  test("an unchanged row keeps its item, its claims and their state", async () => {
    const [claim] = await next(sql, "file", "a");
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

  test("nothing that is rolled back leaves a trace", async () => {
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

  test("an emptied table has no items", async () => {
    await owner`truncate notes`;
    expect(await keysOf("notes")).toEqual([]);
    expect(await call(sql, "claim_next", { work_types: ["file"], worker_id: "a", max_items: 9 })).toEqual([]);
  });

  test("in bulk by COPY, all of them and in order", async () => {
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
    const claims = await next(sql, "file", "a", 3);
    expect(claims.map((claim) => claim.source_key)).toEqual(["1", "2", "3"]);
  });

  test("a hundred thousand rows at once: inserted, changed and deleted", async () => {
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

  test("rows of a pool that statistics do not know yet are found by their keys", async () => {
    const session = as("postgres");
    await session`create table newcomers (id bigint primary key)`;
    await call(session, "attach_pool", { source: "newcomers" });
    await call(session, "enqueue_items", { items: Array(500).fill({}) });
    await session`analyze work_items`;
    await session`insert into newcomers select generate_series(1, 5000)`;
    await session`begin`;
    const read = (): Promise<{ rows: number }[]> => session`
      select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as rows
        from pg_stat_xact_user_tables where relname in ('work_items', 'work_claims')`;
    const [before] = await read();
    await session`delete from newcomers where id % 50 = 1`;
    const [after] = await read();
    await session`commit`;
    expect(Number(after?.rows) - Number(before?.rows)).toBeLessThan(2000);
  });

  test("by a writer who has no rights on work-claims", async () => {
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

describe("a table that is let go", () => {
  test("is followed no longer, and can be attached again", async () => {
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

  test("a table that was dropped leaves items that can still be worked and the pool let go", async () => {
    await owner`create table gone (id integer primary key)`;
    await call(owner, "attach_pool", { source: "gone" });
    await call(owner, "define_work_type", { work_type: "remember", pool: "gone" });
    await owner`insert into gone values (1)`;
    await owner`drop table gone`;
    expect(await next(sql, "remember", "a")).toMatchObject([{ source_key: "1" }]);
    expect(await call(owner, "detach_pool", { pool: "gone" })).toBe(true);
  });
});

function release(claim: Claim | undefined): Record<string, unknown> {
  return { item_id: claim?.item_id, work_type: claim?.work_type, fence: claim?.fence, worker_id: "a" };
}
