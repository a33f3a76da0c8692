import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Addition, addMigrations } from "../src/stack/migrations.ts";
import { packageRoot } from "../src/stack/package-root.ts";
import { pushMigrations } from "../src/stack/push.ts";
import { type Stack, startStack } from "../src/stack/stack.ts";

let project: string;
/** Stands for the package's supabase folder, in a version of its own. */
let source: string;

beforeEach(async () => {
  project = await mkdtemp(join(tmpdir(), "work-claims-test-"));
  source = join(project, "package");
  await mkdir(join(source, "migrations"), { recursive: true });
  await writeFile(join(source, "config.toml"), 'project_id = "work-claims"\n');
  await packaged("20261101000100_one.sql", answer(1));
  await packaged("20261101000200_two.sql", "create table if not exists public.two (id int);\n");
});
afterEach(async () => {
  await rm(project, { recursive: true });
});

const packaged = (name: string, text: string): Promise<void> => writeFile(join(source, "migrations", name), text);
const answer = (value: number): string =>
  `create or replace function public.answer() returns int language sql as 'select ${value}';\n`;
const migrations = (): string => join(project, "supabase", "migrations");
const init = (now = "2026-12-01T10:00:00Z", force = false): Promise<Addition> =>
  addMigrations(project, { source, force, now: new Date(now) });

const none = { added: [], updated: [], unchanged: [], conflicting: [], edited: [], config: false };
const both = ["20261101000100_one.sql", "20261101000200_two.sql"];

test("an empty project gets the migrations and a config.toml with its own name", async () => {
  expect(await init()).toEqual({ ...none, added: both, config: true });
  expect(await readdir(migrations())).toEqual(both);
  expect(await readFile(join(project, "supabase", "config.toml"), "utf8")).toMatch(/project_id = "work-claims-test-/);
});

test("a second time changes nothing and says so", async () => {
  await init();
  expect(await init()).toEqual({ ...none, unchanged: both });
});

test("a config.toml that is there stays", async () => {
  await mkdir(join(project, "supabase"), { recursive: true });
  await writeFile(join(project, "supabase", "config.toml"), "mine");
  expect((await init()).config).toBe(false);
  expect(await readFile(join(project, "supabase", "config.toml"), "utf8")).toBe("mine");
});

test("a project whose own migrations are later gets ours after them", async () => {
  await mkdir(migrations(), { recursive: true });
  await writeFile(join(migrations(), "20261115000000_mine.sql"), "select 1;");
  expect((await init()).added).toEqual(["20261201100000_one.sql", "20261201100001_two.sql"]);
});

test("a project that numbers far ahead gets ours after them too", async () => {
  await mkdir(migrations(), { recursive: true });
  await writeFile(join(migrations(), "20991231235959_mine.sql"), "select 1;");
  expect((await init()).added).toEqual(["20991231235960_one.sql", "20991231235961_two.sql"]);
});

test("a changed text arrives as a new file, and so does a new concept, in the package's order", async () => {
  await init();
  await packaged("20261101000100_one.sql", answer(2));
  await packaged("20261101000150_between.sql", "select 1;\n");
  expect(await init()).toEqual({
    ...none,
    updated: ["20261201100000_one.sql"],
    added: ["20261201100001_between.sql"],
    unchanged: ["20261101000200_two.sql"],
  });
  expect((await init("2026-12-02T10:00:00Z")).unchanged).toHaveLength(3);
});

test("a file that somebody edited is left alone, and force adds the package's text after it", async () => {
  await init();
  const edited = join(migrations(), "20261101000100_one.sql");
  const text = (await readFile(edited, "utf8")).replace("select 1", "select 100");
  await writeFile(edited, text);
  expect(await init()).toEqual({ ...none, edited: ["20261101000100_one.sql"], unchanged: ["20261101000200_two.sql"] });

  await packaged("20261101000100_one.sql", answer(2));
  expect((await init()).conflicting).toEqual(["20261101000100_one.sql"]);
  expect((await init(undefined, true)).updated).toEqual(["20261201100000_one.sql"]);
  expect(await readFile(edited, "utf8")).toBe(text);
});

test("text after the mark is an edit too", async () => {
  await init();
  await appendFile(join(migrations(), "20261101000100_one.sql"), "select 'mine';\n");
  expect(await init()).toEqual({ ...none, edited: ["20261101000100_one.sql"], unchanged: ["20261101000200_two.sql"] });
});

test("line ends that a checkout turned are no edit", async () => {
  await init();
  const file = join(migrations(), "20261101000100_one.sql");
  await writeFile(file, (await readFile(file, "utf8")).replaceAll("\n", "\r\n"));
  expect((await init()).unchanged).toEqual(both);
});

test("from an empty project to an updated database, by supabase db push alone", async () => {
  const stack = await startStack({ ephemeral: true });
  try {
    await init();
    await pushMigrations(stack.dbUrl, project);
    expect(await answered(stack)).toBe(1);

    await writeFile(join(migrations(), "20261120000000_mine.sql"), "create table public.mine (id int);");
    await pushMigrations(stack.dbUrl, project);
    await packaged("20261101000100_one.sql", answer(2));
    await init();
    expect(await pushMigrations(stack.dbUrl, project)).toEqual(["20261201100000_one.sql"]);
    expect(await answered(stack)).toBe(2);
    expect(await pushMigrations(stack.dbUrl, project)).toEqual([]);
  } finally {
    await stack.stop();
  }
});

test("the package's own migrations install into an empty project, and again as changed ones", async () => {
  const stack = await startStack({ ephemeral: true });
  try {
    const first = await addMigrations(project, { force: false });
    expect(await pushMigrations(stack.dbUrl, project)).toEqual(first.added);

    const changed = join(project, "changed");
    await mkdir(join(changed, "migrations"), { recursive: true });
    const real = join(packageRoot(), "supabase");
    await writeFile(join(changed, "config.toml"), await readFile(join(real, "config.toml")));
    for (const name of await readdir(join(real, "migrations"))) {
      await writeFile(join(changed, "migrations", name), await readFile(join(real, "migrations", name)));
      await appendFile(join(changed, "migrations", name), "\n-- changed\n");
    }
    const second = await addMigrations(project, { force: false, source: changed });
    expect(second.updated).toHaveLength(first.added.length);
    expect(await pushMigrations(stack.dbUrl, project)).toEqual(second.updated);
  } finally {
    await stack.stop();
  }
});

async function answered(stack: Stack): Promise<number> {
  const sql = postgres(stack.dbUrl, { max: 1 });
  const [row] = await sql`select public.answer() as answer`;
  await sql.end();
  return Number(row?.answer);
}
