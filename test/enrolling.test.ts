import { afterAll, expect, test } from "vitest";
import { type Claim, call, claimNext, someoneWaits } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, owner, admin, as } = await openDatabase();
afterAll(() => expectInvariants(sql));

interface Step {
  mirrored: number;
  enrolled: number;
  done: boolean;
}

async function enrollAll(connection: Sql, pool: string, max_items: number): Promise<Step[]> {
  const steps: Step[] = [];
  for (;;) {
    const step = await call<Step>(connection, "enroll_pool", { pool, max_items });
    steps.push(step);
    if (step.done) {
      return steps;
    }
  }
}

/** The differences between a table, its items and its claims. */
async function missing(table: string, type: string): Promise<unknown[]> {
  const rows = await sql.unsafe(`
    select t.id as row, i.source_key as item, c.status as claim
      from (select id::text from ${table}) t
      full join (select * from work_items where pool = '${table}') i on i.source_key = t.id
      left join work_claims c on c.item_id = i.id and c.work_type = '${type}'
     where t.id is null or i.id is null or c.item_id is null`);
  return [...rows];
}

test("enroll_pool() enrols at most max_items rows a call", async () => {
  await owner`create table past (id bigint primary key, body text)`;
  await owner`insert into past select g, 'x' from generate_series(-500, 501) g`;
  await owner`grant select on past to service_role`;
  await call(owner, "define_work_type", { work_type: "catch up" });
  await call(owner, "attach_pool", { source: "past" });
  await call(owner, "define_work_type", { work_type: "catch up", pool: "past" });
  const steps = await enrollAll(owner, "past", 100);
  expect(steps.every((step) => step.mirrored <= 100 && step.enrolled <= 100)).toBe(true);
  expect(steps.reduce((sum, step) => sum + step.mirrored, 0)).toBe(1002);
  expect(await missing("past", "catch up")).toEqual([]);
  expect(await enrollAll(owner, "past", 100)).toEqual([{ mirrored: 0, enrolled: 0, done: true }]);
});

test.each([
  { key: "citext", values: ["a", "B", "c", "D", "e"] },
  { key: "numeric(10, 2)", values: ["1.50", "10.00", "2.00", "-3.00"] },
  { key: "timestamp", values: ["2026-01-01T10:00:00.123456", "2027-01-01T00:00:00", "1999-12-31T23:59:59"] },
  { key: "double precision", values: ["0.1", "-Infinity", "NaN"] },
])("enroll_pool() enrols all rows with a key of type $key, one a call", async ({ key, values }) => {
  await admin`create extension if not exists citext`;
  const table = `keyed ${key}`;
  await owner.unsafe(`create table "${table}" (id ${key} primary key)`);
  await owner.unsafe(`insert into "${table}" values ${values.map((value) => `('${value}')`).join(", ")}`);
  await call(owner, "attach_pool", { source: `"${table}"` });
  await enrollAll(owner, table, 1);
  const items = await sql`select source_key from work_items where pool = ${table}`;
  expect(items.map((item) => item.source_key).sort()).toEqual([...values].sort());
});

test("rows that are written between two calls of enroll_pool() have one item each", async () => {
  await owner`create table moving (id integer primary key, n integer default 0)`;
  await owner`insert into moving select g from generate_series(1, 300) g`;
  await owner`grant select on moving to service_role`;
  await call(owner, "attach_pool", { source: "moving" });
  await call(owner, "define_work_type", { work_type: "move", pool: "moving" });
  for (let id = 1; ; id += 1) {
    const step = await call<Step>(owner, "enroll_pool", { pool: "moving", max_items: 7 });
    await owner`insert into moving values (${-id}), (${1000 + id})`;
    await owner`update moving set n = n + 1 where id % 5 = 0`;
    await owner`delete from moving where id in (${id * 6}, ${300 - id})`;
    await owner`update moving set id = id + 5000 where id = ${id * 9 + 1}`;
    if (step.done) {
      break;
    }
  }
  expect(await missing("moving", "move")).toEqual([]);
  const wrong = await owner`
    select m.id from moving m join work_items i on i.pool = 'moving' and i.source_key = m.id::text
     where i.payload <> to_jsonb(m)`;
  expect(wrong).toEqual([]);
});

test("rows that are written while enroll_pool() runs have one item each", async () => {
  await owner`create table busy (id integer primary key, n integer default 0)`;
  await owner`insert into busy select g from generate_series(1, 3000) g`;
  await owner`grant select on busy to service_role`;
  await call(owner, "attach_pool", { source: "busy" });
  await call(owner, "define_work_type", { work_type: "buzz", pool: "busy" });
  let isDone = false;
  const writers = [1, 2, 3].map(async (writer) => {
    const connection = as("postgres");
    for (let turn = 0; !isDone; turn += 1) {
      const id = (turn * 37 * writer) % 3000;
      await connection`delete from busy where id = ${id}`;
      await connection`insert into busy values (${10000 + turn * 3 + writer})`;
      await connection`update busy set n = n + 1 where id between ${id + 1} and ${id + 20}`.catch(
        refuseAllBut("40P01"),
      );
    }
  });
  const steps = await enrollAll(as("postgres"), "busy", 50).finally(() => {
    isDone = true;
  });
  await Promise.all(writers);
  expect(steps.length).toBeGreaterThan(50);
  expect(await missing("busy", "buzz")).toEqual([]);
});

test("a work type that is declared during an insert gets all of its items", async () => {
  await owner`create table slow (id integer primary key)`;
  await owner`grant select on slow to service_role`;
  await call(owner, "attach_pool", { source: "slow" });
  const writer = as("postgres");
  await writer`begin`;
  await writer`insert into slow select g from generate_series(1, 100) g`;
  const declared = call(sql, "define_work_type", { work_type: "wait", pool: "slow" });
  const another = declared.then(() => owner`insert into slow select g from generate_series(201, 205) g`);
  const enrolled = another.then(() => enrollAll(owner, "slow", 1000));
  await Promise.race([enrolled, someoneWaits(admin)]);
  await writer`insert into slow values (101)`;
  await writer`commit`;
  await enrolled;
  expect(await missing("slow", "wait")).toEqual([]);
});

test("past rows are claimed in the order of their keys, then new rows as they came", async () => {
  await owner`create table queue (id integer primary key)`;
  await owner`insert into queue values (3), (1), (2)`;
  await owner`grant select on queue to service_role`;
  await call(owner, "attach_pool", { source: "queue" });
  await call(owner, "define_work_type", { work_type: "serve", pool: "queue" });
  await enrollAll(owner, "queue", 2);
  await owner`insert into queue values (0)`;
  const claims = await claimNext(sql, "serve", "a", 9);
  expect(claims.map((claim) => claim.source_key)).toEqual(["1", "2", "3", "0"]);
});

test("a second work type for a pool gets past and new items", async () => {
  await owner`create table shared (id integer primary key)`;
  await owner`grant select on shared to service_role`;
  await call(owner, "attach_pool", { source: "shared" });
  await owner`insert into shared select g from generate_series(1, 25) g`;
  await call(owner, "define_work_type", { work_type: "first", pool: "shared" });
  await enrollAll(owner, "shared", 10);
  await call(owner, "define_work_type", { work_type: "second", pool: "shared" });
  await owner`insert into shared values (26)`;
  await enrollAll(owner, "shared", 10);
  expect(await missing("shared", "first")).toEqual([]);
  expect(await missing("shared", "second")).toEqual([]);
});

function refuseAllBut(code: string): (error: unknown) => void {
  return (error) => {
    if ((error as { code?: string }).code !== code) {
      throw error;
    }
  };
}

test("a claim of rows that are deleted and inserted again does not wait for the insert", async () => {
  const [writer, claimer, holder, gate] = [as("postgres"), sql, as("postgres"), as("postgres")];
  const id = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
  await owner`create table returning_rows (id uuid primary key)`;
  await call(owner, "attach_pool", { source: "returning_rows" });
  await call(owner, "define_work_type", { work_type: "again", pool: "returning_rows" });
  await owner`insert into returning_rows values (${id(1)}), (${id(2)}), (${id(3)}), (${id(9)})`;
  // The second insert stops before its last claim.
  await admin.unsafe(`
    create function pause() returns trigger language plpgsql as
      $$ begin perform pg_advisory_xact_lock(77); return new; end $$;
    create trigger pause before insert on work_claims for each row when (new.item_id = '${id(9)}') execute function pause()`);
  await holder`begin`;
  await holder`select from work_claims where item_id = ${id(1)} for update`;
  await gate`begin`;
  await gate`select pg_advisory_xact_lock(77)`;
  await owner`delete from returning_rows where id in (${id(2)}, ${id(3)}, ${id(9)})`;
  const inserted = writer`insert into returning_rows values (${id(3)}), (${id(9)}), (${id(2)})`.execute();
  await someoneWaits(owner);
  const claimed = call<Claim[]>(claimer, "claim_items", {
    item_ids: [id(1), id(2), id(3)],
    work_type: "again",
    worker_id: "w",
  });
  await someoneWaits(owner, 2);
  await holder`commit`;
  expect((await claimed).map((claim) => claim.item_id)).toEqual([id(1)]);
  await gate`commit`;
  await inserted;
  await admin.unsafe("drop trigger pause on work_claims; drop function pause()");
  expect(await sql`select from work_claims where work_type = 'again'`).toHaveLength(4);
});
