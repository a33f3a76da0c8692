import { describe, expect, test } from "vitest";
import { supabase } from "../src/stack/push.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { migrate, migrations, optionalMigration, type Version } from "./support/servers.ts";

const ours = `in ('public'::regnamespace, 'work'::regnamespace)`;

/** All that the catalog says of our objects, a line each: what pg_dump would write, and in which order it does not matter. */
async function catalog(sql: Sql): Promise<string[]> {
  const rows = await sql.unsafe<{ line: string }[]>(`
    select 'schema ' || nspname || ' ' || coalesce(nspacl::text, '') as line from pg_namespace where nspname in ('public', 'work')
    union all
    select 'relation ' || oid::regclass || ' ' || relkind::text || ' ' || relowner::regrole || ' ' || coalesce(relacl::text, '') || ' '
           || coalesce(reloptions::text, '') || ' ' || relrowsecurity || ' ' || coalesce(obj_description(oid, 'pg_class'), '')
      from pg_class where relnamespace ${ours} and relkind <> 't'
    union all
    select 'column ' || a.attrelid::regclass || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' '
           || coalesce(pg_get_expr(d.adbin, d.adrelid), '') || ' ' || coalesce(col_description(a.attrelid, a.attnum), '')
      from pg_attribute a join pg_class c on c.oid = a.attrelid
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where c.relnamespace ${ours} and a.attnum > 0 and c.relkind <> 't'
    union all
    select 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
      from pg_constraint where connamespace ${ours}
    union all
    select 'index ' || pg_get_indexdef(indexrelid) from pg_index where indrelid in (select oid from pg_class where relnamespace ${ours})
    union all
    select 'view ' || oid::regclass || ' ' || pg_get_viewdef(oid) from pg_class where relnamespace ${ours} and relkind = 'v'
    union all
    select 'trigger ' || pg_get_triggerdef(oid) from pg_trigger
     where tgrelid in (select oid from pg_class where relnamespace ${ours}) and not tgisinternal
    union all
    select 'policy ' || polrelid::regclass || ' ' || polname || ' ' || polroles::text || ' ' || pg_get_expr(polqual, polrelid) from pg_policy
    union all
    select 'sequence ' || seqrelid::regclass || ' ' || seqmax || ' ' || seqincrement from pg_sequence
    union all
    select 'function ' || oid::regprocedure || ' ' || coalesce(proacl::text, '') || ' ' || coalesce(obj_description(oid, 'pg_proc'), '')
           || pg_get_functiondef(oid)
      from pg_proc where pronamespace ${ours}
    order by 1`);
  return rows.map((row) => row.line);
}

const worlds: [Version, "old" | "new"][] = [
  [17, "new"],
  [17, "old"],
  [15, "new"],
  [15, "old"],
];

describe.each(worlds)("on Postgres %s with Supabase's %s default privileges", async (version, grants) => {
  const { owner, sql, url } = await openDatabase({ version, grants });

  test("applying the migrations again changes nothing, in the catalog or in the data", async () => {
    await sql`select public.define_work_type('t', 'default', lease_seconds => 7)`;
    await sql`select public.enqueue_items('[{}, {"dedupe_key": "k"}]')`;
    await sql`select public.claim_next(array['t'], 'w')`;
    const before = [await catalog(owner), await contents()];
    expect(before[0]?.length).toBeGreaterThan(100);
    await migrate(url);
    expect([await catalog(owner), await contents()]).toEqual(before);

    async function contents(): Promise<string[]> {
      const rows = await owner`
        select t::text as line from work_types t union all select p::text from work_pools p union all
        select i::text from work_items i union all select c::text from work_claims c order by 1`;
      return rows.map((row) => row.line);
    }
  });

  test("every table, view, sequence, index and public function has a comment", async () => {
    const silent = await owner.unsafe(`
      select oid::regclass::text as name from pg_class c
       where relnamespace ${ours} and relkind in ('r', 'v', 'S', 'i') and obj_description(oid, 'pg_class') is null
         -- An index or a sequence that belongs to a constraint or a column is explained there.
         and not exists (select from pg_constraint where conindid = c.oid)
         and not exists (select from pg_depend where objid = c.oid and classid = 'pg_class'::regclass and deptype in ('a', 'i') and refobjsubid > 0)
      union all
      select oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace and obj_description(oid, 'pg_proc') is null
      union all
      select nspname from pg_namespace where nspname = 'work' and obj_description(oid, 'pg_namespace') is null`);
    expect(silent).toEqual([]);
  });
});

interface Advice {
  name: string;
  level: string;
}

/** The findings of the dashboard's advisors, less the indexes that a new database has not used yet. */
async function advice(url: string): Promise<Advice[]> {
  const output = await supabase(["db", "advisors", `--remote=${url}`, "--yes", "--level", "info", "--output", "json"]);
  const findings: Advice[] = JSON.parse(output.slice(output.indexOf("["), output.lastIndexOf("]") + 1));
  expect(findings.length).toBeGreaterThan(3);
  return findings.filter(({ name, level }) => name !== "unused_index" || level !== "INFO");
}

test("Supabase's advisors report only indexes that a new database has not used yet", async () => {
  const { url, owner } = await openDatabase({ grants: "old" });
  await owner`create table documents (id uuid primary key)`;
  await owner`alter table documents enable row level security`;
  await owner`create policy everybody_reads on documents for select using (true)`;
  await owner`select public.attach_pool('documents')`;
  expect(await advice(url)).toEqual([]);
});

test("Supabase's advisors report nothing else of tokens than that anon may run their functions", async () => {
  const { url } = await openDatabase({ grants: "old", tokens: true });
  // The dashboard has this lint, number 0028; the advisors of the command line do not have it yet.
  expect((await advice(url)).filter(({ name }) => name !== "anon_security_definer_function_executable")).toEqual([]);
});

describe("the text of the migrations", () => {
  const files = [...migrations(), optionalMigration("work_tokens")];
  const text = files.join("\n");

  test("never raises a serialization failure, which PostgREST would repeat for ever", () => {
    expect(text).not.toMatch(/40001|serialization_failure/i);
  });

  test("holds no transaction command and no statement that cannot run in one", () => {
    expect(text).not.toMatch(/^\s*(commit|rollback|begin transaction|start transaction)\b/im);
    expect(text).not.toMatch(/\bconcurrently\b|^\s*vacuum\b|as enum\b/im);
  });
});

test("only functions that read or write attached tables run as their owner, or build SQL", async () => {
  const { owner } = await openDatabase();
  const rows = await owner<{ name: string; definer: boolean; dynamic: boolean; path: boolean }[]>`
    select proname::text as name, prosecdef as definer, prosrc ~* '\\mexecute\\M' as dynamic,
           'search_path=pg_catalog, pg_temp' = any (proconfig) as path
      from pg_proc where pronamespace in ('public'::regnamespace, 'work'::regnamespace) order by 1`;
  expect(rows.filter((row) => row.definer).map((row) => row.name)).toEqual([
    ...["lock_rows", "mirror_deleted", "mirror_truncated", "mirror_written", "write_results"],
  ]);
  // Each of these puts in names from the catalog alone, quoted by it. call_apply() runs as its caller.
  expect(rows.filter((row) => row.dynamic).map((row) => row.name)).toEqual([
    ...["call_apply", "detach_pool", "lock_rows", "make_mirror_triggers", "mirror_deleted", "mirror_next_rows"],
    ...["mirror_written", "write_results"],
  ]);
  // A person's function, and the triggers of a person's table, run with the path of a session.
  expect(rows.filter((row) => !row.path).map((row) => row.name)).toEqual(["call_apply", "write_results"]);
  const [views] = await owner`
    select count(*)::integer as count from pg_class
     where relkind = 'v' and relnamespace = 'public'::regnamespace and not ('security_invoker=true' = any (coalesce(reloptions, '{}')))`;
  expect(views).toEqual({ count: 0 });
});
