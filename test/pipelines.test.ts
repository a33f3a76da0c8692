import { expect, test } from "vitest";
import { type Claim, call, claimNext, release, someoneWaits, stored, typeWithPool } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, as } = await openDatabase();
let pools = 0;

/** A pool with these work types, each dependent on the one before it. */
async function stages(
  names: string[],
  rules: Record<string, unknown> = {},
): Promise<{ pool: string; types: string[] }> {
  pools += 1;
  const pool = `pool ${pools}`;
  await sql`insert into public.work_pools (name) values (${pool})`;
  const types = names.map((name) => `${name} ${pools}`);
  for (const [n, work_type] of types.entries()) {
    const depends_on = n === 0 ? [] : [types[n - 1]];
    await call(sql, "define_work_type", { work_type, pool, depends_on, ...rules });
  }
  return { pool, types };
}

const statusOf = async (item: string | undefined, type: string | undefined): Promise<unknown> =>
  (await stored(sql, item, type ?? "")).status;

/** Claims one item of the type and lets it succeed. */
async function run(type: string | undefined, more: Record<string, unknown> = {}): Promise<string | undefined> {
  const [claim] = await claimNext(sql, type ?? "", "w");
  return release(sql, "w", claim, "succeeded", more);
}

test("a work type that depends on another one runs on an item after it", async () => {
  const { pool, types } = await stages(["extract", "embed", "sum"]);
  const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ pool }] });
  expect(await Promise.all(types.map((type) => statusOf(id, type)))).toEqual(["ready", "blocked", "blocked"]);
  expect(await claimNext(sql, types[1] ?? "", "w")).toEqual([]);
  expect(await run(types[0], { result: { text: "a" } })).toBe("succeeded");
  expect(await Promise.all(types.map((type) => statusOf(id, type)))).toEqual(["succeeded", "ready", "blocked"]);
  const [claim] = await claimNext(sql, types[1] ?? "", "w");
  expect((claim as Claim & { needs: unknown }).needs).toMatchObject([
    { item_id: id, work_type: types[0], status: "succeeded", result: { text: "a" } },
  ]);
  await release(sql, "w", claim, "succeeded");
  expect(await run(types[2])).toBe("succeeded");
  await expectInvariants(sql);
});

test("a changed input opens the stage again with all after it, and nothing before it", async () => {
  const { pool, types } = await stages(["extract", "embed", "sum"]);
  await call(sql, "define_work_type", { work_type: types[1], input_columns: ["body"] });
  const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ pool, payload: { body: 1, note: 1 } }] });
  for (const type of types) {
    await run(type, { result: type });
  }
  await sql`update public.work_items set payload = '{"body": 1, "note": 2}' where id = ${id ?? ""}`;
  expect(await Promise.all(types.map((type) => statusOf(id, type)))).toEqual(["succeeded", "succeeded", "succeeded"]);
  await sql`update public.work_items set payload = '{"body": 2, "note": 2}' where id = ${id ?? ""}`;
  expect(await Promise.all(types.map((type) => statusOf(id, type)))).toEqual(["succeeded", "ready", "blocked"]);
  expect(await stored(sql, id, types[1] ?? "")).toMatchObject({ stale: "its input changed", result: types[1] });
  await sql`update public.work_items set payload = '{"body": 3, "note": 2}' where id = ${id ?? ""}`;
  await run(types[1], { result: "new" });
  await run(types[2]);
  expect(await Promise.all(types.map((type) => statusOf(id, type)))).toEqual(["succeeded", "succeeded", "succeeded"]);
  expect(await stored(sql, id, types[1] ?? "")).toMatchObject({ stale: null, result: "new" });
  await expectInvariants(sql);
});

test("a change while it runs opens a claim again at its release, unless it is taken back or the worker has read it", async () => {
  const { pool, types } = await stages(["one"]);
  const type = types[0] ?? "";
  await call(sql, "define_work_type", { work_type: type, input_columns: ["body"] });
  const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ pool, payload: { body: 1 } }] });
  const change = (body: number) =>
    sql`update public.work_items set payload = ${sql.json({ body })} where id = ${id ?? ""}`;
  const [first] = await claimNext(sql, type, "w");
  await change(2);
  expect(await release(sql, "w", first, "succeeded", { result: 1 })).toBe("ready");
  const [second] = await claimNext(sql, type, "w");
  await change(3);
  await change(2);
  expect(await release(sql, "w", second, "succeeded", { result: 2 })).toBe("succeeded");
  await change(4);
  const [third] = await claimNext(sql, type, "w");
  await change(5);
  const again = await call<{ payload: unknown }>(sql, "reread_claim", {
    item_id: id,
    work_type: type,
    worker_id: "w",
    fence: third?.fence,
  });
  expect(again.payload).toEqual({ body: 5 });
  expect(await release(sql, "w", third, "succeeded")).toBe("succeeded");
  await expectInvariants(sql);
});

test("a fingerprint that an update gives to an item of a held claim opens the claim again at its release", async () => {
  const { type, ids } = await typeWithPool(sql, 1);
  const [claim] = await claimNext(sql, type, "w");
  await sql`update public.work_items set fingerprint = 'sha256:22' where id = ${ids[0] ?? ""}`;
  expect(await release(sql, "w", claim, "succeeded")).toBe("ready");
});

test("items wait for the items they need, by index, key and id; a circle is refused", async () => {
  const { pool, types } = await stages(["one"]);
  const type = types[0] ?? "";
  const items = [
    { pool, dedupe_key: "c", needs: ["a", { index: 1 }] },
    { pool, dedupe_key: "b", needs: ["a"] },
    { pool, dedupe_key: "a" },
  ];
  const ids = await call<string[]>(sql, "enqueue_items", { items });
  expect(await Promise.all(ids.map((id) => statusOf(id, type)))).toEqual(["blocked", "blocked", "ready"]);
  await run(type);
  expect(await Promise.all(ids.map((id) => statusOf(id, type)))).toEqual(["blocked", "ready", "succeeded"]);
  await run(type);
  await run(type);
  expect(await statusOf(ids[0], type)).toBe("succeeded");
  await expect(
    call(sql, "enqueue_items", {
      items: [
        { pool, dedupe_key: "x", needs: ["y"] },
        { pool, dedupe_key: "y", needs: ["z"] },
        { pool, dedupe_key: "z", needs: ["x"] },
      ],
    }),
  ).rejects.toThrow("items[0] (x) → items[1] (y) → items[2] (z) → items[0] (x)");
  await expectInvariants(sql);
});

test("an empty list of needs leaves a work type on its short way", async () => {
  const { pool, types } = await stages(["one"]);
  await call(sql, "enqueue_items", { items: [{ pool, needs: [] }] });
  expect(await sql`select is_plain from work_types where name = ${types[0] ?? ""}`).toEqual([{ is_plain: true }]);
});

test("an item that needs a whole workflow runs when all of it is done", async () => {
  const { pool, types } = await stages(["one"]);
  const type = types[0] ?? "";
  const items = [
    { pool, workflow: `w ${pool}` },
    { pool, workflow: `w ${pool}` },
    { pool, workflow: `w ${pool}`, needs_all_of: `w ${pool}` },
  ];
  const ids = await call<string[]>(sql, "enqueue_items", { items });
  expect(await statusOf(ids[2], type)).toBe("blocked");
  await run(type, { result: 1 });
  expect(await statusOf(ids[2], type)).toBe("blocked");
  await run(type, { result: 2 });
  expect(await statusOf(ids[2], type)).toBe("ready");
  await run(type);
  await expectInvariants(sql);
});

test("a version that is raised opens all that was done under an older one", async () => {
  const { pool, types } = await stages(["one", "two"]);
  const ids = await call<string[]>(sql, "enqueue_items", { items: [{ pool }, { pool }] });
  for (const type of [...types, ...types]) {
    await run(type);
  }
  await call(sql, "define_work_type", { work_type: types[0], version: 2 });
  await sql`update work.upkeep set due_at = now() - interval '1 second'`;
  await claimNext(sql, "nothing", "w");
  expect(await Promise.all(ids.map((id) => statusOf(id, types[0])))).toEqual(["ready", "ready"]);
  expect(await Promise.all(ids.map((id) => statusOf(id, types[1])))).toEqual(["blocked", "blocked"]);
  await expectInvariants(sql);
});

test("dependents of a failed item wait, fail or run, as their work type says", async () => {
  for (const [on_failed_need, expected] of [
    ["wait", "blocked"],
    ["fail", "failed"],
    ["run", "ready"],
  ] as const) {
    const { pool, types } = await stages(["one", "two"], { max_failures: 1, on_failed_need });
    const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ pool }] });
    const [claim] = await claimNext(sql, types[0] ?? "", "w");
    await release(sql, "w", claim, "failed", { error: "no" });
    expect(await statusOf(id, types[1])).toBe(expected);
  }
  await expectInvariants(sql);
});

test("a part of a workflow cannot need what waits for all of it", async () => {
  const { pool } = await stages(["one"]);
  const workflow = `circle ${pool}`;
  const items = [
    { pool, workflow, needs: ["all"] },
    { pool, dedupe_key: "all", needs_all_of: workflow },
  ];
  await expect(call(sql, "enqueue_items", { items })).rejects.toThrow("needs something that waits for all of it");
});

test("two parts that end while the item that waits for them is added make it ready", async () => {
  const { pool, types } = await stages(["one", "two"]);
  const workflow = `race ${pool}`;
  await call(sql, "enqueue_items", {
    items: [
      { pool, workflow },
      { pool, workflow },
    ],
  });
  const claims = await claimNext(sql, types[0] ?? "", "w", 2);
  const [adding, one, other] = [as("service_role"), as("service_role"), as("service_role")];
  await adding`begin`;
  const [gather] = await call<string[]>(adding, "enqueue_items", { items: [{ pool, needs_all_of: workflow }] });
  const ends = [release(one, "w", claims[0], "succeeded"), release(other, "w", claims[1], "succeeded")];
  await someoneWaits(sql, 2);
  await adding`commit`;
  expect(await Promise.all(ends)).toEqual(["succeeded", "succeeded"]);
  for (const _ of claims) {
    await run(types[1]);
  }
  expect(await statusOf(gather, types[0])).toBe("ready");
  await expectInvariants(sql);
});

test("an item whose need is deleted while it is added does not wait for it", async () => {
  const { pool, types } = await stages(["one"]);
  await call(sql, "enqueue_items", { items: [{ pool, dedupe_key: "gone" }] });
  await call(sql, "enqueue_items", { items: [{ pool, needs: ["gone"] }] });
  const [deleting, adding] = [as("service_role"), as("service_role")];
  await deleting`begin`;
  await deleting`delete from public.work_items where pool = ${pool} and dedupe_key = 'gone'`;
  const added = call<string[]>(adding, "enqueue_items", { items: [{ pool, needs: ["gone"] }] });
  await someoneWaits(sql);
  await deleting`commit`;
  expect(await statusOf((await added)[0], types[0])).toBe("ready");
  await expectInvariants(sql);
});

test("what waited for a workflow stays ready when the record of its parts is pruned", async () => {
  const { pool, types } = await stages(["one"]);
  const workflow = `pruned ${pool}`;
  await call(sql, "enqueue_items", { items: [{ pool, workflow }] });
  const [gather] = await call<string[]>(sql, "enqueue_items", { items: [{ pool, needs_all_of: workflow }] });
  await run(types[0]);
  await call(sql, "prune_finished", { work_type: types[0], older_than: "0 s" });
  expect(await statusOf(gather, types[0])).toBe("ready");
});

test("a paused work type of several claims an item keeps on opening its older claims", async () => {
  const { pool, types } = await stages(["one"], { several: 2 });
  const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ pool }] });
  await run(types[0]);
  await run(`${types[0]}#2`);
  await call(sql, "define_work_type", { work_type: types[0], version: 2 });
  const turn = async (): Promise<void> => {
    await sql`update work.upkeep set due_at = now() - interval '1 second'`;
    await claimNext(sql, "nothing", "w");
  };
  await turn();
  await call(sql, "define_work_type", { work_type: types[0], passed_over_seconds: 1 });
  await turn();
  await turn();
  expect(await Promise.all([types[0], `${types[0]}#2`].map((type) => statusOf(id, type)))).toEqual(["ready", "ready"]);
});
