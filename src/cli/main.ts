#!/usr/bin/env node
import { RequestError } from "../../workers/runtime/errors.ts";
import { packageManifest } from "../stack/package-root.ts";
import { attach } from "./attach.ts";
import { cancel } from "./cancel.ts";
import { claims } from "./claims.ts";
import { type Command, exitCode, NoProject, WrongUsage } from "./command.ts";
import { demo } from "./demo.ts";
import { doctor } from "./doctor.ts";
import { down } from "./down.ts";
import { explain } from "./explain.ts";
import { fleet } from "./fleet.ts";
import { history } from "./history.ts";
import { init } from "./init.ts";
import { invalidate } from "./invalidate.ts";
import { items } from "./items.ts";
import { match } from "./match.ts";
import { printable } from "./printable.ts";
import { priority } from "./priority.ts";
import { retry } from "./retry.ts";
import { status } from "./status.ts";
import { token } from "./token.ts";
import { types } from "./types.ts";
import { up } from "./up.ts";
import { watch } from "./watch.ts";
import { workers } from "./workers.ts";

const commands: readonly Command[] = [
  up,
  down,
  init,
  doctor,
  attach,
  types,
  token,
  status,
  watch,
  items,
  claims,
  workers,
  explain,
  history,
  match,
  retry,
  invalidate,
  cancel,
  priority,
  fleet,
  demo,
];

function overallHelp(): string {
  const width = Math.max(...commands.map((command) => command.name.length));
  return [
    "work-claims: workers on any machine share the rows of a Supabase or Postgres table.",
    "",
    "usage: work-claims COMMAND [arguments]",
    "",
    ...commands.flatMap((command) => [
      `  ${command.name.padEnd(width)}  ${command.summary}`,
      `  ${" ".repeat(width)}  $ ${command.example}`,
    ]),
    "",
    "work-claims COMMAND --help shows what a command takes, work-claims --version which one this is.",
    "The project is the one of --url, --key and --db-url, of the environment, or of .env.work-claims here.",
    "exit codes: 0 fine, 1 failed, 2 typed wrongly, 3 no project, or it does not answer",
  ].join("\n");
}

function helpOf(command: Command): string {
  const options = (command.options ?? []).map((option) => `  ${option}`);
  return [
    `work-claims ${command.name}: ${command.summary}`,
    ...(options.length > 0 ? ["", ...options] : []),
    "",
    "for example:",
    `  $ ${command.example}`,
  ].join("\n");
}

/** A server that does not answer, a name or password it refuses, work-claims not installed there. */
const noProjectCodes: Record<"http" | "database", readonly string[]> = {
  http: ["network", "timeout", "PGRST202", "PGRST205", "42883", "42P01"],
  database: ["ECONNREFUSED", "ECONNRESET", "ENOTFOUND", "EAI_AGAIN", "CONNECT_TIMEOUT", "28P01", "28000", "3D000"],
};

/** The exit code for an error. */
function exitCodeOf(error: unknown): number {
  if (error instanceof WrongUsage) return exitCode.wrongUsage;
  if (error instanceof NoProject) return exitCode.noProject;
  if (error instanceof RequestError) {
    const isRefused = error.status === 401 || error.status === 403;
    return isRefused || noProjectCodes.http.includes(error.code) ? exitCode.noProject : exitCode.failed;
  }
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (code.startsWith("ERR_PARSE_ARGS_")) return exitCode.wrongUsage;
  return noProjectCodes.database.includes(code) ? exitCode.noProject : exitCode.failed;
}

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    const asked = commands.find((command) => command.name === rest[0]);
    console.log(asked ? helpOf(asked) : overallHelp());
    return name === undefined ? exitCode.wrongUsage : exitCode.fine;
  }
  if (name === "--version") {
    console.log(packageManifest().version);
    return exitCode.fine;
  }
  const command = commands.find((candidate) => candidate.name === name);
  if (!command) {
    console.error(`work-claims: ${name} is no command; there are ${commands.map((known) => known.name).join(", ")}`);
    return exitCode.wrongUsage;
  }
  if (rest.includes("--help") || rest.includes("-h")) {
    console.log(helpOf(command));
    return exitCode.fine;
  }
  try {
    return await command.run(rest);
  } catch (error) {
    const code = exitCodeOf(error);
    const message = error instanceof Error ? error.message : String(error);
    console.error(`work-claims ${name}: ${message.split("\n").map(printable).join("\n")}`);
    if (code === exitCode.wrongUsage) console.error(`see work-claims ${name} --help`);
    return code;
  }
}

// `work-claims watch | head` ends when head has enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) =>
  process.exit(error.code === "EPIPE" ? 0 : exitCode.failed),
);

const code: number = await main(process.argv.slice(2));
// An interrupted command may leave a call under way; exit without waiting for it.
process.stdout.write("", () => process.exit(code));
