// The pages on pipelines, changes and effects: each block is run as it stands, in the order of the page. A text block is in the
// output of the block before it.
import { execFile } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { packageRoot } from "../src/stack/package-root.ts";
import { type Api, openApi } from "./support/api.ts";

type Block = { language: string; text: string };

function blocksOf(page: string): Block[] {
  const text = readFileSync(join(packageRoot(), "docs", page), "utf8");
  return [...text.matchAll(/^```(\w+)\n([\s\S]*?)^```/gm)].map(([, language = "", block = ""]) => ({
    language,
    text: block,
  }));
}

/** A project of its own, in which the package is installed. */
function makeProject(): string {
  const folder = mkdtempSync(join(tmpdir(), "work-claims-docs-"));
  mkdirSync(join(folder, "node_modules", ".bin"), { recursive: true });
  symlinkSync(packageRoot(), join(folder, "node_modules", "work-claims"));
  const program = join(folder, "node_modules", ".bin", "work-claims");
  const main = join(packageRoot(), "dist", "src", "cli", "main.js");
  writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`);
  chmodSync(program, 0o755);
  return folder;
}

/** Runs a block and answers what it says; a refused statement says why. */
async function run({ language, text }: Block, stack: Api, sql: postgres.Sql, project: string): Promise<string> {
  const options = {
    cwd: project,
    timeout: 60_000,
    env: {
      PATH: `${join(project, "node_modules", ".bin")}:${process.env.PATH}`,
      ...{ SUPABASE_URL: stack.url, SUPABASE_SERVICE_ROLE_KEY: stack.secretKey, WORK_UNTIL_EMPTY: "1" },
    },
  };
  if (language === "sql") {
    const answer: unknown = await sql.unsafe(text).catch((error: Error) => error.message);
    if (typeof answer === "string") return answer;
    const rows = (answer as object[]).flat() as object[];
    return rows
      .flatMap((row) => Object.values(row).map((value) => (typeof value === "string" ? value : JSON.stringify(value))))
      .join("\n");
  }
  const file = /^\/\/ (\S+\.mjs)\n/.exec(text)?.[1] ?? "";
  if (language === "js") writeFileSync(join(project, file), text);
  const [program, args] = language === "js" ? [process.execPath, [file]] : ["bash", ["-euo", "pipefail", "-c", text]];
  return (await promisify(execFile)(program as string, args as string[], options)).stdout;
}

describe.each(["pipelines.md", "changes.md", "effects.md"])("the page %s", async (page) => {
  const stack = await openApi({ tokens: page === "effects.md" });
  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
  const project = makeProject();
  afterAll(async () => {
    await sql.end();
    rmSync(project, { recursive: true, force: true });
  });

  test("has blocks that run as they stand, and say what the page says", async () => {
    const blocks = blocksOf(page);
    expect(blocks.length).toBeGreaterThan(8);
    for (const [n, block] of blocks.entries()) {
      if (block.language === "text") continue;
      const said = await run(block, stack, sql, project);
      expect([...(await sql`select work_type, error from work_claims where failures > 0`)]).toEqual([]);
      const next = blocks[n + 1];
      if (next?.language === "text") expect(said).toContain(next.text.trim());
      else if (block.language === "sql") expect(said).not.toMatch(/does not exist|expected|syntax error/);
    }
  });
});
