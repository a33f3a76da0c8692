// Real workers and a real PostgREST. A proxy between them loses, breaks, delays or repeats a third of all requests.
// SEED=… makes the same faults again, in the same order for each function and table.
import { setTimeout as sleep } from "node:timers/promises";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { type Clock, systemClock } from "../workers/runtime/clock.ts";
import { type Claim, type Context, type Summary, work } from "../workers/runtime/work.ts";
import { openApi } from "./support/api.ts";
import { call } from "./support/calls.ts";
import { startFaultyProxy } from "./support/faulty-proxy.ts";
import { expectInvariants } from "./support/invariants.ts";
import { seed, seeded } from "./support/random.ts";

const { chance, below, pick } = seeded(seed);
const stack = await openApi();
const sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
const proxy = await startFaultyProxy(stack.url, seed, 1 / 3);
afterAll(async () => {
  await proxy.stop();
  await sql.end({ timeout: 1 });
});

/** How often each kind of fault is made at least. */
const times = 6;
const leaseSeconds = 1;
const maxFailures = 3;

interface Payload {
  /** So many handlers fail with it before one succeeds. */
  failures: number;
  ms: number;
}

/** The wait for an answer takes 5 to 20 seconds. It is cut short here. */
const impatientClock: Clock = {
  now: systemClock.now,
  sleep: (ms, signal) => systemClock.sleep(ms >= 5000 && ms <= 20_000 ? 500 : ms, signal),
};

const logged: string[] = [];
const begun: number[] = [];
const running = new Set<string>();
const overlaps: string[] = [];
let started = 0;

function handlerOf(worker: string, key: string) {
  return async (claim: Claim<Payload>, { signal, progress }: Context): Promise<object> => {
    const what = `${claim.work_type} ${claim.item_id}`;
    if (running.has(what)) {
      overlaps.push(what);
    }
    running.add(what);
    begun.push(claim.fence);
    try {
      progress(0.5);
      await sleep(claim.payload.ms, undefined, { signal });
    } finally {
      running.delete(what);
    }
    if (claim.failures < claim.payload.failures) {
      throw new Error(`failure ${claim.failures + 1} of ${claim.payload.failures}, with ${key}`);
    }
    return { fence: claim.fence, worker };
  };
}

/** Works until nothing is left. A worker with a pool picks candidates. */
function startWorker(workTypes: string[], pool?: string): Promise<Summary> {
  const workerId = `worker ${started}`;
  started += 1;
  const key = pick([stack.serviceKey, stack.secretKey]);
  return work<Payload>(workTypes, handlerOf(workerId, key), {
    url: proxy.url,
    key,
    workerId,
    leaseSeconds,
    concurrency: 8,
    untilEmpty: true,
    idleMinSeconds: 0.05,
    idleMaxSeconds: 0.2,
    handleSignals: false,
    clock: impatientClock,
    random: seeded(seed + started).random,
    log: (line) => logged.push(line),
    ...(pool && { pool }),
  });
}

function payload(): Payload {
  if (chance(0.08)) {
    return { failures: 0, ms: leaseSeconds * (1000 + below(600)) };
  }
  return { failures: chance(0.25) ? 1 + below(maxFailures) : 0, ms: below(60) };
}

test(`workers lose no item and do none twice while a third of all requests fail (SEED=${seed})`, {
  timeout: 480_000,
}, async () => {
  await recordSteps();
  await recordEffects();
  const rules = { max_failures: maxFailures, max_crashes: 1000, backoff_seconds: 0, apply: "public.note_effect" };
  await call(sql, "define_work_type", { work_type: "embed", pool: "default", ...rules });
  // Of no pool: it has no rows before items of it are claimed.
  await call(sql, "define_work_type", { work_type: "caption", ...rules });
  const summaries: Summary[] = [];
  while (Object.values(proxy.counts()).some((count) => count < times)) {
    await call(sql, "enqueue_items", { items: Array.from({ length: 120 }, () => ({ payload: payload() })) });
    const pulling = Array.from({ length: 3 }, () => startWorker(["embed"]));
    const picking = Array.from({ length: 6 }, () => startWorker(["embed", "caption"], "default"));
    summaries.push(...(await Promise.all([...pulling, ...picking])));
  }
  await proxy.settled();

  const [ended] = await sql`
    select count(*)::integer as claims, sum(crashes)::integer as crashes, sum(failures)::integer as failures
      from work_claims`;
  const made = Object.entries(proxy.counts()).map(([kind, count]) => `${kind}: ${count}`);
  console.log(
    `SEED=${seed}: ${ended?.claims} claims, ${ended?.failures} failures, ${ended?.crashes} leases ended, ` +
      `${proxy.requests()} requests, faults made: ${made.join("; ")}`,
  );
  await expectAllEndedOnce();
  await expectEachEffectOnce();
  await expectEachClaimAnswered();
  await expectCrashesExplained();
  expect(overlaps).toEqual([]);
  expect(new Set(begun).size).toBe(begun.length);
  const [succeeded] = await sql`select count(*)::integer as count from work_claims where status = 'succeeded'`;
  expect(summaries.reduce((sum, each) => sum + each.succeeded, 0)).toBe(succeeded?.count);
  expect(logged.filter((line) => /^the database does not take|^refused|could not be released/.test(line))).toEqual([]);
  await expectNoKey();
  await expectInvariants(sql);
});

/** Every change of a claim's status or fence leaves a line, whoever makes it. */
async function recordSteps(): Promise<void> {
  await sql.unsafe(`
    create table steps (
      item_id uuid, work_type text, was text, became text, worker_id text, fence bigint, request_id uuid,
      at timestamptz default clock_timestamp());
    create function note_step() returns trigger language plpgsql security definer as $$
      declare was public.work_claims := case tg_op when 'UPDATE' then old end;
      begin
        if (was.status, was.fence) is distinct from (new.status, new.fence) then
          insert into public.steps values
            (new.item_id, new.work_type, was.status, new.status, new.worker_id, new.fence, new.request_id);
        end if;
        return null;
      end $$;
    create trigger note_step after insert or update on work_claims for each row execute function note_step();`);
}

/** A person's function that leaves a row for each result. */
async function recordEffects(): Promise<void> {
  await sql.unsafe(`
    create table effects (item_id uuid, work_type text, fence bigint);
    create function note_effect(item jsonb, result jsonb) returns void language sql security definer set search_path = public as
      $$ insert into effects values ((item ->> 'id')::uuid, item ->> 'work_type', (item ->> 'fence')::bigint) $$;
    grant execute on function note_effect to service_role;`);
}

/** Each success had its effect once, under the fence that it was released with; nothing else had any. */
async function expectEachEffectOnce(): Promise<void> {
  const wrong = await sql`
    select c.item_id, c.work_type, c.status, e.fences
      from work_claims c
     cross join lateral (
       select coalesce(array_agg(e.fence), '{}') as fences from effects e
        where e.item_id = c.item_id and e.work_type = c.work_type) as e
     where e.fences <> case when c.status = 'succeeded' then array[c.fence] else '{}' end`;
  expect(wrong).toEqual([]);
}

/** Each claim ended as its payload says, by its holder, and did not change again. */
async function expectAllEndedOnce(): Promise<void> {
  const wrong = await sql`
    select c.item_id, c.work_type, c.status, c.failures, i.payload, ends.count, c.result, c.fence, c.worker_id
      from work_items i
     cross join (values ('embed'), ('caption')) as t(work_type)
      left join work_claims c on c.item_id = i.id and c.work_type = t.work_type
     cross join lateral (
       select count(*)::integer,
              count(*) filter (where (s.became, s.fence, s.worker_id) = (c.status, c.fence, c.worker_id))::integer as own
         from steps s
        where s.item_id = c.item_id and s.work_type = c.work_type and s.became in ('succeeded', 'failed', 'cancelled')
     ) as ends
     where c.status is distinct from
             case when (i.payload ->> 'failures')::integer < ${maxFailures} then 'succeeded' else 'failed' end
        or c.failures <> (i.payload ->> 'failures')::integer
        or (ends.count, ends.own) <> (1, 1)
        or (c.status = 'succeeded'
          and c.result is distinct from jsonb_build_object('fence', c.fence, 'worker', c.worker_id))`;
  expect(wrong).toEqual([]);
  expect(await sql`select from steps where was = 'claimed' and became = 'claimed'`).toEqual([]);
}

/** Each worker got an answer with each of its claims, unless the lease ended before an answer got through. */
async function expectEachClaimAnswered(): Promise<void> {
  const fences = new Set<number>();
  const answeredAt = new Map<string, number>();
  for (const { path, body, answer, at } of proxy.answered) {
    if (/rpc\/(claim_next|claim_items|finish_and_claim)$/.test(path)) {
      const claims = JSON.parse(answer).claimed ?? JSON.parse(answer);
      for (const claim of claims) {
        fences.add(claim.fence);
      }
      answeredAt.set(JSON.parse(body).request_id, at);
    }
  }
  const made = await sql`
    select s.fence::integer, s.request_id, extract(epoch from e.at)::float8 * 1000 as ended
      from steps s
      left join lateral (
        select min(n.at) as at from steps n where n.fence = s.fence and n.was = 'claimed') as e on true
     where s.became = 'claimed'`;
  const unanswered = made.filter(
    ({ fence, request_id, ended }) => !fences.has(fence) && !(ended <= (answeredAt.get(request_id) ?? 0)),
  );
  expect(made.length).toBeGreaterThan(100);
  expect(unanswered).toEqual([]);
}

/** A lease ended by itself only where its worker logged that it lost the claim, or got no answer with it. */
async function expectCrashesExplained(): Promise<void> {
  // Only what is taken away leaves no worker.
  const expired = await sql`
    select s.fence::integer, s.work_type || ' ' || s.item_id as claim
      from steps s where s.was = 'claimed' and s.worker_id is null`;
  const lost = logged.flatMap((line) => /^lost (\S+ \S+):/.exec(line)?.[1] ?? []);
  expect(expired.filter(({ claim, fence }) => begun.includes(fence) && !lost.includes(claim))).toEqual([]);
  const [counted] = await sql`select sum(crashes)::integer as crashes from work_claims`;
  expect(counted?.crashes).toBe(expired.length);
}

async function expectNoKey(): Promise<void> {
  const stored = await sql`
    select to_jsonb(c)::text as row from work_claims c
    union all select to_jsonb(e)::text from work_events e union all select to_jsonb(w)::text from work_workers w`;
  const written = [...logged, ...stored.map(({ row }) => row)].join("\n");
  expect(written).toContain("[key]");
  for (const key of [stack.serviceKey, stack.secretKey]) {
    expect(written).not.toContain(key);
  }
}
