/** A text, number or boolean that a capability is compared with. */
export type Comparable = string | number | boolean;

/** Comparisons on one name. All of them must hold. */
export type Comparison = {
  readonly "=="?: Comparable;
  readonly "!="?: Comparable;
  readonly "<"?: string | number;
  readonly "<="?: string | number;
  readonly ">"?: string | number;
  readonly ">="?: string | number;
  readonly in?: readonly Comparable[];
  readonly exists?: boolean;
};

/** A number is a minimum, a list means all of it, "all" asks for nothing, an object compares or nests. */
export type Condition = Comparable | readonly Comparable[] | Comparison | Requirement;

/**
 * An item's condition on a worker's capabilities, or a worker's on an item's labels. All members must hold.
 * An intersection, since an index signature does not admit optional members without exactOptionalPropertyTypes.
 */
export type Requirement = { readonly [name: string]: Condition | readonly Requirement[] } & {
  readonly any?: readonly Requirement[];
  readonly all?: readonly Requirement[];
  readonly not?: Requirement;
};
