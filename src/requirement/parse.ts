import { allOf, anyOf, type Clause, type ComparisonClause, comparison, exists, type Form, notOf } from "./clause.ts";
import { isBroken, isObject, membersOf, plainNumber } from "./json.ts";
import { fullName, operators } from "./name.ts";
import { refuse, shown } from "./refusal.ts";
import type { Comparable, Requirement } from "./requirement.ts";
import { checkSize } from "./size.ts";

/** The same requirement where it is one; else a RequirementError. Its sentence begins with `argument`, where given. */
export function parseRequirement(given: unknown, argument = ""): Requirement {
  formOf(given, argument);
  return given as Requirement;
}

/** The form of a requirement: the same for all of its spellings. */
export function formOf(requirement: unknown, argument = ""): Form {
  checkSize(argument, requirement);
  return readRequirement(argument, "", requirement);
}

/** `at` is the place in the requirement, `path` the dotted name that names are nested in. */
function readRequirement(at: string, path: string, requirement: unknown): Form {
  if (!isObject(requirement)) {
    return refuse(at, `expected an object, got ${shown(requirement)}`);
  }
  return allOf(
    membersOf(requirement).flatMap(([name, value]) => {
      const here = at === "" ? name : `${at}.${name}`;
      if (name === "any") {
        return anyOf(readRequirements(here, path, value, 1));
      }
      if (name === "all") {
        return readRequirements(here, path, value, 0).flatMap((form) => form.clauses);
      }
      if (name === "not") {
        return notOf(readRequirement(here, path, value));
      }
      if (operators.has(name)) {
        refuse(here, 'an operator stands in the object of a name, as in {"memory_gb": {">=": 20}}');
      }
      return readCondition(here, fullName(at, path, name), value);
    }),
  );
}

function readRequirements(at: string, path: string, given: unknown, atLeast: 0 | 1): Form[] {
  if (!Array.isArray(given) || given.length < atLeast) {
    const expected = atLeast === 1 ? "a list of one or more objects" : "a list of objects";
    return refuse(at, `expected ${expected}, got ${shown(given)}`);
  }
  return Array.from(given, (each, index) => readRequirement(`${at}[${index}]`, path, each));
}

/** The clauses of `{"path": condition}`. */
function readCondition(at: string, path: string, condition: unknown): readonly Clause[] {
  if (condition === "all") {
    return [];
  }
  if (typeof condition === "string" || typeof condition === "boolean") {
    return [compared(at, path, "==", condition)];
  }
  if (typeof condition === "number") {
    return [compared(at, path, ">=", condition)];
  }
  if (Array.isArray(condition)) {
    return Array.from(condition, (each, index) => contained(`${at}[${index}]`, path, each));
  }
  if (!isObject(condition)) {
    return refuse(at, `expected a text, a number, a boolean, a list or an object, got ${shown(condition)}`);
  }
  const members = membersOf(condition);
  if (!members.some(([name]) => operators.has(name))) {
    return readRequirement(at, path, condition).clauses;
  }
  return members.flatMap(([name, operand]) => readOperator(at, path, name, operand));
}

/** The clauses of `{"operator": operand}` about a path. */
function readOperator(outside: string, path: string, operator: string, operand: unknown): readonly Clause[] {
  const at = `${outside}.${operator}`;
  switch (operator) {
    case "exists":
      if (typeof operand !== "boolean") {
        return refuse(at, `expected true or false, got ${shown(operand)}`);
      }
      return operand ? [exists(path)] : notOf(allOf([exists(path)]));
    case "in":
      if (!Array.isArray(operand) || operand.length === 0) {
        return refuse(at, `expected a list of one or more texts, numbers or booleans, got ${shown(operand)}`);
      }
      return anyOf(Array.from(operand, (each, index) => allOf([contained(`${at}[${index}]`, path, each)])));
    case "==":
      return [contained(at, path, operand)];
    case "!=":
      return notOf(allOf([contained(at, path, operand)]));
    case "<":
    case "<=":
    case ">":
    case ">=":
      if (typeof operand !== "number" && typeof operand !== "string") {
        return refuse(at, `expected a number or a text, got ${shown(operand)}`);
      }
      return [compared(at, path, operator, operand)];
    default:
      return refuse(outside, `operators do not mix with other members in one object, got ${shown(operator)}`);
  }
}

function contained(at: string, path: string, value: unknown): Clause {
  if (typeof value !== "string" && typeof value !== "number" && typeof value !== "boolean") {
    return refuse(at, `expected a text, a number or a boolean, got ${shown(value)}`);
  }
  return compared(at, path, "==", value);
}

function compared(at: string, path: string, operator: ComparisonClause["operator"], value: Comparable): Clause {
  if (typeof value === "string" && isBroken(value)) {
    refuse(at, "a text holds no U+0000 and no half of a character");
  }
  if (typeof value === "string" && [...value].length > 500) {
    refuse(at, "a text has at most 500 characters");
  }
  if (typeof value === "number" && plainNumber(value) === undefined) {
    refuse(at, "a number is below 1e15 and has at most 15 digits and 15 decimals");
  }
  return comparison(path, operator, value);
}
