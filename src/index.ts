export type * from "./answers.ts";
export { createWorkClient, type WorkClient, type WorkClientOptions } from "./client.ts";
export type { OverviewRow } from "./overview.ts";
