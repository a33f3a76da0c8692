// The schedule of work-drain, with stand-ins for pg_cron, pg_net and Vault. The test runs the job and sends its requests.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import postgres from "postgres";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { call, claimNext, typeWithPool, waitUntil } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { type EdgeProject, openEdgeProject } from "./support/edge-project.ts";

let project: EdgeProject;
let sql: postgres.Sql;
const secret = "drain-secret";

interface Request {
  url: string;
  headers: Record<string, string>;
  body: { work_types: string[]; wait: boolean };
  timeout_milliseconds: number;
}

beforeAll(async () => {
  project = await openEdgeProject({ WORK_DRAIN_SECRET: secret });
  sql = project.sql;
  await sql.unsafe(readFileSync(join(import.meta.dirname, "support", "extensions.sql"), "utf8"));
});
afterAll(() => project?.remove());

beforeEach(async () => {
  await sql`truncate cron.job, net.http_request_queue, vault.secrets`;
  await sql`select vault.create_secret(${`${project.stack.url}/functions/v1/work-drain`}, 'work_drain_url')`;
  await sql`select vault.create_secret(${secret}, 'work_drain_secret')`;
});

const schedule = (type: string, more: object = {}): Promise<string> =>
  call(sql, "schedule_drain", { work_types: [type], ...more });

/** Runs the statements of all jobs, as pg_cron does, and returns the requests that pg_net would send. */
async function tick(): Promise<Request[]> {
  await sql`truncate net.http_request_queue`;
  for (const { command } of await sql`select command from cron.job`) await sql.unsafe(command);
  return sql<Request[]>`select url, headers, body, timeout_milliseconds from net.http_request_queue order by id`;
}

/** The function answers before it works. */
async function send({ url, headers, body }: Request): Promise<void> {
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  expect([response.status, await response.json()]).toEqual([202, { is_started: true }]);
}

/** Waits until so many items of the work type are done, and no drain holds one. */
function untilDone(type: string, howMany: number): Promise<void> {
  return waitUntil(async () => {
    const [row] = await sql`
      select count(*) filter (where status = 'succeeded')::integer as done,
             count(*) filter (where status = 'claimed')::integer as held
        from work_claims where work_type = ${type}`;
    return row?.done === howMany && row?.held === 0;
  });
}

async function add(type: string, howMany: number, more: object = {}): Promise<void> {
  const items = Array.from({ length: howMany }, (_, n) => ({ pool: type, payload: { act: "double", n }, ...more }));
  await call(sql, "enqueue_items", { items });
}

test("the job starts a drain whose request the function takes, until nothing is left", async () => {
  const { type } = await typeWithPool(sql, 0);
  await add(type, 120);
  await schedule(type);
  expect(await sql`select jobname, schedule from cron.job`).toEqual([
    { jobname: `work_drain: ${type}`, schedule: "30 seconds" },
  ]);
  for (const done of [100, 120]) {
    const [request, ...others] = await tick();
    expect([request?.timeout_milliseconds, others]).toEqual([10_000, []]);
    await send(request as Request);
    await untilDone(type, done);
  }
  expect(await tick()).toEqual([]);
});

test("as many drains start as the ready items need, less those at work, at most at_once", async () => {
  const { type } = await typeWithPool(sql, 0);
  await schedule(type, { at_once: 3, items_each: 10 });
  expect(await tick()).toHaveLength(0);
  await add(type, 1);
  expect(await tick()).toHaveLength(1);
  await add(type, 10);
  expect(await tick()).toHaveLength(2);
  await add(type, 100);
  expect(await tick()).toHaveLength(3);
  await claimNext(sql, type, "edge-1", 2);
  await claimNext(sql, type, "edge-2", 2);
  // Workers elsewhere are no drains.
  await claimNext(sql, type, "gpu-1", 2);
  expect(await tick()).toHaveLength(1);
  await claimNext(sql, type, "edge-3", 2);
  await claimNext(sql, type, "edge-4", 2);
  expect(await tick()).toHaveLength(0);
});

test("a paused work type, and items that a drain cannot take, start nothing", async () => {
  const { type } = await typeWithPool(sql, 0);
  await add(type, 5, { requires: { gpu: "a100" } });
  await schedule(type);
  expect(await tick()).toHaveLength(0);
  await schedule(type, { capabilities: { gpu: "a100" } });
  expect(await tick()).toHaveLength(1);
  await call(sql, "define_work_type", { work_type: type, paused: true });
  expect(await tick()).toHaveLength(0);
});

test("a second call changes the schedule, whatever the order of the work types, and unschedule_drain ends it once", async () => {
  const [{ type: one }, { type: other }] = [await typeWithPool(sql, 0), await typeWithPool(sql, 0)];
  const first = await call(sql, "schedule_drain", { work_types: [one, other] });
  const second = await call(sql, "schedule_drain", { work_types: [other, one, one], every: "*/5 * * * *", at_once: 2 });
  expect(second).toBe(first);
  expect(await sql`select schedule from cron.job`).toEqual([{ schedule: "*/5 * * * *" }]);
  expect(await call(sql, "unschedule_drain", { work_types: [one] })).toBe(false);
  expect(await call(sql, "unschedule_drain", { work_types: [one, other] })).toBe(true);
  expect(await call(sql, "unschedule_drain", { work_types: [one, other] })).toBe(false);
  expect(await sql`select from cron.job`).toHaveLength(0);
});

test("a work type with quotes in its name starts drains for that name", async () => {
  const type = `it's "quoted" {a,b} \\ ü`;
  await call(sql, "define_work_type", { work_type: type, pool: "default" });
  await call(sql, "enqueue_items", { items: [{ payload: { act: "double", n: 4 } }] });
  await schedule(type);
  const [request] = await tick();
  expect(request?.body).toEqual({ work_types: [type], wait: false });
  await send(request as Request);
  await untilDone(type, 1);
});

test("a missing secret, a missing address and a wrong argument are refused with a sentence", async () => {
  const { type } = await typeWithPool(sql, 1);
  const refused: [Record<string, unknown>, string][] = [
    [{ work_types: null }, "work_types is null; a list of 1 to 100 work types was expected"],
    [{ work_types: [] }, "work_types is 0 long; a list of 1 to 100 work types was expected"],
    [{ work_types: ["no such type"] }, "work_type is no such type; there is no such work type"],
    [{ work_types: [type, null] }, "there is no such work type"],
    [{ work_types: [type], at_once: 0 }, "at_once is 0; 1 to 50 were expected"],
    [{ work_types: [type], at_once: null }, "a value was expected"],
    [{ work_types: [type], items_each: 0 }, "items_each is 0; 1 to 1000 were expected"],
    [{ work_types: [type], every: null }, "a value was expected"],
  ];
  for (const [args, sentence] of refused) {
    await expect(call(sql, "schedule_drain", args)).rejects.toThrow(sentence);
  }
  await sql`update vault.secrets set secret = 'work-drain' where name = 'work_drain_url'`;
  await expect(schedule(type)).rejects.toThrow("the secret work_drain_url is no address");
  await sql`delete from vault.secrets where name = 'work_drain_url'`;
  await expect(schedule(type)).rejects.toThrow(
    "the secret work_drain_url is not in Vault; select vault.create_secret('…', 'work_drain_url') puts it there",
  );
  await sql`delete from vault.secrets`;
  await expect(schedule(type)).rejects.toThrow("the secret work_drain_secret is not in Vault");
  expect(await sql`select from cron.job`).toHaveLength(0);
});

test("a secret that goes later fails the job with that sentence, and sends nothing", async () => {
  const { type } = await typeWithPool(sql, 1);
  await schedule(type);
  await sql`delete from vault.secrets where name = 'work_drain_secret'`;
  await expect(tick()).rejects.toThrow("the secret work_drain_secret is not in Vault");
  expect(await sql`select from net.http_request_queue`).toHaveLength(0);
});

test("the roles of the API may not schedule, and the service role may", async () => {
  const { type } = await typeWithPool(sql, 1);
  const { url, secretKey, publishableKey } = project.stack;
  const asked = async (key: string): Promise<number> => {
    const response = await fetch(`${url}/rest/v1/rpc/schedule_drain`, {
      method: "POST",
      headers: { apikey: key, "content-type": "application/json" },
      body: JSON.stringify({ work_types: [type] }),
    });
    return response.status;
  };
  expect(await asked(publishableKey)).toBe(401);
  expect(await sql`select from cron.job`).toHaveLength(0);
  expect(await asked(secretKey)).toBe(200);
  expect(await sql`select username from cron.job`).toEqual([{ username: "postgres" }]);
  expect(await tick()).toHaveLength(1);
});

test("without the extensions the migration goes in, twice, and schedule_drain skips with a notice", async () => {
  const notices: string[] = [];
  const { as, url } = await openDatabase({ version: 15 });
  const bare = postgres(url, { max: 1, onnotice: ({ message }) => notices.push(message ?? "") });
  const migration = readFileSync(join(import.meta.dirname, "../supabase/optional/work_schedule.sql"), "utf8");
  await bare.unsafe(migration);
  await bare.unsafe(migration);
  const { type } = await typeWithPool(as("service_role"), 1);
  expect(await call(bare, "schedule_drain", { work_types: [type] })).toBeNull();
  expect(await call(bare, "unschedule_drain", { work_types: [type] })).toBe(false);
  await bare.end();
  expect(notices).toContain("work-claims: nothing is scheduled: this database lacks pg_cron, pg_net, supabase_vault");
  await expect(call(as("anon"), "schedule_drain", { work_types: [type] })).rejects.toThrow("permission denied");
  await expect(call(as("authenticated"), "unschedule_drain", { work_types: [type] })).rejects.toThrow(
    "permission denied",
  );
});
