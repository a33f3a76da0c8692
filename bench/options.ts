import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { connections } from "./contest.ts";
import type { MatchingPlan } from "./matching.ts";

export interface Options {
  /** How often each contestant is measured; the table shows medians. */
  rounds: number;
  batches: number[];
  /** Jobs of one measurement, for each batch size: enough for about a second. */
  jobs: (batch: number) => number;
  /** Words, one of which a contestant's name (or "latency") has to contain; none: all of them. */
  only: string[];
  /** Finished claims beside which a claim is timed. */
  finished: number[];
  matching: MatchingPlan;
  /** pgmq's SQL file, as it publishes it. */
  pgmq?: string;
  /** A folder with the migrations of another version, which gets rows of its own. */
  against?: string;
  /** Ended claims beside which the overview, pruning and the like are timed. */
  claims: number;
  /** A running database, and the address of its API, in place of a stack of the bench's own. */
  dbUrl?: string;
  adminUrl?: string;
  url?: string;
  key?: string;
}

export const help = `npm run bench -- [options]

  --rounds N       measure each contestant N times (5)
  --batches A,B    batch sizes (1,10,100)
  --only A,B       only contestants whose name contains one of these words, "latency",
                   "start", "runtime", "overhead", "matching", "dag" or "scale"
  --claims N       ended claims beside which "scale" measures (200000); 5000000 take some minutes and 5 GB
  --quick          two rounds, half of the jobs, latency up to 100,000 finished claims
  --connections N  connections of the matching rows (4), at most 64
  --pgmq FILE      adds rows for pgmq: FILE is its published sql/pgmq.sql
  --against DIR    adds rows for another version of work-claims: DIR has its migrations
  --db-url URL     a Postgres with the migrations and no work in it, in place of a stack of its own: tables are emptied
  --admin-url URL  its superuser, or another role that may vacuum and checkpoint
  --url URL --key KEY   the address and secret key of its API, for the HTTP rows

Example: npm run bench -- --only raw,work-claims --batches 100 --rounds 5`;

/** Reads the command line; undefined where it asks for help. */
export function readOptions(args: string[]): Options | undefined {
  const { values } = parseArgs({
    args,
    options: {
      rounds: { type: "string" },
      batches: { type: "string", default: "1,10,100" },
      only: { type: "string", default: "" },
      claims: { type: "string", default: "200000" },
      quick: { type: "boolean", default: false },
      connections: { type: "string", default: String(connections) },
      pgmq: { type: "string" },
      against: { type: "string" },
      "db-url": { type: "string" },
      "admin-url": { type: "string" },
      url: { type: "string" },
      key: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  const matchingConnections = wholeNumber("--connections", values.connections, 64);
  const jobsOfBatch = (batch: number) => (batch >= 100 ? 40_000 : batch >= 10 ? 12_000 : 2_400);
  return {
    rounds: wholeNumber("--rounds", values.rounds ?? (values.quick ? "2" : "5")),
    batches: values.batches.split(",").map((batch) => wholeNumber("--batches", batch)),
    jobs: values.quick ? (batch) => jobsOfBatch(batch) / 2 : jobsOfBatch,
    only: values.only.split(",").filter(Boolean),
    finished: values.quick ? [10_000, 100_000] : [10_000, 100_000, 1_000_000],
    matching: {
      rounds: wholeNumber("--rounds", values.rounds ?? (values.quick ? "1" : "3")),
      others: values.quick ? 100_000 : 1_000_000,
      // Each connection makes four calls a turn or more.
      calls: (batch) => Math.max((batch === 10 ? 600 : 1500) / (values.quick ? 2 : 1), 24 * matchingConnections),
      connections: matchingConnections,
    },
    ...(values.pgmq ? { pgmq: path(values.pgmq) } : {}),
    ...(values.against ? { against: path(values.against) } : {}),
    claims: wholeNumber("--claims", values.claims, 100_000_000),
    ...(values["db-url"] ? { dbUrl: values["db-url"] } : {}),
    ...(values["admin-url"] ? { adminUrl: values["admin-url"] } : {}),
    ...(values.url ? { url: values.url } : {}),
    ...(values.key ? { key: values.key } : {}),
  };
}

export function isWanted(options: Options, name: string): boolean {
  return options.only.length === 0 || options.only.some((word) => name.includes(word));
}

/** npm runs the bench in its own folder, and notes where it was called. */
function path(given: string): string {
  return resolve(process.env.INIT_CWD ?? ".", given);
}

function wholeNumber(option: string, given: string, most = 1000): number {
  const number = Number(given);
  if (!Number.isInteger(number) || number < 1 || number > most) {
    throw new Error(`${option} has ${given}; a whole number from 1 to ${most} was expected`);
  }
  return number;
}
