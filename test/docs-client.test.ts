// The programs of the pages on the client, on loops and on testing, as they stand, in a project that has work-claims and zod.
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { packageRoot } from "../src/stack/package-root.ts";
import { openApi } from "./support/api.ts";

const run = promisify(execFile);
const project = mkdtempSync(join(tmpdir(), "work-claims-docs-client-"));
mkdirSync(join(project, "node_modules"));
for (const [name, folder] of [
  ["work-claims", packageRoot()],
  ["zod", join(packageRoot(), "node_modules", "zod")],
  ["postgres", join(packageRoot(), "node_modules", "postgres")],
] as const) {
  symlinkSync(folder, join(project, "node_modules", name), "dir");
}
writeFileSync(join(project, "package.json"), '{"type": "module"}');
for (const page of ["client.md", "loops.md", "testing.md"]) {
  const text = readFileSync(join(packageRoot(), "docs", page), "utf8");
  for (const [, block = ""] of text.matchAll(/^```js\n([\s\S]*?)^```/gm)) {
    writeFileSync(join(project, /^\/\/ (\S+)/.exec(block)?.[1] ?? "unnamed"), block);
  }
}

const stack = await openApi();
const env = {
  ...process.env,
  ...{ SUPABASE_URL: stack.url, SUPABASE_SERVICE_ROLE_KEY: stack.secretKey, SUPABASE_DB_URL: stack.dbUrl },
  WORK_UNTIL_EMPTY: "1",
};
afterAll(() => rmSync(project, { recursive: true, force: true }));

function start(file: string, ...args: string[]): ReturnType<typeof run> {
  return run(process.execPath, [...args, file], { cwd: project, env, timeout: 60_000 });
}

test("what the page on the client enqueues is done by its worker, and waited for", async () => {
  const enqueued = start("enqueue.js");
  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
  await expect.poll(async () => (await sql`select count(*)::integer as n from work_items`)[0]?.n).toBe(1501);
  await start("worker.js");
  const lines = String((await enqueued).stdout)
    .trim()
    .split("\n");
  expect(lines.slice(0, 3)).toEqual(["500 enqueued", "1000 enqueued", "1500 enqueued"]);
  expect(lines[3]).toMatch(/^payload\.pages\[0\]\.text: /);
  expect(lines.slice(4)).toEqual(["{ length: 12 }", "succeeded"]);

  await sql`create table orders (title text)`;
  const { stdout } = await start("place-order.js");
  expect(String(stdout)).toBe("{ length: 12 }\n");
  const statuses = await sql`select status, count(*)::integer as n from work_claims group by status`;
  expect(statuses).toEqual([{ status: "succeeded", n: 1502 }]);

  const rollback = await start("rollback.test.js");
  expect(String(rollback.stdout)).toBe("{ length: 12 }\nroll back\n");
  const [row] = await sql`select count(*)::integer as n from work_items`;
  expect(row?.n).toBe(1502);

  expect(String((await start("act.js")).stdout)).toBe("1 again, 1 waiting, 2 open, 0 failed\n");
  await start("typed-loop.js");
  const ended = await sql`
    select i.payload ->> 'title' as title, c.status, c.result
      from work_claims c join work_items i on i.id = c.item_id
     where i.dedupe_key in ('page-1', 'a harbour') or i.payload ->> 'title' = 'the front page'
     order by 1`;
  expect(ended).toEqual([
    { title: "a harbour", status: "succeeded", result: { length: 9 } },
    { title: "a lighthouse", status: "succeeded", result: { length: 12 } },
    { title: "the front page", status: "succeeded", result: { length: 14 } },
  ]);
  await sql.end();
});

test.each([
  ["with a database", {}],
  ["without one", { WORK_CLAIMS_DISABLED: "1", SUPABASE_URL: "" }],
])("the loop with needs and locks of the page on loops does the same %s", async (_, more) => {
  const { stdout } = await run(process.execPath, ["film.js"], {
    cwd: project,
    env: { ...env, ...more },
    timeout: 60_000,
  });
  expect(String(stdout)).toBe("shot 1: 4 s\nshot 2: 3 s\nfilm: 7 s\n");
});

test("the tests of the page on testing pass", async () => {
  const { stdout } = await start("embed.test.js", "--test");
  expect(String(stdout)).toMatch(/# pass 2\n# fail 0/);
});
