// A table in three stages, extract → embed → summarise: what a change touches is done again, and nothing else.
import { expect, test } from "vitest";
import { type Claim, call, unlessItGaveWay } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

/** `STAGES_ROWS=10000 npm test -- stages` takes a minute or two. */
const rowCount = Number(process.env.STAGES_ROWS ?? 2000);
/** Changed rows lie this far apart: 60, 40 and 10 rows are chosen by it. */
const step = Math.floor(rowCount / 65);

const { sql, owner, as } = await openDatabase();

type Row = { id: number; title: string; body: string };
type StageClaim = Claim & { work_type: string; payload: Row; needs: { work_type: string; result: unknown }[] };

/** The stages as pure functions, so that the tables of a run from scratch are known. */
const extract = ({ body }: Row): { words: number } => ({ words: body.split(" ").length });
const embed = ({ words }: { words: number }, version: number): number[] => [words % 7, words % 11, version];
const summarise = ({ title }: Row, vector: number[]): string => `${title}: ${vector.join(" ")}`;

/** The version of the embedding model. */
let model = 1;

/** How often each stage ran since the counter was emptied. */
const runs = new Map<string, number>();
const total = (stage: string): number =>
  [...runs].reduce((sum, [key, count]) => (key.startsWith(`${stage} `) ? sum + count : sum), 0);

function handle({ work_type, payload, needs }: StageClaim): unknown {
  const key = `${work_type} ${payload.id}`;
  runs.set(key, (runs.get(key) ?? 0) + 1);
  const need = needs?.find(({ work_type }) => work_type === (needs.length > 1 ? "embed" : "extract"))?.result;
  if (work_type === "extract") return extract(payload);
  if (work_type === "embed") return embed(need as { words: number }, model);
  return summarise(payload, need as number[]);
}

/** A worker of all three stages. It works until it is told to end. */
async function worker(connection: Sql, worker_id: string, isOver: () => boolean): Promise<void> {
  let outcomes: object[] = [];
  while (!isOver()) {
    const answer = await call<{ claimed: StageClaim[] }>(connection, "finish_and_claim", {
      ...{ worker_id, outcomes, work_types: ["extract", "embed", "summarise"], max_items: 250 },
    }).catch(unlessItGaveWay);
    if (answer === undefined) continue;
    outcomes = answer.claimed.map((claim) => ({
      ...{ item_id: claim.item_id, work_type: claim.work_type, fence: claim.fence },
      ...{ outcome: "succeeded", result: handle(claim) },
    }));
    if (outcomes.length === 0) await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Waits until all is done, and no reopening of older versions is left. */
async function allDone(): Promise<void> {
  for (;;) {
    const [open] = await sql`
      select (select sum(open)::integer from work_overview) as claims,
             (select count(*)::integer from work_types where redone_through is not null) as versions`;
    if (open?.claims === 0 && open.versions === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The tables are as the stages make them of the present rows, once each. */
async function expectTablesFromScratch(): Promise<void> {
  const rows = await owner<(Row & { embedding: number[]; summary: string })[]>`
    select d.*, s.summary from documents d left join summaries s on s.id = d.id order by d.id`;
  const [summaries] = await owner`select count(*)::integer as count from summaries`;
  expect(summaries?.count).toBe(rows.length);
  const wrong = rows.filter((row) => {
    const vector = embed(extract(row), model);
    return String(row.embedding) !== String(vector) || row.summary !== summarise(row, vector);
  });
  expect(wrong).toEqual([]);
}

test("a changed row runs again through the stages that it touches, and no other row does", {
  timeout: 240_000,
}, async () => {
  await owner.unsafe(`
    create table documents (id integer primary key, title text, body text, note text, embedding real[]);
    create table summaries (id integer primary key references documents on delete cascade, summary text);
    create function store_summary(item jsonb, result jsonb) returns void language sql security definer set search_path = public
      as $$ insert into summaries values ((item ->> 'source_key')::integer, result #>> '{}')
              on conflict (id) do update set summary = excluded.summary $$;
    select attach_pool('documents', payload_columns => '{id,title,body}');
    select define_work_type('extract', 'documents', input_columns => '{body}');
    select define_work_type('embed', 'documents', depends_on => '{extract}', into_column => 'documents.embedding');
    select define_work_type('summarise', 'documents', depends_on => '{extract,embed}', input_columns => '{title}',
      apply => 'public.store_summary');
    insert into documents select n, 'title ' || n, repeat('word ', n % 50) || 'end' from generate_series(1, ${rowCount}) n;`);

  let isOver = false;
  const workers = ["a", "b", "c"].map((name) => worker(as("service_role"), name, () => isOver));
  await allDone();
  expect(["extract", "embed", "summarise"].map(total)).toEqual([rowCount, rowCount, rowCount]);
  expect(Math.max(...runs.values())).toBe(1);
  await expectTablesFromScratch();

  runs.clear();
  for (let row = 1; row <= 60; row++) await owner`update documents set body = body || ' more' where id = ${row * step}`;
  await owner`update documents set title = 'new ' || title where id % ${step} = 1 and id <= 40 * ${step}::integer`;
  await owner`update documents set note = 'no input' where id % 3 = 0`;
  await owner`insert into documents select n, 'late', 'one two' from generate_series(${rowCount + 1}::integer, ${rowCount + 50}) n`;
  await owner`delete from documents where id % ${step} = 2 and id <= 10 * ${step}::integer`;
  await allDone();
  expect(["extract", "embed", "summarise"].map(total)).toEqual([60 + 50, 60 + 50, 60 + 40 + 50]);
  expect(Math.max(...runs.values())).toBe(1);
  await expectTablesFromScratch();

  runs.clear();
  model = 2;
  await call(sql, "define_work_type", { work_type: "embed", version: 2 });
  await allDone();
  const present = rowCount + 50 - 10;
  expect(["extract", "embed", "summarise"].map(total)).toEqual([0, present, present]);
  expect(Math.max(...runs.values())).toBe(1);
  await expectTablesFromScratch();

  isOver = true;
  await Promise.all(workers);
  await expectInvariants(sql);
});
