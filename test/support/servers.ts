import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import postgres from "postgres";
import type { TestProject } from "vitest/node";
import { prepareDatabase } from "../../src/stack/roles.ts";
import { startStack } from "../../src/stack/stack.ts";

export type Version = 15 | 17;

declare module "vitest" {
  interface ProvidedContext {
    servers: Record<Version, { adminUrl: string; dbUrl: string }>;
  }
}

/** Both Postgres versions, each with templates for the databases of test files; stopped when the run ends. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  execFileSync(process.execPath, [join(import.meta.dirname, "..", "..", "supabase", "build.mjs")]);
  const stacks = await Promise.all(
    ([15, 17] as const).map((version) => startStack({ ephemeral: true, postgres: version })),
  );
  const teardown = async (): Promise<void> => {
    await Promise.all(stacks.map((stack) => stack.stop()));
  };
  try {
    await Promise.all(stacks.map((stack) => makeTemplates(stack.adminUrl, stack.dbUrl)));
  } catch (error) {
    await teardown();
    throw error;
  }
  const [older, newer] = stacks.map(({ adminUrl, dbUrl }) => ({ adminUrl, dbUrl }));
  if (older && newer) {
    project.provide("servers", { 15: older, 17: newer });
  }
  return teardown;
}

async function makeTemplates(adminUrl: string, ownerUrl: string): Promise<void> {
  const admin = postgres(inDatabase(adminUrl, "template1"), { max: 1, onnotice: () => {} });
  await admin`create role stranger login password 'postgres'`;
  for (const grants of ["old", "new"] as const) {
    await admin.unsafe(`create database bare_${grants} owner postgres`);
    await prepareDatabase(inDatabase(adminUrl, `bare_${grants}`), grants);
    await admin.unsafe(`create database migrated_${grants} template bare_${grants} owner postgres`);
    await migrate(inDatabase(ownerUrl, `migrated_${grants}`));
    await admin.unsafe(`create database tokens_${grants} template migrated_${grants} owner postgres`);
    await migrate(inDatabase(ownerUrl, `tokens_${grants}`), [optionalMigration("work_tokens")]);
  }
  await admin.end();
}

/** The migrations as the Supabase CLI applies them: as postgres, one transaction a file. */
export async function migrate(ownerUrl: string, files: string[] = migrations()): Promise<void> {
  const sql = postgres(ownerUrl, { max: 1, onnotice: () => {} });
  for (const file of files) {
    await sql.begin((transaction) => transaction.unsafe(file));
  }
  await sql.end();
}

/** The migrations, each file whole, in order. */
export function migrations(): string[] {
  const directory = join(import.meta.dirname, "..", "..", "supabase", "migrations");
  return readdirSync(directory)
    .filter((name) => name.endsWith(".sql"))
    .sort()
    .map((name) => readFileSync(join(directory, name), "utf8"));
}

/** The text of a migration that only some projects have. */
export function optionalMigration(name: string): string {
  return readFileSync(join(import.meta.dirname, "..", "..", "supabase", "optional", `${name}.sql`), "utf8");
}

/** The address of another database of the same server, for another role where one is named. */
export function inDatabase(url: string, database: string, role?: string): string {
  const address = new URL(url);
  address.pathname = `/${database}`;
  if (role !== undefined) {
    address.username = role;
    address.password = "postgres";
  }
  return address.href;
}
