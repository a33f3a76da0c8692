import { isBroken } from "./json.ts";
import { refuse, shown } from "./refusal.ts";

export const operators: ReadonlySet<string> = new Set(["==", "!=", "<", "<=", ">", ">=", "in", "exists"]);
const words = new Set([...operators, "any", "all", "not"]);

/** The dotted name of what is compared. `path` is the name it is nested in, "" at the top. */
export function fullName(at: string, path: string, name: string): string {
  const full = path === "" ? name : `${path}.${name}`;
  if (isBroken(name)) {
    refuse(at, "a name holds no U+0000 and no half of a character");
  }
  if (name === "" || [...full].length > 200) {
    refuse(at, `a name has 1 to 200 characters with those it is nested in, got ${shown(name)}`);
  }
  const segments = name.split(".");
  if (segments.includes("")) {
    refuse(at, `a name has something on both sides of a dot, got ${shown(name)}`);
  }
  const word = segments.find((segment) => words.has(segment));
  if (word !== undefined) {
    refuse(at, `${word} is a word of the language and no part of a name, got ${shown(name)}`);
  }
  return full;
}
