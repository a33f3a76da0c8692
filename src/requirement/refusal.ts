import { isObject, plainNumber } from "./json.ts";

/** A requirement that is none: where, and what was expected. The database refuses it with the same sentence and code. */
export class RequirementError extends Error {
  override readonly name = "RequirementError";
  readonly code = "PT400";
}

/** `at` is the place of what is wrong, as `any[1].gpu`. */
export function refuse(at: string, sentence: string): never {
  throw new RequirementError(at === "" ? sentence : `${at}: ${sentence}`);
}

/** What was given, as a sentence of refusal shows it. */
export function shown(given: unknown): string {
  if (typeof given === "string") {
    const characters = [...given];
    return JSON.stringify(characters.length > 60 ? `${characters.slice(0, 60).join("")}…` : given);
  }
  if (typeof given === "number") {
    return plainNumber(given) ?? "a number";
  }
  if (Array.isArray(given)) {
    return given.length === 0 ? "an empty list" : "a list";
  }
  if (isObject(given)) {
    return "an object";
  }
  return typeof given === "boolean" || given === null || given === undefined ? `${given}` : "what JSON does not have";
}
