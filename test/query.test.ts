import { describe, expect, test } from "vitest";
import { parseWhere } from "../src/cli/where.ts";
import { compileSelector, type Query, queryString } from "../src/lists/query.ts";
import { claimList, itemList, workerList } from "../src/lists/rows.ts";

const now = new Date("2030-01-31T12:00:00Z");

/** The filters of a selector as they stand in the address, decoded. */
function compiled(selector: object, columns = claimList.columns as object): string {
  const { filters, ors } = compileSelector(selector, columns as typeof claimList.columns, now);
  const query = queryString({ select: "*", filters, ors, order: [] } satisfies Query);
  return query.split("&").slice(1).map(decodeURIComponent).join(" & ");
}

describe("a selector becomes the PostgREST query:", () => {
  test.each<[object, string]>([
    [{}, ""],
    [{ status: undefined }, ""],
    [{ status: "ready", priority: { ">=": 5, "<": 9 } }, "status=eq.ready & priority=gte.5 & priority=lt.9"],
    [{ priority: { "=": 5 } }, "priority=eq.5"],
    [{ priority: { "==": 5 } }, "priority=eq.5"],
    [{ worker_id: { "!=": "a" } }, "worker_id=isdistinct.a"],
    [{ worker_id: { exists: true }, error: { exists: false } }, "worker_id=not.is.null & error=is.null"],
    [{ status: { in: ["ready", "waiting"] } }, 'status=in.("ready","waiting")'],
    [{ source_key: { in: ["a,b", 'c"\\'] } }, 'source_key=in.("a,b","c\\"\\\\")'],
    [{ source_key: "eq.a&limit=0,(b)" }, "source_key=eq.eq.a&limit=0,(b)"],
    [
      { "labels.customer": "acme" },
      'or=(labels.cs."{\\"customer\\":\\"acme\\"}",labels.cs."{\\"customer\\":[\\"acme\\"]}")',
    ],
    [{ "labels.models": ["a", "b"] }, 'labels=cs.{"models":["a","b"]}'],
    [{ labels: { tier: { ">": 1 } } }, 'labels->"tier"=gt.1'],
    [{ "labels.a.b": { ">=": "x" } }, 'labels->"a"->>"b"=gte.x'],
    [{ "labels.a": { exists: false } }, 'labels->>"a"=is.null'],
    [
      { any: [{ priority: 1 }, { worker_id: "a,b", status: "ready" }] },
      'or=(and(priority.eq."1"),and(worker_id.eq."a,b",status.eq."ready"))',
    ],
    [{ not: { priority: 1 } }, 'or=(not.and(priority.eq."1"))'],
    [{ all: [{ priority: { ">": 1 } }] }, 'or=(and(and(priority.gt."1")))'],
    [{ finished_at: { ">": "10 minutes ago" } }, "finished_at=gt.2030-01-31T11:50:00.000Z"],
    [
      { finished_at: { ">": "yesterday", "<": new Date(0) } },
      "finished_at=gt.yesterday & finished_at=lt.1970-01-01T00:00:00.000Z",
    ],
  ])("%j", (selector, query) => {
    expect(compiled(selector)).toBe(query);
  });

  test("a worker without work types does all of them", () => {
    expect(compiled({ work_types: "a,b", free: true, exclusive: "gpu" }, workerList.columns)).toBe(
      'free=eq.true & exclusive=cs.{"gpu"} & or=(work_types.cs."{\\"a,b\\"}",work_types.is.null)',
    );
    expect(compiled({ alive: { exists: true } }, workerList.columns)).toBe("alive=eq.true");
  });
});

describe("a wrong selector is refused with the expected form:", () => {
  test.each<[unknown, string]>([
    [{ status: "redy" }, 'status is "redy"; a claim is blocked, waiting, ready, claimed, succeeded, failed, cancelled'],
    [{ status: { in: ["ready", "redy"] } }, 'status is "redy"'],
    [{ stauts: "ready" }, "the selector names stauts; a row has item_id, work_type, status"],
    [{ limit: 1 }, "the selector names limit"],
    [{ constructor: 1 }, "the selector names constructor"],
    [JSON.parse('{"__proto__": 1}'), "the selector names __proto__"],
    [{ any: [{ stauts: 1 }] }, "the selector names stauts"],
    [{ "status.x": 1 }, "the selector names status.x"],
    [{ labels: "acme" }, 'labels is "acme"; a name in it was expected, such as labels.customer'],
    [{ worker_id: null }, 'worker_id is null; a text, number or boolean was expected, or {"exists": false} for none'],
    [{ status: ["ready"] }, 'status is ["ready"]'],
    [{ priority: { gte: 5 } }, 'priority is {"gte":5}; the operators are = == != < <= > >= in exists'],
    [{ priority: {} }, "priority is {}; the operators are"],
    [{ priority: { in: [] } }, "priority in an empty list"],
    [{ "labels.a": { in: [] } }, "labels.a in is empty"],
    [{ "labels.a": [] }, "labels.a is an empty list"],
    [{ worker_id: { exists: "yes" } }, 'worker_id exists "yes"; true or false was expected'],
    [{ any: [] }, "any is empty"],
    [{ any: [{}] }, "any is empty"],
    [{ not: {} }, "not is empty"],
    [{ any: { status: "ready" } }, 'any is {"status":"ready"}; a list of selectors was expected'],
    ["status=ready", 'the selector is "status=ready"; an object was expected'],
    [{ not: 5 }, "the selector is 5; an object was expected"],
  ])("%j", (selector, says) => {
    expect(() => compileSelector(selector as object, claimList.columns, now)).toThrow(says);
  });
});

test("select, order, limit and offset are written as PostgREST reads them", () => {
  const query = { select: "id,seq", filters: [], ors: [], order: ["priority.desc", "seq"], limit: 5, offset: 10 };
  expect(decodeURIComponent(queryString(query))).toBe("select=id,seq&order=priority.desc,seq&limit=5&offset=10");
  expect(itemList.key).toEqual(["id"]);
});

describe("typed conditions become a selector:", () => {
  test.each<[string[], object]>([
    [[], {}],
    [["status=ready", "priority>=5"], { status: { "=": "ready" }, priority: { ">=": "5" } }],
    [[" status = ready "], { status: { "=": "ready" } }],
    [["status=ready|waiting | claimed"], { status: { in: ["ready", "waiting", "claimed"] } }],
    [["worker_id", "!error"], { worker_id: { exists: true }, error: { exists: false } }],
    [["priority>1", "priority<=5"], { priority: { ">": "1", "<=": "5" } }],
    [["labels.m=a", "labels.m=b"], { "labels.m": { "=": "a" }, all: [{ "labels.m": { "=": "b" } }] }],
    [
      ["labels.n=5", "labels.s=007", 'labels.t="5"', "labels.on=true"],
      { "labels.n": { "=": 5 }, "labels.s": { "=": "007" }, "labels.t": { "=": "5" }, "labels.on": { "=": true } },
    ],
    [["finished_at>10 minutes ago"], { finished_at: { ">": "10 minutes ago" } }],
    [['source_key="a|b \\"c\\""'], { source_key: { "=": 'a|b "c"' } }],
    [['source_key=""'], { source_key: { "=": "" } }],
    [["error=a=b>c"], { error: { "=": "a=b>c" } }],
  ])("%j", (conditions, selector) => {
    expect({ ...parseWhere(conditions) }).toEqual(selector);
  });

  test.each([
    ["=ready", "a condition was expected"],
    ["", "a condition was expected"],
    ["!status=ready", "a condition was expected"],
    ["status=", 'a value was expected, or ""'],
    ["status=a|", "a value was expected"],
    ["priority>1|2", "> compares with one value"],
    ["pool!=a|b", "!= compares with one value"],
    ['pool="a', "between quotes a text was expected"],
  ])("%j is refused", (condition, says) => {
    expect(() => parseWhere([condition])).toThrow(says);
  });
});
