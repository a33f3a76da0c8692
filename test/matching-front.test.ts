// Sessions remember where in line their last calls left off, and go on from there as long as nothing has come into line
// since. Whatever has changed, the next answer is what a sort of all rows gives.

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, describe, expect, test } from "vitest";
import { type Claim, call, endLeases, endWaits, waitUntil } from "./calls.ts";
import { openDatabase, type Sql } from "./database.ts";
import { expectInvariants } from "./invariants.ts";
import { expectedItems, register, type Worker } from "./matching-oracle.ts";
import { seed, seeded } from "./random.ts";

describe.each([
  ["a few lines of many", 17, 60, 12],
  ["most lines, which it may walk as well", 17, 300, 200],
  ["a few lines of many, on Postgres 15", 15, 60, 12],
] as const)("for a worker of %s", async (_what, version, classes, matched) => {
  const { sql, as } = await openDatabase({ version });
  const { pick, below, chance } = seeded(seed + classes + version);
  const quiet = as("service_role");
  const sessions = [quiet, as("service_role")];
  const jobs = Array.from({ length: classes }, (_, n) => `job ${n}`);
  const mine = jobs.slice(0, matched);
  const worker: Worker = { id: "w", capabilities: { job: mine } };
  let held: Claim[] = [];

  const enqueue = async (count: number, more: () => object): Promise<void> => {
    const items = Array.from({ length: count }, () => ({
      requires: { job: pick(chance(0.5) ? mine : jobs) },
      ...more(),
    }));
    await call(sql, "enqueue_items", { items });
  };
  const close = async (outcome: string): Promise<void> => {
    const result = outcome === "failed for good" ? { outcome: "failed", final: true } : { outcome };
    await call(sql, "release_items", { worker_id: "w", outcomes: held.map((claim) => ({ ...claim, ...result })) });
    held = [];
  };
  // What time does to claims is done by the next call, here one that claims nothing.
  const catchUp = () => call(sql, "claim_items", { item_ids: [], work_type: "t", worker_id: "w" });
  const changes = {
    nothing: async () => {},
    "what was taken is done": () => close("succeeded"),
    "what was taken is handed back": () => close("released"),
    "more comes": () => enqueue(1 + below(80), () => ({})),
    "some of it is urgent": () => enqueue(1 + below(20), () => ({ priority: pick([1, 2]) })),
    "a crowd comes behind": () => enqueue(450, () => ({ requires: { job: pick(jobs.slice(0, 3)) } })),
    "a workflow grows": () =>
      enqueue(450, () => ({ workflow: pick(["old", "young"]), requires: { job: pick(jobs.slice(0, 20)) } })),
    "a workflow changes its priority": () =>
      call(sql, "define_workflow", { workflow: pick(["old", "young"]), priority: pick([0, 0, 1]) }),
    "what was taken fails": () => close("failed"),
    "what was taken fails for good": () => close("failed for good"),
    "what failed is due": async () => {
      await endWaits(sql, "t");
      await catchUp();
    },
    "what failed for good is retried": () => call(sql, "retry_items", { work_type: "t" }),
    "its leases end": async () => {
      await endLeases(sql, "t");
      await catchUp();
      held = [];
    },
    "the worker leaves": async () => {
      await call(sql, "release_claims_for_worker", { worker_id: "w" });
      held = [];
    },
    "some become urgent": () =>
      sql`update work_items set priority = 1 where id in (select id from work_items order by random() limit 20)`,
    "some require something else": () =>
      sql`update work_items i set class_id = o.class_id from work_items o
           where i.workflow_id is null and o.workflow_id is null and o.seq = i.seq + 7 and i.seq % 11 = 0`,
    "half of all is gone": () =>
      sql`delete from work_items i using work_claims c where c.item_id = i.id and c.status = 'ready' and random() < 0.5`,
    "the type is paused": () => sql`update work_types set paused = true where name = 't'`,
  };
  const names = Object.keys(changes) as (keyof typeof changes)[];
  afterAll(() => expectInvariants(sql));

  test("each answer is what a sort of all rows gives, whatever was remembered", async () => {
    await call(sql, "define_work_type", { work_type: "t", pool: "default" });
    await call(sql, "define_workflow", { workflow: "old" });
    // A walk does not get past these.
    await enqueue(400, () => ({ requires: { job: "nobody's" } }));
    await enqueue(100, () => ({}));
    await call(sql, "define_workflow", { workflow: "young" });
    await register(sql, worker);
    let remembered = 0;
    for (let step = 0; step < 160; step += 1) {
      if (step % 40 === 0) {
        await sql`update work_items set priority = 0 where priority <> 0`;
        await sql`update work_workflows set priority = 0 where priority <> 0`;
        await enqueue(600, () => ({}));
      }
      // Quiet for a while, or something each time.
      const change = step % 80 < 56 && step % 8 < 7 ? "what was taken is done" : pick(names);
      await changes[change]();
      const session = step % 80 < 56 ? quiet : pick(sessions);
      remembered += (await remembers(session)) ? 1 : 0;
      const wish = { work_types: ["t"], max_items: pick([1, 1, 1, 5, 10, 10, 30]) };
      const expected = await expectedItems(sql, worker, wish);
      const claims = await call<Claim[]>(session, "claim_next", { ...wish, worker_id: "w" });
      const hint = `SEED=${seed}, step ${step}, ${change}, ${JSON.stringify(wish)}`;
      expect(
        claims.map((claim) => claim.item_id),
        hint,
      ).toEqual(expected);
      held.push(...claims);
      if (held.length > 900 || chance(0.05)) {
        await close("succeeded");
      }
      await sql`update work_types set paused = false where paused`;
    }
    expect(remembered, `SEED=${seed}`).toBeGreaterThan(20);
  });
});

/** Whether the session's next call has something to go by. */
async function remembers(session: Sql): Promise<boolean> {
  const [row] = await session`
    select (nullif(current_setting('work.mark' || (work.asker_of(w.profile_id, array['t']) & 15), true), '')::work.mark).span > 0 as "isThere"
      from work_workers w
     where w.id = 'w'`;
  return row?.isThere ?? false;
}

test("what was remembered may reach over a crowd that has come since", async () => {
  const { sql, as } = await openDatabase();
  const session = as("service_role");
  await call(sql, "define_work_type", { work_type: "t", pool: "default" });
  await register(sql, { id: "w", capabilities: { shelf: 7 } });
  const soon = new Date(Date.now() + 3_600_000).toISOString();
  const shelved = (n: number) => ({ requires: { shelf: n % 8 }, ...(n % 50 === 0 ? {} : { run_after: soon }) });
  const ids: string[] = [];
  for (let from = 0; from < 3000; from += 1000) {
    const items = Array.from({ length: 1000 }, (_, n) => shelved(from + n));
    ids.push(...(await call<string[]>(sql, "enqueue_items", { items })));
  }
  const take = async (max_items: number): Promise<string[]> => {
    const claims = await call<Claim[]>(session, "claim_next", { work_types: ["t"], worker_id: "w", max_items });
    return claims.map((claim) => claim.item_id);
  };
  const first = [...(await take(10)), ...(await take(10))];
  expect(first).toEqual(ids.filter((_, n) => n % 50 === 0).slice(0, 20));
  expect(await remembers(session)).toBe(true);
  await endWaits(sql, "t");
  const left = ids.filter((id) => !first.includes(id));
  expect(await take(10)).toEqual(left.slice(0, 10));
  expect(await take(900)).toEqual(left.slice(10, 910));
});

describe("a session that goes on from where it was", async () => {
  const { sql, as, owner } = await openDatabase();
  const worker = as("service_role");
  const shelved = (count: number) => ({
    items: Array.from({ length: count }, (_, n) => ({ requires: { shelf: n % 8 } })),
  });
  const take = async (session: Sql, max_items = 1): Promise<string[]> => {
    const claims = await call<Claim[]>(session, "claim_next", { work_types: ["t"], worker_id: "w", max_items });
    return claims.map((claim) => claim.item_id);
  };
  /** A work type with this much to do, and a worker that claims quickly. */
  async function begin(count: number): Promise<string[]> {
    await sql`delete from work_items`;
    await sql`delete from work_workflows`;
    await call(sql, "define_work_type", { work_type: "t", pool: "default" });
    await register(sql, { id: "w", capabilities: { shelf: 7 } });
    return call(sql, "enqueue_items", shelved(count));
  }
  /** Takes one, and tells whether that was done without looking for the beginnings of the lines. */
  const goesOn = async (session: Sql): Promise<boolean> => {
    const [before, after] = await session.begin(async (own) => {
      const scans = () => own`select pg_stat_get_xact_numscans('work_claims_ready'::regclass) as count`;
      const [first] = await scans();
      await take(own as unknown as Sql);
      const [second] = await scans();
      return [first?.count, second?.count];
    });
    return before === after;
  };
  /** How many rows are read meanwhile in the order of all lines. */
  function walked(action: (session: Sql) => Promise<unknown>): Promise<number> {
    return worker.begin(async (own) => {
      const read = () =>
        own`select pg_stat_get_xact_tuples_returned('work_claims_in_line'::regclass)::integer as count`;
      const [before] = await read();
      await action(own as unknown as Sql);
      const [after] = await read();
      return after?.count - before?.count;
    });
  }
  // Who is in a transaction, in whatever database, is waited for.
  const untilItGoesOn = (session: Sql): Promise<void> =>
    waitUntil(async () => (await goesOn(session)) || sleep(20, false));

  const takeBack = () => call(sql, "claim_items", { item_ids: [], work_type: "t", worker_id: "w" });
  const close = (claims: Claim[], outcome: object) =>
    call(sql, "release_items", { worker_id: "other", outcomes: claims.map((claim) => ({ ...claim, ...outcome })) });
  /** What brings the first item, which another worker has, or the last one, which nobody has, to the head of the line. */
  const arrivals: Record<string, (first: Claim, last: string) => Promise<unknown>> = {
    "is new": (_, last) => sql`insert into work_items (pool, class_id, priority, payload)
      select 'default', class_id, 1, '"expected"' from work_items where id = ${last}`,
    "is more urgent now": (_, last) => sql`update work_items set priority = 1 where id = ${last}`,
    "is of a workflow that is more urgent now": () => call(sql, "define_workflow", { workflow: "young", priority: 1 }),
    "had a lease that has ended": async () => {
      await endLeases(sql, "t");
      await takeBack();
    },
    "has waited long enough": async (first) => {
      await close([first], { outcome: "failed", retry_after_seconds: 3600 });
      await untilItGoesOn(worker);
      await endWaits(sql, "t");
      await takeBack();
    },
    "was handed back": (first) => close([first], { outcome: "released" }),
    "was its worker's, who has left": () => call(sql, "release_claims_for_worker", { worker_id: "other" }),
    "had failed for good, and is retried": async (first) => {
      await close([first], { outcome: "failed", final: true });
      await untilItGoesOn(worker);
      await call(sql, "retry_items", { work_type: "t" });
    },
    "was not enrolled": async (first) => {
      await sql`delete from work_claims where item_id = ${first.item_id}`;
      await sql`update work_types set enrolled_through = 0, enroll_until = (select max(seq) from work_items) where name = 't'`;
      await untilItGoesOn(worker);
      await call(sql, "enroll_pool", { pool: "default" });
    },
  };
  test.each(Object.entries(arrivals))("sees at once what %s", async (_, arrive) => {
    await begin(1000);
    await call(sql, "define_workflow", { workflow: "young" });
    const [last] = await call<string[]>(sql, "enqueue_items", {
      items: [{ requires: { shelf: 1 }, workflow: "young", payload: "expected" }],
    });
    await register(sql, { id: "other", capabilities: { shelf: 7 } });
    const [first] = await call<Claim[]>(sql, "claim_next", { work_types: ["t"], worker_id: "other" });
    await untilItGoesOn(worker);
    await arrive(first as Claim, last as string);
    const [next] = await call<Claim[]>(worker, "claim_next", { work_types: ["t"], worker_id: "w" });
    expect(next?.item_id === first?.item_id || next?.payload === "expected").toBe(true);
  });

  test("waits for who has brought something and is not done: it may stand further ahead", async () => {
    await begin(1000);
    const slow = await owner.reserve();
    await slow`begin`;
    const [first] =
      await slow`insert into work_items (pool, class_id) select 'default', max(id) from work_classes returning id`;
    await call(sql, "enqueue_items", shelved(500));
    // Past the place at which it will be, and far longer than it takes a session that has nobody to wait for.
    for (let taken = 0; taken < 1100; taken += 20) {
      await take(worker, 20);
    }
    expect(await goesOn(worker)).toBe(false);
    await slow`commit`;
    slow.release();
    expect(await take(worker)).toEqual([first?.id]);
    await untilItGoesOn(worker);
  });

  test("waits for it also within one transaction, whose number is lower", async () => {
    await begin(1000);
    const slow = await owner.reserve();
    const found = await worker.begin(async (own) => {
      await take(own as unknown as Sql, 20);
      await slow`begin`;
      const [first] =
        await slow`insert into work_items (pool, class_id) select 'default', max(id) from work_classes returning id`;
      await call(sql, "enqueue_items", shelved(500));
      for (let taken = 0; taken < 1100; taken += 20) {
        await take(own as unknown as Sql, 20);
      }
      await slow`commit`;
      return [first?.id, ...(await take(own as unknown as Sql))];
    });
    slow.release();
    expect(found[1]).toBe(found[0]);
  });

  test.each([
    ["behind", 0, 900],
    ["before", 100, 1000],
    ["on both sides of", 100, 900],
  ])("takes of the next priority what the first one lacks, where it stands %s that in line", async (_, from, to) => {
    const ids = await begin(1000);
    const urgent = ids.slice(from, to);
    const inOrder = [...urgent, ...ids.filter((id) => !urgent.includes(id))];
    await sql`update work_items set priority = 1 where id = any (${urgent}::uuid[])`;
    await untilItGoesOn(worker);
    const [row] = await sql`select count(*)::integer as taken from work_claims where status = 'claimed'`;
    let taken = row?.taken;
    // Of the last ten that are urgent, one call has four, the next one six.
    for (const count of [urgent.length - taken - 10, 4, 10, 10, 10, 10]) {
      expect(await take(worker, count)).toEqual(inOrder.slice(taken, taken + count));
      taken += count;
    }
  });

  test("takes what it was judged to run only now, wherever that stands", async () => {
    const ids = await begin(1000);
    const judge = (classes: object, through: object) =>
      owner`update work.profiles p
               set class_ids = k.ids, class_bits = work.class_bits(B'', k.ids), judged_through = ${through as never}
              from work_workers w, (select array_agg(c.id order by c.id) as ids from work_classes c where ${classes as never}) as k
             where w.id = 'w' and p.id = w.profile_id`;
    // As if one of its classes were new.
    await judge(owner`c.requires <> '{"shelf": 3}'`, owner`p.judged_through`);
    await untilItGoesOn(worker);
    await owner`update work_classes set number = nextval('work.class_number') where requires = '{"shelf": 3}'`;
    await judge(owner`true`, owner`currval('work.class_number')`);
    expect(await take(worker)).toEqual([ids[3]]);
  });

  const flow = {
    items: Array.from({ length: 900 }, (_, n) => ({ workflow: "flow", requires: { job: n % 10 } })),
  };
  const jobs = { job: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] };

  test("works off what is older than a workflow before it, wherever a guess has looked", async () => {
    for (let round = 0; round < 4; round += 1) {
      await begin(0);
      const older = await call<string[]>(sql, "enqueue_items", shelved(60));
      const younger = await call<string[]>(sql, "enqueue_items", flow);
      await register(sql, { id: "w", capabilities: { shelf: 7, ...jobs } });
      const taken: string[] = [];
      while (taken.length < 80) {
        taken.push(...(await take(worker)));
      }
      expect(taken).toEqual([...older, ...younger].slice(0, 80));
    }
  });

  test("does not walk past what it took of a workflow, though no index entry may be given up yet", async () => {
    await begin(0);
    const ids = await call<string[]>(sql, "enqueue_items", flow);
    await register(sql, { id: "w", capabilities: jobs });
    const reader = await owner.reserve();
    await reader`begin isolation level repeatable read`;
    await reader`select from work_claims`;
    const taken: string[] = [];
    let longWays = 0;
    while (taken.length < 800) {
      const rows = await walked(async (own) => taken.push(...(await take(own, 20))));
      longWays += rows > 100 ? 1 : 0;
    }
    await reader`rollback`;
    reader.release();
    expect(taken).toEqual(ids.slice(0, 800));
    // The first calls of each second look for the beginnings of the lines.
    expect(longWays).toBeLessThan(10);
  });

  test("goes back from a workflow to what is handed back before it, until that is done", async () => {
    await begin(0);
    const older = await call<string[]>(sql, "enqueue_items", shelved(60));
    await register(sql, { id: "other", capabilities: { shelf: 7 } });
    await call(sql, "claim_next", { work_types: ["t"], worker_id: "other", max_items: 60 });
    await call<string[]>(sql, "enqueue_items", flow);
    await register(sql, { id: "w", capabilities: { shelf: 7, ...jobs } });
    await untilItGoesOn(worker);
    await call(sql, "release_claims_for_worker", { worker_id: "other" });
    const taken: string[] = [];
    while (taken.length < 60) {
      taken.push(...(await take(worker)));
    }
    expect(taken).toEqual(older);
  });

  test("readies what is due, and what a dead worker held, in the very call", async () => {
    const ids = await begin(1000);
    await register(sql, { id: "dead", capabilities: { shelf: 7 } });
    const [late] = await call<Claim[]>(sql, "claim_next", { work_types: ["t"], worker_id: "dead", max_items: 1 });
    await untilItGoesOn(worker);
    await endLeases(sql, "t");
    expect(await take(worker, 2)).toEqual([late?.item_id, ids[1]]);
    await untilItGoesOn(worker);
  });

  test("asks its lines where its own rows stand far apart, and does not walk in vain each time", async () => {
    await begin(0);
    const own: string[] = [];
    for (let n = 0; n < 10; n += 1) {
      const items = Array.from({ length: 500 }, (_, k) => ({
        requires: k === 0 ? { shelf: n % 8 } : { nobody: true },
      }));
      const ids = await call<string[]>(sql, "enqueue_items", { items });
      own.push(ids[0] as string);
    }
    const taken: string[] = [];
    let walks = 0;
    for (let n = 0; n < 10; n += 1) {
      const rows = await walked(async (own) => taken.push(...(await take(own))));
      walks += rows > 200 ? 1 : 0;
    }
    expect(taken).toEqual(own);
    // One in each second, of the seven calls that may go on.
    expect(walks).toBeLessThan(6);
  });

  test("is one of several: who has called but once goes on from where others are", async () => {
    await begin(1000);
    let fresh = worker;
    await waitUntil(async () => {
      await take(worker);
      fresh = as("service_role");
      await take(fresh);
      return goesOn(fresh);
    });
    const wish = { work_types: ["t"], max_items: 5 };
    for (let turn = 0; turn < 20; turn += 1) {
      for (const session of [fresh, worker]) {
        const expected = await expectedItems(sql, { id: "w", capabilities: { shelf: 7 } }, wish);
        expect(await take(session, 5)).toEqual(expected);
      }
    }
  });

  test("looks for the beginnings of the lines again after it found nothing", async () => {
    const ids = await begin(1000);
    for (let round = 0; round < 4; round += 1) {
      const [held] = await sql`select count(*)::integer as count from work_claims where status = 'claimed'`;
      await take(worker, ids.length - held?.count);
      expect(await take(worker)).toEqual([]);
      ids.push(...(await call<string[]>(sql, "enqueue_items", shelved(80))));
      expect(await remembers(worker)).toBe(false);
      // A guess may look at lines that are empty, but not each time.
      for (let calls = 0; calls < 3; calls += 1) {
        await take(worker, 2);
      }
      expect(await remembers(worker)).toBe(true);
    }
  });

  test("is not led past what has come by a transaction that began before and does not see it", async () => {
    await begin(1000);
    await register(sql, { id: "other", capabilities: { shelf: 7 } });
    const held = await call<Claim[]>(sql, "claim_next", { work_types: ["t"], worker_id: "other", max_items: 40 });
    const old = as("service_role");
    await untilItGoesOn(worker);
    await untilItGoesOn(old);
    const isTaken = new Set<string>();
    await old.begin("isolation level repeatable read", async (own) => {
      await own`select from work_claims limit 1`;
      await close(held, { outcome: "released" });
      await untilItGoesOn(worker);
      for (let turn = 0; turn < 5; turn += 1) {
        for (const id of await take(own as unknown as Sql)) {
          isTaken.add(id);
        }
        const wish = { work_types: ["t"], max_items: 6 };
        const expected = await expectedItems(sql, { id: "w", capabilities: { shelf: 7 } }, wish);
        expect(await take(worker)).toEqual(expected.filter((id) => !isTaken.has(id)).slice(0, 1));
      }
    });
  });

  test("is not misled by who has seen what is more urgent", async () => {
    await begin(1000);
    const other = as("service_role");
    await untilItGoesOn(other);
    await call(sql, "enqueue_items", {
      items: Array.from({ length: 50 }, (_, n) => ({ requires: { shelf: n % 8 }, priority: 1 })),
    });
    await call(sql, "enqueue_items", shelved(100));
    await untilItGoesOn(worker);
    const expected = await expectedItems(
      sql,
      { id: "w", capabilities: { shelf: 7 } },
      { work_types: ["t"], max_items: 1 },
    );
    expect(await take(other)).toEqual(expected);
  });

  test("is not misled by workers of another kind whose numbers are kept in the same place", async () => {
    await begin(0);
    const some = Array.from({ length: 1000 }, (_, n) => ({ requires: { job: n % 8 } }));
    await call(sql, "enqueue_items", { items: some });
    const workers: Worker[] = [{ id: "w", capabilities: { job: [0, 1, 2, 3] } }];
    await register(sql, workers[0] as Worker);
    for (let n = 0; workers.length < 2; n += 1) {
      const other = { id: `other ${n}`, capabilities: { job: [4, 5, 6, 7], n } };
      await register(sql, other);
      const [pair] = await sql`
        select count(*) = 2 and count(distinct work.asker_of(profile_id, array['t']) & 15) = 1 as "isPair"
          from work_workers where id in ('w', ${other.id})`;
      if (pair?.isPair) {
        workers.push(other);
      }
    }
    const sessions = [worker, as("service_role")];
    for (let turn = 0; turn < 200; turn += 1) {
      const now = workers[Math.floor(turn / 16) % 2] as Worker;
      const wish = { work_types: ["t"], max_items: 2 };
      const expected = await expectedItems(sql, now, wish);
      const claims = await call<Claim[]>(sessions[turn % 2] as Sql, "claim_next", { ...wish, worker_id: now.id });
      expect(claims.map((claim) => claim.item_id)).toEqual(expected);
    }
  });

  test("sees soon what was readied by hand, all of it, however many others go on", async () => {
    const ids = await begin(1000);
    for (let n = 0; n < 5; n += 1) {
      await call(sql, "enqueue_items", shelved(1000));
    }
    const sessions = [worker, as("service_role"), as("service_role")];
    for (const session of sessions) {
      await untilItGoesOn(session);
    }
    await take(worker, 50);
    const back = ids.slice(0, 50);
    await owner`update work_claims set status = 'ready' where item_id = any (${back}::uuid[])`;
    let turn = 0;
    const takeInTurn = async (): Promise<string | undefined> => {
      turn += 1;
      return (await take(sessions[turn % 3] as Sql))[0];
    };
    await waitUntil(async () => (await takeInTurn()) === back[0] || sleep(20, false));
    // Who looks first leads the others there.
    for (const id of back.slice(1)) {
      expect(await takeInTurn()).toBe(id);
    }
  });

  test("sees soon what was readied by hand, and what was taken and rolled back", async () => {
    const ids = await begin(1000);
    await untilItGoesOn(worker);
    await owner`update work_claims set status = 'ready' where item_id = ${ids[0] as string}`;
    const other = as("service_role");
    const rolledBack = await other
      .begin(async (own) => {
        const taken = await take(own as unknown as Sql);
        await take(worker);
        throw taken;
      })
      .catch((taken) => taken as string[]);
    const seen = new Set<string>();
    await waitUntil(async () => {
      for (const id of await take(worker)) {
        seen.add(id);
      }
      await sleep(20);
      return seen.has(ids[0] as string) && rolledBack.every((id) => seen.has(id));
    });
  });
});
