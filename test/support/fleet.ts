import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { packageRoot } from "../../src/stack/package-root.ts";
import { call } from "./calls.ts";
import type { Sql } from "./database.ts";

export interface Ran {
  status: number | null;
  out: string;
  err: string;
}

/**
 * Puts into a folder the worker that printed files start here, in place of worker.ts: the oldest Node runs no TypeScript.
 * The path of this checkout may have spaces, which the printed files do not take.
 */
export function placeWorker(folder: string): string {
  const file = join(folder, "worker.mjs");
  const { href } = pathToFileURL(join(import.meta.dirname, "fleet-worker.mjs"));
  writeFileSync(file, `await import(${JSON.stringify(href)});\n`);
  return file;
}

/** Runs `work-claims fleet`, in an environment that knows of no other project. */
export function fleet(args: readonly string[], variables: Record<string, string>, folder: string): Promise<Ran> {
  const program = join(packageRoot(), "dist", "src", "cli", "main.js");
  const env = { PATH: process.env.PATH ?? "", ...variables };
  return new Promise((resolve) => {
    execFile(process.execPath, [program, "fleet", ...args], { cwd: folder, env }, (error, out, err) => {
      resolve({ status: error ? Number(error.code) : 0, out, err });
    });
  });
}

/** Declares a work type with a pool of its own. */
export async function declare(sql: Sql, type: string): Promise<void> {
  await sql`insert into public.work_pools (name) values (${type})`;
  await call(sql, "define_work_type", { work_type: type, pool: type, lease_seconds: 20 });
}
