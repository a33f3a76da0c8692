// Run before `npm start` and `npm test`: installs the packages of package-lock.json and builds dist/, each only when needed.
// Plain JavaScript without an import from npm, since on a fresh clone there is nothing else yet.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stamp = join(root, "dist", ".built");

if (Number.parseInt(process.versions.node, 10) < 20) {
  stop(`This is Node ${process.versions.node}; work-claims needs Node 20 or later.`);
}
if (!isInstalled()) install();
const sources = sourcesDigest();
if (read(stamp) !== sources) build();
linkCommand();

/** npm keeps a list in node_modules of all that it put there. Each package of the lock file has to be in it. */
function isInstalled() {
  const wanted = JSON.parse(read(join(root, "package-lock.json")) ?? "{}").packages ?? {};
  const present = JSON.parse(read(join(root, "node_modules", ".package-lock.json")) ?? "{}").packages ?? {};
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === "") return true;
    // Packages for other platforms are optional and absent.
    return present[path] ? present[path].version === entry.version : entry.optional === true;
  });
}

function install() {
  console.error("Installing what package-lock.json asks for with npm ci; the first time this takes a minute or two.");
  const npm = process.env.npm_execpath;
  const isScript = npm !== undefined && /npm-cli\.[cm]?js$/.test(npm);
  const [file, first] = isScript ? [process.execPath, [npm]] : ["npm", []];
  const { status, error } = spawnSync(file, [...first, "ci", "--include=dev", "--include=optional"], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (status !== 0) stop(`npm ci failed${error ? ` (${error.message})` : ""}; its own words are above.`);
}

function build() {
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  const { status } = spawnSync(process.execPath, [compiler, "-p", "tsconfig.json"], { cwd: root, stdio: "inherit" });
  if (status !== 0) stop("The build failed; the compiler's words are above.");
  writeFileSync(stamp, sources);
}

/** npm links the command of an installed package, and not in the package's own clone: there `npx work-claims` needs this. */
function linkCommand() {
  const command = join(root, "node_modules", ".bin", "work-claims");
  if (process.platform === "win32") return;
  // Also where the link is there: dist/ may have been removed and built again.
  chmodSync(join(root, "dist", "src", "cli", "main.js"), 0o755);
  if (!existsSync(command)) symlinkSync(join("..", "..", "dist", "src", "cli", "main.js"), command);
}

/** Names, sizes and times of all that the build is made of. */
function sourcesDigest() {
  const files = ["package.json", "tsconfig.json"].map((name) => join(root, name));
  for (const folder of ["src", "workers"]) collect(join(root, folder), files);
  const digest = createHash("sha256");
  for (const file of files.sort()) {
    const { size, mtimeMs } = statSync(file);
    digest.update(`${relative(root, file)} ${size} ${mtimeMs}\n`);
  }
  return digest.digest("hex");
}

function collect(folder, files) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) collect(path, files);
    else if (entry.name.endsWith(".ts")) files.push(path);
  }
}

function read(file) {
  return existsSync(file) ? readFileSync(file, "utf8") : undefined;
}

function stop(sentence) {
  console.error(sentence);
  process.exit(1);
}
