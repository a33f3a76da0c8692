import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../src/stack/package-root.ts";

/** Runs the demo; once `isTime` says so of its output, sends the signal. */
export function runDemo(
  options: readonly string[],
  send?: { signal: NodeJS.Signals; isTime: (out: string) => boolean },
): Promise<{ code: number | null; out: string }> {
  const child = spawn(process.execPath, [join(packageRoot(), "dist", "src", "cli", "main.js"), "demo", ...options], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let isSent = false;
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      out += chunk;
      if (!send || isSent || !send.isTime(out)) return;
      isSent = true;
      child.kill(send.signal);
    });
  }
  return new Promise<{ code: number | null; out: string }>((resolve) => {
    child.once("close", (code) => resolve({ code, out }));
  });
}

/** The process ids in the demo's output. */
export function workersOf(out: string): number[] {
  return [...out.matchAll(/\(pid (\d+)\)/g)].map((match) => Number(match[1]));
}

/** Zombies count as gone: their new parent may not fetch them. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
