import type { Json } from "../answers.ts";
import { type Clause, type Form, literal } from "./clause.ts";
import { judgeClause, valuesAt } from "./judge.ts";
import { formOf } from "./parse.ts";
import type { Comparable, Requirement } from "./requirement.ts";

/** A part of a requirement that is not met: its canonical text, what it needs in words, and what is there. */
export type FailingClause = { clause: string; needs: string; has: Json };

/** Why capabilities do not meet a requirement; empty where they do. */
export function failingClauses(requirement: Requirement, capabilities: Json): FailingClause[] {
  return formOf(requirement)
    .clauses.filter((clause) => judgeClause(clause, capabilities) !== true)
    .map((clause) => ({ clause: clause.text, needs: words(clause), has: has(clause, capabilities) }));
}

function has(clause: Clause, capabilities: Json): Json {
  const found = "path" in clause ? valuesAt(capabilities, clause.path) : [];
  return found.length > 1 ? found : (found[0] ?? null);
}

function words(clause: Clause): string {
  switch (clause.kind) {
    case "comparison":
      return `${clause.path} ${clause.operator === "==" ? "=" : clause.operator} ${valueInWords(clause.value)}`;
    case "exists":
      return `${clause.path} is there`;
    case "any":
      return `one of: ${clause.forms.map(formInWords).join(", ")}`;
    case "not":
      return `not (${formInWords(clause.form)})`;
  }
}

function formInWords({ clauses }: Form): string {
  const [only, second] = clauses;
  if (only && !second) {
    return words(only);
  }
  return (
    clauses.map((clause) => (clause.kind === "any" ? `(${words(clause)})` : words(clause))).join(" and ") || "anything"
  );
}

/** In quotes only where a person could take the text for something else. */
function valueInWords(value: Comparable): string {
  const isPlain =
    typeof value === "string" &&
    /^[A-Za-z_][A-Za-z0-9_.:/-]*$/.test(value) &&
    !["true", "false", "and"].includes(value);
  return isPlain ? value : literal(value);
}
