import { type ChildProcess, spawn } from "node:child_process";
import type { Writable } from "node:stream";
import type { OsUser } from "./os-user.ts";

/**
 * A server process that cannot outlive this one. A shell beside it waits on a pipe that we hold; when we are gone, even by
 * SIGKILL, the pipe ends and the shell stops the server, and removes its files where they were to be thrown away.
 */
const guarded = `
( if ! read -r _ <&3; then
    kill -s "$1" $$ 2>/dev/null
    if [ -n "$2" ]; then
      n=0
      while [ -e "$2/postgres/postmaster.pid" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
      kill -s KILL $$ 2>/dev/null
      rm -rf "$2"
    fi
  fi ) >/dev/null 2>&1 &
exec 3<&-
shift 2
exec "$@"
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
  /** Where its output goes: a file descriptor, or a pipe to be read here. */
  output: number | "pipe";
  /** A folder that goes when this process and the server are gone. */
  removeAfter?: string | undefined;
};

export function startServer(command: ServerCommand): ServerProcess {
  const child = spawn(
    "/bin/sh",
    ["-c", guarded, "sh", command.stopSignal, command.removeAfter ?? "", command.file, ...command.args],
    {
      ...command.user,
      cwd: "/",
      env: command.env,
      // A session of its own: Ctrl-C in the terminal reaches us alone, and we stop things in order.
      detached: true,
      stdio: ["ignore", command.output, command.output, "pipe"],
    },
  );
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

/** Stop a server: ask, wait, and kill when it does not leave. */
export async function stopServer(server: ServerProcess, signal: NodeJS.Signals, patienceMs: number): Promise<void> {
  if (server.hasExited()) return;
  server.kill(signal);
  const timer = setTimeout(() => server.kill("SIGKILL"), patienceMs);
  await server.exited;
  clearTimeout(timer);
}
