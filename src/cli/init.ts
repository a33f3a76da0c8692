import { relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { type Addition, addMigrations } from "../stack/migrations.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";

export const init: Command = {
  name: "init",
  summary: "put the migrations into your own Supabase project, or bring them up to date there",
  options: [
    "DIR      the project; else the folder here",
    "--force  add the package's text also where you edited a file of ours; your file stays, the new one comes after it",
  ],
  example: "work-claims init && supabase db push --remote",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { force: { type: "boolean" } },
    });
    if (positionals.length > 1) throw new WrongUsage("one folder was expected");
    const project = resolve(positionals[0] ?? ".");
    const addition = await addMigrations(project, { force: values.force ?? false });
    for (const line of told(addition, relative(process.cwd(), project) || ".")) console.log(line);
    return addition.conflicting.length > 0 ? exitCode.failed : exitCode.fine;
  },
};

function told(addition: Addition, project: string): string[] {
  const { added, updated, unchanged, edited, conflicting, config } = addition;
  const list = (what: string, names: readonly string[]): string[] => names.map((name) => `  ${what.padEnd(9)} ${name}`);
  const news = added.length + updated.length;
  return [
    `${project}/supabase/migrations: ${added.length} new, ${updated.length} updated, ${unchanged.length} as they were`,
    ...list("new", added),
    ...list("updated", updated),
    ...list("edited", edited),
    ...list("conflict", conflicting),
    ...(edited.length > 0
      ? ["Edited files are left as you made them; --force adds the package's text after them."]
      : []),
    ...(conflicting.length > 0
      ? [
          "Files in conflict were edited here and changed in the package; nothing was added for them. Compare, then --force adds the package's text.",
        ]
      : []),
    ...(config ? [`${project}/supabase/config.toml was written, as there was none.`] : []),
    news > 0 ? "Install them with: supabase db push --remote" : "There is nothing to push.",
  ];
}
