// Builds the one migration of supabase/schemas, in the order of file names. With --check it only compares.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const here = import.meta.dirname;
const target = join(here, "migrations", "20261101000100_work_claims.sql");
const { version } = JSON.parse(readFileSync(join(here, "..", "package.json"), "utf8"));

const sources = readdirSync(join(here, "schemas"))
  .filter((name) => name.endsWith(".sql"))
  .sort();
const parts = sources.map((name) => `-- ${name}\n\n${readFileSync(join(here, "schemas", name), "utf8").trim()}\n`);
const text = [
  `-- work-claims ${version}\n-- Built of supabase/schemas; edit there. The file may be run again: an update is the next version of it.\n`,
  ...parts,
]
  .join("\n")
  .replaceAll("{{version}}", version);

const present = existsSync(target) ? readFileSync(target, "utf8") : "";
if (present !== text) {
  if (process.argv.includes("--check")) {
    console.error("The migration is older than supabase/schemas: run npm run build:sql.");
    process.exit(1);
  }
  writeFileSync(target, text);
}
