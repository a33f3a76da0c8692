import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createKeys, type Keys } from "./keys.ts";
import type { ProcessIdentity } from "./process-identity.ts";

/** A JSON file in a data folder, for its owner alone. A reader sees the old text or the new one, never half of it. */
export type StateFile<T> = {
  name: string;
  read(path: string, file?: string): Promise<T | undefined>;
  write(path: string, value: T): Promise<void>;
  remove(path: string): Promise<void>;
};

function stateFile<T>(name: string): StateFile<T> {
  return {
    name,
    async read(path, file = join(path, name)) {
      try {
        return JSON.parse(await readFile(file, "utf8")) as T;
      } catch (error) {
        if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
        throw error;
      }
    },
    async write(path, value) {
      const draft = join(path, `${name}.${process.pid}`);
      await writeFile(draft, JSON.stringify(value, null, 2), { mode: 0o600 });
      await rename(draft, join(path, name));
    },
    remove: (path) => rm(join(path, name), { force: true }),
  };
}

/** The process that holds the folder. */
export const lockFile: StateFile<ProcessIdentity> = stateFile("stack.lock");

/** The running stack, for a second `up`, for `down`, and for the next start after a kill. */
export type RunningStack = {
  owner: ProcessIdentity;
  children: ProcessIdentity[];
  isReady: boolean;
  url: string;
  dbUrl: string;
};
export const runningFile: StateFile<RunningStack> = stateFile("stack.json");

/** The ports of the last start, so that the next one has the same address. */
export type Ports = { port: number; dbPort: number };
export const portsFile: StateFile<Ports> = stateFile("ports.json");

export const keysFile: StateFile<Keys> = stateFile("keys.json");

export async function readOrCreateKeys(path: string): Promise<Keys> {
  const kept = await keysFile.read(path);
  if (kept) return kept;
  const keys = createKeys(Math.floor(Date.now() / 1000));
  await keysFile.write(path, keys);
  return keys;
}
