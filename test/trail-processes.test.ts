// The trail and the policies of work types as a person sees them: workers and the command line as processes.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { packageRoot } from "../src/stack/package-root.ts";
import { openApi } from "./support/api.ts";
import { call, claimNext, endWaits, release, typeWithPool, waitUntil } from "./support/calls.ts";
import { expectInvariants } from "./support/invariants.ts";
import { createToken } from "./support/tokens.ts";

const stack = await openApi({ tokens: true });
const sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
const folder = mkdtempSync(join(tmpdir(), "work-claims-trail-"));
afterAll(async () => {
  await expectInvariants(sql);
  await sql.end({ timeout: 1 });
  rmSync(folder, { recursive: true });
});

interface Ended {
  status: number | null;
  text: string;
}

async function run(program: string, args: string[], variables: Record<string, string>): Promise<Ended> {
  const env = { PATH: process.env.PATH ?? "", SUPABASE_URL: stack.url, ...variables };
  const child = spawn(process.execPath, [program, ...args], { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (part: string) => {
      text += part;
    });
  }
  const [status] = await once(child, "close");
  return { status, text };
}

const cli = (args: string[], variables: Record<string, string> = {}): Promise<Ended> =>
  run(join(packageRoot(), "dist", "src", "cli", "main.js"), args, {
    SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
    ...variables,
  });

const worker = (variables: Record<string, string>): Promise<Ended> =>
  run(join(import.meta.dirname, "support", "policy-worker.mjs"), [], {
    SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
    WORK_GRACE_SECONDS: "0",
    ...variables,
  });

const add = (type: string, payloads: object[]): Promise<string[]> =>
  call(sql, "enqueue_items", { items: payloads.map((payload) => ({ pool: type, payload })) });

describe("workers of a work type that stops at dead ends", () => {
  test("hand back what they hold, log the reason and exit with 1", async () => {
    const { type } = await typeWithPool(sql, 0, { on_dead_end: "stop" });
    const [failing, held] = await add(type, [{ fails: true }, { ms: 60_000 }]);
    const { status, text } = await worker({ WORK_TYPE: type, WORK_CONCURRENCY: "2", WORK_UNTIL_EMPTY: "1" });
    expect(status).toBe(1);
    expect(text).toContain(`${type} is stopped: item ${failing} failed for good in ${type}: no such voice`);
    const [row] = await sql`select status, failures from work_claims where item_id = ${held ?? ""}`;
    expect(row).toEqual({ status: "ready", failures: 0 });
  });

  test("do not begin before a person has let it go on", async () => {
    const { type } = await typeWithPool(sql, 0, { on_dead_end: "stop" });
    const [failing] = await add(type, [{ fails: true }, {}]);
    const [claim] = await claimNext(sql, type, "w");
    expect(claim?.item_id).toBe(failing);
    await release(sql, "w", claim, "failed", { final: true });
    const { status, text } = await worker({ WORK_TYPE: type, WORK_UNTIL_EMPTY: "1" });
    expect([status, text]).toEqual([1, expect.stringContaining(`${type} is stopped: item ${failing}`)]);
    await call(sql, "define_work_type", { work_type: type, paused: false });
    expect((await worker({ WORK_TYPE: type, WORK_UNTIL_EMPTY: "1" })).status).toBe(0);
    const [row] =
      await sql`select count(*)::integer as done from work_claims where work_type = ${type} and status = 'succeeded'`;
    expect(row).toEqual({ done: 1 });
  });
});

describe("a worker of a work type with several claims an item", () => {
  const numbers = async (type: string): Promise<unknown[]> => {
    const rows = await sql`
      select c.work_type, c.result ->> 'number' as number from work_claims c join work_types t on t.name = c.work_type
       where t.name = ${type} or t.copy_of = ${type} order by 1`;
    return rows.map(({ work_type, number }) => [work_type, number]);
  };

  test("does all of them, and tells the handler which one it has", async () => {
    const { type } = await typeWithPool(sql, 1, { several: 3 });
    expect(await worker({ WORK_TYPE: type, WORK_UNTIL_EMPTY: "1" })).toMatchObject({ status: 0 });
    expect(await numbers(type)).toEqual([
      [type, "1"],
      [`${type}#2`, "2"],
      [`${type}#3`, "3"],
    ]);
  });

  test("does so with a token for the work type, named or not", async () => {
    const { type } = await typeWithPool(sql, 1, { several: 2 });
    const token = await createToken(sql, `several-${type.replace(" ", "-")}`, [type]);
    const variables = { SUPABASE_SERVICE_ROLE_KEY: "", SUPABASE_ANON_KEY: stack.anonKey, WORK_TOKEN: token };
    expect(await worker({ ...variables, WORK_TYPE: type, WORK_UNTIL_EMPTY: "1" })).toMatchObject({ status: 0 });
    expect(await numbers(type)).toEqual([
      [type, "1"],
      [`${type}#2`, "2"],
    ]);
    await add(type, [{}]);
    expect(await worker({ ...variables, WORK_UNTIL_EMPTY: "1" })).toMatchObject({ status: 0 });
    const open =
      await sql`select from work_claims where work_type in (${type}, ${`${type}#2`}) and status <> 'succeeded'`;
    expect(open).toHaveLength(0);
  });
});

describe("the command line", () => {
  test("tells the history of an item step by step, with who acted", async () => {
    const { type, ids } = await typeWithPool(sql, 1, { history: "full" });
    const [id] = ids as [string];
    const [first] = await claimNext(sql, type, "box-1");
    await release(sql, "box-1", first, "failed", { error: "no disk" });
    await endWaits(sql, type);
    const [second] = await claimNext(sql, type, "box-2");
    await release(sql, "box-2", second, "failed", { final: true, error: "still none" });
    await cli(["retry", type, id, "--as", "Ada L."]);
    await cli(["priority", "7", id], { WORK_AS: "bob" });
    await cli(["cancel", type, id]);
    const { status, text } = await cli(["history", id]);
    expect(status).toBe(0);
    const lines = text
      .trim()
      .split("\n")
      .map((line) => line.replace(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d {2}/, ""));
    const later = "(less than 1 s|\\d+ s) later";
    const expected = [
      `${type} is enrolled \\(ready\\)\\.`,
      `box-1 claims it for ${type}, ${later} \\(ready → claimed, fence ${first?.fence}, input \\w{12}\\)\\.`,
      `box-1 fails at ${type}, ${later} \\(claimed → waiting, fence ${first?.fence}\\): no disk`,
      `box-2 claims it for ${type}, ${later} \\(ready → claimed, fence ${second?.fence}, input \\w{12}\\)\\.`,
      `box-2 fails at ${type}, ${later} \\(claimed → failed, fence ${second?.fence}\\): still none`,
      `Ada L\\. retries ${type}, ${later} \\(failed → ready, fence ${second?.fence}\\)\\.`,
      `bob gives ${type} another priority, ${later} \\(fence ${second?.fence}\\): priority 7 in place of 0`,
      `service_role cancels ${type}, ${later} \\(ready → cancelled, fence ${second?.fence}\\)\\.`,
      "",
      `${type} was cancelled .* ago\\. retry_items\\(\\) reopens it\\.`,
    ];
    expect(lines).toEqual(expected.map((line) => expect.stringMatching(new RegExp(`^${line}$`, "i"))));
  });

  test("tells the history of one work type, or as JSON, and of an item without one", async () => {
    const full = await typeWithPool(sql, 1, { history: "full" });
    const [id] = full.ids as [string];
    await call(sql, "define_work_type", { work_type: `${full.type} plain`, pool: full.type });
    await call(sql, "enroll_pool", { pool: full.type });
    expect((await cli(["history", id, "--type", `${full.type} plain`])).text).toMatch(/^Nothing is recorded\.\n\n/);
    const { text } = await cli(["history", id, "--json"]);
    expect(JSON.parse(text)).toMatchObject([{ event: "enrolled", to_status: "ready", work_type: full.type }]);
  });

  test.each([
    [["history"], 2, "one item was expected, by its id"],
    [["history", "no-uuid"], 2, "no-uuid is no item's id"],
    [["history", "00000000-0000-0000-0000-000000000000"], 1, "there is no such item"],
    [["retry", "type", "--as", "Jürgen"], 2, "--as is Jürgen; a name of 1 to 200 letters was expected"],
    [["cancel", "type", "--all", "--as", ""], 2, "--as is empty"],
    [["priority", "1", "--where", "status=ready", "--as", "a\nb"], 2, "--as is a"],
  ])("answers %j with %i and the reason", async (args, status, says) => {
    const ended = await cli(args);
    expect(ended).toMatchObject({ status, text: expect.stringContaining(says) });
  });
});

test("a worker that is told of a further claim later does it too", async () => {
  const { type } = await typeWithPool(sql, 0);
  await add(type, [{ ms: 500 }]);
  const ended = worker({ WORK_TYPE: type, WORK_UNTIL_EMPTY: "1" });
  await waitUntil(
    async () => (await sql`select from work_claims where work_type = ${type} and status = 'claimed'`).length > 0,
  );
  await call(sql, "define_work_type", { work_type: type, several: 2 });
  await call(sql, "enroll_pool", { pool: type });
  expect(await ended).toMatchObject({ status: 0 });
  const [row] = await sql`select status from work_claims where work_type = ${`${type}#2`}`;
  expect(row).toEqual({ status: "succeeded" });
});
