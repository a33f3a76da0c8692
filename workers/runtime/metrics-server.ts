import { createHttpServer, SettingsError } from "./host.ts";
import type { Worker } from "./worker.ts";

export interface MetricsAddress {
  readonly host: string;
  /** 0 takes any port that is free. */
  readonly port: number;
}

export interface MetricsServer {
  readonly url: string;
  stop(): Promise<void>;
}

/** Serves the text at /metrics. Throws where nothing can listen there. */
export async function serveMetrics({ host, port }: MetricsAddress, text: () => string): Promise<MetricsServer> {
  const inUrl = host.includes(":") ? `[${host}]` : host;
  const server = createHttpServer(`${inUrl}:${port}`, (request, response) => {
    if (request.url?.split("?", 1)[0] !== "/metrics") {
      response.writeHead(404).end("the metrics are at /metrics\n");
    } else if (request.method !== "GET") {
      response.writeHead(405, { allow: "GET" }).end("only GET is answered\n");
    } else {
      response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(text());
    }
  });
  // The process ends when the worker does, also where a reader keeps its connection.
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.on("error", (error) => reject(listenError(error, host, port)));
    server.listen(port, host, resolve);
  });
  return {
    url: `http://${inUrl}:${server.address().port}/metrics`,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listenError(error: unknown, host: string, port: number): Error {
  const { code, message } = error as { code?: string; message: string };
  const where = `WORK_METRICS_PORT is ${port}`;
  if (code === "EADDRINUSE") {
    return new SettingsError(`${where}, which another process uses on ${host}; give each worker of a machine its own`);
  }
  if (code === "EACCES") {
    return new SettingsError(`${where}, which this user may not open; ports from 1024 need no rights`);
  }
  if (["EADDRNOTAVAIL", "EINVAL", "ENOTFOUND"].includes(code ?? "")) {
    return new SettingsError(
      `WORK_METRICS_HOST is ${host}, which is no address of this machine; 0.0.0.0 is all of them`,
    );
  }
  return new SettingsError(`no metrics at ${host}:${port}: ${message}`);
}

/** Throws where nothing can listen at the port: a worker that nobody can watch must not start. */
export async function startMetrics({ settings, holding, outage, metrics, log }: Worker): Promise<MetricsServer | null> {
  if (settings.metrics === null) {
    return null;
  }
  const { concurrency } = settings;
  const server = await serveMetrics(settings.metrics, () =>
    metrics.text({ held: holding.size, concurrency, isDatabaseUp: !outage.isOut }),
  );
  log(`metrics are at ${server.url}`);
  return server;
}
