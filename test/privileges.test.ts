import { describe, expect, test } from "vitest";
import { openDatabase, type Sql } from "./support/database.ts";
import { migrate, type Version } from "./support/servers.ts";

const api = [
  ...["add_needs", "invalidate_items", "reread_claim"],
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
  ...["set_priority", "take_lock", "drop_lock", "take_parked", "describe_work_types"],
  ...["define_pool", "work_depth", "work_pulse", "work_remaining", "would_match"],
];
const tables = [
  "claims",
  "classes",
  "dependencies",
  "events",
  "items",
  "locks",
  "pools",
  "types",
  "workers",
  "workflows",
].map((name) => `public.work_${name}`);
const views = [
  ...[
    "capability_match",
    "claim_list",
    "failures",
    "held",
    "history",
    "item_list",
    "lock_list",
    "overview",
    "stale",
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
  "sequence public.work_dependencies_id_seq": [],
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

const apiRoles = ["anon", "authenticated", "service_role", "stranger"];

/** Every object of ours in the catalog, with what each role may do with it, by grant of its own or through PUBLIC. */
async function granted(sql: Sql, roles: string[] = apiRoles): Promise<Record<string, Record<string, string[]>>> {
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

describe.each(worlds)("with tokens on Postgres %s with Supabase's %s default privileges", async (version, grants) => {
  const { admin, as } = await openDatabase({ version, grants, tokens: true });
  const forTokens = [
    ...["claim_next", "describe_work_types", "extend_claims", "finish_and_claim", "register_worker", "release_items"],
    ...["drop_lock", "release_parked", "reread_claim", "retire_worker", "take_lock", "take_parked", "work_remaining"],
  ].map((name) => `function public.token_${name}`);
  forTokens.push("function public.work_token_may_upload");
  const forServiceRole: Record<string, string[]> = {
    "function public.create_token": ["EXECUTE"],
    "function public.revoke_token": ["EXECUTE"],
    "table public.work_tokens": readAndWrite,
    "view public.work_token_list": ["SELECT"],
  };

  test("anon may run the functions that ask for a token, and no other role of the API has more than before", async () => {
    const { admin: plainAdmin } = await openDatabase({ version, grants });
    const [found, before] = [await granted(admin), await granted(plainAdmin)];
    const isNew = (object: string): boolean => before[object] === undefined;
    expect(
      Object.keys(found)
        .filter((object) => isNew(object) && !object.startsWith("function work."))
        .sort(),
    ).toEqual([...forTokens, ...Object.keys(forServiceRole)].sort());
    for (const [object, rights] of Object.entries(found)) {
      const isForTokens = forTokens.includes(object);
      const added = {
        anon: isForTokens ? ["EXECUTE"] : [],
        authenticated: [],
        service_role: isForTokens ? [] : (forServiceRole[object] ?? ["EXECUTE"]),
        stranger: [],
      };
      expect([object, rights]).toEqual([object, before[object] ?? added]);
    }
  });

  test("work_worker may touch the tables of a claim call, and make nothing", async () => {
    const found = await granted(admin, ["work_worker"]);
    const rights = Object.entries(found).flatMap(([object, { work_worker = [] }]) =>
      object.startsWith("function ") || work_worker.length === 0 ? [] : [[object, work_worker.join(" ")]],
    );
    const [all, change, update] = ["DELETE INSERT SELECT UPDATE", "DELETE SELECT UPDATE", "SELECT UPDATE"];
    expect(Object.fromEntries(rights)).toEqual({
      "schema work": "USAGE",
      "sequence work.fence": "USAGE",
      "table public.work_claims": change,
      "table public.work_classes": "SELECT",
      "table public.work_dependencies": update,
      "table public.work_events": all,
      "table public.work_items": change,
      "table public.work_locks": all,
      "table public.work_pools": update,
      "table public.work_tokens": update,
      "table public.work_types": update,
      "table public.work_workers": all,
      "table public.work_workflows": update,
      "view work.ranked_items": "SELECT",
      "view work.type_needs": "SELECT",
      "table work.listeners": "SELECT",
      "table work.profiles": all,
      "table work.requests": all,
      "table work.tallies": all,
      "table work.tally_entries": all,
      "table work.upkeep": update,
      "view work.live_locks": "SELECT",
    });
    const [role] = await admin`
      select rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolbypassrls as is_more,
             has_schema_privilege('work_worker', 'public', 'create') as may_create,
             array(select roleid::regrole::text from pg_auth_members where member = 'work_worker'::regrole) as member_of,
             array(select distinct member::regrole::text from pg_auth_members where roleid = 'work_worker'::regrole) as members
        from pg_roles where rolname = 'work_worker'`;
    expect(role).toEqual({ is_more: false, may_create: false, member_of: [], members: ["postgres"] });
  });

  test("each policy is for service_role or for a table that work_worker may touch", async () => {
    const policies = await admin`
      select polrelid::regclass::text as name, array_agg(polroles::regrole[]::text order by polname) as roles from pg_policy group by 1`;
    const [touched] = await admin`
      select count(*)::integer as count from pg_class
       where relnamespace in ('public'::regnamespace, 'work'::regnamespace) and relkind = 'r'
         and has_table_privilege('work_worker', oid, 'select')`;
    expect(policies.filter((row) => row.roles.includes("{work_worker}"))).toHaveLength(touched?.count);
    for (const { roles } of policies)
      expect(["{service_role}", "{service_role},{work_worker}"]).toContain(roles.join());
    const open = await admin`
      select from pg_class where relnamespace in ('public'::regnamespace, 'work'::regnamespace) and relkind = 'r' and not relrowsecurity`;
    expect(open).toHaveLength(0);
  });

  test("the functions that run as work_worker find their objects whatever the caller's search path is", async () => {
    const unset = await admin`
      select proname from pg_proc
       where pronamespace in ('public'::regnamespace, 'work'::regnamespace) and not 'search_path=pg_catalog, pg_temp' = any (coalesce(proconfig, '{}'))`;
    // A person's function, and the triggers of a person's table, run with the path of a session.
    expect(unset.map((row) => row.proname).sort()).toEqual(["call_apply", "write_results"]);
    const definers = await admin`
      select proowner::regrole::text as owner from pg_proc where prosecdef and proname ~ '^(token_|work_token_)'`;
    expect(new Set(definers.map((row) => row.owner))).toEqual(new Set(["work_worker"]));
    expect(definers).toHaveLength(forTokens.length);
    await expect(as("anon")`set role work_worker`).rejects.toMatchObject({ code: "42501" });
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
