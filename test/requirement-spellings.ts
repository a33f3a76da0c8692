// JSON that is wrong in places, and JSON text in any spelling.
import type { Json } from "../src/answers.ts";
import type { seeded } from "./random.ts";

/** The same values in another order. */
export function shuffle<Value>(values: readonly Value[], random: () => number): Value[] {
  return values
    .map((value) => ({ value, rank: random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ value }) => value);
}

export function createSpellings(random: ReturnType<typeof seeded>): {
  mutated: (requirement: Json) => Json;
  written: (value: Json) => string;
} {
  const { chance, below, pick } = random;
  const shuffled = <Value>(values: readonly Value[]): Value[] => shuffle(values, random.random);

  /** With something wrong in it, or something else. */
  function mutated(given: Json): Json {
    const junk = (): Json =>
      pick<Json>([
        null,
        {},
        [],
        5,
        -0.5,
        "20GB",
        true,
        [[]],
        [{}],
        { in: [] },
        { ">=": 1, a: 1 },
        { "<": true },
        { not: 1 },
        { any: [] },
        { all: {} },
        1e15,
        1e-16,
        1234567890123456,
        1e300,
        5e-324,
        { exists: "yes" },
        "y".repeat(501),
        "𝒳".repeat(61),
        { "==": null },
        [null],
        { "!=": [1] },
      ]);
    if (typeof given !== "object" || given === null || chance(0.12)) return junk();
    if (Array.isArray(given)) {
      const at = below(given.length + 1);
      return at === given.length
        ? [...given, junk()]
        : given.map((each, index) => (index === at ? mutated(each) : each));
    }
    const entries = Object.entries(given);
    const at = below(entries.length);
    const [name, value] = entries[at] ?? ["a", 1];
    const others = entries.filter((_, index) => index !== at);
    if (chance(0.3)) {
      const renamed = pick([
        "",
        ".",
        "a.",
        "a..b",
        "any",
        "all",
        "not",
        "in",
        "==",
        ">",
        "exists",
        "a.any",
        "in.b",
        `${name}.==`,
        "n".repeat(199),
        `é${"n".repeat(200)}`,
        "𝒳".repeat(100),
      ]);
      return Object.fromEntries([...others, [renamed, value]]);
    }
    return Object.fromEntries(shuffled([...others, [name, mutated(value)] as [string, Json]]));
  }

  /** JSON with its members in any order and its numbers and characters in any spelling. */
  function written(value: Json): string {
    if (Array.isArray(value)) return `[${value.map(written).join(",")}]`;
    if (typeof value === "object" && value !== null) {
      return `{${shuffled(Object.entries(value))
        .map(([name, each]) => `${written(name)}: ${written(each)}`)
        .join(",")}}`;
    }
    if (typeof value === "number") {
      const [mantissa = "", exponent] = value.toExponential().split("e");
      const longer = mantissa.includes(".") ? `${mantissa}0` : `${mantissa}.0`;
      return value === 0 && chance(0.3)
        ? "-0"
        : pick([String(value), `${mantissa}e${exponent}`, `${longer}E${exponent}`]);
    }
    return typeof value === "string" && chance(0.05)
      ? `"${Array.from({ length: value.length }, (_, index) => `\\u${value.charCodeAt(index).toString(16).padStart(4, "0")}`).join("")}"`
      : JSON.stringify(value);
  }

  return { mutated, written };
}
