import { describe, expect, test } from "vitest";
import type { Json } from "../src/answers.ts";
import { openDatabase } from "./support/database.ts";
import { seed, seeded } from "./support/random.ts";
import { matches } from "./support/requirement-judge.ts";

const { owner, sql } = await openDatabase();

interface Form {
  tag: string;
  path: string;
  clauses: { path: string; needs: string; place?: string }[];
}

const asText = (given: unknown): string => (typeof given === "string" ? given : JSON.stringify(given));

async function parse(requirement: unknown, argument = "requires"): Promise<Form> {
  const [row] = await sql<{ form: Form }[]>`
    select work.parse_requirement(${asText(requirement)}::text::jsonb, ${argument}) as form`;
  return row?.form as Form;
}

async function isMet(requirement: unknown, capabilities: unknown): Promise<boolean> {
  const { path } = await parse(requirement);
  const [row] = await sql`select ${asText(capabilities)}::text::jsonb @@ ${path}::text::jsonpath is true as met`;
  return row?.met;
}

/** The sentence that refuses a requirement, without the argument's name. */
async function sentenceOf(requirement: unknown): Promise<string> {
  return parse(requirement).then(
    ({ tag }) => `accepted: ${tag}`,
    (error) => (error.code === "PT400" ? error.message.replace(/^requires\.?/, "") : `${error.code} ${error.message}`),
  );
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
    ["a list in a list is not searched", { gpu: "a100" }, { gpu: [["a100"]] }, false],
    ["a boolean is equal", { nvlink: true }, { nvlink: true }, true],
    ["a boolean is not the text", { nvlink: true }, { nvlink: "true" }, false],
    ["a number is a minimum", { gpus: 4 }, { gpus: 8 }, true],
    ["a number is a minimum that counts itself", { gpus: 4 }, { gpus: 4 }, true],
    ["a number is not met by less", { gpus: 4 }, { gpus: 3.99 }, false],
    ["a number in a list is equal", { cuda: [11, 12] }, { cuda: [10, 11, 12] }, true],
    ["a number in a list is no minimum", { cuda: [11] }, { cuda: [12] }, false],
    ["a list means all of it", { services: ["a", "b"] }, { services: ["a"] }, false],
    ["all asks for nothing", { gpu: "all" }, {}, true],
    ["the text all can be asked for", { gpu: { "==": "all" } }, {}, false],
    ["the text all in a list is a text", { gpu: ["all"] }, { gpu: "all" }, true],
    ["one equals sign is two", { gpus: { "=": 4 } }, { gpus: 4 }, true],
    ["one equals sign is no minimum", { gpus: { "=": 4 } }, { gpus: 8 }, false],
    ["several operators must all hold", { gpus: { ">": 2, "<=": 4 } }, { gpus: 5 }, false],
    ["operators nest in any", { gpus: { any: [{ "<": 2 }, { ">": 8 }] } }, { gpus: 9 }, true],
    ["operators nest in not", { region: { not: { in: ["us", "eu"] } } }, { region: "eu" }, false],
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
    ["any holds where one option asks for nothing", { any: [{ a: "x" }, {}] }, {}, true],
    ["not of any holds where none holds", { not: { any: [{ a: "x" }, { b: "y" }] } }, { b: "z" }, true],
    ["not of not is the requirement", { not: { not: { a: "x", b: "y" } } }, { a: "x" }, false],
    ["not of a missing name holds", { not: { tier: "spot" } }, {}, true],
    ["unequal to a missing name holds", { tier: { "!=": "spot" } }, {}, true],
    ["a value of another type meets no condition", { gpus: 4 }, { gpus: "8" }, false],
    ["nor its not", { not: { gpus: 4 } }, { gpus: "8" }, false],
    ["a null is unequal to all", { gpus: { "!=": 4 } }, { gpus: null }, true],
    ["a null is there", { gpus: { exists: true } }, { gpus: null }, true],
    ["a name that is missing is asked for", { gpus: { exists: false } }, {}, true],
    ["all of several", { all: [{ a: "x" }, { b: "y" }] }, { a: "x" }, false],
    ["not of nothing never holds", { not: {} }, {}, false],
    ["numbers are compared digit by digit", { a: { "<=": 0.3 } }, { a: 0.1 + 0.2 }, false],
  ])("%s", async (_, requirement, capabilities, met) => {
    expect(await isMet(requirement, capabilities)).toBe(met);
    expect(matches(requirement, capabilities)).toBe(met);
  });

  test("names of built-in object members are no capabilities", async () => {
    for (const name of ["__proto__", "constructor", "toString", "length"]) {
      expect(await isMet(`{"${name}": {"exists": true}}`, "{}")).toBe(false);
      expect(await isMet(`{"${name}": "x"}`, `{"${name}": "x"}`)).toBe(true);
    }
  });
});

describe("the tag", () => {
  test.each<[unknown, string]>([
    [{}, "c:"],
    [{ gpu: "all" }, "c:"],
    [{ all: [] }, "c:"],
    [{ mem: "high", gpu: "a100" }, "c:gpu=a100,mem=high"],
    [{ gpu: ["b", "a", "b"] }, "c:gpu=a,gpu=b"],
    [{ all: [{ gpu: { in: ["b"] } }, { gpu: { "=": "a" } }] }, "c:gpu=a,gpu=b"],
    [{ nvlink: "true", gpus: { "==": 4 }, ecc: true }, "c:ecc==true,gpus==4,nvlink=true"],
    ['{"a": [2e1, 20.0, -0, 1e-7]}', "c:a==0,a==0.0000001,a==20"],
    [{ hardware: { gpu: "a100", "disk.kind": "ssd" } }, "c:hardware.disk.kind=ssd,hardware.gpu=a100"],
    [{ 'a,b"c': "=x|y.z", "e\\": "" }, 'c:a\\,b"c=\\=x|y.z,e\\\\='],
    [{ 𝒳: "x", "\uffff": "x", B: "x", a: "x" }, "c:B=x,a=x,\uffff=x,𝒳=x"],
    [{ gpus: 4, mem: "high" }, "mem = high and gpus >= 4"],
    [{ "c:": 5, "c:=x": { exists: true } }, '"c:" >= 5 and "c:=x" is there'],
    [{ not: {} }, "not (anything)"],
    [{ any: [{ a: "x" }] }, "a = x"],
  ])("of %j is %s", async (requirement, tag) => {
    expect((await parse(requirement)).tag).toBe(tag);
  });
});

describe("the clauses of a requirement", () => {
  test.each<[unknown, string, string, string?]>([
    [{ gpu_memory_gb: 80 }, "gpu_memory_gb >= 80", '$."gpu_memory_gb" >= 80', '$."gpu_memory_gb"'],
    [{ "a.b": "RTX 4090" }, 'a.b = "RTX 4090"', '$."a"."b" == "RTX 4090"', '$."a"."b"'],
    [{ gpus: { "==": "4" } }, 'gpus = "4"', '$."gpus" == "4"', '$."gpus"'],
    [{ gpu: { exists: true } }, "gpu is there", 'exists($."gpu")', '$."gpu"'],
    [{ gpu: { exists: false } }, "not (gpu is there)", '!(exists($."gpu"))'],
    [{ r: { in: ["eu", true] } }, "one of (r = eu, r = true)", '($."r" == "eu" || $."r" == true)'],
    [{ not: { t: "x", gpus: 1 } }, "not (t = x and gpus >= 1)", '!($."t" == "x" && $."gpus" >= 1)'],
    [
      { any: [{ a: "x", any: [{ b: 1 }, {}] }, { d: true }] },
      "one of (a = x and one of (b >= 1, anything), d = true)",
      '($."a" == "x" && ($."b" >= 1 || 1 == 1) || $."d" == true)',
    ],
  ])("%j have words and a jsonpath", async (requirement, needs, path, place) => {
    const form = await parse(requirement);
    expect(form.clauses).toEqual([{ needs, path, ...(place ? { place } : {}) }]);
    expect(form.path).toBe(path);
  });

  test("are one for each member, in its order", async () => {
    const { clauses, path } = await parse({ b: 1, a: 1, all: [{ c: "x", d: ["y", "z"] }] });
    expect(clauses.map(({ needs }) => needs)).toEqual(["a >= 1", "b >= 1", "c = x", "d = y", "d = z"]);
    expect(path).toBe(clauses.map((clause) => clause.path).join(" && "));
  });
});

describe("a requirement is refused in one sentence:", () => {
  const deep = (levels: number): unknown => (levels === 1 ? {} : { not: deep(levels - 1) });
  /** A requirement of so many bytes, as jsonb writes it: it needs 16090 where the last two texts are empty. */
  const ofBytes = (bytes: number): unknown => {
    const texts = Array(16).fill("é".repeat(500));
    return { a: [...texts, "\n".repeat((bytes - 16090) >> 1), "x".repeat(bytes & 1), 1e-7] };
  };
  const words = "any all not in exists = == != < <= > >=";
  const refused: [requirement: unknown, sentence: string][] = [
    [[], " is []; expected an object"],
    ["null", " is null; expected an object"],
    [{ gpu: null }, "gpu is null; expected a text, a number, a boolean, a list or an object"],
    [{ gpu: {} }, 'gpu is {}; expected something in it; {"exists": true} asks for any value'],
    [{ hw: { services: [] } }, 'hw.services is []; expected something in it; {"exists": true} asks for any value'],
    [{ gpu: [null] }, "gpu[0] is null; expected a text, a number or a boolean"],
    [{ gpu: ["a", ["b"]] }, 'gpu[1] is ["b"]; expected a text, a number or a boolean'],
    [{ gpu_memory_gb: { ">=": true } }, "gpu_memory_gb.>= is true; expected a text or a number"],
    [{ any: [{}, { gpus: { ">": [] } }] }, "any[1].gpus.> is []; expected a text or a number"],
    [{ hw: { gpu: { "=": {} } } }, "hw.gpu.= is {}; expected a text, a number or a boolean"],
    [{ gpu: { in: [] } }, "gpu.in is []; expected a list of one or more texts, numbers or booleans"],
    [{ gpu: { in: "a" } }, 'gpu.in is "a"; expected a list of one or more texts, numbers or booleans'],
    [{ gpu: { in: [{}] } }, "gpu.in[0] is {}; expected a text, a number or a boolean"],
    [{ gpu: { exists: 1 } }, "gpu.exists is 1; expected true or false"],
    [{ any: [] }, "any is []; expected a list of one or more objects"],
    [{ any: { a: 1 } }, 'any is {"a": 1}; expected a list of one or more objects'],
    [{ all: "x".repeat(61) }, `all is "${"x".repeat(59)}…; expected a list of objects`],
    [{ all: ["a"] }, 'all[0] is "a"; expected an object'],
    [{ not: 2.5 }, "not is 2.5; expected an object"],
    [
      { ">=": 2 },
      '>= is an operator without a name; expected it in the object of a name, as in {"memory_gb": {">=": 20}}',
    ],
    [{ gpu: { ">=": 2, b: 1 } }, "gpu.b is a name beside operators; expected operators alone in the object of a name"],
    [{ gpu: { "==": 2, any: [] } }, "gpu.any is []; expected a list of one or more objects"],
    [{ a: { "": 1 } }, "a. is a name of 2 characters; a name has 1 to 200 characters with the names around it"],
    [{ "a..b": 1 }, 'a..b is a name with nothing beside a dot; a dot leads into an object, as in "hardware.gpu"'],
    [{ ".": 1 }, '. is a name with nothing beside a dot; a dot leads into an object, as in "hardware.gpu"'],
    [{ "gpu.any": 1 }, `gpu.any is a name with a word of the language in it; no name is one of ${words}`],
    [{ gpu: "x".repeat(501) }, "gpu is a text of 501 characters; a text has at most 500"],
    ['{"gpus": 1e15}', "gpus is 1000000000000000; a number is below 1e15 and has at most 15 digits and 15 decimals"],
    [{ gpu: Array(101).fill("x") }, " is a requirement of more values; a requirement has at most 100 values"],
    [{ all: Array(101).fill({}) }, " is a requirement of more values; a requirement has at most 100 values"],
    [deep(11), " is nested deeper; a requirement nests at most 10 deep"],
    [{ a: { b: [[[[[[[[[]]]]]]]]] } }, " is nested deeper; a requirement nests at most 10 deep"],
    [`${"[".repeat(5000)}${"]".repeat(5000)}`, " is nested deeper; a requirement nests at most 10 deep"],
    [ofBytes(16385), " is 16385 bytes long; a requirement has at most 16384 bytes as JSON"],
    [{ all: Array(8192).fill({}) }, " is 32777 bytes long; a requirement has at most 16384 bytes as JSON"],
  ];
  test.each(refused.map(([requirement, sentence]) => [sentence, requirement]))("%s", async (sentence, requirement) => {
    expect(await sentenceOf(requirement)).toBe(sentence);
  });

  test.each([`{"a": 0.0000000000000001}`, `{"a": 123456789012345.6}`, `{"a": 1e300}`, `{"a": -1e15}`])(
    "a number of too many digits, %s",
    async (requirement) => {
      expect(await sentenceOf(requirement)).toMatch(/^a is .*; a number is below 1e15 and has at most 15 digits/);
    },
  );

  test("at the limits it is accepted", async () => {
    const fits: unknown[] = [
      { gpu: Array(100).fill("x") },
      deep(10),
      { ["é".repeat(200)]: "𝒳".repeat(500) },
      { a: { ["b".repeat(198)]: 1 } },
      { all: Array(100).fill({}) },
      ofBytes(16384),
      '{"a": [999999999999999, 1e14, 0.000000000000001, 0.123456789012345]}',
    ];
    for (const requirement of fits) {
      expect(await sentenceOf(requirement)).toMatch(/^accepted: /);
    }
    expect(await sentenceOf({ a: { ["b".repeat(199)]: 1 } })).toMatch(/a name of 201 characters/);
  });

  test("an error names the part by its argument, or by a word if there is none", async () => {
    const [row] = await sql`select work.parse_requirement('{"a": {"b": {}}}', 'items[2]: accepts')`.catch((error) => [
      error,
    ]);
    expect(row?.message).toMatch(/^items\[2\]: accepts\.a\.b is \{\};/);
    await expect(sql`select work.parse_requirement('[]')`).rejects.toThrow(/^requirement is \[\]; expected an object$/);
  });
});

describe("a mistyped operator is refused with the nearest right form:", () => {
  test.each([
    ["gt", "write >"],
    ["gte", "write >="],
    ["GE", "write >="],
    ["lt", "write <"],
    ["lte", "write <="],
    ["le", "write <="],
    ["eq", "write =="],
    ["equals", "write =="],
    ["contains", "write =="],
    ["ne", "write !="],
    ["neq", "write !="],
    ["nin", 'write {"not": {"in": …}}'],
    ["not_in", 'write {"not": {"in": …}}'],
    ["Not In", 'write {"not": {"in": …}}'],
    ["IN", "write in"],
    ["Exists", "write exists"],
  ])("%s", async (word, form) => {
    expect(await sentenceOf({ hw: { gpus: { [word]: [4] } } })).toBe(
      `hw.gpus.${word} is no operator; ${form}, or "hw.gpus.${word}" for a property of that name`,
    );
    expect(await sentenceOf({ gpus: { ">": 2, any: [{ [word]: 4 }] } })).toContain(`is no operator; ${form}`);
    // The way out, and a name at the top, which no operator can be.
    expect(await isMet({ [`gpus.${word}`]: 4 }, { gpus: { [word]: 4 } })).toBe(true);
    expect(await isMet({ [word]: true }, { [word]: true })).toBe(true);
  });

  test.each([
    ["=>", "write >="],
    ["≥", "write >="],
    ["=<", "write <="],
    ["≤", "write <="],
    ["<>", "write !="],
    ["≠", "write !="],
    ["~=", "write !="],
    ["!==", "write !="],
    ["===", "write =="],
    ["> =", "the operators are == != < <= > >= in exists"],
    [" >=", "the operators are == != < <= > >= in exists"],
    ["!", "the operators are == != < <= > >= in exists"],
    ["$in", "write in"],
    ["$GTE", "write >="],
    ["$nin", 'write {"not": {"in": …}}'],
    ["$or", "write any"],
    ["$and", "write all"],
    ["$not", "write not"],
    ["$regex", "the operators are == != < <= > >= in exists"],
  ])("%s, whatever it holds and wherever it stands", async (sign, form) => {
    expect(await sentenceOf({ gpus: { [sign]: 4 } })).toBe(`gpus.${sign} is no operator; ${form}`);
    expect(await sentenceOf({ [sign]: [{ gpus: 4 }] })).toBe(`${sign} is no operator; ${form}`);
    expect(await sentenceOf({ [`gpus.${sign}`]: 4 })).toMatch(/is no operator; the operators are/);
  });

  test.each(["NOT", "Any", "ALL"])("%s at the top", async (word) => {
    expect(await sentenceOf({ [word]: { tier: "spot" } })).toBe(`${word} is no operator; write ${word.toLowerCase()}`);
  });

  test("names similar to an operator are names", async () => {
    for (const name of [
      "min",
      "max",
      "size",
      "or",
      "and",
      "is",
      "len",
      "gtx",
      "letter",
      "ios",
      "a>",
      "=x",
      "$",
      "~/",
    ]) {
      expect(await isMet({ hw: { [name]: "x" } }, { hw: { [name]: "x" } }), name).toBe(true);
    }
  });
});

describe("a hostile name or text", () => {
  const hostile = [
    ...['"', '\\"', "\\", '" || 1 == 1 || "" == "', '") || (1 == 1', '"."', "$", "$.**", "@", "*/ /*", "\\u0022"],
    ...["\\x22", "\b\f\n\r\t\v\u0001\u001f\u007f\u0085\u2028\ufeff", "𝒳", "x,y=z", "a=x|b=y", "not()", "1 == 1", "c:"],
    ...["'; drop table work_items; --", "%s", "x,a==y", "\\,", "x\\"],
  ];

  test.each(hostile)("%j stays within its quotes", async (given) => {
    const requirement = { a: given, ...(given.includes(".") ? {} : { [given]: { "<": given } }) };
    expect(await isMet(requirement, { a: "x", [given]: "" })).toBe(false);
    expect(await isMet(requirement, { a: given, [given]: "" })).toBe(true);
  });

  test("two different requirements share no tag of plain equality", async () => {
    const all = hostile.flatMap((given) => [
      { a: given },
      ...(given.includes(".") ? [] : [{ [given]: "a" }, { [given]: true }, { [given]: { "==": 4 } }]),
      ...hostile.map((other) => ({ a: [given, other] })),
    ]);
    const same: [unknown, unknown][] = [
      [{ a: "x,a=y" }, { a: ["x", "y"] }],
      [{ a: "x\\,a=y" }, { a: ["x\\", "y"] }],
      [{ a: "=true" }, { a: true }],
      [{ a: "=20" }, { a: { "==": 20 } }],
      [{ "a=": "x" }, { a: "=x" }],
      [{ "a=x,b": "y" }, { a: "x", b: "y" }],
    ];
    const asked = [...all, ...same.flat()].map((requirement) => JSON.stringify(requirement));
    const rows = await owner<{ tag: string; meaning: string }[]>`
      select f.form ->> 'tag' as tag,
             (select string_agg(distinct c.clause ->> 'path', ' && ' order by c.clause ->> 'path')
                from jsonb_array_elements(f.form -> 'clauses') as c(clause)) as meaning
        from unnest(${asked}::text[]) as g(given)
       cross join lateral (select work.parse_requirement(g.given::jsonb) offset 0) as f(form)`;
    expect(rows.length).toBeGreaterThan(500);
    expect(rows.filter(({ tag }) => !tag.startsWith("c:"))).toEqual([]);
    const pairs = new Set(rows.map(({ tag, meaning }) => `${tag} ${meaning}`));
    expect(new Set(rows.map(({ tag }) => tag)).size).toBe(pairs.size);
    expect(new Set(rows.map(({ meaning }) => meaning)).size).toBe(pairs.size);
  });
});

test("Postgres judges random requirements as defined, and refuses wrong ones with PT400", async () => {
  const { below, chance, pick } = seeded(seed);
  const times = <Value>(count: number, make: () => Value): Value[] => Array.from({ length: count }, make);
  const name = (): string => pick(["a", "b", "c", "a.b", 'x"y', "__proto__", "𝒳"]);
  const scalar = (): Json => pick<Json>(["x", "y", "", "20", "all", 0, 1, 2, 20, -0.5, true, false]);
  const junk = (): Json =>
    pick<Json>([null, {}, [], [[]], { in: [] }, { nin: 1 }, "y".repeat(501), 1e15, { "<": true }]);
  const value = (depth: number): Json =>
    depth > 2 || chance(0.5)
      ? pick([scalar(), scalar(), null])
      : chance(0.5)
        ? times(below(4), () => value(depth + 1))
        : object(depth + 1);
  const object = (depth: number): Json =>
    Object.fromEntries(times(1 + below(4), () => [pick(["a", "b", "c", 'x"y', "__proto__", "𝒳"]), value(depth)]));
  const operators = (): Json =>
    pick<() => Json>([
      () => ({ [pick(["=", "==", "!="])]: scalar() }),
      () => ({ [pick(["<", "<=", ">", ">="])]: pick(["x", "y", 1, 2]), ...(chance(0.3) ? { "!=": scalar() } : {}) }),
      () => ({ in: times(1 + below(3), scalar) }),
      () => ({ exists: chance(0.5) }),
      () => ({ any: times(1 + below(2), operators) }),
      () => ({ not: operators() }),
    ])();
  const requirement = (depth: number): Json =>
    Object.fromEntries(
      times(1 + below(2), (): [string, Json] => {
        const kind = depth < 3 ? below(10) : 9;
        if (chance(0.02)) return [pick(["", "a..b", "in", name()]), junk()];
        if (kind === 0) return [pick(["any", "all"]), times(1 + below(3), () => requirement(depth + 1))];
        if (kind === 1) return ["not", requirement(depth + 1)];
        if (kind === 2) return [name(), requirement(depth + 1)];
        return [name(), kind < 6 ? operators() : kind < 7 ? times(1 + below(2), scalar) : scalar()];
      }),
    );

  await owner`
    create function judged(requirement jsonb, capabilities jsonb) returns text language plpgsql as $$
    begin
      return (capabilities @@ (work.parse_requirement(requirement) ->> 'path')::jsonpath is true)::text;
    exception when sqlstate 'PT400' then
      return 'refused';
    end $$`;
  const cases = times(1500, () => ({ requires: requirement(0), has: object(0) }));
  const rows = await owner<{ answer: string }[]>`
    select judged(g.requires::jsonb, g.has::jsonb) as answer
      from unnest(${cases.map((each) => JSON.stringify(each.requires))}::text[],
                  ${cases.map((each) => JSON.stringify(each.has))}::text[]) with ordinality as g(requires, has, n)
     order by g.n`;
  const count = { true: 0, false: 0, refused: 0 };
  for (const [index, { answer }] of rows.entries()) {
    const { requires, has } = cases[index] as (typeof cases)[number];
    count[answer as keyof typeof count] += 1;
    if (answer !== "refused") {
      const shown = `SEED=${seed}: ${JSON.stringify(requires)} for ${JSON.stringify(has)}`;
      expect(answer === "true", shown).toBe(matches(requires, has));
    }
  }
  expect(count.true).toBeGreaterThan(100);
  expect(count.false).toBeGreaterThan(100);
  expect(count.refused).toBeGreaterThan(20);
  expect(count.refused).toBeLessThan(500);
});

test("only service_role calls requirement functions", async () => {
  const [row] = await sql`
    select bool_and(has_function_privilege('service_role', oid, 'execute')) as granted,
           bool_or(has_function_privilege('anon', oid, 'execute')) as leaked
      from pg_proc where pronamespace = 'work'::regnamespace and proname = 'parse_requirement'`;
  expect(row).toEqual({ granted: true, leaked: false });
});
