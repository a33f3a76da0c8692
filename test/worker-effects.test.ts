// Real workers over PostgREST: handlers that add items, wait for them, and read their input again.
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import {
  type Claim,
  type Context,
  Later,
  type NewItem,
  parked,
  type Summary,
  WaitFor,
  type WorkOptions,
  work,
} from "../workers/runtime/work.ts";
import { openApi } from "./support/api.ts";
import { call, endLeases, stored, typeWithPool } from "./support/calls.ts";
import { expectInvariants } from "./support/invariants.ts";

const stack = await openApi();
const sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
afterAll(async () => {
  await expectInvariants(sql);
  await sql.end({ timeout: 1 });
});

async function run(
  type: string,
  handler: (claim: Claim, context: Context) => unknown,
  more: WorkOptions = {},
): Promise<{ summary: Summary; lines: string[] }> {
  const lines: string[] = [];
  const summary = await work(type, handler, {
    url: stack.url,
    key: stack.secretKey,
    untilEmpty: true,
    handleSignals: false,
    idleMinSeconds: 0.02,
    idleMaxSeconds: 0.05,
    log: (line) => lines.push(line),
    ...more,
  });
  return { summary, lines };
}

const payloads = async (pool: string): Promise<unknown[]> =>
  (await sql`select payload from work_items where pool = ${pool} order by seq`).map((row) => row.payload);

test("a handler adds items with its result, and waits for them with WaitFor: it runs again with their results", async () => {
  const { type } = await typeWithPool(sql, 1);
  const runs: string[] = [];
  const { summary, lines } = await run(type, async (claim, { enqueue, save }) => {
    if (claim.payload.part !== undefined) {
      expect(claim.needs).toEqual([]);
      runs.push(`part ${claim.payload.part}`);
      return claim.payload.part * 10;
    }
    if (claim.needs.length > 0) {
      runs.push(`all, with state ${claim.state.step}`);
      return claim.needs.map((need) => need.result).sort();
    }
    runs.push("split");
    await save({ step: 1 });
    const first = enqueue([{ pool: type, payload: { part: 1 } }]);
    const others = enqueue([2, 3].map((part): NewItem => ({ pool: type, payload: { part } })));
    expect([...first, ...others]).toEqual([{ index: 0 }, { index: 1 }, { index: 2 }]);
    throw new WaitFor([...first, ...others], "for its parts");
  });
  expect(runs[0]).toBe("split");
  expect(runs.slice(1, 4).sort()).toEqual(["part 1", "part 2", "part 3"]);
  expect(runs.slice(4)).toEqual(["all, with state 1"]);
  expect(summary).toMatchObject({ succeeded: 4, failed: 0, released: 1, again: 0, lost: 0 });
  expect(lines.some((line) => line.startsWith("snoozed") && line.endsWith("for its parts"))).toBe(true);
  expect(
    await sql`select result from work_claims where work_type = ${type} and result is not null and jsonb_typeof(result) = 'array'`,
  ).toEqual([{ result: [10, 20, 30] }]);
});

test("a handler that fails adds nothing, and one that comes back later adds its items once", async () => {
  const { type } = await typeWithPool(sql, 1, { backoff_seconds: 0 });
  let tries = 0;
  await run(type, async (claim, { enqueue }) => {
    if (claim.payload.child) {
      return;
    }
    tries += 1;
    enqueue([{ pool: type, payload: { child: tries } }]);
    if (tries === 1) {
      throw new Error("not yet");
    }
    if (tries === 2) {
      throw new Later(0);
    }
  });
  expect(await payloads(type)).toEqual([{}, { child: 2 }, { child: 3 }]);
});

test("items that cannot be added are refused with a sentence", async () => {
  const { type, ids } = await typeWithPool(sql, 6, { max_failures: 1 });
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const wrong: ((context: Context) => unknown)[] = [
    ({ enqueue }) => {
      enqueue(Array(999).fill({}));
      enqueue([{}, {}]);
    },
    ({ enqueue }) => enqueue([{ payload: circular }]),
    ({ enqueue }) => enqueue([{ pool: "none" }]),
    ({ enqueue }) => {
      enqueue([{ pool: type }]);
      return parked("job", 60);
    },
    () => {
      throw new WaitFor(["nothing that is there"]);
    },
    () => {
      throw new WaitFor([circular as never]);
    },
  ];
  const { summary } = await run(type, (claim, context) => wrong[ids.indexOf(claim.item_id)]?.(context));
  expect(summary).toMatchObject({ succeeded: 0, failed: 6 });
  const errors = await Promise.all(ids.map(async (id) => (await stored(sql, id, type)).error));
  expect(errors).toEqual([
    "the handler adds 1001 items; one claim adds at most 1000: add items that add the others",
    expect.stringContaining("the list of new items is no JSON"),
    expect.stringContaining("there is no such pool"),
    "the handler called enqueue() and returned parked(); add items with the job's result",
    expect.stringContaining('there is no item "nothing that is there"'),
    expect.stringContaining("the list of needs is no JSON"),
  ]);
  expect(await payloads(type)).toHaveLength(6);
});

test("a success whose input changed meanwhile is counted apart, and done again; one that had reread its input is not", async () => {
  const { type, ids } = await typeWithPool(sql, 2, { on_change: "again" });
  const change = (id: string): Promise<unknown> => sql`update work_items set payload = '{"body": 2}' where id = ${id}`;
  const seen: string[] = [];
  const { summary, lines } = await run(type, async (claim, { reread }) => {
    if (claim.payload.body === undefined) {
      await change(claim.item_id);
    }
    const payload = claim.item_id === ids[0] ? await reread() : claim.payload;
    seen.push(`${ids.indexOf(claim.item_id)} ${JSON.stringify(payload)}`);
    return payload;
  });
  expect(seen.sort()).toEqual(['0 {"body":2}', '1 {"body":2}', "1 {}"]);
  expect(summary).toMatchObject({ succeeded: 2, failed: 0, again: 1, lost: 0 });
  expect(lines).toContain(`to be done again ${type} ${ids[1]}: its input changed`);
  expect(lines.join("\n")).toMatch(/again 1/);
});

test("rereading a claim that is lost throws, and its signal aborts", async () => {
  const { type } = await typeWithPool(sql, 1);
  let isFirst = true;
  const { summary } = await run(type, async (_, { reread, signal }) => {
    if (isFirst) {
      isFirst = false;
      await endLeases(sql, type);
      await expect(reread()).rejects.toThrow("the claim is gone");
      expect(signal.aborted).toBe(true);
    }
  });
  expect(summary).toMatchObject({ succeeded: 1, lost: 1 });
});

test("a result that the function of the work type refuses fails its claim alone, with the function's sentence", async () => {
  await sql.unsafe(`
    create table stored (body text unique);
    create function store_body(item jsonb, result jsonb) returns void language plpgsql as $$
      begin
        if item #>> '{payload,bad}' is not null then raise exception 'bad is %', item #>> '{payload,bad}'; end if;
        insert into stored values (result ->> 'body');
      end $$;`);
  await sql`grant all on stored to service_role`;
  await sql`grant execute on function store_body to service_role`;
  const { type } = await typeWithPool(sql, 0, { apply: "public.store_body", max_failures: 2, backoff_seconds: 0 });
  await call(sql, "enqueue_items", {
    items: Array.from({ length: 8 }, (_, n) => ({ pool: type, payload: n === 3 ? { n, bad: "yes" } : { n } })),
  });
  const { summary, lines } = await run(type, ({ payload }) => ({ body: `body ${payload.n}` }), { concurrency: 8 });
  expect(summary).toMatchObject({ succeeded: 7, failed: 2, lost: 0 });
  expect(await sql`select count(*)::integer from stored`).toEqual([{ count: 7 }]);
  const failed = await sql`select error, failures from work_claims where work_type = ${type} and status = 'failed'`;
  expect(failed).toEqual([{ error: "the result was not applied: bad is yes", failures: 2 }]);
  expect(lines.filter((line) => line.startsWith("refused"))).toHaveLength(2);
});

test("a parked claim whose result is refused fails with the sentence", async () => {
  const { type, ids } = await typeWithPool(sql, 1, { apply: "public.store_body", max_failures: 1 });
  await sql`update work_items set payload = '{"bad": "parked"}' where id = ${ids[0] ?? ""}`;
  await run(type, () => parked(`job of ${type}`, 60), { poll: () => ({ body: "parked" }), pollSeconds: 1 });
  expect(await stored(sql, ids[0], type)).toMatchObject({
    status: "failed",
    error: "the result was not applied: bad is parked",
  });
});

test("the idempotency key is new with each try, and the item's key is not", async () => {
  const { type, ids } = await typeWithPool(sql, 1, { backoff_seconds: 0 });
  const keys: string[] = [];
  const itemKeys: string[] = [];
  await run(type, ({ fence }, { idempotencyKey, itemKey }) => {
    expect(idempotencyKey).toBe(`${itemKey}:${fence}`);
    keys.push(idempotencyKey);
    itemKeys.push(itemKey);
    if (keys.length < 3) {
      throw new Error("again");
    }
  });
  expect(new Set(keys).size).toBe(3);
  expect(itemKeys).toEqual(Array(3).fill(`${ids[0]}:${type}`));
});

test("a worker that picks candidates gets the needs of its claims", async () => {
  const { type } = await typeWithPool(sql, 0);
  await call(sql, "enqueue_items", {
    items: [
      { pool: type, dedupe_key: "first" },
      { pool: type, needs: ["first"] },
    ],
  });
  const needs: unknown[] = [];
  await run(
    type,
    (claim) => {
      needs.push(claim.needs);
      return "done";
    },
    { pool: type },
  );
  expect(needs).toEqual([[], [expect.objectContaining({ dedupe_key: "first", status: "succeeded", result: "done" })]]);
});
