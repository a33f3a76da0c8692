import { afterAll, describe, expect, test } from "vitest";
import { type Claim, call, claimNext, endLeases, release, typeWithItems } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { seeded } from "./support/random.ts";

const { sql, owner, admin, as } = await openDatabase();
afterAll(() => expectInvariants(sql));

interface Counts {
  claims: number;
  succeeded: number;
  failed: number;
  cancelled: number;
}

async function counts(type: string): Promise<Counts> {
  const [row] = await sql<[Counts?]>`
    select claims::integer, succeeded::integer, failed::integer, cancelled::integer
      from work.counts() where work_type = ${type}`;
  return row ?? { claims: 0, succeeded: 0, failed: 0, cancelled: 0 };
}

/** Folds until nothing is left to fold. */
async function fold(): Promise<void> {
  while (((await sql`select work.fold_tallies(1000) as folded`)[0]?.folded ?? 0) > 0) {}
}

/** The tallies of a span, by measure. */
async function measures(type: string, span: string): Promise<Record<string, number>> {
  const rows = await sql`
    select measure, sum(amount)::integer as amount from work.tallies where work_type = ${type} and span = ${span} group by measure`;
  return Object.fromEntries(rows.map((row) => [row.measure, row.amount]));
}

describe("the counts of a work type", () => {
  test("follow success, failure, retry, cancelling and deletion, folded or not", async () => {
    const { type, ids } = await typeWithItems(sql, 6, { max_failures: 2, backoff_seconds: 0 });
    expect(await counts(type)).toEqual({ claims: 6, succeeded: 0, failed: 0, cancelled: 0 });
    const [one, two, three] = await claimNext(sql, type, "a", 3);
    await release(sql, "a", one, "succeeded");
    await release(sql, "a", two, "failed", { final: true });
    await release(sql, "a", three, "failed");
    await fold();
    await call(sql, "cancel_items", { work_type: type, item_ids: [ids[4], ids[5]] });
    expect(await counts(type)).toEqual({ claims: 6, succeeded: 1, failed: 1, cancelled: 2 });

    expect(await call(sql, "retry_items", { work_type: type, item_ids: [two?.item_id, ids[4]] })).toBe(2);
    expect(await counts(type)).toEqual({ claims: 6, succeeded: 1, failed: 0, cancelled: 1 });
    await sql`delete from work_items where id in ${sql([ids[0], ids[5]] as string[])}`;
    await fold();
    expect(await counts(type)).toEqual({ claims: 4, succeeded: 0, failed: 0, cancelled: 0 });
  });

  test("count a claim that fails by its last crash", async () => {
    const { type } = await typeWithItems(sql, 1, { max_crashes: 1 });
    await claimNext(sql, type, "a");
    await endLeases(sql, type);
    await call(sql, "reap_expired_claims");
    expect(await counts(type)).toEqual({ claims: 1, succeeded: 0, failed: 1, cancelled: 0 });
    await fold();
    expect(await measures(type, "minute")).toMatchObject({ losses: 1, final_failures: 1 });
  });

  test("do not count a release that came too late, or twice", async () => {
    const { type } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    await release(sql, "b", claim, "succeeded");
    await release(sql, "a", claim, "succeeded");
    await release(sql, "a", claim, "succeeded");
    expect(await counts(type)).toEqual({ claims: 1, succeeded: 1, failed: 0, cancelled: 0 });
  });

  test("keep both types of one call apart", async () => {
    const a = await typeWithItems(sql, 1);
    const b = await typeWithItems(sql, 0);
    await call(sql, "claim_items", { item_ids: a.ids, work_type: a.type, worker_id: "a" });
    await call(sql, "claim_items", { item_ids: a.ids, work_type: b.type, worker_id: "a" });
    const held = await sql<Claim[]>`
      select item_id, work_type, fence::integer from work_claims where item_id = ${a.ids[0] ?? ""} and status = 'claimed'`;
    const outcomes = held.map((claim) => ({ ...claim, outcome: "succeeded" }));
    expect(await call(sql, "release_items", { worker_id: "a", outcomes })).toEqual(["succeeded", "succeeded"]);
    expect((await counts(a.type)).succeeded).toBe(1);
    expect((await counts(b.type)).succeeded).toBe(1);
  });

  test("take one entry for a statement that deletes many items", async () => {
    const { type } = await typeWithItems(sql, 300);
    await fold();
    await sql`delete from work_items where id in (select item_id from work_claims where work_type = ${type})`;
    const entries = await sql`select claims from work.tally_entries where work_type = ${type}`;
    expect(entries).toEqual([{ claims: -300 }]);
  });

  test("are zero after the tables are truncated, and right for what comes then", async () => {
    await typeWithItems(sql, 3);
    await fold();
    await typeWithItems(sql, 3);
    await owner`truncate work_items, work_claims, work_events, work_dependencies`;
    const { type } = await typeWithItems(sql, 2);
    expect(await counts(type)).toMatchObject({ claims: 2 });
    await expectInvariants(sql);
  });

  test("are right again after recount_claims() where somebody changed a status by hand", async () => {
    const { type, ids } = await typeWithItems(sql, 3);
    await owner`update work_claims set status = 'succeeded', finished_at = now() where item_id = ${ids[0] ?? ""} and work_type = ${type}`;
    await owner`select work.recount_claims()`;
    expect(await counts(type)).toEqual({ claims: 3, succeeded: 1, failed: 0, cancelled: 0 });
  });
});

describe("tries", () => {
  test("are counted per second, minute, hour and ever, with the time that successes waited and ran", async () => {
    const { type } = await typeWithItems(sql, 3, { backoff_seconds: 0 });
    const [one, two, three] = await claimNext(sql, type, "a", 3);
    await sql`update work_claims set due_at = claimed_at - interval '90 s', claimed_at = claimed_at - interval '20 s' where work_type = ${type}`;
    await release(sql, "a", one, "succeeded");
    await release(sql, "a", two, "succeeded");
    await release(sql, "a", three, "failed");
    await fold();
    for (const span of ["second", "minute", "hour", "ever"]) {
      expect(await measures(type, span)).toMatchObject({
        ...{ successes: 2, failures: 1, ran_1min: 2, waited_10min: 2 },
        waited: 140_000,
        ran: expect.toSatisfy((milliseconds) => milliseconds >= 40_000 && milliseconds < 100_000),
      });
    }
    const [minute] = await sql`
      select succeeded::integer, failed::integer, lost::integer, failed_for_good::integer, waited, ran
        from work_history where work_type = ${type} and span = 'minute'`;
    expect(minute).toEqual({
      ...{ succeeded: 2, failed: 1, lost: 0, failed_for_good: 0 },
      ...{ waited: { "10min": 2 }, ran: { "1min": 2 } },
    });
  });

  test("stay counted when the claim is retried or deleted", async () => {
    const { type, ids } = await typeWithItems(sql, 2);
    for (const claim of await claimNext(sql, type, "a", 2)) await release(sql, "a", claim, "failed", { final: true });
    await call(sql, "retry_items", { work_type: type, item_ids: [ids[0]] });
    await sql`delete from work_items where id = ${ids[1] ?? ""}`;
    await fold();
    expect(await measures(type, "hour")).toMatchObject({ failures: 2, final_failures: 2 });
  });

  test("are forgotten per second after two minutes, per minute after an hour, per hour after 90 days", async () => {
    const { type } = await typeWithItems(sql, 0);
    for (const [age, spans] of [
      ["1 minute", ["ever", "hour", "minute", "second"]],
      ["3 minutes", ["ever", "hour", "minute"]],
      ["61 minutes", ["ever", "hour"]],
      ["91 days", ["ever"]],
    ] as const) {
      await sql`delete from work.tallies where work_type = ${type}`;
      await sql`insert into work.tally_entries (at, work_type, successes) values (clock_timestamp() - ${age}::interval, ${type}, 1)`;
      await fold();
      // The call that folds an old entry may still show it; the next one has forgotten it.
      await sql`select work.fold_tallies(1)`;
      const rows = await sql`select distinct span from work.tallies where work_type = ${type} order by span`;
      // An hour or a minute counts from its beginning: it may be gone by then.
      expect(spans).toEqual(expect.arrayContaining(rows.map((row) => row.span)));
      expect(rows.map((row) => row.span)).toContain("ever");
    }
  });
});

describe("beside an open transaction", () => {
  test("that has closed a claim of the same type, others close theirs and fold without waiting", async () => {
    const { type } = await typeWithItems(sql, 3);
    const [one, two] = await claimNext(sql, type, "a", 2);
    await as("service_role").begin(async (transaction) => {
      await release(transaction as never, "a", one, "succeeded");
      expect(await release(sql, "a", two, "succeeded")).toBe("succeeded");
      await fold();
      expect(await counts(type)).toMatchObject({ succeeded: 1 });
    });
    expect(await counts(type)).toMatchObject({ succeeded: 2 });
    await fold();
    expect(await counts(type)).toMatchObject({ succeeded: 2 });
  });

  test("that folds, a claim call goes on and leaves the folding to it", async () => {
    const { type } = await typeWithItems(sql, 2);
    await as("service_role").begin(async (transaction) => {
      await transaction`update work.upkeep set due_at = '-infinity'`;
      expect(await claimNext(transaction as never, type, "a")).toHaveLength(1);
      expect(await claimNext(sql, type, "b")).toHaveLength(1);
    });
    const [left] =
      await sql`select count(*)::integer as count from work.tally_entries where work_type = ${type} and claims > 0`;
    expect(left?.count).toBe(0);
  });

  test("that is rolled back, nothing is counted of it", async () => {
    const { type } = await typeWithItems(sql, 1);
    const [claim] = await claimNext(sql, type, "a");
    const undone = as("service_role").begin(async (transaction) => {
      await release(transaction as never, "a", claim, "succeeded");
      throw new Error("undone");
    });
    await expect(undone).rejects.toThrow("undone");
    expect(await counts(type)).toEqual({ claims: 1, succeeded: 0, failed: 0, cancelled: 0 });
  });
});

test("a claim call folds what has come where two seconds have passed, and none before", async () => {
  const { type } = await typeWithItems(sql, 2);
  const left = async (): Promise<number> =>
    (await sql`select from work.tally_entries where work_type = ${type} and claims > 0`).length;
  await sql`update work.upkeep set due_at = '-infinity'`;
  await claimNext(sql, type, "a");
  expect(await left()).toBe(0);
  const [upkeep] = await sql`select due_at <= clock_timestamp() + interval '2 s' as is_soon from work.upkeep`;
  expect(upkeep?.is_soon).toBe(true);
  await sql`update work.upkeep set due_at = 'infinity'`;
  await call(sql, "enqueue_items", { items: [{}] });
  await claimNext(sql, type, "a");
  expect(await left()).toBe(1);
  await sql`update work.upkeep set due_at = '-infinity'`;
});

test("after any calls by several connections at once, one of them killed, the counts are those of the rows", async () => {
  const seed = Number(process.env.SEED ?? 1);
  const types = [
    await typeWithItems(sql, 40, { max_failures: 2, max_crashes: 2, backoff_seconds: 0 }),
    await typeWithItems(sql, 40),
  ];
  let killed = 0;
  const run = async (who: number): Promise<void> => {
    const { below } = seeded(seed * 100 + who);
    let connection: Sql = as("service_role");
    const name = `worker ${who}`;
    for (let step = 0; step < 60; step++) {
      const { type, ids } = types[below(2)] as { type: string; ids: string[] };
      const some = Array.from({ length: 1 + below(4) }, () => ids[below(ids.length)] as string);
      const calls: (() => Promise<unknown>)[] = [
        async () => {
          const outcomes = (await claimNext(connection, type, name, 1 + below(5))).map((claim) => ({
            ...claim,
            outcome: ["succeeded", "succeeded", "failed", "released"][below(4)],
            final: below(3) === 0,
          }));
          await call(connection, "release_items", { worker_id: name, outcomes });
        },
        () => claimNext(connection, type, name, 1 + below(3)),
        () => endLeases(connection, type),
        () => call(connection, "reap_expired_claims"),
        () => call(connection, "retry_items", { work_type: type, item_ids: some }),
        () => call(connection, "retry_items", { work_type: type, max_items: 3 }),
        () => call(connection, "cancel_items", { work_type: type, item_ids: some }),
        () => connection`delete from work_items where id = any (${some.slice(0, 1)}::uuid[])`,
        () => call(connection, "enqueue_items", { items: [{}, {}] }),
        () => call(connection, "prune_finished", { work_type: type, older_than: "0", at_most: 1 + below(3) }),
        () => connection`select work.fold_tallies(${1 + below(20)}::integer)`,
      ];
      // Caught from the start: the call may fail while the kill is under way.
      const work = (calls[below(calls.length)] as () => Promise<unknown>)().catch((error: { code?: string }) => {
        // Deadlocks with deletions by hand are such calls' to repeat.
        if (!["57P01", "40P01", "CONNECTION_CLOSED", "ECONNRESET", "23503"].includes(error.code ?? "")) return error;
        connection = as("service_role");
        return null;
      });
      if (below(20) === 0) {
        // A connection that is new asks for types first: nothing would catch the error of that query.
        await admin`select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and usename = 'authenticator' and state = 'active'
            and query not like '%pg_catalog.pg_type%' limit 1`;
        killed += 1;
      }
      const unplanned = await work;
      if (unplanned instanceof Error) throw unplanned;
    }
  };
  await Promise.all([1, 2, 3, 4, 5].map(run));
  expect(killed).toBeGreaterThan(0);
  await expectInvariants(sql);
  await fold();
  await expectInvariants(sql);
});
