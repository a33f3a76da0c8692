// Prints the size of the repository: lines by folder, the longest files and functions. Generated files do not count.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

const root = join(import.meta.dirname, "..");
const shown = 8;
/** Lengths beyond which two ideas share a file or a function. */
const limits = { file: 350, function: 90 };

const kinds = {
  SQL: {
    file: /\.sql$/,
    start: /^create (?:or replace )?function ([\w.]+)/,
    end: () => /^(\$\w*\$|end);$/,
  },
  TypeScript: {
    file: /\.(ts|mjs)$/,
    start: /^ *(?:export )?(?:async )?function\*? (\w+)|^ *(?:export )?const (\w+) = (?:async )?\(.*=> \{$/,
    // The closing brace has the column of the first line.
    end: (line) => new RegExp(`^${" ".repeat(line.search(/\S/))}\\}[);,]*$`),
  },
};

const listed = ["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"];
const files = execFileSync("git", listed, { cwd: root, encoding: "utf8" })
  .trim()
  .split("\n")
  .filter(
    (name) =>
      !name.endsWith("package-lock.json") &&
      !name.startsWith("supabase/migrations/") &&
      name !== "supabase/optional/work_tokens.sql",
  )
  // A file that is deleted and not yet committed is still listed.
  .filter((name) => existsSync(join(root, name)))
  .map((name) => ({ name, lines: readFileSync(join(root, name), "utf8").trimEnd().split("\n") }));

printFolders();
for (const [kind, { file, start, end }] of Object.entries(kinds)) {
  const ofKind = files.filter(({ name }) => file.test(name));
  const lengths = ofKind.map(({ name, lines }) => ({ name, length: lines.length }));
  const functions = ofKind.flatMap(({ name, lines }) => functionsIn(name, lines, start, end));
  console.log(`\n${kind}: ${lengths.reduce((sum, { length }) => sum + length, 0)} lines`);
  printLongest("files", lengths, limits.file);
  printLongest("functions", functions, limits.function);
}

function printFolders() {
  const folders = new Map();
  for (const { name, lines } of files) {
    // Two levels keep src/stack and src/cli separate.
    const folder = dirname(name).split("/").slice(0, 2).join("/");
    folders.set(folder, (folders.get(folder) ?? 0) + lines.length);
  }
  for (const [folder, lines] of [...folders].sort()) printRow(lines, folder);
  const total = files.reduce((sum, { lines }) => sum + lines.length, 0);
  printRow(total, `in ${files.length} files, without lock files and generated migrations`);
}

function functionsIn(name, lines, start, end) {
  return lines.flatMap((line, first) => {
    const found = start.exec(line);
    if (!found) return [];
    const isEnd = end(line);
    const length = lines.slice(first).findIndex((each) => isEnd.test(each)) + 1;
    return length > 0 ? [{ name: `${found[1] ?? found[2]} (${name}:${first + 1})`, length }] : [];
  });
}

function printLongest(what, rows, limit) {
  const beyond = rows.filter(({ length }) => length > limit).length;
  console.log(`\n  ${rows.length} ${what}, ${beyond} of them longer than ${limit} lines`);
  for (const { name, length } of rows.sort((one, other) => other.length - one.length).slice(0, shown)) {
    printRow(length, name);
  }
}

function printRow(lines, text) {
  console.log(`${String(lines).padStart(7)}  ${text}`);
}
