import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

/** A process that can be recognised later. A pid is used again, so the start time belongs to it. */
export type ProcessIdentity = { pid: number; started: string };

/** The process with this pid; undefined if there is none. */
export function identify(pid: number): ProcessIdentity | undefined {
  const started = process.platform === "linux" ? startedOnLinux(pid) : startedElsewhere(pid);
  return started === undefined ? undefined : { pid, started };
}

export function isAlive(process: ProcessIdentity): boolean {
  return identify(process.pid)?.started === process.started;
}

/** End a process for good: ask with a signal, and kill it when it has not left in time. */
export async function end(target: ProcessIdentity, signal: NodeJS.Signals, patienceMs: number): Promise<void> {
  if (!isAlive(target)) return;
  send(target.pid, signal);
  if (await hasLeft(target, patienceMs)) return;
  send(target.pid, "SIGKILL");
  await hasLeft(target, 5_000);
}

export async function hasLeft(target: ProcessIdentity, patienceMs: number): Promise<boolean> {
  const limit = performance.now() + patienceMs;
  while (isAlive(target)) {
    if (performance.now() > limit) return false;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return true;
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function startedOnLinux(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name in brackets may hold spaces; after it come the state (field 3) and, as field 22, the start time.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

function startedElsewhere(pid: number): string | undefined {
  try {
    return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim() || undefined;
  } catch {
    return undefined;
  }
}
