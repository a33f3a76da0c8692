// Every command of the page on Edge Functions, in its order, in a project that npm has installed work-claims in. A stand-in
// for Supabase's Management API takes what is deployed; pg_cron, pg_net and Vault are stand-ins too.
import { execFile } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readEnvFile } from "../src/cli/env-file.ts";
import { packageRoot } from "../src/stack/package-root.ts";
import { waitUntil } from "./support/calls.ts";

const page = readFileSync(join(packageRoot(), "docs", "edge.md"), "utf8");
const blocks = [...page.matchAll(/^```(\w+)\n([\s\S]*?)^```/gm)].map(([, language = "", text = ""]) => ({
  language,
  text,
}));

let project: string;
let api: Server;
let environment: NodeJS.ProcessEnv;
const secrets = new Map<string, string>();
const deployed = new Map<string, string[]>();

beforeAll(async () => {
  project = mkdtempSync(join(tmpdir(), "work-claims-docs-edge-"));
  symlinkSync(join(packageRoot(), "node_modules"), join(project, "node_modules"));
  api = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    const slug = /\/functions\/deploy\?slug=([\w-]+)/.exec(request.url ?? "")?.[1];
    if (slug)
      deployed.set(
        slug,
        [...body.matchAll(/filename="([^"]*)"/g), ...body.matchAll(/"verify_jwt":false/g)].map(
          (match) => match[1] ?? match[0],
        ),
      );
    if (request.url?.endsWith("/secrets")) for (const { name, value } of JSON.parse(body)) secrets.set(name, value);
    const now = Date.now();
    response.writeHead(request.method === "POST" ? 201 : 200, { "content-type": "application/json" });
    response.end(
      JSON.stringify({
        id: randomUUID(),
        slug,
        name: slug,
        status: "ACTIVE",
        version: 1,
        created_at: now,
        updated_at: now,
      }),
    );
  });
  await new Promise<void>((resolve) => api.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(api.address() as AddressInfo).port}`;
  const profile = join(project, "profile.yaml");
  writeFileSync(profile, `name: local\napi_url: ${url}\ndashboard_url: ${url}\nproject_host: local.test\n`);
  // As supabase login and supabase link leave it.
  mkdirSync(join(project, "supabase", ".temp"), { recursive: true });
  writeFileSync(join(project, "supabase", ".temp", "project-ref"), "abcdefghijklmnopqrst");
  environment = {
    ...process.env,
    ...{ SUPABASE_PROFILE: profile, SUPABASE_ACCESS_TOKEN: `sbp_${"0".repeat(40)}`, SUPABASE_YES: "1" },
    ...{ DO_NOT_TRACK: "1", SUPABASE_TELEMETRY_DISABLED: "1", SUPABASE_NO_UPDATE_NOTIFIER: "1" },
  };
});
afterAll(async () => {
  await type("npx work-claims down").catch(() => {});
  api.close();
  rmSync(project, { recursive: true, force: true });
});

/** Types a command, and keeps what it exports. */
async function type(command: string): Promise<string> {
  const script = `${command}\nenv -0 > .exported`;
  const { stdout } = await promisify(execFile)("bash", ["-euo", "pipefail", "-c", script], {
    cwd: project,
    env: environment,
  });
  const exported = readFileSync(join(project, ".exported"), "utf8").split("\0");
  environment = Object.fromEntries(
    exported.filter(Boolean).map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]),
  );
  return stdout;
}

async function run(sql: postgres.Sql, text: string): Promise<Record<string, unknown>[]> {
  const own = text
    .replace("https://YOUR-PROJECT.supabase.co", environment.SUPABASE_URL ?? "")
    .replace("YOUR-SECRET", environment.WORK_DRAIN_SECRET ?? "");
  return sql.unsafe(own).simple() as unknown as Promise<Record<string, unknown>[]>;
}

const files = (...names: string[]): string[] => names.map((name) => `supabase/functions/${name}`);

test("the page on Edge Functions runs as written", { timeout: 240_000 }, async () => {
  const next = (language: string): string => {
    const block = blocks.shift();
    expect(block?.language).toBe(language);
    return block?.text ?? "";
  };
  await type(next("sh"));
  const handler = next("ts");
  const path = /^\/\/ (\S+)$/m.exec(handler)?.[1] ?? "";
  expect(readFileSync(join(project, path), "utf8")).toContain("export const handler: Handler");
  writeFileSync(join(project, path), handler);

  await type(next("sh"));
  Object.assign(environment, readEnvFile(project));
  const sql = postgres(environment.SUPABASE_DB_URL ?? "", { max: 1, onnotice: () => {} });
  await run(sql, next("sql"));
  const answer = JSON.parse(await type(next("sh")));
  expect({ ...answer, worker_id: answer.worker_id.replace(/^edge-.*-1$/, "edge-…-1") }).toEqual(
    JSON.parse(next("json")),
  );

  await type(next("sh"));
  expect(secrets.get("WORK_DRAIN_SECRET")).toBe(environment.WORK_DRAIN_SECRET);
  expect(deployed.get("work-drain")).toEqual(
    expect.arrayContaining([
      ...files(
        "work-drain/index.ts",
        "work-drain/handler.ts",
        "_shared/work-claims/work.ts",
        "_shared/work-claims/host.ts",
      ),
      '"verify_jwt":false',
    ]),
  );

  await sql.unsafe(readFileSync(join(import.meta.dirname, "support", "extensions.sql"), "utf8"));
  await sql`select enqueue_items('[{"payload": {"body": "one more"}}]')`;
  await run(sql, next("sql"));
  const [job] = await sql`select command from cron.job`;
  await sql.unsafe(job?.command);
  const requests = await sql`select url, headers, body from net.http_request_queue`;
  expect(requests).toHaveLength(1);
  const response = await fetch(requests[0]?.url, {
    method: "POST",
    headers: requests[0]?.headers,
    body: JSON.stringify(requests[0]?.body),
  });
  expect(response.status).toBe(202);
  await waitUntil(async () => (await sql`select from work_claims where status = 'succeeded'`).length === 3);

  await run(sql, next("sql"));
  const write = (fence: number, body: string): Promise<unknown> =>
    sql`select write_page('00000000-0000-0000-0000-000000000001', ${fence}, ${body}) as is_written`;
  expect([await write(7, "newer"), await write(6, "late")]).toEqual([[{ is_written: true }], [{ is_written: false }]]);
  expect(await sql`select body from pages`).toEqual([{ body: "newer" }]);

  await type(next("sh"));
  expect(secrets.get("WORK_CALLBACK_SECRET")).toMatch(/^whsec_/);
  expect(deployed.get("work-callback")).toEqual(
    expect.arrayContaining([...files("work-callback/index.ts", "work-callback/callback.ts"), '"verify_jwt":false']),
  );
  // The secret of the page is of the form that the function takes.
  writeFileSync(join(project, "supabase/functions/.env"), `WORK_CALLBACK_SECRET=${environment.WORK_CALLBACK_SECRET}\n`);
  const body = '{"external_id": "job 1", "outcome": "succeeded"}';
  const at = Math.floor(Date.now() / 1000) - 90;
  const key = Buffer.from(environment.WORK_CALLBACK_SECRET?.slice(6) ?? "", "base64");
  const signature = createHmac("sha256", key).update(`m.${at}.${body}`).digest("base64");
  const headers = { "webhook-id": "m", "webhook-timestamp": String(at), "webhook-signature": `v1,${signature}` };
  const closed = await fetch(`${environment.SUPABASE_URL}/functions/v1/work-callback`, {
    method: "POST",
    headers,
    body,
  });
  expect(await closed.json()).toEqual({ closed: 0 });

  await run(sql, next("sql"));
  expect(await sql`select from cron.job`).toEqual([]);
  await sql.end();
  expect(blocks).toEqual([]);
});
