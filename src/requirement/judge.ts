import type { Json } from "../answers.ts";
import type { Clause, ComparisonClause, Form } from "./clause.ts";
import { byCodePoint, isObject } from "./json.ts";
import { formOf } from "./parse.ts";
import type { Requirement } from "./requirement.ts";

/** What a condition is when it is judged: a value of another type decides nothing, neither the condition nor its not. */
type Judgement = true | false | "unknown";

/** Whether capabilities meet a requirement: the answer that Postgres gives. */
export function matches(requirement: Requirement, capabilities: Json): boolean {
  return judge(formOf(requirement), capabilities) === true;
}

function judge(form: Form, capabilities: Json): Judgement {
  return not(anyTrue(form.clauses.map((clause) => not(judgeClause(clause, capabilities)))));
}

export function judgeClause(clause: Clause, capabilities: Json): Judgement {
  switch (clause.kind) {
    case "comparison":
      return anyTrue(
        valuesAt(capabilities, clause.path)
          .flat()
          .map((value) => compare(clause, value)),
      );
    case "exists":
      return valuesAt(capabilities, clause.path).length > 0;
    case "any":
      return anyTrue(clause.forms.map((form) => judge(form, capabilities)));
    case "not":
      return not(judge(clause.form, capabilities));
  }
}

/** What stands at a dotted path. Of a list on the way, what stands there in each object in it, one level deep. */
export function valuesAt(capabilities: Json, path: string): Json[] {
  return path
    .split(".")
    .reduce<Json[]>((found, name) => found.flat().flatMap((each) => memberOf(each, name)), [capabilities]);
}

/** In a list, so that a member that is a list stays one. */
function memberOf(value: Json, name: string): [Json] | [] {
  const member = isObject(value) && Object.hasOwn(value, name) ? (value[name] as Json) : undefined;
  return member === undefined ? [] : [member];
}

function compare({ operator, value: wanted }: ComparisonClause, given: Json): Judgement {
  if (given === null) {
    return false;
  }
  if (typeof given !== typeof wanted) {
    return "unknown";
  }
  const order = typeof given === "string" ? byCodePoint(given, wanted as string) : Number(given) - Number(wanted);
  switch (operator) {
    case "==":
      return order === 0;
    case "<":
      return order < 0;
    case "<=":
      return order <= 0;
    case ">":
      return order > 0;
    case ">=":
      return order >= 0;
  }
}

function anyTrue(judgements: readonly Judgement[]): Judgement {
  if (judgements.includes(true)) {
    return true;
  }
  return judgements.includes("unknown") ? "unknown" : false;
}

function not(judgement: Judgement): Judgement {
  return judgement === "unknown" ? "unknown" : !judgement;
}
