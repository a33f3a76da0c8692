import { afterAll, describe, expect, test } from "vitest";
import { type Claim, call } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { register } from "./support/matching-oracle.ts";

let types = 0;

/** A work type of its own, for items that come from now on. */
async function newType(sql: Sql, rules: Record<string, unknown> = {}): Promise<string> {
  await sql`update work_types set pool = null`;
  types += 1;
  await call(sql, "define_work_type", { work_type: `type ${types}`, pool: "default", ...rules });
  return `type ${types}`;
}

async function enqueue(sql: Sql, items: object[]): Promise<string[]> {
  const ids: string[] = [];
  for (let from = 0; from < items.length; from += 1000) {
    ids.push(...(await call<string[]>(sql, "enqueue_items", { items: items.slice(from, from + 1000) })));
  }
  return ids;
}

/** The ids that a worker is given. */
async function take(sql: Sql, type: string, worker_id: string, more: Record<string, unknown> = {}): Promise<string[]> {
  const claims = await call<Claim[]>(sql, "claim_next", { work_types: [type], worker_id, ...more });
  return claims.map((claim) => claim.item_id);
}

function numbered<Value>(count: number, make: (n: number) => Value): Value[] {
  return Array.from({ length: count }, (_, n) => make(n));
}

describe("with few items", async () => {
  const { sql } = await openDatabase();
  afterAll(() => expectInvariants(sql));

  test("an item without requirement does not pass one of higher priority behind many other rows", async () => {
    const type = await newType(sql);
    await enqueue(
      sql,
      numbered(400, (n) => ({ requires: { kind: `other ${n % 150}` }, priority: 9 })),
    );
    const mine = await enqueue(
      sql,
      numbered(20, (n) => ({ requires: { kind: `mine ${n}` }, priority: 5 })),
    );
    const plain = await enqueue(
      sql,
      numbered(20, () => ({})),
    );
    await register(sql, { id: "wide", capabilities: { kind: numbered(20, (n) => `mine ${n}`) } });
    expect(await take(sql, type, "wide", { max_items: 3 })).toEqual(mine.slice(0, 3));
    expect(await take(sql, type, "wide", { max_items: 30 })).toEqual([...mine.slice(3), ...plain.slice(0, 13)]);
  });

  test("one long lane and many short ones are claimed in one order", async () => {
    const type = await newType(sql);
    const rare = (n: number) => ({ requires: { lot: `lot ${(n / 20) % 40}` } });
    const ids = await enqueue(
      sql,
      numbered(3000, (n) => (n % 20 === 0 ? rare(n) : { requires: { lot: "full" } })),
    );
    const lots = ["full", ...numbered(40, (n) => `lot ${n}`)];
    await register(sql, { id: "any lot", capabilities: { lot: lots } });
    const taken: string[] = [];
    for (let n = 0; n < 30; n++) taken.push(...(await take(sql, type, "any lot", { max_items: 10 })));
    expect(taken).toEqual(ids.slice(0, 300));
    for (let n = 0; n < 3; n++) taken.push(...(await take(sql, type, "any lot", { max_items: 900 })));
    expect(taken).toEqual(ids);
  });

  test("yielded items in many classes do not hide an item that only this worker runs", async () => {
    const type = await newType(sql);
    await enqueue(
      sql,
      numbered(1500, (n) => ({ requires: { shard: n }, priority: 1 })),
    );
    const [dear] = await enqueue(sql, [{ requires: { gpu: "a100" } }]);
    const capabilities = { gpu: "a100", shard: 100_000 };
    await register(sql, { id: "dear", capabilities, exclusive: ["gpu"], yield_seconds: 600 });
    expect(await take(sql, type, "dear")).toEqual([dear]);
    expect(await take(sql, type, "dear")).toEqual([]);
  });

  test("a worker gets warm items first within the priority of the first item", async () => {
    const type = await newType(sql);
    const cold = await enqueue(
      sql,
      numbered(100, () => ({ requires: { os: "linux" } })),
    );
    const warm = await enqueue(sql, [
      { requires: { arch: "arm" }, affinity: "sdxl" },
      { requires: { os: "linux" }, affinity: "sdxl" },
    ]);
    const [lower] = await enqueue(sql, [{ affinity: "sdxl", priority: -1 }]);
    await register(sql, { id: "warm", capabilities: { os: "linux", arch: "arm" } });
    const wish = { max_items: 3, warm: ["sdxl", "sdxl", "flux"] };
    expect(await take(sql, type, "warm", wish)).toEqual([...warm, cold[0]]);
    const [urgent] = await enqueue(sql, [{ priority: 1 }]);
    await enqueue(sql, [{ affinity: "sdxl" }]);
    expect(await take(sql, type, "warm", { max_items: 2, warm: ["sdxl"] })).toEqual([urgent, cold[1]]);
    expect(await take(sql, type, "warm", { max_items: 200, warm: ["sdxl"] })).toContain(lower);
  });

  test("a worker gets an overdue first item before warm ones", async () => {
    const type = await newType(sql, { passed_over_seconds: 60 });
    const late = await enqueue(
      sql,
      numbered(120, (n) => ({ requires: { shelf: n % 40 } })),
    );
    await sql`update work_claims set due_at = now() - interval '2 minutes' where work_type = ${type}`;
    const warm = await enqueue(
      sql,
      numbered(10, () => ({ affinity: "sdxl" })),
    );
    await register(sql, { id: "late", capabilities: { shelf: 100 } });
    expect(await take(sql, type, "late", { max_items: 60, warm: ["sdxl"] })).toEqual(late.slice(0, 60));
    expect(await take(sql, type, "late", { max_items: 65, warm: ["sdxl"] })).toEqual([
      ...late.slice(60),
      ...warm.slice(0, 5),
    ]);
  });

  test("a worker without warm items gets the first item", async () => {
    const type = await newType(sql, { passed_over_seconds: 60 });
    const [first, second] = await enqueue(sql, [{}, {}]);
    await sql`update work_claims set due_at = now() - interval '2 minutes' where item_id = ${second ?? ""}`;
    expect(await take(sql, type, "cold", { warm: [] })).toEqual([first]);
  });

  test("a claim skips twenty locked rows and keeps the order of the rest", async () => {
    const type = await newType(sql);
    const ids = await enqueue(
      sql,
      numbered(60, (n) => ({ requires: { berth: n % 3 } })),
    );
    await register(sql, { id: "patient", capabilities: { berth: 5 } });
    await sql.begin(async (other) => {
      await other`select from work_claims where item_id = any (${ids.slice(0, 20)}) and work_type = ${type} for update`;
      expect(await take(sql, type, "patient", { max_items: 10 })).toEqual(ids.slice(20, 30));
      expect(await take(sql, type, "patient", { max_items: 100 })).toEqual(ids.slice(30));
    });
  });
});

describe("behind a hundred thousand items of other workers", async () => {
  const { sql, owner } = await openDatabase();
  const type = await newType(sql);
  await call(sql, "define_workflow", { workflow: "film" });
  await enqueue(
    sql,
    numbered(40, (n) => ({ requires: { model: `m${n}` }, workflow: "crowd", priority: 1000 })),
  );
  await owner`
    insert into work_items (pool, class_id, priority, workflow_id)
    select 'default', c.id, 1000, w.id
      from (select id, row_number() over () as n from work_classes where id <> 1) as c
      join generate_series(1, 100000) as g(n) on c.n = 1 + g.n % 40
      join work_workflows w on w.name = 'crowd'`;
  afterAll(() => expectInvariants(sql));

  test("a worker is given its one item, of the lowest priority", async () => {
    const [mine] = await enqueue(sql, [{ requires: { model: "mine" }, priority: -1_000_000 }]);
    await register(sql, { id: "one", capabilities: { model: "mine" } });
    expect(await take(sql, type, "one", { max_items: 5 })).toEqual([mine]);
  });

  test("an unregistered worker is given the one item without requirement", async () => {
    const [plain] = await enqueue(sql, [{ priority: -1_000_000 }]);
    expect(await take(sql, type, "nobody", { max_items: 5 })).toEqual([plain]);
  });

  test("an exclusive worker is given the one item that needs its capability", async () => {
    const [mine] = await enqueue(sql, [{ requires: { model: "m7", gpu: true }, priority: -5 }]);
    const capabilities = { model: numbered(40, (n) => `m${n}`), gpu: true };
    await register(sql, { id: "dear", capabilities, exclusive: ["gpu"] });
    expect(await take(sql, type, "dear", { max_items: 5 })).toEqual([mine]);
    await register(sql, { id: "less dear", capabilities, exclusive: ["gpu"], yield_seconds: 3600 });
    expect(await take(sql, type, "less dear", { max_items: 5 })).toEqual([]);
  });
});
