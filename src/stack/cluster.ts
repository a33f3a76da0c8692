import { closeSync, openSync } from "node:fs";
import { chown, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type ServerCommand, startServer } from "./child.ts";
import type { DataDir } from "./data-dir.ts";
import type { OsUser } from "./os-user.ts";
import type { PostgresBinaries, PostgresMajor } from "./postgres-binaries.ts";
import { end, hasLeft, identify, type ProcessIdentity } from "./process-identity.ts";
import { lastLines } from "./supervise.ts";

/** The superuser of a Supabase database; `postgres` is none there. */
export const superuser = "supabase_admin";

/** The environment of Postgres' programs, without the variables of this process. */
export function postgresEnvironment(): Record<string, string> {
  return { PATH: process.env.PATH ?? "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" };
}

/** Make the database cluster if there is none. It is built aside and moved, so an interrupted start leaves none. */
export async function ensureCluster(
  dataDir: DataDir,
  binaries: PostgresBinaries,
  major: PostgresMajor,
  user: OsUser,
  password: string,
  signal: AbortSignal,
): Promise<string> {
  const cluster = join(dataDir.clusterHome, "postgres");
  await removeDrafts(dataDir.clusterHome);
  const version = await readFile(join(cluster, "PG_VERSION"), "utf8").catch(() => undefined);
  if (version !== undefined) {
    if (version.trim() === String(major)) return cluster;
    throw new Error(
      `${dataDir.path} was made by Postgres ${version.trim()} and this is ${major}; name another folder with --data, or remove it to start empty`,
    );
  }
  const draft = `${cluster}.new-${process.pid}`;
  const passwordFile = `${draft}.password`;
  try {
    await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
    await mkdir(draft, { mode: 0o700 });
    if (user) {
      await chown(passwordFile, user.uid, user.gid);
      await chown(draft, user.uid, user.gid);
    }
    const locale = process.platform === "linux" ? "C.UTF-8" : "C";
    await runInitdb(
      dataDir,
      {
        file: binaries.initdb,
        args: [
          `--pgdata=${draft}`,
          `--username=${superuser}`,
          `--pwfile=${passwordFile}`,
          "--auth=scram-sha-256",
          "--encoding=UTF8",
          `--locale=${locale}`,
          ...(dataDir.ephemeral ? ["--no-sync"] : []),
        ],
        env: postgresEnvironment(),
        user,
        stopSignal: "TERM",
      },
      signal,
    );
    await rename(draft, cluster);
  } finally {
    await rm(passwordFile, { force: true });
    await rm(draft, { recursive: true, force: true });
  }
  return cluster;
}

async function removeDrafts(home: string): Promise<void> {
  for (const name of await readdir(home)) {
    if (name.startsWith("postgres.new-")) await rm(join(home, name), { recursive: true, force: true });
  }
}

/**
 * A killed stack may have left a server on this cluster, or only its lock file. Another process may have the file's pid.
 * Afterwards no server runs on the cluster, and Postgres starts.
 */
export async function clearPredecessor(cluster: string): Promise<"nothing" | "a stale lock" | "a running server"> {
  const file = join(cluster, "postmaster.pid");
  const text = await readFile(file, "utf8").catch(() => undefined);
  if (text === undefined) return "nothing";
  const server = await serverOn(cluster, Number.parseInt(text, 10));
  if (!server) {
    await rm(file, { force: true });
    return "a stale lock";
  }
  // SIGINT is Postgres' fast shutdown: it ends the sessions and writes everything.
  await end(server, "SIGINT", 15_000);
  await hasLeft(server, 5_000);
  await rm(file, { force: true });
  return "a running server";
}

/** The process with this pid, if it is a Postgres on this cluster. */
async function serverOn(cluster: string, pid: number): Promise<ProcessIdentity | undefined> {
  const found = Number.isInteger(pid) && pid > 0 ? identify(pid) : undefined;
  if (!found) return undefined;
  if (process.platform !== "linux") return found;
  const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  const isPostgres = (commandLine.split("\0")[0] ?? "").endsWith("postgres") && commandLine.includes(cluster);
  return isPostgres ? found : undefined;
}

async function runInitdb(dataDir: DataDir, command: Omit<ServerCommand, "output">, signal: AbortSignal): Promise<void> {
  const logFile = join(dataDir.path, "logs", "initdb.log");
  const output = openSync(logFile, "w", 0o600);
  const initdb = startServer({ ...command, output });
  closeSync(output);
  // It leads its own process group, so its children (a Postgres in bootstrap mode) are killed with it.
  const kill = (): boolean => initdb.hasExited() || process.kill(-initdb.pid, "SIGKILL");
  signal.addEventListener("abort", kill);
  const { code } = await initdb.exited;
  signal.removeEventListener("abort", kill);
  signal.throwIfAborted();
  if (code !== 0) throw new Error(`initdb ended with ${code}:\n${await lastLines(logFile)}`);
}
