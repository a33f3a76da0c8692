import postgres from "postgres";

/** Default privileges on migrations' objects: all for the API's roles, as in projects from before May 2026, or none. */
export type Grants = "old" | "new";

/**
 * A Supabase project's roles, schemas, limits and default privileges. It can be run again.
 * `postgres` owns the database and pushes the migrations, and is no superuser, as on a hosted project.
 */
const rolesAndSchemas = `
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'authenticator') then
    create role anon nologin noinherit;
    create role authenticated nologin noinherit;
    create role service_role nologin noinherit bypassrls;
    create role authenticator login noinherit password 'postgres';
    create role postgres login createdb createrole replication bypassrls password 'postgres';
    grant anon, authenticated, service_role to authenticator;
    grant anon, authenticated, service_role, authenticator to postgres with admin option;
    grant pg_monitor, pg_signal_backend, pg_read_all_data to postgres;
  end if;
end
$$;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role postgres set statement_timeout = '2min';
alter role postgres set search_path = "$user", public, extensions;

grant usage on schema public to postgres, anon, authenticated, service_role;

create schema if not exists auth;
grant usage on schema auth to postgres, anon, authenticated, service_role;

create schema if not exists extensions;
grant all on schema extensions to postgres;
grant usage on schema extensions to anon, authenticated, service_role;
create extension if not exists pgcrypto schema extensions;
create extension if not exists "uuid-ossp" schema extensions;

-- PostgREST learns of changed tables and functions by itself, as on Supabase.
create or replace function extensions.pgrst_reload() returns event_trigger language plpgsql set search_path = '' as $$
begin
  notify pgrst, 'reload schema';
end
$$;
do $$
begin
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'pgrst_ddl_watch') then
    create event trigger pgrst_ddl_watch on ddl_command_end execute function extensions.pgrst_reload();
    create event trigger pgrst_drop_watch on sql_drop execute function extensions.pgrst_reload();
  end if;
end
$$;
`;

const apiRoles = "postgres, anon, authenticated, service_role";

function defaultPrivileges(grants: Grants): string {
  const [verb, preposition] = grants === "old" ? ["grant", "to"] : ["revoke", "from"];
  return ["tables", "functions", "sequences"]
    .map(
      (kind) =>
        `alter default privileges for role postgres in schema public ${verb} all on ${kind} ${preposition} ${apiRoles};`,
    )
    .join("\n");
}

/** Give a database the roles, schemas and default privileges of a new Supabase project. */
export async function prepareDatabase(adminUrl: string, grants: Grants): Promise<void> {
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} });
  try {
    await sql.begin(async (transaction) => {
      await transaction.unsafe(rolesAndSchemas);
      await transaction.unsafe("alter database postgres owner to postgres");
      await transaction.unsafe(defaultPrivileges(grants));
    });
  } finally {
    await sql.end({ timeout: 5 });
  }
}
