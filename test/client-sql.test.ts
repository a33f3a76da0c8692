// What only a connection straight to Postgres can do: the caller's own transactions, and being called.
import type { TransactionSql } from "postgres";
import { afterAll, expect, test, vi } from "vitest";
import { z } from "zod";
import { createWorkClient, defineWork, overSql } from "../src/index.ts";
import { inProcess } from "../src/testing.ts";
import { work } from "../workers/runtime/work.ts";
import { openDatabase } from "./support/database.ts";

const database = await openDatabase();
const { owner } = database;
// A worker's calls, its connection that listens, and the test's own.
const sql = database.as("service_role", { max: 4 });
const client = createWorkClient({ sql });
const stopping: AbortController[] = [];
afterAll(() => {
  for (const stop of stopping) stop.abort();
});

const waitUntil = (isTrue: () => Promise<boolean>) => vi.waitUntil(isTrue, { timeout: 20_000, interval: 5 });

async function declared(name: string) {
  const defined = defineWork({ name, payload: z.object({ n: z.number() }), result: z.object({ n: z.number() }) });
  await defined.declare(client);
  return defined;
}

const drainWithin = (tx: TransactionSql, embed: Awaited<ReturnType<typeof declared>>) =>
  inProcess(tx).drain({ [embed.name]: embed.handler(({ payload }) => payload) });

test("items of a transaction come with its commit, and none after it rolls back", async () => {
  const embed = await declared("in a transaction");
  const id = await sql.begin(async (tx) => {
    await tx`insert into public.work_workflows (name) values ('their own row')`;
    const enqueued = await createWorkClient({ sql: tx }).enqueue(embed, { n: 1 });
    expect(await client.result(embed, enqueued)).toBeNull();
    return enqueued;
  });
  expect((await client.result(embed, id))?.status).toBe("ready");

  let lost = "";
  const rolledBack = sql.begin(async (tx) => {
    lost = await createWorkClient({ sql: tx }).enqueue(embed, { n: 2 });
    throw new Error("their own reason");
  });
  await expect(rolledBack).rejects.toThrow("their own reason");
  expect(await client.result(embed, lost)).toBeNull();
});

test("a claim is released in the caller's own transaction, beside what was done for it", async () => {
  const embed = await declared("released in a transaction");
  const id = await client.enqueue(embed, { n: 1 });
  const [claim] = await client.claimNext([embed.name], "a");
  await sql.begin(async (tx) => {
    await tx`insert into public.work_workflows (name) values ('the effect')`;
    const released = await createWorkClient({ sql: tx }).releaseItem(claim as never, "a", "succeeded", {
      result: { n: 2 },
    });
    expect(released).toBe(true);
    expect((await client.result(embed, id))?.status).toBe("claimed");
  });
  expect(await client.result(embed, id)).toMatchObject({ status: "succeeded", result: { n: 2 } });
});

test("an error ends the transaction with its sentence, and no call of it is tried again", async () => {
  const embed = await declared("an error in a transaction");
  const transaction = sql.begin(async (tx) => {
    const within = createWorkClient({ sql: tx });
    await within.enqueue(embed, { n: 1 });
    await within.claimNext([embed.name], "");
  });
  await expect(transaction).rejects.toMatchObject({ status: 400, code: "PT400" });
  const [row] = await owner`select from public.work_items where pool = ${embed.name}`;
  expect(row).toBeUndefined();

  const broken = sql.begin(async (tx) => {
    await tx`select 1 / 0`.catch(() => {});
    await drainWithin(tx, embed);
  });
  await expect(broken).rejects.toMatchObject({ message: "division by zero" });
});

test("a refused call inside a transaction takes back itself only, beside others at once", async () => {
  const embed = await declared("refused in a transaction");
  await sql.begin(async (tx) => {
    const within = createWorkClient({ sql: tx });
    const answers = await Promise.allSettled([
      within.enqueue(embed, { n: 1 }),
      within.claimNext([embed.name], ""),
      within.enqueue(embed, { n: 2 }),
    ]);
    expect(answers.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  });
  expect((await client.items({ pool: embed.name })).rows).toHaveLength(2);
});

test("a drain inside a transaction ends after a result that the database refuses, which is a failure", async () => {
  const embed = await declared("a refused result");
  await owner`
    create function public.refuse_seven(item jsonb, result jsonb) returns void language plpgsql security definer
    set search_path = public as $$ begin if result ->> 'n' = '7' then raise 'seven is refused'; end if; end $$`;
  await client.defineWorkType(embed.name, { apply: "public.refuse_seven", maxFailures: 1 });
  await sql.begin(async (tx) => {
    const { client: within } = inProcess(tx);
    const ids = [await within.enqueue(embed, { n: 7 }), await within.enqueue(embed, { n: 8 })];
    expect(await drainWithin(tx, embed)).toMatchObject({ why: "empty" });
    expect(await within.result(embed, ids[0] as string)).toMatchObject({
      status: "failed",
      error: "the result was not applied: seven is refused",
    });
    expect(await within.result(embed, ids[1] as string)).toMatchObject({ status: "succeeded" });
  });
});

test("an argument that a function has not is named", async () => {
  await expect(overSql(sql).rpc("define_pool", { pool: "a", colour: "red" })).rejects.toThrow(
    "define_pool has no argument colour",
  );
  await expect(overSql(sql).rpc("define_pool", {})).rejects.toThrow("define_pool needs the argument pool");
  await expect(overSql(sql).rpc("no_function", {})).rejects.toThrow("work-claims is not installed");
});

test("a wait inside a transaction looks from time to time, and a worker in it cannot listen", async () => {
  const embed = await declared("waits in a transaction");
  await sql.begin(async (tx) => {
    const within = createWorkClient({ sql: tx });
    const id = await within.enqueue(embed, { n: 1 });
    await expect(within.wait(embed, id, { timeoutMs: 1 })).rejects.toThrow(/ is ready after 1 ms$/);
    await expect(overSql(tx).listen?.(["embed"], () => {})).rejects.toThrow("a transaction cannot listen");
  });
});

test("a test inside of a transaction leaves nothing behind", async () => {
  const embed = await declared("a test in a transaction");
  const rollback = sql.begin(async (tx) => {
    const { client: within, clock, drain } = inProcess(tx);
    const id = await within.enqueue(embed, { n: 1 }, { runAfter: new Date(Date.now() + 60_000) });
    await clock.advance(60);
    expect(await drain({ [embed.name]: embed.handler(({ payload }) => payload) })).toMatchObject({ succeeded: 1 });
    expect((await within.result(embed, id))?.result).toEqual({ n: 1 });
    throw new Error("roll back");
  });
  await expect(rollback).rejects.toThrow("roll back");
  expect((await client.items({ pool: embed.name })).rows).toEqual([]);
});

test("a worker that picks candidates is refused over SQL, with a sentence", async () => {
  const options = { client: overSql(sql), pool: "default", handleSignals: false, log: () => {} };
  await expect(work("embed", () => null, options)).rejects.toThrow("a worker over SQL cannot pick candidates");
});

/** A worker that finds work by itself once an hour only. It has looked, and listens, when this resolves. */
async function idleWorker(types: string[], handle: (n: number) => void) {
  const stop = new AbortController();
  stopping.push(stop);
  const before = await owner`select from work.listeners`;
  const ended = work<{ n: number }>(types, ({ payload }) => handle(payload.n), {
    ...{ client: overSql(sql), idleMinSeconds: 3600, idleMaxSeconds: 3600, handleSignals: false, log: () => {} },
    signal: stop.signal,
  });
  await waitUntil(async () => (await owner`select from work.listeners`).length > before.length);
  return async () => {
    stop.abort();
    await ended;
  };
}

test("an idle worker is called for each new item, and for none of other work types", async () => {
  const [embed, other] = [await declared("called"), await declared("not called")];
  const done: number[] = [];
  const stop = await idleWorker([embed.name], (n) => done.push(n));
  for (const n of [1, 2, 3]) {
    await client.enqueue(other, { n });
    await client.enqueue(embed, { n });
    await waitUntil(async () => done.includes(n));
  }
  await stop();
  expect(await owner`select from work.listeners`).toEqual([]);
  expect(done).toEqual([1, 2, 3]);
});

test("an idle worker is called when what its item needs is done", async () => {
  const extract = await declared("needed");
  const summarise = defineWork({ name: "needs it", payload: z.object({}), pool: extract.pool, dependsOn: [extract] });
  await summarise.declare(client);
  const done: number[] = [];
  const stop = await idleWorker([summarise.name], (n) => done.push(n));
  await client.enqueue(extract, { n: 1 });
  const [claim] = await client.claimNext([extract.name], "a");
  expect(done).toEqual([]);
  await client.releaseItem(claim as never, "a", "succeeded", { result: { n: 1 } });
  await waitUntil(async () => done.length === 1);
  await stop();
});

test("a worker whose listening connection was lost is called again, for what came meanwhile too", async () => {
  const embed = await declared("called again");
  const done: number[] = [];
  const stop = await idleWorker([embed.name], (n) => done.push(n));
  await client.enqueue(embed, { n: 1 });
  await waitUntil(async () => done.length === 1);
  await database.admin`
    select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and query ilike 'listen %'`;
  for (const n of [2, 3]) {
    await client.enqueue(embed, { n });
    await waitUntil(async () => done.length === n);
  }
  await stop();
});

test("a wait is called when the claim ends", async () => {
  const embed = await declared("a wait that is called");
  const id = await client.enqueue(embed, { n: 1 });
  const waiting = client.wait(embed, id);
  await waitUntil(async () => (await owner`select from work.listeners where event = 'ended'`).length === 1);
  const [claim] = await client.claimNext([embed.name], "a");
  await client.releaseItem(claim as never, "a", "succeeded", { result: { n: 7 } });
  expect(await waiting).toEqual({ n: 7 });
  expect(await owner`select from work.listeners`).toEqual([]);
});

test("one statement sends one notification, and none while nobody listens", async () => {
  const embed = await declared("notified");
  const heard: string[] = [];
  const { unlisten } = await sql.listen("work_ready", (payload) => heard.push(payload));
  const items = (n: number) => Array.from({ length: n }, () => ({ pool: embed.name }));
  await client.enqueueItems(items(3));
  await sql`select work.listen(gen_random_uuid(), 'ended')`;
  await sql`select work.listen(gen_random_uuid(), 'ready', 0)`;
  await client.enqueueItems(items(3));
  const id = crypto.randomUUID();
  await sql`select work.listen(${id}, 'ready')`;
  await client.enqueueItems(items(1000));
  await sql.begin(async (tx) => {
    const within = createWorkClient({ sql: tx });
    await within.enqueueItems(items(1));
    await within.enqueueItems(items(1));
  });
  await sql`select pg_notify('work_ready', 'the last')`;
  await waitUntil(async () => heard.includes("the last"));
  expect(heard).toEqual([`["notified"]`, `["notified"]`, "the last"]);
  await sql`select work.unlisten(${id})`;
  await sql`delete from work.listeners`;
  await unlisten();
});

test("a notification that would be too long for Postgres goes without names", async () => {
  const heard: string[] = [];
  const { unlisten } = await sql.listen("work_ended", (payload) => heard.push(payload));
  const embed = await declared("many ended");
  await client.enqueueItems(Array.from({ length: 1000 }, () => ({ pool: embed.name })));
  await sql`select work.listen(gen_random_uuid(), 'ended')`;
  const claims = await client.claimNext([embed.name], "a", { maxItems: 1000 });
  await client.releaseItems(
    "a",
    claims.map(({ item_id, work_type, fence }) => ({ item_id, work_type, fence, outcome: "succeeded" })),
  );
  await waitUntil(async () => heard.length > 0);
  expect(heard).toEqual([""]);
  await sql`delete from work.listeners`;
  await unlisten();
});

test("a claim whose wait has ended is told of where a call finds it", async () => {
  const heard: string[] = [];
  const embed = await declared("waits");
  await client.enqueue(embed, { n: 1 }, { runAfter: new Date(Date.now() + 3_600_000) });
  await sql`select work.listen(gen_random_uuid(), 'ready')`;
  const { unlisten } = await sql.listen("work_ready", (payload) => heard.push(payload));
  await inProcess(sql).clock.advance(3600);
  expect(await client.claimNext(["another"], "a")).toEqual([]);
  await waitUntil(async () => heard.length > 0);
  expect(heard).toEqual([""]);
  await sql`delete from work.listeners`;
  await unlisten();
});

test("listeners that went without a word are removed by the next one", async () => {
  await sql`insert into work.listeners values (gen_random_uuid(), 'ready', now() - interval '2 minutes')`;
  await sql`select work.listen(gen_random_uuid(), 'ready')`;
  expect(await owner`select from work.listeners`).toHaveLength(1);
  await sql`delete from work.listeners`;
});
