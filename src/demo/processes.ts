import { existsSync } from "node:fs";
import { join } from "node:path";
import { type ServerProcess, startServer, stopServer } from "../stack/child.ts";
import { findPackage, packageRoot } from "../stack/package-root.ts";

export type Host = "node" | "deno";

/** The name is the worker id in the claims. */
export type DemoWorker = { name: string; host: Host; process: ServerProcess };

/** Environment variables of a worker. All workers read the same names. */
export type WorkerEnvironment = { [name: string]: string };

/** Deno's own program, not the script around it that would stay between us and a signal; undefined where there is none. */
export function denoProgram(): string | undefined {
  const folder = findPackage("deno", packageRoot());
  const program = folder && join(folder, process.platform === "win32" ? "deno.exe" : "deno");
  return program && existsSync(program) ? program : undefined;
}

function commandOf(host: Host, script: string): [string, string[]] {
  if (host === "node") return [process.execPath, [join(packageRoot(), "dist", "workers", `${script}.js`)]];
  // The worker needs nothing but its script, the network and its environment; --no-config keeps the package's out of it.
  return [
    denoProgram() ?? "deno",
    [
      "run",
      "--quiet",
      "--no-config",
      "--no-lock",
      "--allow-net",
      "--allow-env",
      "--allow-sys",
      join(packageRoot(), "workers", `${script}.ts`),
    ],
  ];
}

/** Starts a script of workers/ as a real process, one that cannot outlive the demo. `told` gets its complaints as single lines. */
export function startWorker(
  name: string,
  host: Host,
  script: string,
  environment: WorkerEnvironment,
  told: (line: string) => void,
): DemoWorker {
  const [file, args] = commandOf(host, script);
  const inherited = Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const server = startServer({
    file,
    args,
    env: {
      ...Object.fromEntries(inherited),
      DENO_NO_PACKAGE_JSON: "1",
      DENO_NO_UPDATE_CHECK: "1",
      ...environment,
      WORK_ID: name,
    },
    user: undefined,
    stopSignal: "TERM",
    output: "pipe",
  });
  let unfinished = "";
  server.child.stdout?.resume();
  server.child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
    const lines = (unfinished + chunk).split("\n");
    unfinished = lines.pop() ?? "";
    for (const line of lines) told(`${name}: ${line}`);
  });
  return { name, host, process: server };
}

/** Asks all workers to leave, and kills those that have not after three seconds: by then they only wait for an answer. */
export async function stopWorkers(workers: readonly DemoWorker[]): Promise<void> {
  await Promise.all(workers.map((worker) => stopServer(worker.process, "SIGTERM", 3000)));
}
