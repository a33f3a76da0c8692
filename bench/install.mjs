// Installs the packages of the bench where they are missing or older than the lockfile. Any Node runs this file; the
// scripts after it run with the newer Node that comes with these packages.
import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";

const changedAt = (path) => statSync(new URL(path, import.meta.url), { throwIfNoEntry: false })?.mtimeMs ?? 0;

if (changedAt("node_modules/.package-lock.json") < changedAt("package-lock.json")) {
  // The packages ask for the newer Node, which is among them: the warning about it says nothing.
  const { status } = spawnSync("npm", ["ci", "--loglevel=error"], {
    cwd: new URL(".", import.meta.url),
    stdio: ["ignore", "inherit", "inherit"],
    shell: process.platform === "win32",
  });
  process.exitCode = status ?? 1;
}
