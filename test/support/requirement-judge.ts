// The meaning of a requirement, straight from docs/matching.md: the tests measure Postgres against it.
import type { Json } from "../../src/answers.ts";

type Truth = boolean | "unknown";
type Members = { [name: string]: Json };

const and = (truths: Truth[]): Truth => not(or(truths.map(not)));
const or = (truths: Truth[]): Truth => truths.includes(true) || (truths.includes("unknown") && "unknown");
const not = (truth: Truth): Truth => (truth === "unknown" ? truth : !truth);

/** Whether capabilities meet a requirement. It expects a well-formed one. */
export function matches(requirement: unknown, capabilities: unknown): boolean {
  return truthOf(requirement as Json, capabilities as Json, []) === true;
}

function truthOf(requirement: Json, capabilities: Json, place: string[]): Truth {
  const inner = (each: Json): Truth => truthOf(each, capabilities, place);
  const is = (operator: string, value: Json): Truth => compared(reach(capabilities, place), operator, value);
  return and(
    Object.entries(requirement as Members).map(([name, value]) => {
      if (name === "any") return or((value as Json[]).map(inner));
      if (name === "all") return and((value as Json[]).map(inner));
      if (name === "not") return not(inner(value));
      if (name === "exists") return reach(capabilities, place).length > 0 === value;
      if (name === "in") return or((value as Json[]).map((each) => is("==", each)));
      if (name === "!=") return not(is("==", value));
      if (/^[<>=]/.test(name)) return is(name === "=" ? "==" : name, value);
      return truthOf(conditionOf(value), capabilities, [...place, ...name.split(".")]);
    }),
  );
}

/** A condition in the words of operators. */
function conditionOf(value: Json): Json {
  if (value === "all") return {};
  if (typeof value === "number") return { ">=": value };
  if (Array.isArray(value)) return { all: value.map((each) => ({ "==": each })) };
  return typeof value === "object" ? value : { "==": value };
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
    found.flat(1).map((value): Truth => {
      if (value === null) return false;
      if (typeof value !== typeof wanted || typeof value === "object") return "unknown";
      const order =
        typeof value === "string"
          ? Buffer.compare(Buffer.from(value), Buffer.from(wanted as string))
          : Number(value) - Number(wanted);
      return (
        (operator.includes("=") && order === 0) || (operator[0] === "<" ? order < 0 : operator[0] === ">" && order > 0)
      );
    }),
  );
}
