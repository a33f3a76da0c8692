// A list that a loop goes over: its elements become items, each once, by their keys.
import type { Client, Json } from "./client.ts";
import { type DefinedWork, isDefinedWork } from "./defined-work.ts";
import { describeWorkTypes } from "./describe.ts";
import { SettingsError } from "./host.ts";
import { batchesOf, type ItemOptions, type NewItem, newItem, snakeCase } from "./new-item.ts";
import { storedJson } from "./outcome.ts";

export interface List<Element, Payload = unknown> {
  /** The elements. Those that no process has enqueued become items. */
  over: Iterable<Element> | AsyncIterable<Element>;
  /** Two elements with the same key are one item, in each process and at any time. Texts and numbers are their own. */
  key?: (element: Element) => string | number;
  /** What other processes get of it; the element itself, unless said otherwise. */
  payload?: (element: Element) => Payload;
  /** Answers further options of its item, such as labels. A text among the needs is the key of another element. */
  each?: (element: Element) => Omit<ItemOptions, "dedupeKey">;
}

/** Refuses a list that is none, such as an undefined one: without a list the loop would do other work. */
export function checkList(options: Partial<List<unknown>>): void {
  for (const name of ["key", "payload", "each"] as const) {
    if (options[name] !== undefined && typeof options[name] !== "function") {
      throw new SettingsError(`${name} is of type ${typeof options[name]}; a function of an element was expected`);
    }
    if (options[name] !== undefined && !("over" in options)) {
      throw new SettingsError(`${name} is given without over; a list (over) was expected beside it`);
    }
  }
  const over: unknown = options.over;
  if (
    !("over" in options) ||
    (Object(over) === over && (Symbol.iterator in Object(over) || Symbol.asyncIterator in Object(over)))
  ) {
    return;
  }
  const what = over === null ? "null" : over instanceof Promise ? "a Promise" : `of type ${typeof over}`;
  const hint = over instanceof Promise ? "await it" : "an array or another iterable was expected";
  throw new SettingsError(`over is ${what}; ${hint}`);
}

/** An item carries a payload of 1 MB. */
const payloadLimit = 1_048_576;

/**
 * Declares the work type where it is missing, and enqueues what is not there. Answers the elements by the ids of their
 * items.
 */
export async function enqueueList<Element>(
  client: Client,
  work: string | DefinedWork,
  list: List<Element>,
): Promise<Map<string, Element>> {
  const pool = await declare(client, work);
  async function* entries(): AsyncGenerator<{ element: Element; item: NewItem }, void> {
    for await (const element of list.over) {
      yield { element, item: await itemOf(element, pool, work, list) };
    }
  }
  const elements = new Map<string, Element>();
  for await (const batch of batchesOf(entries())) {
    // A key that is there already answers the id that it has, so the call may be repeated.
    const ids: string[] = await client.rpc("enqueue_items", { items: batch.map(({ item }) => item) });
    batch.forEach(({ element }, n) => {
      elements.set(ids[n] as string, element);
    });
  }
  return elements;
}

/**
 * The pool of the work type. Items of one list must not become work of another type, so each type has its own pool unless
 * its definition says otherwise. Rules of a work type that is there stay: they may have been changed by hand.
 */
async function declare(client: Client, work: string | DefinedWork): Promise<string> {
  const { name, pool: ownPool, rules } = isDefinedWork(work) ? work : { name: work, pool: work, rules: {} };
  const [described] = await describeWorkTypes(client, [name], {});
  const pool = described?.pool ?? ownPool;
  // Refuses a pool that mirrors a table.
  await client.rpc("define_pool", { pool });
  if (described?.pool === null || described?.is_declared !== true) {
    await client.rpc("define_work_type", { ...snakeCase(rules), work_type: name, pool });
  }
  return pool;
}

async function itemOf<Element>(
  element: Element,
  pool: string,
  work: string | DefinedWork,
  list: List<Element>,
): Promise<NewItem> {
  const key = keyOf(element, list);
  return newItem(pool, await payloadOf(element, key, work, list), {
    requires: isDefinedWork(work) ? work.requires : undefined,
    ...list.each?.(element),
    dedupeKey: key,
  });
}

/** The payload as it is stored. Throws where it does not fit the schema of a defined work. */
export async function payloadOf<Element>(
  element: Element,
  key: string,
  work: string | DefinedWork,
  list: List<Element>,
): Promise<Json> {
  const payload = list.payload ? list.payload(element) : element;
  if (isDefinedWork(work)) {
    await work.judge(payload, `${key.slice(0, 60)}: payload`);
  }
  return (
    storedJson(`the payload of ${key.slice(0, 60)}`, payload, payloadLimit, "let payload answer where it is") ?? {}
  );
}

export function keyOf<Element>(element: Element, { key }: List<Element>): string {
  const found: unknown = key ? key(element) : element;
  if ((typeof found !== "string" && typeof found !== "number") || String(found).length > 500 || found === "") {
    const what = typeof found === "string" ? `${found.length} characters long` : `a value of type ${typeof found}`;
    throw new SettingsError(
      `the key of an element of over is ${what}; a text of 1 to 500 characters or a number was expected, as key: (file) => file.name`,
    );
  }
  return String(found);
}
