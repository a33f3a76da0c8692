import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { call, claimNext } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { matches } from "./support/requirement-judge.ts";

function read(page: string): string {
  return readFileSync(join(import.meta.dirname, "..", "docs", page), "utf8");
}

/** The statements of a page's SQL blocks, as they stand. */
function statements(page: string): string[] {
  return [...read(page).matchAll(/^```sql\n([\s\S]*?)^```/gm)].flatMap(([, block]) =>
    (block as string)
      .replace(/--.*$/gm, "")
      .split(";")
      .map((statement) => statement.trim())
      .filter((statement) => statement !== ""),
  );
}

/** The anchors of a page's headings, as GitHub makes them. */
function anchors(file: string): string[] {
  return [...readFileSync(file, "utf8").matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_ -]/gu, "")
      .replaceAll(" ", "-"),
  );
}

test("relative links of the README and the pages lead to files and headings that are there", () => {
  const root = join(import.meta.dirname, "..");
  const pages = [
    "README.md",
    ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".md"))
      .map((name) => join("docs", name)),
  ];
  const links = pages.flatMap((page) =>
    [...readFileSync(join(root, page), "utf8").matchAll(/\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)/g)].map(
      ([, path = "", anchor]) => ({
        page,
        path,
        anchor,
        file: path ? join(root, dirname(page), path) : join(root, page),
      }),
    ),
  );
  expect(links.length).toBeGreaterThan(50);
  const broken = links.filter(
    ({ file, anchor }) => !existsSync(file) || (anchor !== undefined && !anchors(file).includes(anchor)),
  );
  expect(broken.map(({ page, path, anchor }) => `${page}: ${path}#${anchor ?? ""}`)).toEqual([]);
});

test("the SQL of the page on operating runs as written, and its last part removes work-claims", async () => {
  const { owner, sql } = await openDatabase();
  await owner`create table articles (id integer primary key, title text)`;
  await call(owner, "attach_pool", { source: "articles" });
  await call(sql, "define_work_type", { work_type: "embed", pool: "articles" });
  await owner`insert into articles select generate_series(1, 5)`;
  const [held] = await claimNext(sql, "embed", "before the restore");

  const page = statements("operating.md");
  expect(page.length).toBeGreaterThan(12);
  for (const statement of page) {
    await owner.unsafe(statement);
    if (statement.startsWith("update work_claims")) {
      const [fence] = await owner`select last_value::integer as last from work.fence`;
      expect(fence?.last).toBeGreaterThan((held?.fence ?? 0) + 999_999);
      const [row] = await owner`select count(*)::integer as held from work_claims where status = 'claimed'`;
      expect(row?.held).toBe(0);
    }
  }
  expect(await owner`select from pg_class where relname like 'work\\_%' and relkind in ('r', 'v')`).toEqual([]);
  expect(await owner`select from pg_type where typname like 'work\\_%'`).toEqual([]);
  await owner`insert into articles values (6)`;
  await owner`update articles set id = 7 where id = 6`;
  await owner`delete from articles`;
});

test("the calls in the text of the page on running workers run as written", async () => {
  const { owner } = await openDatabase();
  const calls = [...read("running-workers.md").matchAll(/`(define_work_type\([^`]*\))`/g)].map(
    ([, made]) => made as string,
  );
  expect(calls.length).toBeGreaterThan(1);
  for (const made of calls) {
    await owner.unsafe(`select ${made}`);
  }
});

test("the SQL of the page on policies runs as written", async () => {
  const { owner } = await openDatabase();
  const page = statements("policies.md");
  expect(page).toHaveLength(4);
  for (const statement of page) {
    await owner.unsafe(statement);
  }
  expect(await owner`select name, several from work_types order by name`).toMatchObject([
    { name: "score", several: 3 },
    { name: "score#2" },
    { name: "score#3" },
    { name: "transcribe" },
  ]);
});

describe("the page on matching", async () => {
  const { owner } = await openDatabase();
  const examples = [...read("matching.md").matchAll(/^\| `(.*)` \|(.*)\|(.*)\|$/gm)].flatMap(
    ([, requires = "", met = "", unmet = ""]) =>
      [met, unmet].flatMap((cell, isUnmet) =>
        [...cell.matchAll(/`(.*?)`/g)].map(([, capabilities = ""]) => ({ requires, capabilities, isMet: !isUnmet })),
      ),
  );

  test("has examples of both kinds", () => {
    expect(examples.filter(({ isMet }) => isMet).length).toBeGreaterThan(25);
    expect(examples.filter(({ isMet }) => !isMet).length).toBeGreaterThan(25);
  });

  test.each(examples)("is right: $requires and $capabilities, $isMet", async ({ requires, capabilities, isMet }) => {
    const [row] = await owner`
      select ${capabilities}::text::jsonb @@ (work.parse_requirement(${requires}::text::jsonb) ->> 'path')::jsonpath is true
             as is_met`;
    expect(row?.is_met).toBe(isMet);
    expect(matches(JSON.parse(requires), JSON.parse(capabilities))).toBe(isMet);
  });

  test("has SQL that runs as it is written, and gives its worker its items", async () => {
    const answers: Record<string, unknown>[] = [];
    for (const statement of statements("matching.md")) answers.push(...(await owner.unsafe(statement)));
    expect(answers.filter((answer) => (answer.claim_next as unknown[] | undefined)?.length === 1)).toHaveLength(2);
    expect(answers.map((answer) => answer.tag)).toContain("services = comfyui and gpu_memory_gb >= 20");
    expect(answers.at(-1)?.would_match).toMatchObject({
      failing: expect.arrayContaining([
        expect.objectContaining({ reason: "needs gpu_memory_gb >= 80", closest_worker: "gpu-7", closest_has: "24" }),
      ]),
    });
  });
});
