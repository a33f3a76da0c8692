import type { Claim } from "./claim.ts";
import type { Json } from "./client.ts";
import type { Parked } from "./outcome.ts";
import type { Requirement } from "./requirement.ts";
import type { Context, Handler } from "./run.ts";

/**
 * A work type as defineWork() makes it. `Given` is what is enqueued, `Read` what a handler gets of it, and `Result` what it
 * answers.
 */
export interface DefinedWork<Given = Json, Read = Json, Result = Json> {
  readonly name: string;
  readonly pool: string;
  /** The condition of its items on a worker's capabilities, where an item names no other. */
  readonly requires: Requirement | undefined;
  /** The arguments of define_work_type() in camelCase. */
  readonly rules: object;
  /** Throws where the payload as JSON does not fit the schema, and where it is no JSON. */
  judge(payload: Given, what?: string): Promise<void>;
  /**
   * A handler for work(), whose payload and result are judged. A payload that does not fit fails for good, a result that
   * does not fit fails as any other error.
   */
  handler(handle: (claim: Claim<Read>, context: Context) => Result | Parked | Promise<Result | Parked>): Handler;
}

export function isDefinedWork(given: unknown): given is DefinedWork {
  return given !== null && typeof given === "object" && "handler" in given && "judge" in given;
}
