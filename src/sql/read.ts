import type { Filter, Query } from "../lists/query.ts";

const operators: { readonly [operator: string]: string } = {
  ...{ eq: "=", gt: ">", gte: ">=", lt: "<", lte: "<=", cs: "@>", isdistinct: "is distinct from" },
};

/** The query text of a read, whose one row has the rows as JSON. Values stand in it as literals of no type, as PostgREST has them. */
export function readText(relation: string, { select, filters, ors, order, limit, offset }: Query): string {
  const columns = select === "*" ? "*" : select.split(",").map(identifier).join(", ");
  const conditions = [...filters.map(condition), ...ors.map((parts) => oneOf(readParts(parts)))];
  const by = order.map((term) => `${identifier(term.replace(/\.desc$/, ""))}${term.endsWith(".desc") ? " desc" : ""}`);
  return [
    "select coalesce(json_agg(row), '[]')::text as answer",
    `from (select ${columns} from public.${identifier(relation)}`,
    conditions.length > 0 ? `where ${conditions.join(" and ")}` : "",
    by.length > 0 ? `order by ${by.join(", ")}` : "",
    limit === undefined ? "" : `limit ${Number(limit)}`,
    offset === undefined ? "" : `offset ${Number(offset)}`,
    ") as row",
  ].join(" ");
}

function condition([column, operator, value]: Filter): string {
  const place = placeOf(column);
  if (operator === "is") return `${place} is null`;
  if (operator === "not.is") return `${place} is not null`;
  if (operator === "in") return `${place} in (${quotedList(value).map(literal).join(", ")})`;
  return `${place} ${operators[operator]} ${literal(value)}`;
}

/** A column, or a member of one: labels->"customer"->>"name". */
function placeOf(column: string): string {
  const [name = "", ...path] = column.split(/(->>?)/);
  return identifier(name) + path.map((part) => (part.startsWith("->") ? part : literal(unquoted(part)))).join("");
}

const identifier = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** As quote_literal() writes it: it means the same whatever the session takes a backslash for. */
function literal(value: string): string {
  const text = `'${value.replaceAll("'", "''").replaceAll("\\", "\\\\")}'`;
  return value.includes("\\") ? ` E${text}` : text;
}

type Part = { join: string; of: Part[] } | { test: Filter };

const oneOf = (parts: Part[]): string => `(${parts.map(partText).join(" or ")})`;

function partText(part: Part): string {
  if ("test" in part) return condition(part.test);
  const joined = `(${part.of.map(partText).join(part.join === "or" ? " or " : " and ")})`;
  return part.join === "not.and" ? `not ${joined}` : joined;
}

/** Reads PostgREST's logic tree, as compileSelector() writes it: a.eq."x",and(b.is.null,c.in.("y","z")). */
function readParts(text: string): Part[] {
  let rest = text;
  const take = (pattern: RegExp): string => {
    const [found = ""] = pattern.exec(rest) ?? [];
    rest = rest.slice(found.length);
    return found;
  };
  const parts = (): Part[] => {
    const read: Part[] = [];
    do read.push(part());
    while (take(/^,/));
    return read;
  };
  const part = (): Part => {
    const join = take(/^(?:not\.and|and|or)\(/).slice(0, -1);
    if (join) {
      const of = parts();
      take(/^\)/);
      return { join, of };
    }
    const column = take(/^[^."]+(?:"(?:[^"\\]|\\.)*"(?:->>?)?)*/);
    take(/^\./);
    const operator = take(/^(?:not\.is|[a-z]+)/);
    take(/^\./);
    const value = take(/^(?:\((?:"(?:[^"\\]|\\.)*",?)*\)|"(?:[^"\\]|\\.)*"|[^,)]*)/);
    return { test: [column, operator, operator === "in" || operator.endsWith("is") ? value : unquoted(value)] };
  };
  return parts();
}

const unquoted = (text: string): string => (text.startsWith('"') ? text.slice(1, -1).replace(/\\(.)/gs, "$1") : text);

/** The values of ("a","b"). */
const quotedList = (text: string): string[] =>
  [...text.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([value]) => unquoted(value));
