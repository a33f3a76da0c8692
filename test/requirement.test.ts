import { describe, expect, test } from "vitest";
import { matches, parseRequirement, type Requirement } from "../src/index.ts";
import { openDatabase } from "./database.ts";
import { type Answer, answersOfDatabase, answersOfTypeScript, createAnswering } from "./requirement-answers.ts";

const { owner, sql } = await openDatabase();
await createAnswering(owner);

/** The one answer of both faces. */
async function answerOf(requirement: unknown, capabilities: unknown = {}): Promise<Answer> {
  const asText = (given: unknown): string => (typeof given === "string" ? given : JSON.stringify(given));
  const cases = [{ requirement: asText(requirement), capabilities: asText(capabilities) }];
  const [answer] = await answersOfDatabase(owner, cases);
  expect(await answersOfTypeScript(owner, cases)).toEqual([answer]);
  return answer as Answer;
}

async function canonicalOf(requirement: unknown): Promise<string> {
  const answer = await answerOf(requirement);
  return "error" in answer ? `refused: ${answer.error}` : answer.canonical;
}

async function isMet(requirement: unknown, capabilities: unknown): Promise<boolean> {
  const answer = await answerOf(requirement, capabilities);
  return "matches" in answer && answer.matches;
}

async function sentenceOf(requirement: unknown): Promise<string> {
  const answer = await answerOf(requirement);
  return "error" in answer ? answer.error : `accepted: ${answer.canonical}`;
}

describe("a worker meets a requirement", () => {
  const design = {
    gpu: "a100",
    gpu_memory_gb: 20,
    services: ["comfyui"],
    any: [{ region: "us" }, { region: { in: ["eu", "uk"] } }],
    not: { tier: "spot" },
  };
  const worker = { gpu: "a100", gpu_memory_gb: 80, services: ["comfyui", "ffmpeg"], region: "uk", tier: "reserved" };

  test("of all kinds of clauses, when it has them all", async () => {
    expect(await isMet(design, worker)).toBe(true);
    for (const lacking of [
      { gpu: "h100" },
      { gpu_memory_gb: 16 },
      { services: ["ffmpeg"] },
      { region: "ap" },
      { tier: "spot" },
    ]) {
      expect(await isMet(design, { ...worker, ...lacking }), JSON.stringify(lacking)).toBe(false);
    }
  });

  test.each<[string, unknown, unknown, boolean]>([
    ["nothing is asked", {}, {}, true],
    ["a text is equal", { gpu: "a100" }, { gpu: "a100" }, true],
    ["a text is in the worker's list", { gpu: "a100" }, { gpu: ["h100", "a100"] }, true],
    ["a list in a list is not looked into", { gpu: "a100" }, { gpu: [["a100"]] }, false],
    ["a boolean is equal", { nvlink: true }, { nvlink: true }, true],
    ["a boolean is not the text", { nvlink: true }, { nvlink: "true" }, false],
    ["a number is a minimum", { gpus: 4 }, { gpus: 8 }, true],
    ["a number is a minimum that counts itself", { gpus: 4 }, { gpus: 4 }, true],
    ["a number is not met by less", { gpus: 4 }, { gpus: 3.99 }, false],
    ["a number in a list is equal", { cuda: [11, 12] }, { cuda: [10, 11, 12] }, true],
    ["a number in a list is no minimum", { cuda: [11] }, { cuda: [12] }, false],
    ["a list means all of it", { services: ["a", "b"] }, { services: ["a"] }, false],
    ["an empty list asks for nothing", { services: [] }, {}, true],
    ["all asks for nothing", { gpu: "all" }, {}, true],
    ["the text all can be asked for", { gpu: { "==": "all" } }, {}, false],
    ["the text all in a list is a text", { gpu: ["all"] }, { gpu: "all" }, true],
    ["an empty object asks for nothing", { gpu: {} }, {}, true],
    ["several operators must all hold", { gpus: { ">": 2, "<=": 4 } }, { gpus: 5 }, false],
    ["texts are compared by code point", { name: { ">": "\uffff" } }, { name: "𝒳" }, true],
    ["in is any of them", { region: { in: ["eu", "uk"] } }, { region: "uk" }, true],
    ["a name nests", { hardware: { gpus: 2 } }, { hardware: { gpus: 2 } }, true],
    ["a name is dotted", { "hardware.gpus": 2 }, { hardware: { gpus: 2 } }, true],
    ["a dotted name is no name with a dot", { "hardware.gpus": 2 }, { "hardware.gpus": 2 }, false],
    ["one of a list of objects has it", { "cards.gpu": "a100" }, { cards: [{ gpu: "t4" }, { gpu: "a100" }] }, true],
    [
      "two of a list of objects have it together",
      { cards: { gpu: "a", gb: 9 } },
      { cards: [{ gpu: "a" }, { gb: 9 }] },
      true,
    ],
    ["any within a nest is about its names", { hw: { any: [{ a: 1 }, { b: 1 }] } }, { hw: { b: 1 } }, true],
    ["not of a missing name holds", { not: { tier: "spot" } }, {}, true],
    ["unequal to a missing name holds", { tier: { "!=": "spot" } }, {}, true],
    ["a value of another type meets no condition", { gpus: 4 }, { gpus: "8" }, false],
    ["nor its not", { not: { gpus: 4 } }, { gpus: "8" }, false],
    ["a null is unequal to all", { gpus: { "!=": 4 } }, { gpus: null }, true],
    ["a null is there", { gpus: { exists: true } }, { gpus: null }, true],
    ["what is not there is asked for", { gpus: { exists: false } }, {}, true],
    ["all of several", { all: [{ a: "x" }, { b: "y" }] }, { a: "x" }, false],
    ["not of nothing never holds", { not: {} }, {}, false],
  ])("%s", async (_, requirement, capabilities, met) => {
    expect(await isMet(requirement, capabilities)).toBe(met);
  });

  test("names that objects have by themselves are no capabilities", async () => {
    for (const name of ["__proto__", "constructor", "toString", "length"]) {
      expect(await isMet(`{"${name}": {"exists": true}}`, "{}")).toBe(false);
      expect(await isMet(`{"${name}": "x"}`, `{"${name}": "x"}`)).toBe(true);
    }
  });
});

describe("the canonical text", () => {
  test.each<[unknown, string]>([
    [{}, "c:"],
    [{ mem: "high", gpu: "a100" }, "c:gpu=a100,mem=high"],
    [{ gpu: ["a", "b", "a"] }, "c:gpu=a,gpu=b"],
    [{ nvlink: true, gpus: 4 }, "c:gpus>=4,nvlink==true"],
    [{ nvlink: "true", gpus: { "==": 4 } }, "c:gpus==4,nvlink=true"],
    [{ name: { "<": "b" }, gpus: { "<": 5 } }, 'c:gpus<5,name<"b"'],
    [{ gpu: { exists: true }, tpu: { exists: false } }, "c:gpu?,not(tpu?)"],
    [{ hardware: { gpu: "a100", "disk.gb": 20 } }, "c:hardware.disk.gb>=20,hardware.gpu=a100"],
    [{ any: [{ region: "us" }, { region: { in: ["uk", "eu"] } }] }, "c:any(region=eu|region=uk|region=us)"],
    [{ any: [{ b: "y", a: "x" }, { c: "z" }] }, "c:any(a=x,b=y|c=z)"],
    [{ any: [{ a: "x" }, { a: ["x"] }] }, "c:a=x"],
    [{ any: [{ a: "x" }, {}] }, "c:"],
    [{ any: [{ a: "x" }, { not: {} }] }, "c:a=x"],
    [{ any: [{ not: {} }, { not: { all: [] } }] }, "c:not()"],
    [{ not: { not: { a: "x", b: "y" } } }, "c:a=x,b=y"],
    [{ not: { not: {} } }, "c:"],
    [{ not: { not: { not: { a: "x", b: "y" } } } }, "c:not(a=x,b=y)"],
    [{ tier: { "!=": "spot" } }, "c:not(tier=spot)"],
    [{ all: [{ a: "x" }, { all: [{ a: "x" }, { b: "y" }] }] }, "c:a=x,b=y"],
    [{ 'a,b"c': "=x|y.z", "e!": { "<": '"' } }, 'c:a\\,b\\"c=\\=x\\|y.z,e\\!<"\\""'],
    [{ "": "x" }, 'refused: a name has 1 to 200 characters with those it is nested in, got ""'],
    [{ a: "" }, "c:a="],
    [{ 𝒳: "x", "\uffff": "x" }, "c:\uffff=x,𝒳=x"],
  ])("of %j is %s", async (requirement, canonical) => {
    expect(await canonicalOf(requirement)).toBe(canonical);
  });

  test.each([
    ["20", "20"],
    ["20.0", "20"],
    ["2e1", "20"],
    ["-0", "0"],
    ["-0.0", "0"],
    ["1e-7", "0.0000001"],
    ["-1.50", "-1.5"],
    ["999999999999999", "999999999999999"],
    ["1e14", "100000000000000"],
    ["0.000000000000001", "0.000000000000001"],
    ["0.123456789012345", "0.123456789012345"],
  ])("of the number %s has %s", async (number, written) => {
    expect(await canonicalOf(`{"a": ${number}}`)).toBe(`c:a>=${written}`);
  });
});

describe("what fails", () => {
  test.each<[unknown, unknown, [clause: string, needs: string, has: unknown]]>([
    [{ gpu_memory_gb: 80 }, { gpu_memory_gb: 24 }, ["gpu_memory_gb>=80", "gpu_memory_gb >= 80", 24]],
    [{ gpu: "a100" }, {}, ["gpu=a100", "gpu = a100", null]],
    [{ gpu: "RTX 4090" }, { gpu: ["a", "b"] }, ["gpu=RTX 4090", 'gpu = "RTX 4090"', ["a", "b"]]],
    [{ gpus: { "==": "4" } }, { gpus: 4 }, ["gpus=4", 'gpus = "4"', 4]],
    [{ gpu: { exists: true } }, {}, ["gpu?", "gpu is there", null]],
    [{ gpu: { exists: false } }, { gpu: 1 }, ["not(gpu?)", "not (gpu is there)", null]],
    [
      { region: { in: ["eu", "uk"] } },
      { region: "us" },
      ["any(region=eu|region=uk)", "one of: region = eu, region = uk", null],
    ],
    [
      { not: { tier: "spot", gpus: 1 } },
      { tier: "spot", gpus: 2 },
      ["not(gpus>=1,tier=spot)", "not (gpus >= 1 and tier = spot)", null],
    ],
    [{ not: {} }, {}, ["not()", "not (anything)", null]],
    [{ cards: { gb: 80 } }, { cards: [{ gb: 16 }, { gb: 24 }] }, ["cards.gb>=80", "cards.gb >= 80", [16, 24]]],
    [
      { any: [{ a: "x", any: [{ b: 1 }, { c: 1 }] }, { d: true }] },
      {},
      ["any(a=x,any(b>=1|c>=1)|d==true)", "one of: a = x and (one of: b >= 1, c >= 1), d = true", null],
    ],
  ])("of %j for %j", async (requirement, capabilities, [clause, needs, has]) => {
    expect(await answerOf(requirement, capabilities)).toMatchObject({ failing: [{ clause, needs, has }] });
  });

  test("is named in the order of the canonical text, and only what fails", async () => {
    expect(await answerOf({ c: 1, a: 1, b: 1 }, { b: 1 })).toMatchObject({
      failing: [{ clause: "a>=1" }, { clause: "c>=1" }],
    });
  });
});

describe("a requirement is refused in one sentence:", () => {
  const deep = (levels: number): unknown => (levels === 1 ? {} : { not: deep(levels - 1) });
  const long = "x".repeat(61);
  /** A requirement of so many bytes, as jsonb writes it: it needs 16090 where the last two texts are empty. */
  const ofBytes = (bytes: number): unknown => {
    const texts = Array(16).fill("é".repeat(500));
    return { a: [...texts, "\n".repeat((bytes - 16090) >> 1), "x".repeat(bytes & 1), 1e-7] };
  };
  const refused: [requirement: unknown, sentence: string][] = [
    [[], "expected an object, got an empty list"],
    ["null", "expected an object, got null"],
    [{ gpu: null }, "gpu: expected a text, a number, a boolean, a list or an object, got null"],
    [{ gpu: [null] }, "gpu[0]: expected a text, a number or a boolean, got null"],
    [{ gpu: ["a", ["b"]] }, "gpu[1]: expected a text, a number or a boolean, got a list"],
    [{ gpu_memory_gb: { ">=": true } }, "gpu_memory_gb.>=: expected a number or a text, got true"],
    [{ any: [{}, { gpus: { ">": [] } }] }, "any[1].gpus.>: expected a number or a text, got an empty list"],
    [{ hw: { gpu: { "==": {} } } }, "hw.gpu.==: expected a text, a number or a boolean, got an object"],
    [{ gpu: { in: [] } }, "gpu.in: expected a list of one or more texts, numbers or booleans, got an empty list"],
    [{ gpu: { in: "a" } }, 'gpu.in: expected a list of one or more texts, numbers or booleans, got "a"'],
    [{ gpu: { in: [{}] } }, "gpu.in[0]: expected a text, a number or a boolean, got an object"],
    [{ gpu: { exists: 1 } }, "gpu.exists: expected true or false, got 1"],
    [{ any: [] }, "any: expected a list of one or more objects, got an empty list"],
    [{ any: { a: 1 } }, "any: expected a list of one or more objects, got an object"],
    [{ all: long }, `all: expected a list of objects, got "${"x".repeat(60)}…"`],
    [{ all: ["a"] }, 'all[0]: expected an object, got "a"'],
    [{ not: 2.5 }, "not: expected an object, got 2.5"],
    [{ not: [] }, "not: expected an object, got an empty list"],
    [{ ">=": 2 }, '>=: an operator stands in the object of a name, as in {"memory_gb": {">=": 20}}'],
    [
      { a: { any: [{ in: [2] }] } },
      'a.any[0].in: an operator stands in the object of a name, as in {"memory_gb": {">=": 20}}',
    ],
    [{ gpu: { ">=": 2, b: 1 } }, 'gpu: operators do not mix with other members in one object, got "b"'],
    [{ gpu: { "==": 2, any: [] } }, 'gpu: operators do not mix with other members in one object, got "any"'],
    [{ a: { "": 1 } }, 'a: a name has 1 to 200 characters with those it is nested in, got ""'],
    [{ ["é".repeat(201)]: 1 }, `a name has 1 to 200 characters with those it is nested in, got "${"é".repeat(60)}…"`],
    [{ "a..b": 1 }, 'a name has something on both sides of a dot, got "a..b"'],
    [{ ".": 1 }, 'a name has something on both sides of a dot, got "."'],
    [{ "gpu.any": 1 }, 'any is a word of the language and no part of a name, got "gpu.any"'],
    [{ hw: { "gpu.>=": 1 } }, 'hw: >= is a word of the language and no part of a name, got "gpu.>="'],
    [{ gpu: "x".repeat(501) }, "gpu: a text has at most 500 characters"],
    ['{"gpus": 1e15}', "gpus: a number is below 1e15 and has at most 15 digits and 15 decimals"],
    ['{"gpus": 0.0000000000000001}', "gpus: a number is below 1e15 and has at most 15 digits and 15 decimals"],
    ['{"gpus": 123456789012345.6}', "gpus: a number is below 1e15 and has at most 15 digits and 15 decimals"],
    ['{"any": 1e300}', "any: expected a list of one or more objects, got a number"],
    [{ gpu: Array(101).fill("x") }, "a requirement has at most 100 values"],
    [deep(11), "a requirement nests at most 10 deep"],
    [{ a: { b: [[[[[[[[[]]]]]]]]] } }, "a requirement nests at most 10 deep"],
    [{ all: Array(8192).fill({}) }, "a requirement has at most 16384 bytes as JSON"],
    [`${"[".repeat(5000)}${"]".repeat(5000)}`, "a requirement nests at most 10 deep"],
  ];
  test.each(refused.map(([requirement, sentence]) => [sentence, requirement]))("%s", async (sentence, requirement) => {
    expect(await sentenceOf(requirement)).toBe(sentence);
  });

  test("at the limits it is accepted", async () => {
    const fits: unknown[] = [
      { gpu: Array(100).fill("x") },
      deep(10),
      { ["é".repeat(200)]: "𝒳".repeat(500) },
      { a: { ["b".repeat(198)]: 1 } },
      { all: Array(100).fill({}) },
      ofBytes(16384),
    ];
    for (const requirement of fits) {
      expect(await sentenceOf(requirement)).toMatch(/^accepted: /);
    }
    expect(await sentenceOf(ofBytes(16385))).toMatch(/at most 16384 bytes/);
    expect(await sentenceOf({ all: Array(101).fill({}) })).toMatch(/at most 100 values/);
  });

  test("the sentence begins with the argument's name where there is one", async () => {
    const refusals: [unknown, string][] = [
      [5, "requires: expected an object, got 5"],
      [
        { any: [{ gpu: null }] },
        "requires.any[0].gpu: expected a text, a number, a boolean, a list or an object, got null",
      ],
      [{ "": 1 }, 'requires: a name has 1 to 200 characters with those it is nested in, got ""'],
    ];
    for (const [requirement, sentence] of refusals) {
      const given = sql.json(requirement as never);
      for (const call of [
        sql`select work.compile_requirement(${given}, 'requires')`,
        sql`select work.canonical_requirement(${given}, 'requires')`,
      ]) {
        await expect(call).rejects.toMatchObject({ code: "PT400", message: sentence });
      }
      expect(() => parseRequirement(requirement, "requires")).toThrow(
        expect.objectContaining({ code: "PT400", message: sentence }),
      );
    }
  });

  test("in TypeScript also for what JSON cannot carry", () => {
    const self: Record<string, unknown> = {};
    self.not = self;
    const refusals: [unknown, string][] = [
      [{ a: undefined }, "a: expected a text, a number, a boolean, a list or an object, got undefined"],
      [{ a: new Date(0) }, "a: expected a text, a number, a boolean, a list or an object, got what JSON does not have"],
      [{ a: 1n }, "a: expected a text, a number, a boolean, a list or an object, got what JSON does not have"],
      [{ a: new Array(1) }, "a[0]: expected a text, a number or a boolean, got undefined"],
      [{ a: Number.NaN }, "a: a number is below 1e15 and has at most 15 digits and 15 decimals"],
      [{ a: -Number.POSITIVE_INFINITY }, "a: a number is below 1e15 and has at most 15 digits and 15 decimals"],
      [{ a: "\0" }, "a: a text holds no U+0000 and no half of a character"],
      [{ a: ["\ud800"] }, "a[0]: a text holds no U+0000 and no half of a character"],
      [{ "a\udc00": "x" }, "a name holds no U+0000 and no half of a character"],
      [self, "a requirement has at most 16384 bytes as JSON"],
    ];
    for (const [requirement, sentence] of refusals) {
      expect(() => parseRequirement(requirement)).toThrow(expect.objectContaining({ message: sentence }));
    }
  });
});

describe("a hostile name or text", () => {
  const hostile = [
    '"',
    '\\"',
    "\\",
    '" || 1 == 1 || "" == "',
    '") || (1 == 1',
    '"."',
    "$",
    "$.**",
    "@",
    "'; drop table work_items; --",
    "*/ /*",
    "\\u0022",
    "\\x22",
    "\b\f\n\r\t\v\u0001\u001f\u007f\u0085\u2028\ufeff",
    "\\",
    "𝒳",
    "x,y=z",
    "any(a=x|b=y)",
    "not()",
    "1 == 1",
    "c:",
  ];

  test.each(hostile)("%j stays within its quotes", async (given) => {
    const requirement: Requirement = { a: given, ...(given.includes(".") ? {} : { [given]: { "<": given } }) };
    expect(await isMet(requirement, { a: "x", [given]: "" })).toBe(false);
    expect(await isMet(requirement, { a: given, [given]: "" })).toBe(true);
  });

  test.each<[unknown, unknown]>([
    [{ a: { in: ["x|a=y", "z"] } }, { a: { in: ["x", "y", "z"] } }],
    [{ a: "x,a=y" }, { a: ["x", "y"] }],
    [{ a: "x\\,a=y" }, { a: ["x\\", "y"] }],
    [{ not: { a: "x),not(a=y" } }, { all: [{ not: { a: "x" } }, { not: { a: "y" } }] }],
    [{ a: "=true" }, { a: true }],
    [{ a: "=20" }, { a: { "==": 20 } }],
    [{ "a>": "20" }, { a: 20 }],
    [{ "a=x,b": "y" }, { a: "x", b: "y" }],
    [{ 'a<"x",b': { "<": "y" } }, { a: { "<": "x" }, b: { "<": "y" } }],
    [{ a: { "<": 'x",b<"y' } }, { a: { "<": "x" }, b: { "<": "y" } }],
    [{ "a?,b": { exists: true } }, { a: { exists: true }, b: { exists: true } }],
    [{ "not(a)": { exists: true } }, { a: { exists: false } }],
  ])("%j is not taken for %j", async (one, other) => {
    expect(await canonicalOf(one)).not.toBe(await canonicalOf(other));
  });

  test("no two of them share a canonical text, in either place", async () => {
    const all = hostile.flatMap((given) => [
      { a: given },
      { a: { "<": given } },
      { not: { a: given } },
      ...(given.includes(".") ? [] : [{ [given]: "a" }, { [given]: { exists: true } }]),
      ...hostile.map((other) => ({ a: [given, other] })),
      ...hostile.map((other) => ({ a: { in: [given, other] } })),
    ]);
    const answers = await answersOfDatabase(
      owner,
      all.map((requirement) => ({ requirement: JSON.stringify(requirement), capabilities: "{}" })),
    );
    const paths = new Map<string, string>();
    for (const answer of answers) {
      expect(answer).toHaveProperty("canonical");
      if ("canonical" in answer) {
        expect(paths.get(answer.canonical) ?? answer.path).toBe(answer.path);
        paths.set(answer.canonical, answer.path);
      }
    }
    expect(new Set(paths.values()).size).toBe(paths.size);
  });
});

test("capabilities are compared as they are, also numbers longer than a requirement may have", () => {
  expect(matches({ a: 0.3 }, { a: 0.1 + 0.2 })).toBe(true);
  expect(matches({ a: { "<=": 0.3 } }, { a: 0.1 + 0.2 })).toBe(false);
});

test("service_role alone may ask", async () => {
  const [row] = await sql`
    select bool_and(has_function_privilege('service_role', oid, 'execute')) as granted,
           bool_or(has_function_privilege('anon', oid, 'execute')) as leaked
      from pg_proc where proname in ('compile_requirement', 'canonical_requirement', 'failing_clauses', 'parse_requirement')`;
  expect(row).toEqual({ granted: true, leaked: false });
});
