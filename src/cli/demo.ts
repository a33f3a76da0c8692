import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import postgres, { type Sql } from "postgres";
import { createWorkClient } from "../client.ts";
import { type DemoWorker, denoProgram, type Host, startWorker, stopWorkers } from "../demo/processes.ts";
import { check, isExactlyOnce, takenBack } from "../demo/record.ts";
import { checkedLines, lookAtItLines, takenBackLines, workersTable } from "../demo/report.ts";
import { leaseSeconds, prepareTexts, textCount, workType } from "../demo/texts.ts";
import { finishedClaims, openClaims } from "../overview.ts";
import { plainLines, progressLines } from "../progress.ts";
import { packageRoot } from "../stack/package-root.ts";
import { type Stack, startStack } from "../stack/stack.ts";
import { type Command, exitCode } from "./command.ts";
import { openScreen, type Screen } from "./screen.ts";
import { pacer } from "./watch.ts";

/** When so much is done, one worker is killed: all are at work by then, and most is still to do. */
const killedAtShare = 1 / 3;

/** Many times what the work takes; past it something is broken, and the demo says so instead of waiting on. */
const patienceMs = 120_000;

/** A lively bar on a terminal, a handful of lines in a log. */
const lookEveryMs = { terminal: 200, log: 2500 };

/** What Ctrl-C leaves with, as a shell counts it. */
const interruptedCode = 130;

export const demo: Command = {
  name: "demo",
  summary: "see it work: several workers share a table, one of them is killed, every row is done once",
  options: [
    "--keep     leave the stack up afterwards, to look around in, until Ctrl-C or work-claims down",
    "--verbose  show what the workers say",
  ],
  example: "work-claims demo",
  async run(args) {
    const { values } = parseArgs({ args, options: { keep: { type: "boolean" }, verbose: { type: "boolean" } } });
    const interrupted = new AbortController();
    const stop = (): void => interrupted.abort();
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, stop);
    const screen = openScreen(process.stdout);
    try {
      return await show(screen, interrupted.signal, values.keep ?? false, values.verbose ?? false);
    } catch (error) {
      if (!interrupted.signal.aborted) throw error;
      screen.say("stopped; nothing is left running");
      return interruptedCode;
    } finally {
      screen.close();
      for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.off(signal, stop);
    }
  },
};

async function show(screen: Screen, signal: AbortSignal, isKept: boolean, isVerbose: boolean): Promise<number> {
  const hosts: Host[] = ["node", "node", "node", denoProgram() === undefined ? "node" : "deno"];
  screen.say(`work-claims demo: ${textCount} texts, ${hosts.length} workers, and one of them will be killed\n`);
  let began = performance.now();
  const workerLog: string[] = [];
  const done = (what: string): void => {
    screen.say(`✓ ${what} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
    began = performance.now();
  };
  const stack = await startStack({ ephemeral: true, migrations: packageRoot(), signal });
  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
  let workers: DemoWorker[] = [];
  try {
    done(
      `Postgres and PostgREST are up at ${stack.url}, ${stack.applied.length} migrations pushed by supabase db push`,
    );
    signal.throwIfAborted();
    await prepareTexts(sql);
    done(`table demo_texts is a pool: ${textCount} rows to do ${workType} on`);
    signal.throwIfAborted();
    workers = startWorkers(hosts, stack, (line) => (isVerbose ? screen.say(line) : workerLog.push(line)));
    screen.say(`✓ started ${workers.map(({ name, process }) => `${name} (pid ${process.pid})`).join(", ")}\n`);
    const killed = await work(screen, signal, stack, sql, workers);
    screen.settle();
    await stopWorkers(workers);
    const isRight = await report(screen, sql, workers, killed);
    if (!isRight) for (const line of workerLog) screen.say(line);
    if (isKept) {
      for (const line of lookAtItLines(stack)) screen.say(line);
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
      screen.say("stopping …");
    }
    return isRight ? exitCode.fine : exitCode.failed;
  } catch (error) {
    if (!signal.aborted) for (const line of workerLog) screen.say(line);
    throw error;
  } finally {
    await Promise.all([stopWorkers(workers), sql.end({ timeout: 1 })]);
    await stack.stop();
  }
}

function startWorkers(hosts: readonly Host[], stack: Stack, told: (line: string) => void): DemoWorker[] {
  const environment = {
    SUPABASE_URL: stack.url,
    SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
    // Claims in hand beside the one in work, so that a killed worker has some to lose.
    WORK_BATCH: "4",
  };
  return hosts.map((host, index) => {
    const place = hosts.slice(0, index + 1).filter((other) => other === host).length;
    return startWorker(`${host}-${place}`, host, environment, told);
  });
}

/** Shows the progress until all is done, and kills one worker on the way; answers which. */
async function work(
  screen: Screen,
  signal: AbortSignal,
  stack: Stack,
  sql: Sql,
  workers: readonly DemoWorker[],
): Promise<DemoWorker | undefined> {
  const client = createWorkClient({ url: stack.url, key: stack.secretKey });
  const paceOf = pacer();
  const began = performance.now();
  let killed: DemoWorker | undefined;
  let shownAt = Number.NEGATIVE_INFINITY;
  for (;;) {
    const rows = await client.overview();
    const running = workers.filter((worker) => !worker.process.hasExited());
    const paces = paceOf(rows, () => running.length, performance.now());
    const row = rows[0];
    const isDone = row !== undefined && openClaims(row) === 0;
    if (screen.isLive) screen.show(progressLines(rows, paces, screen.width()));
    else if (isDone || performance.now() - shownAt > lookEveryMs.log) {
      screen.show(plainLines(rows, paces));
      shownAt = performance.now();
    }
    if (isDone) return killed;
    if (running.length === 0) throw new Error("no worker is left running; what they said is above");
    if (performance.now() - began > patienceMs) throw new Error(`the work took longer than ${patienceMs / 1000} s`);
    if (!killed && row && finishedClaims(row) >= textCount * killedAtShare) {
      killed = await killOne(screen, sql, workers);
    }
    await pause(lookEveryMs.terminal, undefined, { signal });
  }
}

/** SIGKILL for the Node worker that holds the most. */
async function killOne(screen: Screen, sql: Sql, workers: readonly DemoWorker[]): Promise<DemoWorker | undefined> {
  const held = await sql<{ worker_id: string; count: number }[]>`
    select worker_id, count(*)::int from public.work_held group by worker_id order by count(*) desc, worker_id`;
  const most = held.find(({ worker_id }) => workers.some(({ name, host }) => name === worker_id && host === "node"));
  const victim = workers.find(({ name }) => name === most?.worker_id);
  if (!victim) return undefined;
  victim.process.kill("SIGKILL");
  screen.say(
    `✗ killed ${victim.name} (pid ${victim.process.pid}) with SIGKILL while it held ${most?.count} texts; ` +
      `their leases end within ${leaseSeconds} s, and others take them`,
  );
  return victim;
}

async function report(
  screen: Screen,
  sql: Sql,
  workers: readonly DemoWorker[],
  killed: DemoWorker | undefined,
): Promise<boolean> {
  const back = await takenBack(sql);
  const found = await check(sql);
  const parts = [[await workersTable(sql, workers, killed, back)], takenBackLines(back), checkedLines(found)];
  for (const lines of parts) screen.say(`\n${lines.join("\n")}`);
  return isExactlyOnce(found);
}
