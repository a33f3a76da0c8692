import { execFileSync } from "node:child_process";
import { appendFileSync, chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

/** The file in which `up` writes addresses and keys, and in which the other commands look for them. */
export const envFileName = ".env.work-claims";

/** The names in it, as Supabase's own tools use them. */
export type ProjectVariables = {
  SUPABASE_URL: string;
  SUPABASE_SERVICE_ROLE_KEY: string;
  SUPABASE_SECRET_KEY: string;
  SUPABASE_ANON_KEY: string;
  SUPABASE_PUBLISHABLE_KEY: string;
  SUPABASE_DB_URL: string;
};

/** Write the file, readable by its owner alone, and keep it out of git. */
export function writeEnvFile(folder: string, variables: ProjectVariables): string {
  const file = join(folder, envFileName);
  const lines = Object.entries(variables).map(([name, value]) => `${name}=${value}`);
  const text = ["# Written by work-claims up. The service key opens everything: keep this file to yourself.", ...lines];
  writeFileSync(file, `${text.join("\n")}\n`, { mode: 0o600 });
  // The mode above only counts for a new file.
  chmodSync(file, 0o600);
  keepOutOfGit(folder);
  return file;
}

/** The variables of the file in a folder; none without a file. */
export function readEnvFile(folder: string): Record<string, string> {
  const file = join(folder, envFileName);
  if (!existsSync(file)) return {};
  const pairs = readFileSync(file, "utf8")
    .split(/\r?\n/)
    .map((line) => /^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$/.exec(line))
    .flatMap((match) => (match ? [[match[1] ?? "", (match[2] ?? "").replace(/^(["'])(.*)\1$/, "$2")]] : []));
  return Object.fromEntries(pairs);
}

/** Add the file to the repository's exclude list, which is no part of its history, unless git ignores it already. */
function keepOutOfGit(folder: string): void {
  const git = (...args: string[]): string =>
    execFileSync("git", args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  try {
    const exclude = resolve(folder, git("rev-parse", "--git-path", "info/exclude"));
    try {
      git("check-ignore", "-q", envFileName);
    } catch {
      mkdirSync(dirname(exclude), { recursive: true });
      const before = existsSync(exclude) ? readFileSync(exclude, "utf8") : "";
      appendFileSync(exclude, `${before === "" || before.endsWith("\n") ? "" : "\n"}${envFileName}\n`);
    }
  } catch {
    // Without git or a repository, no commit can contain the file.
  }
}
