import { closeSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { type ServerCommand, type ServerProcess, startServer, stopServer } from "./child.ts";

/** A server that is started again, with growing pauses, whenever it ends by itself. */
export type Supervised = {
  process: () => ServerProcess;
  /** Start it again after a stop. */
  start: () => Promise<void>;
  /** Ask it to leave by this signal, and leave it stopped. */
  stop: (signal: NodeJS.Signals, patienceMs: number) => Promise<void>;
};

export type Server = {
  /** The name for messages. */
  name: string;
  /** The command, made at every start: another start may use another port. */
  command: () => Promise<Omit<ServerCommand, "output">>;
  isReady: (pid: number) => Promise<boolean>;
  /** A start that takes longer than this has failed. */
  startLimitMs: number;
  logFile: string;
  onRestart: () => void;
};

/** Start a server and wait until it is ready. An error that only this first start meets goes to the caller. */
export async function supervise(server: Server, signal: AbortSignal, log: (line: string) => void): Promise<Supervised> {
  let stopped = new AbortController();
  let running = await launch(server, AbortSignal.any([signal, stopped.signal]));
  let starting: Promise<void> | undefined;
  watch();

  function watch(): void {
    void running.exited.then(({ code, signal: endedBy }) => {
      if (stopped.signal.aborted) return;
      log(`${server.name} ended by itself (${endedBy ?? `code ${code}`}); it is started again`);
      void start();
    });
  }

  /** One start at a time, tried until it succeeds or the server is stopped. */
  function start(): Promise<void> {
    starting ??= startUntilReady().finally(() => {
      starting = undefined;
    });
    return starting;
  }

  async function startUntilReady(): Promise<void> {
    const unwanted = AbortSignal.any([signal, stopped.signal]);
    for (let pauseMs = 50; !unwanted.aborted; pauseMs = Math.min(pauseMs * 2, 2_000)) {
      try {
        running = await launch(server, unwanted);
        watch();
        server.onRestart();
        return;
      } catch (error) {
        if (unwanted.aborted) return;
        log((error as Error).message);
        await sleep(pauseMs);
      }
    }
  }

  return {
    process: () => running,
    start: async () => {
      stopped = new AbortController();
      if (running.hasExited()) await start();
    },
    stop: async (stopSignal, patienceMs) => {
      stopped.abort(new Error(`${server.name} is stopped`));
      await starting;
      await stopServer(running, stopSignal, patienceMs);
    },
  };
}

async function launch(server: Server, unwanted: AbortSignal): Promise<ServerProcess> {
  const command = await server.command();
  const output = openSync(server.logFile, "a", 0o600);
  const started = startServer({ ...command, output });
  closeSync(output);
  const limit = performance.now() + server.startLimitMs;
  for (;;) {
    const isReady = await server.isReady(started.pid);
    // Checked after the answer, which may be another server's on the same port.
    if (started.hasExited()) {
      throw new Error(`${server.name} did not start; its log ends with\n${await lastLines(server.logFile)}`);
    }
    if (isReady) return started;
    if (unwanted.aborted || performance.now() > limit) {
      await stopServer(started, `SIG${command.stopSignal}`, 5_000);
      unwanted.throwIfAborted();
      const seconds = server.startLimitMs / 1000;
      throw new Error(
        `${server.name} was not ready after ${seconds} seconds; its log ends with\n${await lastLines(server.logFile)}`,
      );
    }
    await sleep(10);
  }
}

/** The end of a log, for a message. */
export async function lastLines(file: string): Promise<string> {
  const text = (await readFile(file, "utf8")).trimEnd();
  return text === "" ? "(it is empty)" : text.split("\n").slice(-6).join("\n");
}
