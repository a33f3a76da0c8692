// The meaning of a requirement, straight from its definition and apart from src/requirement: what the two faces are
// measured against. True, false, or null for unknown. It expects a well-formed requirement.
import type { Json } from "../src/answers.ts";

type Truth = boolean | null;
type Members = { [name: string]: Json };

const and = (truths: Truth[]): Truth => (truths.includes(false) ? false : truths.includes(null) ? null : true);
const or = (truths: Truth[]): Truth => (truths.includes(true) ? true : truths.includes(null) ? null : false);
const not = (truth: Truth): Truth => (truth === null ? null : !truth);

export function truthOf(requirement: Json, capabilities: Json, prefix: string[] = []): Truth {
  const inner = (each: Json): Truth => truthOf(each, capabilities, prefix);
  return and(
    Object.entries(requirement as Members).map(([name, value]) => {
      if (name === "any") return or((value as Json[]).map(inner));
      if (name === "all") return and((value as Json[]).map(inner));
      if (name === "not") return not(inner(value));
      return truthOfCondition(value, capabilities, [...prefix, ...name.split(".")]);
    }),
  );
}

function truthOfCondition(condition: Json, capabilities: Json, place: string[]): Truth {
  const is = (operator: string, value: Json): Truth => compared(reach(capabilities, place), operator, value);
  if (condition === "all") return true;
  if (typeof condition === "number") return is(">=", condition);
  if (Array.isArray(condition)) return and(condition.map((each) => is("==", each)));
  if (typeof condition !== "object" || condition === null) return is("==", condition);
  if (!Object.keys(condition).some((name) => /^([=!<>]=|[<>]|in|exists)$/.test(name))) {
    return truthOf(condition, capabilities, place);
  }
  return and(
    Object.entries(condition).map(([operator, operand]) => {
      if (operator === "exists") return reach(capabilities, place).length > 0 === operand;
      if (operator === "in") return or((operand as Json[]).map((each) => is("==", each)));
      return operator === "!=" ? not(is("==", operand)) : is(operator, operand);
    }),
  );
}

/** All that stands at a place; a list on the way stands for the objects in it. */
function reach(value: Json, [name, ...rest]: string[]): Json[] {
  if (name === undefined) return [value];
  const objects = (Array.isArray(value) ? value : [value]).filter(
    (each): each is Members => typeof each === "object" && each !== null && !Array.isArray(each),
  );
  return objects.filter((each) => Object.hasOwn(each, name)).flatMap((each) => reach(each[name] as Json, rest));
}

function compared(found: Json[], operator: string, wanted: Json): Truth {
  return or(
    found.flat(1).map((value) => {
      if (value === null) return false;
      if (typeof value !== typeof wanted || typeof value === "object") return null;
      const [a, b] = [ranks(value), ranks(wanted)];
      const at = a.findIndex((rank, index) => rank !== b[index]);
      const order = at === -1 ? a.length - b.length : (a[at] as number) - (b[at] ?? Number.NEGATIVE_INFINITY);
      return {
        "==": order === 0,
        "<": order < 0,
        "<=": order <= 0,
        ">": order > 0,
        ">=": order >= 0,
      }[operator] as boolean;
    }),
  );
}

/** What decides the order of two values of one type: a text's code points, one after the other. */
function ranks(value: Json): number[] {
  return typeof value === "string"
    ? Array.from(value, (character) => character.codePointAt(0) as number)
    : [Number(value)];
}
