// The examples of docs/lists.md and docs/candidates.md, as they are written.
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { parseWhere } from "../src/cli/where.ts";
import { createWorkClient } from "../src/client.ts";
import { compileSelector, queryString } from "../src/lists/query.ts";
import { claimList } from "../src/lists/rows.ts";
import { openApi } from "./support/api.ts";

const stack = await openApi();
const owner = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
const folder = mkdtempSync(join(tmpdir(), "work-claims-candidates-"));
afterAll(async () => {
  await owner.end();
  rmSync(folder, { recursive: true, force: true });
});
const client = createWorkClient({ url: stack.url, key: stack.secretKey, retryForMs: 0 });
const read = (page: string): string => readFileSync(join(import.meta.dirname, "..", "docs", page), "utf8");

describe("the page on lists", () => {
  const commands = [...read("lists.md").matchAll(/^\| `(items|claims|workers) (--where .*?)` \|/gm)].map(
    ([, list = "", options = ""]) => ({
      list: list as "items",
      conditions: [...options.replaceAll("\\|", "|").matchAll(/--where (?:'([^']*)'|(\S+))/g)].map(
        ([, inQuotes, bare]) => inQuotes ?? bare ?? "",
      ),
    }),
  );
  const spellings = [...read("lists.md").matchAll(/^\| (?:`([^`]+)`)? ?\| `(\{[^`]+\})` \| `([^`]+)` \|/gm)].map(
    ([, condition = "", object = "", query = ""]) => ({
      condition: condition.replaceAll("\\|", "|"),
      selector: JSON.parse(object.replaceAll("\\|", "|")),
      query,
    }),
  );

  test.each(commands)("$list $conditions is answered", async ({ list, conditions }) => {
    expect((await client[list](parseWhere(conditions) as never)).rows).toEqual([]);
  });

  test.each(spellings)("$condition becomes $query", ({ condition, selector, query }) => {
    const sent = (of: object): string => {
      const compiled = compileSelector(of, claimList.columns, new Date());
      return queryString({ select: "", ...compiled, order: [] })
        .split("&")
        .slice(1)
        .map(decodeURIComponent)
        .join("&");
    };
    expect(sent(selector)).toBe(query);
    if (condition !== "") expect(sent(parseWhere([condition]))).toBe(query);
  });

  test("has 15 commands and 9 selectors", () => {
    expect([commands.length, spellings.length]).toEqual([15, 9]);
  });
});

describe("the worker on the page on candidates", () => {
  const script = /^```js\n([\s\S]*?)^```/m.exec(read("candidates.md"))?.[1] ?? "";
  writeFileSync(join(folder, "worker.mjs"), script);
  const start = (workType: string, pool: string): Promise<unknown> =>
    promisify(execFile)(process.execPath, ["worker.mjs"], {
      cwd: folder,
      timeout: 60_000,
      env: {
        SUPABASE_URL: stack.url,
        SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
        WORK_TYPE: workType,
        WORK_POOL: pool,
      },
    });

  test("has about thirty lines", () => {
    expect(script.split("\n").length).toBeLessThan(45);
  });

  test("does each item once beside other workers, and takes over expired claims", async () => {
    const ids = await client.enqueueItems(Array.from({ length: 60 }, (_, n) => ({ payload: { n } })));
    const late = await client.enqueueItems([{ run_after: "2099-01-01T00:00:00Z" }]);
    const [ended = "", handedBack = "", failed = "", held = "", done = ""] = ids;
    const claims = await client.claimItems([ended, handedBack, failed, held, done], "count", "dead");
    const claimOf = (id: string) => claims.find((claim) => claim.item_id === id) as (typeof claims)[0];
    await client.releaseItem(claimOf(handedBack), "dead", "released");
    await client.releaseItem(claimOf(done), "dead", "succeeded");
    const { needs: _, ...failing } = claimOf(failed);
    await client.releaseItems("dead", [{ ...failing, outcome: "failed", retry_after_seconds: 0 }]);
    await owner`update work_claims set expires_at = now() - interval '1 second' where item_id = ${ended}`;
    await Promise.all([start("count", "default"), start("count", "default"), start("count", "default")]);
    const rows = await owner`select item_id, status, worker_id, fence from work_claims where work_type = 'count'`;
    const statusOf = (id: string): string => rows.find((row) => row.item_id === id)?.status;
    expect(ids.filter((id) => statusOf(id) !== "succeeded")).toEqual([held]);
    expect(statusOf(held)).toBe("claimed");
    expect(rows.map((row) => row.item_id)).not.toContain(late[0]);
    // Each claim of an item takes one number: five by the dead worker, one for each that was left.
    expect(new Set(rows.map((row) => row.fence)).size).toBe(60);
  });
});
