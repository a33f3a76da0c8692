export type { Remaining } from "../workers/runtime/remaining.ts";
export type * from "./answers.ts";
export { createWorkClient, type WorkClient, type WorkClientOptions } from "./client.ts";
export type { Database } from "./database.types.ts";
export type { Key, Lists, Page, PageOptions } from "./lists/pages.ts";
export { compileSelector, type Filter, type Query, queryString, SelectorError } from "./lists/query.ts";
export {
  claimList,
  claimOrders,
  itemList,
  type ListedClaim,
  type ListedItem,
  type ListedWorker,
  workerList,
} from "./lists/rows.ts";
export type { ClaimSelector, ItemSelector, WorkerSelector } from "./lists/selector.ts";
export type { OverviewRow, Pulse } from "./overview.ts";
export type { Comparable, Comparison, Condition, Requirement } from "./requirement/requirement.ts";
export type { SupabaseClientLike } from "./transport.ts";
