import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Stack, startStack } from "../src/stack/stack.ts";

// What a stranger types: the section's blocks as they stand, in a project that has only a table.
const run = promisify(execFile);
const clone = join(import.meta.dirname, "..");
const readme = readFileSync(join(clone, "README.md"), "utf8");
const section = readme.slice(readme.indexOf("## Your own table"), readme.indexOf("## How it works"));

let stack: Stack;
let project: string;
let environment: NodeJS.ProcessEnv;

beforeAll(async () => {
  stack = await startStack({ ephemeral: true });
  project = mkdtempSync(join(tmpdir(), "work-claims-readme-"));
  writeFileSync(join(project, "package.json"), '{ "name": "yours", "private": true }');
  environment = {
    ...process.env,
    SUPABASE_URL: stack.url,
    SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
    SUPABASE_DB_URL: stack.dbUrl,
    // The worker of the README stays for more; here it leaves.
    WORK_UNTIL_EMPTY: "1",
    npm_config_prefer_offline: "true",
  };
  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
  await sql`create table articles (id bigint generated always as identity primary key, title text, body text, embedding real[])`;
  await sql`insert into articles (title, body) select 'title ' || n, repeat('word ', n % 7) || 'end' from generate_series(1, 25) n`;
  await sql.end();
});

afterAll(async () => {
  await stack?.stop();
  rmSync(project, { recursive: true, force: true });
});

function blocks(language: string): string[] {
  return [...section.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, "gm"))].map(
    ([, text]) => text as string,
  );
}

function statements(block: string): string[] {
  return block
    .replace(/--.*$/gm, "")
    .split(";")
    .map((statement) => statement.trim())
    .filter((statement) => statement !== "");
}

async function type(command: string, folder: string): Promise<string> {
  const { stdout, stderr } = await run("bash", ["-euo", "pipefail", "-c", command], {
    cwd: folder,
    env: environment,
    timeout: 240_000,
  });
  return stdout + stderr;
}

test("the five-minute path of the README runs as written and gives its results", { timeout: 480_000 }, async () => {
  const [install, settings, push, attach, start] = blocks("sh");
  const [script] = blocks("js");
  const [change] = blocks("sql");

  const [pack, add, addCli] = (install as string).trim().split("\n") as [string, string, string];
  expect(pack).toContain("# in the clone");
  await type(`${pack.split("#")[0]} --pack-destination '${project}'`, clone);
  await type(add, project);
  await type(addCli, project);
  expect(readFileSync(join(project, "package.json"), "utf8")).toContain("work-claims-0.1.0.tgz");

  // The addresses are placeholders: what they would set is in the environment.
  for (const name of ["SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_DB_URL"]) {
    expect(settings).toContain(`export ${name}=`);
  }
  await type(push as string, project);
  await type(attach as string, project);
  mkdirSync(project, { recursive: true });
  writeFileSync(join(project, "embed.mjs"), script as string);
  expect(await type(`${start}\nwait`, project)).toContain("25/25");

  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
  const rows = () => sql`
    select a.id, a.embedding, c.status, c.fence::integer,
           (select array[count(*), count(distinct w)]::real[] from regexp_split_to_table(a.title || ' ' || a.body, '\\s+') as w) as expected
      from articles a join work_items i on i.source_key = a.id::text and i.pool = 'articles'
      join work_claims c on c.item_id = i.id and c.work_type = 'embed'
     order by a.id`;
  const first = await rows();
  expect(first).toHaveLength(25);
  const [update, stale] = statements(change as string) as [string, string];
  await sql.unsafe(update);
  expect([...(await sql.unsafe(stale))]).toEqual([{ source_key: "1", reason: "its input changed" }]);
  await type(`${start}\nwait`, project);
  const second = await rows();
  expect([...(await sql.unsafe(stale))]).toEqual([]);
  await sql.end();
  for (const { status, embedding, expected } of [...first, ...second]) {
    expect({ status, embedding }).toEqual({ status: "succeeded", embedding: expected });
  }
  // Each claim has a new fence: the other rows were not claimed again.
  expect(second.filter(({ fence }, n) => fence !== first[n]?.fence).map(({ id }) => Number(id))).toEqual([1]);
});

test("the SQL of the README's dashboard section runs as written", async () => {
  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
  const dashboard = readme.slice(readme.indexOf("## In the dashboard"), readme.indexOf("## A queue, or this?"));
  const all = [...dashboard.matchAll(/^```sql\n([\s\S]*?)^```/gm)].flatMap(([, text]) => statements(text as string));
  expect(all.length).toBeGreaterThan(8);
  for (const statement of all) {
    await sql.unsafe(statement);
  }
  await sql.end();
});
