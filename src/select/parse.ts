import type { Comparable } from "../requirement/requirement.ts";

/** A text that is no selector: where, and what was expected. */
export class SelectorError extends Error {
  override readonly name = "SelectorError";
}

/** A selector as JSON, of whichever list: the database says which names there are. */
export type AnySelector = { [name: string]: Condition | AnySelector[] };
type Condition = { [operator: string]: Comparable | Comparable[] };

const operators = ["!=", "<=", ">=", "==", "=", "<", ">"] as const;

/**
 * The selector that a text spells: `status=ready,labels.customer=acme,priority>=5`. A name alone is there, with ! before it
 * is not; `a|b` is any of several. A value or a part of a name stands in quotes, as in JSON, where it has , | " = < > ! or
 * a space at its ends, and where 5 or true is meant as text.
 */
export function parseSelector(text: string): AnySelector {
  const reader = readerOf(text);
  const conditions = new Map<string, Condition>();
  const repeated: AnySelector[] = [];
  while (!reader.isAtEnd()) {
    const [name, condition] = readCondition(reader);
    const known = conditions.get(name) ?? {};
    // One object holds an operator once.
    if (Object.keys(condition).some((operator) => operator in known)) repeated.push({ [name]: condition });
    else conditions.set(name, { ...known, ...condition });
    if (!reader.isAtEnd() && !reader.take(",")) {
      reader.refuse("a comma");
    }
  }
  return { ...Object.fromEntries(conditions), ...(repeated.length > 0 ? { all: repeated } : {}) };
}

type Reader = ReturnType<typeof readerOf>;

function readCondition(reader: Reader): [string, Condition] {
  const isAbsent = reader.take("!");
  const name = readName(reader);
  const operator = isAbsent ? undefined : operators.find((candidate) => reader.take(candidate));
  if (operator === undefined) {
    return [name, { exists: !isAbsent }];
  }
  const values = [readValue(reader, name)];
  while (reader.take("|")) {
    values.push(readValue(reader, name));
  }
  const [value, second] = values as [Comparable, ...Comparable[]];
  if (second === undefined) {
    return [name, { [operator === "=" ? "==" : operator]: value }];
  }
  if (operator !== "=" && operator !== "==") {
    return reader.refuse(`no | after ${operator}, which compares with one value`);
  }
  return [name, { in: values }];
}

function readName(reader: Reader): string {
  let name = "";
  do {
    name += name === "" ? "" : ".";
    name += reader.takeQuoted() ?? (reader.takeWhile(/[^.,|"=<>!]/) || reader.refuse("a name"));
  } while (reader.take("."));
  return name;
}

/** Of a column the database knows what it holds; inside an object 5 is a number and true a boolean. */
function readValue(reader: Reader, name: string): Comparable {
  const quoted = reader.takeQuoted();
  if (quoted !== undefined) {
    return quoted;
  }
  const bare = reader.takeWhile(/[^,|"]/) || reader.refuse('a value, or "" for an empty text');
  if (!name.includes(".")) {
    return bare;
  }
  if (bare === "true" || bare === "false") {
    return bare === "true";
  }
  return /^-?(0|[1-9]\d*)(\.\d+)?$/.test(bare) ? Number(bare) : bare;
}

function readerOf(text: string) {
  let at = 0;
  const skip = (): void => {
    while (/\s/.test(text[at] ?? "")) at += 1;
  };
  skip();
  return {
    isAtEnd: () => at >= text.length,
    /** Whether this comes next; goes past it. */
    take(token: string): boolean {
      if (!text.startsWith(token, at)) return false;
      at += token.length;
      skip();
      return true;
    },
    /** What comes next of these characters, without the space around it. */
    takeWhile(characters: RegExp): string {
      const from = at;
      while (at < text.length && characters.test(text[at] as string)) at += 1;
      return text.slice(from, at).trim();
    },
    takeQuoted(): string | undefined {
      const quoted = /^"(?:[^"\\]|\\.)*"/s.exec(text.slice(at))?.[0];
      if (quoted === undefined) {
        return text[at] === '"' ? this.refuse('a closing "') : undefined;
      }
      try {
        const value = JSON.parse(quoted) as string;
        at += quoted.length;
        skip();
        return value;
      } catch {
        return this.refuse("a text as JSON writes it, between its quotes");
      }
    },
    refuse(expected: string): never {
      const rest = text.slice(at, at + 30);
      throw new SelectorError(
        `selector: expected ${expected} at ${rest === "" ? "its end" : JSON.stringify(rest)}; one is like status=ready,priority>=5`,
      );
    },
  };
}
