import { env } from "./host.ts";
import type { LogFormat } from "./log.ts";
import type { MetricsAddress } from "./metrics-server.ts";
import { oneOf, whole } from "./variable.ts";

export interface TelemetryOptions {
  /** Sentences, or one JSON object a line: WORK_LOG, pretty unless it says json. */
  logFormat?: LogFormat;
  /** Serves numbers for Prometheus at this port, under /metrics: WORK_METRICS_PORT. 0 takes any free port. */
  metricsPort?: number;
  /** The address to listen at: WORK_METRICS_HOST, else 127.0.0.1. 0.0.0.0 lets other machines read. */
  metricsHost?: string;
}

export interface TelemetrySettings {
  logFormat: LogFormat;
  /** Null serves none. */
  metrics: MetricsAddress | null;
}

export function settleTelemetry(options: TelemetryOptions): TelemetrySettings {
  const port = whole("metricsPort", options.metricsPort, "WORK_METRICS_PORT", 0, 65_535);
  const host = options.metricsHost ?? env("WORK_METRICS_HOST") ?? "127.0.0.1";
  return {
    logFormat: oneOf("logFormat", options.logFormat, "WORK_LOG", ["pretty", "json"]) ?? "pretty",
    metrics: port === undefined ? null : { host, port },
  };
}
