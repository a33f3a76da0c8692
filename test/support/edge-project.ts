import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { addEdgeFunctions } from "../../src/stack/edge-files.ts";
import type { Limits } from "../../src/stack/isolate.ts";
import { packageRoot } from "../../src/stack/package-root.ts";
import { type Stack, startStack } from "../../src/stack/stack.ts";
import { waitUntil } from "./calls.ts";
import { migrate } from "./servers.ts";

/** A project as `work-claims init --edge` makes it, on a stack of its own that serves its functions. */
export interface EdgeProject {
  folder: string;
  stack: Stack;
  /** As postgres, the owner. */
  sql: postgres.Sql;
  /** Counts for isolates that start later. */
  limits: Partial<Limits>;
  /** Writes the files of the test anew, with these replacements in the handler and these secrets. */
  write(replacing?: Record<string, string>, secrets?: Record<string, string>): Promise<void>;
  /** Calls a function by its name. */
  invoke(name: string, init?: RequestInit): Promise<Response>;
  remove(): Promise<void>;
}

export async function openEdgeProject(secrets: Record<string, string>): Promise<EdgeProject> {
  const folder = await mkdtemp(join(tmpdir(), "work-claims-edge-"));
  await mkdir(join(folder, "supabase"));
  await cp(join(packageRoot(), "supabase", "config.toml"), join(folder, "supabase", "config.toml"));
  await addEdgeFunctions(folder);
  const functions = join(folder, "supabase", "functions");
  const source = await readFile(join(import.meta.dirname, "edge-handler.ts"), "utf8");
  async function write(replacing: Record<string, string> = {}, ours = secrets): Promise<void> {
    const changes = { "../../workers/runtime": "../_shared/work-claims", ...replacing };
    const handler = Object.entries(changes).reduce((text, [from, to]) => text.replace(from, to), source);
    await writeFile(join(functions, "work-drain", "handler.ts"), handler);
    const lines = Object.entries(ours).map(([name, value]) => `${name}=${value}\n`);
    await writeFile(join(functions, ".env"), lines.join(""));
  }
  await write();
  const limits: Partial<Limits> = {};
  const stack = await startStack({ ephemeral: true, functions: { folder: join(folder, "supabase"), limits } });
  await migrate(stack.dbUrl);
  const sql = postgres(stack.dbUrl, { max: 4, onnotice: () => {} });
  await sql.unsafe(await readFile(join(packageRoot(), "supabase", "optional", "work_schedule.sql"), "utf8"));
  await untilKnown(stack);
  return {
    folder,
    stack,
    sql,
    limits,
    write,
    invoke: (name, init) => fetch(`${stack.url}/functions/v1/${name}`, { method: "POST", ...init }),
    async remove() {
      await sql.end();
      await stack.stop();
      await rm(folder, { recursive: true });
    },
  };
}

/** PostgREST learns of the functions a moment after they are made. */
function untilKnown({ url, secretKey }: Stack): Promise<void> {
  return waitUntil(async () => {
    const headers = { apikey: secretKey, "content-type": "application/json" };
    const { status } = await fetch(`${url}/rest/v1/rpc/unschedule_drain`, {
      ...{ method: "POST", headers },
      body: '{"work_types": ["none"]}',
    });
    return status === 200;
  });
}
