import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { call, next } from "./calls.ts";
import { openDatabase } from "./database.ts";

/** The statements of a page's SQL blocks, as they stand. */
function statements(page: string): string[] {
  const text = readFileSync(join(import.meta.dirname, "..", "docs", page), "utf8");
  return [...text.matchAll(/^```sql\n([\s\S]*?)^```/gm)].flatMap(([, block]) =>
    (block as string)
      .replace(/--.*$/gm, "")
      .split(";")
      .map((statement) => statement.trim())
      .filter((statement) => statement !== ""),
  );
}

test("the SQL of the page on operating runs as it is written, and takes everything out at last", async () => {
  const { owner, sql } = await openDatabase();
  await owner`create table articles (id integer primary key)`;
  await call(owner, "attach_pool", { source: "articles" });
  await call(sql, "define_work_type", { work_type: "embed", pool: "articles" });
  await owner`insert into articles select generate_series(1, 5)`;
  const [held] = await next(sql, "embed", "before the restore");

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
  await owner`insert into articles values (6)`;
  await owner`update articles set id = 7 where id = 6`;
  await owner`delete from articles`;
});
