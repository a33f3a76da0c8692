import { randomBytes } from "node:crypto";
import { link, rename, rm, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { identify, isAlive, type ProcessIdentity } from "./process-identity.ts";
import { lockFile } from "./state-files.ts";

export class AlreadyRunning extends Error {
  readonly path: string;
  constructor(path: string, owner: ProcessIdentity) {
    super(`A stack runs on ${path} already, as process ${owner.pid}; stop it with: work-claims down --data ${path}`);
    this.path = path;
  }
}

/** Lock a data folder for this process. The file names its holder; the lock of a dead holder is free at once. */
export async function lock(path: string): Promise<() => Promise<void>> {
  const file = join(path, lockFile.name);
  const me = identify(process.pid);
  if (!me) throw new Error("This process cannot be identified; is /proc mounted?");
  const draft = `${file}.${process.pid}.${randomBytes(4).toString("hex")}`;
  await writeFile(draft, JSON.stringify(me), { mode: 0o600 });
  try {
    for (let attempt = 0; attempt < 5; attempt += 1) {
      // A link appears with its whole content, so no other process reads half a lock.
      if (await linked(draft, file)) return () => rm(file, { force: true });
      const holder = await lockFile.read(path);
      if (holder && isAlive(holder)) throw new AlreadyRunning(path, holder);
      await removeStale(path, holder);
    }
  } finally {
    await unlink(draft).catch(() => {});
  }
  throw new Error(`${file} keeps changing hands; is another work-claims starting on it? Try again`);
}

/** Remove the lock of a dead holder. If another process has locked meanwhile, its lock is put back. */
async function removeStale(path: string, holder: ProcessIdentity | undefined): Promise<void> {
  const file = join(path, lockFile.name);
  const aside = `${file}.stale.${process.pid}`;
  try {
    await rename(file, aside);
  } catch {
    return;
  }
  const moved = await lockFile.read(path, aside);
  if (moved?.pid !== holder?.pid || moved?.started !== holder?.started) await linked(aside, file);
  await unlink(aside).catch(() => {});
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}
