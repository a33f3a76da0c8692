import { describe, expect, test } from "vitest";
import type { ExplainedClaim, ExplainedItem, MatchReport, WouldMatch } from "../src/answers.ts";
import { call, claimNext, endLeases, release, typeWithItems } from "./support/calls.ts";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, owner } = await openDatabase();

let pools = 0;

/** A work type of its own with its own pool, and these items in it. */
async function work(...items: object[]): Promise<{ type: string; pool: string; ids: string[] }> {
  pools += 1;
  const pool = `pool ${pools}`;
  const type = `work ${pools}`;
  await owner`insert into work_pools (name) values (${pool})`;
  await call(sql, "define_work_type", { work_type: type, pool });
  return { type, pool, ids: await call(sql, "enqueue_items", { items: items.map((item) => ({ pool, ...item })) }) };
}

function register(worker_id: string, type: string, args: Record<string, unknown> = {}): Promise<unknown> {
  return call(sql, "register_worker", { worker_id, instance: crypto.randomUUID(), work_types: [type], ...args });
}

const explain = (item_id: string | undefined, work_type?: string): Promise<ExplainedItem> =>
  call(sql, "explain_item", { item_id, work_type });
const wouldMatch = (args: Record<string, unknown>): Promise<WouldMatch> => call(sql, "would_match", args);

/** The one claim of an item. */
async function explained(item_id: string | undefined): Promise<ExplainedClaim> {
  const { claims } = await explain(item_id);
  expect(claims).toHaveLength(1);
  return claims[0] as ExplainedClaim;
}

const reason = async (item_id: string | undefined): Promise<string> => (await explained(item_id)).reason;

/** A failing clause of one worker. The only worker is also the closest one. */
function failsOn(worker: string, needs: string, has: string | null, more: object = {}): MatchReport["failing"][number] {
  return { reason: needs, workers: 1, only_this: 1, closest_worker: worker, closest_has: has, ...more };
}

describe("work_capability_match", () => {
  test("shows for each kind of worker and each lane the counts, the match and the failing clauses", async () => {
    const gpu = { requires: { gpu_memory_gb: 20, region: "eu" }, labels: { customer: "acme" } };
    const { type } = await work(gpu, gpu, {});
    for (const name of ["m big", "m big too"]) {
      await register(name, type, { capabilities: { gpu_memory_gb: 48, region: ["eu", "us"] } });
    }
    await register("m small", type, { capabilities: { gpu_memory_gb: 16 }, accepts: { customer: "globex" } });
    await register("m dear", type, { capabilities: { gpu_memory_gb: 80, region: "eu" }, exclusive: ["gpu_memory_gb"] });
    await register("m kind", type, { capabilities: { gpu: true }, exclusive: ["gpu"], yield_seconds: 30 });
    await register("m other", "other work", { capabilities: { gpu_memory_gb: 48, region: "eu" } });
    await register("m silent", type);
    await sql`update work_workers set last_seen_at = now() - interval '3 minutes' where id = 'm silent'`;
    await register("m gone", type);
    await call(sql, "retire_worker", { worker_id: "m gone" });
    const rows = await sql`
      select example_worker, workers::integer, requires <> '{}' as asks, matches, yields, failing
        from work_capability_match where work_type = ${type} order by example_worker, asks`;
    const row = (example_worker: string, asks: boolean, more: object): object => ({
      ...{ example_worker, workers: 1, asks, matches: true, yields: false, failing: [], ...more },
    });
    expect(rows).toEqual([
      row("m big", false, { workers: 2 }),
      row("m big", true, { workers: 2 }),
      row("m dear", false, {
        matches: false,
        failing: ["it needs nothing of what the worker is exclusive about: gpu_memory_gb"],
      }),
      row("m dear", true, {}),
      row("m kind", false, { yields: true }),
      row("m kind", true, { matches: false, failing: ["needs region = eu", "needs gpu_memory_gb >= 20"] }),
      row("m small", false, { matches: false, failing: ["its labels are not accepted: needs customer = globex"] }),
      row("m small", true, {
        matches: false,
        failing: [
          "needs region = eu",
          "needs gpu_memory_gb >= 20",
          "its labels are not accepted: needs customer = globex",
        ],
      }),
    ]);
  });

  test("judges a class that no claim call has judged yet", async () => {
    const { type, pool } = await work();
    await register("judge", type, { capabilities: { fresh: 2 } });
    await call(sql, "enqueue_items", { items: [1, 2, 3].map((fresh) => ({ pool, requires: { fresh } })) });
    const seen = await sql`select matches from work_capability_match where work_type = ${type} order by requires`;
    expect(seen.map(({ matches }) => matches)).toEqual([true, true, false]);
    expect(await claimNext(sql, type, "judge", 9)).toHaveLength(2);
  });

  test("has one row a lane for two hundred equal workers", async () => {
    const { type, pool } = await work();
    for (let n = 0; n < 200; n += 1) await register(`alike ${n}`, type, { capabilities: { alike: 1 } });
    await call(sql, "enqueue_items", { items: [1, 2].map((alike) => ({ pool, requires: { alike } })) });
    const rows = await sql`
      select workers::integer, matches from work_capability_match where work_type = ${type} order by requires`;
    expect(rows).toEqual([
      { workers: 200, matches: true },
      { workers: 200, matches: false },
    ]);
  });
});

describe("explain_item", () => {
  test("shows a ready item with its place in the lane, and each clause with the workers it fails on", async () => {
    const item = { requires: { gpu_memory_gb: 80, region: "eu" } };
    const { type, ids } = await work(item, item, item);
    await register("gpu-7", type, { capabilities: { gpu_memory_gb: 24, region: "eu" } });
    await register("gpu-8", type, { capabilities: { gpu_memory_gb: 16, region: "eu" } });
    await register("gpu-9", type, { capabilities: { gpu_memory_gb: 40, region: "us" } });
    const told = await explain(ids[2]);
    expect(told).toMatchObject({ ...item, reason: `${type}: no live worker can run it: needs gpu_memory_gb >= 80` });
    expect(told.claims[0]).toMatchObject({
      ...{ work_type: type, status: "ready", before: 2, more_before: false, paused: false },
      workers: {
        ...{ live_workers: 3, matching: 0 },
        failing: [
          failsOn("gpu-7", "needs gpu_memory_gb >= 80", "24", { workers: 3, only_this: 2 }),
          failsOn("gpu-9", "needs region = eu", "us", { only_this: 0 }),
        ],
      },
    });
  });

  test("names the worker with the nearest number to an upper and a lower bound", async () => {
    const { type, ids } = await work({ requires: { gpus: { "<": 2 } } }, { requires: { gpus: { ">": 8 } } });
    for (const gpus of [2, 4, 8]) await register(`n ${gpus}`, type, { capabilities: { gpus } });
    await register("n text", type, { capabilities: { gpus: "1" } });
    await register("n none", type);
    const closest = async (id: string | undefined): Promise<string | undefined> =>
      (await explained(id)).workers?.failing[0]?.closest_worker;
    expect(await closest(ids[0])).toBe("n 2");
    expect(await closest(ids[1])).toBe("n 8");
  });

  test("counts at most a thousand items before a ready item", async () => {
    const { pool } = await work();
    for (let page = 0; page < 2; page += 1) {
      await call(sql, "enqueue_items", { items: Array.from({ length: 600 }, () => ({ pool })) });
    }
    const items = await sql`select id from work_items where pool = ${pool} order by seq`;
    const place = (index: number): Promise<ExplainedClaim> => explained(items[index]?.id);
    expect(await place(1199)).toMatchObject({ before: 1000, more_before: true });
    expect(await place(1001)).toMatchObject({ before: 1000, more_before: true });
    expect(await place(1000)).toMatchObject({ before: 1000, more_before: false });
    expect(await place(1)).toMatchObject({ before: 1, more_before: false });
  });

  test("gives as the reason the first obstacle of a ready item", async () => {
    const { type, ids } = await work({}, {});
    expect(await reason(ids[0])).toBe("no live worker does this work type");
    await register("dear", type, { capabilities: { gpu: 1 }, exclusive: ["gpu"] });
    expect(await reason(ids[0])).toBe(
      "no live worker can run it: it needs nothing of what the worker is exclusive about: gpu",
    );
    await call(sql, "retire_worker", { worker_id: "dear" });
    await register("kind", type, { capabilities: { gpu: 1 }, exclusive: ["gpu"], yield_seconds: 30 });
    expect(await explained(ids[0])).toMatchObject({
      reason: "its workers leave it to others for a while",
      workers: { matching: 1, yielding: 1, yield_seconds: 30, failing: [] },
    });
    await register("eager", type);
    expect(await reason(ids[0])).toBe("it is the head of its lane");
    expect(await reason(ids[1])).toBe("others of its lane go before it");
    await call(sql, "define_work_type", { work_type: type, paused: true });
    expect(await explained(ids[0])).toMatchObject({ paused: true, reason: "its work type is paused" });
  });

  test("shows a held claim with its worker, start and remaining lease", async () => {
    const { type, ids } = await work({});
    const [claim] = await claimNext(sql, type, "holder");
    await call(sql, "extend_claims", { worker_id: "holder", held: [{ ...claim, progress: 0.5 }] });
    const held = await explained(ids[0]);
    expect(held).toMatchObject({ status: "claimed", reason: "a worker holds it", worker_id: "holder", progress: 0.5 });
    expect(held.lease_left_seconds).toBeGreaterThan(0);
    expect(held.claimed_at).not.toBeNull();
    expect(held.workers).toBeNull();
    await endLeases(sql, type);
    const late = await explained(ids[0]);
    expect(late.lease_left_seconds).toBeLessThan(0);
    expect(late.reason).toBe("its lease has ended and no worker has called since");
    await sql`update work_claims set expires_at = '-infinity' where item_id = ${ids[0] ?? ""}`;
    expect(await explained(ids[0])).toMatchObject({ lease_left_seconds: null, reason: late.reason });
  });

  test("shows a waiting claim with its due time and reason", async () => {
    const run_after = new Date(Date.now() + 7_200_000).toISOString();
    const { type, ids } = await work({}, { run_after });
    const [claim] = await claimNext(sql, type, "a");
    await release(sql, "a", claim, "failed", { error: "no disk" });
    expect(await explained(ids[0])).toMatchObject({
      ...{ status: "waiting", reason: "it is not due yet", failures: 1, crashes: 0, error: "no disk" },
      lease_left_seconds: null,
    });
    const later = await explain(ids[1]);
    expect(later.claims[0]?.due_at).toBe(later.run_after);
    await sql`update work_claims set due_at = now() - interval '1 second' where item_id = ${ids[0] ?? ""}`;
    expect(await reason(ids[0])).toBe("it is due and no worker has called since");
  });

  test("shows an ended claim with its outcome, time and error", async () => {
    const { type, ids } = await work({}, {}, {});
    const [one, two] = await claimNext(sql, type, "a", 2);
    await release(sql, "a", one, "succeeded");
    await release(sql, "a", two, "failed", { final: true, error: "bad file" });
    await call(sql, "cancel_items", { work_type: type });
    expect(await explained(ids[0])).toMatchObject({ status: "succeeded", reason: "it succeeded", worker_id: "a" });
    expect(await explained(ids[1])).toMatchObject({ reason: "it failed for good", failures: 1, error: "bad file" });
    expect(await explained(ids[2])).toMatchObject({ status: "cancelled", reason: "it was cancelled" });
    expect((await explained(ids[2])).finished_at).not.toBeNull();
  });

  test("says why an item has no claim", async () => {
    const [id] = await call<string[]>(sql, "enqueue_items", { items: [{}] });
    const why = async (work_type?: string): Promise<string> => {
      const told = await explain(id, work_type);
      expect(told.claims).toEqual([]);
      return told.reason.replace("nobody has enrolled it: ", "");
    };
    expect(await why()).toBe("no work type is declared for its pool");
    await call(sql, "define_work_type", { work_type: "late", pool: "default" });
    await call(sql, "define_work_type", { work_type: "free" });
    const { type, pool } = await work();
    expect(await why()).toBe("enroll_pool() has not come to it");
    expect(await why("late")).toBe("enroll_pool() has not come to it");
    expect(await why("wrong")).toBe("there is no such work type");
    expect(await why("free")).toBe("the work type has no pool, and no worker has claimed it by its id");
    expect(await why(type)).toBe(`the work type is for the pool ${pool}`);
  });

  test("answers for each work type, or for the named one", async () => {
    const { ids } = await typeWithItems(sql, 1);
    const second = await typeWithItems(sql, 0);
    await call(sql, "claim_items", { item_ids: ids, work_type: second.type, worker_id: "a" });
    const told = await explain(ids[0]);
    expect(told.claims.map(({ status }) => status)).toContain("claimed");
    expect(told.reason.split("; ")).toHaveLength(told.claims.length);
    expect(await explain(ids[0], second.type)).toMatchObject({
      reason: `${second.type}: a worker holds it`,
      claims: [{ status: "claimed", work_type: second.type }],
    });
  });

  test("refuses an unknown item with a sentence", async () => {
    await expect(explain("00000000-0000-0000-0000-000000000000")).rejects.toMatchObject({
      code: "PT404",
      message: "item_id is 00000000-0000-0000-0000-000000000000; there is no such item",
    });
    await expect(explain(undefined)).rejects.toThrow();
    await expect(call(sql, "explain_item", { item_id: null })).rejects.toMatchObject({ code: "PT400" });
    await expect(explain("00000000-0000-0000-0000-000000000000", "")).rejects.toMatchObject({ code: "PT400" });
  });
});

describe("would_match", () => {
  test("counts the workers that match, that yield first, and that fail a clause", async () => {
    const type = "form";
    await register("f a", type, { capabilities: { vram: 48 } });
    await register("f b", type, { capabilities: { vram: 48, gpu: 1 }, exclusive: ["gpu"], yield_seconds: 60 });
    await register("f c", type, { capabilities: { vram: "48" } });
    expect(await wouldMatch({ requires: { vram: 20 }, work_type: type })).toEqual({
      ...{ tag: "vram >= 20", live_workers: 3, matching: 2, yielding: 1, yield_seconds: 60 },
      matching_workers: ["f a", "f b"],
      yielding_workers: ["f b"],
      failing: [failsOn("f c", "needs vram >= 20", "48")],
    });
    expect(await wouldMatch({ work_type: "nobody does this" })).toMatchObject({
      ...{ live_workers: 0, matching: 0, yielding: 0, yield_seconds: null },
      ...{ matching_workers: [], yielding_workers: [], failing: [] },
    });
  });

  test("agrees with the claims of the workers", async () => {
    const requirements = [{}, { n: 2 }, { n: { "<": 2 } }, { not: { n: 3 } }, { any: [{ n: 1 }, { m: "x" }] }];
    const labels = [{}, { customer: "a" }];
    const items = requirements.flatMap((requires) => labels.map((shown) => ({ requires, labels: shown })));
    const { type, pool } = await work();
    await register("h 1", type, { capabilities: { n: 1 } });
    await register("h 2", type, { capabilities: { n: 2, m: ["x"] }, accepts: { customer: "a" } });
    await register("h 3", type, { capabilities: { n: "3" }, exclusive: ["n"] });
    for (const item of items) {
      const { matching_workers } = await wouldMatch({ ...item, work_type: type });
      const handed: string[] = [];
      for (const worker of ["h 1", "h 2", "h 3"]) {
        const [id] = await call<string[]>(sql, "enqueue_items", { items: [{ pool, ...item }] });
        const shown = await sql`
          select matches from work_capability_match where work_type = ${type} and example_worker = ${worker}`;
        const claims = await claimNext(sql, type, worker);
        expect(shown).toEqual([{ matches: claims.length > 0 }]);
        if (claims.length > 0) handed.push(worker);
        await sql`delete from work_items where id = ${id ?? ""}`;
      }
      expect({ item, workers: matching_workers }).toEqual({ item, workers: handed });
    }
  });

  test("names the first twenty workers, and counts all", async () => {
    for (let n = 10; n < 35; n += 1) await register(`t ${n}`, "twenty");
    expect(await wouldMatch({ work_type: "twenty" })).toMatchObject({
      matching: 25,
      matching_workers: Array.from({ length: 20 }, (_, n) => `t ${n + 10}`),
    });
  });

  test("writes no row, even for a new requirement", async () => {
    const counts = (): Promise<unknown> => sql`select count(*) from work_classes`;
    const before = await counts();
    await sql.begin("read only", async (transaction) => {
      await transaction`select would_match('{"never": "seen"}', '{"nor": "this"}')`;
    });
    expect(await counts()).toEqual(before);
  });

  test("refuses bad input with the sentence of enqueue_items()", async () => {
    const bad = [
      { requires: { gpu: null } },
      { requires: [1] },
      { requires: "a100" },
      { requires: { a: { in: [] } } },
      { labels: [1] },
      { labels: { "a.b": 1 } },
      { labels: { long: "x".repeat(9000) } },
    ];
    for (const item of bad) {
      const refused = await call(sql, "enqueue_items", { items: [item] }).then(
        () => "",
        (error) => error.message.replace("items[0]: ", ""),
      );
      expect(refused).not.toBe("");
      await expect(wouldMatch(item)).rejects.toMatchObject({ code: "PT400", message: refused });
    }
    await expect(wouldMatch({ work_type: "" })).rejects.toMatchObject({ code: "PT400" });
    expect(await wouldMatch({ requires: null, labels: null, work_type: "nobody" })).toMatchObject({ tag: "c:" });
  });
});

test("names and values with special characters are shown unchanged", async () => {
  const hostile = [`'; drop table work_items; --`, `%s %I $1`, `"quoted" \\ and , = ( ) |`, `\n\t\u0001`, "𝒳 é", "<b>"];
  for (const text of hostile) {
    const { type, ids } = await work({ requires: { [text]: text }, labels: { [text]: text } });
    await register(`${text} w`, type, { capabilities: { [text]: `${text}!` }, accepts: { [text]: "other" } });
    const { workers } = await explained(ids[0]);
    expect(workers?.failing).toContainEqual(
      expect.objectContaining({ closest_worker: `${text} w`, closest_has: `${text}!` }),
    );
    const [row] = await sql`select failing from work_capability_match where work_type = ${type}`;
    expect(row?.failing).toHaveLength(2);
    expect((await sql`select reason from work_stuck where work_type = ${type}`)[0]?.reason).toContain(
      JSON.stringify({ [text]: text })
        .slice(1, -1)
        .replace(":", ": "),
    );
    await call(sql, "retire_worker", { worker_id: `${text} w` });
  }
  const long = "x".repeat(400);
  const { type, ids } = await work({ requires: { [`n${long.slice(0, 190)}`]: long, other: [long] } });
  await register("long", type, { capabilities: { other: Array.from({ length: 100 }, () => long) } });
  expect(JSON.stringify((await explained(ids[0])).workers).length).toBeLessThan(1500);
});

test("a retried claim takes the current priority and requirement of its item", async () => {
  const { type, ids } = await work({ requires: { vram: 80 }, priority: 1 }, { requires: { vram: 8 }, priority: 5 });
  await register("retrier", type, { capabilities: { vram: 80 } });
  const claims = await claimNext(sql, type, "retrier", 2);
  for (const claim of claims) await release(sql, "retrier", claim, "failed", { final: true });
  await sql`
    update work_items i set class_id = o.class_id, priority = o.priority
      from work_items o where i.id = ${ids[0] ?? ""} and o.id = ${ids[1] ?? ""}`;
  await call(sql, "retry_items", { work_type: type });
  const [row] = await sql`
    select c.class_id = i.class_id as asks, c.priority from work_claims c join work_items i on i.id = c.item_id
     where c.item_id = ${ids[0] ?? ""}`;
  expect(row).toEqual({ asks: true, priority: 5 });
  await expectInvariants(sql);
});

test("work_stuck, work_capability_match and explain_item do not scan ended claims, with or without statistics", async () => {
  const { type, ids } = await work({ requires: { one: 1 } });
  await register("reader", type, { capabilities: { one: 2 } });
  const questions = [
    "select * from work_stuck",
    "select * from work_capability_match",
    `select explain_item('${ids[0]}')`,
  ];
  async function blocksRead(): Promise<number[]> {
    const read: number[] = [];
    for (const question of questions) {
      const [row] = await owner.unsafe(`explain (analyze, buffers, format json) ${question}`);
      const plan = row?.["QUERY PLAN"][0].Plan;
      read.push(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]);
    }
    return read;
  }
  await blocksRead();
  const before = await blocksRead();
  await owner`insert into work_pools (name) values ('ended')`;
  await owner`
    with ended as (insert into work_items (pool) select 'ended' from generate_series(1, 60000) returning id, seq)
    insert into work_claims (item_id, work_type, status, position, class_id, finished_at)
    select e.id, ${type}, 'succeeded', e.seq, k.id, now() from ended e, work_classes k where k.requires = '{"one": 1}'`;
  for (const isAnalyzed of [false, true]) {
    if (isAnalyzed) await owner`vacuum analyze work_claims`;
    const after = await blocksRead();
    // The rows that were added fill two thousand blocks.
    for (const [index, question] of questions.entries()) {
      expect((after[index] ?? 0) - (before[index] ?? 0), question).toBeLessThan(500);
    }
  }
});
