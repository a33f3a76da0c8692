import { randomUUID } from "node:crypto";
import postgres from "postgres";
import { afterAll, inject } from "vitest";
import { inDatabase, type Version } from "./servers.ts";

export type Sql = postgres.Sql;

/** A test file's own database, and connections to it. */
export interface Database {
  /** As the API's role, through which workers call. */
  sql: Sql;
  /** As the role that owns the tables and runs migrations. */
  owner: Sql;
  /** As the cluster's superuser. */
  admin: Sql;
  /** As any role, with any options; one connection by default. */
  as(role: string, options?: postgres.Options<Record<string, never>>): Sql;
  /** The address as the owner. */
  url: string;
  /** The address as the superuser. */
  adminUrl: string;
}

export interface Wanted {
  version?: Version;
  grants?: "old" | "new";
  /** False for one without our objects. */
  migrated?: boolean;
  /** True for one with the migration for workers with a token. */
  tokens?: boolean;
}

const logins = ["postgres", "authenticator", "stranger"];

/** Makes a database from the run's template; it goes when the test file ends. */
export async function openDatabase(wanted: Wanted = {}): Promise<Database> {
  const { version = 17, grants = "new", migrated = true, tokens = false } = wanted;
  const server = inject("servers")[version];
  const name = `test_${randomUUID().replaceAll("-", "")}`;
  const template = `${tokens ? "tokens" : migrated ? "migrated" : "bare"}_${grants}`;
  const maintenance = postgres(inDatabase(server.adminUrl, "template1"), { max: 1, onnotice: () => {} });
  await maintenance.unsafe(`create database ${name} template ${template} owner postgres`);

  const opened: Sql[] = [];
  function connect(url: string, options: postgres.Options<Record<string, never>>): Sql {
    const sql = postgres(url, { max: 1, onnotice: () => {}, ...options });
    opened.push(sql);
    return sql;
  }
  function as(role: string, options: postgres.Options<Record<string, never>> = {}): Sql {
    // Roles of the API do not log in: the authenticator becomes them, as in PostgREST.
    return logins.includes(role)
      ? connect(inDatabase(server.dbUrl, name, role), options)
      : connect(inDatabase(server.dbUrl, name, "authenticator"), {
          ...options,
          connection: { ...options.connection, role },
        });
  }
  afterAll(async () => {
    await Promise.all(opened.map((sql) => sql.end({ timeout: 0 })));
    await maintenance.unsafe(`drop database ${name} with (force)`);
    await maintenance.end();
  });
  return {
    sql: as("service_role", { max: 4 }),
    owner: as("postgres"),
    admin: connect(inDatabase(server.adminUrl, name), {}),
    as,
    url: inDatabase(server.dbUrl, name),
    adminUrl: inDatabase(server.adminUrl, name),
  };
}
