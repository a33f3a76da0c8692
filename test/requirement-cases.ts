// Random capabilities and requirements: few names and values, so that they often meet.
import type { Json } from "../src/answers.ts";
import type { seeded } from "./random.ts";
import { shuffle } from "./requirement-spellings.ts";

type Random = ReturnType<typeof seeded>;
type Members = { [name: string]: Json };

const names = ["a", "b", "c", "d", "ab", "a b"];
const hostileNames = [
  'x"y',
  "k,v",
  "p=q",
  "n(m)",
  "\\",
  "$",
  "@",
  "1",
  "__proto__",
  "toString",
  "é",
  "𝒳",
  "\uffff",
  "\n\u0001",
  "c:",
  "'|?!",
];
const texts = ["x", "y", "xy", "z"];
const hostileTexts = [
  "",
  "all",
  "true",
  "20",
  "=x",
  'x"',
  "\\",
  '" || 1 == 1',
  "x,y",
  "any(x|y)",
  "é",
  "𝒳",
  "\uffff",
  "\ue000",
  "\t\u007f",
  "not()",
];
const numbers = [0, 1, 2, 3, 20, -1, 0.5, 1.25, 1e-7, 1e14, 999999999999999];
const orders = ["<", "<=", ">", ">="];

export function createCases(random: Random): {
  capabilities: () => Members;
  requirement: (capabilities: Members) => Members;
  respelled: (requirement: Members) => Members;
} {
  const { chance, below, pick } = random;
  const times = <Value>(count: number, make: () => Value): Value[] => Array.from({ length: count }, make);
  // Not by assignment: one of the names is __proto__.
  const members = (entries: [string, Json][]): Members => Object.fromEntries(entries);
  const aName = (): string => (chance(0.07) ? pick(hostileNames) : pick(names));
  const aText = (): string => (chance(0.15) ? pick(hostileTexts) : pick(texts));
  const aScalar = (): string | number | boolean => (chance(0.45) ? aText() : chance(0.8) ? pick(numbers) : chance(0.5));
  const shuffled = <Value>(values: readonly Value[]): Value[] => shuffle(values, random.random);

  function aValue(depth: number): Json {
    const kind = random.random();
    if (kind < 0.5 || depth > 3) return chance(0.08) ? null : aScalar();
    return kind < 0.75 ? times(below(4), () => aValue(depth + 1)) : anObject(depth + 1);
  }
  const anObject = (depth: number): Members => members(times(1 + below(5), () => [aName(), aValue(depth)]));

  /** A place in these capabilities and what is there, or one that need not be. */
  function aPlace(capabilities: Json): { place: string[]; there: Json | undefined } {
    const here = Array.isArray(capabilities) && capabilities.length > 0 ? pick(capabilities) : capabilities;
    if (
      typeof here !== "object" ||
      here === null ||
      Array.isArray(here) ||
      Object.keys(here).length === 0 ||
      chance(0.12)
    ) {
      return { place: times(1 + below(2), aName), there: undefined };
    }
    const [name, value] = pick(Object.entries(here));
    if (typeof value !== "object" || value === null || (Array.isArray(value) && chance(0.6)) || chance(0.15)) {
      return { place: [name], there: value };
    }
    const inner = aPlace(value);
    return { place: [name, ...inner.place], there: inner.there };
  }

  /** A condition that what is there often meets. */
  function aCondition(there: Json | undefined): Json {
    const element = Array.isArray(there) && there.length > 0 ? pick(there) : there;
    const like = typeof element === "object" || element === undefined || chance(0.1) ? aScalar() : element;
    const kind = random.random();
    if (kind < 0.35) return like;
    if (kind < 0.42) return times(below(3), () => (chance(0.7) ? like : aScalar()));
    if (kind < 0.44) return pick<Json>(["all", {}, []]);
    const operators = times(chance(0.85) ? 1 : 2, (): [string, Json] => {
      const operator = pick(["==", "!=", "in", "exists", "<=", ">=", ...orders]);
      if (operator === "exists") return [operator, chance(0.75) === (there !== undefined)];
      if (operator === "in") return [operator, shuffled([like, ...times(below(3), aScalar)])];
      if (operator === "!=") return [operator, chance(0.8) ? aScalar() : like];
      return [operator, orders.includes(operator) && typeof like === "boolean" ? aText() : like];
    });
    return members(operators);
  }

  /** Nested, dotted, or both. */
  function nested([name = "a", ...rest]: string[], condition: Json): [string, Json] {
    if (rest.length === 0) return [name, condition];
    const [inner, value] = nested(rest, condition);
    return chance(0.5) ? [`${name}.${inner}`, value] : [name, members([[inner, value]])];
  }

  function requirement(capabilities: Json, depth = 0): Members {
    const several = (): Json[] => times(1 + below(3), () => requirement(capabilities, depth + 1));
    return members(
      times(chance(0.03) ? 0 : 1 + below(chance(0.3) ? 3 : 2), (): [string, Json] => {
        const kind = depth < 3 ? random.random() : 1;
        if (kind < 0.1) return ["any", several()];
        if (kind < 0.16) return ["all", several()];
        // Mostly about others, so that it often holds.
        if (kind < 0.27) return ["not", requirement(chance(0.7) ? anObject(1) : capabilities, depth + 1)];
        if (kind < 0.36) {
          const objects = Object.entries(capabilities as Members).filter(
            ([, value]) => typeof value === "object" && value !== null && !Array.isArray(value),
          );
          const [name, inner] = objects.length === 0 ? [aName(), {}] : pick(objects);
          return [name, requirement(inner, depth + 1)];
        }
        const { place, there } = aPlace(capabilities);
        return nested(place, aCondition(there));
      }),
    );
  }

  /** The same requirement in other words. */
  function respelled(given: Json): Members {
    const parts = shuffled(Object.entries(given as Members).flatMap(([name, value]) => respelledMember(name, value)));
    const repeated = parts.length > 0 && chance(0.2) ? [...parts, pick(parts)] : parts;
    const idle = chance(0.1) ? [...repeated, members([[aName(), pick<Json>(["all", {}, [], { all: [] }])]])] : repeated;
    const keys = idle.flatMap((part) => Object.keys(part));
    const whole =
      new Set(keys).size === keys.length && chance(0.7) ? Object.assign(Object.create(null), ...idle) : { all: idle };
    return chance(0.08) ? { not: { not: whole } } : members(Object.entries(whole));
  }

  function respelledMember(name: string, value: Json): Members[] {
    if (name === "all")
      return chance(0.5) ? (value as Json[]).map(respelled) : [{ all: (value as Json[]).map(respelled) }];
    if (name === "not") return [{ not: respelled(value) }];
    if (name === "any") {
      const options = shuffled((value as Json[]).map(respelled));
      const grouped = chance(0.3) ? [{ any: options }, pick(options)] : options;
      return [{ any: chance(0.2) ? [...grouped, { not: {} }] : grouped }];
    }
    const place = name.split(".");
    return respelledCondition(value).map((each) =>
      "condition" in each
        ? members([nested(place, each.condition)])
        : {
            [each.word]:
              each.word === "not"
                ? members([nested(place, each.of[0] as Json)])
                : each.of.map((one) => members([nested(place, one)])),
          },
    );
  }

  type Part = { condition: Json } | { word: "any" | "not"; of: Json[] };

  function respelledCondition(condition: Json): Part[] {
    if (condition === "all") return [];
    if (typeof condition === "number") return [{ condition: chance(0.5) ? condition : { ">=": condition } }];
    if (Array.isArray(condition)) return shuffled(condition).flatMap(equal);
    if (typeof condition !== "object" || condition === null) return equal(condition);
    const entries = Object.entries(condition);
    if (!entries.some(([name]) => ["==", "!=", "in", "exists", ...orders].includes(name))) {
      return [{ condition: respelled(condition) }];
    }
    return entries.flatMap(([operator, operand]): Part[] => {
      if (operator === "==") return equal(operand);
      if (operator === "!=" && chance(0.5)) return [{ word: "not", of: [{ "==": operand }] }];
      if (operator === "in" && chance(0.6))
        return [{ word: "any", of: (operand as Json[]).map((each) => ({ "==": each })) }];
      if (operator === "in")
        return [{ condition: { in: shuffled([...(operand as Json[]), pick(operand as Json[])]) } }];
      if (operator === "exists" && chance(0.5))
        return [operand === true ? { condition } : { word: "not", of: [{ exists: true }] }].map(
          (part) => ("condition" in part ? { condition: { exists: true } } : part) as Part,
        );
      return [{ condition: { [operator]: operand } }];
    });
  }

  function equal(value: Json): Part[] {
    const isBare = typeof value !== "number" && value !== "all";
    return [{ condition: isBare && chance(0.4) ? value : pick<Json>([[value], { "==": value }, { in: [value] }]) }];
  }

  const depthOf = (value: Json): number =>
    typeof value === "object" && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0;

  /** Some spellings nest deeper than is allowed. */
  function respelledWithinLimits(given: Members): Members {
    return times(5, () => respelled(given)).find((each) => depthOf(each) <= 10) ?? given;
  }

  return { capabilities: () => anObject(0), requirement, respelled: respelledWithinLimits };
}
