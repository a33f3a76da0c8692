import { describe, expect, test } from "vitest";
import { type Claim, call, claimNext, endLeases, release, stored } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, owner, admin } = await openDatabase();
let tables = 0;

/** A table of this definition, attached as a pool, and a work type of it. The rows are inserted as they are given. */
async function attached(
  columns: string,
  rules: (table: string) => Record<string, unknown>,
  { name, schema = "public" }: { name?: string; schema?: string } = {},
): Promise<{ table: string; pool: string; type: string }> {
  tables += 1;
  const plain = name ?? `documents_${tables}`;
  const table = `"${schema}"."${plain}"`;
  await owner.unsafe(`create schema if not exists "${schema}"`);
  await owner.unsafe(`create table ${table} (${columns})`);
  const [{ pool }] = await owner<[{ pool: string }]>`select public.attach_pool(${table}::regclass) ->> 'pool' as pool`;
  const type = `type ${tables}`;
  await call(sql, "define_work_type", { work_type: type, pool, ...rules(plain) });
  return { table, pool, type };
}

/** Claims one item of the type and lets it succeed. */
async function run(type: string, result: unknown): Promise<string | undefined> {
  const [claim] = await claimNext(sql, type, "w");
  return release(sql, "w", claim, "succeeded", { result });
}

describe("into_column", () => {
  test.each([
    ["id uuid primary key, result real[]", "gen_random_uuid()", [0.5, 1], [0.5, 1]],
    ["id bigint primary key, result jsonb", "7", { a: [1] }, { a: [1] }],
    ["id text primary key, result text", "'it''s [\"a\", 1]'", "héllo", "héllo"],
    ["id numeric(10, 2) primary key, result numeric", "1.50", 0.1, "0.1"],
    ["id timestamptz primary key, result boolean", "'2026-01-01 12:00:00.123456+05'", true, true],
    [
      "id date primary key, result timestamptz",
      "'2026-01-01'",
      "2026-01-02T00:00:00Z",
      new Date("2026-01-02T00:00:00Z"),
    ],
    [
      "id char(5) primary key, result int[][]",
      "'a'",
      [
        [1, 2],
        [3, 4],
      ],
      [
        [1, 2],
        [3, 4],
      ],
    ],
    ["id int primary key, result text not null default ''", "1", { is: "json" }, '{"is": "json"}'],
    ["id varchar(20) primary key, result jsonb", "'a\\b'", null, null],
  ])("writes each result as the column's type reads it: %s", async (columns, key, result, expected) => {
    const { table, type } = await attached(columns, (name) => ({ into_column: `${name}.result` }));
    await owner.unsafe(`insert into ${table} (id) values (${key})`);
    expect(await run(type, result)).toBe("succeeded");
    const [row] = await owner.unsafe(`select result from ${table}`);
    expect(row?.result).toEqual(expected);
    expect(await claimNext(sql, type, "w")).toEqual([]);
  });

  test("finds rows by a composite key, in another schema, with names in quotes", async () => {
    const columns = `"The Key" text, other int, body text, "Its ""Result""" text, primary key ("The Key", other)`;
    const { table, type } = await attached(columns, (name) => ({ into_column: `${name}.Its "Result"` }), {
      name: "My. Docs",
      schema: "Their Own",
    });
    await owner.unsafe(`insert into ${table} ("The Key", other) values ('a', 1), ('a', 2), ('b"', 1)`);
    const claims = await claimNext(sql, type, "w", 3);
    const outcomes = claims.map((claim) => ({ ...claim, outcome: "succeeded", result: claim.source_key }));
    expect(await call(sql, "release_items", { worker_id: "w", outcomes })).toEqual(Array(3).fill("succeeded"));
    const rows = await owner.unsafe(
      `select "The Key" as key, other, "Its ""Result""" as result from ${table} order by 1, 2`,
    );
    expect(rows.map((row) => [row.result && JSON.parse(row.result), [row.key, String(row.other)]])).toEqual(
      rows.map((row) => [
        [row.key, row.other],
        [row.key, String(row.other)],
      ]),
    );
    const quoted = `"Their Own"."My. Docs"."Its ""Result"""`;
    await call(sql, "define_work_type", { work_type: type, into_column: quoted });
  });

  test("finds the partition that a row is in", async () => {
    const { table, type } = await attached("id int primary key, result text) partition by range (id", (name) => ({
      into_column: `${name}.result`,
    }));
    await owner.unsafe(`create table public.part_one partition of ${table} for values from (0) to (10)`);
    await owner.unsafe(`create table public.part_two partition of ${table} for values from (10) to (20)`);
    await owner.unsafe(`insert into ${table} (id) values (5), (15)`);
    await run(type, "one");
    await run(type, "two");
    expect(await owner.unsafe(`select result from ${table} order by id`)).toEqual([
      { result: "one" },
      { result: "two" },
    ]);
  });

  test("fills a column of type vector where pgvector is there, and one of a domain else", async () => {
    const [vector] = await admin`select from pg_available_extensions where name = 'vector'`;
    console.log(vector ? "pgvector is there" : "pgvector is not there: a domain stands for its type");
    await owner.unsafe(
      vector
        ? "create extension vector with schema extensions"
        : "create domain extensions.vector as real[] not null default '{}'",
    );
    const { table, type } = await attached("id int primary key, result extensions.vector", (name) => ({
      into_column: `${name}.result`,
    }));
    await owner.unsafe(`insert into ${table} (id) values (1)`);
    expect(await run(type, [1, 2, 3])).toBe("succeeded");
    expect(await owner.unsafe(`select result::real[] from ${table}`)).toEqual([{ result: [1, 2, 3] }]);
  });

  test("a result that the column does not take is refused, and the claim is still held", async () => {
    const { table, type } = await attached("id int primary key, result varchar(3)", (name) => ({
      into_column: `${name}.result`,
    }));
    await owner.unsafe(`insert into ${table} (id) values (1)`);
    const [claim] = await claimNext(sql, type, "w");
    await expect(release(sql, "w", claim, "succeeded", { result: "long" })).rejects.toMatchObject({
      code: "PT422",
      message: "the result was not applied: value too long for type character varying(3)",
    });
    expect(await release(sql, "w", claim, "succeeded", { result: "abc" })).toBe("succeeded");
  });

  test("writing a result sets off work types that read its column, and not its own", async () => {
    const { table, pool, type } = await attached("id int primary key, body text, result text, label text", (name) => ({
      into_column: `${name}.result`,
      on_change: "again",
    }));
    await call(sql, "define_work_type", {
      work_type: "label",
      pool,
      input_columns: ["result"],
      into_column: `${table.slice(10, -1)}.label`,
    });
    await owner.unsafe(`insert into ${table} (id, body) values (1, 'a')`);
    expect(await run("label", "of nothing")).toBe("succeeded");
    expect(await run(type, "A")).toBe("succeeded");
    expect(await claimNext(sql, type, "w")).toEqual([]);
    const [claim] = await claimNext(sql, "label", "w");
    expect(claim?.payload).toMatchObject({ result: "A" });
    expect(await release(sql, "w", claim, "succeeded", { result: "of A" })).toBe("succeeded");
    expect(await claimNext(sql, type, "w")).toEqual([]);
    await owner.unsafe(`update ${table} set body = 'b'`);
    expect(await run(type, "A")).toBe("succeeded");
    // The same result again is no change.
    expect(await claimNext(sql, "label", "w")).toEqual([]);
    await expectInvariants(sql);
  });

  test("a result of an input that changed meanwhile is not written", async () => {
    const { table, type } = await attached("id int primary key, body text, result text", (name) => ({
      into_column: `${name}.result`,
      on_change: "again",
    }));
    await owner.unsafe(`insert into ${table} (id, body) values (1, 'a')`);
    const [claim] = await claimNext(sql, type, "w");
    await owner.unsafe(`update ${table} set body = 'b'`);
    expect(await release(sql, "w", claim, "succeeded", { result: "of a" })).toBe("ready");
    expect(await owner.unsafe(`select result from ${table}`)).toEqual([{ result: null }]);
    expect(await run(type, "of b")).toBe("succeeded");
    expect(await owner.unsafe(`select result from ${table}`)).toEqual([{ result: "of b" }]);
  });

  test("triggers of the table find tables by their plain names", async () => {
    const { table, type } = await attached("id int primary key, result text", (name) => ({
      into_column: `${name}.result`,
    }));
    await owner.unsafe(`
      create table public.noted (result text);
      create function public.note_result() returns trigger language plpgsql as
        $$ begin insert into noted values (new.result); return new; end $$;
      create trigger note_result before update on ${table} for each row execute function public.note_result();
      insert into ${table} (id) values (1);`);
    expect(await run(type, "a")).toBe("succeeded");
    expect(await owner`select * from noted`).toEqual([{ result: "a" }]);
  });

  test("a column that is dropped, or a table, is named, and the claim is still held", async () => {
    const { table, pool, type } = await attached("id int primary key, body text, result text", (name) => ({
      into_column: `${name}.result`,
    }));
    await owner.unsafe(`insert into ${table} (id) values (1), (2)`);
    const claims = await claimNext(sql, type, "w", 2);
    await owner.unsafe(`alter table ${table} drop column result`);
    const refused = { code: "PT422", message: expect.stringContaining(`pool ${pool} has no table with the column`) };
    await expect(release(sql, "w", claims[0], "succeeded", { result: 1 })).rejects.toMatchObject(refused);
    // Its other rules may still be changed.
    await call(sql, "define_work_type", { work_type: type, lease_seconds: 30 });
    await owner.unsafe(`drop table ${table}`);
    await expect(release(sql, "w", claims[0], "succeeded", { result: 1 })).rejects.toMatchObject(refused);
    expect(await release(sql, "w", claims[0], "failed", { error: "no table" })).toBe("waiting");
    await call(sql, "define_work_type", { work_type: type, into_column: "" });
    expect(await release(sql, "w", claims[1], "succeeded", { result: 1 })).toBe("succeeded");
  });

  test.each([
    ["another.result", "a column of the table"],
    ["result", "a column of the table"],
    ["TABLE.none", "a column of the table"],
    ["TABLE.id", "it is a key or an input"],
    ["TABLE.body", "it is a key or an input"],
    ["TABLE.made", "Postgres makes its values"],
    ["TABLE.numbered", "Postgres makes its values"],
  ])("refuses %s", async (into, why) => {
    const columns = `id int primary key, body text, made text generated always as (body) stored,
      numbered int generated always as identity, result text`;
    const { pool, table } = await attached(columns, () => ({}));
    const into_column = into.replace("TABLE", table.slice(10, -1));
    const wanted = { work_type: `refused ${tables}`, pool, input_columns: ["body"], into_column };
    await expect(call(sql, "define_work_type", wanted)).rejects.toThrow(why);
    const unattached = { work_type: `refused ${tables}`, pool: "default", into_column };
    await expect(call(sql, "define_work_type", unattached)).rejects.toThrow("its pool is attached to none");
  });
});

describe("apply", () => {
  let functions = 0;
  /** A work type whose results go to a function with this body, in the default pool; one item of it is ready. */
  async function applied(body: string, more = ""): Promise<{ type: string; name: string; id: string | undefined }> {
    functions += 1;
    const name = `public."Apply ${functions}"`;
    await owner.unsafe(
      `create function ${name}(item jsonb, result jsonb) returns void language plpgsql ${more} as $$ begin ${body} end $$;
       grant execute on function ${name} to service_role`,
    );
    const pool = `apply ${functions}`;
    await sql`insert into public.work_pools (name) values (${pool})`;
    await call(sql, "define_work_type", { work_type: pool, pool, apply: name });
    const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ pool, payload: { a: 1 } }] });
    return { type: pool, name, id };
  }

  test("the function gets the item and the result, finds tables by plain names, and its effect comes once", async () => {
    await owner.unsafe(
      "create table public.effects (item jsonb, result jsonb); grant all on public.effects to service_role",
    );
    const { type, id } = await applied("insert into effects values (item, result);");
    const [claim] = await claimNext(sql, type, "w");
    const outcome = { ...claim, outcome: "succeeded", result: { b: 2 } };
    // Twice in one call, and sent again.
    const release_items = (): Promise<unknown> =>
      call(sql, "release_items", { worker_id: "w", outcomes: [outcome, outcome] });
    expect(await release_items()).toEqual(["succeeded", "succeeded"]);
    expect(await release_items()).toEqual(["succeeded", "succeeded"]);
    expect(await release(sql, "another", claim, "succeeded")).toBe("lost");
    expect(await sql`select * from public.effects`).toEqual([
      {
        item: { id, work_type: type, fence: claim?.fence, pool: type, source_key: null, payload: { a: 1 } },
        result: { b: 2 },
      },
    ]);
  });

  test("a function that raises stops the release with its sentence, and the batch can be released without it", async () => {
    const { type, id } = await applied(
      `if result ->> 'bad' is not null then raise exception 'bad is %', result ->> 'bad'; end if;`,
    );
    await call(sql, "enqueue_items", { items: [{ pool: type }] });
    const claims = await claimNext(sql, type, "w", 2);
    const outcomes = claims.map((claim) => ({
      ...claim,
      outcome: "succeeded",
      result: claim.item_id === id ? { bad: 1 } : {},
    }));
    await expect(call(sql, "release_items", { worker_id: "w", outcomes })).rejects.toMatchObject({
      code: "PT422",
      message: "the result was not applied: bad is 1",
    });
    expect((await stored(sql, id, type)).status).toBe("claimed");
    const good = claims.find((claim) => claim.item_id !== id);
    expect(await release(sql, "w", good, "succeeded")).toBe("succeeded");
    await expectInvariants(sql);
  });

  test("a raised serialization failure is refused, since PostgREST would repeat it for ever", async () => {
    const { type } = await applied("raise exception 'conflict' using errcode = '40001';");
    const [claim] = await claimNext(sql, type, "w");
    await expect(release(sql, "w", claim, "succeeded")).rejects.toMatchObject({ code: "PT422" });
  });

  test("an error that passes is told as it is, so that the caller repeats the call", async () => {
    const { type } = await applied("perform pg_sleep(10);");
    const [claim] = await claimNext(sql, type, "w");
    await sql
      .begin(async (transaction) => {
        await transaction`set local statement_timeout = '50ms'`;
        await expect(release(transaction as never, "w", claim, "succeeded")).rejects.toMatchObject({ code: "57014" });
      })
      .catch(() => {});
    expect((await stored(sql, claim?.item_id, type)).status).toBe("claimed");
  });

  test("a function that is dropped is named, and its work type can take another one", async () => {
    const { type, name } = await applied("null;");
    const [claim] = await claimNext(sql, type, "w");
    await owner.unsafe(`drop function ${name}(jsonb, jsonb)`);
    await expect(release(sql, "w", claim, "succeeded")).rejects.toThrow(`the result was not applied: apply is ${name}`);
    await call(sql, "define_work_type", { work_type: type, lease_seconds: 30 });
    await call(sql, "define_work_type", { work_type: type, apply: "" });
    expect(await release(sql, "w", claim, "succeeded")).toBe("succeeded");
  });

  test("a function that writes to work tables works: it adds items, and may even delete its own", async () => {
    const { type, id } = await applied(`
      perform public.enqueue_items(jsonb_build_array(jsonb_build_object('payload', result)));
      delete from public.work_items where id = (item ->> 'id')::uuid;`);
    expect(await run(type, { child: type })).toBe("lost");
    expect(await sql`select from public.work_items where id = ${id ?? ""}`).toHaveLength(0);
    expect(await sql`select from public.work_items where payload = ${sql.json({ child: type })}`).toHaveLength(1);
    await expectInvariants(sql);
  });

  test("a result of an input that changed meanwhile is not applied", async () => {
    await owner.unsafe(
      "create table if not exists public.inputs (input jsonb); grant all on public.inputs to service_role",
    );
    const { type, id } = await applied("insert into inputs values (item -> 'payload');");
    await call(sql, "define_work_type", { work_type: type, on_change: "again" });
    const [claim] = await claimNext(sql, type, "w");
    await sql`update public.work_items set payload = '{"a": 2}' where id = ${id ?? ""}`;
    expect(await release(sql, "w", claim, "succeeded", { items: [{ pool: type, payload: "child" }] })).toBe("ready");
    expect(await run(type, 1)).toBe("succeeded");
    expect(await sql`select * from public.inputs`).toEqual([{ input: { a: 2 } }]);
    // Its children are those of the input that is there.
    expect(await claimNext(sql, type, "w")).toEqual([]);
  });

  test.each([
    ["store", "named with its schema"],
    ["public.none", "a function (item jsonb, result jsonb) was expected"],
    ['public."unterminated', "a function (item jsonb, result jsonb) was expected"],
    ["public.f(jsonb, jsonb); drop table x", "a function (item jsonb, result jsonb) was expected"],
    ["too.many.names", "a function (item jsonb, result jsonb) was expected"],
    ["public.a_procedure", "a function (item jsonb, result jsonb) was expected"],
  ])("refuses %s", async (apply, why) => {
    await owner.unsafe("create or replace procedure public.a_procedure(jsonb, jsonb) language sql as ''");
    await expect(call(sql, "define_work_type", { work_type: "refused", apply })).rejects.toMatchObject({
      code: "PT400",
      message: expect.stringContaining(why),
    });
  });

  test("a worker whose lease has ended has no effect, once another holds the claim", async () => {
    await owner.unsafe("create table public.late (fence bigint); grant all on public.late to service_role");
    const { type } = await applied("insert into late values ((item ->> 'fence')::bigint);");
    const [first] = await claimNext(sql, type, "first");
    await endLeases(sql, type);
    const [second] = await claimNext(sql, type, "second");
    expect(await release(sql, "first", first, "succeeded")).toBe("lost");
    expect(await release(sql, "second", second, "succeeded")).toBe("succeeded");
    expect(await sql`select * from public.late`).toEqual([{ fence: String((second as Claim).fence) }]);
  });
});

test("outcomes with items or needs that are wrong are refused with what was expected", async () => {
  await call(sql, "define_work_type", { work_type: "wrong", pool: "default" });
  await call(sql, "enqueue_items", { items: [{}] });
  const [claim] = await claimNext(sql, "wrong", "w");
  const items = "items is a list of at most 1000 items to enqueue, with the outcome succeeded or snoozed";
  const needs = "needs is a list of items to wait for, with the outcome snoozed";
  for (const [outcome, more, why] of [
    ["succeeded", { items: {} }, items],
    ["succeeded", { items: Array(1001).fill({}) }, items],
    ["failed", { items: [] }, items],
    ["succeeded", { needs: [] }, needs],
    ["snoozed", { seconds: 0, needs: "a" }, needs],
    ["succeeded", { items: [{ what: 1 }] }, "items[0]: an item has pool"],
    ["snoozed", { seconds: 0, items: [{}], needs: [{ index: 1 }] }, "there is no item"],
  ] as const) {
    await expect(release(sql, "w", claim, outcome, more)).rejects.toMatchObject({
      code: "PT400",
      message: expect.stringContaining(why),
    });
  }
  expect(await release(sql, "w", claim, "succeeded")).toBe("succeeded");
});
