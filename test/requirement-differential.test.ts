// SQL, TypeScript and the plain meaning of a requirement answer alike. SEED and CASES repeat or extend a run.
import { beforeAll, describe, expect, test } from "vitest";
import type { Json } from "../src/answers.ts";
import { openDatabase } from "./database.ts";
import { seed, seeded } from "./random.ts";
import {
  type Answer,
  answersOfDatabase,
  answersOfTypeScript,
  type Case,
  createAnswering,
} from "./requirement-answers.ts";
import { createCases } from "./requirement-cases.ts";
import { truthOf } from "./requirement-judge.ts";
import { createSpellings } from "./requirement-spellings.ts";

const wanted = Number(process.env.CASES ?? 21_000);

/** Each requirement comes in two spellings and once with something wrong. */
type Sample = { kind: "plain" | "respelled" | "mutated"; tree: Json; given: Case; answer: Answer; here: Answer };

describe.each([
  { version: 17, count: wanted },
  { version: 15, count: Math.ceil(wanted / 10) },
] as const)(`on Postgres $version, SEED=${seed}`, async ({ version, count }) => {
  const samples: Sample[] = [];
  const { pick, ...random } = seeded(seed + version);
  const cases = createCases({ pick, ...random });
  const { mutated, written } = createSpellings({ pick, ...random });
  const shown = ({ given, answer }: Sample): string =>
    `SEED=${seed}: ${given.requirement} for ${given.capabilities} is ${JSON.stringify(answer)}`;
  const { owner } = await openDatabase({ version });

  beforeAll(
    async () => {
      await createAnswering(owner);
      while (samples.length < count) {
        const batch = Array.from({ length: 500 }, () => {
          const have = cases.capabilities();
          const plain = cases.requirement(have);
          // Of two things wrong, both faces name the same.
          const wrong = mutated(random.chance(0.5) ? mutated(plain) : plain);
          const trees = { plain, respelled: cases.respelled(plain), mutated: wrong };
          return Object.entries(trees).map(([kind, tree]) => ({
            kind,
            tree,
            given: { requirement: written(tree), capabilities: written(have) },
          }));
        }).flat();
        const given = batch.map((each) => each.given);
        const [database, here] = [await answersOfDatabase(owner, given), await answersOfTypeScript(owner, given)];
        samples.push(
          ...batch.map((each, index) => ({ ...each, answer: database[index], here: here[index] }) as Sample),
        );
      }
    },
    60_000 + count * 10,
  );

  test("SQL and TypeScript give the same canonical text, path, answer, failing clauses or refusal", () => {
    expect(samples.length).toBeGreaterThanOrEqual(count);
    for (const sample of samples) {
      expect(sample.here, shown(sample)).toEqual(sample.answer);
    }
  });

  test("a requirement is met exactly when its meaning is true, and then nothing fails", () => {
    const truths = { true: 0, false: 0, null: 0 };
    for (const sample of samples) {
      if ("matches" in sample.answer) {
        const truth = truthOf(sample.tree, JSON.parse(sample.given.capabilities));
        truths[`${truth}`] += 1;
        expect(sample.answer.matches, shown(sample)).toBe(truth === true);
        expect(sample.answer.failing.length === 0, shown(sample)).toBe(truth === true);
      }
    }
    const all = truths.true + truths.false + truths.null;
    expect(truths.true / all).toBeGreaterThan(0.3);
    expect(truths.false / all).toBeGreaterThan(0.15);
    expect(truths.null / all).toBeGreaterThan(0.05);
  });

  test("another spelling has the same canonical text", () => {
    let compared = 0;
    for (const [index, sample] of samples.entries()) {
      const plain = samples[index - 1];
      // Another spelling may nest deeper or say more than is allowed.
      const isTooMuch = "error" in sample.answer && /nests at most|has at most/.test(sample.answer.error);
      if (sample.kind === "respelled" && plain && !isTooMuch) {
        expect("canonical" in plain.answer && "canonical" in sample.answer, `${shown(plain)}, ${shown(sample)}`).toBe(
          true,
        );
        if ("canonical" in plain.answer && "canonical" in sample.answer) {
          expect(sample.answer.canonical, `${shown(plain)}, ${shown(sample)}`).toBe(plain.answer.canonical);
          compared += sample.given.requirement === plain.given.requirement ? 0 : 1;
        }
      }
    }
    expect(compared / samples.length).toBeGreaterThan(0.2);
  });

  test("requirements of one canonical text have one path and are met by the same capabilities", () => {
    const byText = new Map<string, Sample>();
    const probes = Array.from({ length: 20 }, () => pick(samples)).map(({ given }) => JSON.parse(given.capabilities));
    let pairs = 0;
    for (const sample of samples) {
      if ("canonical" in sample.answer) {
        const first = byText.get(sample.answer.canonical);
        byText.set(sample.answer.canonical, first ?? sample);
        if (first && "path" in first.answer) {
          pairs += 1;
          expect(sample.answer.path, shown(sample)).toBe(first.answer.path);
          for (const probe of [
            ...probes,
            JSON.parse(first.given.capabilities),
            JSON.parse(sample.given.capabilities),
          ]) {
            expect(truthOf(sample.tree, probe) === true, `${shown(first)}, ${shown(sample)}`).toBe(
              truthOf(first.tree, probe) === true,
            );
          }
        }
      }
    }
    expect(pairs).toBeGreaterThan(samples.length / 5);
  });

  test("requirements of different canonical texts have different paths", () => {
    const textOf = new Map<string, string>();
    for (const sample of samples) {
      if ("canonical" in sample.answer) {
        expect(textOf.get(sample.answer.path) ?? sample.answer.canonical, shown(sample)).toBe(sample.answer.canonical);
        textOf.set(sample.answer.path, sample.answer.canonical);
      }
    }
  });

  test("all of the language and many refusals have come up", () => {
    const everything = samples.map(({ given }) => given.requirement).join("\n");
    for (const word of [
      '"any"',
      '"all"',
      '"not"',
      '"in"',
      '"exists"',
      '"=="',
      '"!="',
      '"<"',
      '">="',
      "__proto__",
      "𝒳",
      "1e+14",
      "-0",
      "a.b",
    ]) {
      expect(everything).toContain(word);
    }
    const have = samples.map(({ given }) => given.capabilities).join("\n");
    for (const shape of [/\[\[/, /\[\{/, /null/, /𝒳/, /\{"a": \{/]) {
      expect(have).toMatch(shape);
    }
    const sentences = samples.flatMap(({ answer }) =>
      "error" in answer ? [/(expected|has|nests|stands|do not mix|is a word)\b[^,]*/.exec(answer.error)?.[0]] : [],
    );
    expect(sentences.length / samples.length).toBeGreaterThan(0.1);
    expect(new Set(sentences).size).toBeGreaterThan(12);
  });
});
