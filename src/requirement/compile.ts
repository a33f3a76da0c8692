import { type Clause, type Form, literal } from "./clause.ts";
import { formOf } from "./parse.ts";
import type { Requirement } from "./requirement.ts";

/** The canonical text, one for all spellings: `c:gpu=a100,mem=high`. */
export function canonicalRequirement(requirement: Requirement): string {
  return `c:${formOf(requirement).text}`;
}

/** The jsonpath that Postgres judges: `capabilities @@ path`. */
export function compileRequirement(requirement: Requirement): string {
  return pathOf(formOf(requirement));
}

function pathOf(form: Form): string {
  return form.clauses.map(pathOfClause).join(" && ") || "1 == 1";
}

function pathOfClause(clause: Clause): string {
  switch (clause.kind) {
    case "comparison":
      return `${placeOf(clause.path)} ${clause.operator} ${literal(clause.value)}`;
    case "exists":
      return `exists(${placeOf(clause.path)})`;
    case "any":
      return `(${clause.forms.map(pathOf).join(" || ")})`;
    case "not":
      return `!(${pathOf(clause.form)})`;
  }
}

function placeOf(path: string): string {
  return `$${path
    .split(".")
    .map((name) => `.${JSON.stringify(name)}`)
    .join("")}`;
}
