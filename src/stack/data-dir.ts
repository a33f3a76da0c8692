import { randomBytes } from "node:crypto";
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { removeWhenKilled } from "./child.ts";
import { canEnter, type OsUser } from "./os-user.ts";
import { reachableHomes, refuseForeign } from "./reachable-home.ts";
import { lockFile } from "./state-files.ts";

/** A stack's folder: keys, ports, logs and state. Postgres' files are in it or, for root, where Postgres' user can go. */
export type DataDir = {
  path: string;
  /** The folder that holds `postgres`, the cluster. */
  clusterHome: string;
  ephemeral: boolean;
  remove: () => Promise<void>;
};

/** Make or open the folder of a stack. An ephemeral one lies in the temporary folder and belongs to Postgres' user whole. */
export async function openDataDir(path: string | undefined, ephemeral: boolean, user: OsUser): Promise<DataDir> {
  if (ephemeral) return openEphemeral(path, user);
  const folder = resolve(path ?? ".work-claims");
  let made: string | undefined;
  try {
    made = await mkdir(join(folder, "logs"), { recursive: true });
    // Only the owner may list it; Postgres' user may pass through.
    await chmod(folder, user ? 0o711 : 0o700);
    await writeFile(join(folder, ".gitignore"), "*\n");
  } catch (error) {
    if (!["EACCES", "EPERM", "EROFS", "EEXIST", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? ""))
      throw error;
    throw new Error(
      `${folder} cannot be used as a data folder (${(error as Error).message}); name another with --data`,
    );
  }
  return {
    path: folder,
    clusterHome: await clusterHome(folder, user),
    ephemeral,
    remove: () => removeUnused(folder, made),
  };
}

/** Remove a folder that a failed start made and that got no cluster. `made` is mkdir's answer: the first folder it made. */
export async function removeUnused(folder: string, made: string | undefined): Promise<void> {
  const isMade = made !== undefined && (folder === made || folder.startsWith(join(made, "/")));
  if (!isMade || (await lockFile.read(folder))) return;
  const home = await notedClusterHome(folder);
  const names = await readdir(home).catch(() => []);
  if (names.some((name) => name.startsWith("postgres") && name !== elsewhereNote)) return;
  for (const path of new Set([home, folder])) await rm(path, { recursive: true, force: true });
  for (let above = dirname(folder); above.startsWith(made); above = dirname(above)) {
    await rmdir(above).catch(() => {});
  }
}

async function openEphemeral(path: string | undefined, user: OsUser): Promise<DataDir> {
  const wanted = path && resolve(path);
  if (wanted && (await readdir(wanted).catch(() => [])).length > 0) {
    throw new Error(
      `${wanted} is not empty; an ephemeral stack removes its folder at the end, so it takes an empty one or none`,
    );
  }
  // TMPDIR may lie in a user's home, which Postgres' user cannot enter.
  const home = [tmpdir(), "/tmp"].find((folder) => !user || canEnter(folder, user)) ?? tmpdir();
  if (wanted) await mkdir(wanted, { recursive: true });
  const folder = wanted ?? (await mkdtemp(join(home, "work-claims-")));
  const keep = removeWhenKilled(folder);
  const remove = async (): Promise<void> => {
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    keep();
  };
  await mkdir(join(folder, "logs"), { recursive: true });
  if (user) await chown(folder, user.uid, user.gid);
  await chmod(folder, 0o700);
  if (user && !canEnter(folder, user)) {
    await remove();
    throw new Error(`${folder} is out of reach for the user ${user.uid} that Postgres runs as; name another folder`);
  }
  return { path: folder, clusterHome: folder, ephemeral: true, remove };
}

/** Postgres' files are in the data folder. If its user cannot go there, they are elsewhere, and a note names the place. */
async function clusterHome(folder: string, user: OsUser): Promise<string> {
  const noted = await notedClusterHome(folder);
  if (noted !== folder || !user || canEnter(folder, user)) return noted;
  for (const home of reachableHomes()) {
    await mkdir(home, { recursive: true, mode: 0o755 });
    await refuseForeign(home);
    if (!canEnter(home, user)) continue;
    const elsewhere = join(home, `data-${randomBytes(6).toString("hex")}`);
    await mkdir(elsewhere, { mode: 0o711 });
    await writeFile(join(folder, elsewhereNote), `${elsewhere}\n`);
    return elsewhere;
  }
  throw new Error(
    `${folder} is out of reach for the user ${user.uid} that Postgres runs as; name another folder with --data`,
  );
}

const elsewhereNote = "postgres-is-in.txt";

/** The folder of a data folder's cluster, if it has one. */
export async function notedClusterHome(folder: string): Promise<string> {
  return (await readFile(join(folder, elsewhereNote), "utf8").catch(() => "")).trim() || folder;
}
