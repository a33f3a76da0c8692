import { randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { createProxyServer } from "httpxy";
import type { Credentials, Verdict } from "./authenticate.ts";
import { type EndReason, hostedLimits, type Isolate, type Limits, startIsolate } from "./isolate.ts";

/** Serves a project's Edge Functions with real Deno, each in a process of its own that starts with its first request. */
export type Functions = {
  serve: (request: IncomingMessage, response: ServerResponse) => Promise<void>;
  /** End all isolates: the event with this reason, then SIGKILL where requests still run after so long. */
  end: (reason: EndReason, afterMs: number) => Promise<void>;
  /** The processes that take requests. */
  pids: () => number[];
};

export type FunctionsPlan = {
  /** The project's supabase folder: functions/NAME/index.ts is served as /functions/v1/NAME. */
  folder: string;
  limits?: Partial<Limits> | undefined;
  /** The variables that a hosted function has. */
  env: Record<string, string>;
  authenticate: (credentials: Credentials) => Verdict;
  logs: string;
  log: (line: string) => void;
};

/** An isolate from the request that starts it, and the time of the newest file it was made of. */
type Entry = { starting: Promise<Isolate>; isolate: Isolate | undefined; changedAt: number };

export function serveFunctions(plan: FunctionsPlan): Functions {
  const limits = (): Limits => ({ ...hostedLimits, ...plan.limits });
  const current = new Map<string, Entry>();
  const isolates = new Set<Isolate>();
  const proxy = createProxyServer({ proxyTimeout: 0 });

  /** The isolate for the next request: the present one, unless it is retired or older than the files. */
  function isolateFor(name: string): Promise<Isolate> {
    const changedAt = newestChange(join(plan.folder, "functions"));
    const present = current.get(name);
    if (present?.changedAt === changedAt && !present.isolate?.isRetired()) return present.starting;
    present?.isolate?.retire();
    const entry: Entry = { starting: start(name), isolate: undefined, changedAt };
    current.set(name, entry);
    entry.starting.then(
      (isolate) => {
        entry.isolate = isolate;
      },
      () => current.get(name) === entry && current.delete(name),
    );
    return entry.starting;
  }

  async function start(name: string): Promise<Isolate> {
    const isolate = await startIsolate({
      name,
      entrypoint: entrypointOf(name),
      env: { ...plan.env, SB_EXECUTION_ID: randomUUID(), SB_REGION: "local" },
      envFile: join(plan.folder, "functions", ".env"),
      limits: limits(),
      logFile: join(plan.logs, `function-${name}.log`),
      log: plan.log,
    });
    isolates.add(isolate);
    void isolate.exited.then(() => isolates.delete(isolate));
    return isolate;
  }

  function entrypointOf(name: string): string {
    return join(plan.folder, "functions", name, "index.ts");
  }

  return {
    async serve(request, response) {
      const [, name = "", path = ""] = /^\/functions\/v1\/([\w-]+)(|[/?].*)$/.exec(request.url ?? "") ?? [];
      if (!name || !existsSync(entrypointOf(name))) {
        return answer(response, 404, "NOT_FOUND", `there is no ${entrypointOf(name || "NAME")}`);
      }
      const refusal = verifiesKey(plan.folder, name) ? refusalOf(plan.authenticate, request) : undefined;
      if (refusal) return answer(response, 401, "UNAUTHORIZED", refusal);
      let isolate: Isolate;
      try {
        isolate = await isolateFor(name);
      } catch (error) {
        return answer(response, 503, "BOOT_ERROR", `${name} did not start: ${(error as Error).message}`);
      }
      if (response.destroyed) return;
      const end = isolate.begin();
      const timer = setTimeout(() => {
        if (!response.headersSent) answer(response, 504, "IDLE_TIMEOUT", `${name} did not answer in time`);
      }, limits().answerMs);
      response.once("close", () => {
        clearTimeout(timer);
        end();
      });
      request.url = `/${name}${path}`;
      await proxy.web(request, response, { target: `http://127.0.0.1:${isolate.port}` }).catch(() => {
        // Half an answer must not look like a whole one.
        if (response.headersSent) response.destroy();
        else answer(response, 546, "WORKER_RESOURCE_LIMIT", `${name} was ended at one of its limits`);
      });
    },
    async end(reason, afterMs) {
      const starting = [...current.values()].map((entry) => entry.starting.catch(() => undefined));
      current.clear();
      await Promise.all(starting);
      await Promise.all([...isolates].map((isolate) => isolate.end(reason, afterMs)));
    },
    pids: () => [...isolates].filter((isolate) => !isolate.isRetired()).map((isolate) => isolate.pid),
  };
}

/** Hosted gateways ask for one of the project's keys, unless config.toml says otherwise. */
function verifiesKey(folder: string, name: string): boolean {
  const config = existsSync(join(folder, "config.toml")) ? readFileSync(join(folder, "config.toml"), "utf8") : "";
  const section = config.split(/^\s*\[/m).find((part) => part.startsWith(`functions.${name}]`)) ?? "";
  return !/^\s*verify_jwt\s*=\s*false\b/m.test(section);
}

function refusalOf(authenticate: FunctionsPlan["authenticate"], { headers }: IncomingMessage): string | undefined {
  const bearer = /^bearer\s+(.*)$/i.exec(headers.authorization ?? "")?.[1]?.trim();
  const apikey = [headers.apikey].flat()[0] ?? bearer;
  const verdict = authenticate({ apikey, authorization: headers.authorization, userAgent: headers["user-agent"] });
  return "message" in verdict ? verdict.message : undefined;
}

/** The time of the newest file in a folder. */
function newestChange(folder: string): number {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return Math.max(0, ...names.map((name) => statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0));
}

/** A refusal of the platform, in place of the function's answer. */
function answer(response: ServerResponse, status: number, code: string, message: string): void {
  response.setHeader("content-type", "application/json; charset=utf-8");
  response.setHeader("sb-error-code", code);
  response.writeHead(status).end(JSON.stringify({ code, message }));
}
