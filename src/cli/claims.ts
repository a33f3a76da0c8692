import type { ListedClaim } from "../select/rows.ts";
import type { Command } from "./command.ts";
import { inWords, listCommand } from "./list.ts";

export const claims: Command = listCommand<ListedClaim>({
  name: "claims",
  summary: "list claims by any column, label or requirement",
  row: "claim",
  names: [
    "item_id, work_type, status, pool, source_key, priority, position, workflow,",
    "affinity, worker_id, fence, request_id, failures, crashes, progress, error, due_at,",
    "claimed_at, expires_at, finished_at, labels.NAME, requires.NAME, result.NAME",
  ],
  example: "work-claims claims 'status=ready,labels.customer=acme,priority>=5'",
  whole: "result",
  page: (client, selector, options, withResult) => client.claims(selector, { ...options, withResult }),
  head: [
    "item",
    "work type",
    "status",
    "pool",
    "source key",
    "priority",
    "worker",
    "failures",
    "crashes",
    "labels",
    "error",
  ],
  cells: (row) => [
    row.item_id,
    row.work_type,
    row.status,
    row.pool,
    row.source_key,
    row.priority,
    row.worker_id,
    row.failures,
    row.crashes,
    inWords(row.labels),
    row.error === null ? null : [...row.error].slice(0, 80).join(""),
  ],
});
