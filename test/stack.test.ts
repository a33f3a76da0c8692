import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { pushMigrations } from "../src/stack/push.ts";
import { type Stack, startStack } from "../src/stack/stack.ts";

/** A project with one table that the service role may use. */
async function tinyProject(sql: string): Promise<string> {
  const project = await mkdtemp(join(tmpdir(), "work-claims-test-"));
  await mkdir(join(project, "supabase", "migrations"), { recursive: true });
  await writeFile(join(project, "supabase", "migrations", "20260101000000_notes.sql"), sql);
  return project;
}

const notes = "create table public.notes (id int primary key); insert into public.notes values (7);";

describe("a stack with the old default privileges", () => {
  let stack: Stack;
  let project: string;

  beforeAll(async () => {
    project = await tinyProject(notes);
    stack = await startStack({ ephemeral: true, migrations: project });
  });
  afterAll(async () => {
    await stack.stop();
    await rm(project, { recursive: true });
  });

  const ask = (headers: Record<string, string>, path = "/rest/v1/notes?select=id"): Promise<Response> =>
    fetch(stack.url + path, { headers });

  test("a start applies the project's migrations through the real CLI, and PostgREST knows them at once", () => {
    expect(stack.applied).toEqual(["20260101000000_notes.sql"]);
  });

  test("the gateway accepts every kind of key that Supabase does", async () => {
    const { serviceKey, secretKey, anonKey, publishableKey } = stack;
    const accepted: Record<string, string>[] = [
      { apikey: serviceKey },
      { apikey: serviceKey, authorization: `Bearer ${serviceKey}` },
      { apikey: secretKey },
      { apikey: secretKey, authorization: `Bearer ${secretKey}` },
      { apikey: anonKey },
      { apikey: anonKey, authorization: `Bearer ${serviceKey}` },
      { apikey: publishableKey },
    ];
    for (const headers of accepted) {
      const response = await ask(headers);
      expect([response.status, await response.json()]).toEqual([200, [{ id: 7 }]]);
    }
  });

  test("the gateway takes a key from the address and does not pass it on", async () => {
    const response = await ask({}, `/rest/v1/notes?select=id&apikey=${stack.secretKey}&id=eq.7`);
    expect([response.status, await response.json()]).toEqual([200, [{ id: 7 }]]);
  });

  test("a wrong key is refused with a sentence", async () => {
    const { secretKey, publishableKey } = stack;
    const refused: [Record<string, string>, string][] = [
      [{}, "No API key found in request"],
      [{ apikey: "" }, "No API key found in request"],
      [{ apikey: "sb_secret_guess" }, "Invalid API key"],
      [{ apikey: `${secretKey}x` }, "Invalid API key"],
      [{ apikey: publishableKey, authorization: `Bearer ${secretKey}` }, "Invalid JWT"],
      [{ apikey: secretKey, "user-agent": "Mozilla/5.0 (X11)" }, "Forbidden use of secret API key in browser"],
    ];
    for (const [headers, message] of refused) {
      const response = await ask(headers);
      expect([response.status, ((await response.json()) as { message: string }).message]).toEqual([401, message]);
    }
  });

  test("a forged token is refused by PostgREST", async () => {
    const forged = `${stack.serviceKey.slice(0, -4)}AAAA`;
    expect((await ask({ apikey: stack.anonKey, authorization: `Bearer ${forged}` })).status).toBe(401);
  });

  test("a preflight request of a browser is answered", async () => {
    const response = await fetch(`${stack.url}/rest/v1/notes`, {
      method: "OPTIONS",
      headers: {
        origin: "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "apikey",
      },
    });
    expect([response.status, response.headers.get("access-control-allow-origin")]).toEqual([204, "*"]);
  });

  test("an address outside /rest/v1 has no route", async () => {
    expect((await ask({ apikey: stack.secretKey }, "/rest/v10/notes")).status).toBe(404);
  });

  test("large bodies go through both ways", async () => {
    const big = "x".repeat(3_000_000);
    const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
    await sql`create function public.echo(body text) returns text language sql as 'select body'`;
    await sql.end();
    await expect
      .poll(async () => {
        const response = await fetch(`${stack.url}/rest/v1/rpc/echo`, {
          method: "POST",
          headers: { apikey: stack.secretKey, "content-type": "application/json" },
          body: JSON.stringify({ body: big }),
        });
        return response.ok ? (await response.json()) === big : false;
      })
      .toBe(true);
  });

  test("PostgREST learns of a new table by itself", async () => {
    const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
    await sql`create table public.later (id int)`;
    await sql.end();
    await expect.poll(async () => (await ask({ apikey: stack.secretKey }, "/rest/v1/later")).status).toBe(200);
  });

  test("postgres owns the database, as on a hosted project, and is no superuser", async () => {
    const sql = postgres(stack.dbUrl, { max: 1 });
    const [row] = await sql`
      select rolsuper, rolbypassrls, rolcreaterole,
        (select pg_get_userbyid(datdba) from pg_database where datname = current_database()) as owner
      from pg_roles where rolname = current_user`;
    await sql.end();
    expect(row).toEqual({ rolsuper: false, rolbypassrls: true, rolcreaterole: true, owner: "postgres" });
  });

  test("a killed PostgREST comes back", async () => {
    process.kill(stack.postgrest.pid(), "SIGKILL");
    await expect.poll(async () => (await ask({ apikey: stack.secretKey })).status).toBe(200);
  });

  test("a killed Postgres comes back with all committed rows", async () => {
    const killed = stack.postgres.pid();
    process.kill(killed, "SIGKILL");
    await expect.poll(() => stack.postgres.pid()).not.toBe(killed);
    await expect.poll(async () => (await ask({ apikey: stack.secretKey })).status).toBe(200);
  });

  test("a Postgres that is taken down stays down until it is started", async () => {
    await stack.postgres.stop("immediate");
    await expect.poll(async () => (await ask({ apikey: stack.secretKey })).status).toBe(503);
    await stack.postgres.start();
    await expect.poll(async () => (await ask({ apikey: stack.secretKey })).status).toBe(200);
  });

  test("a failed push throws the database's own sentence", async () => {
    await writeFile(
      join(project, "supabase", "migrations", "20260102000000_broken.sql"),
      "create table o (id nosuch);",
    );
    await expect(pushMigrations(stack.dbUrl, project)).rejects.toThrow('ERROR: type "nosuch" does not exist');
  });

  // The last one: the others need the stack.
  test("an ephemeral stack leaves no folder", async () => {
    expect(existsSync(stack.dataDir)).toBe(true);
    await stack.stop();
    expect(existsSync(stack.dataDir)).toBe(false);
  });
});

test("with the new default privileges, on Postgres 15, only the owner may touch a new table", async () => {
  const project = await tinyProject(notes);
  const stack = await startStack({ ephemeral: true, migrations: project, grants: "new", postgres: 15 });
  try {
    const response = await fetch(`${stack.url}/rest/v1/notes`, { headers: { apikey: stack.secretKey } });
    expect(await response.json()).toMatchObject({ code: "42501" });
    const sql = postgres(stack.dbUrl, { max: 1 });
    const [row] = await sql`show server_version_num`;
    await sql.end();
    expect(String(row?.server_version_num)).toMatch(/^15/);
  } finally {
    await stack.stop();
    await rm(project, { recursive: true });
  }
});

test("files with keys or passwords are readable by their owner alone", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "work-claims-test-"));
  await chmod(dataDir, 0o755);
  const stack = await startStack({ dataDir });
  try {
    for (const name of ["keys.json", "stack.json", "stack.lock"]) {
      expect([name, ((await stat(join(dataDir, name))).mode & 0o077).toString(8)]).toEqual([name, "0"]);
    }
    const commandLine = await readFile(`/proc/${stack.postgrest.pid()}/cmdline`, "utf8").catch(() => "");
    expect(commandLine).not.toMatch(/postgres:\/\/|eyJ/);
  } finally {
    await stack.stop();
    await rm(dataDir, { recursive: true });
  }
});
