import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type ServerProcess, startServer, stopServer } from "./child.ts";
import { clearPredecessor, isReady, lastLines, postgresEnvironment } from "./cluster.ts";
import type { DataDir } from "./data-dir.ts";
import type { OsUser } from "./os-user.ts";
import { freePort } from "./ports.ts";
import type { PostgresBinaries } from "./postgres-binaries.ts";

/** A running Postgres; it comes back by itself when it dies, on the same port. */
export type PostgresServer = {
  port: number;
  pid: () => number;
  /** Take it down and leave it down: `fast` writes everything, `immediate` is a crash. */
  stop: (mode: "fast" | "immediate") => Promise<void>;
  start: () => Promise<void>;
};

export type PostgresPlan = {
  dataDir: DataDir;
  cluster: string;
  binaries: PostgresBinaries;
  user: OsUser;
  /** The port a person named; without one, the preferred or any free one. */
  port: number | undefined;
  preferredPort: number;
  signal: AbortSignal;
  log: (line: string) => void;
  onRestart: () => void;
};

export async function runPostgres(plan: PostgresPlan): Promise<PostgresServer> {
  let port = plan.port ?? (await freePort(plan.preferredPort));
  let server = await launchOnFreePort();
  let isWanted = true;

  /** Between looking for a free port and using it somebody else may take it. */
  async function launchOnFreePort(): Promise<ServerProcess> {
    for (let turn = 0; ; turn += 1) {
      try {
        return await launch(plan, port);
      } catch (error) {
        if (plan.port !== undefined || turn === 4 || !String(error).includes("Address already in use")) throw error;
        port = await freePort();
      }
    }
  }

  let starting: Promise<void> | undefined;

  /** One start at a time, tried until it succeeds or is unwanted. */
  function restart(): Promise<void> {
    starting ??= restartUntilReady().finally(() => {
      starting = undefined;
    });
    return starting;
  }

  async function restartUntilReady(): Promise<void> {
    for (let pause = 50; isWanted; pause = Math.min(pause * 2, 2_000)) {
      try {
        await clearPredecessor(plan.cluster);
        server = await launch(plan, port);
        watch(server);
        plan.onRestart();
        return;
      } catch (error) {
        plan.log(String(error));
        await sleep(pause);
      }
    }
  }

  function watch(watched: ServerProcess): void {
    void watched.exited.then(({ code, signal }) => {
      if (!isWanted) return;
      plan.log(`Postgres ended by itself (${signal ?? `code ${code}`}); it is started again`);
      void restart();
    });
  }

  watch(server);
  return {
    port,
    pid: () => server.pid,
    stop: async (mode) => {
      isWanted = false;
      await starting;
      await stopServer(server, mode === "fast" ? "SIGINT" : "SIGQUIT", 15_000);
    },
    start: async () => {
      isWanted = true;
      if (server.hasExited()) await restart();
    },
  };
}

async function launch(plan: PostgresPlan, port: number): Promise<ServerProcess> {
  const logFile = join(plan.dataDir.path, "logs", "postgres.log");
  const output = openSync(logFile, "a", 0o600);
  const server = startServer({
    file: plan.binaries.postgres,
    args: ["-D", plan.cluster, "-p", String(port), ...settings(plan.dataDir.ephemeral)],
    env: postgresEnvironment(),
    user: plan.user,
    stopSignal: "INT",
    output,
  });
  closeSync(output);
  // Recovery after a crash may read a lot; a minute is far beyond what a local database needs.
  const limit = performance.now() + 60_000;
  while (!(await isReady(plan.cluster, server.pid))) {
    if (server.hasExited())
      throw new Error(`Postgres did not start; its log ends with\n${await lastLines(logFile, 6)}`);
    if (plan.signal.aborted || performance.now() > limit) {
      await stopServer(server, "SIGINT", 5_000);
      plan.signal.throwIfAborted();
      throw new Error(`Postgres was not ready after a minute; its log ends with\n${await lastLines(logFile, 6)}`);
    }
    await sleep(10);
  }
  return server;
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
    // What is thrown away anyway need not survive a power cut; it survives a crash of Postgres as it is.
    ...(ephemeral ? ["fsync=off", "full_page_writes=off"] : []),
  ];
  return values.flatMap((value) => ["-c", value]);
}
