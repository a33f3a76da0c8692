// The interface that schema libraries share (https://standardschema.dev), as far as it is used here: zod 3.25 and later,
// Valibot, ArkType and others have it.

export interface StandardSchemaV1<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => Judged<Output> | Promise<Judged<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
    /** Libraries that can say the schema as a JSON schema. */
    readonly jsonSchema?:
      | { readonly input: (options: { target: string; libraryOptions?: Record<string, unknown> }) => object }
      | undefined;
  };
}

export type Judged<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly Issue[] };

export type Issue = {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
};

/** The value that a schema takes, and the one that it makes of it. */
export type InputOf<Schema extends StandardSchemaV1> = NonNullable<Schema["~standard"]["types"]>["input"];
export type OutputOf<Schema extends StandardSchemaV1> = NonNullable<Schema["~standard"]["types"]>["output"];

/** A value does not fit its schema. The message names the path of each wrong member. */
export class SchemaError extends Error {
  override readonly name = "SchemaError";
  readonly issues: readonly Issue[];

  constructor(what: string, issues: readonly Issue[]) {
    super(
      issues
        .slice(0, 10)
        .map((issue) => `${pathOf(what, issue)}: ${issue.message}`)
        .join("; "),
    );
    this.issues = issues;
  }
}

/** The value as the schema makes it. Throws where it does not fit. */
export async function judge<Schema extends StandardSchemaV1>(
  what: string,
  schema: Schema,
  value: unknown,
): Promise<OutputOf<Schema>> {
  const judged = await schema["~standard"].validate(value);
  if (judged.issues) {
    throw new SchemaError(what, judged.issues);
  }
  return judged.value as OutputOf<Schema>;
}

/** The schema of the values that it takes, where its library can say it. */
export function jsonSchemaOf(schema: StandardSchemaV1): object | undefined {
  try {
    return schema["~standard"].jsonSchema?.input({
      target: "draft-2020-12",
      // In zod: a date or another type that JSON has not takes any value.
      libraryOptions: { unrepresentable: "any" },
    });
  } catch {
    return undefined; // The schema serves forms only: work is judged without it.
  }
}

/** payload.pages[2].text */
function pathOf(what: string, { path = [] }: Issue): string {
  return path
    .map((segment) => (typeof segment === "object" ? segment.key : segment))
    .reduce<string>((place, key) => {
      if (typeof key === "number") return `${place}[${key}]`;
      return /^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(String(key))
        ? `${place}.${String(key)}`
        : `${place}[${JSON.stringify(String(key))}]`;
    }, what);
}
