import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { delimiter, extname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type ServerProcess, startServer } from "./child.ts";
import { findPackage, packageManifest, packageRoot } from "./package-root.ts";
import { freePort } from "./ports.ts";
import { lastLines } from "./supervise.ts";

/** The reasons for the end of an isolate, in the words of Supabase's event beforeunload. */
export type EndReason = "cpu" | "memory" | "wall_clock" | "early_drop" | "termination";

export type Limits = {
  wallClockMs: number;
  cpuMs: number;
  memoryMb: number;
  /** A request without an answer for so long is answered with 504. */
  answerMs: number;
};

/** Those of a hosted project on the free plan. */
export const hostedLimits: Limits = { wallClockMs: 150_000, cpuMs: 2_000, memoryMb: 256, answerMs: 150_000 };

/** A function's process, in place of an isolate: it serves requests until it is near a limit. */
export type Isolate = {
  port: number;
  pid: number;
  exited: Promise<unknown>;
  /** Near a limit, or ended: it takes no more requests. */
  isRetired: () => boolean;
  /** Take no more requests, and end when nothing is left to do. */
  retire: () => void;
  /** Count a request until the returned function is called. */
  begin: () => () => void;
  /** Dispatch the event, and kill the process if it is still there after so long. */
  end: (reason: EndReason, afterMs: number) => Promise<void>;
};

export type IsolatePlan = {
  name: string;
  entrypoint: string;
  env: Record<string, string>;
  /** A file with the person's own variables, where there is one. */
  envFile: string;
  limits: Limits;
  logFile: string;
  log: (line: string) => void;
};

/** Supabase sends beforeunload at this share of a limit unless told otherwise. */
const warningShare = 0.9;

/** At half of its wall clock, and at half of its CPU time (the soft limit), an isolate is retired. */
const retiringShare = 0.5;

const startLimitMs = 30_000;

export async function startIsolate(plan: IsolatePlan): Promise<Isolate> {
  const port = await freePort();
  const output = openSync(plan.logFile, "a", 0o600);
  const server = startServer({
    file: findDeno(),
    args: [
      "run",
      ...["--quiet", "--no-prompt", "--no-lock", "--allow-net", "--allow-env", "--allow-read", "--allow-sys=hostname"],
      ...(existsSync(plan.envFile) ? [`--env-file=${plan.envFile}`] : []),
      `--preload=${join(import.meta.dirname, `edge-stand-in${extname(import.meta.filename)}`)}`,
      plan.entrypoint,
    ],
    env: { ...denoEnvironment(), ...plan.env, DENO_SERVE_ADDRESS: `tcp:127.0.0.1:${port}` },
    user: undefined,
    stopSignal: "TERM",
    output,
    input: "pipe",
  });
  closeSync(output);
  await untilServing(server, port, plan.logFile);
  return watch(plan, server, port);
}

async function untilServing(server: ServerProcess, port: number, logFile: string): Promise<void> {
  const limit = performance.now() + startLimitMs;
  while (!(await accepts(port))) {
    if (server.hasExited()) throw new Error(await lastLines(logFile));
    if (performance.now() > limit) {
      server.kill("SIGKILL");
      throw new Error(`it did not call Deno.serve within ${startLimitMs / 1000} s`);
    }
    await sleep(20);
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

/** Compares what the process uses with its limits, several times a second. */
function watch({ name, limits, log }: IsolatePlan, server: ServerProcess, port: number): Isolate {
  const startedAt = performance.now();
  const atStart = usage(server.pid);
  const told = new Set<EndReason>();
  let running = 0;
  let isRetired = false;

  const shares = (): [EndReason, number][] => {
    const now = usage(server.pid);
    return [
      ["wall_clock", (performance.now() - startedAt) / limits.wallClockMs],
      ["cpu", (now.cpuMs - atStart.cpuMs) / limits.cpuMs],
      ["memory", (now.memoryMb - atStart.memoryMb) / limits.memoryMb],
    ];
  };
  const tell = (reason: EndReason): void => {
    if (!told.has(reason) && !server.hasExited()) server.child.stdin?.write(`${reason}\n`);
    told.add(reason);
  };
  const retire = (): void => {
    isRetired = true;
    if (running === 0) tell("early_drop");
  };
  const timer = setInterval(() => {
    for (const [reason, share] of shares()) {
      if (share >= 1) {
        log(`the function ${name} reached its limit of ${reason}; its process is killed`);
        server.kill("SIGKILL");
      } else if (share >= warningShare) tell(reason);
      else if (share >= retiringShare && reason !== "memory" && !isRetired) retire();
    }
  }, 25);
  void server.exited.then(() => clearInterval(timer));
  server.child.stdin?.on("error", () => {});

  return {
    port,
    pid: server.pid,
    exited: server.exited,
    isRetired: () => isRetired || server.hasExited(),
    retire,
    begin() {
      running += 1;
      return () => {
        running -= 1;
        if (isRetired && running === 0) tell("early_drop");
      };
    },
    async end(reason, afterMs) {
      isRetired = true;
      tell(reason);
      const limit = performance.now() + afterMs;
      while (!server.hasExited() && performance.now() < limit) await sleep(10);
      server.kill("SIGKILL");
      await server.exited;
    },
  };
}

/** The process' CPU time and memory, where the system has /proc; elsewhere only the wall clock limits it. */
function usage(pid: number): { cpuMs: number; memoryMb: number } {
  try {
    // The name in brackets may hold spaces. User and system time are the 14th and 15th field, in hundredths of a second.
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    const kilobytes = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return { cpuMs: (Number(fields[11]) + Number(fields[12])) * 10, memoryMb: Number(kilobytes ?? 0) / 1024 };
  } catch {
    return { cpuMs: 0, memoryMb: 0 };
  }
}

/** A function sees none of the person's own variables but those that Deno itself needs for its cache and its downloads. */
function denoEnvironment(): Record<string, string> {
  const wanted = /^(PATH|HOME|DENO_\w+|NPM_CONFIG_\w+|https?_proxy|no_proxy|SSL_CERT_\w+)$/i;
  return Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) => (value && wanted.test(name) ? [[name, value]] : [])),
  );
}

/** DENO_BIN, else Deno from npm, else deno on the PATH. */
function findDeno(): string {
  const named = process.env.DENO_BIN;
  if (named) {
    if (!existsSync(named)) throw new Error(`DENO_BIN is ${named}; there is no such file`);
    return named;
  }
  const fromNpm = [packageRoot(), process.cwd()].map((folder) => findPackage("deno", folder));
  const onPath = (process.env.PATH ?? "").split(delimiter);
  const found = [...fromNpm, ...onPath].flatMap((folder) => (folder ? [join(folder, "deno")] : [])).find(existsSync);
  if (found) return found;
  throw new Error(
    `functions run on Deno; install it with: npm install --save-dev deno@${packageManifest().peerDependencies.deno}`,
  );
}
