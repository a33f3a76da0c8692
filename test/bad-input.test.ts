import { afterAll, describe, expect, test } from "vitest";
import { badCalls, contents } from "./support/bad-calls.ts";
import { call, claimNext, typeWithItems } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, owner } = await openDatabase();
await owner`create table keyless (id integer)`;
await owner`create table keyed (id integer primary key, body text)`;
await owner`grant all on keyless, keyed to service_role`;
const calls = await badCalls(sql);
afterAll(() => expectInvariants(sql));

describe("is refused with a sentence, and changes nothing:", () => {
  test.each(calls)("$what ($name)", async ({ name, args, code, says }) => {
    const before = await contents(sql);
    const error = await call<never>(sql, name, args).catch((reason: { code: string; message: string }) => reason);
    expect({ code: error.code, message: error.message }).toEqual({ code, message: expect.stringContaining(says) });
    expect(error.message.length).toBeLessThan(300);
    expect(await contents(sql)).toEqual(before);
  });
});

test("release_items closes a claim once if it is named twice", async () => {
  const { type } = await typeWithItems(sql, 1);
  const [claim] = await claimNext(sql, type, "a");
  const outcome = { ...claim, outcome: "succeeded" };
  expect(await call(sql, "release_items", { worker_id: "a", outcomes: [outcome, outcome] })).toEqual([
    "succeeded",
    "succeeded",
  ]);
});

test("a call accepts a thousand items", async () => {
  const { type } = await typeWithItems(sql, 0);
  const items = Array.from({ length: 1000 }, () => ({}));
  const ids = await call<string[]>(sql, "enqueue_items", { items });
  const claims = await call<object[]>(sql, "claim_items", { item_ids: ids, work_type: type, worker_id: "a" });
  expect(claims).toHaveLength(1000);
  const outcomes = claims.map((claim) => ({ ...claim, outcome: "succeeded" }));
  expect(await call(sql, "release_items", { worker_id: "a", outcomes })).toEqual(Array(1000).fill("succeeded"));
});

test("a row too big for an item is refused where it is written", async () => {
  await call(owner, "attach_pool", { source: "keyed" });
  await expect(
    owner`insert into keyed select 1, string_agg(md5(g::text), '') from generate_series(1, 40000) g`,
  ).rejects.toMatchObject({ code: "PT400", message: expect.stringContaining("attach fewer columns") });
});
