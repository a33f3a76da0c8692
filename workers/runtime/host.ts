// What differs between Node, Deno and an Edge Function; nothing else in the runtime asks where it runs.

interface DenoHost {
  env: { get(name: string): string | undefined };
  permissions: { querySync(of: { name: string; variable?: string; kind?: string }): { state: string } };
  pid: number;
  hostname(): string;
  addSignalListener(signal: string, listener: () => void): void;
  removeSignalListener(signal: string, listener: () => void): void;
  exit(code: number): never;
}

interface NodeHost {
  env: Record<string, string | undefined>;
  pid: number;
  versions?: { node?: string };
  getBuiltinModule?(name: "node:os"): { hostname(): string } | undefined;
  getBuiltinModule?(name: "node:worker_threads"): { isMainThread: boolean } | undefined;
  on(event: string, listener: (error?: unknown) => void): void;
  listenerCount(event: string): number;
  off(signal: string, listener: () => void): void;
  exit(code: number): never;
}

const host = globalThis as unknown as {
  Deno?: DenoHost;
  process?: NodeHost;
  document?: unknown;
  navigator?: { userAgent?: string };
  crypto: { randomUUID(): string };
  DOMException: new (message: string, name: string) => Error;
};

/** Deno asks the person at the terminal for a permission it was not given; a worker must not hang on that question. */
function isAllowed(permission: { name: string; variable?: string; kind?: string }): boolean {
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
    throw inOneLine(
      new Error(`${name} is not set${host.Deno ? " (or Deno was not allowed to read it: --allow-env)" : ""}`),
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

export function processId(): number {
  return host.Deno?.pid ?? host.process?.pid ?? 0;
}

export type StopSignal = "SIGINT" | "SIGTERM";

/** Calls back on SIGINT and SIGTERM where there are such things; the answer stops listening. */
export function onStopSignal(heard: (signal: StopSignal) => void): () => void {
  const removers = (["SIGINT", "SIGTERM"] as const).map((signal) => {
    const listener = (): void => heard(signal);
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

const toldInOneLine = new WeakSet<object>();
let isWatchingUncaught = false;

/**
 * For an error whose message says what to set right: where nobody catches it, the message is all that is shown. Deno goes
 * by the stack; Node would add lines of its own source, so it is told here. A program that listens for uncaught errors,
 * and one that runs this in a worker thread, gets the error as any other.
 */
export function inOneLine<Kind extends Error>(error: Kind): Kind {
  error.stack = error.message;
  toldInOneLine.add(error);
  const { process } = host;
  const isMain = !host.Deno && process?.getBuiltinModule?.("node:worker_threads")?.isMainThread === true;
  if (isMain && !isWatchingUncaught) {
    isWatchingUncaught = true;
    process.on("uncaughtExceptionMonitor", (thrown) => {
      if (thrown instanceof Error && toldInOneLine.has(thrown) && process.listenerCount("uncaughtException") === 0) {
        console.error(thrown.message);
        process.exit(1);
      }
    });
  }
  return error;
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
