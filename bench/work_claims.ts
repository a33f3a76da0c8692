import postgres, { type Sql } from "postgres";
import { type Contestant, connections, loops } from "./contest.ts";
import { otherVersion } from "./table.ts";

export const workType = "bench";

interface Claimed {
  item_id: string;
  work_type: string;
  fence: number;
}

export interface FinishAndClaim {
  worker_id: string;
  outcomes: object[];
  work_types: string[];
  max_items: number;
  request_id: string | null;
}

/** Sends one finish_and_claim() and answers the new claims. */
export type Send = (call: FinishAndClaim) => Promise<Claimed[]>;

/** work-claims on a direct connection: one finish_and_claim() a batch. */
export function workClaimsSql(dbUrl: string, withRequestIds: boolean): Contestant {
  const client = postgres(dbUrl, { max: connections, onnotice: () => {} });
  const send: Send = async (call) => {
    const [row] = await client<{ answer: { claimed: Claimed[] } }[]>`
      select public.finish_and_claim(
        worker_id => ${call.worker_id}, outcomes => ${client.json(call.outcomes as never)},
        work_types => ${call.work_types}, max_items => ${call.max_items},
        request_id => ${call.request_id}) as answer`;
    return row?.answer.claimed ?? [];
  };
  const name = `work-claims: SQL${withRequestIds ? ", request ids" : ""}`;
  return workClaims(name, dbUrl, loops, withRequestIds, send, () => client.end());
}

/**
 * Every job is claimed by a query of its own; those completed within a few milliseconds share one, which any of the
 * loops sends before its next claim. The values were among the fastest of those tried: 16 to 100 jobs at once, 5 to 20 ms.
 */
export function workClaimsGathered(dbUrl: string): Contestant {
  const gatherMs = 10;
  const jobsAtOnce = 64;
  const client = postgres(dbUrl, { max: connections, onnotice: () => {} });
  return {
    ...workClaimsJobs("work-claims: completions gathered", dbUrl, () => client.end()),
    isMissing: (batch) => batch !== 1,
    drain: async () => {
      const started = performance.now();
      let finished: object[] = [];
      let gatheredAt = started;
      const release = async (): Promise<void> => {
        const outcomes = finished;
        finished = [];
        gatheredAt = performance.now();
        if (outcomes.length > 0) {
          await client`select public.release_items('bench', ${client.json(outcomes as never)})`;
        }
      };
      await Promise.all(
        Array.from({ length: jobsAtOnce }, async () => {
          for (;;) {
            if (performance.now() - gatheredAt > gatherMs) await release();
            const [row] = await client<{ claimed: Claimed[] }[]>`
              select public.claim_next(array[${workType}], 'bench') as claimed`;
            if (!row?.claimed.length) break;
            finished.push(...succeeded(row.claimed));
          }
        }),
      );
      await release();
      return (performance.now() - started) / 1000;
    },
  };
}

function succeeded(claimed: Claimed[]): object[] {
  return claimed.map(({ item_id, work_type, fence }) => ({ item_id, work_type, fence, outcome: "succeeded" }));
}

/** Workers that end a batch and claim the next in one call, however it is sent. */
export function workClaims(
  name: string,
  dbUrl: string,
  workers: number,
  withRequestIds: boolean,
  send: Send,
  closeSender: () => Promise<void>,
): Contestant {
  return {
    ...workClaimsJobs(name, dbUrl, closeSender),
    drain: async (batch) => {
      const started = performance.now();
      await Promise.all(
        Array.from({ length: workers }, async (_, worker) => {
          let outcomes: object[] = [];
          do {
            const claimed = await send({
              worker_id: `bench-${worker}`,
              outcomes,
              work_types: [workType],
              max_items: batch,
              request_id: withRequestIds ? crypto.randomUUID() : null,
            });
            outcomes = succeeded(claimed);
          } while (outcomes.length > 0);
        }),
      );
      return (performance.now() - started) / 1000;
    },
  };
}

/** The same contestant for the database of another version. */
export function asOtherVersion(contestant: Contestant): Contestant {
  return { ...contestant, name: otherVersion(contestant.name), side: "other version" };
}

/** The jobs, however they are done. */
function workClaimsJobs(name: string, dbUrl: string, closeSender: () => Promise<void>): Omit<Contestant, "drain"> {
  const database = postgres(dbUrl, { max: 1, onnotice: () => {} });
  return {
    name,
    side: "ours",
    dbUrl,
    prepare: async (jobs) => {
      await emptyTables(database);
      await database`select public.define_work_type(${workType}, pool => 'default')`;
      await addItems(database, jobs);
    },
    completed: async () => {
      const [row] = await database<{ n: number }[]>`
        select count(*)::int as n from public.work_claims where status = 'succeeded'`;
      return row?.n ?? 0;
    },
    clear: () => emptyTables(database),
    close: async () => {
      await closeSender();
      await database.end();
    },
  };
}

/** Ready items in the default pool, enrolled for its work types as they come, with ids as enqueue_items() gives them. */
export async function addItems(database: Sql, items: number): Promise<void> {
  await database`
    insert into public.work_items (id, pool, payload)
    select id, 'default', jsonb_build_object('n', n)
      from unnest(work.new_ids(null, ${items}::integer)) with ordinality as fresh(id, n)
     order by n`;
}

export async function emptyTables(database: Sql): Promise<void> {
  await database`truncate public.work_items, public.work_claims, public.work_events, work.requests cascade`;
}
