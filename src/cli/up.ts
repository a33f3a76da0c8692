import { spawn } from "node:child_process";
import { existsSync, openSync, readFileSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { removeUnused } from "../stack/data-dir.ts";
import { AlreadyRunning } from "../stack/lock.ts";
import { addMigration, holdsMigration } from "../stack/migrations.ts";
import { isAlive } from "../stack/process-identity.ts";
import type { Grants } from "../stack/roles.ts";
import { startStack } from "../stack/stack.ts";
import { keysFile, lockFile, runningFile } from "../stack/state-files.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { type ProjectVariables, writeEnvFile } from "./env-file.ts";

/** The exit code after Ctrl-C during a start. */
const interruptedCode = 130;

type Wanted = {
  port: number | undefined;
  dbPort: number | undefined;
  dataDir: string | undefined;
  ephemeral: boolean;
  grants: Grants;
};

export const up: Command = {
  name: "up",
  summary: "a Supabase project on this machine, with the migrations of work-claims, until Ctrl-C",
  options: [
    "--port N         the port of its address; else that of last time, 54321, or a free one",
    "--db-port N      the port of Postgres; else that of last time, 54322, or a free one",
    "--data DIR       where data and keys are kept between runs; else .work-claims",
    "--ephemeral      keep nothing",
    "--grants old|new Supabase's default privileges: old projects grant all to the API's roles, new ones nothing",
    "--detach         return when it is ready, and leave it running until work-claims down",
  ],
  example: "work-claims up",
  async run(args) {
    const { values } = parseArgs({
      args,
      options: {
        port: { type: "string" },
        "db-port": { type: "string" },
        data: { type: "string" },
        ephemeral: { type: "boolean" },
        grants: { type: "string" },
        detach: { type: "boolean" },
      },
    });
    const wanted: Wanted = {
      port: portOf(values.port, "--port"),
      dbPort: portOf(values["db-port"], "--db-port"),
      dataDir: values.data,
      ephemeral: values.ephemeral ?? false,
      grants: grantsOf(values.grants),
    };
    if (!values.detach) return runUntilStopped(wanted);
    if (wanted.ephemeral)
      throw new WrongUsage("--detach and --ephemeral exclude each other: down could not find the folder");
    return detach(args, resolve(wanted.dataDir ?? ".work-claims"));
  },
};

async function runUntilStopped(wanted: Wanted): Promise<number> {
  const dataDir = resolve(wanted.dataDir ?? ".work-claims");
  const holder = wanted.ephemeral ? undefined : await lockFile.read(dataDir);
  if (holder && isAlive(holder)) return showRunning(dataDir);
  const stopping = new AbortController();
  let asked = 0;
  let isUpdating = false;
  const onSignal = (): void => {
    asked += 1;
    // On a second signal, leave at once: the guards beside the servers stop those.
    if (asked > 1) process.exit(interruptedCode);
    stopping.abort(new Error("stopped"));
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, onSignal);
  try {
    console.log("starting Postgres and PostgREST …");
    const stack = await startStack({
      ...wanted,
      migrations: async (folder) => {
        if (await holdsMigration(process.cwd())) return process.cwd();
        const { added, previous } = await addMigration(join(folder, "project"));
        isUpdating = added !== undefined && previous !== undefined;
        return join(folder, "project");
      },
      functions: { folder: join(process.cwd(), "supabase") },
      signal: stopping.signal,
      log: console.error,
    });
    const variables = variablesOf(stack);
    const file = writeEnvFile(process.cwd(), variables);
    for (const name of stack.applied) console.log(`applied ${name} with supabase db push`);
    for (const line of addressLines(variables, file)) console.log(line);
    console.log(
      wanted.ephemeral ? "Ctrl-C stops it and removes its data." : `Ctrl-C stops it; data stays in ${stack.dataDir}.`,
    );
    if (!stopping.signal.aborted) {
      await new Promise((leave) => stopping.signal.addEventListener("abort", leave, { once: true }));
    }
    console.log("stopping …");
    await stack.stop();
    if (wanted.ephemeral) forget(file, variables);
    return exitCode.fine;
  } catch (error) {
    if (stopping.signal.aborted) {
      console.log("stopped before it was ready; nothing is left running");
      return interruptedCode;
    }
    if (error instanceof AlreadyRunning) return showRunning(error.path);
    if (isUpdating && (error as Error).message.startsWith("supabase db push failed")) {
      throw new Error(
        `${(error as Error).message}\n${dataDir} was made by another work-claims; remove it, or name another with --data`,
      );
    }
    throw error;
  } finally {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.off(signal, onSignal);
  }
}

/** Run the same command again without a terminal, and wait until it is ready. */
async function detach(args: readonly string[], dataDir: string): Promise<number> {
  const made = await mkdir(join(dataDir, "logs"), { recursive: true });
  const logFile = join(dataDir, "logs", "up.log");
  const log = openSync(logFile, "w", 0o600);
  const rest = args.filter((argument) => argument !== "--detach");
  const child = spawn(process.execPath, [process.argv[1] ?? "", "up", ...rest], {
    detached: true,
    stdio: ["ignore", log, log],
  });
  let code: number | null | undefined;
  child.once("exit", (left) => {
    code = left;
  });
  while (code === undefined) {
    const note = await runningFile.read(dataDir);
    if (note?.isReady && note.owner.pid === child.pid) {
      child.unref();
      await showRunning(dataDir);
      return exitCode.fine;
    }
    await sleep(50);
  }
  process.stdout.write(readFileSync(logFile, "utf8"));
  await removeUnused(dataDir, made);
  return code ?? exitCode.failed;
}

async function showRunning(dataDir: string): Promise<number> {
  const [note, keys] = await Promise.all([runningFile.read(dataDir), keysFile.read(dataDir)]);
  if (!note?.isReady || !keys) {
    console.log(`a stack on ${dataDir} is being started by another process; try again in a moment`);
    return exitCode.failed;
  }
  const variables = variablesOf({ ...keys, url: note.url, dbUrl: note.dbUrl });
  const file = writeEnvFile(process.cwd(), variables);
  console.log(`running as process ${note.owner.pid}, on ${relative(process.cwd(), dataDir) || dataDir}`);
  for (const line of addressLines(variables, file)) console.log(line);
  console.log(`work-claims down --data ${dataDir} stops it.`);
  return exitCode.fine;
}

function variablesOf(stack: {
  url: string;
  serviceKey: string;
  secretKey: string;
  anonKey: string;
  publishableKey: string;
  dbUrl: string;
}): ProjectVariables {
  return {
    SUPABASE_URL: stack.url,
    SUPABASE_SERVICE_ROLE_KEY: stack.serviceKey,
    SUPABASE_SECRET_KEY: stack.secretKey,
    SUPABASE_ANON_KEY: stack.anonKey,
    SUPABASE_PUBLISHABLE_KEY: stack.publishableKey,
    SUPABASE_DB_URL: stack.dbUrl,
  };
}

function addressLines(variables: ProjectVariables, file: string): string[] {
  return [
    "",
    `  address      ${variables.SUPABASE_URL}`,
    `  service key  ${variables.SUPABASE_SERVICE_ROLE_KEY}`,
    `  secret key   ${variables.SUPABASE_SECRET_KEY}`,
    `  anon key     ${variables.SUPABASE_ANON_KEY}`,
    `  public key   ${variables.SUPABASE_PUBLISHABLE_KEY}`,
    `  database     ${variables.SUPABASE_DB_URL}`,
    "",
    "The service key and the secret key open everything: they belong to workers, never into a browser.",
    `All of it is in ${file}, for the other commands and for workers.`,
  ];
}

/** Remove the env file, unless another stack has written it since. */
function forget(file: string, variables: ProjectVariables): void {
  if (existsSync(file) && readFileSync(file, "utf8").includes(variables.SUPABASE_SECRET_KEY)) rmSync(file);
}

function portOf(text: string | undefined, flag: string): number | undefined {
  if (text === undefined) return undefined;
  const port = Number(text);
  if (Number.isInteger(port) && port >= 1 && port <= 65535) return port;
  throw new WrongUsage(`${flag} is ${text}; a port is a whole number from 1 to 65535`);
}

function grantsOf(text: string | undefined): Grants {
  if (text === undefined || text === "old" || text === "new") return text ?? "old";
  throw new WrongUsage(`--grants is ${text}; old or new was expected`);
}
