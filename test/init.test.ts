import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { addEdgeFunctions } from "../src/stack/edge-files.ts";
import { type Addition, addMigration } from "../src/stack/migrations.ts";
import { packageRoot } from "../src/stack/package-root.ts";
import { pushMigrations } from "../src/stack/push.ts";
import { type Stack, startStack } from "../src/stack/stack.ts";

let project: string;
/** The package's supabase folder, in a version of the test's own. */
let source: string;

beforeEach(async () => {
  project = await mkdtemp(join(tmpdir(), "work-claims-test-"));
  source = join(project, "package");
  await mkdir(join(source, "migrations"), { recursive: true });
  await writeFile(join(source, "config.toml"), 'project_id = "work-claims"\n');
  await release("0.1.0", 1);
});
afterEach(async () => {
  await rm(project, { recursive: true });
});

const own = "20261101000100_work_claims.sql";
const later = "20261201100000_work_claims.sql";
const migrations = (): string => join(project, "supabase", "migrations");
const init = (): Promise<Addition> => addMigration(project, { source, now: new Date("2026-12-01T10:00:00Z") });

/** The package of one version, whose only function answers with a number. */
function release(version: string, value: number, more = ""): Promise<void> {
  const text = `-- work-claims ${version}\ncreate or replace function public.answer() returns int language sql as 'select ${value}';\n`;
  return writeFile(join(source, "migrations", own), text + more);
}

async function existing(name: string, text = "select 1;"): Promise<void> {
  await mkdir(migrations(), { recursive: true });
  await writeFile(join(migrations(), name), text);
}

test("an empty project gets the migration and a config.toml with its own name", async () => {
  expect(await init()).toEqual({ added: own, previous: undefined, changes: [], config: true });
  expect(await readdir(migrations())).toEqual([own]);
  expect(await readFile(join(project, "supabase", "config.toml"), "utf8")).toMatch(/project_id = "work-claims-test-/);
});

test("a second init changes nothing", async () => {
  await init();
  expect(await init()).toEqual({ added: undefined, previous: own, changes: [], config: false });
  expect(await readdir(migrations())).toEqual([own]);
});

test("init keeps a config.toml that exists", async () => {
  await mkdir(join(project, "supabase"), { recursive: true });
  await writeFile(join(project, "supabase", "config.toml"), "mine");
  expect((await init()).config).toBe(false);
  expect(await readFile(join(project, "supabase", "config.toml"), "utf8")).toBe("mine");
});

test("the migration comes after later ones of the project", async () => {
  await existing("20261115000000_mine.sql");
  expect((await init()).added).toBe(later);
});

test("the migration comes after one that is numbered beyond the clock", async () => {
  await existing("20991231235959_mine.sql");
  expect((await init()).added).toBe("20991231235960_work_claims.sql");
});

test("a new version adds one file and names what it changes", async () => {
  await init();
  await release("0.2.0", 2, "create or replace function public.more() returns int language sql as 'select 3';\n");
  expect(await init()).toEqual({
    added: later,
    previous: own,
    changes: ["from 0.1.0 to 0.2.0", "new functions: more"],
    config: false,
  });
  expect((await init()).added).toBeUndefined();
});

test("init keeps an edited file and adds the package's text after it", async () => {
  await init();
  await existing(own, "-- mine");
  expect((await init()).added).toBe(later);
  expect(await readFile(join(migrations(), own), "utf8")).toBe("-- mine");
  expect((await init()).added).toBeUndefined();
});

test("changed line ends make no new version", async () => {
  await init();
  const file = join(migrations(), own);
  await writeFile(file, (await readFile(file, "utf8")).replaceAll("\n", "\r\n"));
  expect((await init()).added).toBeUndefined();
});

describe("the Edge Functions", () => {
  const functions = (...path: string[]): string => join(project, "supabase", "functions", ...path);
  const text = (...path: string[]): Promise<string> => readFile(functions(...path), "utf8");

  beforeEach(() => addMigration(project));

  test("come with a copy of the runtime, and with entries in config.toml", async () => {
    expect(await addEdgeFunctions(project)).toEqual({
      kept: [],
      written: [
        "functions/_shared/work-claims/",
        ...["functions/work-drain/index.ts", "functions/work-drain/handler.ts"],
        ...["functions/work-callback/index.ts", "functions/work-callback/callback.ts"],
        "config.toml",
      ],
    });
    expect(await readdir(functions("_shared", "work-claims"))).toEqual(
      await readdir(join(packageRoot(), "workers", "runtime")),
    );
    const config = await readFile(join(project, "supabase", "config.toml"), "utf8");
    expect(config.match(/^\[functions\..*\]\nverify_jwt = false$/gm)).toHaveLength(2);
  });

  test("of a new version leave the person's files and settings, and replace the others", async () => {
    await addEdgeFunctions(project);
    const config = join(project, "supabase", "config.toml");
    await writeFile(config, (await readFile(config, "utf8")).replace("verify_jwt = false", "enabled = false"));
    for (const path of [
      ["work-drain", "handler.ts"],
      ["work-callback", "callback.ts"],
      ["mine", "index.ts"],
      ["_shared", "mine.ts"],
    ]) {
      await mkdir(functions(path[0] ?? ""), { recursive: true });
      await writeFile(functions(...path), "// mine");
    }
    for (const path of [
      ["work-drain", "index.ts"],
      ["_shared", "work-claims", "work.ts"],
      ["_shared", "work-claims", "gone.ts"],
    ]) {
      await writeFile(functions(...path), "// of an old version");
    }
    const before = await readFile(config, "utf8");
    expect(await addEdgeFunctions(project)).toMatchObject({
      kept: ["functions/work-drain/handler.ts", "functions/work-callback/callback.ts"],
    });
    expect(await readFile(config, "utf8")).toBe(before);
    for (const path of [
      ["work-drain", "handler.ts"],
      ["work-callback", "callback.ts"],
      ["mine", "index.ts"],
      ["_shared", "mine.ts"],
    ]) {
      expect(await text(...path)).toBe("// mine");
    }
    expect(await text("work-drain", "index.ts")).toContain("../_shared/work-claims/work.ts");
    expect(await text("_shared", "work-claims", "work.ts")).toContain("export async function work");
    expect(await readdir(functions("_shared", "work-claims"))).not.toContain("gone.ts");
  });

  test("have a schedule whose migration comes after the main one, once", async () => {
    const schedule = { name: "work_schedule" } as const;
    const { added } = await addMigration(project, schedule);
    expect(await readdir(migrations())).toEqual([own, added]);
    expect(await addMigration(project, schedule)).toMatchObject({ added: undefined, previous: added });
    expect((await addMigration(project)).added).toBeUndefined();
  });
});

describe("the migration for tokens", () => {
  const tokens = (at = "2026-12-01T10:00:00Z"): Promise<Addition> =>
    addMigration(project, { source, name: "work_tokens", now: new Date(at) });
  const optional = (text: string): Promise<void> => writeFile(join(source, "optional", "work_tokens.sql"), text);

  beforeEach(async () => {
    await mkdir(join(source, "optional"));
    await optional("select 'tokens';");
    await init();
  });

  test("comes after the one of work-claims, once", async () => {
    expect((await tokens()).added).toBe("20261201100000_work_tokens.sql");
    expect(await readFile(join(migrations(), "20261201100000_work_tokens.sql"), "utf8")).toBe("select 'tokens';");
    expect((await tokens()).added).toBeUndefined();
    expect(await readdir(migrations())).toHaveLength(2);
  });

  test("comes again after each new version of the one of work-claims", async () => {
    await tokens();
    await release("0.2.0", 2);
    expect((await init()).added).toBe("20261201100001_work_claims.sql");
    expect((await tokens()).added).toBe("20261201100002_work_tokens.sql");
    expect((await tokens()).added).toBeUndefined();
  });

  test("comes again in a new version of its own", async () => {
    await tokens();
    await optional("select 'more tokens';");
    expect((await tokens("2026-12-02T10:00:00Z")).added).toBe("20261202100000_work_tokens.sql");
    expect((await tokens()).added).toBeUndefined();
  });

  test("is kept up to date by a plain init in a project that asked for it once", async () => {
    const main = join(packageRoot(), "dist", "src", "cli", "main.js");
    const run = async (...args: string[]): Promise<string> =>
      (await promisify(execFile)(process.execPath, [main, "init", ...args], { cwd: project })).stdout;
    const names = async (): Promise<string[]> =>
      (await readdir(migrations())).map((name) => name.replace(/^\d+_/, "")).sort();
    await rm(migrations(), { recursive: true });
    await run();
    expect(await names()).toEqual(["work_claims.sql"]);
    expect(await run("--tokens")).toContain("_work_tokens.sql was written");
    expect(await run()).not.toContain("was written");
    const [first = ""] = (await readdir(migrations())).sort();
    await existing(first, "-- an earlier version");
    expect(await run()).toMatch(/_work_claims.sql was written[\s\S]*_work_tokens.sql was written/);
    expect(await names()).toEqual(["work_claims.sql", "work_claims.sql", "work_tokens.sql", "work_tokens.sql"]);
    const [last = ""] = (await readdir(migrations())).sort().reverse();
    expect(last).toContain("work_tokens");
  });
});

// Each push by the CLI takes some seconds.
describe("with a database", { timeout: 240_000 }, () => {
  let stack: Stack;

  beforeAll(async () => {
    stack = await startStack({ ephemeral: true });
  });
  afterAll(() => stack.stop());
  afterEach(() => ask("truncate supabase_migrations.schema_migrations"));

  async function ask(query: string): Promise<postgres.RowList<postgres.Row[]>> {
    const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
    try {
      return await sql.unsafe(query);
    } finally {
      await sql.end();
    }
  }

  test("push brings a database from nothing to the newest version", async () => {
    await init();
    expect(await pushMigrations(stack.dbUrl, project)).toEqual([own]);
    await existing("20261120000000_mine.sql", "create table public.mine (id int);");
    await release("0.2.0", 2);
    await init();
    expect(await pushMigrations(stack.dbUrl, project)).toEqual(["20261120000000_mine.sql", later]);
    expect([...(await ask("select answer()"))]).toEqual([{ answer: 2 }]);
    expect(await pushMigrations(stack.dbUrl, project)).toEqual([]);
  });

  test("the SQL of the page on operating removes work-claims, and push installs it again", async () => {
    const { added } = await addMigration(project);
    await pushMigrations(stack.dbUrl, project);
    await ask("create table articles (id int primary key)");
    await ask("select attach_pool('articles')");
    const before = await objects();

    const page = await readFile(join(packageRoot(), "docs", "operating.md"), "utf8");
    const section = page.slice(page.indexOf("## Taking it out"));
    const [, sql = "", , repair = ""] = section.split(/^```(?:sql|sh)?\n/m);
    await ask(sql);
    expect(await objects()).toEqual([]);
    await ask("insert into articles values (1)");
    await shell(repair, { SUPABASE_DB_URL: stack.dbUrl });

    expect(await pushMigrations(stack.dbUrl, project)).toEqual([added]);
    expect(await objects()).toEqual(before);
    await ask("select attach_pool('articles')");
    expect([...(await ask("select (enroll_pool('articles') ->> 'mirrored')::int as mirrored"))]).toEqual([
      { mirrored: 1 },
    ]);
  });

  /** Type a command in the project, in which npm has installed what this repository has. */
  async function shell(command: string, environment: Record<string, string>): Promise<string> {
    const installed = join(project, "node_modules");
    if (!existsSync(installed)) await symlink(join(packageRoot(), "node_modules"), installed);
    const env = { ...process.env, ...environment };
    const { stdout } = await promisify(execFile)("bash", ["-ec", command], { cwd: project, env });
    return stdout;
  }

  /** The names of everything in the schemas work and public but the test's own tables and functions. */
  async function objects(): Promise<string[]> {
    const rows = await ask(`
      select 'schema ' || nspname as name from pg_namespace where nspname = 'work'
      union all select 'relation ' || oid::regclass from pg_class
       where relnamespace in (select oid from pg_namespace where nspname in ('public', 'work'))
         and oid::regclass::text !~ '^(articles|mine)'
      union all select 'function ' || oid::regprocedure from pg_proc
       where pronamespace in (select oid from pg_namespace where nspname in ('public', 'work')) and proname <> 'answer'
      union all select 'type ' || oid::regtype from pg_type
       where typtype = 'd' and typnamespace = 'public'::regnamespace
      order by 1`);
    return rows.map((row) => String(row.name));
  }

  test("the push command that init prints works in a project that is not linked", async () => {
    const main = join(packageRoot(), "dist", "src", "cli", "main.js");
    const applied = async (environment: Record<string, string>): Promise<string[]> => {
      const printed = await shell(`node "${main}" init`, environment);
      await shell(/^ {2}\$ (.*)$/m.exec(printed)?.[1] ?? "false", environment);
      const history = await ask("select version from supabase_migrations.schema_migrations");
      return history.map((row) => `${row.version}_work_claims.sql`);
    };
    expect(await applied({ SUPABASE_DB_URL: stack.dbUrl })).toEqual([own]);
    await rm(migrations(), { recursive: true });
    await ask("truncate supabase_migrations.schema_migrations");
    await writeFile(join(project, ".env.work-claims"), `SUPABASE_DB_URL=${stack.dbUrl}\n`);
    expect(await applied({})).toEqual([own]);
  });

  test("the package's own migration installs, installs again as a new version, and the CLI makes types of it", async () => {
    const first = await addMigration(project);
    expect(await pushMigrations(stack.dbUrl, project)).toEqual([first.added]);
    const text = await readFile(join(migrations(), first.added ?? ""), "utf8");
    await writeFile(join(source, "migrations", own), text.replace(/^-- work-claims \S+/, "-- work-claims 9.9.9"));
    const second = await init();
    expect(second.changes).toEqual([expect.stringMatching(/^from 0\.\d+\.\d+ to 9\.9\.9$/)]);
    expect(await pushMigrations(stack.dbUrl, project)).toEqual([second.added]);

    // Nothing but types, with the address that up writes.
    const address = { SUPABASE_DB_URL: stack.dbUrl };
    const types = await shell('npx supabase gen types --remote="$SUPABASE_DB_URL"', address);
    await writeFile(join(project, "database.ts"), types);
    await shell("npx tsc --strict --noEmit --ignoreConfig database.ts", {});
    expect(types).toMatch(/^\s*export type Json/);
    expect(types).toContain("claim_next");
  });
});
