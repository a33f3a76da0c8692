import { expect, test } from "vitest";
import { openDatabase } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { seed, seeded } from "./support/random.ts";

const { sql, owner } = await openDatabase();

const id = "11111111-1111-1111-1111-111111111111";
const names = [
  "",
  "a",
  "type 1",
  "default",
  "x".repeat(200),
  "x".repeat(201),
  "'; drop table work_items; --",
  "$$",
  "\u202e\u0001ü🙂",
  '"',
];
const numbers = ["0", "1", "-1", "2147483647", "-2147483648", "1000", "99999999999", "1.5", "NaN", "", "1e9"];
const json = [
  ...["null", "1", "[]", "{}", '"text"', "[null]", "[[]]", "[{}]", "not json", '{"a":'],
  `[{"item_id":"${id}","work_type":"type 1","fence":1,"outcome":"succeeded"}]`,
  `[{"item_id":"${id}","work_type":"type 1","fence":1e30,"outcome":"failed","final":"maybe"}]`,
  `[{"item_id":"no uuid","work_type":{"a":1},"fence":-1,"outcome":"released"}]`,
  `[{"item_id":"${id}","work_type":"type 1","fence":1,"outcome":"failed","retry_after_seconds":-1e308}]`,
  `[{"item_id":"${id}","work_type":"type 1","fence":1,"progress":1e-320},{"item_id":1,"work_type":2,"fence":3}]`,
  `[{"item_id":"${id}","work_type":"type 1","fence":0.5,"progress":"half"}]`,
  `[{"pool":"default","payload":null,"priority":3,"dedupe_key":"k","run_after":"infinity"}]`,
  `[{"pool":7,"priority":1e400}]`,
  `[{"priority":1.5},{"dedupe_key":""},{"run_after":"294277-01-01"}]`,
  `[{"payload":"\\u0000"}]`,
  `[{"payload":${"[".repeat(3000)}${"]".repeat(3000)}}]`,
  `${"[".repeat(20_000)}${"]".repeat(20_000)}`,
  `{"gpu":"${"a".repeat(70_000)}"}`,
];
const values: Record<string, string[]> = {
  text: names,
  "text[]": [
    "{}",
    "{a}",
    "{NULL}",
    '{"type 1","type 1"}',
    "{{a,b},{c,d}}",
    "[5:6]={a,b}",
    "{",
    `{${"a,".repeat(200)}a}`,
  ],
  uuid: [id, "00000000-0000-0000-0000-000000000000", "no uuid", ""],
  "uuid[]": ["{}", `{${id}}`, `{${id},NULL,${id}}`, `{{${id}},{${id}}}`, "{no}", `{${`${id},`.repeat(1500)}${id}}`],
  integer: numbers,
  bigint: [...numbers, "9223372036854775807", "9007199254740993"],
  boolean: ["true", "false", "maybe"],
  jsonb: json,
  regclass: [
    "fuzzed",
    "keyless",
    "work_items",
    "work_held",
    "pg_class",
    "pg_toast.pg_toast_1255",
    "nowhere",
    "0",
    "4294967295",
    "-",
    "",
  ],
};

test(`every function answers any argument with a result or a planned error (SEED=${seed})`, async () => {
  const { pick, chance } = seeded(seed);
  await owner`create table fuzzed (id integer primary key, body text)`;
  await owner`create table keyless (id integer)`;
  await owner`grant all on fuzzed, keyless to service_role`;
  const functions = await sql<{ name: string; arguments: string[]; types: string[] }[]>`
    select p.proname as name, p.proargnames as arguments,
           array(select format_type(t.type, null) from unnest(p.proargtypes) with ordinality as t(type, n) order by t.n) as types
      from pg_proc p where p.pronamespace = 'public'::regnamespace order by 1`;
  expect(functions.length).toBeGreaterThan(15);

  const seen: Record<string, number> = {};
  for (let count = 0; count < 4000; count += 1) {
    const { name, arguments: argumentNames, types } = pick(functions);
    const given = argumentNames
      .map((argument, index) => ({ argument, type: types[index] ?? "" }))
      .filter(() => chance(0.9))
      .map(({ argument, type }) => ({ argument, type, value: chance(0.1) ? null : pick(values[type] ?? names) }));
    const list = given.map(({ argument, type }, index) => `${argument} => $${index + 1}::text::${type}`).join(", ");
    const text = `select public.${name}(${list})`;
    const parameters = given.map(({ value }) => value?.replaceAll("\0", "") ?? null);
    const code: string = await sql.unsafe(text, parameters).then(
      () => "00000",
      (error) => error.code,
    );
    seen[code] = (seen[code] ?? 0) + 1;
    expect(code, `SEED=${seed}, call ${count}: ${text} ${JSON.stringify(parameters).slice(0, 500)}`).toMatch(
      /^(00000|PT4\d\d|22...|23...|42...|54001)$/,
    );
  }
  expect(seen["00000"]).toBeGreaterThan(100);
  expect(seen.PT400).toBeGreaterThan(100);
  await expectInvariants(sql);
});
