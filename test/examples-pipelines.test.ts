// The examples that are projects: their SQL is run, their worker is started, a row is changed, the worker is started again.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { packageRoot } from "../src/stack/package-root.ts";
import { openApi } from "./support/api.ts";

const stack = await openApi();
const owner = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
afterAll(() => owner.end());

const folder = (example: string): string => join(packageRoot(), "examples", example);
const setUp = (example: string) => owner.unsafe(readFileSync(join(folder(example), "setup.sql"), "utf8"));

/** Runs the example's worker until nothing is left to do. */
async function work(example: string): Promise<void> {
  await promisify(execFile)(process.execPath, ["worker.mjs"], {
    cwd: folder(example),
    timeout: 60_000,
    env: {
      PATH: process.env.PATH ?? "",
      SUPABASE_URL: stack.url,
      SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
      WORK_UNTIL_EMPTY: "1",
    },
  });
}

/** How many claims of each work type were made since the fence. */
async function claimedSince(fence: number): Promise<Record<string, number>> {
  const rows = await owner`
    select work_type, count(*)::integer from work_claims where fence > ${fence} and status = 'succeeded' group by work_type`;
  return Object.fromEntries(rows.map(({ work_type, count }) => [work_type, count]));
}

async function lastFence(): Promise<number> {
  const [row] = await owner`select coalesce(max(fence), 0)::integer as fence from work_claims`;
  return row?.fence;
}

test("the embeddings of the example keep themselves fresh", async () => {
  await setUp("embedding");
  await work("embedding");
  const embeddings = async (): Promise<string[]> =>
    (await owner`select embedding::text from documents order by id`).map(({ embedding }) => embedding);
  const before = await embeddings();
  expect(before).toHaveLength(200);
  expect(new Set(before).size).toBeGreaterThan(50);
  const fence = await lastFence();
  await owner`update documents set body = 'Something else.' where id in (3, 7)`;
  await owner`insert into documents (title, body) values ('New', 'A new text.')`;
  expect(
    (await owner`select source_key, reason from work_stale order by 1`).map(({ source_key }) => source_key),
  ).toEqual(["3", "7"]);
  await work("embedding");
  expect(await claimedSince(fence)).toEqual({ embed: 3 });
  const now = await embeddings();
  expect(now.flatMap((embedding, n) => (embedding === before[n] ? [] : [n + 1]))).toEqual([3, 7, 201]);
  expect(await owner`select from work_stale`).toHaveLength(0);
});

test("the pipeline of the example does again what a change touches, stage by stage", async () => {
  await setUp("pipeline");
  await work("pipeline");
  const fence = await lastFence();
  expect(await owner`select from summaries`).toHaveLength(100);
  await owner`update pages set html = '<p>other</p>' where id = 5`;
  await owner`update pages set language = 'fr' where id in (8, 9)`;
  await owner`update pages set url = url || '#' where id < 50`;
  await owner`delete from pages where id = 100`;
  await work("pipeline");
  expect(await claimedSince(fence)).toEqual({ extract: 1, embed_page: 1, summarise: 3 });
  const [page] = await owner`select * from pages p join summaries s on s.page_id = p.id where p.id = 5`;
  expect(page).toMatchObject({ embedding: [5, 1], summary: "[en] other… (1 words)" });
  expect(await owner`select from summaries where summary like '[fr]%'`).toHaveLength(2);
  expect(await owner`select from summaries`).toHaveLength(99);
});
