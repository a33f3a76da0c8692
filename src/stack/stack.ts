import { authenticate } from "./authenticate.ts";
import { clearPredecessor, ensureCluster, superuser } from "./cluster.ts";
import { openDataDir } from "./data-dir.ts";
import { type Functions, serveFunctions } from "./functions.ts";
import { runGateway } from "./gateway.ts";
import type { Limits } from "./isolate.ts";
import type { Keys } from "./keys.ts";
import { lock } from "./lock.ts";
import { serverUser } from "./os-user.ts";
import { findPostgres, type PostgresMajor } from "./postgres-binaries.ts";
import { type PostgresServer, runPostgres } from "./postgres-server.ts";
import { findPostgrest } from "./postgrest-binary.ts";
import { type PostgrestServer, runPostgrest } from "./postgrest-server.ts";
import { end, identify, type ProcessIdentity } from "./process-identity.ts";
import { pushMigrations } from "./push.ts";
import { type Grants, prepareDatabase } from "./roles.ts";
import { type Ports, portsFile, readOrCreateKeys, runningFile } from "./state-files.ts";

export type StackOptions = {
  /** The folder of keys and data, else `.work-claims`. An ephemeral stack takes an empty folder, else a temporary one. */
  dataDir?: string | undefined;
  /** The port of the address; Supabase's 54321 or a free one without. */
  port?: number | undefined;
  /** The port of Postgres; Supabase's 54322 or a free one without. */
  dbPort?: number | undefined;
  ephemeral?: boolean | undefined;
  grants?: Grants | undefined;
  postgres?: PostgresMajor | undefined;
  /** A project, or a function that makes one for a data folder. PostgREST starts after its migrations. */
  migrations?: string | ((dataDir: string) => Promise<string>) | undefined;
  /** The supabase folder whose Edge Functions are served, and limits other than those of a hosted project. */
  functions?: { folder: string; limits?: Partial<Limits> } | undefined;
  log?: ((line: string) => void) | undefined;
  /** Ends a start that is under way. */
  signal?: AbortSignal | undefined;
};

export type Stack = {
  /** The address, without /rest/v1. */
  url: string;
  serviceKey: string;
  secretKey: string;
  anonKey: string;
  publishableKey: string;
  /** The database as `postgres`, the owner of everything that migrations make. */
  dbUrl: string;
  /** The database as its superuser. */
  adminUrl: string;
  dataDir: string;
  /** Names of the migrations that this start applied. */
  applied: string[];
  postgres: PostgresServer;
  postgrest: PostgrestServer;
  functions: Functions | undefined;
  stop: () => Promise<void>;
};

/** The ports of Supabase's own stack, for a folder that had none yet. */
const supabasePorts: Ports = { port: 54321, dbPort: 54322 };

/** A Supabase project on this machine: Postgres, PostgREST and a gateway in front. No part of it outlives this process. */
export async function startStack(options: StackOptions = {}): Promise<Stack> {
  const log = options.log ?? ((): void => {});
  const signal = options.signal ?? new AbortController().signal;
  const major = options.postgres ?? 17;
  const user = serverUser();
  const closing: (() => Promise<void>)[] = [];
  const stop = once(async () => {
    for (const close of closing.reverse()) await close();
  });

  try {
    const dataDir = await openDataDir(options.dataDir, options.ephemeral ?? false, user);
    closing.push(dataDir.remove);
    closing.push(await lock(dataDir.path));
    await endPredecessors(dataDir.path, log);
    const keys = await readOrCreateKeys(dataDir.path);
    const kept: Partial<Ports> = (await portsFile.read(dataDir.path)) ?? {};

    let rest: PostgrestServer | undefined;
    let functions: Functions | undefined;
    const gateway = await runGateway({
      port: options.port,
      preferredPort: kept.port ?? supabasePorts.port,
      authenticate: (credentials) => authenticate(keys, credentials),
      upstream: () => rest?.port(),
      functions: () => functions,
    });
    closing.push(gateway.stop);

    signal.throwIfAborted();
    const [binaries, postgrestFile] = await Promise.all([findPostgres(major, user), findPostgrest()]);
    const cluster = await ensureCluster(dataDir, binaries, major, user, keys.adminPassword, signal);
    const left = await clearPredecessor(cluster);
    if (left !== "nothing") log(`A killed stack had left ${left} here; that is cleared`);
    let isReady = false;
    const note = (): Promise<void> =>
      runningFile.write(dataDir.path, { owner: self(), children: children(), isReady, url: gateway.url, dbUrl });
    const children = (): ProcessIdentity[] =>
      [database.pid(), rest?.pid()].flatMap((pid) => (pid === undefined ? [] : (identify(pid) ?? [])));
    const database = await runPostgres({
      dataDir,
      cluster,
      binaries,
      user,
      port: options.dbPort,
      preferredPort: kept.dbPort ?? supabasePorts.dbPort,
      signal,
      log,
      onRestart: () => {
        rest?.reconnect();
        void note();
      },
    });
    closing.push(() => database.stop("fast"));
    const ports: Ports = { port: gateway.port, dbPort: database.port };
    for (const line of portChanges(kept, ports, options)) log(line);
    if (!dataDir.ephemeral) await portsFile.write(dataDir.path, ports);
    // Without sslmode the Supabase CLI tries TLS first, and warns on stdout, between the types that gen types writes.
    const address = (role: string, password: string): string =>
      `postgresql://${role}:${password}@127.0.0.1:${database.port}/postgres?sslmode=disable`;
    const dbUrl = address("postgres", "postgres");
    const adminUrl = address(superuser, keys.adminPassword);
    closing.push(() => runningFile.remove(dataDir.path));
    await note();

    signal.throwIfAborted();
    await prepareDatabase(adminUrl, options.grants ?? "old");
    const { migrations } = options;
    const project = typeof migrations === "function" ? await migrations(dataDir.path) : migrations;
    const applied = project === undefined ? [] : await pushMigrations(dbUrl, project, signal);

    signal.throwIfAborted();
    rest = await runPostgrest({
      file: postgrestFile,
      logs: `${dataDir.path}/logs`,
      dbUrl: address("authenticator", "postgres"),
      jwtSecret: keys.jwtSecret,
      signal,
      log,
      onRestart: () => void note(),
    });
    closing.push(rest.stop);
    if (options.functions) {
      const served = serveFunctions({
        ...options.functions,
        env: functionEnvironment(keys, gateway.url, dbUrl),
        authenticate: (credentials) => authenticate(keys, credentials),
        logs: `${dataDir.path}/logs`,
        log,
      });
      functions = served;
      // A function that is told to end hands its claims back through PostgREST, which is still there.
      closing.push(() => {
        functions = undefined;
        return served.end("termination", 5_000);
      });
    }
    signal.throwIfAborted();
    isReady = true;
    await note();

    const { serviceKey, secretKey, anonKey, publishableKey } = keys;
    return {
      url: gateway.url,
      serviceKey,
      secretKey,
      anonKey,
      publishableKey,
      dbUrl,
      adminUrl,
      dataDir: dataDir.path,
      applied,
      postgres: database,
      postgrest: rest,
      functions,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** End the servers of a killed stack. Their guards do that, unless those were killed too; the file names the servers. */
export async function endPredecessors(path: string, log: (line: string) => void): Promise<number> {
  const note = await runningFile.read(path);
  let ended = 0;
  for (const child of note?.children ?? []) {
    if (identify(child.pid)?.started !== child.started) continue;
    log(`Process ${child.pid} of a killed stack still ran; it is ended`);
    await end(child, "SIGINT", 15_000);
    ended += 1;
  }
  await runningFile.remove(path);
  return ended;
}

/** The variables that Supabase sets for a function. */
function functionEnvironment(keys: Keys, url: string, dbUrl: string): Record<string, string> {
  return {
    SUPABASE_URL: url,
    SUPABASE_DB_URL: dbUrl,
    SUPABASE_SECRET_KEYS: JSON.stringify({ default: keys.secretKey }),
    SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: keys.publishableKey }),
    SUPABASE_SERVICE_ROLE_KEY: keys.serviceKey,
    SUPABASE_ANON_KEY: keys.anonKey,
  };
}

/** A sentence for each port that differs from the last start though the user did not name it. */
function portChanges(kept: Partial<Ports>, now: Ports, options: StackOptions): string[] {
  const names = { port: "address", dbPort: "database's address" } as const;
  return (["port", "dbPort"] as const)
    .filter((which) => options[which] === undefined && kept[which] !== undefined && kept[which] !== now[which])
    .map(
      (which) =>
        `Port ${kept[which]} is in use by something else; the ${names[which]} has changed to 127.0.0.1:${now[which]}`,
    );
}

function self(): ProcessIdentity {
  return identify(process.pid) ?? { pid: process.pid, started: "" };
}

function once(action: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  return () => {
    running ??= action();
    return running;
  };
}
