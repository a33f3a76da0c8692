import { isObject, writtenNumber } from "./json.ts";
import { refuse } from "./refusal.ts";

/** Before all else, so that nothing further has to fear what is long, deep or contains itself. */
export function checkSize(at: string, requirement: unknown): void {
  let bytes = 0;
  let values = 0;
  let deepest = 0;
  const ahead = [{ given: requirement, depth: 1 }];
  for (let next = ahead.pop(); next; next = ahead.pop()) {
    const { given, depth } = next;
    const holds = Array.isArray(given) || isObject(given) ? Object.values(given) : [];
    bytes += Array.isArray(given) || isObject(given) ? bytesAround(given) : bytesOf(given);
    if (bytes > 16384) {
      refuse(at, "a requirement has at most 16384 bytes as JSON");
    }
    for (const each of holds) ahead.push({ given: each, depth: depth + 1 });
    // What is empty counts too: a list of thousands of empty objects would be slow to read.
    values += holds.length === 0 ? 1 : 0;
    deepest = Math.max(deepest, typeof given === "object" && given !== null ? depth : 0);
  }
  if (deepest > 10) {
    refuse(at, "a requirement nests at most 10 deep");
  }
  if (values > 100) {
    refuse(at, "a requirement has at most 100 values");
  }
}

/** Names, brackets, and the `, ` and `: ` that jsonb writes between. */
function bytesAround(container: unknown[] | Record<string, unknown>): number {
  const names = Array.isArray(container) ? [] : Object.keys(container);
  const count = Array.isArray(container) ? container.length : names.length;
  return names.reduce((bytes, name) => bytes + bytesOf(name) + 2, 2 + 2 * Math.max(0, count - 1));
}

/** The bytes of a scalar as jsonb writes it. */
function bytesOf(scalar: unknown): number {
  if (typeof scalar === "number" && Number.isFinite(scalar)) {
    return writtenNumber(scalar).length;
  }
  return typeof scalar === "string" ? Buffer.byteLength(JSON.stringify(scalar)) : String(scalar).length;
}
