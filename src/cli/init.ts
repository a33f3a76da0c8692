import { existsSync } from "node:fs";
import { relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { addEdgeFunctions } from "../stack/edge-files.ts";
import { addMigration, holdsMigration, type MigrationName } from "../stack/migrations.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { envFileName } from "./env-file.ts";

export const init: Command = {
  name: "init",
  summary: "put the migration into your own Supabase project, or the one of a new version",
  options: [
    "DIR       the project; else the folder here",
    "--edge    with the Edge Functions work-drain and work-callback, and a schedule for the first",
    "--tokens  with the migration for workers that have a token in place of the key",
  ],
  example: "work-claims init",
  async run(args) {
    const { positionals, values } = parseArgs({
      args,
      allowPositionals: true,
      options: { edge: { type: "boolean" }, tokens: { type: "boolean" } },
    });
    if (positionals.length > 1) throw new WrongUsage("one folder was expected");
    const project = resolve(positionals[0] ?? ".");
    const folder = relative(process.cwd(), project) || ".";
    const wanted = { work_claims: true, work_schedule: values.edge, work_tokens: values.tokens };
    let isAdded = false;
    for (const [name, isWanted] of Object.entries(wanted) as [MigrationName, boolean | undefined][]) {
      // A project that has an optional one needs it again after a new migration of work-claims.
      if (isWanted || (await holdsMigration(project, name))) isAdded = (await add(project, folder, name)) || isAdded;
    }
    if (values.edge) await addEdge(project, folder);
    if (isAdded) {
      console.log("Apply it with:");
      console.log(`  $ ${pushCommand(folder)}`);
    }
    if (values.edge) {
      console.log("Deploy the functions with:");
      for (const name of ["work-drain", "work-callback"]) {
        console.log(`  $ npx supabase functions deploy ${name} --use-api${workdir(folder)}`);
      }
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

async function addEdge(project: string, folder: string): Promise<void> {
  const { written, kept } = await addEdgeFunctions(project);
  for (const path of written) console.log(`${folder}/supabase/${path} was written`);
  for (const path of kept) console.log(`${folder}/supabase/${path} is yours, and was left as it is`);
}

/** A command that works in a project that is not linked. The shell reads the address from the file that `up` wrote. */
function pushCommand(folder: string): string {
  const push = `npx supabase db push --remote="$SUPABASE_DB_URL" --yes${workdir(folder)}`;
  return process.env.SUPABASE_DB_URL === undefined && existsSync(envFileName) ? `(. ./${envFileName}; ${push})` : push;
}

function workdir(folder: string): string {
  return folder === "." ? "" : ` --workdir "${folder}"`;
}
