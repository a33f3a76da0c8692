import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { authenticate } from "../../src/stack/authenticate.ts";
import { runGateway } from "../../src/stack/gateway.ts";
import { createKeys } from "../../src/stack/keys.ts";
import { findPostgrest } from "../../src/stack/postgrest-binary.ts";
import { runPostgrest } from "../../src/stack/postgrest-server.ts";
import type { Stack } from "../../src/stack/stack.ts";
import { openDatabase, type Wanted } from "./database.ts";
import { inDatabase } from "./servers.ts";

export type Api = Pick<Stack, "url" | "serviceKey" | "secretKey" | "anonKey" | "publishableKey" | "dbUrl" | "adminUrl">;

/**
 * A stack without a Postgres of its own: PostgREST and the gateway before a database of the run's server. To start a whole
 * stack and push a migration takes seconds. It goes when the test file ends.
 */
export async function openApi(wanted: Wanted = {}): Promise<Api> {
  const { url: dbUrl, adminUrl } = await openDatabase({ grants: "old", ...wanted });
  const { jwtSecret, adminPassword: _, ...keys } = createKeys(Math.floor(Date.now() / 1000));
  const logs = mkdtempSync(join(tmpdir(), "work-claims-api-"));
  const postgrest = await runPostgrest({
    file: await findPostgrest(),
    logs,
    dbUrl: inDatabase(dbUrl, new URL(dbUrl).pathname.slice(1), "authenticator"),
    jwtSecret,
    signal: new AbortController().signal,
    log: () => {},
    onRestart: () => {},
  });
  const gateway = await runGateway({
    port: undefined,
    preferredPort: 54321,
    authenticate: (credentials) => authenticate({ jwtSecret, adminPassword: "", ...keys }, credentials),
    upstream: postgrest.port,
    functions: () => undefined,
  });
  afterAll(async () => {
    await gateway.stop();
    await postgrest.stop();
    rmSync(logs, { recursive: true });
  });
  return { url: gateway.url, ...keys, dbUrl, adminUrl };
}
