import type { Comparable } from "../../workers/runtime/requirement.ts";
import type { ClaimStatus } from "../answers.ts";
import type { ListedClaim, ListedItem, ListedWorker } from "./rows.ts";

/** Operators on one value; several of them must all hold. */
export type Compared<Value> = {
  readonly "="?: Value;
  readonly "=="?: Value;
  readonly "!="?: Value;
  readonly "<"?: Value;
  readonly "<="?: Value;
  readonly ">"?: Value;
  readonly ">="?: Value;
  readonly in?: readonly Value[];
  readonly exists?: boolean;
};

/** A plain value means equality. */
export type Fitting<Value> = Value | Compared<Value>;

/** A value inside labels or capabilities may have any type. A list means all of its values. */
export type FittingAny = Fitting<Comparable> | readonly Comparable[];

/** Conditions on the columns of a row, and on values inside its objects: all of them must hold. */
export type Selector<Columns, Objects extends string> = {
  readonly [Name in keyof Columns]?: Fitting<Columns[Name]>;
} & {
  readonly [Name in `${Objects}.${string}`]?: FittingAny;
} & {
  readonly any?: readonly Selector<Columns, Objects>[];
  readonly all?: readonly Selector<Columns, Objects>[];
  readonly not?: Selector<Columns, Objects>;
};

/** A time as text, which may be "now", "yesterday" or "10 minutes ago", or as a date. */
type Time = string | Date;

/** The columns of a row as a selector compares them. */
type ColumnsOf<Row, Times extends keyof Row, Others> = {
  [Name in Exclude<keyof Row, Others>]: Name extends Times ? Time : NonNullable<Row[Name]>;
};

export type ItemSelector = Selector<
  ColumnsOf<ListedItem, "run_after" | "created_at", "labels" | "requires" | "payload">,
  "labels" | "requires" | "payload"
>;

export type ClaimSelector = Selector<
  ColumnsOf<
    ListedClaim,
    "due_at" | "claimed_at" | "expires_at" | "finished_at",
    "status" | "labels" | "requires" | "result"
  > & { status: ClaimStatus },
  "labels" | "requires" | "result"
>;

export type WorkerSelector = Selector<
  ColumnsOf<
    ListedWorker,
    "registered_at" | "last_seen_at" | "retired_at",
    "work_types" | "pools" | "exclusive" | "capabilities" | "accepts"
  > & {
    /** It does this work type, or any. */
    work_types: string;
    /** It works for this pool, or any. */
    pools: string;
    /** One of its exclusive capabilities. */
    exclusive: string;
  },
  "capabilities" | "accepts"
>;
