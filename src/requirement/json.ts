/** An object that JSON writes member by member: no date, map or function. */
export function isObject(given: unknown): given is Record<string, unknown> {
  return Object.prototype.toString.call(given) === "[object Object]";
}

/** The order of Postgres's jsonb: of two errors both faces name the same one. */
export function membersOf(object: Record<string, unknown>): [string, unknown][] {
  return Object.entries(object).sort(([a], [b]) => Buffer.byteLength(a) - Buffer.byteLength(b) || byCodePoint(a, b));
}

/** As Postgres compares under the collation "C", where JavaScript's own order differs past U+FFFF. */
export function byCodePoint(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** A number's digits, and the power of ten of the first of them. */
function digitsOf(number: number): { sign: string; digits: string; exponent: number } {
  const [mantissa = "", exponent] = number.toExponential().split("e");
  return { sign: number < 0 ? "-" : "", digits: mantissa.replace(/[-.]/g, ""), exponent: Number(exponent) };
}

/** A number as jsonb writes it: without exponent. */
export function writtenNumber(number: number): string {
  const { sign, digits, exponent } = digitsOf(number);
  if (exponent < 0) {
    return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  }
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  const decimals = digits.slice(exponent + 1);
  return sign + whole + (decimals && `.${decimals}`);
}

/** The same; undefined beyond 15 digits, which a double does not carry one by one. */
export function plainNumber(number: number): string | undefined {
  if (!Number.isFinite(number)) {
    return undefined;
  }
  const { digits, exponent } = digitsOf(number);
  const isFaithful = exponent < 15 && digits.length <= 15 && digits.length - 1 - exponent <= 15;
  return isFaithful ? writtenNumber(number) : undefined;
}

/** True for what jsonb cannot hold: U+0000, or half of a character that UTF-16 writes in two. */
export function isBroken(text: string): boolean {
  return /\0|\p{Surrogate}/u.test(text);
}
