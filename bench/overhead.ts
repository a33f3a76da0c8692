import postgres from "postgres";
import { work } from "../workers/runtime/work.ts";
import { median } from "./contest.ts";
import { markdown } from "./table.ts";
import { addItems, emptyTables, workType } from "./work_claims.ts";

/** Items of a turn. Turns are short, so that a machine that slows down slows both sides. */
const turns = [
  { batch: 1, items: 50 },
  { batch: 100, items: 1500 },
];
const pairs = 40;

interface Api {
  url: string;
  key: string;
}

interface Claimed {
  item_id: string;
  work_type: string;
  fence: number;
}

/** The runtime's time for an item whose handler does nothing, beside a bare loop over the same calls by HTTP. */
export async function overhead(
  dbUrl: string,
  api: Api,
  settle: (dbUrl: string) => Promise<void>,
  tell: (line: string) => void,
): Promise<string> {
  const database = postgres(dbUrl, { max: 1, onnotice: () => {} });
  const rows: string[][] = [];
  try {
    for (const { batch, items } of turns) {
      await emptyTables(database);
      await database`select public.define_work_type(${workType}, pool => 'default')`;
      await addItems(database, 2 * items * (pairs + 1));
      await settle(dbUrl);
      const bare: number[] = [];
      const own: number[] = [];
      for (let pair = 0; pair <= pairs; pair++) {
        const sides = [
          () => timed(items, bare, () => bareLoop(api, batch, items)),
          () => timed(items, own, () => runtime(api, batch, items)),
        ];
        for (const side of pair % 2 === 0 ? sides : sides.reverse()) await side();
      }
      const ratios = own.map((ms, pair) => ms / (bare[pair] as number)).slice(1); // The first pair compiles code.
      const row = [`by ${batch}`, median(bare).toFixed(3), median(own).toFixed(3), median(ratios).toFixed(2)];
      tell(`overhead, ${row.join(" ")}`);
      rows.push(row);
    }
    return markdown(["ms an item", "bare loop", "runtime", "× bare"], rows);
  } finally {
    await emptyTables(database);
    await database.end();
  }
}

async function timed(items: number, times: number[], drain: () => Promise<number>): Promise<void> {
  const started = performance.now();
  const did = await drain();
  times.push((performance.now() - started) / items);
  if (did !== items) throw new Error(`${did} of ${items} items were done`);
}

async function runtime(api: Api, batch: number, items: number): Promise<number> {
  const quiet = { workerId: "runtime", handleSignals: false, log: () => {} };
  const summary = await work(workType, () => {}, { ...api, ...quiet, batch, maxClaims: items });
  return summary.succeeded;
}

/** The calls of a worker, one after the other. Nothing is checked, renewed or tried again. */
async function bareLoop({ url, key }: Api, batch: number, items: number): Promise<number> {
  const headers: Record<string, string> = { apikey: key, "content-type": "application/json" };
  if (key.split(".").length === 3) headers.authorization = `Bearer ${key}`;

  // biome-ignore lint/suspicious/noExplicitAny: the answer of any function.
  async function rpc(name: string, args: object): Promise<any> {
    const response = await fetch(`${url}/rest/v1/rpc/${name}`, { method: "POST", headers, body: JSON.stringify(args) });
    if (!response.ok) throw new Error(`${name}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  const worker_id = "bare";
  const work_types = [workType];
  const wanted = (): object => ({ work_types, worker_id, max_items: batch, request_id: crypto.randomUUID() });
  await rpc("register_worker", { worker_id, work_types, instance: crypto.randomUUID() });
  let claimed: Claimed[] = await rpc("claim_next", wanted());
  let did = 0;
  for (;;) {
    did += claimed.length;
    const outcomes = claimed.map(({ item_id, work_type, fence }) => ({
      item_id,
      work_type,
      fence,
      outcome: "succeeded",
    }));
    if (claimed.length === 0 || did >= items) {
      await rpc("release_items", { worker_id, outcomes });
      await rpc("retire_worker", { worker_id });
      return did;
    }
    claimed = (await rpc("finish_and_claim", { ...wanted(), outcomes })).claimed;
  }
}
