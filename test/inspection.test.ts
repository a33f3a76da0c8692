import { describe, expect, test } from "vitest";
import { call, endLeases, line, next, release } from "./calls.ts";
import { openDatabase } from "./database.ts";
import { expectInvariants } from "./invariants.ts";

interface Explained {
  text: string;
  claims: ({ text: string; status: string } & Record<string, unknown>)[];
}

interface Report {
  tag: string;
  text: string;
  matching_workers: string[];
  failing: Record<string, unknown>[];
}

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

const explain = (item_id: string | undefined, work_type?: string): Promise<Explained> =>
  call(sql, "explain_item", { item_id, work_type });
const explained = async (item_id: string | undefined, work_type?: string): Promise<string> =>
  (await explain(item_id, work_type)).text;
const wouldMatch = (args: Record<string, unknown>): Promise<Report> => call(sql, "would_match", args);

describe("work_capability_match", () => {
  test("shows each live worker and each class of ready items: what matches, what fails, how many wait", async () => {
    const gpu = { requires: { gpu_memory_gb: 20, region: "eu" }, labels: { customer: "acme" } };
    const { type } = await work(gpu, gpu, {});
    await register("m big", type, { capabilities: { gpu_memory_gb: 48, region: ["eu", "us"] } });
    await register("m small", type, { capabilities: { gpu_memory_gb: 16 }, accepts: { customer: "globex" } });
    await register("m dear", type, { capabilities: { gpu_memory_gb: 80, region: "eu" }, exclusive: ["gpu_memory_gb"] });
    await register("m kind", type, { capabilities: { gpu: true }, exclusive: ["gpu"], yield_seconds: 30 });
    await register("m other", "other work", { capabilities: { gpu_memory_gb: 48, region: "eu" } });
    await register("m silent", type);
    await sql`update work_workers set last_seen_at = now() - interval '3 minutes' where id = 'm silent'`;
    await register("m gone", type);
    await call(sql, "retire_worker", { worker_id: "m gone" });
    const rows = await sql`
      select worker_id, requires <> '{}' as asks, matches, yields, failing, ready::integer from work_capability_match
       where worker_id like 'm %' order by worker_id, asks`;
    const row = (worker_id: string, asks: boolean, more: object): object => ({
      ...{ worker_id, asks, matches: true, yields: false, failing: [], ready: asks ? 2 : 1, ...more },
    });
    const exclusive = (names: string): string => `it needs nothing of what the worker is exclusive about: ${names}`;
    expect(rows).toEqual([
      row("m big", false, {}),
      row("m big", true, {}),
      row("m dear", false, { matches: false, failing: [exclusive("gpu_memory_gb")] }),
      row("m dear", true, {}),
      row("m kind", false, { yields: true }),
      row("m kind", true, {
        matches: false,
        failing: ["needs region = eu, has none", "needs gpu_memory_gb >= 20, has none"],
      }),
      row("m other", false, { ready: 0 }),
      row("m other", true, { ready: 0 }),
      row("m small", false, {
        matches: false,
        failing: ["its labels are not accepted: needs customer = globex, has none"],
      }),
      row("m small", true, {
        matches: false,
        failing: [
          "needs region = eu, has none",
          "needs gpu_memory_gb >= 20, has 16",
          "its labels are not accepted: needs customer = globex, has acme",
        ],
      }),
    ]);
  });

  test("says of a class that nobody has judged yet what a claim call would find", async () => {
    const { type, pool } = await work();
    await register("judge", type, { capabilities: { fresh: 2 } });
    await call(sql, "enqueue_items", { items: [1, 2, 3].map((fresh) => ({ pool, requires: { fresh } })) });
    const seen =
      await sql`select matches from work_capability_match where worker_id = 'judge' and requires ? 'fresh' order by requires`;
    expect(seen.map(({ matches }) => matches)).toEqual([true, true, false]);
    expect(await next(sql, type, "judge", 9)).toHaveLength(2);
  });
});

describe("work_unmatched", () => {
  test("shows what no live worker can run, the first of it, and what is closest", async () => {
    const { type, ids } = await work({ requires: { vram: 80 } }, { requires: { vram: 80 } }, { requires: { vram: 8 } });
    await register("u 16", type, { capabilities: { vram: 16 } });
    await register("u 24", type, { capabilities: { vram: 24 } });
    const [row, second] = await sql`
      select ready::integer, example_item, oldest_wait > '0' as waits, reason from work_unmatched where work_type = ${type}`;
    expect(row).toEqual({
      ready: 2,
      example_item: ids[0],
      waits: true,
      reason: `None of the 2 live workers that do ${type} can run it. It needs vram >= 80; closest live worker u 24 has 24; 2 workers fail only on this.`,
    });
    expect(second).toBeUndefined();
  });

  test("knows at once of a class that a worker could run and has not judged, and of a worker that leaves", async () => {
    const { type, pool } = await work();
    await register("u new", type, { capabilities: { lately: 1 } });
    await call(sql, "enqueue_items", {
      items: [
        { pool, requires: { lately: 1 } },
        { pool, requires: { lately: 2 } },
      ],
    });
    const unmatched = async (): Promise<unknown[]> =>
      (await sql`select requires from work_unmatched where work_type = ${type} order by 1`).map((row) => row.requires);
    expect(await unmatched()).toEqual([{ lately: 2 }]);
    await call(sql, "retire_worker", { worker_id: "u new" });
    expect(await unmatched()).toEqual([{ lately: 1 }, { lately: 2 }]);
  });
});

describe("explain_item", () => {
  test("of a ready item: its place in line, and which clause fails on how many live workers", async () => {
    const item = { requires: { gpu_memory_gb: 80, region: "eu" } };
    const { type, ids } = await work(item, item, item);
    await register("gpu-7", type, { capabilities: { gpu_memory_gb: 24, region: "eu" } });
    await register("gpu-8", type, { capabilities: { gpu_memory_gb: 16, region: "eu" } });
    await register("gpu-9", type, { capabilities: { gpu_memory_gb: 40, region: "us" } });
    const told = await explain(ids[2]);
    expect(told.text).toMatch(
      new RegExp(
        [
          `^${type} is ready since 1 s; 2 of its work type and class go before it\\.`,
          `None of the 3 live workers that do ${type} can run it\\.`,
          "It needs gpu_memory_gb >= 80; closest live worker gpu-7 has 24; 3 workers fail on this, 2 only on this\\.",
          "It needs region = eu; closest live worker gpu-9 has us; 1 worker fails on this\\.$",
        ].join(" "),
      ),
    );
    expect(told.claims[0]).toMatchObject({ status: "ready", before: 2, more_before: false, paused: false });
  });

  test("of a ready item behind more than a thousand", async () => {
    const { type, pool } = await work();
    for (let page = 0; page < 2; page += 1) {
      await call(sql, "enqueue_items", { items: Array.from({ length: 600 }, () => ({ pool })) });
    }
    const items = await sql`select id from work_items where pool = ${pool} order by seq`;
    const claims = async (place: number): Promise<unknown> => (await explain(items[place]?.id, type)).claims[0];
    expect(await explained(items[1199]?.id)).toContain("more than 1000 of its work type and class go before it");
    expect(await claims(1001)).toMatchObject({ before: 1000, more_before: true });
    expect(await claims(1000)).toMatchObject({ before: 1000, more_before: false });
    expect(await claims(1)).toMatchObject({ before: 1, more_before: false });
  });

  test("of a ready item whose work type is paused, or that nobody does, or that is left to others", async () => {
    const { type, ids } = await work({});
    expect(await explained(ids[0])).toContain(`it is next in its line. No live worker does ${type}.`);
    await register("dear", type, { capabilities: { gpu: 1 }, exclusive: ["gpu"] });
    expect(await explained(ids[0])).toContain(
      `cannot run it. It needs nothing of what the worker is exclusive about: gpu; 1 worker fails only on this.`,
    );
    await call(sql, "retire_worker", { worker_id: "dear" });
    await register("kind", type, { capabilities: { gpu: 1 }, exclusive: ["gpu"], yield_seconds: 30 });
    expect(await explained(ids[0])).toContain("can run it, once it has been ready for 30 s.");
    await call(sql, "define_work_type", { work_type: type, paused: true });
    expect(await explained(ids[0])).toContain("Its work type is paused: nobody is handed it.");
  });

  test("of what is held: by whom, since when, and how much of the lease is left", async () => {
    const { type, ids } = await work({});
    const [claim] = await next(sql, type, "holder");
    await call(sql, "extend_claims", { worker_id: "holder", held: [{ ...claim, progress: 0.4 }] });
    expect(await explained(ids[0])).toMatch(
      new RegExp(`^holder holds it for ${type} since \\d+ s \\(40 % done\\); its lease has \\d+ s left\\.$`),
    );
    await endLeases(sql, type);
    expect(await explained(ids[0])).toMatch(/its lease ended \d+ s ago, and the next claim call takes it back\.$/);
  });

  test("of what waits: when it is due, and why", async () => {
    const { type, ids } = await work({}, { run_after: new Date(Date.now() + 7_200_000).toISOString() });
    const [claim] = await next(sql, type, "a");
    await release(sql, "a", claim, "failed", { error: "no disk" });
    expect(await explained(ids[0])).toMatch(
      new RegExp(`^${type} waits: it is due in \\d+ s, after 1 failure: no disk\\.$`),
    );
    expect(await explained(ids[1])).toBe(`${type} waits: it is due in 2 h, the run_after of the item.`);
    await sql`update work_claims set due_at = now() - interval '1 second' where item_id = ${ids[0] ?? ""}`;
    expect(await explained(ids[0])).toContain("and the next claim call makes it ready, after 1 failure: no disk.");
  });

  test("of what has ended: how, when, and with what error", async () => {
    const { type, ids } = await work({}, {}, {});
    const [one, two] = await next(sql, type, "a", 2);
    await release(sql, "a", one, "succeeded");
    await release(sql, "a", two, "failed", { final: true, error: "bad file" });
    await call(sql, "cancel_items", { work_type: type });
    expect(await explained(ids[0])).toMatch(new RegExp(`^${type} succeeded \\d+ s ago by a\\.$`));
    expect(await explained(ids[1])).toMatch(
      new RegExp(`^${type} failed \\d+ s ago, after 1 failure: bad file\\. retry_items\\(\\) reopens it\\.$`),
    );
    expect(await explained(ids[2])).toMatch(new RegExp(`^${type} was cancelled \\d+ s ago\\.`));
  });

  test("of an item that nobody has enrolled: why not", async () => {
    const [id] = await call<string[]>(sql, "enqueue_items", { items: [{}] });
    expect(await explained(id)).toBe(
      "Nobody has enrolled it: no work type is declared for its pool, default, and no worker has claimed it with claim_items().",
    );
    await call(sql, "define_work_type", { work_type: "late", pool: "default" });
    await call(sql, "define_work_type", { work_type: "free" });
    const { type, pool } = await work();
    expect(await explained(id)).toBe(
      "Nobody has enrolled it: the work types of its pool, default, are there (late), and enroll_pool() has not come to it.",
    );
    expect(await explained(id, "late")).toContain("for late: enroll_pool() has not come to it in its pool, default.");
    expect(await explained(id, "wrong")).toContain("for wrong: there is no such work type; its pool has late.");
    expect(await explained(id, "free")).toContain("no worker has claimed this item with claim_items().");
    expect(await explained(id, type)).toContain(`it is work for the pool ${pool}, and the item is of default.`);
  });

  test("answers for each work type, or for the one that is named", async () => {
    const { ids } = await line(sql, 1);
    const second = await line(sql, 0);
    await call(sql, "claim_items", { item_ids: ids, work_type: second.type, worker_id: "a" });
    expect((await explain(ids[0])).claims.map(({ status }) => status)).toContain("claimed");
    expect((await explain(ids[0], second.type)).claims).toMatchObject([{ status: "claimed", work_type: second.type }]);
  });

  test("refuses what is no item, with a sentence", async () => {
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
  test("says who would run it, who only after a while, and what fails on the others", async () => {
    const type = "form";
    await register("f a", type, { capabilities: { vram: 48 } });
    await register("f b", type, { capabilities: { vram: 48, gpu: 1 }, exclusive: ["gpu"], yield_seconds: 60 });
    await register("f c", type, { capabilities: { vram: "48" } });
    expect(await wouldMatch({ requires: { vram: 20 }, work_type: type })).toEqual({
      ...{ tag: "vram >= 20", live_workers: 3, matching: 2, yielding: 1, yield_seconds: 60 },
      matching_workers: ["f a", "f b"],
      yielding_workers: ["f b"],
      failing: [{ reason: "needs vram >= 20", workers: 1, only_this: 1, closest_worker: "f c", closest_has: "48" }],
      text: "2 of the 3 live workers that do form can run it, 1 of these once it has been ready for 60 s. It needs vram >= 20; closest live worker f c has 48; 1 worker fails only on this.",
    });
  });

  test("agrees with what the workers are handed", async () => {
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
        if ((await next(sql, type, worker)).length > 0) handed.push(worker);
        await sql`delete from work_items where id = ${id ?? ""}`;
      }
      expect({ item, workers: matching_workers }).toEqual({ item, workers: handed });
    }
  });

  test("names the first twenty, and counts them all", async () => {
    for (let n = 10; n < 35; n += 1) await register(`t ${n}`, "twenty");
    expect(await wouldMatch({ work_type: "twenty" })).toMatchObject({
      matching: 25,
      matching_workers: Array.from({ length: 20 }, (_, n) => `t ${n + 10}`),
    });
  });

  test("writes nothing, also where it asks for what nobody has asked for", async () => {
    const counts = (): Promise<unknown> => sql`
      select (select count(*) from work_classes) as classes, (select count(*) from work.spellings) as spellings,
             (select sum(judged_through) from work.profiles) as judged`;
    const before = await counts();
    await sql.begin("read only", async (transaction) => {
      await transaction`select would_match('{"never": "seen"}', '{"nor": "this"}')`;
    });
    expect(await counts()).toEqual(before);
  });

  test("refuses what enqueue_items() refuses, with its sentence", async () => {
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

test("names and values that mean something elsewhere are told as they are", async () => {
  const hostile = [`'; drop table work_items; --`, `%s %I $1`, `"quoted" \\ and , = ( ) |`, `\n\t\u0001`, "𝒳 é", "<b>"];
  for (const text of hostile) {
    const { type, ids } = await work({ requires: { [text]: text }, labels: { [text]: text } });
    await register(`${text} w`, type, { capabilities: { [text]: `${text}!` }, accepts: { [text]: "other" } });
    const told = await explained(ids[0]);
    expect(told).toContain(`${text} w has ${text}!`);
    expect(told).toContain("Its labels are not accepted: needs ");
    const [row] =
      await sql`select failing from work_capability_match where worker_id = ${`${text} w`} and requires ? ${text}`;
    expect(row?.failing).toHaveLength(2);
    expect((await sql`select reason from work_unmatched where work_type = ${type}`)[0]?.reason).toContain(text);
    await call(sql, "retire_worker", { worker_id: `${text} w` });
  }
  const long = "x".repeat(400);
  const { type, ids } = await work({ requires: { [`n${long.slice(0, 190)}`]: long, other: [long] } });
  await register("long", type, { capabilities: { other: Array.from({ length: 100 }, () => long) } });
  expect((await explained(ids[0])).length).toBeLessThan(1500);
});

test("an item that is retried stands where it stands by then, and asks what it asks by then", async () => {
  const { type, ids } = await work({ requires: { vram: 80 }, priority: 1 }, { requires: { vram: 8 }, priority: 5 });
  await register("retrier", type, { capabilities: { vram: 80 } });
  const claims = await next(sql, type, "retrier", 2);
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

test("what has ended is not read, whether the table was ever analyzed or not", async () => {
  const { type, ids } = await work({ requires: { one: 1 } });
  const questions = [
    "select * from work_unmatched",
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
  await sql`
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
