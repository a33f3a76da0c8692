// The Edge Function work-drain, served by real Deno behind the real gateway, as a person's project has it.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { hostedLimits } from "../src/stack/isolate.ts";
import { call, endLeases, events, stored, typeWithPool, waitUntil } from "./support/calls.ts";
import { type EdgeProject, openEdgeProject } from "./support/edge-project.ts";

interface Drained {
  worker_id: string;
  succeeded: number;
  failed: number;
  released: number;
  lost: number;
  why: string;
  more: boolean;
}

let project: EdgeProject;
const secret = "a secret of our own";

beforeAll(async () => {
  project = await openEdgeProject({ WORK_DRAIN_SECRET: secret });
  await project.sql`create table pages (item uuid primary key, fence bigint, body text)`;
  await project.sql`create table writes (fence bigint, is_written boolean)`;
  await project.sql`create table gate (is_open boolean)`;
  await project.sql`insert into gate values (false)`;
  await project.sql`create function is_open() returns boolean language sql as 'select is_open from gate'`;
  // A newer fence wins.
  await project.sql.unsafe(`
    create function write_page(item uuid, fence bigint, body text) returns boolean language plpgsql as $$
    #variable_conflict use_column
    declare is_written boolean;
    begin
      insert into pages as p values (write_page.item, write_page.fence, write_page.body)
      on conflict (item) do update set fence = excluded.fence, body = excluded.body where p.fence < excluded.fence;
      is_written := found;
      insert into writes values (write_page.fence, is_written);
      return is_written;
    end $$`);
});
afterAll(() => project?.remove());

// An isolate of its own for each test, with the limits of a hosted project.
beforeEach(async () => {
  await project.stack.functions?.end("termination", 0);
  Object.assign(project.limits, hostedLimits);
  await project.write();
});

/** A work type with a pool of its own, whose items carry these payloads. */
async function typeOf(
  payloads: object[],
  rules: Record<string, unknown> = {},
): Promise<{ type: string; ids: string[] }> {
  const { type } = await typeWithPool(project.sql, 0, rules);
  const items = payloads.map((payload) => ({ pool: type, payload }));
  return { type, ids: await call(project.sql, "enqueue_items", { items }) };
}

function request(type: string): RequestInit {
  return { headers: { authorization: `Bearer ${secret}` }, body: JSON.stringify({ work_types: [type] }) };
}

async function drain(type: string): Promise<Drained> {
  const response = await project.invoke("work-drain", request(type));
  expect(response.status).toBe(200);
  return (await response.json()) as Drained;
}

const held = (type: string): Promise<void> =>
  waitUntil(
    async () =>
      (await project.sql`select from work_claims where work_type = ${type} and status = 'claimed'`).length > 0,
  );

test("repeated calls drain 1,000 items, each done once, and the last says that nothing is left", async () => {
  const { type, ids } = await typeOf(Array.from({ length: 1000 }, (_, n) => ({ act: "double", n })));
  const answers: Drained[] = [];
  do answers.push(await drain(type));
  while (answers.at(-1)?.more);
  expect(answers.reduce((sum, { succeeded }) => sum + succeeded, 0)).toBe(1000);
  expect(answers.every(({ succeeded }) => succeeded <= 100)).toBe(true);
  const rows = await project.sql`
    select i.payload, c.status, c.result, c.crashes, c.failures from work_claims c join work_items i on i.id = c.item_id
     where c.work_type = ${type}`;
  expect(rows).toHaveLength(ids.length);
  for (const { payload, status, result, crashes, failures } of rows) {
    expect({ status, twice: result.twice, crashes, failures }).toEqual({
      ...{ status: "succeeded", twice: 2 * payload.n },
      ...{ crashes: 0, failures: 0 },
    });
  }
});

test("eight calls at once in one isolate share the items, under eight worker names", async () => {
  const { type } = await typeOf(Array.from({ length: 400 }, (_, n) => ({ act: "double", n })));
  const answers = await Promise.all(Array.from({ length: 8 }, () => drain(type)));
  expect(new Set(answers.map((answer) => answer.worker_id)).size).toBe(8);
  expect(answers.reduce((sum, { succeeded }) => sum + succeeded, 0)).toBe(400);
  expect(answers.map(({ failed, lost }) => failed + lost)).toEqual(Array(8).fill(0));
  const executions = await project.sql`
    select result ->> 'execution' as execution, count(*)::integer as items from work_claims where work_type = ${type} group by 1`;
  expect(executions).toEqual([{ execution: expect.stringMatching(/^[0-9a-f-]{36}$/), items: 400 }]);
});

describe("a caller", () => {
  test("without the secret, or with a wrong one, is refused with a sentence", async () => {
    const wrong = [
      {},
      { authorization: `Bearer ${secret}x` },
      { authorization: "Bearer " },
      { authorization: secret },
      { apikey: "" },
      // The own secret counts alone where there is one.
      { apikey: project.stack.secretKey },
      { apikey: project.stack.publishableKey },
    ];
    for (const headers of wrong) {
      const response = await project.invoke("work-drain", { headers });
      expect([headers, response.status]).toEqual([headers, 401]);
      expect(((await response.json()) as { message: string }).message).toContain("WORK_DRAIN_SECRET was expected");
    }
  });

  test("with the project's secret key is let in where there is no own secret, and with another key is not", async () => {
    const { type } = await typeOf([]);
    await project.write({}, { WORK_TYPE: type });
    const { secretKey, serviceKey, publishableKey, anonKey } = project.stack;
    const statuses = await Promise.all(
      [secretKey, serviceKey, publishableKey, anonKey].flatMap((key) => [
        project.invoke("work-drain", { headers: { apikey: key } }).then((response) => response.status),
        project
          .invoke("work-drain", { headers: { authorization: `Bearer ${key}` } })
          .then((response) => response.status),
      ]),
    );
    expect(statuses).toEqual([200, 200, 200, 200, 401, 401, 401, 401]);
  });

  test("that asks wrongly is told what was expected", async () => {
    const headers = { authorization: `Bearer ${secret}` };
    const wrong: [RequestInit, number, string][] = [
      [{ method: "GET", headers }, 405, "POST was expected"],
      [{ headers, body: "{" }, 400, "the body is no JSON"],
      [{ headers, body: "[]" }, 500, "WORK_TYPE is not set"],
      [{ headers, body: '{"work_types": []}' }, 400, "work_types is no list of 1 to 100 names"],
      [{ headers, body: '{"work_types": "embed"}' }, 400, "work_types is no list of 1 to 100 names"],
      [{ headers, body: '{"work_types": ["no such type"]}' }, 500, "no such type is not declared (define_work_type)"],
      [{ headers, body: '{"wait": 1}' }, 400, "wait is neither true nor false"],
      [{ headers, body: '{"work_types": [7]}' }, 400, "work_types is no list of 1 to 100 names"],
      [{ headers }, 500, "WORK_TYPE is not set"],
    ];
    for (const [init, status, sentence] of wrong) {
      const response = await project.invoke("work-drain", init);
      expect([init.body, response.status]).toEqual([init.body, status]);
      expect(((await response.json()) as { message: string }).message).toContain(sentence);
    }
  });
});

describe("a call that is cut off in the middle", () => {
  test.each([
    { reason: "wall_clock", act: { act: "wait", ms: 60_000 }, limits: { wallClockMs: 4_000 } },
    { reason: "cpu", act: { act: "burn" }, limits: { cpuMs: 2_000 } },
    { reason: "memory", act: { act: "allocate" }, limits: { memoryMb: 120 } },
  ])("by the limit of $reason hands its item back before the end, without a try", async ({ act, limits }) => {
    const { type, ids } = await typeOf([act]);
    Object.assign(project.limits, limits);
    expect(await drain(type)).toMatchObject({ succeeded: 0, failed: 0, released: 1, why: "signal", more: true });
    expect(await stored(project.sql, ids[0], type)).toMatchObject({ status: "ready", failures: 0, crashes: 0 });
  });

  test("by the end of the stack hands its item back", async () => {
    const { type, ids } = await typeOf([{ act: "wait", ms: 60_000 }]);
    const drained = drain(type);
    await held(type);
    await project.stack.functions?.end("termination", 5_000);
    expect(await drained).toMatchObject({ released: 1, why: "signal" });
    expect(await stored(project.sql, ids[0], type)).toMatchObject({ status: "ready", failures: 0, crashes: 0 });
  });

  test("by its caller finishes its item before the isolate is dropped early", async () => {
    const { type, ids } = await typeOf([{ act: "wait", ms: 500 }]);
    const caller = new AbortController();
    const left = project.invoke("work-drain", { ...request(type), signal: caller.signal }).catch(() => "left");
    await held(type);
    caller.abort();
    expect(await left).toBe("left");
    const [pid = 0] = project.stack.functions?.pids() ?? [];
    await project.stack.functions?.end("early_drop", 20_000);
    expect(await stored(project.sql, ids[0], type)).toMatchObject({ status: "succeeded" });
    expect(() => process.kill(pid, 0)).toThrow();
  });

  test("by a kill without an event gives its item to another call when the lease ends", async () => {
    const { type, ids } = await typeOf([{ act: "spin" }], { lease_seconds: 1 });
    project.limits.cpuMs = 600;
    const response = await project.invoke("work-drain", request(type));
    expect([response.status, response.headers.get("sb-error-code")]).toEqual([546, "WORKER_RESOURCE_LIMIT"]);
    await waitUntil(async () => (await drain(type)).succeeded === 1);
    expect(await stored(project.sql, ids[0], type)).toMatchObject({ status: "succeeded", crashes: 1 });
  });
});

test("a handler that never ends fails by name within its time, and the other items are done", async () => {
  await project.write({ "itemSeconds = 20": "itemSeconds = 1" });
  const never = { act: "wait", ms: 3_600_000 };
  const { type, ids } = await typeOf([never, ...Array.from({ length: 20 }, (_, n) => ({ act: "double", n }))]);
  expect(await drain(type)).toMatchObject({ succeeded: 20, failed: 1, why: "idle", more: true });
  expect(await stored(project.sql, ids[0], type)).toMatchObject({
    status: "waiting",
    failures: 1,
    error: "the handler did not end within 1 s (itemSeconds)",
  });
});

test("a call starts no item when less than the time of one is left, and an edited handler counts at once", async () => {
  await project.write({ "itemSeconds = 20": "itemSeconds = 59" });
  const { type } = await typeOf(Array.from({ length: 40 }, () => ({ act: "wait", ms: 300 })));
  const { succeeded, why, more } = await drain(type);
  expect({ why, more, isSome: succeeded > 0, isAll: succeeded === 40 }).toEqual({
    ...{ why: "time", more: true },
    ...{ isSome: true, isAll: false },
  });
});

test("an item that two calls do at once is written once: the fence refuses the late write", async () => {
  // The first call has no room to take its own item again.
  await project.write({ "concurrency: 4": "concurrency: 1" });
  const { type, ids } = await typeOf([{ act: "write" }]);
  const first = drain(type);
  await held(type);
  await endLeases(project.sql, type);
  expect(await drain(type)).toMatchObject({ succeeded: 1 });
  await project.sql`update gate set is_open = true`;
  expect(await first).toMatchObject({ succeeded: 0, lost: 1 });
  expect(await project.sql`select is_written from writes order by fence`).toEqual([
    { is_written: false },
    { is_written: true },
  ]);
  expect(await project.sql`select body from pages where item = ${ids[0] ?? ""}`).toEqual([{ body: "try 1" }]);
  expect(await events(project.sql, ids[0], type)).toContain("expired");
});
