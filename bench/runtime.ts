import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import postgres from "postgres";
import { type WorkOptions, work } from "../workers/runtime/work.ts";
import { markdown } from "./table.ts";
import { addItems, emptyTables, workType } from "./work_claims.ts";

const roundTripMs = 60;

interface Case {
  name: string;
  handlerMs: number;
  items: number;
  options: WorkOptions;
}

const cases: Case[] = [
  { name: "5 ms, one item a round trip", handlerMs: 5, items: 150, options: { batch: 1 } },
  { name: "5 ms", handlerMs: 5, items: 2000, options: {} },
  { name: "5 ms, candidates", handlerMs: 5, items: 2000, options: { pool: "default" } },
  { name: "5 ms, two handlers", handlerMs: 5, items: 4000, options: { concurrency: 2 } },
  { name: "5 ms, four handlers", handlerMs: 5, items: 6000, options: { concurrency: 4 } },
  { name: "20 ms", handlerMs: 20, items: 500, options: {} },
  { name: "20 ms, candidates", handlerMs: 20, items: 500, options: { pool: "default" } },
  { name: "100 ms", handlerMs: 100, items: 100, options: {} },
  { name: "1 s", handlerMs: 1000, items: 12, options: {} },
];

interface Measured {
  rate: number;
  /** The part of the time in which handlers ran. */
  busy: number;
}

/** Measures a worker with default settings, behind a proxy that makes every round trip 60 ms longer. */
export async function runtime(
  dbUrl: string,
  api: { url: string; key: string },
  settle: (dbUrl: string) => Promise<void>,
  tell: (line: string) => void,
): Promise<string> {
  const database = postgres(dbUrl, { max: 1, onnotice: () => {} });
  const proxy = await startSlowProxy(new URL(api.url), roundTripMs / 2);
  const rows: string[][] = [];
  try {
    for (const each of cases) {
      await emptyTables(database);
      await database`select public.define_work_type(${workType}, pool => 'default')`;
      await addItems(database, each.items);
      await settle(dbUrl);
      const { rate, busy } = await measure(each, { url: proxy.url, key: api.key });
      tell(`runtime, ${each.name}: ${rate.toFixed(0)}/s, handlers busy ${Math.round(busy * 100)} %`);
      rows.push([each.name, rate.toFixed(0), `${Math.round(busy * 100)} %`]);
    }
  } finally {
    await emptyTables(database);
    await database.end();
    proxy.stop();
  }
  return markdown([`handler; round trip ${roundTripMs} ms`, "items/s", "busy"], rows);
}

async function measure({ handlerMs, items, options }: Case, api: { url: string; key: string }): Promise<Measured> {
  let startedAt = 0;
  let endedAt = 0;
  let runningMs = 0;
  const handler = async (): Promise<void> => {
    const from = performance.now();
    startedAt ||= from;
    await sleep(handlerMs);
    endedAt = performance.now();
    runningMs += endedAt - from;
  };
  const quiet = { maxClaims: items, handleSignals: false, log: () => {} };
  const summary = await work(workType, handler, { ...api, ...quiet, ...options });
  if (summary.succeeded !== items) throw new Error(`the worker did ${summary.succeeded} of ${items} items`);
  const seconds = (endedAt - startedAt) / 1000;
  return { rate: items / seconds, busy: runningMs / 1000 / seconds / (options.concurrency ?? 1) };
}

/** Delays every byte in both directions. */
async function startSlowProxy(target: URL, delayMs: number): Promise<{ url: string; stop: () => void }> {
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(Number(target.port), target.hostname);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from.setNoDelay());
      from.on("data", (bytes) => void setTimeout(() => to.write(bytes), delayMs));
      from.on("error", () => to.destroy());
      from.on("close", () => void setTimeout(() => to.end(), delayMs));
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
