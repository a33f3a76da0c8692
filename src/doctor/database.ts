import type { Sql } from "postgres";
import { packagedMigration, publicNames } from "../stack/migrations.ts";
import { packageManifest } from "../stack/package-root.ts";
import { type Finding, installAdvice, right, wrong } from "./finding.ts";

export type Limits = {
  /** A clock that differs by more is wrong. The measurement itself may be off by half a round trip. */
  clockSeconds: number;
  /** A transaction that keeps vacuum from working for longer is too old. */
  snapshotSeconds: number;
};

export const limits: Limits = { clockSeconds: 5, snapshotSeconds: 600 };

/** Look into the database. `now` is the clock of this machine, in milliseconds. */
export async function checkDatabase(
  sql: Sql,
  now: () => number,
  { clockSeconds, snapshotSeconds }: Limits,
): Promise<Finding[]> {
  const findings = [
    await checkVersion(sql),
    await checkClock(sql, now, clockSeconds),
    await checkSnapshots(sql, snapshotSeconds),
  ];
  const installed = await checkSchema(sql);
  findings.push(installed);
  const [row] = await sql`select to_regclass('public.work_pools') is not null as is_there`;
  if (row?.is_there) findings.push(await checkRights(sql), await checkPools(sql));
  return findings;
}

async function checkVersion(sql: Sql): Promise<Finding> {
  const [row] = await sql<{ number: number; version: string }[]>`
    select current_setting('server_version_num')::int as number, current_setting('server_version') as version`;
  const { number = 0, version = "" } = row ?? {};
  return number >= 150_000
    ? right("Postgres", version)
    : wrong("Postgres", `${version}; work-claims needs 15 or later`, "upgrade the project");
}

async function checkClock(sql: Sql, now: () => number, limit: number): Promise<Finding> {
  await sql`select`;
  const sent = now();
  const [row] = await sql<{ at: number }[]>`select extract(epoch from clock_timestamp())::float8 * 1000 as at`;
  const received = now();
  const ahead = ((sent + received) / 2 - (row?.at ?? 0)) / 1000;
  const text = `this machine is ${Math.abs(ahead).toFixed(1)} s ${ahead < 0 ? "behind" : "ahead of"} the database`;
  return Math.abs(ahead) - (received - sent) / 2000 <= limit
    ? right("clock", text)
    : wrong("clock", text, "set it by NTP: times that programs here write, such as run_after, are off by as much");
}

async function checkSnapshots(sql: Sql, limit: number): Promise<Finding> {
  const rows = await sql<{ holder: string; seconds: number; remedy: string }[]>`
    select format('process %s of %s (%s)', pid, usename, state) as holder,
           extract(epoch from clock_timestamp() - xact_start)::float8 as seconds,
           format('select pg_terminate_backend(%s)', pid) as remedy
      from pg_stat_activity
     where backend_type = 'client backend'
       and pid <> pg_backend_pid()
       and xact_start < clock_timestamp() - make_interval(secs => ${limit})
       and (backend_xmin is not null or backend_xid is not null or state like 'idle in transaction%')
    union all
    select format('prepared transaction %s', gid), extract(epoch from clock_timestamp() - prepared),
           format('rollback prepared %L', gid)
      from pg_prepared_xacts
     where prepared < clock_timestamp() - make_interval(secs => ${limit})
     order by seconds desc`;
  const [oldest] = rows;
  return oldest
    ? wrong(
        "snapshots",
        `${oldest.holder} keeps vacuum from cleaning for ${Math.round(oldest.seconds)} s${rows.length > 1 ? `, and ${rows.length - 1} more` : ""}`,
        `end it with: ${oldest.remedy}`,
      )
    : right("snapshots", "no transaction is old");
}

async function checkSchema(sql: Sql): Promise<Finding> {
  const { version } = packageManifest();
  const { text } = await packagedMigration();
  const [schema] = await sql<{ comment: string | null }[]>`
    select obj_description(oid, 'pg_namespace') as comment from pg_namespace where nspname = 'work'`;
  if (!schema) return wrong("schema", "work-claims is not installed", installAdvice);
  const functions = publicNames(text, "function");
  const missing = await sql<{ name: string }[]>`
    select name from unnest(${functions}::text[]) as name
     where not exists (select from pg_proc where pronamespace = 'public'::regnamespace and proname = name)`;
  if (missing.length > 0) {
    return wrong("schema", `${missing.map((row) => row.name).join(", ")} is missing`, installAdvice);
  }
  const installed = /^work-claims (\d\S*):/.exec(schema.comment ?? "")?.[1] ?? "of an unknown version";
  if (installed === version) return right("schema", `work-claims ${installed}`);
  return wrong(
    "schema",
    `the database has work-claims ${installed}, and this package is ${version}`,
    `${installAdvice}; or install the package of the database's version`,
  );
}

async function checkRights(sql: Sql): Promise<Finding> {
  const { text } = await packagedMigration();
  const relations = [...publicNames(text, "table"), ...publicNames(text, "view")];
  const rows = await sql<{ name: string; role: string }[]>`
    select 'table ' || c.oid::regclass as name, r.rolname::text as role
      from pg_roles r
     cross join pg_class c
     where r.rolname in ('anon', 'authenticated')
       and c.relnamespace = 'public'::regnamespace
       and c.relname = any (${relations}::text[])
       and has_table_privilege(r.oid, c.oid, 'select, insert, update, delete, truncate, references, trigger')
    union all
    select 'function ' || p.oid::regprocedure, r.rolname
      from pg_roles r
     cross join pg_proc p
     where r.rolname in ('anon', 'authenticated')
       and p.pronamespace = 'public'::regnamespace
       and p.proname = any (${publicNames(text, "function")}::text[])
       and has_function_privilege(r.oid, p.oid, 'execute')
    union all
    select 'schema work', r.rolname
      from pg_roles r
     where r.rolname in ('anon', 'authenticated') and has_schema_privilege(r.oid, 'work', 'usage, create')
     order by 1, 2`;
  const [first] = rows;
  return first
    ? wrong(
        "rights",
        `${first.role} has rights on ${first.name}${rows.length > 1 ? `, and ${rows.length - 1} more like it` : ""}`,
        `revoke all on ${first.name.replace(/^table /, "")} from public, ${first.role}`,
      )
    : right("rights", "anon and authenticated have none");
}

async function checkPools(sql: Sql): Promise<Finding> {
  const broken = await sql<{ pool: string; reason: string }[]>`
    select pool, reason from work.broken_pools order by is_stopped desc, pool`;
  const [first] = broken;
  if (!first) return right("pools", "each follows its table");
  const more = broken.length > 1 ? `, and ${broken.length - 1} more` : "";
  return wrong("pools", `${first.pool}: ${first.reason}${more}`, "select * from work_stuck shows all of them");
}
