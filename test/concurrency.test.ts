import { afterAll, describe, expect, test } from "vitest";
import { type Claim, call, claimNext, endLeases, release, someoneWaits, typeWithItems } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { contradictions, type Step } from "./support/history.ts";
import { expectInvariants } from "./support/invariants.ts";
import { seed, seeded } from "./support/random.ts";

const { sql, owner, admin, as } = await openDatabase();
afterAll(() => expectInvariants(sql));

const connections = 16;
const callsEach = 400;

test(`16 workers on 200 hot items: one holder at a time, one success each, no item lost (SEED=${seed})`, {
  timeout: 180_000,
}, async () => {
  const { type, ids } = await typeWithItems(sql, 200, { backoff_seconds: 0, max_failures: 1000, max_crashes: 1000 });
  const history: Step[] = [];
  const workers = Array.from({ length: connections }, (_, index) =>
    worker(as("service_role"), type, ids, index, history),
  );
  const refusals = (await Promise.all(workers)).flat();
  expect(refusals).toEqual([]);

  // One worker finishes what is left; what others hold comes back when its lease ends.
  const last = as("service_role");
  for (let open = ids.length; open > 0; ) {
    const claims = await recorded(history, "last", () =>
      call<Claim[]>(last, "claim_next", { work_types: [type], worker_id: "last", max_items: 100 }),
    );
    await close(last, "last", claims, () => "succeeded", history);
    const [row] =
      await sql`select count(*)::integer as open from work_claims where work_type = ${type} and finished_at is null`;
    open = row?.open;
  }

  expect(history.length).toBeGreaterThan(3000);
  expect(contradictions(history)).toEqual([]);
  const rows =
    await sql`select item_id, status, worker_id, fence::integer, result from work_claims where work_type = ${type} order by position`;
  expect(rows.map((row) => row.item_id)).toEqual(ids);
  for (const row of rows) {
    const [success] = history.filter((step) => step.item === row.item_id && step.kind === "succeeded");
    expect(row).toMatchObject({
      status: "succeeded",
      worker_id: success?.worker,
      fence: success?.fence,
      result: { fence: success?.fence },
    });
  }
});

/** One connection that claims, extends, gives back, fails, succeeds, forgets and comes too late, by chance. Answers its errors. */
async function worker(connection: Sql, type: string, ids: string[], index: number, history: Step[]): Promise<string[]> {
  const { pick, chance, below } = seeded(seed * connections + index);
  const name = `worker ${index}`;
  const errors: string[] = [];
  let held: Claim[] = [];
  for (let count = 0; count < callsEach; count += 1) {
    const ttl_seconds = 1 + below(2);
    try {
      const act = below(10);
      if (act < 3) {
        const item_ids = Array.from({ length: 1 + below(10) }, () => pick(ids));
        const args = {
          item_ids,
          work_type: type,
          worker_id: name,
          ttl_seconds,
          request_id: chance(0.5) ? crypto.randomUUID() : null,
        };
        held.push(...(await recorded(history, name, () => call<Claim[]>(connection, "claim_items", args))));
      } else if (act < 5) {
        const args = { work_types: [type], worker_id: name, max_items: 1 + below(5), ttl_seconds };
        held.push(...(await recorded(history, name, () => call<Claim[]>(connection, "claim_next", args))));
      } else if (act === 5 && held.length > 0) {
        await extendAll(connection, name, held, ttl_seconds, history);
      } else if (act < 9 && held.length > 0) {
        // A claim is released once, or twice, or by one who lost it long ago.
        const some = held.filter(() => chance(0.5));
        await close(
          connection,
          name,
          some,
          () => pick(["released", "released", "failed", "failed", chance(0.3) ? "succeeded" : "released"]),
          history,
        );
        held = held.filter((claim) => !some.includes(claim) || chance(0.1));
      } else if (chance(0.3)) {
        await call(connection, "reap_expired_claims", { max_items: 1 + below(50) });
      } else if (chance(0.2)) {
        const sent = performance.now();
        await call(connection, "release_claims_for_worker", { worker_id: name });
        // It gives back what it has forgotten too.
        const own = history.filter((past) => past.kind === "claimed" && past.worker === name);
        const answered = performance.now();
        history.push(...own.map((past): Step => ({ ...past, kind: "left", sent, answered })));
        held = [];
      } else if (held.length > 8) {
        held = held.slice(below(held.length));
      }
    } catch (error) {
      errors.push(`${(error as { code?: string }).code} ${(error as Error).message}`);
    }
  }
  return errors;
}

function step(kind: Step["kind"], claim: Claim, worker: string, sent: number): Step {
  return { kind, item: claim.item_id, fence: claim.fence, worker, sent, answered: performance.now() };
}

async function recorded(history: Step[], worker: string, claim: () => Promise<Claim[]>): Promise<Claim[]> {
  const sent = performance.now();
  const claims = await claim();
  for (const won of claims) {
    const leaseTo = Date.parse(won.expires_at);
    history.push({ ...step("claimed", won, worker, sent), leaseFrom: leaseTo - won.ttl_seconds * 1000, leaseTo });
  }
  return claims;
}

async function extendAll(
  connection: Sql,
  worker: string,
  held: Claim[],
  ttl_seconds: number,
  history: Step[],
): Promise<void> {
  const sent = performance.now();
  const states = await call<(Claim & { state: string })[]>(connection, "extend_claims", {
    worker_id: worker,
    held,
    ttl_seconds,
  });
  for (const answer of states.filter(({ state }) => state === "held")) {
    history.push({ ...step("held", answer, worker, sent), leaseTo: Date.parse(answer.expires_at) });
  }
}

async function close(
  connection: Sql,
  worker: string,
  claims: Claim[],
  choose: () => string,
  history: Step[],
): Promise<void> {
  const outcomes = claims.map((claim) => ({ ...claim, outcome: choose(), result: { fence: claim.fence } }));
  const sent = performance.now();
  const states = await call<string[]>(connection, "release_items", { worker_id: worker, outcomes });
  for (const [index, state] of states.entries()) {
    const claim = claims[index];
    if (claim && state !== "lost") {
      history.push(step(state === "succeeded" ? "succeeded" : "released", claim, worker, sent));
    }
  }
}

describe("the check of the history itself", () => {
  const base = { item: "i", sent: 10, answered: 11 };
  const first: Step = { ...base, kind: "claimed", fence: 1, worker: "a", leaseFrom: 100, leaseTo: 200 };
  const second: Step = {
    ...base,
    kind: "claimed",
    fence: 2,
    worker: "b",
    sent: 20,
    answered: 21,
    leaseFrom: 210,
    leaseTo: 300,
  };

  test("finds nothing wrong in a claim after a lease that ended", () => {
    expect(contradictions([first, second])).toEqual([]);
  });

  test.each([
    ["a claim inside a live lease", [first, { ...second, leaseFrom: 150 }]],
    [
      "a fence that goes back",
      [
        { ...first, leaseFrom: 210, leaseTo: 220 },
        { ...second, leaseFrom: 100 },
      ],
    ],
    [
      "two successes",
      [
        first,
        { ...base, kind: "succeeded", fence: 1, worker: "a" },
        second,
        { ...base, kind: "succeeded", fence: 2, worker: "b" },
      ],
    ],
    [
      "a write after a newer claim",
      [first, second, { ...base, kind: "held", fence: 1, worker: "a", sent: 30, answered: 31 }],
    ],
    ["one fence for two", [first, { ...first, worker: "b" }]],
  ] as [string, Step[]][])("finds %s", (_, history) => {
    expect(contradictions(history)).not.toEqual([]);
  });
});

describe("a call that waits for another", () => {
  test("draws its fence after it has locked the row, so the fence never decreases", async () => {
    const { type, ids } = await typeWithItems(sql, 1);
    const first = as("service_role");
    const args = { item_ids: ids, work_type: type };
    await first`begin`;
    await first`select from work_claims where item_id = any(${ids}) for update`;
    const waiting = call<Claim[]>(as("service_role"), "claim_items", { ...args, worker_id: "second" });
    await someoneWaits(admin);
    const [before] = await call<Claim[]>(first, "claim_items", { ...args, worker_id: "first" });
    await release(first, "first", before, "released");
    await first`commit`;
    const [after] = await waiting;
    expect(after?.fence).toBeGreaterThan(before?.fence ?? 0);
  });

  test("holds no lock on a later key", async () => {
    const { type } = await typeWithItems(sql, 2);
    const claims = await claimNext(sql, type, "a", 2);
    const [low, high] = claims.sort((one, other) => (one.item_id < other.item_id ? -1 : 1));
    const blocker = as("service_role");
    await blocker`begin`;
    await blocker`select from work_claims where item_id = ${low?.item_id ?? ""} and work_type = ${type} for update`;
    const outcomes = [
      { ...high, outcome: "succeeded" },
      { ...low, outcome: "failed" },
    ];
    const releasing = call(as("service_role"), "release_items", { worker_id: "a", outcomes });
    await someoneWaits(admin);
    await blocker`select from work_claims where item_id = ${high?.item_id ?? ""} and work_type = ${type} for update nowait`;
    await blocker`commit`;
    expect(await releasing).toEqual(["succeeded", "waiting"]);
  });

  test("locks no claim of another item before it waits for its own, although a lease has ended", async () => {
    const { type, ids } = await typeWithItems(sql, 2);
    const [mine = "", expired = ""] = ids;
    await call(sql, "claim_items", { item_ids: [expired], work_type: type, worker_id: "dead" });
    await endLeases(sql, type);
    const blocker = as("service_role");
    await blocker`begin`;
    await blocker`select from work_claims where item_id = ${mine} and work_type = ${type} for update`;
    const claiming = call<Claim[]>(as("service_role"), "claim_items", {
      ...{ item_ids: [mine], work_type: type, worker_id: "a" },
    });
    await someoneWaits(admin);
    await blocker`select from work_claims where item_id = ${expired} and work_type = ${type} for update nowait`;
    await blocker`commit`;
    expect(await claiming).toMatchObject([{ item_id: mine }]);
  });

  test("extend_claims does not lock its worker before its claims, as retire_worker locks both", async () => {
    const { type } = await typeWithItems(sql, 1);
    await call(sql, "register_worker", { worker_id: "beats", instance: crypto.randomUUID() });
    const held = await claimNext(sql, type, "beats");
    await sql`update work_workers set last_seen_at = now() - interval '10 s' where id = 'beats'`;
    const blocker = as("service_role");
    await blocker`begin`;
    await blocker`select from work_claims where item_id = ${held[0]?.item_id ?? ""} and work_type = ${type} for update`;
    const extending = call(as("service_role"), "extend_claims", { worker_id: "beats", held });
    await someoneWaits(admin);
    await blocker`select from work_workers where id = 'beats' for update nowait`;
    await blocker`commit`;
    expect(await extending).toMatchObject([{ state: "held" }]);
  });
});

test.each([
  ["heartbeat", (session: Sql, held: object[]) => call(session, "extend_claims", { worker_id: "a", held })],
  [
    "release",
    (session: Sql, held: object[]) =>
      call(session, "release_items", {
        worker_id: "a",
        outcomes: held.map((claim) => ({ ...claim, outcome: "succeeded" })),
      }),
  ],
])("a late %s of a claim under deletion holds no other lock while it waits", async (_, act) => {
  const { type } = await typeWithItems(sql, 2);
  const claims = await claimNext(sql, type, "a", 2);
  const [late, own] = claims;
  await owner`update work_claims set worker_id = 'b', fence = nextval('work.fence') where item_id = ${late?.item_id ?? ""}`;
  const deleting = as("service_role");
  await deleting`begin`;
  await deleting`delete from work_items where id = ${late?.item_id ?? ""}`;
  // Whoever deletes the one item wants the other as well.
  await act(as("service_role"), claims);
  await deleting`delete from work_items where id = ${own?.item_id ?? ""}`;
  await deleting`commit`;
});

test("deleting items causes no error in calls that claim, extend and release them", async () => {
  const { type, ids } = await typeWithItems(sql, 1000, { max_failures: 1000, max_crashes: 1000, backoff_seconds: 0 });
  await typeWithItems(sql, 0);
  let isDone = false;
  const errors: string[] = [];
  const note = (error: { code?: string; message: string }): [] => {
    errors.push(`${error.code} ${error.message}`);
    return [];
  };
  const deleting = (async () => {
    const connection = as("service_role");
    for (const id of ids) {
      await connection`delete from work_items where id = ${id}`.catch(note);
    }
    isDone = true;
  })();
  const working = [0, 1, 2, 3].map(async (index) => {
    const connection = as("service_role");
    const { pick, chance, below } = seeded(seed + index);
    const worker_id = `worker ${index}`;
    let old: Claim[] = [];
    while (!isDone) {
      await call(connection, "cancel_items", { work_type: type, item_ids: [pick(ids), pick(ids)] }).catch(note);
      const start = below(ids.length);
      const claims = await call<Claim[]>(connection, "claim_items", {
        ...{ item_ids: ids.slice(start, start + 40), work_type: chance(0.5) ? type : `undeclared ${index}`, worker_id },
      }).catch(note);
      await call(connection, "extend_claims", { worker_id, held: [...claims, ...old] }).catch(note);
      const outcomes = [...claims, ...old].map((claim) => ({ ...claim, outcome: pick(["failed", "released"]) }));
      await call(connection, "release_items", { worker_id, outcomes }).catch(note);
      old = claims.slice(0, 10);
    }
  });
  await Promise.all([deleting, ...working]);
  expect(errors).toEqual([]);
  expect(await owner`select from work_items where id = any(${ids})`).toEqual([]);
});
