import { byCodePoint, plainNumber } from "./json.ts";
import type { Comparable } from "./requirement.ts";

/** What stands at a dotted path, compared with a value. */
export type ComparisonClause = {
  kind: "comparison";
  text: string;
  path: string;
  operator: "==" | "<" | "<=" | ">" | ">=";
  value: Comparable;
};

/** One of what must hold. `text` is its canonical text: clauses of one text are one clause. */
export type Clause =
  | ComparisonClause
  | { kind: "exists"; text: string; path: string }
  | { kind: "any"; text: string; forms: readonly Form[] }
  | { kind: "not"; text: string; form: Form };

/** What holds when all of its clauses hold: sorted, without repeats. */
export type Form = { text: string; clauses: readonly Clause[] };

export function comparison(path: string, operator: ComparisonClause["operator"], value: Comparable): ComparisonClause {
  return { kind: "comparison", text: escaped(path) + comparedWith(operator, value), path, operator, value };
}

export function exists(path: string): Clause {
  return { kind: "exists", text: `${escaped(path)}?`, path };
}

/** None hold always. */
export function allOf(clauses: readonly Clause[]): Form {
  const sorted = sortedByText(clauses);
  return { text: sorted.map((clause) => clause.text).join(","), clauses: sorted };
}

/** The clauses in which one of the forms holds: none where one holds always, its own where there is but one. */
export function anyOf(given: readonly Form[]): readonly Clause[] {
  if (given.some((form) => form.text === "")) {
    return [];
  }
  const flat = given.flatMap((form) => {
    const [only, second] = form.clauses;
    return only?.kind === "any" && !second ? only.forms : [form];
  });
  const possible = flat.filter((form) => form.text !== "not()");
  const forms = sortedByText(possible.length === 0 ? flat : possible);
  const [only, second] = forms;
  if (only && !second) {
    return only.clauses;
  }
  return [{ kind: "any", text: `any(${forms.map((form) => form.text).join("|")})`, forms }];
}

/** The clauses in which a form does not hold; a negation of a negation is what it was. */
export function notOf(form: Form): readonly Clause[] {
  const [only, second] = form.clauses;
  return only?.kind === "not" && !second ? only.form.clauses : [{ kind: "not", text: `not(${form.text})`, form }];
}

function sortedByText<Part extends { text: string }>(parts: readonly Part[]): Part[] {
  const byText = new Map(parts.map((part) => [part.text, part]));
  return [...byText.values()].sort((a, b) => byCodePoint(a.text, b.text));
}

/** With a backslash before what means something in a canonical text. */
function escaped(text: string): string {
  return text.replace(/[\\,=<>()|?"!]/g, "\\$&");
}

function comparedWith(operator: ComparisonClause["operator"], value: Comparable): string {
  if (typeof value !== "string") {
    return operator + literal(value);
  }
  return operator === "==" ? `=${escaped(value)}` : `${operator}"${escaped(value)}"`;
}

/** As JSON and jsonpath write it, numbers without exponent. */
export function literal(value: Comparable): string {
  return (typeof value === "number" && plainNumber(value)) || JSON.stringify(value);
}
