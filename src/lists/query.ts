import type { Kind } from "./rows.ts";

/** A selector is wrong. The message names the wrong part and the expected one. */
export class SelectorError extends Error {
  override readonly name = "SelectorError";
}

/** One condition as PostgREST takes it: column=operator.value. */
export type Filter = readonly [column: string, operator: string, value: string];

/** A read of one relation. All filters hold, and of each `or` one part. */
export type Query = {
  select: string;
  filters: readonly Filter[];
  ors: readonly string[];
  /** Columns, each with ".desc" where the largest comes first. */
  order: readonly string[];
  limit?: number | undefined;
  offset?: number | undefined;
};

type Node = { test: Filter } | { join: "and" | "or" | "not.and"; of: readonly Node[] };

/** The statuses of claims, in the order of a claim's life. */
export const statuses = ["blocked", "waiting", "ready", "claimed", "succeeded", "failed", "cancelled"] as const;

const operators = ["=", "==", "!=", "<", "<=", ">", ">=", "in", "exists"];
const ofPostgrest: { readonly [operator: string]: string } = { "<": "lt", "<=": "lte", ">": "gt", ">=": "gte" };

/** Compiles a selector to filters on the columns of one list. */
export function compileSelector(
  selector: object,
  columns: { readonly [column: string]: Kind },
  now: Date,
): Pick<Query, "filters" | "ors"> {
  const nodes = nodesOf(selector, columns, now);
  return {
    filters: nodes.flatMap((node) => ("test" in node ? [node.test] : [])),
    ors: nodes.flatMap((node) => ("test" in node ? [] : [node.join === "or" ? inner(node.of) : spelled(node)])),
  };
}

/** The part of an address after the question mark. */
export function queryString(query: Query): string {
  const { select, filters, ors, order, limit, offset } = query;
  return [
    `select=${encodeURIComponent(select)}`,
    ...filters.map(
      ([column, operator, value]) => `${encodeURIComponent(column)}=${encodeURIComponent(`${operator}.${value}`)}`,
    ),
    ...ors.map((parts) => `or=${encodeURIComponent(`(${parts})`)}`),
    ...(order.length > 0 ? [`order=${order.map(encodeURIComponent).join(",")}`] : []),
    ...(limit === undefined ? [] : [`limit=${limit}`]),
    ...(offset === undefined ? [] : [`offset=${offset}`]),
  ].join("&");
}

/** A value inside a logic tree or a list. */
export function quoted(value: string): string {
  return `"${value.replace(/[\\"]/g, "\\$&")}"`;
}

function spelled(node: Node): string {
  if ("join" in node) return `${node.join}(${inner(node.of)})`;
  const [column, operator, value] = node.test;
  return `${column}.${operator}.${operator === "in" || operator.endsWith("is") ? value : quoted(value)}`;
}

const inner = (nodes: readonly Node[]): string => nodes.map(spelled).join(",");

function nodesOf(selector: unknown, columns: { readonly [column: string]: Kind }, now: Date): Node[] {
  if (!isObject(selector)) throw new SelectorError(`the selector is ${shown(selector)}; an object was expected`);
  return Object.entries(selector).flatMap(([name, wanted]): Node[] => {
    if (wanted === undefined) return [];
    if (name === "not") return [{ join: "not.and", of: filled(name, nodesOf(wanted, columns, now)) }];
    if (name === "any" || name === "all") {
      if (!Array.isArray(wanted))
        throw new SelectorError(`${name} is ${shown(wanted)}; a list of selectors was expected`);
      const parts = wanted.map((part): Node => ({ join: "and", of: filled(name, nodesOf(part, columns, now)) }));
      return [{ join: name === "any" ? "or" : "and", of: filled(name, parts) }];
    }
    const [column = "", ...path] = name.split(".");
    const kind = Object.hasOwn(columns, column) ? columns[column] : undefined;
    if (kind === undefined || (path.length > 0 && kind !== "object")) {
      const names = Object.entries(columns).map(([known, its]) => (its === "object" ? `${known}.…` : known));
      throw new SelectorError(`the selector names ${name}; a row has ${names.join(", ")}`);
    }
    return condition(name, kind, wanted, now);
  });
}

/** An empty "and" holds for all rows, an empty "or" for none: neither is meant. */
function filled(name: string, nodes: Node[]): Node[] {
  if (nodes.length === 0) throw new SelectorError(`${name} is empty; at least one condition was expected`);
  return nodes;
}

function condition(name: string, kind: Kind, wanted: unknown, now: Date): Node[] {
  if (!isObject(wanted)) return [equal(name, kind, wanted, now)];
  const members = Object.entries(wanted).filter(([, value]) => value !== undefined);
  const unknown = members.map(([operator]) => operator).find((operator) => !operators.includes(operator));
  if (kind === "object" && members.length > 0 && members.every(([member]) => !operators.includes(member))) {
    return members.flatMap(([member, value]) => condition(`${name}.${member}`, kind, value, now));
  }
  if (unknown !== undefined || members.length === 0) {
    throw new SelectorError(`${name} is ${shown(wanted)}; the operators are ${operators.join(" ")}`);
  }
  return members.map(([operator, value]) => compared(name, kind, operator, value, now));
}

function compared(name: string, kind: Kind, operator: string, value: unknown, now: Date): Node {
  const [column = "", ...path] = name.split(".");
  if (operator === "=" || operator === "==") return equal(name, kind, value, now);
  if (operator === "exists") {
    if (typeof value !== "boolean")
      throw new SelectorError(`${name} exists ${shown(value)}; true or false was expected`);
    // Of true and false, true is the one that is there.
    if (kind === "boolean") return { test: [column, "eq", String(value)] };
    return { test: [placeOf(column, path, "->>"), value ? "not.is" : "is", "null"] };
  }
  if (operator === "in") {
    if (!Array.isArray(value)) throw new SelectorError(`${name} in ${shown(value)}; a list was expected`);
    if (kind !== "value" && kind !== "status" && kind !== "time") {
      return {
        join: "or",
        of: filled(
          `${name} in`,
          value.map((one) => equal(name, kind, one, now)),
        ),
      };
    }
    if (value.length === 0) throw new SelectorError(`${name} in an empty list; at least one value was expected`);
    return { test: [column, "in", `(${value.map((one) => quoted(textOf(name, kind, one, now))).join(",")})`] };
  }
  if (operator === "!=") {
    if (kind === "object" || kind.startsWith("list")) return { join: "not.and", of: [equal(name, kind, value, now)] };
    return { test: [column, "isdistinct", textOf(name, kind, value, now)] };
  }
  if (kind === "object") {
    // A number is compared as JSON, a text as text.
    const text = textOf(name, kind, value, now);
    return {
      test: [placeOf(column, path, typeof value === "string" ? "->>" : "->"), ofPostgrest[operator] as string, text],
    };
  }
  return { test: [column, ofPostgrest[operator] as string, textOf(name, kind, value, now)] };
}

/** A column has the value, or is a list that contains it. */
function equal(name: string, kind: Kind, value: unknown, now: Date): Node {
  const [column = "", ...path] = name.split(".");
  if (kind === "object") {
    if (path.length === 0) {
      throw new SelectorError(`${name} is ${shown(value)}; a name in it was expected, such as ${name}.customer`);
    }
    const contains = (member: unknown): Node => {
      const json = path.reduceRight((within, key) => ({ [key]: within }), member);
      return { test: [column, "cs", JSON.stringify(json)] };
    };
    if (Array.isArray(value)) return contains(filledList(name, value).map((one) => comparable(name, one)));
    return { join: "or", of: [contains(comparable(name, value)), contains([comparable(name, value)])] };
  }
  const text = textOf(name, kind, value, now);
  if (kind === "list" || kind === "list or any") {
    const contains: Node = { test: [column, "cs", `{${quoted(text)}}`] };
    return kind === "list" ? contains : { join: "or", of: [contains, { test: [column, "is", "null"] }] };
  }
  return { test: [column, "eq", text] };
}

function placeOf(column: string, path: readonly string[], last: "->" | "->>"): string {
  return path.reduce((place, key, n) => `${place}${n === path.length - 1 ? last : "->"}${quoted(key)}`, column);
}

function comparable(name: string, value: unknown): unknown {
  if (!["string", "number", "boolean"].includes(typeof value)) {
    throw new SelectorError(
      `${name} is ${shown(value)}; a text, number or boolean was expected, or {"exists": false} for none`,
    );
  }
  return value;
}

function filledList(name: string, list: readonly unknown[]): readonly unknown[] {
  if (list.length === 0) throw new SelectorError(`${name} is an empty list; at least one value was expected`);
  return list;
}

function textOf(name: string, kind: Kind, value: unknown, now: Date): string {
  if (value instanceof Date) return value.toISOString();
  const text = String(comparable(name, value));
  if (kind === "status" && !statuses.some((status) => status === text)) {
    throw new SelectorError(`${name} is ${shown(text)}; a claim is ${statuses.join(", ")}`);
  }
  const ago = kind === "time" ? /^(\d{1,9}) (second|minute|hour|day)s? ago$/.exec(text) : null;
  if (ago === null) return text;
  const unitMs = { second: 1000, minute: 60_000, hour: 3_600_000, day: 86_400_000 }[ago[2] as "second"];
  return new Date(now.getTime() - Number(ago[1]) * unitMs).toISOString();
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

function shown(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 60);
}
