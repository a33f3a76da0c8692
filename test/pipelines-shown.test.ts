// The views and answers in which a person sees pipelines: work that waits for other work, and results that are out of date.
import { afterAll, describe, expect, test } from "vitest";
import type { ExplainedItem } from "../src/answers.ts";
import { explainedLines } from "../src/cli/sentences.ts";
import { call, claimNext, endWaits, release, typeWithPool } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql } = await openDatabase();
afterAll(() => expectInvariants(sql));

const enqueue = (pool: string, items: object[]): Promise<string[]> =>
  call(sql, "enqueue_items", { items: items.map((item) => ({ pool, ...item })) });
const explained = (item_id: string | undefined, work_type?: string): Promise<ExplainedItem> =>
  call(sql, "explain_item", { item_id, work_type });

async function end(type: string, outcome: string, more: Record<string, unknown> = {}): Promise<void> {
  const [claim] = await claimNext(sql, type, "w");
  await release(sql, "w", claim, outcome, more);
}

/** A second work type of the pool, done after the first. */
async function typeAfter(type: string, rules: Record<string, unknown> = {}): Promise<string> {
  const later = `after ${type}`;
  await call(sql, "define_work_type", { work_type: later, pool: type, depends_on: [type], ...rules });
  await call(sql, "enroll_pool", { pool: type });
  return later;
}

async function stuck(type: string): Promise<Record<string, unknown>[]> {
  return sql`select item_id, reason from work_stuck where work_type = ${type} order by reason`;
}

describe("explain_item", () => {
  test("says for a blocked claim what it waits for, failed needs first, and how many others", async () => {
    const { type, ids } = await typeWithPool(sql, 1);
    const later = await typeAfter(type);
    const keys = ["a", "b", "c", "d", "e", "f"];
    await enqueue(
      type,
      keys.map((dedupe_key) => ({ dedupe_key })),
    );
    const needs = keys.map((key) => ({ key, work_type: type }));
    const [id] = await enqueue(type, [{ needs }]);
    await end(type, "succeeded");
    await end(type, "failed", { final: true });
    const { claims } = await explained(id, type);
    expect(claims[0]).toMatchObject({
      reason: `it waits for ${type} of item a (failed) and 5 others`,
      waits_for: 6,
      needs: [
        { work_type: type, status: "failed", workflow: null },
        ...keys.slice(1, 5).map(() => ({ status: "ready" })),
      ],
    });
    expect(claims[0]?.needs).toHaveLength(5);
    const both = await explained(id, later);
    expect(both.claims[0]?.needs).toHaveLength(5);
    expect(explainedLines(both)).toEqual([`${later} waits for ${type} of item a (failed) and 6 others.`]);
    const [done] = (await explained(ids[0])).claims.filter((claim) => claim.work_type === type);
    expect(done).toMatchObject({ status: "succeeded", needs: null, waits_for: 0 });
  });

  test("names the same item, a whole workflow, and a single other need", async () => {
    const { type, ids } = await typeWithPool(sql, 1);
    const later = await typeAfter(type);
    expect((await explained(ids[0], later)).reason).toBe(`${later}: it waits for ${type} of the same item (ready)`);
    const [, gather] = await enqueue(type, [{ workflow: `w ${type}` }, { needs_all_of: `w ${type}` }]);
    expect((await explained(gather, type)).reason).toBe(`${type}: it waits for all of workflow w ${type}`);
    expect((await explained(gather, later)).claims[0]).toMatchObject({
      reason: `it waits for all of workflow w ${type} and one other`,
      needs: [
        { workflow: `w ${type}`, item_id: null },
        { item_id: gather, status: "blocked" },
      ],
    });
  });

  test("says why a result is out of date, and why a held claim is done once more", async () => {
    const { type, ids } = await typeWithPool(sql, 1, { input_columns: ["body"] });
    await end(type, "succeeded", { result: 1 });
    await sql`update work_items set payload = '{"body": 1}' where id = ${ids[0] ?? ""}`;
    expect((await explained(ids[0])).claims[0]).toMatchObject({ stale: "its input changed", again: null });
    await claimNext(sql, type, "w");
    await sql`update work_items set payload = '{"body": 2}' where id = ${ids[0] ?? ""}`;
    const held = await explained(ids[0]);
    expect(held.claims[0]?.again).toBe("its input changed while it ran");
    expect(explainedLines(held)[0]).toMatch(
      /It is to be done again after that: its input changed while it ran. Its result is out of date: its input changed.$/,
    );
  });
});

test("work_stale and the list of claims show results that are out of date, and why, until the next one comes", async () => {
  const { type, ids } = await typeWithPool(sql, 2, { input_columns: ["body"] });
  const later = await typeAfter(type);
  for (const one of [type, type, later, later]) await end(one, "succeeded", { result: { of: one } });
  const stale = () => sql`
    select work_type, item_id, status, reason, waits_for, result from work_stale where work_type in (${type}, ${later}) order by 1 desc`;
  expect(await stale()).toEqual([]);
  await sql`update work_items set payload = '{"body": 1}' where id = ${ids[0] ?? ""}`;
  const first = { work_type: type, item_id: ids[0], status: "ready", waits_for: 0, result: { of: type } };
  const second = { work_type: later, item_id: ids[0], status: "blocked", waits_for: 1, result: { of: later } };
  expect(await stale()).toEqual([
    { ...first, reason: "its input changed" },
    { ...second, reason: `${type} is done again` },
  ]);
  expect(
    await sql`select item_id, waits_for from work_claim_list where stale is not null and work_type = ${later}`,
  ).toEqual([{ item_id: ids[0], waits_for: 1 }]);
  await end(type, "succeeded");
  await end(later, "succeeded");
  expect(await stale()).toEqual([]);
});

describe("work_stuck", () => {
  test("shows what waits for failed and cancelled work, and nothing that waits for open work", async () => {
    const { type, ids } = await typeWithPool(sql, 3);
    const later = await typeAfter(type);
    const [other] = await enqueue(type, [{ dedupe_key: "other", needs: [{ id: ids[1], work_type: type }] }]);
    await end(type, "failed", { final: true });
    expect(await stuck(later)).toEqual([{ item_id: ids[0], reason: `it waits for ${type} of the same item (failed)` }]);
    await call(sql, "cancel_items", { work_type: type, item_ids: [ids[1]] });
    expect(await stuck(type)).toEqual([
      { item_id: other, reason: `it waits for ${type} of item ${ids[1]} (cancelled)` },
    ]);
    expect((await stuck(later)).map((row) => row.item_id).sort()).toEqual([ids[0], ids[1], other].sort());
    await call(sql, "retry_items", { work_type: type, item_ids: [ids[0], ids[1]] });
    expect([...(await stuck(later)), ...(await stuck(type))]).toEqual([]);
  });

  test("shows what waits for a workflow of which a part failed, once nothing of it is open", async () => {
    const { type } = await typeWithPool(sql, 0);
    const workflow = `w ${type}`;
    const [, , gather] = await enqueue(type, [{ workflow }, { workflow }, { needs_all_of: workflow }]);
    await end(type, "failed", { final: true });
    expect(await stuck(type)).toEqual([]);
    await end(type, "succeeded");
    expect(await stuck(type)).toEqual([
      { item_id: gather, reason: `it waits for all of workflow ${workflow}, of which a part failed or was cancelled` },
    ]);
  });

  test("shows a claim that waits since its input changes again and again", async () => {
    const { type, ids } = await typeWithPool(sql, 1, { input_columns: ["body"] });
    await end(type, "succeeded");
    for (let body = 0; body < 11; body++) {
      expect(await stuck(type)).toEqual([]);
      await sql`update work_items set payload = ${sql.json({ body })} where id = ${ids[0] ?? ""}`;
      if (body < 10) await end(type, "succeeded");
    }
    expect(await stuck(type)).toEqual([
      {
        item_id: ids[0],
        reason:
          "its input changed 11 times, each within an hour of the last: does its worker write into its own input columns?",
      },
    ]);
    const lines = explainedLines(await explained(ids[0]));
    expect(lines[0]).toContain(
      `${type} waits: its input changed 11 times, each within an hour of the last; it is due in`,
    );
    await endWaits(sql, type);
    await end(type, "succeeded");
    expect(await stuck(type)).toEqual([]);
  });
});

test("stale and blocked claims are found along their index, however many others there are", async () => {
  const plan = async (of: Sql, query: string): Promise<string> =>
    (await of.unsafe(`explain ${query}`)).map((row) => row["QUERY PLAN"]).join("\n");
  await sql.unsafe("set enable_seqscan = off");
  expect(await plan(sql, "select * from work_stale")).toContain("work_claims_behind");
  expect(await plan(sql, "select * from work_claim_list where status = 'blocked' and work_type = 'a'")).toContain(
    "work_claims_behind",
  );
  await sql.unsafe("reset enable_seqscan");
});
