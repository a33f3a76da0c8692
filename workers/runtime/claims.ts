// A loop over claims: work() whose handler waits for the loop's body.
import { type Client, createClient, type Json } from "./client.ts";
import { systemClock } from "./clock.ts";
import { abortError, SettingsError } from "./host.ts";
import { isOwnReason } from "./leaving.ts";
import { checkOver, enqueueList, type List } from "./list.ts";
import { createLog, itemFields, operations } from "./log.ts";
import { createLoopClaim, type Ending, type LoopClaim } from "./loop-claim.ts";
import { HandBack } from "./outcome.ts";
import { plainLoop } from "./plain-loop.ts";
import { type ProgressBar, startProgressBar } from "./progress-bar.ts";
import { askRemaining, type Remaining } from "./remaining.ts";
import { type Settings, settle, type WorkOptions } from "./settings.ts";
import { createTurns } from "./turns.ts";
import { flag } from "./variable.ts";
import { work } from "./work.ts";

/** The project of a loop; each part that is not given comes from the environment, as for work(). */
export type Connection = Pick<WorkOptions, "url" | "key" | "token" | "publishableKey" | "fetch">;

/** Those of work(). The body runs for one claim at a time, and the loop ends when nothing is left, unless said otherwise. */
export interface LoopOptions
  extends Omit<WorkOptions, keyof Connection | "concurrency" | "poll" | "abandon" | "pollSeconds"> {
  /** A progress bar, where standard error is a terminal; true unless said otherwise. */
  progress?: boolean;
}

type WorkTypes = string | readonly string[];
type Claims<Payload, Item> = AsyncGenerator<LoopClaim<Payload, Item>, void, void>;
type AnyOptions = LoopOptions & Partial<List<unknown>>;

/**
 * Claims, one after the other, for `for await`. A body that comes to its end has done its claim; one left by break, return
 * or an error hands it back. claim.close(), fail(), later() and run() say something else.
 *
 * With a list: what is not there is enqueued for the work type, and the loop does what is left. The lists come first, or
 * TypeScript would not know the elements in `key`.
 */
export function claims<Element>(workType: string, options: LoopOptions & List<Element>): Claims<Json, Element>;
export function claims<Payload = Json>(workType: WorkTypes, options?: LoopOptions): Claims<Payload, Payload>;
/** The same in a project that is given. */
export function claims<Element>(
  connection: Connection,
  workType: string,
  options: LoopOptions & List<Element>,
): Claims<Json, Element>;
export function claims<Payload = Json>(
  connection: Connection,
  workType: WorkTypes,
  options?: LoopOptions,
): Claims<Payload, Payload>;
export function claims(first: Connection | WorkTypes, second?: unknown, third?: unknown): Claims<Json, never> {
  const isGiven = typeof first === "object" && !Array.isArray(first);
  const [connection, workType, options] = (isGiven ? [first, second, third] : [{}, first, second]) as [
    Connection,
    WorkTypes,
    AnyOptions | undefined,
  ];
  const loop = flag("WORK_CLAIMS_DISABLED")
    ? plainLoop(String(workType), options ?? {})
    : sharedLoop(connection, workType, options);
  return loop as Claims<Json, never>;
}

function defined<Kind extends object>(options: Kind): { [Name in keyof Kind]?: Exclude<Kind[Name], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Kind;
}

async function* sharedLoop(
  { url, key: projectKey, token, publishableKey, fetch }: Connection,
  workType: WorkTypes,
  given: AnyOptions = {},
): Claims<Json, unknown> {
  checkOver(given);
  const { progress: hasBar = true, over, key, payload, ...options } = given;
  const project = defined({ url, key: projectKey, token, publishableKey, fetch });
  const settings = settle(workType, { ...options, ...project });
  const client = options.client ?? createClient({ ...settings, ...(fetch && { fetch }) });
  const elements = over ? await enqueue(client, settings, { over, ...defined({ key, payload }) }) : new Map();
  const bar = hasBar && !options.log ? createBar(client, settings, options) : null;
  const print = options.log ?? bar?.say ?? ((line: string): void => console.error(line));
  const log = createLog(settings.logFormat, () => settings.workerId, client.redact, print);

  const left = new AbortController();
  const turns = createTurns();
  const running = work(workType, turns.handler, {
    ...{ untilEmpty: true, quiet: true, ...options, ...project },
    ...{ concurrency: 1, workerId: settings.workerId, log: print },
    signal: options.signal ? AbortSignal.any([options.signal, left.signal]) : left.signal,
  });
  running.then(turns.close, turns.close);

  try {
    for (let next = await turns.next(); next !== null; next = await turns.next()) {
      const { item_id, work_type } = next.claim;
      const item = elements.has(item_id) ? elements.get(item_id) : next.claim.payload;
      const { claim, said } = createLoopClaim(next.claim, next.context, item);
      let isThrough = false;
      try {
        yield claim;
        isThrough = true;
      } finally {
        if (!isThrough) {
          left.abort();
          // The language tells an iterator that its loop was left, and not how.
          if (said() === null) {
            log(
              `handed back ${work_type} ${item_id}: the loop was left; an error in claim.run() would count as a failure`,
              { ...operations.handle, ...itemFields(next.claim), "error.type": "loop_left" },
            );
          }
        }
        next.end(said() ?? (isThrough ? succeed : handBack));
      }
    }
  } finally {
    left.abort();
    await running.finally(() => bar?.close());
  }
  const { why } = await running;
  if (!isOwnReason(why)) {
    throw abortError(`the loop was stopped before its end (${why})`);
  }
}

const succeed: Ending = () => null;
const handBack: Ending = () => {
  throw new HandBack();
};

function enqueue<Element>(client: Client, settings: Settings, list: List<Element>): Promise<Map<string, Element>> {
  const [workType, ...others] = settings.workTypes;
  if (settings.token !== null) {
    throw new SettingsError("a token is given and a list too (over); a token cannot enqueue: give a key");
  }
  if (workType === undefined || others.length > 0) {
    throw new SettingsError(`${settings.workTypes.length} work types are given with a list (over); expected is one`);
  }
  return enqueueList(client, workType, list);
}

function createBar(client: Client, settings: Settings, { clock = systemClock }: LoopOptions): ProgressBar {
  const ask = (isLast: boolean): Promise<Remaining[]> =>
    askRemaining(client, settings.workTypes, isLast ? { timeoutMs: 2000, retryForMs: 0 } : { retryForMs: 0 });
  return startProgressBar(ask, clock);
}
