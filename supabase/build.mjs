// Builds each migration of the files in a folder, in the order of their names. With --check it only compares.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const here = import.meta.dirname;
const { version } = JSON.parse(readFileSync(join(here, "..", "package.json"), "utf8"));

build(
  "schemas",
  join("migrations", "20261101000100_work_claims.sql"),
  `-- work-claims ${version}
-- Built of supabase/schemas; edit there. The file may be run again: an update is the next version of it.`,
);
build(
  join("optional", "work_tokens"),
  join("optional", "work_tokens.sql"),
  `-- Tokens for workers, beside the migration of work-claims: docs/tokens.md
-- Built of supabase/optional/work_tokens; edit there. The file may be run again, and must be after an update of work-claims.`,
);

function build(folder, target, head) {
  const sources = readdirSync(join(here, folder))
    .filter((name) => name.endsWith(".sql"))
    .sort();
  const parts = sources.map((name) => `-- ${name}\n\n${readFileSync(join(here, folder, name), "utf8").trim()}\n`);
  const text = [`${head}\n`, ...parts].join("\n").replaceAll("{{version}}", version);
  const file = join(here, target);
  if (existsSync(file) && readFileSync(file, "utf8") === text) return;
  if (process.argv.includes("--check")) {
    console.error(`supabase/${target} is older than supabase/${folder}: run npm run build:sql.`);
    process.exitCode = 1;
  } else {
    writeFileSync(file, text);
  }
}
