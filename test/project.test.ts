import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { envFileName, readEnvFile, writeEnvFile } from "../src/cli/env-file.ts";
import { findDatabase, findProject } from "../src/cli/project.ts";
import { createKeys } from "../src/stack/keys.ts";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "work-claims-test-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

const file = (text: string): Promise<void> => writeFile(join(folder, envFileName), text);
const variables = {
  SUPABASE_URL: "http://127.0.0.1:1",
  SUPABASE_SERVICE_ROLE_KEY: "a.b.c",
  SUPABASE_SECRET_KEY: "sb_secret_x",
  SUPABASE_ANON_KEY: "a.b.d",
  SUPABASE_PUBLISHABLE_KEY: "sb_publishable_x",
  SUPABASE_DB_URL: "postgresql://postgres:postgres@127.0.0.1:2/postgres?a=b",
};
const fromFile = "SUPABASE_URL=http://file\nSUPABASE_SECRET_KEY=file-key\nSUPABASE_DB_URL=postgresql://file/db\n";

test("flags come before the environment, the environment before the file", async () => {
  await file(fromFile);
  expect(await findProject({}, { env: {}, folder })).toEqual({
    url: "http://file",
    key: "file-key",
    dbUrl: "postgresql://file/db",
  });
  const env = { SUPABASE_URL: "http://env", SUPABASE_SERVICE_ROLE_KEY: "env-key" };
  expect(await findProject({}, { env, folder })).toEqual({ url: "http://env", key: "env-key", dbUrl: undefined });
  expect(await findProject({ key: "flag-key" }, { env, folder })).toMatchObject({ url: "http://env", key: "flag-key" });
});

test("a key from one source is not sent to an address of another", async () => {
  await file(fromFile);
  await expect(findProject({ url: "http://flag" }, { env: {}, folder })).rejects.toThrow(
    "service key of http://flag is missing",
  );
  const env = { SUPABASE_SERVICE_ROLE_KEY: "env-key" };
  expect(await findProject({ url: "http://flag" }, { env, folder })).toMatchObject({ key: "env-key" });
});

test("an error names the missing setting in one sentence", async () => {
  const nothing = { env: {}, folder };
  await expect(findProject({}, nothing)).rejects.toThrow("give --url, set SUPABASE_URL, or run work-claims up here");
  await expect(findDatabase({}, nothing)).rejects.toThrow(
    "give --db-url, set SUPABASE_DB_URL, or run work-claims up here",
  );
  await expect(findProject({ url: "localhost:54321", key: "k" }, nothing)).rejects.toThrow(
    "one like https://abc.supabase.co",
  );
});

test.each(["a#b", "1#b", "a%b", "a/b", "1/b", "a?b"])(
  "the raw password %s is said to need encoding",
  async (password) => {
    const given = (text: string): Promise<string> =>
      findDatabase({ "db-url": `postgresql://me:${text}@localhost:5432/db` }, { env: {}, folder });
    await expect(given(password)).rejects.toThrow("no URL; percent-encode special characters in the password");
    expect(await given(encodeURIComponent(password))).toContain(encodeURIComponent(password));
  },
);

test("an address with several hosts is used unchanged", async () => {
  const address = "postgresql://me:a,b@one:5432,two:5433/db";
  expect(await findDatabase({ "db-url": address }, { env: {}, folder })).toBe(address);
});

test("git ignores the env file, and earlier exclusions stay", async () => {
  const git = (...args: string[]): string => execFileSync("git", args, { cwd: folder, encoding: "utf8" });
  git("init", "--quiet");
  const exclude = join(folder, ".git", "info", "exclude");
  await writeFile(exclude, "mine");
  await mkdir(join(folder, "inner"));
  for (const place of [folder, join(folder, "inner"), folder]) writeEnvFile(place, variables);
  expect(git("status", "--porcelain", "--untracked-files=all")).toBe("");
  expect(await readFile(exclude, "utf8")).toBe(`mine\n${envFileName}\n`);
});

test("a public key is refused before it is sent", async () => {
  const { anonKey, publishableKey } = createKeys(0);
  for (const key of [anonKey, publishableKey]) {
    await expect(findProject({ url: "http://x", key }, { env: {}, folder })).rejects.toThrow("service_role key");
  }
});

test("only its owner reads the env file, and it reads back unchanged", async () => {
  await writeFile(join(folder, envFileName), "old", { mode: 0o644 });
  const path = writeEnvFile(folder, variables);
  expect(readEnvFile(folder)).toEqual(variables);
  expect(((await stat(path)).mode & 0o777).toString(8)).toBe("600");
});
