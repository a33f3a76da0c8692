export type * from "./answers.ts";
export { createWorkClient, type WorkClient, type WorkClientOptions } from "./client.ts";
export type { OverviewRow } from "./overview.ts";
export type { Comparable, Comparison, Condition, Requirement } from "./requirement/requirement.ts";
export type { Lists, Page, PageOptions } from "./select/lists.ts";
export { parseSelector, SelectorError } from "./select/parse.ts";
export type { ClaimStatus, ListedClaim, ListedItem, ListedWorker } from "./select/rows.ts";
export type { ClaimSelector, ItemSelector, WorkerSelector } from "./select/selector.ts";
