import type { ListedItem } from "../select/rows.ts";
import type { Command } from "./command.ts";
import { inWords, listCommand } from "./list.ts";

export const items: Command = listCommand<ListedItem>({
  name: "items",
  summary: "list items by any column, label or requirement",
  row: "item",
  names: [
    "id, seq, pool, source_key, dedupe_key, priority, workflow, affinity,",
    "run_after, created_at, labels.NAME, requires.NAME, payload.NAME",
  ],
  example: "work-claims items 'pool=texts,labels.customer=acme,requires.gpu=a100'",
  whole: "payload",
  page: (client, selector, options, withPayload) => client.items(selector, { ...options, withPayload }),
  head: ["item", "pool", "source key", "priority", "workflow", "labels", "requires", "created"],
  cells: (row) => [
    row.id,
    row.pool,
    row.source_key ?? row.dedupe_key,
    row.priority,
    row.workflow,
    inWords(row.labels),
    inWords(row.requires),
    row.created_at.replace(/\.\d+/, ""),
  ],
});
