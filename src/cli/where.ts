import { RequestError } from "../../workers/runtime/errors.ts";
import type { Comparable } from "../../workers/runtime/requirement.ts";
import { SelectorError } from "../lists/query.ts";
import { WrongUsage } from "./command.ts";

/** The option of the commands that choose rows, for parseArgs. */
export const whereOption = { where: { type: "string", multiple: true } } as const;

/** Its lines for --help. */
export const whereHelp: readonly string[] = [
  "--where CONDITION  NAME=VALUE, or != < <= > >=; NAME=A|B for any of several, NAME alone where",
  "                   it has one, !NAME where it has none; all conditions must hold",
];

type Condition = { [operator: string]: unknown };
type AnySelector = { [name: string]: Condition | AnySelector[] };

/** The selector of conditions as people type them. */
export function parseWhere(conditions: readonly string[]): AnySelector {
  const selector: { [name: string]: Condition } = Object.create(null);
  const repeated: AnySelector[] = [];
  for (const text of conditions) {
    const [name, condition] = parseCondition(text);
    const known = selector[name] ?? {};
    // One object holds an operator once.
    if (Object.keys(condition).some((operator) => operator in known)) repeated.push({ [name]: condition });
    else selector[name] = { ...known, ...condition };
  }
  return { ...selector, ...(repeated.length > 0 ? { all: repeated } : {}) };
}

function parseCondition(text: string): [string, Condition] {
  const [, not = "", name = "", operator, value = ""] =
    /^\s*(!?)\s*([^=<>!]+?)\s*(?:(!=|<=|>=|==|=|<|>)(.*))?$/s.exec(text) ?? [];
  if (name === "" || (not !== "" && operator !== undefined)) {
    throw new WrongUsage(`--where ${text}: a condition was expected, such as status=ready or priority>=5`);
  }
  if (operator === undefined) return [name, { exists: not === "" }];
  const values = valuesOf(text, name, value.trim());
  if (values.length === 1) return [name, { [operator]: values[0] }];
  if (!operator.endsWith("=") || operator.length > 1 + Number(operator === "==")) {
    throw new WrongUsage(`--where ${text}: ${operator} compares with one value; A|B goes with =`);
  }
  return [name, { in: values }];
}

/** A text in quotes, as in JSON, is that text. Inside an object 5 is a number and true a boolean. */
function valuesOf(text: string, name: string, value: string): Comparable[] {
  if (value.startsWith('"')) {
    try {
      return [String(JSON.parse(value))];
    } catch {
      throw new WrongUsage(`--where ${text}: between quotes a text was expected as JSON writes it`);
    }
  }
  return value.split("|").map((one) => {
    const bare = one.trim();
    if (bare === "") throw new WrongUsage(`--where ${text}: a value was expected, or "" for an empty text`);
    if (!name.includes(".")) return bare;
    if (bare === "true" || bare === "false") return bare === "true";
    return /^-?(0|[1-9]\d*)(\.\d+)?$/.test(bare) ? Number(bare) : bare;
  });
}

/** The database's refusals of a value or a column. */
const mistyped = ["22P02", "22007", "22008", "22003", "42703", "42883", "PGRST100"];

/** Runs a read with a person's filter: a filter that cannot be asked was typed wrongly. */
export async function asked<Answer>(read: () => Promise<Answer>): Promise<Answer> {
  try {
    return await read();
  } catch (error) {
    const isMistyped =
      error instanceof SelectorError || (error instanceof RequestError && mistyped.includes(error.code));
    throw isMistyped ? new WrongUsage(error.message) : error;
  }
}
