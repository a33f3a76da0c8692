import { Agent, createServer, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Credentials, Verdict } from "./api-key.ts";

/** The address of the stack: it answers as a Supabase project's does, in front of PostgREST. */
export type Gateway = { url: string; port: number; stop: () => Promise<void> };

export type GatewayPlan = {
  /** The port a person named; without one, the preferred or any free one. */
  port: number | undefined;
  preferredPort: number;
  admit: (credentials: Credentials) => Verdict;
  /** Where PostgREST listens now; undefined while there is none. */
  upstream: () => number | undefined;
};

const prefix = "/rest/v1";

/** Headers that belong to one connection, and those the gateway speaks for itself. */
const notForwarded = new Set([
  "apikey",
  "authorization",
  "connection",
  "host",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
  "te",
]);

export async function runGateway(plan: GatewayPlan): Promise<Gateway> {
  // PostgREST closes a connection that was idle for 30 seconds; ours go first, so that no request meets a closing one.
  const agent = new Agent({ keepAlive: true, maxSockets: 256, timeout: 20_000 });
  const server = createServer((incoming, outgoing) => serve(plan, agent, incoming, outgoing));
  // Longer than the pauses of clients that keep connections, for the same reason.
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
        // What still runs gets a second to finish.
        setTimeout(() => server.closeAllConnections(), 1_000).unref();
      }),
  };
}

async function listen(server: Server, plan: GatewayPlan): Promise<number> {
  const { port: named, preferredPort } = plan;
  const attempts = named === undefined ? [preferredPort, 0] : [named];
  for (const port of attempts) {
    const taken = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
      server.once("error", resolve);
      server.listen(port, "127.0.0.1", () => {
        server.removeListener("error", resolve);
        resolve(undefined);
      });
    });
    if (!taken) return (server.address() as AddressInfo).port;
    if (named !== undefined) throw portRefused(named, taken);
    if (port === 0) throw taken;
  }
  throw new Error("No port is free on 127.0.0.1");
}

function portRefused(port: number, error: NodeJS.ErrnoException): Error {
  if (error.code === "EADDRINUSE")
    return new Error(`Port ${port} is in use; name another with --port, or none to take a free one`);
  if (error.code === "EACCES")
    return new Error(`Port ${port} needs more rights than this user has; name one from 1024 up`);
  return error;
}

function serve(plan: GatewayPlan, agent: Agent, incoming: IncomingMessage, outgoing: ServerResponse): void {
  outgoing.setHeader("access-control-allow-origin", "*");
  if (incoming.method === "OPTIONS" && incoming.headers["access-control-request-method"]) {
    preflight(incoming, outgoing);
    return;
  }
  const { path, apikey } = withoutKey(incoming.url ?? "/");
  if (path !== prefix && !path.startsWith(`${prefix}/`) && !path.startsWith(`${prefix}?`)) {
    const hint = `Tables and functions are under ${prefix}/`;
    answer(outgoing, 404, { message: "no Route matched with those values", hint });
    return;
  }
  const verdict = plan.admit({
    apikey: single(incoming.headers.apikey) ?? apikey,
    authorization: incoming.headers.authorization,
    userAgent: incoming.headers["user-agent"],
  });
  const port = plan.upstream();
  if (!verdict.admitted) answer(outgoing, 401, verdict.body);
  else if (port === undefined) away(outgoing);
  else forward(agent, port, path.slice(prefix.length), verdict.authorization, incoming, outgoing);
}

function forward(
  agent: Agent,
  port: number,
  rest: string,
  authorization: string,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): void {
  const headers: Record<string, string | string[]> = { authorization };
  for (const [name, value] of Object.entries(incoming.headers)) {
    if (value !== undefined && !notForwarded.has(name)) headers[name] = value;
  }
  const path = rest.startsWith("/") ? rest : `/${rest}`;
  const upstream = request({ agent, host: "127.0.0.1", port, method: incoming.method, path, headers }, (response) => {
    for (const [name, value] of Object.entries(response.headers)) {
      if (value !== undefined && !notForwarded.has(name) && !name.startsWith("access-control-"))
        outgoing.setHeader(name, value);
    }
    outgoing.setHeader(
      "access-control-expose-headers",
      "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, Transfer-Encoding, Range-Unit",
    );
    outgoing.writeHead(response.statusCode ?? 502);
    response.pipe(outgoing);
    // Half an answer must not look like a whole one.
    response.once("error", () => outgoing.destroy());
  });
  upstream.once("error", () => {
    incoming.unpipe(upstream);
    incoming.resume();
    if (outgoing.headersSent) outgoing.destroy();
    else away(outgoing);
  });
  outgoing.once("close", () => {
    if (!outgoing.writableFinished) upstream.destroy();
  });
  incoming.pipe(upstream);
}

function away(outgoing: ServerResponse): void {
  outgoing.setHeader("retry-after", "1");
  answer(outgoing, 503, { message: "PostgREST is away", hint: "It is being started; try again in a moment." });
}

function preflight(incoming: IncomingMessage, outgoing: ServerResponse): void {
  outgoing.setHeader("access-control-allow-methods", "GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS");
  outgoing.setHeader("access-control-allow-headers", single(incoming.headers["access-control-request-headers"]) ?? "*");
  outgoing.setHeader("access-control-max-age", "3600");
  outgoing.writeHead(204).end();
}

function answer(outgoing: ServerResponse, status: number, body: unknown): void {
  outgoing.setHeader("content-type", "application/json; charset=utf-8");
  outgoing.writeHead(status).end(JSON.stringify(body));
}

/** The address without an apikey parameter, which PostgREST would take for a filter on a column. */
function withoutKey(url: string): { path: string; apikey: string | undefined } {
  const question = url.indexOf("?");
  if (question < 0 || !url.includes("apikey=", question)) return { path: url, apikey: undefined };
  const parameters = url.slice(question + 1).split("&");
  const key = parameters.find((parameter) => parameter.startsWith("apikey="));
  if (key === undefined) return { path: url, apikey: undefined };
  const others = parameters.filter((parameter) => parameter !== key);
  const path = others.length === 0 ? url.slice(0, question) : `${url.slice(0, question)}?${others.join("&")}`;
  return { path, apikey: decoded(key.slice("apikey=".length)) };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
