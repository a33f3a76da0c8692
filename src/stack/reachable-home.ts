import { stat } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";

/** Folders for files outside a project, the temporary folder last. */
export function reachableHomes(): string[] {
  if (process.getuid?.() === 0) return ["/var/lib/work-claims", join(tmpdir(), "work-claims-0")];
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
  return [join(cache, "work-claims"), join(tmpdir(), `work-claims-${process.getuid?.() ?? "user"}`)];
}

/** Refuse a folder that another user can write: nothing is run from it. */
export async function refuseForeign(folder: string): Promise<void> {
  const facts = await stat(folder);
  const me = process.getuid?.();
  if ((me !== undefined && facts.uid !== me) || (facts.mode & 0o022) !== 0) {
    throw new Error(`${folder} can be written by other users, so nothing is run from it; remove it and start again`);
  }
}
