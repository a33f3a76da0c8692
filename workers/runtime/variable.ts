import type { Json } from "./client.ts";
import { env, SettingsError } from "./host.ts";

// A setting is an option of work(), or else the text of its environment variable.

export function whole(
  option: string,
  given: number | undefined,
  variable: string,
  least: number,
  most: number,
): number | undefined {
  const text = given === undefined ? env(variable) : String(given);
  if (text === undefined) {
    return undefined;
  }
  const number = Number(text);
  if (!Number.isInteger(number) || number < least || number > most) {
    throw wrong(given === undefined ? variable : option, text, `a whole number from ${least} to ${most} was expected`);
  }
  return number;
}

/** Seconds that may have a fraction; an option that has no variable. */
export function seconds(option: string, given: number | undefined, least: number, most: number): number | undefined {
  if (given !== undefined && !(given >= least && given <= most)) {
    throw wrong(option, String(given), `a number from ${least} to ${most} was expected`);
  }
  return given;
}

/** One of a few words. */
export function oneOf<Word extends string>(
  option: string,
  given: Word | undefined,
  variable: string,
  words: readonly Word[],
): Word | undefined {
  const text = given ?? env(variable);
  const word = words.find((each) => each === text);
  if (text !== undefined && word === undefined) {
    throw wrong(given === undefined ? variable : option, String(text), `${words.join(" or ")} was expected`);
  }
  return word;
}

export function flag(variable: string): boolean {
  const text = env(variable)?.toLowerCase();
  if (text === undefined || ["0", "false", "no"].includes(text)) {
    return false;
  }
  if (["1", "true", "yes"].includes(text)) {
    return true;
  }
  throw wrong(variable, text, "1 or 0 was expected");
}

/** The names in a variable, separated by commas. */
export function names(variable: string): string[] | undefined {
  return env(variable)
    ?.split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

/** An object, in a variable as JSON. The database checks its members. */
export function object<Kind extends object>(
  option: string,
  given: Kind | undefined,
  variable: string,
  example: string,
): Kind | undefined {
  const text = given === undefined ? env(variable) : JSON.stringify(given);
  if (text === undefined) {
    return undefined;
  }
  const parsed = given ?? parse(text);
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw wrong(given === undefined ? variable : option, text, `a JSON object was expected, such as ${example}`);
  }
  return parsed;
}

/** Refuses an option of another name, which is a typing error most of the time: without it the option would do nothing. */
export function onlyKnown(what: string, given: object, known: readonly string[]): void {
  const unknown = Object.keys(given).find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new SettingsError(`${unknown.slice(0, 60)} is no option of ${what}; its options are ${known.join(", ")}`);
  }
}

export function named(what: string, name: string): string {
  if (name.length < 1 || name.length > 200) {
    throw new SettingsError(`${what} has ${name.length} characters; 1 to 200 were expected`);
  }
  return name;
}

function parse(text: string): Json {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function wrong(name: string, text: string, expected: string): Error {
  return new SettingsError(`${name} is ${text.slice(0, 60)}; ${expected}`);
}
