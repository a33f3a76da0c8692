import { existsSync } from "node:fs";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { packageRoot } from "./package-root.ts";

/** The functions of work-claims, and the file in each that is the person's. */
const functions = { "work-drain": "handler.ts", "work-callback": "callback.ts" } as const;

/** The files in a project's supabase folder that init wrote, and those of the person that it left alone. */
export type EdgeFiles = { written: string[]; kept: string[] };

/**
 * Put the Edge Functions into a project, with a copy of the runtime: a deploy takes no import from node_modules. Another
 * call brings all to this version but the person's own files.
 */
export async function addEdgeFunctions(projectDir: string): Promise<EdgeFiles> {
  const source = packageRoot();
  const target = join(projectDir, "supabase");
  const runtime = "functions/_shared/work-claims";
  await rm(join(target, runtime), { recursive: true, force: true });
  await mkdir(join(target, runtime), { recursive: true });
  for (const name of await readdir(join(source, "workers", "runtime"))) {
    await cp(join(source, "workers", "runtime", name), join(target, runtime, name));
  }
  const files: EdgeFiles = { written: [`${runtime}/`], kept: [] };
  for (const [name, own] of Object.entries(functions)) {
    for (const file of ["index.ts", own]) {
      const path = `functions/${name}/${file}`;
      if (file === own && existsSync(join(target, path))) {
        files.kept.push(path);
        continue;
      }
      const text = await readFile(join(source, "supabase", path), "utf8");
      await mkdir(dirname(join(target, path)), { recursive: true });
      await writeFile(join(target, path), text.replaceAll("../../../workers/runtime/", "../_shared/work-claims/"));
      files.written.push(path);
    }
  }
  if (await configure(join(target, "config.toml"))) files.written.push("config.toml");
  return files;
}

/** The functions check their callers themselves: a provider and pg_net have no key that the gateway would accept. */
async function configure(file: string): Promise<boolean> {
  const before = await readFile(file, "utf8");
  const missing = Object.keys(functions).filter((name) => !before.includes(`[functions.${name}]`));
  const entries = missing.map((name) => `\n[functions.${name}]\nverify_jwt = false\n`);
  await writeFile(file, before.replace(/\n*$/, "\n") + entries.join(""));
  return missing.length > 0;
}
