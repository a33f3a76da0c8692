export type * from "./answers.ts";
export { createWorkClient, type WorkClient, type WorkClientOptions } from "./client.ts";
export type { OverviewRow } from "./overview.ts";
export { canonicalRequirement, compileRequirement } from "./requirement/compile.ts";
export { type FailingClause, failingClauses } from "./requirement/explain.ts";
export { matches } from "./requirement/judge.ts";
export { parseRequirement } from "./requirement/parse.ts";
export { RequirementError } from "./requirement/refusal.ts";
export type { Comparable, Comparison, Condition, Requirement } from "./requirement/requirement.ts";
