// Node, Deno and Edge Functions differ here. Nothing else in the runtime asks where it runs.

interface Permission {
  name: string;
  variable?: string;
  kind?: string;
  path?: string;
  command?: string;
  host?: string;
}

interface DenoHost {
  env: { get(name: string): string | undefined };
  permissions: { querySync(of: Permission): { state: string } };
  args: string[];
  pid: number;
  hostname(): string;
  readTextFileSync(path: string): string;
  addSignalListener(signal: string, listener: () => void): void;
  removeSignalListener(signal: string, listener: () => void): void;
  exit(code: number): never;
}

interface NodeHost {
  env: Record<string, string | undefined>;
  pid: number;
  argv?: string[];
  stderr?: { isTTY?: boolean; columns?: number; write(text: string): void };
  versions?: { node?: string };
  getBuiltinModule?: {
    (name: "node:os"): { hostname(): string } | undefined;
    (name: "node:child_process"): { spawn: Spawn } | undefined;
    (name: "node:fs"): { readFileSync(path: string, encoding: "utf8"): string } | undefined;
    (name: "node:http"): HttpModule | undefined;
  };
  on(signal: string, listener: () => void): void;
  off(signal: string, listener: () => void): void;
  exit(code: number): never;
}

type Spawn = (program: string, args: string[], options: { stdio: "inherit" }) => Child;

interface Child {
  on(event: "error", listener: (error: Error) => void): void;
  on(event: "exit", listener: (status: number | null, signal: string | null) => void): void;
}

const host = globalThis as unknown as {
  Deno?: DenoHost;
  process?: NodeHost;
  document?: unknown;
  navigator?: { userAgent?: string };
  crypto: { randomUUID(): string };
  DOMException: new (message: string, name: string) => Error;
};

/** Without a permission Deno asks the person at the terminal. A worker must not hang on that question. */
function isAllowed(permission: Permission): boolean {
  try {
    return host.Deno?.permissions.querySync(permission).state === "granted";
  } catch {
    return true; // An Edge runtime without permissions: reading is tried, and guarded where it is.
  }
}

/** A variable of the environment; an empty one counts as not set. */
export function env(name: string): string | undefined {
  if (host.Deno) {
    return isAllowed({ name: "env", variable: name }) ? host.Deno.env.get(name) || undefined : undefined;
  }
  return host.process?.env[name] || undefined;
}

export function requiredEnv(name: string): string {
  const value = env(name);
  if (value === undefined) {
    throw new SettingsError(
      `${name} is not set${host.Deno ? " (or Deno was not allowed to read it: --allow-env)" : ""}`,
    );
  }
  return value;
}

/** The machine's name, for a worker id that a person can read. */
export function hostname(): string {
  try {
    if (host.Deno) {
      return isAllowed({ name: "sys", kind: "hostname" }) ? host.Deno.hostname() : "deno";
    }
    return host.process?.getBuiltinModule?.("node:os")?.hostname() ?? env("HOSTNAME") ?? "node";
  } catch {
    return "edge";
  }
}

/** The text of a file. Throws where it cannot be read. */
export function readText(path: string): string {
  if (host.Deno) {
    if (!isAllowed({ name: "read", path })) {
      throw new SettingsError("Deno was not allowed to read it: --allow-read");
    }
    return host.Deno.readTextFileSync(path);
  }
  const files = host.process?.getBuiltinModule?.("node:fs");
  if (files === undefined) {
    throw new SettingsError("Node 20.16 and later can read it");
  }
  return files.readFileSync(path, "utf8");
}

/** The arguments after the program's name. */
export function programArguments(): readonly string[] {
  return host.Deno?.args ?? host.process?.argv?.slice(2) ?? [];
}

export interface Terminal {
  write(text: string): void;
  /** A line as wide as the terminal would wrap on some. */
  width(): number;
}

/** Standard error, where it is a terminal that redraws lines. */
export function terminal(): Terminal | null {
  const stream = host.process?.stderr;
  if (stream?.isTTY !== true || env("TERM") === "dumb") {
    return null;
  }
  return { write: (text) => stream.write(text), width: () => (stream.columns || 100) - 1 };
}

export function processId(): number {
  return host.Deno?.pid ?? host.process?.pid ?? 0;
}

type StopSignal = "SIGINT" | "SIGTERM";

/** Calls back on SIGINT and SIGTERM where the host has them. Returns a function that stops listening. */
export function onStopSignal(onSignal: (signal: StopSignal) => void): () => void {
  const removers = (["SIGINT", "SIGTERM"] as const).map((signal) => {
    const listener = (): void => onSignal(signal);
    try {
      if (host.Deno) {
        host.Deno.addSignalListener(signal, listener);
        return () => host.Deno?.removeSignalListener(signal, listener);
      }
      host.process?.on(signal, listener);
      return () => host.process?.off(signal, listener);
    } catch {
      return () => {}; // Edge has no signals, Windows no SIGTERM: such a worker is stopped by options.signal.
    }
  });
  return () => {
    for (const remove of removers) {
      remove();
    }
  };
}

export function exit(code: number): void {
  (host.Deno ?? host.process)?.exit(code);
}

interface HttpModule {
  createServer(answer: (request: HttpRequest, response: HttpResponse) => void): HttpServer;
}

interface HttpRequest {
  method?: string;
  url?: string;
}

interface HttpResponse {
  writeHead(status: number, headers?: Record<string, string>): HttpResponse;
  end(text: string): void;
}

interface HttpServer {
  listen(port: number, host: string, then: () => void): void;
  address(): { port: number };
  on(event: "error", listener: (error: Error) => void): void;
  unref(): void;
  close(then: () => void): void;
  closeAllConnections(): void;
}

/** A server for this address, host and port. An Edge Function gets its requests from elsewhere. */
export function createHttpServer(
  address: string,
  answer: (request: HttpRequest, response: HttpResponse) => void,
): HttpServer {
  if (host.Deno && !isAllowed({ name: "net", host: address })) {
    throw new SettingsError(`Deno was not allowed to listen at ${address}; start it with --allow-net`);
  }
  const http = host.process?.getBuiltinModule?.("node:http");
  if (http === undefined) {
    throw new SettingsError("no server can be started here; Node 20.16 and later, and Deno 2, can");
  }
  return http.createServer(answer);
}

/** Starts programs, without a shell. Throws where the host cannot, so that a worker finds it out when it starts. */
export function programStarter(program: string): (args: string[]) => Promise<string | null> {
  const spawn = host.process?.getBuiltinModule?.("node:child_process")?.spawn;
  if (host.Deno && !isAllowed({ name: "run", command: program })) {
    throw new SettingsError(`Deno was not allowed to start ${program}; start it with --allow-run`);
  }
  if (spawn === undefined) {
    throw new SettingsError(`${program} cannot be started here; Node 20.16 and later, and Deno 2, can`);
  }
  return (args) =>
    new Promise((resolve) => {
      try {
        const child = spawn(program, args, { stdio: "inherit" });
        child.on("error", (error) => resolve(error.message));
        child.on("exit", (status, signal) => resolve(status === 0 ? null : `it ended with ${signal ?? status}`));
      } catch (error) {
        resolve(String(error));
      }
    });
}

/** Something that a person must set right. The message says what was given and what was expected. */
export class SettingsError extends Error {
  override readonly name = "SettingsError";
}

/** Deno names the permission that is missing; no later attempt will have it. */
export function isForbidden(error: unknown): boolean {
  return host.Deno !== undefined && error instanceof Error && /^(NotCapable|PermissionDenied)$/.test(error.name);
}

/** A key with all rights must not reach a browser, whose user could read it. */
export function isBrowser(): boolean {
  if (host.Deno || host.process?.versions?.node) {
    return false;
  }
  return host.document !== undefined || /Mozilla/.test(host.navigator?.userAgent ?? "");
}

export function randomUuid(): string {
  return host.crypto.randomUUID();
}

/** The reason of an aborted signal, as fetch and the others that take a signal give it. */
export function abortError(message: string): Error {
  return new host.DOMException(message, "AbortError");
}
