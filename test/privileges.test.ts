import { describe, expect, test } from "vitest";
import { openDatabase, type Sql } from "./support/database.ts";
import { migrate, type Version } from "./support/servers.ts";

const api = [
  ...["attach_pool", "cancel_items", "claim_items", "claim_next", "define_work_type", "define_workflow"],
  ...["detach_pool", "enqueue_items"],
  ...[
    "enroll_pool",
    "explain_item",
    "extend_claims",
    "finish_and_claim",
    "prune_classes",
    "prune_finished",
    "reap_expired_claims",
    "refused_classes",
  ],
  ...[
    "register_worker",
    "release_claims_for_worker",
    "release_item",
    "release_items",
    "release_parked",
    "retire_worker",
    "retry_items",
  ],
  ...["set_priority", "take_parked", "describe_work_types"],
  ...["work_depth", "work_pulse", "would_match"],
];
const tables = ["claims", "classes", "events", "items", "pools", "types", "workers", "workflows"].map(
  (name) => `public.work_${name}`,
);
const views = [
  ...[
    "capability_match",
    "claim_list",
    "failures",
    "held",
    "history",
    "item_list",
    "overview",
    "stuck",
    "taken",
    "worker_list",
  ],
].map((name) => `public.work_${name}`);

const readAndWrite = ["DELETE", "INSERT", "SELECT", "UPDATE"];

/** The rights of service_role on each of our objects in public. No other role has any. */
const expected: Record<string, string[]> = {
  ...Object.fromEntries(tables.map((name) => [`table ${name}`, readAndWrite])),
  ...Object.fromEntries(views.map((name) => [`view ${name}`, ["SELECT"]])),
  ...Object.fromEntries(api.map((name) => [`function public.${name}`, ["EXECUTE"]])),
  "domain public.work_claim_status": [],
  "sequence public.work_classes_id_seq": [],
  "sequence public.work_events_id_seq": [],
  "sequence public.work_workflows_id_seq": [],
};

/** The rights of service_role on an object of the private schema, by the object's kind. */
const privately: Record<string, string[]> = {
  function: ["EXECUTE"],
  schema: ["USAGE"],
  sequence: ["SELECT", "USAGE"],
  table: readAndWrite,
  view: ["SELECT"],
};

const roles = ["anon", "authenticated", "service_role", "stranger"];

/** Every object of ours in the catalog, with what each role may do with it, by grant of its own or through PUBLIC. */
async function granted(sql: Sql): Promise<Record<string, Record<string, string[]>>> {
  const rows = await sql<{ object: string; role: string; privileges: string[] }[]>`
    with object as (
      select 'schema ' || nspname as object, oid, 'schema' as kind from pg_namespace where nspname = 'work'
      union all
      select case relkind when 'v' then 'view ' when 'S' then 'sequence ' when 'r' then 'table ' when 'c' then 'type ' else relkind::text || ' ' end
             || relnamespace::regnamespace || '.' || relname, oid, case relkind when 'S' then 'sequence' else 'table' end
        from pg_class where relnamespace in ('public'::regnamespace, 'work'::regnamespace) and relkind not in ('i', 't', 'I')
      union all
      select 'function ' || pronamespace::regnamespace || '.' || proname, oid, 'function'
        from pg_proc where pronamespace in ('public'::regnamespace, 'work'::regnamespace)
      union all
      select 'domain ' || typnamespace::regnamespace || '.' || typname, oid, 'type'
        from pg_type where typnamespace in ('public'::regnamespace, 'work'::regnamespace) and typtype in ('d', 'e', 'r')
    )
    select o.object, r.role,
           case o.kind
             when 'schema' then array(
               select p from unnest(array['CREATE', 'USAGE']) p where has_schema_privilege(r.role, o.oid, p) order by p)
             when 'sequence' then array(
               select p from unnest(array['SELECT', 'UPDATE', 'USAGE']) p where has_sequence_privilege(r.role, o.oid, p) order by p)
             when 'type' then array(
               select p from unnest(array['USAGE']) p where has_type_privilege(r.role, o.oid, p) order by p)
             when 'function' then array(
               select p from unnest(array['EXECUTE']) p where has_function_privilege(r.role, o.oid, p) order by p)
             else array(
               select p from unnest(case when current_setting('server_version_num')::integer >= 170000 then array['MAINTAIN'] else '{}' end
                 || array['DELETE', 'INSERT', 'REFERENCES', 'SELECT', 'TRIGGER', 'TRUNCATE', 'UPDATE']) p
                where has_table_privilege(r.role, o.oid, p)
                   or (p in ('INSERT', 'REFERENCES', 'SELECT', 'UPDATE') and has_any_column_privilege(r.role, o.oid, p))
                order by p)
           end as privileges
      from object o cross join unnest(${roles}::text[]) as r(role)
     order by 1, 2`;
  const answer: Record<string, Record<string, string[]>> = {};
  for (const { object, role, privileges } of rows) {
    answer[object] = { ...answer[object], [role]: privileges };
  }
  return answer;
}

const worlds: [Version, "old" | "new"][] = [
  [17, "new"],
  [17, "old"],
  [15, "new"],
  [15, "old"],
];

describe.each(worlds)("on Postgres %s with Supabase's %s default privileges", async (version, grants) => {
  const { owner, admin, as, url } = await openDatabase({ version, grants });

  test("each role has exactly the listed rights on each object, and no object is unlisted", async () => {
    const found = await granted(admin);
    const isPrivate = (object: string): boolean => / work(\.|$)/.test(object);
    const ours = Object.keys(found).filter(isPrivate);
    expect(ours.length).toBeGreaterThan(50);
    const all = {
      ...expected,
      ...Object.fromEntries(ours.map((object) => [object, privately[object.split(" ", 1)[0] ?? ""] ?? ["none"]])),
      // An identity's sequence.
      "sequence work.profiles_id_seq": [],
      "sequence work.tally_entries_id_seq": [],
    };
    expect(found).toEqual(
      Object.fromEntries(
        Object.entries(all).map(([object, privileges]) => [
          object,
          { anon: [], authenticated: [], service_role: privileges, stranger: [] },
        ]),
      ),
    );
  });

  test("row level security is on for every table, with a policy for service_role alone", async () => {
    const rows = await admin`
      select c.oid::regclass::text as name, c.relrowsecurity, array_agg(r.rolname::text) as roles
        from pg_class c
        left join pg_policy p on p.polrelid = c.oid
        left join pg_roles r on r.oid = any (p.polroles)
       where c.relnamespace in ('public'::regnamespace, 'work'::regnamespace) and c.relkind = 'r' group by 1, 2`;
    expect(rows.length).toBeGreaterThan(tables.length);
    for (const row of rows) {
      expect(row).toMatchObject({ relrowsecurity: true, roles: ["service_role"] });
    }
  });

  test("a new function has only the rights of the closing file", async () => {
    await owner`drop function public.claim_next`;
    await migrate(url);
    expect((await granted(admin))["function public.claim_next"]).toEqual({
      anon: [],
      authenticated: [],
      service_role: ["EXECUTE"],
      stranger: [],
    });
  });

  test.each(["anon", "authenticated", "stranger"])("%s is refused by every function and table", async (role) => {
    const sql = as(role);
    for (const name of [...tables, ...views, "work.profiles"]) {
      await expect(sql.unsafe(`select * from ${name}`)).rejects.toMatchObject({ code: "42501" });
    }
    await expect(sql`select public.claim_next(array['a'], 'w')`).rejects.toMatchObject({ code: "42501" });
    await expect(sql`select nextval('work.fence')`).rejects.toMatchObject({ code: "42501" });
  });
});

test("objects of the same name in another schema change no result", async () => {
  const { owner, as } = await openDatabase({ grants: "old" });
  for (const schema of ["public", "pg_temp"]) {
    for (const sql of [owner, as("service_role")]) {
      await sql
        .unsafe(`
        create function ${schema}.clock_timestamp() returns timestamptz language sql as $$ select '1970-01-01'::timestamptz $$;
        create function ${schema}.nextval(text) returns bigint language sql as $$ select -7::bigint $$;
        create function ${schema}.unnest(uuid[]) returns setof uuid language sql as $$ select null::uuid $$;
        create function ${schema}.jsonb_array_length(jsonb) returns integer language sql as $$ select 0 $$;
        create function ${schema}.never_equal(text, text) returns boolean language sql as $$ select false $$;
        create operator ${schema}.= (leftarg = text, rightarg = text, procedure = ${schema}.never_equal);
      `)
        .catch((error) => {
          // service_role may create in pg_temp alone; the owner has made those of public.
          if (!["42501", "42723", "42883"].includes(error.code)) {
            throw error;
          }
        });
    }
  }
  const sql = as("service_role", { connection: { search_path: "pg_temp, public, pg_catalog" } });
  await sql`create temporary table work_claims (item_id uuid)`;
  await sql`create temporary table work_types (name text)`;
  await sql`select public.define_work_type('t', 'default')`;
  await sql`select public.enqueue_items('[{}, {}]')`;
  const [answer] = await sql`select public.claim_next(array['t'], 'w', 5) as claims`;
  expect(answer?.claims).toHaveLength(2);
  const outcomes = answer?.claims.map((claim: object) => ({ ...claim, outcome: "succeeded" }));
  const [released] = await sql`select public.release_items('w', ${sql.json(outcomes)}) as states`;
  expect(released?.states).toEqual(["succeeded", "succeeded"]);
  const [row] =
    await owner`select min(fence) > 0 and min(claimed_at) > pg_catalog.now() - interval '1 hour' as sane from public.work_claims`;
  expect(row?.sane).toBe(true);
});
