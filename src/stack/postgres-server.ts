import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { clearPredecessor, postgresEnvironment } from "./cluster.ts";
import type { DataDir } from "./data-dir.ts";
import type { OsUser } from "./os-user.ts";
import { freePort } from "./ports.ts";
import type { PostgresBinaries } from "./postgres-binaries.ts";
import { type Supervised, supervise } from "./supervise.ts";

/** A running Postgres. When it dies it is started again, on the same port. */
export type PostgresServer = {
  port: number;
  pid: () => number;
  /** Stop it and leave it stopped: `fast` writes everything, `immediate` is a crash. */
  stop: (mode: "fast" | "immediate") => Promise<void>;
  start: () => Promise<void>;
};

export type PostgresPlan = {
  dataDir: DataDir;
  cluster: string;
  binaries: PostgresBinaries;
  user: OsUser;
  /** The port that the user named; without one, the preferred or any free one. */
  port: number | undefined;
  preferredPort: number;
  signal: AbortSignal;
  log: (line: string) => void;
  onRestart: () => void;
};

export async function runPostgres(plan: PostgresPlan): Promise<PostgresServer> {
  let port = plan.port ?? (await freePort(plan.preferredPort));
  const start = (): Promise<Supervised> =>
    supervise(
      {
        name: "Postgres",
        command: async () => {
          await clearPredecessor(plan.cluster);
          return {
            file: plan.binaries.postgres,
            args: ["-D", plan.cluster, "-p", String(port), ...settings(plan.dataDir.ephemeral)],
            env: postgresEnvironment(),
            user: plan.user,
            stopSignal: "INT",
          };
        },
        isReady: (pid) => isReady(plan.cluster, pid),
        // Recovery after a crash may read a lot. A local database needs far less than a minute.
        startLimitMs: 60_000,
        logFile: join(plan.dataDir.path, "logs", "postgres.log"),
        onRestart: plan.onRestart,
      },
      plan.signal,
      plan.log,
    );
  // Another process may take a port after it was found to be free.
  for (let attempt = 0; ; attempt += 1) {
    try {
      const server = await start();
      return {
        port,
        pid: () => server.process().pid,
        stop: (mode) => server.stop(mode === "fast" ? "SIGINT" : "SIGQUIT", 15_000),
        start: server.start,
      };
    } catch (error) {
      const isTaken = String(error).includes("Address already in use");
      if (plan.port !== undefined || attempt === 4 || !isTaken) throw error;
      port = await freePort();
    }
  }
}

/** Whether the server says, in its lock file, that it takes connections. */
async function isReady(cluster: string, pid: number): Promise<boolean> {
  const lines = (await readFile(join(cluster, "postmaster.pid"), "utf8").catch(() => "")).split("\n");
  return Number(lines[0]) === pid && lines[7]?.trim() === "ready";
}

function settings(ephemeral: boolean): string[] {
  const values = [
    "listen_addresses=127.0.0.1",
    // A socket's path may have 107 bytes, and a data folder's is longer at times.
    "unix_socket_directories=",
    "max_connections=100",
    "password_encryption=scram-sha-256",
    "timezone=UTC",
    "log_timezone=UTC",
    // An ephemeral database need not survive a power cut; it survives a crash of Postgres without these.
    ...(ephemeral ? ["fsync=off", "full_page_writes=off"] : []),
  ];
  return values.flatMap((value) => ["-c", value]);
}
