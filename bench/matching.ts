import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import postgres, { type Sql } from "postgres";
import { median, percentile } from "./contest.ts";
import type { Instance } from "./instance.ts";
import { markdown } from "./table.ts";
import { addItems as addPlainItems, emptyTables, workType } from "./work_claims.ts";

/** Ready items, of which a fifth is for the workers that are measured, spread evenly over the classes they match. */
const items = 100_000;
const share = 5;

/** Beside them in the same tables, in a work type of their own: items of one class, for workers that match this one. */
const baseType = "one class";
const baseItems = 20_000;
const base = { classes: 1, matched: 1 };

/** Each measurement takes turns with one of the items of one class, so that both have the same machine. */
const turns = 6;

/** Tables, connections and settings of one version of work-claims. */
interface Side {
  /** A suffix for the names of its rows. */
  suffix: string;
  database: Sql;
  clients: Sql[];
  settle: () => Promise<void>;
}

export interface MatchingPlan {
  rounds: number;
  /** Items behind which the one that fits is looked for. */
  others: number;
  /** Calls of one measurement. */
  calls: (batch: number) => number;
  connections: number;
}

/** Ready items of so many classes, and workers that match so many of these. */
interface Backlog {
  name: string;
  classes: number;
  matched: number;
  /** Items that come meanwhile, one at a time. */
  arrivalsPerSecond?: number;
}

const backlogs: Backlog[] = [
  { name: "items that require nothing", classes: 0, matched: 0 },
  { name: "one class", classes: 1, matched: 1 },
  ...[1, 8, 64, 512].map((matched) => ({ name: `1,000 classes, ${matched} match`, classes: 1000, matched })),
  ...[10, 100].map((arrivalsPerSecond) => ({
    name: `… and ${arrivalsPerSecond} items a second come`,
    classes: 1000,
    matched: 512,
    arrivalsPerSecond,
  })),
  ...[1, 8, 64, 512].map((matched) => ({ name: `10,000 classes, ${matched} match`, classes: 10_000, matched })),
  { name: "10,000 classes, all match", classes: 10_000, matched: 10_000 },
];

/** Claims among many classes, beside claims where there is one, and beside a pull by a list of tags. */
export async function matching(
  { dbUrl, otherUrl }: Pick<Instance, "dbUrl" | "otherUrl">,
  settle: (dbUrl: string) => Promise<void>,
  plan: MatchingPlan,
  tell: (line: string) => void,
): Promise<string> {
  const open = (url: string, suffix: string): Side => ({
    suffix,
    database: postgres(url, { max: 1, onnotice: () => {} }),
    clients: Array.from({ length: plan.connections }, () => postgres(url, { max: 1, onnotice: () => {} })),
    settle: () => settle(url),
  });
  const ours = open(dbUrl, "");
  const sides = [ours, ...(otherUrl ? [open(otherUrl, ", other version")] : [])];
  try {
    const claims = await claimRates(sides, plan, tell);
    const singles = await singleCalls(ours, plan, tell);
    return [claims, singles].join("\n\n");
  } finally {
    for (const { database, clients } of sides) {
      await emptyTables(database);
      await forgetClasses(database);
      await database`drop schema if exists bench_tags cascade`;
      await Promise.all([database, ...clients].map((client) => client.end()));
    }
  }
}

async function claimRates(sides: Side[], plan: MatchingPlan, tell: (line: string) => void): Promise<string> {
  const rates = backlogs.flatMap((backlog) =>
    sides.map((side) => ({
      name: `${backlog.name}${side.suffix}`,
      backlog,
      side,
      by1: [] as number[],
      by10: [] as number[],
      tags: [] as number[],
      base1: [] as number[],
      base10: [] as number[],
    })),
  );
  for (let round = 0; round < plan.rounds; round++) {
    for (const row of rates) {
      const { backlog } = row;
      const { database, clients, settle } = row.side;
      await fill(database, backlog);
      await register(clients, backlog);
      await settle();
      const stop = itemsCome(database, backlog.arrivalsPerSecond ?? 0);
      const by10 = await besideBase(clients, 10, plan.calls(10));
      row.by10.push(by10.rate);
      row.base10.push(by10.base);
      const by1 = await besideBase(clients, 1, plan.calls(1));
      row.by1.push(by1.rate);
      row.base1.push(by1.base);
      await stop();
      await fillTags(database);
      await settle();
      await pullByTags(clients, backlog, warmUp(clients));
      row.tags.push(await pullByTags(clients, backlog, plan.calls(1)));
      const last = [row.by10, row.base10, row.by1, row.base1, row.tags].map((each) => Math.round(each.at(-1) ?? 0));
      tell(
        `${row.name}, round ${round + 1}: by 10 ${last[0]}/s of ${last[1]}/s, by 1 ${last[2]}/s of ${last[3]}/s, ` +
          `tags by 1 ${last[4]}/s`,
      );
    }
  }
  const ratio = (mine: number[], theirs: number[]) =>
    median(mine.map((rate, round) => rate / (theirs[round] ?? Number.NaN))).toFixed(2);
  return markdown(
    ["claims a second", "by 10", "× one class", "by 1", "× one class", "tag list by 1", "× tag list"],
    rates.map((seen) => [
      seen.name,
      Math.round(median(seen.by10)).toLocaleString("en"),
      ratio(seen.by10, seen.base10),
      Math.round(median(seen.by1)).toLocaleString("en"),
      ratio(seen.by1, seen.base1),
      Math.round(median(seen.tags)).toLocaleString("en"),
      ratio(seen.by1, seen.tags),
    ]),
  );
}

/** Calls that are timed one at a time. */
async function singleCalls(
  { database, settle }: Side,
  plan: MatchingPlan,
  tell: (line: string) => void,
): Promise<string> {
  const rows: string[][] = [];
  const note = (what: string, value: string): void => {
    rows.push([what, value]);
    tell(`${what}: ${value}`);
  };

  await emptyTables(database);
  await forgetClasses(database);
  await database`
    select cardinality(work.classes_of(
             array_agg(jsonb_build_object(
               'gpu_memory_gb', n % 80, 'cores', n % 64, 'region', 'r' || n % 20, 'tier', jsonb_build_object('in', array['a', 'b']),
               'models', array['m' || n % 1000, 'm' || n / 1000])),
             array_agg('{}'::jsonb), array_agg(''::text)))
      from generate_series(1, 10000) as n`;
  await settle();
  const registrations: number[] = [];
  for (let n = 0; n < 20; n++) {
    const models = Array.from({ length: 20 }, (_, model) => `m${model * n}`);
    const capabilities = { gpu_memory_gb: 48, cores: 32, region: ["r1", "r2"], tier: "a", models, n };
    registrations.push(await timed(() => registerWith(database, `new-${n}`, capabilities)));
  }
  note(
    "a new kind of worker registers among 10,000 classes of five clauses, median ms",
    median(registrations).toFixed(1),
  );

  await emptyTables(database);
  await forgetClasses(database);
  await takesNewItems(database, workType);
  await addItems(database, { classes: 1000, matched: 0 }, plan.others);
  await registerWith(database, "seeks", { needle: true, job: "none" });
  await settle();
  const searches: number[] = [];
  for (let n = 0; n < 50; n++) {
    await database`insert into public.work_items (pool, class_id, priority)
                   values ('default', (work.classes_of(array['{"needle": true}'::jsonb], array['{}'::jsonb], array['']))[1], -1000)`;
    searches.push(
      await timed(async () => {
        const [row] = await database<{ claimed: unknown[] }[]>`
          select public.claim_next(array[${workType}], 'seeks') as claimed`;
        if (row?.claimed.length !== 1) throw new Error("the one item that fits was not found");
      }),
    );
  }
  note(
    `the one item that fits is found behind ${plan.others.toLocaleString("en")} others, median ms`,
    median(searches).toFixed(2),
  );
  note("… 95th percentile", percentile(searches, 0.95).toFixed(2));

  const plain: number[] = [];
  const requiring: number[] = [];
  await emptyTables(database);
  await settle();
  for (let n = 0; n < 20; n++) {
    const batch = Array.from({ length: 1000 }, (_, k) => ({ payload: { k } }));
    const asking = batch.map((item, k) => ({ ...item, requires: { job: `c${k % 100}`, gpu_memory_gb: 8 } }));
    plain.push(await timed(() => database`select public.enqueue_items(${database.json(batch)})`));
    requiring.push(await timed(() => database`select public.enqueue_items(${database.json(asking)})`));
  }
  note("items enqueued a second, by 1,000", Math.round(1e6 / median(plain)).toLocaleString("en"));
  note("… with requirements", Math.round(1e6 / median(requiring)).toLocaleString("en"));
  note("… × without", (median(plain) / median(requiring)).toFixed(2));
  return markdown(["one call at a time", ""], rows);
}

async function timed(action: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await action();
  return performance.now() - started;
}

function jobs(count: number): string[] {
  return Array.from({ length: count }, (_, n) => `c${n + 1}`);
}

async function fill(database: Sql, backlog: Backlog): Promise<void> {
  await emptyTables(database);
  await forgetClasses(database);
  await takesNewItems(database, workType);
  await addItems(database, backlog, items);
  await takesNewItems(database, baseType);
  await addItems(database, base, baseItems);
}

/** Deletes classes, workers and the classes that workers match. */
async function forgetClasses(database: Sql): Promise<void> {
  await database`delete from public.work_classes where id <> 1`;
  await database`delete from public.work_workers`;
  await database`delete from work.profiles where id <> 1`;
}

/** Items that come from now on are for this work type alone. */
async function takesNewItems(database: Sql, type: string): Promise<void> {
  await database`update public.work_types set pool = null`;
  await database`select public.define_work_type(${type}, pool => 'default')`;
}

/** A fifth of the items belongs to the first classes, the others to the rest; mixed. */
async function addItems(
  database: Sql,
  { classes, matched }: Pick<Backlog, "classes" | "matched">,
  count: number,
): Promise<void> {
  const rest = classes - matched;
  if (classes === 0) {
    await addPlainItems(database, count);
    return;
  }
  await database`
    insert into public.work_items (id, pool, payload, class_id)
    select fresh.id, 'default', jsonb_build_object('n', n),
           c.ids[case when ${rest} = 0 or (${matched} > 0 and n % ${share} = 0)
                   then n / ${share} % ${Math.max(matched, 1)} + 1
                   else n % ${Math.max(rest, 1)} + ${matched} + 1 end]
      from unnest(work.new_ids(null, ${count}::integer)) with ordinality as fresh(id, n)
     cross join (select work.classes_of(
                          array_agg(case when ${matched > 512} then jsonb_build_object('size', k)
                                         else jsonb_build_object('job', 'c' || k) end order by k),
                          array_agg('{}'::jsonb), array_agg(''::text)) as ids
                   from generate_series(1, ${classes}::integer) as k) as c
     order by n`;
}

async function register(clients: Sql[], { matched }: Backlog): Promise<void> {
  // Thousands of names are more than capabilities may have: a size meets as many minima.
  const capabilities = matched > 512 ? { size: matched } : { job: jobs(matched) };
  await Promise.all(
    clients.map(async (client, n) => {
      await registerWith(client, workerOf(workType, n), capabilities);
      await registerWith(client, workerOf(baseType, n), { job: jobs(base.matched) });
    }),
  );
}

function workerOf(type: string, connection: number): string {
  return `${type} ${connection}`;
}

async function registerWith(client: Sql, worker: string, capabilities: object): Promise<void> {
  await client`delete from public.work_workers where id = ${worker}`;
  await client`select public.register_worker(${worker}, ${randomUUID()}, capabilities => ${client.json(capabilities as never)})`;
}

/** Adds items that no worker matches, at this pace, until it is stopped. */
function itemsCome(database: Sql, perSecond: number): () => Promise<void> {
  let isOver = perSecond === 0;
  const coming = (async () => {
    while (!isOver) {
      await database`insert into public.work_items (pool, class_id) select 'default', max(id) from public.work_classes`;
      await sleep(1000 / perSecond);
    }
  })();
  return async () => {
    isOver = true;
    await coming;
  };
}

/** Calls before each measurement. */
function warmUp(clients: Sql[]): number {
  return Math.max(40, 2 * clients.length);
}

/** Items a second, and the same for items of one class. */
async function besideBase(clients: Sql[], batch: number, calls: number): Promise<{ rate: number; base: number }> {
  // The first calls make plans: they do not count.
  await drain(clients, workType, batch, warmUp(clients));
  await drain(clients, baseType, batch, warmUp(clients));
  let seconds = 0;
  let baseSeconds = 0;
  for (let turn = 0; turn < turns; turn++) {
    seconds += await drain(clients, workType, batch, calls / turns);
    baseSeconds += await drain(clients, baseType, batch, calls / turns);
  }
  return { rate: turns / seconds, base: turns / baseSeconds };
}

/** Makes so many calls, each of which closes a batch and claims the next. Answers the seconds an item. */
async function drain(clients: Sql[], type: string, batch: number, calls: number): Promise<number> {
  let claimed = 0;
  let left = calls;
  const time = await timed(() =>
    Promise.all(
      clients.map(async (client, n) => {
        const worker = workerOf(type, n);
        let outcomes: object[] = [];
        while (left-- > 0) {
          const [row] = await client<
            { answer: { claimed: { item_id: string; work_type: string; fence: number }[] } }[]
          >`
            select public.finish_and_claim(${worker}, ${client.json(outcomes as never)}, array[${type}], ${batch}) as answer`;
          const won = row?.answer.claimed ?? [];
          claimed += won.length;
          outcomes = won.map(({ item_id, work_type, fence }) => ({ item_id, work_type, fence, outcome: "succeeded" }));
        }
        await client`select public.release_items(${worker}, ${client.json(outcomes as never)})`;
      }),
    ),
  );
  // A call may win fewer than it asked for where many others hold rows; far fewer mean that the items ran out.
  if (claimed < 0.9 * calls * batch) throw new Error(`${claimed} of ${calls * batch} were claimed`);
  return time / 1000 / claimed;
}

/** The table of a tag system: a tag a job. Both indexes that help are there, and the planner chooses. */
async function fillTags(database: Sql): Promise<void> {
  await database`create schema if not exists bench_tags`;
  await database`drop table if exists bench_tags.jobs`;
  await database`
    create table bench_tags.jobs (
      id uuid primary key default gen_random_uuid(), tag text not null, priority integer not null default 0,
      created_at timestamptz not null default clock_timestamp(), status text not null default 'ready',
      worker_id text, expires_at timestamptz, finished_at timestamptz, payload jsonb)`;
  await database`
    insert into bench_tags.jobs (tag, payload)
    select coalesce(c.requires ->> 'job', c.requires ->> 'size', ''), i.payload
      from public.work_items i join public.work_classes c on c.id = i.class_id
     order by i.seq limit ${items}`;
  await database`create index on bench_tags.jobs (tag, priority desc, created_at) where status = 'ready'`;
  await database`create index on bench_tags.jobs (priority desc, created_at) where status = 'ready'`;
  await database`analyze bench_tags.jobs`;
}

async function pullByTags(clients: Sql[], { matched }: Backlog, calls: number): Promise<number> {
  const tags = ["", ...jobs(matched).map((job) => (matched > 512 ? job.slice(1) : job))];
  let pulled = 0;
  let left = calls;
  const seconds = await timed(() =>
    Promise.all(
      clients.map(async (client, n) => {
        let last: string | null = null;
        while (left-- > 0) {
          const [row]: { id: string }[] = await client<{ id: string }[]>`
            with done as (
              update bench_tags.jobs set status = 'succeeded', finished_at = now() where id = ${last} returning id)
            update bench_tags.jobs
               set status = 'claimed', worker_id = ${`bench-${n}`}, expires_at = now() + interval '1 minute'
             -- The last job is closed first: a row that the search locked in vain stays locked, and two such calls could deadlock.
             where (select count(*) from done) >= 0
               and id = (select id from bench_tags.jobs
                          where status = 'ready' and tag = any(${tags}::text[])
                          order by priority desc, created_at limit 1 for update skip locked)
            returning id, payload`;
          last = row?.id ?? null;
          if (row) pulled += 1;
        }
      }),
    ),
  );
  if (pulled < calls) throw new Error(`${pulled} of ${calls} were pulled`);
  return pulled / (seconds / 1000);
}
