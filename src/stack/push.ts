import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { findStackPackage } from "./package-root.ts";

/** Bring a database to a project's migrations, by the real Supabase CLI. Answers with the names of those it applied. */
export async function pushMigrations(dbUrl: string, projectDir: string, signal?: AbortSignal): Promise<string[]> {
  if (!existsSync(join(projectDir, "supabase"))) {
    throw new Error(`${projectDir} has no supabase folder; run work-claims init there first`);
  }
  const output = await supabase(["db", "push", `--remote=${dbUrl}`, "--yes", "--workdir", projectDir], signal);
  return [...output.matchAll(/Applying migration (\S+?)\.{3}/g)].map((match) => match[1] ?? "");
}

/** Run the Supabase CLI that npm installed, without telemetry, questions and update checks. */
export function supabase(args: string[], signal?: AbortSignal): Promise<string> {
  const folder = findStackPackage("supabase");
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [join(folder, "dist/supabase.js"), ...args],
      { env: environment(), signal, maxBuffer: 64 * 1024 * 1024, killSignal: "SIGTERM" },
      (error, stdout, stderr) => {
        const output = `${stdout}\n${stderr}`;
        if (!error) resolve(output);
        else if (signal?.aborted) reject(signal.reason);
        else reject(new Error(`supabase ${args.slice(0, 2).join(" ")} failed: ${reason(output) || error.message}`));
      },
    );
  });
}

function environment(): NodeJS.ProcessEnv {
  return {
    ...process.env,
    DO_NOT_TRACK: "1",
    SUPABASE_TELEMETRY_DISABLED: "1",
    SUPABASE_NO_UPDATE_NOTIFIER: "1",
    NO_COLOR: "1",
    CI: "1",
  };
}

/** The part of the CLI's output that says why: from the first line with an error on. */
function reason(output: string): string {
  const lines = output
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
  const start = lines.findIndex((line) => /error/i.test(line));
  return lines.slice(start < 0 ? -4 : start, start < 0 ? undefined : start + 6).join(" ");
}
