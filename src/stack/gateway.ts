import { Agent, createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createProxyServer } from "httpxy";
import type { Credentials, Verdict } from "./authenticate.ts";
import type { Functions } from "./functions.ts";
import { freePort } from "./ports.ts";

/** The address of the stack: it answers as a Supabase project's does, in front of PostgREST and functions. */
export type Gateway = { url: string; port: number; stop: () => Promise<void> };

export type GatewayPlan = {
  /** The port that the user named; without one, the preferred or any free one. */
  port: number | undefined;
  preferredPort: number;
  authenticate: (credentials: Credentials) => Verdict;
  /** The port of PostgREST; undefined while there is none. */
  upstream: () => number | undefined;
  /** The project's Edge Functions; undefined where there are none. */
  functions: () => Functions | undefined;
};

const prefix = "/rest/v1";

export async function runGateway(plan: GatewayPlan): Promise<Gateway> {
  // PostgREST closes a connection after 30 idle seconds. The gateway closes first, so no request meets a closing connection.
  const agent = new Agent({ keepAlive: true, maxSockets: 256, timeout: 20_000 });
  const proxy = createProxyServer({ agent, proxyTimeout: 0 });
  // The gateway answers CORS itself.
  proxy.on("proxyRes", ({ headers }) => {
    for (const name of Object.keys(headers)) if (name.startsWith("access-control-")) delete headers[name];
  });
  const server = createServer((request, response) => {
    response.setHeader("access-control-allow-origin", "*");
    if (request.method === "OPTIONS" && request.headers["access-control-request-method"]) {
      return preflight(request, response);
    }
    const functions = plan.functions();
    if (functions && /^\/functions\/v1([/?]|$)/.test(request.url ?? "")) return void functions.serve(request, response);
    const { path, apikey } = withoutKey(request.url ?? "/");
    if (!/^\/rest\/v1([/?]|$)/.test(path)) {
      const hint = `Tables and functions are under ${prefix}/`;
      return answer(response, 404, { message: "no Route matched with those values", hint });
    }
    const verdict = plan.authenticate({
      apikey: single(request.headers.apikey) ?? apikey,
      authorization: request.headers.authorization,
      userAgent: request.headers["user-agent"],
    });
    if ("message" in verdict) return answer(response, 401, verdict);
    const port = plan.upstream();
    if (port === undefined) return unavailable(response);
    request.headers.authorization = verdict.authorization;
    delete request.headers.apikey;
    request.url = path.slice(prefix.length).replace(/^(?!\/)/, "/");
    response.setHeader("access-control-expose-headers", exposedHeaders);
    proxy.web(request, response, { target: `http://127.0.0.1:${port}` }).catch(() => {
      // Half an answer must not look like a whole one.
      if (response.headersSent) response.destroy();
      else unavailable(response);
    });
  });
  // Longer than the pauses of clients that keep connections, for the same reason as above.
  server.keepAliveTimeout = 75_000;
  const port = await listen(server, plan);
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => {
          agent.destroy();
          resolve();
        });
        server.closeIdleConnections();
        // Running requests get a second to finish.
        setTimeout(() => server.closeAllConnections(), 1_000).unref();
      }),
  };
}

async function listen(server: Server, { port: named, preferredPort }: GatewayPlan): Promise<number> {
  for (const port of named === undefined ? [preferredPort, await freePort()] : [named]) {
    const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
      server.once("error", resolve);
      server.listen(port, "127.0.0.1", () => {
        server.removeListener("error", resolve);
        resolve(undefined);
      });
    });
    if (!error) return (server.address() as AddressInfo).port;
    if (port !== named) continue;
    if (error.code === "EADDRINUSE") {
      throw new Error(`Port ${port} is in use; name another with --port, or none to take a free one`);
    }
    if (error.code === "EACCES") {
      throw new Error(`Port ${port} needs more rights than this user has; name one from 1024 up`);
    }
    throw error;
  }
  throw new Error("No port is free on 127.0.0.1");
}

const exposedHeaders =
  "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, Transfer-Encoding, Range-Unit";

function preflight(request: IncomingMessage, response: ServerResponse): void {
  response.setHeader("access-control-allow-methods", "GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS");
  response.setHeader("access-control-allow-headers", single(request.headers["access-control-request-headers"]) ?? "*");
  response.setHeader("access-control-max-age", "3600");
  response.writeHead(204).end();
}

function unavailable(response: ServerResponse): void {
  response.setHeader("retry-after", "1");
  answer(response, 503, { message: "PostgREST is not running", hint: "It is being started; try again in a moment." });
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  response.setHeader("content-type", "application/json; charset=utf-8");
  response.writeHead(status).end(JSON.stringify(body));
}

/** The address without an apikey parameter: PostgREST would read it as a filter on a column. */
function withoutKey(url: string): { path: string; apikey: string | undefined } {
  const [path = "", query = ""] = url.split(/\?(.*)/s);
  const parameters = query.split("&");
  const others = parameters.filter((parameter) => !parameter.startsWith("apikey="));
  if (others.length === parameters.length) return { path: url, apikey: undefined };
  return {
    path: others.length === 0 ? path : `${path}?${others.join("&")}`,
    apikey: new URLSearchParams(query).get("apikey") ?? undefined,
  };
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
