import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import postgres, { type Sql } from "postgres";
import { startStack } from "../src/stack/stack.ts";
import type { Options } from "./options.ts";

/** One Postgres server, with the migrations in one database and room for the rivals in another. */
export interface Instance {
  dbUrl: string;
  /** Rivals make and drop tables in a database of their own: PostgREST looks at its schema anew after each of those. */
  rivalsUrl: string;
  /** A database with the other version of work-claims, if the options name one. */
  otherUrl?: string;
  /** The address of a role that may vacuum, checkpoint and load modules. */
  adminUrl: string;
  api?: { url: string; key: string };
  stop: () => Promise<void>;
}

const project = fileURLToPath(new URL("..", import.meta.url));

/** A stack of the bench's own, or the one that the options name. */
export async function openInstance(options: Options, tell: (line: string) => void): Promise<Instance> {
  if (options.dbUrl) {
    await refuseWorkInProgress(options.dbUrl);
    const api = options.url && options.key ? { api: { url: options.url, key: options.key } } : {};
    const others = await createOthers(options.dbUrl, options.against);
    const adminUrl = options.adminUrl ?? options.dbUrl;
    return { dbUrl: options.dbUrl, adminUrl, ...others, ...api, stop: () => dropOthers(options.dbUrl as string) };
  }

  const dataDir = await mkdtemp(join(tmpdir(), "work-claims-bench-"));
  // No ephemeral one: that does without fsync, and a commit would cost nothing.
  const stack = await startStack({ dataDir, migrations: project, log: tell });
  const stop = async (): Promise<void> => {
    await stack.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
  // Running statements fail with their connections. The bench does not report these errors.
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop().finally(() => process.exit(130)));
  return {
    dbUrl: stack.dbUrl,
    adminUrl: stack.adminUrl,
    ...(await createOthers(stack.dbUrl, options.against)),
    api: { url: stack.url, key: stack.serviceKey },
    stop,
  };
}

/** The bench empties the tables, so it refuses a database with items. */
async function refuseWorkInProgress(dbUrl: string): Promise<void> {
  const [row] = await once(
    dbUrl,
    (database) => database<{ has_items: boolean }[]>`
    select exists (select from public.work_items) as has_items`,
  );
  if (row?.has_items) {
    throw new Error("--db-url has a database with work items in it; the bench empties the tables: give it another one");
  }
}

const rivals = "work_claims_bench_rivals";
const otherVersion = "work_claims_bench_other_version";

/** Databases for the rivals and for another version. The folder has its migrations. */
async function createOthers(dbUrl: string, against?: string): Promise<Pick<Instance, "rivalsUrl" | "otherUrl">> {
  await dropOthers(dbUrl);
  await once(dbUrl, (database) => database.unsafe(`create database ${rivals}`));
  const rivalsUrl = withDatabase(dbUrl, rivals);
  if (!against) return { rivalsUrl };

  const files = (await readdir(against)).filter((name) => name.endsWith(".sql")).sort();
  if (files.length === 0) throw new Error(`--against has ${against}; a folder with .sql files was expected`);
  await once(dbUrl, (database) => database.unsafe(`create database ${otherVersion}`));
  const otherUrl = withDatabase(dbUrl, otherVersion);
  await once(otherUrl, async (database) => {
    for (const file of files) await database.unsafe(await readFile(join(against, file), "utf8"));
  });
  return { rivalsUrl, otherUrl };
}

async function dropOthers(dbUrl: string): Promise<void> {
  for (const name of [rivals, otherVersion]) {
    await once(dbUrl, (database) => database.unsafe(`drop database if exists ${name} with (force)`));
  }
}

/** Updates statistics and writes dirty pages, so that no contestant pays for another's preparation. */
export async function settle(adminUrl: string, dbUrl: string): Promise<void> {
  await once(withDatabase(adminUrl, new URL(dbUrl).pathname.slice(1)), async (database) => {
    await database.unsafe("vacuum analyze");
    await database.unsafe("checkpoint");
  });
}

/** The settings that decide the cost of a commit and the size of memory. */
export async function describeInstance(dbUrl: string): Promise<string> {
  const settings = await once(
    dbUrl,
    (database) => database<{ name: string; value: string }[]>`
      select name, current_setting(name) as value
        from unnest(array['server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers',
          'max_wal_size', 'wal_level', 'autovacuum', 'jit']) with ordinality as asked(name, n)
       order by n`,
  );
  return settings.map(({ name, value }) => `${name} ${value}`).join(", ");
}

async function once<T>(url: string, act: (database: Sql) => PromiseLike<T>): Promise<T> {
  const database = postgres(url, { max: 1, onnotice: () => {} });
  try {
    return await act(database);
  } finally {
    await database.end();
  }
}

function withDatabase(url: string, name: string): string {
  const address = new URL(url);
  address.pathname = `/${name}`;
  return address.href;
}
