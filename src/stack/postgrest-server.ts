import { join } from "node:path";
import { freePort } from "./ports.ts";
import { supervise } from "./supervise.ts";

/** A running PostgREST. When it dies it is started again, on another port. */
export type PostgrestServer = {
  port: () => number;
  pid: () => number;
  /** Connect to the database at once instead of after its own growing pauses. */
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
  signal: AbortSignal;
  log: (line: string) => void;
  onRestart: () => void;
};

export async function runPostgrest(plan: PostgrestPlan): Promise<PostgrestServer> {
  let port = 0;
  const server = await supervise(
    {
      name: "PostgREST",
      command: async () => {
        port = await freePort();
        return { file: plan.file, args: [], env: environment(plan, port), user: undefined, stopSignal: "TERM" };
      },
      isReady: () => hasSchema(port),
      startLimitMs: 30_000,
      logFile: join(plan.logs, "postgrest.log"),
      onRestart: plan.onRestart,
    },
    plan.signal,
    plan.log,
  );
  return {
    port: () => port,
    pid: () => server.process().pid,
    // By this signal PostgREST reads the schema again, on a new connection if need be.
    reconnect: () => server.process().kill("SIGUSR1"),
    stop: () => server.stop("SIGTERM", 3_000),
  };
}

/** PostgREST answers 503 until it has read the schema, and 404 for this table afterwards. */
async function hasSchema(port: number): Promise<boolean> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/is_the_schema_read`, { signal: AbortSignal.timeout(2_000) });
    await answer.body?.cancel();
    return answer.status !== 503;
  } catch {
    return false;
  }
}

/** The settings of a hosted project. Every user of the machine can read arguments, so they go through the environment. */
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
