// The trace that an item belongs to, as W3C's Trace Context has it: version, trace, span and flags in one text.
import { randomUuid } from "./host.ts";

const shape = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?$/;

/**
 * The traceparent of one try: the item's trace, and a span of its own, so that two tries can be told apart. Null where
 * the item has none or a wrong one: a service that gets no traceparent decides itself whether it records a trace.
 */
export function traceOfTry(given: string | null | undefined): string | null {
  const [, version, trace, flags = "", more] = shape.exec(given ?? "") ?? [];
  if (trace === undefined || (version === "00" && more !== undefined)) {
    return null;
  }
  // Of the flags only "sampled" has a meaning in the version that goes on.
  const sampled = Number.parseInt(flags, 16) & 1;
  return `00-${trace}-${newSpan()}-0${sampled}`;
}

/** 64 random bits. Four bits of a UUID's second half are not random. */
function newSpan(): string {
  const uuid = randomUuid();
  return uuid.slice(0, 8) + uuid.slice(-8);
}
