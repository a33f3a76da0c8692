import { itemList, type ListedItem } from "../lists/rows.ts";
import type { Command } from "./command.ts";
import { inWords, listCommand, namesOf } from "./list.ts";

export const items: Command = listCommand<ListedItem>({
  name: "items",
  summary: "list items by any column, label or requirement",
  row: "item",
  names: namesOf(itemList.columns),
  example: "work-claims items --where pool=texts --where labels.customer=acme",
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
