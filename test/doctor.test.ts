import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkDatabase, limits } from "../src/doctor/database.ts";
import type { Finding } from "../src/doctor/finding.ts";
import { packageRoot } from "../src/stack/package-root.ts";
import { type Stack, startStack } from "../src/stack/stack.ts";

let stack: Stack;
let sql: postgres.Sql;
let folder: string;
let environment: Record<string, string>;

beforeAll(async () => {
  stack = await startStack({ ephemeral: true, migrations: packageRoot() });
  sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
  folder = await mkdtemp(join(tmpdir(), "work-claims-test-"));
  environment = {
    SUPABASE_URL: stack.url,
    SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
    SUPABASE_ANON_KEY: stack.anonKey,
    SUPABASE_DB_URL: stack.dbUrl,
  };
});
afterAll(async () => {
  await sql.end();
  await stack.stop();
  await rm(folder, { recursive: true });
});

const command = join(packageRoot(), "dist", "src", "cli", "main.js");

async function doctor(
  changed: Record<string, string> = {},
  args: string[] = [],
): Promise<{ code: number; output: string; errors: string }> {
  return new Promise((resolve) => {
    const env = { PATH: process.env.PATH, ...environment, ...changed };
    const child = execFile(process.execPath, [command, "doctor", ...args], { cwd: folder, env }, (_, output, errors) =>
      resolve({ code: child.exitCode ?? -1, output, errors }),
    );
  });
}

/** The findings that are wrong, as the command prints them. */
async function wrong(changed: Record<string, string> = {}): Promise<string[]> {
  const { code, output } = await doctor(changed, ["--json"]);
  const found = (JSON.parse(output) as Finding[]).filter((finding) => finding.isRight === false);
  expect(code).toBe(found.length > 0 ? 1 : 0);
  return found.map(({ check, text, advice }) => `${check}: ${text} → ${advice}`);
}

test("doctor finds nothing wrong with a new project", async () => {
  const { code, output } = await doctor();
  expect(output.split("\n").filter((line) => !line.startsWith("✓"))).toEqual([""]);
  expect(output).toMatch(/^✓ schema {6}work-claims \d/m);
  expect(code).toBe(0);
});

test("doctor asks the API if it has no address of the database", async () => {
  const { code, output } = await doctor({ SUPABASE_DB_URL: "" });
  expect(output).toMatch(/^– database .*give --db-url/m);
  expect(output).toMatch(/^✓ functions/m);
  expect(code).toBe(0);
});

test("doctor without any address exits as without a project", async () => {
  expect((await doctor({ SUPABASE_URL: "", SUPABASE_DB_URL: "" })).code).toBe(3);
});

test("doctor names an address that does not answer", async () => {
  expect(await wrong({ SUPABASE_URL: "http://127.0.0.1:1" })).toEqual([
    expect.stringMatching(/^address: http:\/\/127\.0\.0\.1:1 does not answer .* → look at SUPABASE_URL/),
  ]);
});

test("doctor names an address that is no Supabase project", async () => {
  expect(await wrong({ SUPABASE_URL: `${stack.url}/elsewhere` })).toEqual([
    expect.stringMatching(/^address: .* answers with status 404/),
  ]);
});

test("doctor names a key that is refused", async () => {
  expect(await wrong({ SUPABASE_SERVICE_ROLE_KEY: "sb_secret_guess" })).toEqual([
    expect.stringMatching(/^key: it is refused → take the service_role key/),
  ]);
});

test("doctor names a public key in place of the service key", async () => {
  expect(await wrong({ SUPABASE_SERVICE_ROLE_KEY: stack.anonKey })).toEqual([
    expect.stringMatching(/^address: The key is the project's public one/),
  ]);
});

test("doctor names a database that takes no connection", async () => {
  expect(await wrong({ SUPABASE_DB_URL: "postgresql://postgres:postgres@127.0.0.1:1/postgres" })).toEqual([
    expect.stringMatching(/^database: it takes no connection .* → look at SUPABASE_DB_URL/),
  ]);
});

test("doctor says how to install where work-claims is not installed", async () => {
  const bare = await startStack({ ephemeral: true });
  try {
    const found = await wrong({
      SUPABASE_URL: bare.url,
      SUPABASE_SERVICE_ROLE_KEY: bare.secretKey,
      SUPABASE_DB_URL: bare.dbUrl,
    });
    expect(found).toEqual([
      expect.stringMatching(/^functions: this key cannot call .*claim_next.* → run work-claims init/),
      expect.stringMatching(/^schema: work-claims is not installed → run work-claims init/),
    ]);
  } finally {
    await bare.stop();
  }
});

test("doctor names the two versions where the database has another one", async () => {
  const [before] = await sql`select obj_description('work'::regnamespace, 'pg_namespace') as comment`;
  await sql`comment on schema work is 'work-claims 9.9.9: of the future'`;
  expect(await wrong()).toEqual([
    expect.stringMatching(/^schema: the database has work-claims 9\.9\.9, and this package is 0\.\d+\.\d+ → run work-/),
  ]);
  await sql.unsafe(`comment on schema work is '${before?.comment}'`);
});

test("doctor names a function that is missing", async () => {
  await sql`alter function prune_classes rename to pruned`;
  await expect
    .poll(() => wrong())
    .toEqual([
      expect.stringMatching(/^functions: this key cannot call prune_classes/),
      expect.stringMatching(/^schema: prune_classes is missing/),
    ]);
  await sql`alter function pruned rename to prune_classes`;
  await expect.poll(() => wrong()).toEqual([]);
});

test("doctor names rights that anon or authenticated has", async () => {
  await sql`grant select on work_items to anon`;
  await sql`grant execute on function claim_next to authenticated`;
  const inDatabase = { SUPABASE_ANON_KEY: "" };
  const found = await wrong(inDatabase);
  expect(found).toEqual([
    expect.stringMatching(
      /^rights: authenticated has rights on function claim_next\(.*, and 1 more like it → revoke all/,
    ),
  ]);
  const [, revoke = ""] = /→ (revoke.*)$/.exec(found[0] ?? "") ?? [];
  await sql.unsafe(revoke);
  expect(await wrong(inDatabase)).toEqual([
    expect.stringMatching(/^rights: anon has rights on table work_items → revoke/),
  ]);
  await sql`revoke all on work_items from anon`;
});

test("doctor finds an open table with the public key alone", async () => {
  await sql`grant select on work_items to anon`;
  const found = wrong({ SUPABASE_DB_URL: "" });
  expect(await found).toEqual([expect.stringMatching(/^public key: everybody can read work_items → revoke all/)]);
  await sql`revoke all on work_items from anon`;
});

test("doctor names a clock that differs from the database's", async () => {
  const slow = await checkDatabase(sql, () => Date.now() - 3_600_000, limits);
  expect(slow.find(({ check }) => check === "clock")).toMatchObject({
    isRight: false,
    text: expect.stringMatching(/^this machine is 3[56]\d\d\.\d s behind the database$/),
  });
});

test("doctor names the transaction that keeps vacuum from cleaning, and how to end it", async () => {
  const idle = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
  const holder = await idle.reserve();
  await holder`begin isolation level repeatable read`;
  const [session] = await holder`select pg_backend_pid() as pid, count(*) from work_items`;
  const snapshots = async (): Promise<Finding | undefined> => {
    const findings = await checkDatabase(sql, Date.now, { ...limits, snapshotSeconds: 1 });
    return findings.find(({ check }) => check === "snapshots");
  };
  await expect.poll(snapshots).toEqual({
    check: "snapshots",
    isRight: false,
    text: expect.stringMatching(`^process ${session?.pid} of postgres \\(idle in transaction\\) keeps vacuum`),
    advice: `end it with: select pg_terminate_backend(${session?.pid})`,
  });
  await holder`rollback`;
  holder.release();
  await idle.end();
});

test("doctor names a pool whose column is gone, and one whose table is gone", async () => {
  await sql`create table articles (id int primary key, title text, body text)`;
  await sql`select attach_pool('articles', payload_columns => '{title,body}')`;
  expect(await wrong()).toEqual([]);
  await sql`alter table articles rename body to content`;
  expect(await wrong()).toEqual([]);
  await sql`alter table articles drop content`;
  expect(await wrong()).toEqual([expect.stringMatching(/^pools: articles: payload_column is .*body/)]);
  await sql`drop table articles`;
  expect(await wrong()).toEqual([expect.stringMatching(/^pools: articles: its table was dropped/)]);
  await sql`select detach_pool('articles')`;
  expect(await wrong()).toEqual([]);
});
