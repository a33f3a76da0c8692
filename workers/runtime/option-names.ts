import type { WorkOptions } from "./settings.ts";

// An object, so that TypeScript finds an option that is missing here.
const names: { readonly [Name in keyof Required<WorkOptions>]: true } = {
  ...{ url: true, key: true, token: true, publishableKey: true, client: true, fetch: true, pool: true },
  ...{ capabilities: true, accepts: true, exclusive: true, yieldSeconds: true, warm: true },
  ...{ concurrency: true, batch: true, leaseSeconds: true, workerId: true, graceSeconds: true },
  ...{ untilEmpty: true, untilDone: true, maxClaims: true, leaveAfterSeconds: true, leaveIdleSeconds: true },
  ...{ endTime: true, spot: true, version: true, idleMinSeconds: true, idleMaxSeconds: true, signal: true },
  ...{ handleSignals: true, log: true, quiet: true, logFormat: true, metricsPort: true, metricsHost: true },
  ...{ poll: true, abandon: true, pollSeconds: true, clock: true, random: true },
};

/** The names of the options of work(). */
export const optionNames: readonly string[] = Object.keys(names);
