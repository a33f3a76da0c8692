import postgres, { type Sql } from "postgres";
import { connections, loops, median, percentile } from "./contest.ts";
import { markdown } from "./table.ts";
import { addItems, emptyTables, workType } from "./work_claims.ts";

const layers = 10;
const width = 500;
const needsEach = 2;
const batches = [1, 10, 100];
const dependents = 10_000;
const pool = "dag";

/** Work on items that need each other, beside the same number of items that do not; and one item that thousands need. */
export async function dag(
  dbUrl: string,
  rounds: number,
  settle: (dbUrl: string) => Promise<void>,
  tell: (line: string) => void,
): Promise<string> {
  const database = postgres(dbUrl, { max: connections, onnotice: () => {} });
  try {
    await database`insert into public.work_pools (name) values (${pool}) on conflict do nothing`;
    const rows: string[][] = [];
    for (const batch of batches) {
      const ratios: number[] = [];
      const [flat, layered, added]: number[][] = [[], [], []];
      for (let round = 0; round < rounds; round++) {
        const one = await drained(database, dbUrl, settle, batch, () => addItems(database, layers * width));
        const other = await drained(database, dbUrl, settle, batch, async () => {
          const started = performance.now();
          await addLayers(database);
          added?.push((performance.now() - started) / (layers * width));
        });
        flat?.push(one);
        layered?.push(other);
        ratios.push(other / one);
      }
      const row = [`by ${batch}`, ...[flat, layered, added].map((times) => median(times ?? []).toFixed(3))];
      rows.push([...row, median(ratios).toFixed(2)]);
      tell(`dag, ${rows.at(-1)?.join(" ")}`);
    }
    const head = ["ms an item", "flat", "ten layers", "to add one with needs", "× flat"];
    return `${markdown(head, rows)}\n\n${await wide(database, dbUrl, settle, tell)}`;
  } finally {
    await emptyTables(database);
    await database.end();
  }
}

/** A fresh work type, since those that are needed once stay on the way of needs. */
async function fresh(database: Sql, inPool: string): Promise<void> {
  await emptyTables(database);
  await database`delete from public.work_types`;
  await database`select public.define_work_type(${workType}, pool => ${inPool})`;
}

async function drained(
  database: Sql,
  dbUrl: string,
  settle: (dbUrl: string) => Promise<void>,
  batch: number,
  add: () => Promise<void>,
): Promise<number> {
  await fresh(database, "default");
  await add();
  await settle(dbUrl);
  const started = performance.now();
  let did = 0;
  await Promise.all(
    Array.from({ length: loops }, async (_, worker) => {
      let outcomes: object[] = [];
      while (did < layers * width) {
        const claimed = await finishAndClaim(database, `worker ${worker}`, outcomes, batch);
        did += outcomes.length;
        outcomes = claimed;
      }
    }),
  );
  const ms = (performance.now() - started) / (layers * width);
  const [row] = await database`select count(*)::integer as n from public.work_claims where status = 'succeeded'`;
  if (row?.n !== layers * width) throw new Error(`${row?.n} of ${layers * width} items were done`);
  return ms;
}

async function finishAndClaim(database: Sql, worker: string, outcomes: object[], batch: number): Promise<object[]> {
  const [row] = await database<{ answer: { claimed: { item_id: string; work_type: string; fence: number }[] } }[]>`
    select public.finish_and_claim(
      worker_id => ${worker}, outcomes => ${database.json(outcomes as never)}, work_types => ${[workType]},
      max_items => ${batch}) as answer`;
  return (row?.answer.claimed ?? []).map(({ item_id, work_type, fence }) => ({
    ...{ item_id, work_type, fence, outcome: "succeeded" },
  }));
}

/** Each item of a layer needs some of the layer before, by chance. */
async function addLayers(database: Sql): Promise<void> {
  const name = (layer: number, place: number): string => `${layer} ${place}`;
  for (let layer = 0; layer < layers; layer++) {
    const items = Array.from({ length: width }, (_, place) => ({
      dedupe_key: name(layer, place),
      needs: layer === 0 ? [] : drawn().map((needed) => name(layer - 1, needed)),
    }));
    await database`select public.enqueue_items(${database.json(items)})`;
  }
}

const drawn = (): number[] => [...new Set(Array.from({ length: needsEach }, () => Math.floor(Math.random() * width)))];

/** The release of an item that thousands need, and the calls of others meanwhile. */
async function wide(
  database: Sql,
  dbUrl: string,
  settle: (dbUrl: string) => Promise<void>,
  tell: (line: string) => void,
): Promise<string> {
  await fresh(database, "default");
  await database`select public.enqueue_items(${database.json([{ dedupe_key: "needed" }])})`;
  for (let n = 0; n < dependents; n += 1000) {
    const items = Array.from({ length: 1000 }, () => ({ needs: ["needed"] }));
    await database`select public.enqueue_items(${database.json(items)})`;
  }
  const first = await finishAndClaim(database, "first", [], 1);
  await addItems(database, 20_000);
  await settle(dbUrl);
  const times: number[] = [];
  let isOver = false;
  const others = Array.from({ length: connections - 1 }, async (_, worker) => {
    let outcomes: object[] = [];
    while (!isOver) {
      const began = performance.now();
      outcomes = await finishAndClaim(database, `other ${worker}`, outcomes, 1);
      times.push(performance.now() - began);
    }
  });
  await new Promise((resolve) => setTimeout(resolve, 500));
  const before = times.splice(0);
  const began = performance.now();
  await finishAndClaim(database, "first", first, 1);
  const ms = performance.now() - began;
  isOver = true;
  await Promise.all(others);
  const row = [ms, percentile(before, 0.99), percentile(times, 0.99), Math.max(...times)].map((time) =>
    time.toFixed(0),
  );
  tell(`wide, ${row.join(" ")} ms`);
  return markdown(
    [
      `ms with ${dependents.toLocaleString("en")} dependents`,
      "its release",
      "other calls before, p99",
      "meanwhile, p99",
      "longest",
    ],
    [["", ...row]],
  );
}
