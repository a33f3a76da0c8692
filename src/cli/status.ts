import { parseArgs } from "node:util";
import { duration } from "../../workers/runtime/progress.ts";
import type { StuckRow, WorkerRow } from "../answers.ts";
import { type OverviewRow, shown } from "../overview.ts";
import { type Command, exitCode } from "./command.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";
import { table } from "./table.ts";

/** As long as the database itself takes a silent worker for alive. */
const aliveForMs = 60_000;

/** The number of stuck claims in the output. The view has the rest. */
const stuckShown = 10;

/** "12 s ago", by this machine's clock; null of no time at all, or of -infinity. */
function ago(time: string | null): string | null {
  const at = Date.parse(time ?? "");
  return Number.isNaN(at) ? null : `${duration(Math.max(0, (Date.now() - at) / 1000))} ago`;
}

function overviewTable(rows: readonly OverviewRow[]): string {
  return table(
    [
      "work type",
      "pool",
      "ready",
      "waiting",
      "blocked",
      "claimed",
      "parked",
      "succeeded",
      "failed",
      "cancelled",
      "oldest wait",
      "last minute",
    ],
    rows.map((row) => [
      row.paused ? `${row.work_type} (paused)` : row.work_type,
      row.pool,
      shown(row.ready, row),
      shown(row.waiting, row),
      row.blocked,
      shown(row.claimed, row),
      shown(row.parked, row),
      row.succeeded,
      row.failed,
      row.cancelled,
      row.oldest_wait?.replace(/\.\d+$/, "") ?? null,
      row.finished_last_minute,
    ]),
  );
}

function workersTable(rows: readonly WorkerRow[]): string {
  return table(
    ["worker", "work types", "started", "last heard of"],
    rows.map((row) => [row.id, row.work_types?.join(", ") ?? "any", ago(row.registered_at), ago(row.last_seen_at)]),
  );
}

function stuckTable(rows: readonly StuckRow[]): string {
  return table(
    ["work type", "item", "does not move because", "since"],
    rows.map((row) => [row.work_type, row.item_id, row.reason, ago(row.since)]),
  );
}

export const status: Command = {
  name: "status",
  summary: "how far each work type is, who works, and what does not move",
  options: ["--json  print it as JSON"],
  example: "work-claims status",
  async run(args) {
    const { values } = parseArgs({ args, options: { ...projectOptions, json: { type: "boolean" } } });
    const client = await projectClient(values);
    const [overview, workers, stuck] = await Promise.all([
      client.overview(),
      client.liveWorkers(new Date(Date.now() - aliveForMs)),
      client.stuck({ limit: stuckShown }),
    ]);
    if (values.json) {
      console.log(JSON.stringify({ overview, workers, stuck }));
      return exitCode.fine;
    }
    const parts = [
      overview.length === 0
        ? "no work types; declare one with: work-claims types NAME --pool POOL"
        : overviewTable(overview),
      workers.length === 0 ? "no live workers" : workersTable(workers),
      ...(stuck.length === 0 ? [] : [stuckTable(stuck)]),
    ];
    console.log(parts.join("\n\n"));
    return exitCode.fine;
  },
};
