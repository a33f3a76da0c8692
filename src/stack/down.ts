import { join } from "node:path";
import { clearPredecessor } from "./cluster.ts";
import { notedClusterHome } from "./data-dir.ts";
import { lock } from "./lock.ts";
import { hasLeft, isAlive } from "./process-identity.ts";
import { endPredecessors } from "./stack.ts";
import { lockFile, runningFile } from "./state-files.ts";

export type Stopped = "running" | "left over" | "nothing";

/** Time for a stack to finish its last requests and its last checkpoint. */
const patienceMs = 30_000;

/** Stop the stack on a data folder from another process, and end the servers that a killed one left running. */
export async function stopStack(path: string, log: (line: string) => void): Promise<Stopped> {
  const holder = await lockFile.read(path);
  const wasRunning = holder !== undefined && isAlive(holder);
  if (wasRunning) {
    process.kill(holder.pid, "SIGTERM");
    if (!(await hasLeft(holder, patienceMs))) {
      log(`Process ${holder.pid} did not leave within ${patienceMs / 1000} seconds; it is killed`);
      process.kill(holder.pid, "SIGKILL");
      await hasLeft(holder, 5_000);
    }
  }
  const unlock = await lock(path);
  try {
    const ended = await endPredecessors(path, log);
    const left = await clearPredecessor(join(await notedClusterHome(path), "postgres"));
    await runningFile.remove(path);
    if (wasRunning) return "running";
    return ended > 0 || left === "a running server" ? "left over" : "nothing";
  } finally {
    await unlock();
  }
}
