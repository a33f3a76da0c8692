import { existsSync } from "node:fs";
import { relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { addMigration, holdsMigration, type MigrationName } from "../stack/migrations.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { envFileName } from "./env-file.ts";

export const init: Command = {
  name: "init",
  summary: "put the migration into your own Supabase project, or the one of a new version",
  options: [
    "DIR       the project; else the folder here",
    "--tokens  with the migration for workers that have a token in place of the key",
  ],
  example: "work-claims init",
  async run(args) {
    const { positionals, values } = parseArgs({
      args,
      allowPositionals: true,
      options: { tokens: { type: "boolean" } },
    });
    if (positionals.length > 1) throw new WrongUsage("one folder was expected");
    const project = resolve(positionals[0] ?? ".");
    const folder = relative(process.cwd(), project) || ".";
    let isAdded = await add(project, folder, "work_claims");
    // A project that has it already needs it again after a new migration of work-claims.
    const hasTokens = values.tokens || (await holdsMigration(project, "work_tokens"));
    if (hasTokens) isAdded = (await add(project, folder, "work_tokens")) || isAdded;
    if (isAdded) {
      console.log("Apply it with:");
      console.log(`  $ ${pushCommand(folder)}`);
    }
    return exitCode.fine;
  },
};

/** True where a migration was written. */
async function add(project: string, folder: string, name: MigrationName): Promise<boolean> {
  const { added, previous, changes, config } = await addMigration(project, { name });
  if (config) console.log(`${folder}/supabase/config.toml was written, as there was none`);
  if (added === undefined) {
    console.log(`${folder}/supabase/migrations/${previous} is the migration of this version already`);
    return false;
  }
  console.log(`${folder}/supabase/migrations/${added} was written${previous ? `; it comes after ${previous}` : ""}`);
  for (const change of changes) console.log(`  ${change}`);
  return true;
}

/** A command that works in a project that is not linked. The shell reads the address from the file that `up` wrote. */
function pushCommand(folder: string): string {
  const where = folder === "." ? "" : ` --workdir "${folder}"`;
  const push = `npx supabase db push --remote="$SUPABASE_DB_URL" --yes${where}`;
  return process.env.SUPABASE_DB_URL === undefined && existsSync(envFileName) ? `(. ./${envFileName}; ${push})` : push;
}
