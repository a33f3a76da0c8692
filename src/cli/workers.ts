import { duration } from "../../workers/runtime/progress.ts";
import { type ListedWorker, workerList } from "../lists/rows.ts";
import type { Command } from "./command.ts";
import { inWords, listCommand, namesOf } from "./list.ts";

export const workers: Command = listCommand<ListedWorker>({
  name: "workers",
  summary: "list workers: what they do, have and hold, and when they were last heard of",
  row: "worker",
  names: namesOf(workerList.columns),
  example: "work-claims workers --where pools=texts --where free --where 'capabilities.gpu_memory_gb>=20'",
  page: (client, selector, options) => client.workers(selector, options),
  head: ["worker", "state", "holds", "work types", "has", "accepts", "last heard of"],
  cells: (row) => [
    row.id,
    stateOf(row),
    row.holds,
    row.work_types?.join(", ") ?? "any",
    inWords(row.capabilities),
    inWords(row.accepts),
    `${duration(Math.max(0, (Date.now() - Date.parse(row.last_seen_at)) / 1000))} ago`,
  ],
});

function stateOf({ alive, free, retired_at }: ListedWorker): string {
  if (retired_at !== null) return "retired";
  if (!alive) return "silent";
  return free ? "free" : "busy";
}
