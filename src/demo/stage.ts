import postgres, { type Sql } from "postgres";
import type { Screen } from "../cli/screen.ts";
import { createWorkClient, type WorkClient } from "../client.ts";
import { packageRoot } from "../stack/package-root.ts";
import { type Stack, startStack } from "../stack/stack.ts";
import { type DemoWorker, type Host, startWorker, stopWorkers, type WorkerEnvironment } from "./processes.ts";

/** A demo's own stack, and workers that end with it. */
export type Stage = {
  screen: Screen;
  signal: AbortSignal;
  stack: Stack;
  sql: Sql;
  client: WorkClient;
  workers: readonly DemoWorker[];
  start(name: string, host: Host, script: string, environment: WorkerEnvironment): DemoWorker;
  /** Tells that a step is done, and how long it took. */
  done(what: string): void;
};

export type Play = {
  title: string;
  /** True where all was as it should be. */
  perform(stage: Stage): Promise<boolean>;
  /** Hints for a user who looks at the stack after the run. */
  lookAtIt(stack: Stack): string[];
};

/** Runs the play, and takes the stage down even after an error. True where all was as it should be. */
export async function stage(
  play: Play,
  screen: Screen,
  signal: AbortSignal,
  { isKept, isVerbose }: { isKept: boolean; isVerbose: boolean },
): Promise<boolean> {
  screen.say(`${play.title}\n`);
  let began = performance.now();
  const workerLog: string[] = [];
  const told = (line: string): unknown => (isVerbose ? screen.say(line) : workerLog.push(line));
  const done = (what: string): void => {
    screen.say(`✓ ${what} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
    began = performance.now();
  };
  const stack = await startStack({ ephemeral: true, migrations: packageRoot(), signal });
  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
  const workers: DemoWorker[] = [];
  try {
    done(`Postgres and PostgREST are up at ${stack.url}, with the schema that supabase db push applied`);
    signal.throwIfAborted();
    const isRight = await play.perform({
      screen,
      signal,
      stack,
      sql,
      client: createWorkClient({ url: stack.url, key: stack.secretKey }),
      workers,
      start(name, host, script, environment) {
        const project = { SUPABASE_URL: stack.url, SUPABASE_SERVICE_ROLE_KEY: stack.secretKey };
        const worker = startWorker(name, host, script, { ...project, ...environment }, told);
        workers.push(worker);
        return worker;
      },
      done,
    });
    if (!isRight) for (const line of workerLog) screen.say(line);
    if (isKept) {
      for (const line of play.lookAtIt(stack)) screen.say(line);
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
      screen.say("stopping …");
    }
    return isRight;
  } catch (error) {
    if (!signal.aborted) for (const line of workerLog) screen.say(line);
    throw error;
  } finally {
    await Promise.all([stopWorkers(workers), sql.end({ timeout: 1 })]);
    await stack.stop();
  }
}

/** The workers' names and process ids: a user may want to kill one. */
export function startedLine(workers: readonly DemoWorker[]): string {
  return `✓ started ${workers.map(({ name, process }) => `${name} (pid ${process.pid})`).join(", ")}\n`;
}
