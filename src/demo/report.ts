import type { Sql } from "postgres";
import { table } from "../cli/table.ts";
import type { Stack } from "../stack/stack.ts";
import type { DemoWorker } from "./processes.ts";
import { type Check, isExactlyOnce, type TakenBack } from "./record.ts";

/** The work of each worker. */
export async function workersTable(
  sql: Sql,
  workers: readonly DemoWorker[],
  killed: DemoWorker | undefined,
  back: readonly TakenBack[],
): Promise<string> {
  const counts = await sql<{ worker_id: string; done: number }[]>`
    select worker_id, count(*)::int as done from public.demo_log group by worker_id`;
  return table(
    ["worker", "runs on", "texts done", "taken back from it", "done after another's death", ""],
    workers.map((worker) => [
      worker.name,
      worker.host === "node" ? `Node ${process.versions.node}` : "Deno",
      counts.find((row) => row.worker_id === worker.name)?.done ?? 0,
      back.filter((claim) => claim.from === worker.name).length,
      back.filter((claim) => claim.by === worker.name).length,
      worker === killed ? "killed with SIGKILL" : "",
    ]),
  );
}

export function takenBackLines(back: readonly TakenBack[]): string[] {
  if (back.length === 0) return ["nothing was taken back"];
  const done = (claim: TakenBack): string =>
    claim.by === null ? "nobody did it" : `${claim.by} did it, ${claim.secondsLater} s after the lease had been ended`;
  return back.map((claim) => `text ${claim.text}: taken back from ${claim.from}; ${done(claim)}`);
}

export function checkedLines(found: Check): string[] {
  return [
    `checked by SQL: ${found.succeeded} of ${found.texts} texts succeeded, ${found.done_once} of them done exactly once, ` +
      `${found.by_the_last_holder} by the holder of the last fence, ${found.right_results} with their own text's result`,
    isExactlyOnce(found) ? "✓ every row was done exactly once" : "✗ this is not as it should be",
  ];
}

/** Hints for a user who looks at the stack after the run. */
export function lookAtItLines(stack: Stack, statements: readonly string[]): string[] {
  return [
    "",
    "the stack stays up. Look at it:",
    `  $ psql ${stack.dbUrl}`,
    ...statements.flatMap((statement) => statement.split("\n")).map((line) => `    ${line}`),
    `  $ npx work-claims status --url ${stack.url} --key ${stack.secretKey}`,
    "and end it with Ctrl-C here, or from anywhere with:",
    `  $ npx work-claims down --data ${stack.dataDir}`,
  ];
}
