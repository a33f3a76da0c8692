import { claimList, claimOrders, type ListedClaim } from "../lists/rows.ts";
import type { Command } from "./command.ts";
import { inWords, listCommand, namesOf } from "./list.ts";

export const claims: Command = listCommand<ListedClaim>({
  name: "claims",
  summary: "list claims by any column, label or requirement",
  row: "claim",
  names: namesOf(claimList.columns),
  orders: {
    queue: claimOrders.queue,
    newest: claimOrders.newestFailed,
    lease: claimOrders.nextLease,
    due: claimOrders.nextDue,
  },
  example: "work-claims claims --where status=ready --where labels.customer=acme --order queue",
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
    "stale",
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
    row.stale,
    row.error === null ? null : [...row.error].slice(0, 80).join(""),
  ],
});
