// A shorter list of commands that still fails. fast-check shortens a list from its ends and then looks at each member by
// itself: most commands without a part in the failure would stay.
import type { Command } from "./model-commands.ts";

type Fails<Value> = (values: Value[]) => Promise<boolean>;

/** First whole commands go, then parts of the lists that are in them. */
export async function shortest(commands: Command[], fails: Fails<Command>): Promise<Command[]> {
  const left = await withoutParts(commands, fails);
  for (const [at, command] of left.entries()) {
    for (const [member, list] of Object.entries(command).filter(([, value]) => Array.isArray(value))) {
      const having = (part: unknown[]): Command => ({ ...left[at], [member]: part }) as Command;
      left[at] = having(await withoutParts(list, (part) => fails(left.with(at, having(part)))));
    }
  }
  return left;
}

/** Without as many of these as can be spared: the larger half first, single ones at the end. */
async function withoutParts<Value>(values: Value[], fails: Fails<Value>): Promise<Value[]> {
  let left = values;
  for (let size = left.length; size >= 1; size = Math.floor(size / 2)) {
    for (let at = left.length - size; at >= 0; at -= size) {
      const fewer = left.toSpliced(at, size);
      if (fewer.length > 0 && (await fails(fewer))) {
        left = fewer;
      }
    }
  }
  return left;
}
