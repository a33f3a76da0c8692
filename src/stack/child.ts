import { type ChildProcess, spawn } from "node:child_process";
import type { Writable } from "node:stream";
import type { OsUser } from "./os-user.ts";

/**
 * A server process that cannot outlive this one. A shell beside it waits on a pipe that this process holds. When this process
 * ends, even by SIGKILL, the pipe ends and the shell stops the server.
 */
const guarded = `
( read -r _ <&3 || kill -s "$1" $$ ) >/dev/null 2>&1 &
exec 3<&-
shift
exec "$@"
`;

/** The same for a folder. It waits until Postgres has left it, and removes it again for files that were written late. */
const removing = `
read -r _ <&3 && exit
n=0
while [ -e "$1/postgres/postmaster.pid" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
rm -rf "$1"
sleep 1
rm -rf "$1"
`;

export type ServerProcess = {
  pid: number;
  /** Resolves with how it ended; never rejects. */
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  hasExited: () => boolean;
  kill: (signal: NodeJS.Signals) => void;
  child: ChildProcess;
};

export type ServerCommand = {
  file: string;
  args: string[];
  env: Record<string, string>;
  user: OsUser;
  /** The signal that asks it to leave. */
  stopSignal: "INT" | "TERM";
  /** A file descriptor for its output, or a pipe that this process reads. */
  output: number | "pipe";
  /** A pipe to its standard input; none without. */
  input?: "pipe";
};

export function startServer(command: ServerCommand): ServerProcess {
  const child = spawn("/bin/sh", ["-c", guarded, "sh", command.stopSignal, command.file, ...command.args], {
    ...command.user,
    cwd: "/",
    env: command.env,
    // A session of its own: Ctrl-C in the terminal reaches this process alone, which stops the servers in order.
    detached: true,
    stdio: [command.input ?? "ignore", command.output, command.output, "pipe"],
  });
  let isOver = false;
  const lifeline = child.stdio[3] as Writable;
  // The guard's end of the pipe may close first; that is no fault.
  lifeline.on("error", () => {});
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once("error", () => {
      isOver = true;
      resolve({ code: 127, signal: null });
    });
    child.once("exit", (code, signal) => {
      isOver = true;
      lifeline.end("left\n");
      resolve({ code, signal });
    });
  });
  return {
    pid: child.pid ?? 0,
    exited,
    hasExited: () => isOver,
    kill: (signal) => {
      if (!isOver) child.kill(signal);
    },
    child,
  };
}

/** Stop a server: ask by the signal, wait, and kill it after that time. */
export async function stopServer(server: ServerProcess, signal: NodeJS.Signals, patienceMs: number): Promise<void> {
  if (server.hasExited()) return;
  server.kill(signal);
  const timer = setTimeout(() => server.kill("SIGKILL"), patienceMs);
  await server.exited;
  clearTimeout(timer);
}

/** Remove a folder if this process is killed. Call the answer when the folder may stay or is removed. */
export function removeWhenKilled(folder: string): () => void {
  const child = spawn("/bin/sh", ["-c", removing, "sh", folder], {
    cwd: "/",
    detached: true,
    stdio: ["ignore", "ignore", "ignore", "pipe"],
  });
  const lifeline = child.stdio[3] as Writable & { unref?: () => void };
  lifeline.on("error", () => {});
  child.on("error", () => {});
  // Neither keeps this process alive.
  child.unref();
  lifeline.unref?.();
  return () => lifeline.end("left\n");
}
