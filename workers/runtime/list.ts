// A list that a loop goes over: its elements become items, each once, by their keys.
import type { Client, Json } from "./client.ts";
import { describeWorkTypes } from "./describe.ts";
import { SettingsError } from "./host.ts";
import { storedJson } from "./outcome.ts";

export interface List<Element> {
  /** The elements. Those that no process has enqueued become items. */
  over: Iterable<Element> | AsyncIterable<Element>;
  /** Two elements with the same key are one item, in each process and at any time. Texts and numbers are their own. */
  key?: (element: Element) => string | number;
  /** What other processes get of it; the element itself, unless said otherwise. */
  payload?: (element: Element) => unknown;
}

interface NewItem {
  readonly pool: string;
  readonly dedupe_key: string;
  readonly payload: Json;
}

/** Refuses a list that is none, such as an undefined one: without a list the loop would do other work. */
export function checkOver(options: { readonly over?: unknown }): void {
  const { over } = options;
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

/** As many as one call takes: 1,000, or a megabyte. */
const mostItems = 1000;
const mostCharacters = 1_000_000;

/**
 * Declares the work type where it is missing, with a pool of its own name, and enqueues what is not there. Answers the
 * elements by the ids of their items.
 */
export async function enqueueList<Element>(
  client: Client,
  workType: string,
  list: List<Element>,
): Promise<Map<string, Element>> {
  const pool = await declare(client, workType);
  const elements = new Map<string, Element>();
  let batch: Element[] = [];
  let items: NewItem[] = [];
  let characters = 0;

  async function send(): Promise<void> {
    // A key that is there already answers the id that it has, so the call may be repeated.
    const ids: string[] = items.length === 0 ? [] : await client.rpc("enqueue_items", { items });
    ids.forEach((id, n) => {
      elements.set(id, batch[n] as Element);
    });
    [batch, items, characters] = [[], [], 0];
  }
  for await (const element of list.over) {
    const item = itemOf(element, pool, list);
    const length = JSON.stringify(item).length;
    if (items.length === mostItems || characters + length > mostCharacters) {
      await send();
    }
    batch.push(element);
    items.push(item);
    characters += length;
  }
  await send();
  return elements;
}

/** The pool of the work type. Items of one list must not become work of another type, so each type has its own pool. */
async function declare(client: Client, workType: string): Promise<string> {
  const [described] = await describeWorkTypes(client, [workType], {});
  const pool = described?.pool ?? workType;
  // Refuses a pool that mirrors a table.
  await client.rpc("define_pool", { pool });
  if (described?.pool === null || described?.is_declared !== true) {
    await client.rpc("define_work_type", { work_type: workType, pool });
  }
  return pool;
}

function itemOf<Element>(element: Element, pool: string, list: List<Element>): NewItem {
  const key = keyOf(element, list);
  const payload = list.payload ? list.payload(element) : element;
  return {
    pool,
    dedupe_key: key,
    payload:
      storedJson(`the payload of ${key.slice(0, 60)}`, payload, payloadLimit, "let payload answer where it is") ?? {},
  };
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
