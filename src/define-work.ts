import { type DefinedWork, isDefinedWork } from "../workers/runtime/defined-work.ts";
import { FinalError, storedJson } from "../workers/runtime/outcome.ts";
import type { Requirement } from "../workers/runtime/requirement.ts";
import type { Json, WorkTypeRules } from "./answers.ts";
import type { WorkClient } from "./client.ts";
import {
  type InputOf,
  jsonSchemaOf,
  judge,
  type OutputOf,
  SchemaError,
  type StandardSchemaV1,
} from "./standard-schema.ts";

type Rules = NonNullable<Parameters<WorkClient["defineWorkType"]>[1]>;

/** A result of no schema: any JSON. */
type AnyResult = StandardSchemaV1<unknown, Json>;

/** A work type: its name, its schemas, and the rules of define_work_type() in camelCase, some under a shorter name. */
export type WorkDefinition<Payload extends StandardSchemaV1, Result extends StandardSchemaV1> = Omit<
  Rules,
  "pool" | "dependsOn" | "leaseSeconds" | "intoColumn"
> & {
  readonly name: string;
  /**
   * The schema of payloads: of zod, or of another library with the Standard Schema interface. Where the library offers no
   * JSON schema, payloadSchema and resultSchema may say it.
   */
  readonly payload: Payload;
  readonly result?: Result;
  /**
   * The pool of its items: an attached table, another work's pool, or "default". Without it the work type has a pool of
   * its own name, so that no other work type gets its items.
   */
  readonly pool?: string;
  /** The condition of its items on a worker's capabilities, where an item names no other. */
  readonly requires?: Requirement;
  /** Seconds after which another worker may have an item of a worker that is silent. */
  readonly lease?: number;
  /** The work types that must have succeeded on an item before. */
  readonly dependsOn?: readonly (string | { readonly name: string })[];
  /** The column of the attached table that gets each result: "documents.embedding". */
  readonly into?: string;
};

/** A defined work type: see DefinedWork; of a stored result, `ResultRead` is what the schema makes. */
export type Work<Given = unknown, Read = unknown, ResultGiven = unknown, ResultRead = unknown> = DefinedWork<
  Given,
  Read,
  ResultGiven
> & {
  /** Declares the work type, with its rules and its schemas, and its pool. It may be called again, and at every start. */
  declare(client: Pick<WorkClient, "definePool" | "defineWorkType">): Promise<WorkTypeRules>;
  /** A stored result as the schema makes it. */
  read(result: Json): Promise<ResultRead>;
};

/** Defines a work type once for those who enqueue and those who work. */
export function defineWork<Payload extends StandardSchemaV1, Result extends StandardSchemaV1 = AnyResult>(
  definition: WorkDefinition<Payload, Result>,
): Work<InputOf<Payload>, OutputOf<Payload>, InputOf<Result>, OutputOf<Result>> {
  const { name, payload, result, pool = name, requires, lease, dependsOn, into, ...others } = definition;
  if (typeof name !== "string") {
    throw new TypeError(`the name of a work is of type ${typeof name}; a text was expected`);
  }
  checkSchema(name, "payload", payload);
  if (result !== undefined) checkSchema(name, "result", result);
  const rules: Rules = {
    ...others,
    pool,
    leaseSeconds: lease,
    dependsOn: dependsOn?.map((each) => (typeof each === "string" ? each : each.name)),
    intoColumn: into,
    payloadSchema: others.payloadSchema ?? jsonSchemaOf(payload),
    resultSchema: others.resultSchema ?? (result && jsonSchemaOf(result)),
  };
  return {
    name,
    pool,
    requires,
    rules,
    async declare(client) {
      if (definition.pool === undefined) await client.definePool(name);
      return client.defineWorkType(name, rules);
    },
    async judge(given, what = "payload") {
      await judge(what, payload, asStored(what, given));
    },
    read: async (stored) => (result ? judge("result", result, stored) : stored) as Promise<OutputOf<Result>>,
    handler: (handle) => async (claim, context) => {
      const read = await judge("payload", payload, claim.payload).catch(failForGood);
      const answer = await handle({ ...claim, payload: read }, context);
      if (result && !isParked(answer)) await judge("result", result, asStored("result", answer) ?? null);
      return answer;
    },
  };
}

/** Refuses a name in place of a defined work. */
export function checkWork(given: unknown): void {
  if (!isDefinedWork(given)) {
    throw new TypeError(
      `a work that defineWork() makes was expected, and ${typeof given === "string" ? `"${given}"` : `a value of type ${typeof given}`} was given`,
    );
  }
}

function checkSchema(name: string, what: string, schema: StandardSchemaV1): void {
  if (typeof schema?.["~standard"]?.validate !== "function") {
    throw new TypeError(
      `the ${what} of ${name} is no schema; one of zod 3.25 or later, or of another library with the Standard Schema interface, was expected`,
    );
  }
}

/** A Date is a text when it is read again. The database is the judge of the size. */
function asStored(what: string, value: unknown): Json {
  return storedJson(what, value, Number.POSITIVE_INFINITY, "");
}

/** No later try finds another payload. */
function failForGood(error: unknown): never {
  throw error instanceof SchemaError ? new FinalError(error.message) : error;
}

function isParked(answer: unknown): boolean {
  return answer !== null && typeof answer === "object" && "parkedAs" in answer;
}
