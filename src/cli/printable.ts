/** A text from the database as a terminal may be given it: without the characters that would steer it. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}|\p{Bidi_Control}/gu, "\ufffd");
}
