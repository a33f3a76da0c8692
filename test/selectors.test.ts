import { describe, expect, test } from "vitest";
import { parseSelector } from "../src/select/parse.ts";

describe("a selector as text is the object that it spells:", () => {
  test.each<[string, object]>([
    ["", {}],
    ["status=ready", { status: { "==": "ready" } }],
    [
      "status=ready,labels.customer=acme,priority>=5,requires.gpu=a100,pool=texts",
      {
        status: { "==": "ready" },
        "labels.customer": { "==": "acme" },
        priority: { ">=": "5" },
        "requires.gpu": { "==": "a100" },
        pool: { "==": "texts" },
      },
    ],
    [" status = ready , priority >= 5 ", { status: { "==": "ready" }, priority: { ">=": "5" } }],
    ["status=ready|waiting | claimed", { status: { in: ["ready", "waiting", "claimed"] } }],
    ["worker_id,!error", { worker_id: { exists: true }, error: { exists: false } }],
    ["priority>1,priority<=5", { priority: { ">": "1", "<=": "5" } }],
    ["labels.model=a,labels.model=b", { "labels.model": { "==": "a" }, all: [{ "labels.model": { "==": "b" } }] }],
    ["pool!=a,pool!=b", { pool: { "!=": "a" }, all: [{ pool: { "!=": "b" } }] }],
    ["priority==5", { priority: { "==": "5" } }],
    [
      "labels.n=5,labels.s=007,labels.x=-1.5",
      { "labels.n": { "==": 5 }, "labels.s": { "==": "007" }, "labels.x": { "==": -1.5 } },
    ],
    [
      'labels.n="5",labels.on=true,labels.off="true"',
      { "labels.n": { "==": "5" }, "labels.on": { "==": true }, "labels.off": { "==": "true" } },
    ],
    ["created_at>10 minutes ago", { created_at: { ">": "10 minutes ago" } }],
    ["due_at<2030-01-31T12:00:00.5Z", { due_at: { "<": "2030-01-31T12:00:00.5Z" } }],
    ['source_key="a,b|c \\"d\\" \\u00e9"', { source_key: { "==": 'a,b|c "d" é' } }],
    ['source_key=""', { source_key: { "==": "" } }],
    ['labels."a=b, c".d=x', { "labels.a=b, c.d": { "==": "x" } }],
    ["labels.customer=eq.acme(a).*%&", { "labels.customer": { "==": "eq.acme(a).*%&" } }],
    ["labels.größe=毫米 100 %", { "labels.größe": { "==": "毫米 100 %" } }],
    ["labels.__proto__=x,__proto__=y", JSON.parse('{"labels.__proto__": {"==": "x"}, "__proto__": {"==": "y"}}')],
    ["constructor=a", { constructor: { "==": "a" } }],
  ])("%s", (text, selector) => {
    expect(JSON.stringify(parseSelector(text))).toBe(JSON.stringify(selector));
  });
});

describe("a text that is no selector is refused with what was expected:", () => {
  test.each([
    ["=ready", 'expected a name at "=ready"'],
    ["status=", 'expected a value, or "" for an empty text at its end'],
    ["status=,pool=a", 'expected a value, or "" for an empty text at ",pool=a"'],
    ["status=a|", "expected a value"],
    ["priority>1|2", "expected no | after >"],
    ['pool="a', 'expected a closing "'],
    ['pool="a"b', 'expected a comma at "b"'],
    ['pool=a"b"', 'expected a comma at "\\"b\\""'],
    ['pool="\\x"', "expected a text as JSON writes it"],
    ["labels..a=1", "expected a name"],
    ["!status=ready", 'expected a comma at "=ready"'],
    [",", "expected a name"],
  ])("%s", (text, says) => {
    expect(() => parseSelector(text)).toThrow(says);
  });
});
