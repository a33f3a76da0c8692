// Effects are counted in a person's own tables while workers are killed, calls are repeated or cut, and Postgres is stopped
// at once. FAULTS is the least number of faults; SEED the number that chooses them.
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { startStack } from "../src/stack/stack.ts";
import { systemClock } from "../workers/runtime/clock.ts";
import { type Claim, call } from "./support/calls.ts";
import type { Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { seed, seeded } from "./support/random.ts";
import { migrate } from "./support/servers.ts";

const stack = await startStack({ ephemeral: true });
await migrate(stack.dbUrl);
// Without fetch_types: a crash while the client asks for types is an error that nothing catches.
const options = { onnotice: () => {}, fetch_types: false, backoff: () => 0.05, connect_timeout: 2 } as const;
const connect = (max: number): postgres.Sql => postgres(stack.dbUrl, { ...options, max });
let sql = connect(4);
// Its own connections: all others may wait for a row that the call to be cut holds.
let cutter = connect(8);
// The client writes to a connection that has just been cut, and nothing can catch its error. Its query may then never end:
// see limited() and connectAgain().
const listeners = process.listeners("uncaughtException");
process.removeAllListeners("uncaughtException");
process.on("uncaughtException", (error, origin) => {
  if (!/nextWrite/.test(String(error.stack))) {
    for (const listener of listeners) {
      listener(error, origin);
    }
  }
});
let isEnded = false;
afterAll(async () => {
  isEnded = true;
  await Promise.all([sql.end({ timeout: 1 }), cutter.end({ timeout: 1 })]);
  await stack.stop();
});

const wanted = Number(process.env.FAULTS ?? 1050);
const workers = 6;
const faults = [
  "none",
  "killed before",
  "killed during",
  "cut",
  "answer lost",
  "twice at once",
  "late",
  "changed",
  "refused",
] as const;
const rows = 400;
/** A list as Postgres writes it: without fetch_types the client knows no arrays. */
const list = (values: unknown[]): string => `{${values.join(",")}}`;
const types = list(["embed", "index"]);

/** Whether a connection ended, or Postgres is not there. */
const isCut = (error: unknown): boolean =>
  /CONN|EPIPE|57P0|08|53300/.test(String((error as { code?: string }).code)) ||
  /connection|socket|terminat|null \(reading/i.test(String(error));

/** No call takes half a minute, unless the client lost it. */
async function limited<Answer>(action: () => Promise<Answer>): Promise<Answer> {
  let timer: NodeJS.Timeout | undefined;
  const lost = new Promise<never>((_, reject) => {
    timer = setTimeout(reject, 30_000, Object.assign(new Error("a query was lost"), { code: "CONNECTION_LOST" }));
  });
  try {
    return await Promise.race([action(), lost]);
  } finally {
    clearTimeout(timer);
  }
}

/** All shared connections anew, once Postgres was stopped. */
async function connectAgain(): Promise<void> {
  const cut = [sql, cutter];
  [sql, cutter] = [connect(4), connect(8)];
  await Promise.all(cut.map((each) => each.end({ timeout: 0 })));
}

/** Does it until Postgres is there. */
async function insist<Answer>(action: () => Promise<Answer>): Promise<Answer> {
  for (;;) {
    try {
      return await limited(action);
    } catch (error) {
      const { code } = error as { code?: string };
      if (isEnded || (!isCut(error) && code !== "40P01" && code !== "55P03" && code !== "57014")) {
        throw error;
      }
    }
  }
}

/** The person's tables: documents with a column for results, and a table that a function fills. Each write is counted. */
async function makeTables(): Promise<void> {
  const admin = postgres(stack.adminUrl, { ...options, max: 1 });
  await admin`alter system set deadlock_timeout = '50ms'`;
  await admin`select pg_reload_conf()`;
  await admin.end();
  await sql.unsafe(`
    create table documents (id bigint primary key, body integer not null default 0, embedding real[]);
    create table writes (id bigint, body integer, of real[]);
    create function count_write() returns trigger language plpgsql as $$
      begin insert into writes values (new.id, new.body, new.embedding); return null; end $$;
    create trigger count_write after update of embedding on documents for each row execute function count_write();
    create table entries (id bigint, body integer, result jsonb, fence bigint);
    create function enter(item jsonb, result jsonb) returns void language plpgsql security definer set search_path = public as $$
      begin
        if result ->> 'refused' is not null then raise exception 'refused by chance'; end if;
        insert into entries values ((item ->> 'source_key')::bigint, (item #>> '{payload,body}')::integer, result, (item ->> 'fence')::bigint);
      end $$;
    grant execute on function enter to service_role;
    select attach_pool('documents', payload_columns => array['id', 'body']);`);
  const rules = {
    pool: "documents",
    input_columns: list(["body"]),
    max_failures: 1000,
    max_crashes: 1000,
    backoff_seconds: 0,
  };
  await call(sql, "define_work_type", { work_type: "embed", ...rules, into_column: "documents.embedding" });
  await call(sql, "define_work_type", { work_type: "index", ...rules, apply: "public.enter" });
  await sql`insert into documents (id) select generate_series(1, ${rows})`;
}

/** What one input makes. */
const resultOf = ({ work_type, payload }: Claim): unknown => {
  const { id, body } = payload as { id: number; body: number };
  return work_type === "embed" ? [id, body] : { id, body };
};

/** Exactly one effect of the input that is there, at most one of each earlier one, and none that no claim's result is. */
async function expectEachOnce(): Promise<void> {
  const [effects] = await insist(
    () => sql`
      select (select count(*)::integer from (select from writes group by id, body having count(*) > 1) as w) as written_twice,
             (select count(*)::integer from (select from entries group by id, body having count(*) > 1) as e) as entered_twice,
             (select count(*)::integer from documents d where embedding is distinct from array[d.id, d.body]::real[]) as wrong,
             (select count(*)::integer from writes w where w.of is distinct from array[w.id, w.body]::real[]) as foreign_writes,
             (select count(*)::integer from documents d
               where (select count(*) from entries e
                       where e.id = d.id and e.body = d.body and e.result = jsonb_build_object('id', d.id, 'body', d.body)) <> 1) as not_entered,
             (select count(*)::integer from documents d
               where (select count(*) from writes w where w.id = d.id and w.body = d.body) <> 1) as not_written`,
  );
  expect(effects).toEqual({
    written_twice: 0,
    entered_twice: 0,
    wrong: 0,
    foreign_writes: 0,
    not_entered: 0,
    not_written: 0,
  });
  await expectInvariants(sql);
}

/** Changes the input of some rows, so that their work is to be done again. */
async function change(ids: number[]): Promise<void> {
  await insist(() => sql`update documents set body = body + 1 where id = any (${list(ids)}::text::bigint[])`);
}

/** What waits need wait no longer: after ten changes of one input in an hour a claim waits. */
async function settle(): Promise<void> {
  await insist(() => sql`update work_claims set due_at = now() where status = 'waiting' and due_at > now()`);
  await systemClock.sleep(20);
}

async function open(): Promise<number> {
  const [row] = await insist(
    () => sql<[{ open: number }]>`select count(*)::integer as open from work_claims where finished_at is null`,
  );
  return row.open;
}

test(`each result has its effect once while ${wanted} faults are made (SEED=${seed})`, {
  timeout: 600_000,
}, async () => {
  await makeTables();
  const { below, pick } = seeded(seed);
  const counts = new Map<string, number>();
  const made = (): number => [...counts.values()].reduce((sum, count) => sum + count, 0);
  const note = (fault: string): void => void counts.set(fault, (counts.get(fault) ?? 0) + 1);
  let isStopped = false;
  const stops = Math.max(3, Math.floor(wanted / 300));

  const isOver = (): boolean => isStopped && made() >= wanted;

  /** Ends the backend of a call after so many milliseconds. */
  async function cut(pid: number, ms: number): Promise<void> {
    await systemClock.sleep(ms);
    await cutter`select pg_terminate_backend(${pid})`.catch(() => {});
  }

  async function runWorker(name: string): Promise<void> {
    let own = connect(1);
    const again = async (): Promise<void> => {
      await own.end({ timeout: 0 }).catch(() => {});
      own = connect(1);
    };
    /** Held by this worker, then released; some kind of fault comes between, or none. */
    async function turn(): Promise<void> {
      const claims = await call<Claim[]>(own, "claim_next", {
        work_types: types,
        worker_id: name,
        max_items: 1 + below(4),
      });
      if (claims.length === 0) {
        await (isOver() ? settle() : change(Array.from({ length: 8 }, () => 1 + below(rows))));
        return;
      }
      const outcomes = claims.map((claim) => {
        const { item_id, work_type, fence } = claim;
        return { item_id, work_type, fence, outcome: "succeeded", result: resultOf(claim) };
      });
      const release = (by: Sql): Promise<string[]> => call(by, "release_items", { worker_id: name, outcomes });
      const fault = isOver() ? "none" : pick(faults);
      if (fault !== "none") {
        note(fault);
      }
      switch (fault) {
        case "killed before":
          await expire(claims);
          return;
        case "killed during": {
          // All is done but the commit.
          const [{ pid }] = await own<[{ pid: number }]>`select pg_backend_pid() as pid`;
          await own
            .begin(async (transaction) => {
              await release(transaction as unknown as Sql);
              await cutter`select pg_terminate_backend(${pid})`;
              await transaction`select 1`;
            })
            .catch((error) => {
              if (!isCut(error)) {
                throw error;
              }
            });
          await again();
          await expire(claims);
          return;
        }
        case "cut": {
          const [{ pid }] = await own<[{ pid: number }]>`select pg_backend_pid() as pid`;
          // The client does not know whether the release was committed, and sends it again.
          await Promise.all([release(own).catch(() => {}), cut(pid, below(8))]);
          await again();
          await insist(() => release(own));
          return;
        }
        case "answer lost":
          await release(own);
          await release(own);
          return;
        case "twice at once":
          await Promise.all([release(own), insist(() => release(sql as unknown as Sql))]);
          return;
        case "late": {
          await expire(claims);
          const held = await call<Claim[]>(sql, "claim_next", {
            work_types: types,
            worker_id: `${name} late`,
            max_items: 4,
          });
          await release(own);
          await insist(() =>
            call(sql, "release_items", {
              worker_id: `${name} late`,
              outcomes: held.map((claim) => ({ ...claim, outcome: "succeeded", result: resultOf(claim) })),
            }),
          );
          return;
        }
        case "changed":
          await change(claims.map((claim) => (claim.payload as { id: number }).id));
          break;
        case "refused":
          if (outcomes.some(({ work_type }) => work_type === "index")) {
            const refused = outcomes.map((outcome) =>
              outcome.work_type === "index" ? { ...outcome, result: { refused: true } } : outcome,
            );
            // A result of an input that is no longer there is not applied, so not refused.
            await call(own, "release_items", { worker_id: name, outcomes: refused }).catch((error) => {
              if (error.code !== "PT422") {
                throw error;
              }
            });
          }
          break;
      }
      await release(own);
    }
    for (let failures = 0; !isOver() || (await open()) > 0; ) {
      try {
        await limited(turn);
        failures = 0;
      } catch (error) {
        const { code } = error as { code?: string };
        const passes = isCut(error) || ["40P01", "55P03", "57014"].includes(String(code));
        failures += 1;
        if (!passes || failures > 2000) {
          throw error;
        }
        await again();
        // Its claims are given up, as after a crash.
        await insist(
          () =>
            sql`update work_claims set expires_at = now() where status = 'claimed' and worker_id like ${`${name}%`}`,
        );
      }
    }
    await own.end({ timeout: 0 });
  }

  /** The leases end, as if their time had passed. */
  async function expire(claims: Claim[]): Promise<void> {
    const fences = claims.map(({ fence }) => fence);
    await insist(
      () =>
        sql`update work_claims set expires_at = now() where status = 'claimed' and fence = any (${list(fences)}::text::bigint[])`,
    );
  }

  async function stopPostgres(): Promise<void> {
    for (let count = 1; count <= stops; count += 1) {
      while (made() < (wanted * count) / (stops + 1)) {
        await systemClock.sleep(10);
      }
      await stack.postgres.stop("immediate");
      await stack.postgres.start();
      await connectAgain();
      note("Postgres stopped at once");
    }
    isStopped = true;
  }

  await Promise.all([stopPostgres(), ...Array.from({ length: workers }, (_, n) => runWorker(`worker ${n}`))]);
  const totals =
    await sql`select (select count(*)::integer from writes) as writes, (select count(*)::integer from entries) as entries`;
  console.log(
    `SEED=${seed}: ${made()} faults: ${[...counts].map(([fault, count]) => `${fault} ${count}`).join(", ")}; ${JSON.stringify(totals[0])}`,
  );
  expect(made()).toBeGreaterThanOrEqual(wanted);
  await expectEachOnce();
});
