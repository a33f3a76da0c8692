import { randomBytes } from "node:crypto";
import {
  chmod,
  chown,
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  unlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { removeWhenKilled } from "./child.ts";
import { createKeys, type Keys } from "./keys.ts";
import { canEnter, type OsUser } from "./os-user.ts";
import { identify, isAlive, type ProcessIdentity } from "./process-identity.ts";
import { reachableHomes, refuseForeign } from "./reachable-home.ts";

/** A stack's folder: keys, logs, the note of what runs, and Postgres' files in it or, for root, where Postgres' user can go. */
export type DataDir = {
  path: string;
  /** The folder that holds `postgres`, the cluster. */
  clusterHome: string;
  ephemeral: boolean;
  remove: () => Promise<void>;
};

/** What a running stack writes down for a second `up`, for `down`, and for whoever cleans up after a kill. */
export type RunningNote = {
  owner: ProcessIdentity;
  children: ProcessIdentity[];
  isReady: boolean;
  url: string;
  dbUrl: string;
};

export class AlreadyRunning extends Error {
  readonly path: string;
  readonly owner: ProcessIdentity;
  constructor(path: string, owner: ProcessIdentity) {
    super(`A stack runs on ${path} already, as process ${owner.pid}; stop it with: work-claims down --data ${path}`);
    this.path = path;
    this.owner = owner;
  }
}

/** Make or open the folder of a stack. An ephemeral one lies in the temporary folder and belongs to Postgres' user whole. */
export async function openDataDir(path: string | undefined, ephemeral: boolean, user: OsUser): Promise<DataDir> {
  if (ephemeral) return openEphemeral(path, user);
  const folder = resolve(path ?? ".work-claims");
  let made: string | undefined;
  try {
    made = await mkdir(join(folder, "logs"), { recursive: true });
    // Nobody but the owner may list it; Postgres' user may pass through.
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

/** Take a folder away that a failed start made (mkdir's answer says from where on) and that got no cluster. */
export async function removeUnused(folder: string, made: string | undefined): Promise<void> {
  const isMade = made !== undefined && (folder === made || folder.startsWith(join(made, "/")));
  if (!isMade || (await holderOf(folder))) return;
  const home = await notedClusterHome(folder);
  if ((await readdir(home).catch(() => [])).some((name) => name.startsWith("postgres") && name !== elsewhereNote))
    return;
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
  // TMPDIR may lie in somebody's home, where Postgres' user cannot go.
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

/** Postgres' files lie in the data folder; where its user cannot go there, elsewhere, and a note in the folder says where. */
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

/** Where a data folder's cluster is, if it has one. */
export async function notedClusterHome(folder: string): Promise<string> {
  return (await readFile(join(folder, elsewhereNote), "utf8").catch(() => "")).trim() || folder;
}

/** One process a data folder: the lock names its holder, and a holder that is gone loses it. */
export async function lock(path: string): Promise<() => Promise<void>> {
  const file = join(path, "stack.lock");
  const me = identify(process.pid);
  if (!me) throw new Error("This process cannot be identified; is /proc mounted?");
  const draft = `${file}.${process.pid}.${randomBytes(4).toString("hex")}`;
  await writeFile(draft, JSON.stringify(me), { mode: 0o600 });
  try {
    for (let turn = 0; turn < 5; turn += 1) {
      // A link is made whole or not at all, so nobody reads half a lock.
      const isMine = await link(draft, file).then(
        () => true,
        (error: NodeJS.ErrnoException) => {
          if (error.code === "EEXIST") return false;
          throw error;
        },
      );
      if (isMine) return () => rm(file, { force: true });
      const holder = await holderOf(path);
      if (holder && isAlive(holder)) throw new AlreadyRunning(path, holder);
      await removeStale(file, holder);
    }
  } finally {
    await unlink(draft).catch(() => {});
  }
  throw new Error(`${file} keeps changing hands; is another work-claims starting on it? Try again`);
}

export async function holderOf(path: string): Promise<ProcessIdentity | undefined> {
  return readJson<ProcessIdentity>(join(path, "stack.lock"));
}

/** Take a dead holder's lock away, and put it back where in the meantime somebody alive has taken it. */
async function removeStale(file: string, holder: ProcessIdentity | undefined): Promise<void> {
  const aside = `${file}.stale.${process.pid}`;
  try {
    await rename(file, aside);
  } catch {
    return;
  }
  const moved = await readJson<ProcessIdentity>(aside);
  const isSame = moved?.pid === holder?.pid && moved?.started === holder?.started;
  if (!isSame) await link(aside, file).catch(() => {});
  await unlink(aside).catch(() => {});
}

export async function writeNote(path: string, note: RunningNote): Promise<void> {
  const draft = join(path, `stack.json.${process.pid}`);
  await writeFile(draft, JSON.stringify(note, null, 2), { mode: 0o600 });
  await rename(draft, join(path, "stack.json"));
}

export async function readNote(path: string): Promise<RunningNote | undefined> {
  return readJson<RunningNote>(join(path, "stack.json"));
}

export async function removeNote(path: string): Promise<void> {
  await rm(join(path, "stack.json"), { force: true });
}

export async function readKeys(path: string): Promise<Keys | undefined> {
  return readJson<Keys>(join(path, "keys.json"));
}

export async function readOrCreateKeys(path: string): Promise<Keys> {
  const kept = await readKeys(path);
  if (kept) return kept;
  const keys = createKeys(Math.floor(Date.now() / 1000));
  const draft = join(path, `keys.json.${process.pid}`);
  await writeFile(draft, JSON.stringify(keys, null, 2), { mode: 0o600 });
  await rename(draft, join(path, "keys.json"));
  return keys;
}

/** The address of a folder's stack, kept so that the next start has it again. */
export type Ports = { port: number; dbPort: number };

export async function readPorts(path: string): Promise<Partial<Ports>> {
  return (await readJson<Partial<Ports>>(join(path, "ports.json"))) ?? {};
}

export async function writePorts(path: string, ports: Ports): Promise<void> {
  const draft = join(path, `ports.json.${process.pid}`);
  await writeFile(draft, JSON.stringify(ports));
  await rename(draft, join(path, "ports.json"));
}

async function readJson<T>(file: string): Promise<T | undefined> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
