export type { Need } from "../workers/runtime/claim.ts";
export { RequestError } from "../workers/runtime/errors.ts";
export type { ItemOptions, ItemReference, NewItem, Reference } from "../workers/runtime/new-item.ts";
export type { Remaining } from "../workers/runtime/remaining.ts";
export type { Comparable, Comparison, Condition, Requirement } from "../workers/runtime/requirement.ts";
export type * from "./answers.ts";
export { createWorkClient, type WorkClient, type WorkClientOptions } from "./client.ts";
export type { Database } from "./database.types.ts";
export { defineWork, type Work, type WorkDefinition } from "./define-work.ts";
export type { EnqueueManyOptions } from "./enqueue.ts";
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
export { type WaitOptions, WorkFailedError, type WorkResult } from "./results.ts";
export { overSql } from "./sql/client.ts";
export type { SqlLike } from "./sql/connection.ts";
export { type Issue, SchemaError, type StandardSchemaV1 } from "./standard-schema.ts";
export type { SupabaseClientLike } from "./transport.ts";
