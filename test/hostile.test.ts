import { expect, test } from "vitest";
import { call, claimNext, someoneWaits } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";

const { sql, owner, as } = await openDatabase();

interface Step {
  done: boolean;
}

async function attach(table: string, type: string, args: Record<string, unknown> = {}): Promise<void> {
  await call(owner, "attach_pool", { source: table, ...args });
  await call(owner, "define_work_type", { work_type: type, pool: table });
  while (!(await call<Step>(owner, "enroll_pool", { pool: table })).done) {}
}

const payloads = (pool: string): Promise<{ payload: unknown }[]> =>
  owner`select payload from work_items where pool = ${pool} order by seq`;

test("a writer to an attached table runs no code as its owner, through no type of its own", async () => {
  await owner`create table trap (id uuid primary key default gen_random_uuid(), rank integer default 0)`;
  await owner`grant select, insert, update, delete on trap to stranger`;
  await attach("trap", "spring", { priority_column: "rank" });
  const stranger = as("stranger");
  await stranger.unsafe(`
    create function pg_temp.evil(x anyelement) returns boolean language plpgsql as
      $$ begin perform set_config('evil.ran_as', current_user::text, false); return true; end $$;
    create domain pg_temp.uuid as pg_catalog.uuid check (pg_temp.evil(value));
    create domain pg_temp.text as pg_catalog.text check (pg_temp.evil(value));
    create domain pg_temp.jsonb as pg_catalog.jsonb check (pg_temp.evil(value));
    create domain pg_temp.timestamptz as pg_catalog.timestamptz check (pg_temp.evil(value));
    create domain pg_temp.integer as pg_catalog.int4 check (pg_temp.evil(value));
    create domain pg_temp.numeric as pg_catalog.numeric check (pg_temp.evil(value))`);
  await stranger`insert into trap default values`;
  await stranger`update trap set rank = 5`;
  await stranger`delete from trap`;
  const [ran] = await stranger`select current_setting('evil.ran_as', true) as as`;
  expect(ran?.as ?? "").toBe("");
});

test("enroll_pool() does not read a table that took the place of another", async () => {
  await owner`create table decoy (id integer primary key)`;
  await owner`create table private (id integer primary key, secret text)`;
  await owner`insert into private values (1, 'hidden')`;
  await attach("decoy", "peek");
  await sql`update work_pools set source = 'private'::regclass, is_mirrored = false where name = 'decoy'`;
  await expect(call(owner, "enroll_pool", { pool: "decoy" })).rejects.toMatchObject({ code: "PT409" });
  expect(await payloads("decoy")).toEqual([]);
});

test("a row that changes during its enrolment is enrolled with its last values", async () => {
  await owner`create table moving (id integer primary key, body text)`;
  await owner`insert into moving values (1, 'old')`;
  await call(owner, "attach_pool", { source: "moving" });
  const writer = as("postgres");
  let enrolling: Promise<unknown> = Promise.resolve();
  await writer.begin(async (transaction) => {
    await transaction`update moving set body = 'new' where id = 1`;
    enrolling = call(as("postgres"), "enroll_pool", { pool: "moving" });
    await someoneWaits(owner, 1);
  });
  await enrolling;
  expect(await payloads("moving")).toEqual([{ payload: { id: 1, body: "new" } }]);
});

test("an item that gets a priority during its enrolment keeps it", async () => {
  const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ run_after: "2099-01-01T00:00:00Z" }] });
  await call(sql, "define_work_type", { work_type: "forward", pool: "default" });
  const writer = as("postgres");
  let enrolling: Promise<unknown> = Promise.resolve();
  await writer.begin(async (transaction) => {
    await transaction`update work_items set run_after = null, priority = 7 where id = ${id as string}`;
    enrolling = call(as("postgres"), "enroll_pool", { pool: "default" });
    await someoneWaits(owner, 1);
  });
  await enrolling;
  expect(await owner`select status, priority from work_claims where work_type = 'forward'`).toEqual([
    { status: "ready", priority: 7 },
  ]);
});

test("a work type with claims keeps its name and its row", async () => {
  await call(sql, "define_work_type", { work_type: "kept", pool: "default" });
  await call(sql, "enqueue_items", { items: [{}] });
  await expect(owner`update work_types set name = 'other' where name = 'kept'`).rejects.toMatchObject({
    code: "PT409",
  });
  await expect(owner`delete from work_types where name = 'kept'`).rejects.toMatchObject({ code: "PT409" });
});

test("a claim without its work type is taken back and closed", async () => {
  const [id] = await call<string[]>(sql, "enqueue_items", { items: [{}] });
  const claim = { item_ids: [id], work_type: "orphan", worker_id: "w" };
  await call(sql, "claim_items", claim);
  await owner`alter table work_types disable trigger keep_used_type`;
  await owner`delete from work_types where name = 'orphan'`;
  await owner`alter table work_types enable trigger keep_used_type`;
  await owner`update work_claims set expires_at = clock_timestamp() - interval '1 s' where work_type = 'orphan'`;
  expect(await call(sql, "reap_expired_claims")).toBe(1);
  expect(await call(sql, "claim_items", claim)).toHaveLength(1);
});

test("a renamed key column is followed", async () => {
  await owner`create table renamed (id integer primary key, body text)`;
  await attach("renamed", "follow");
  await owner`insert into renamed values (1, 'a')`;
  await owner`alter table renamed rename column id to number`;
  await owner`update renamed set body = 'b'`;
  await owner`insert into renamed values (2, 'c')`;
  expect(await payloads("renamed")).toEqual([
    { payload: { number: 1, body: "b" } },
    { payload: { number: 2, body: "c" } },
  ]);
  await owner`delete from renamed`;
  expect(await payloads("renamed")).toEqual([]);
});

test("a column outside the payload cannot stop a write", async () => {
  await owner`create table odd (id integer primary key, body text, odd json, rank money)`;
  await attach("odd", "even", { payload_columns: ["body"] });
  await owner`insert into odd values (1, 'a', '{"nul": "\\u0000", "huge": 1e200000}', 3)`;
  await owner`update odd set body = 'b'`;
  expect(await payloads("odd")).toEqual([{ payload: { body: "b" } }]);
  await expect(call(owner, "attach_pool", { source: "odd", priority_column: "rank" })).rejects.toMatchObject({
    code: "PT400",
  });
});

test("attaching again keeps the columns that are not named", async () => {
  await owner`create table twice (id integer primary key, body text, rank integer)`;
  await attach("twice", "again", { payload_columns: ["body"], priority_column: "rank" });
  await call(owner, "attach_pool", { source: "twice" });
  expect(await owner`select payload_columns, priority_column from work_pools where name = 'twice'`).toEqual([
    { payload_columns: ["body"], priority_column: "rank" },
  ]);
  await call(owner, "attach_pool", { source: "twice", payload_columns: [] });
  expect(await owner`select payload_columns from work_pools where name = 'twice'`).toEqual([{ payload_columns: null }]);
});

test("partitions, arrays and bytes as keys are refused with a sentence", async () => {
  await owner`create table parts (id integer primary key) partition by list (id)`;
  await owner`create table part_one partition of parts for values in (1)`;
  await owner`create table arrays (id text[] primary key)`;
  await owner`create table bytes (id bytea primary key)`;
  for (const source of ["part_one", "arrays", "bytes"]) {
    await expect(call(owner, "attach_pool", { source })).rejects.toMatchObject({ code: "PT400" });
  }
});

test("a table that is dropped and created again can be attached again", async () => {
  await owner`create table phoenix (id integer primary key)`;
  await attach("phoenix", "rise");
  await owner`drop table phoenix`;
  await owner`create table phoenix (id integer primary key)`;
  await owner`insert into phoenix values (1)`;
  await attach("phoenix", "rise");
  expect(await payloads("phoenix")).toHaveLength(1);
});

test("a worker's heartbeat and its releases do not deadlock", async () => {
  await call(sql, "register_worker", { worker_id: "beating", instance: crypto.randomUUID() });
  const [one, two] = await call<string[]>(sql, "enqueue_items", { items: [{}, {}] });
  const claims = await call<{ item_id: string; fence: number }[]>(sql, "claim_items", {
    ...{ item_ids: [one, two], work_type: "beat", worker_id: "beating" },
  });
  const [first, second] = claims.sort((a, b) => (a.item_id < b.item_id ? -1 : 1));
  await owner`update work_workers set last_seen_at = clock_timestamp() - interval '10 s' where id = 'beating'`;
  const running: Promise<unknown>[] = [];
  await as("postgres").begin(async (transaction) => {
    await transaction`select from work_claims where item_id = ${second?.item_id as string} for update`;
    const outcomes = [first, second].map((claim) => ({ ...claim, outcome: "succeeded" }));
    const finish = { worker_id: "beating", outcomes, work_types: ["beat"] };
    running.push(call(as("service_role"), "finish_and_claim", finish));
    await someoneWaits(owner, 1);
    running.push(call(as("service_role"), "extend_claims", { worker_id: "beating", held: [first] }));
    await someoneWaits(owner, 2);
  });
  await expect(Promise.all(running)).resolves.toHaveLength(2);
});

test("an item that is postponed while it is claimed waits after its return", async () => {
  await call(sql, "define_work_type", { work_type: "put off", pool: "default" });
  const [id] = await call<string[]>(sql, "enqueue_items", { items: [{}] });
  const [claim] = await claimNext(sql, "put off", "w");
  await owner`update work_items set run_after = '2099-01-01' where id = ${id as string}`;
  await call(sql, "release_items", { worker_id: "w", outcomes: [{ ...claim, outcome: "released" }] });
  expect(await owner`select status from work_claims where item_id = ${id as string} and work_type = 'put off'`).toEqual(
    [{ status: "waiting" }],
  );
});

test("claim_items takes back its own items first, before other expired ones", async () => {
  await call(sql, "define_work_type", { work_type: "many", pool: "default", max_crashes: 1000 });
  for (let page = 0; page < 2; page += 1) {
    await call(sql, "enqueue_items", { items: Array.from({ length: 600 }, () => ({})) });
  }
  await claimNext(sql, "many", "gone", 1000);
  await claimNext(sql, "many", "gone", 1000);
  const lapsed = await owner`
    update work_claims set expires_at = clock_timestamp() - interval '1 h' + position * interval '1 ms'
     where work_type = 'many' returning item_id, expires_at`;
  const newest = [...lapsed]
    .sort((a, b) => b.expires_at - a.expires_at)
    .slice(0, 100)
    .map((row) => row.item_id);
  expect(await call(sql, "claim_items", { item_ids: newest, work_type: "many", worker_id: "w" })).toHaveLength(100);
});

test("a deletion locks the claims of an item in the order of keys, as a release does", async () => {
  const { sql, as } = await openDatabase();
  await call(sql, "define_work_type", { work_type: "a", pool: "default" });
  await call(sql, "define_work_type", { work_type: "b", pool: "default" });
  const [id] = await call<string[]>(sql, "enqueue_items", { items: [{}] });
  // The first by key is the last in the table.
  await sql`update work_claims set progress = 0 where work_type = 'a'`;
  const deleter = as("service_role");
  await deleter`set enable_indexscan = off`;
  await deleter`set enable_bitmapscan = off`;
  let deletion: Promise<unknown> = Promise.resolve();
  await as("service_role").begin(async (worker) => {
    await worker`select from work_claims where item_id = ${id as string} and work_type = 'a' for no key update`;
    deletion = deleter`delete from work_items where id = ${id as string}`.execute();
    await someoneWaits(sql);
    await worker`select from work_claims where item_id = ${id as string} and work_type = 'b' for no key update`;
  });
  await deletion;
  expect(await sql`select from work_claims`).toEqual([]);
});
