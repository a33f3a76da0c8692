import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type ServerProcess, startServer, stopServer } from "./child.ts";
import type { OsUser } from "./os-user.ts";
import { freePort } from "./ports.ts";

/** A running PostgREST; it comes back by itself when it dies. */
export type PostgrestServer = {
  port: () => number;
  pid: () => number;
  /** Look at the database at once instead of after its own growing pauses. */
  reconnect: () => void;
  stop: () => Promise<void>;
};

export type PostgrestPlan = {
  file: string;
  /** The folder for its log. */
  logs: string;
  /** The database, as the role authenticator. */
  dbUrl: string;
  jwtSecret: string;
  user: OsUser;
  signal: AbortSignal;
  log: (line: string) => void;
  onRestart: () => void;
};

export async function runPostgrest(plan: PostgrestPlan): Promise<PostgrestServer> {
  let isWanted = true;
  let { server, port } = await launch(plan, () => isWanted);
  let starting: Promise<void> | undefined;

  function watch(watched: ServerProcess): void {
    void watched.exited.then(({ code, signal }) => {
      if (!isWanted) return;
      plan.log(`PostgREST ended by itself (${signal ?? `code ${code}`}); it is started again`);
      starting = restartUntilReady();
    });
  }

  async function restartUntilReady(): Promise<void> {
    for (let pause = 50; isWanted; pause = Math.min(pause * 2, 2_000)) {
      try {
        ({ server, port } = await launch(plan, () => isWanted));
        watch(server);
        plan.onRestart();
        return;
      } catch (error) {
        if (isWanted) plan.log(String(error));
        await sleep(pause);
      }
    }
  }

  watch(server);
  return {
    port: () => port,
    pid: () => server.pid,
    // Its signal for: read the schema again, on a new connection if need be.
    reconnect: () => server.kill("SIGUSR1"),
    stop: async () => {
      isWanted = false;
      await starting;
      await stopServer(server, "SIGTERM", 3_000);
    },
  };
}

async function launch(plan: PostgrestPlan, isWanted: () => boolean): Promise<{ server: ServerProcess; port: number }> {
  const port = await freePort();
  const server = startServer({
    file: plan.file,
    args: [],
    env: environment(plan, port),
    user: plan.user,
    stopSignal: "TERM",
    output: "pipe",
  });
  const output = createWriteStream(join(plan.logs, "postgrest.log"), { flags: "a", mode: 0o600 });
  output.on("error", (error) => plan.log(`PostgREST's log is not written: ${error.message}`));
  let lines = "";
  const keep = (chunk: Buffer): void => {
    lines = (lines + chunk.toString()).slice(-2_000);
    output.write(chunk);
  };
  server.child.stdout?.on("data", keep);
  server.child.stderr?.on("data", keep);
  server.child.once("close", () => output.end());
  const limit = performance.now() + 30_000;
  while (!(await hasSchema(port))) {
    if (server.hasExited()) throw new Error(`PostgREST did not start; it said\n${lines.trimEnd()}`);
    if (plan.signal.aborted || !isWanted() || performance.now() > limit) {
      await stopServer(server, "SIGTERM", 3_000);
      plan.signal.throwIfAborted();
      throw new Error(`PostgREST was not ready after 30 seconds; it said\n${lines.trimEnd()}`);
    }
    await sleep(10);
  }
  return { server, port };
}

/** Until the schema is read every answer is 503; afterwards this table is just not found. */
async function hasSchema(port: number): Promise<boolean> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/is_the_schema_read`, { signal: AbortSignal.timeout(2_000) });
    await answer.body?.cancel();
    return answer.status !== 503;
  } catch {
    return false;
  }
}

/** As a hosted project sets it. Environment, not arguments: those can be read by every user of the machine. */
function environment(plan: PostgrestPlan, port: number): Record<string, string> {
  return {
    PATH: process.env.PATH ?? "/usr/bin:/bin",
    PGRST_DB_URI: plan.dbUrl,
    PGRST_DB_SCHEMAS: "public",
    PGRST_DB_EXTRA_SEARCH_PATH: "public,extensions",
    PGRST_DB_ANON_ROLE: "anon",
    PGRST_DB_MAX_ROWS: "1000",
    PGRST_DB_POOL: "20",
    PGRST_DB_USE_LEGACY_GUCS: "false",
    PGRST_JWT_SECRET: plan.jwtSecret,
    PGRST_SERVER_HOST: "127.0.0.1",
    PGRST_SERVER_PORT: String(port),
    PGRST_LOG_LEVEL: "error",
  };
}
