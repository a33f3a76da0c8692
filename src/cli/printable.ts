/** Characters that a terminal obeys and does not show: control characters, and those that turn text around. */
const unseen = /[\p{Cc}\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** Text of strangers, as names and labels are, with such characters in their JSON spelling. */
export function printable(text: string): string {
  return text.replace(unseen, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
