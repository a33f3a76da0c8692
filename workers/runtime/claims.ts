// A loop over claims: work() whose handler waits for the loop's body.
import type { Claim } from "./claim.ts";
import { type Client, createClient, type Json } from "./client.ts";
import { systemClock } from "./clock.ts";
import { type DefinedWork, isDefinedWork } from "./defined-work.ts";
import { abortError, SettingsError } from "./host.ts";
import { isOwnReason, type Why } from "./leaving.ts";
import { checkList, enqueueList, type List } from "./list.ts";
import { createLog, itemFields, operations } from "./log.ts";
import { createLoopClaim, type Ending, type LoopClaim } from "./loop-claim.ts";
import { optionNames } from "./option-names.ts";
import { HandBack } from "./outcome.ts";
import { plainWork } from "./plain-work.ts";
import { type ProgressBar, startProgressBar } from "./progress-bar.ts";
import { askRemaining, type Remaining } from "./remaining.ts";
import type { Handler } from "./run.ts";
import { type Settings, settle, type WorkOptions } from "./settings.ts";
import { createTurns } from "./turns.ts";
import { flag, onlyKnown } from "./variable.ts";
import { work } from "./work.ts";

const connectionOptions = ["url", "key", "token", "publishableKey", "fetch", "client"] as const;
type ProjectOption = Exclude<(typeof connectionOptions)[number], "client">;
const notOfLoops = ["concurrency", "poll", "abandon", "pollSeconds"] as const;
const workerOptions = optionNames.filter(
  (name) => name === "client" || ![...connectionOptions, ...notOfLoops].some((each) => each === name),
);
const loopOptions = ["over", "key", "payload", "each", "progress", ...workerOptions];

/** The project of a loop; each part that is not given comes from the environment, as for work(). */
export type Connection = Pick<WorkOptions, (typeof connectionOptions)[number]>;

/** Those of work(). The body runs for one claim at a time, and the loop ends when nothing is left, unless said otherwise. */
export interface LoopOptions extends Omit<WorkOptions, ProjectOption | (typeof notOfLoops)[number]> {
  /** A progress bar, where standard error is a terminal; true unless said otherwise. */
  progress?: boolean;
}

/** A work type by its name, several, or one that defineWork() of the npm package made. */
type Kinds<Given, Read, Result> = string | readonly string[] | DefinedWork<Given, Read, Result>;
type Claims<Payload, Item, Result> = AsyncGenerator<LoopClaim<Payload, Item, Result>, void, void>;

/**
 * Claims, one after the other, for `for await`. A body that comes to its end has done its claim; one left by break, return
 * or an error hands it back. claim.close(), fail(), later(), waitFor() and run() say something else.
 *
 * With a list: what is not there is enqueued for the work type, and the loop does what is left. The lists come first, or
 * TypeScript would not know the elements in `key`.
 */
export function claims<Element, Given = unknown, Read = Json, Result = unknown>(
  work: string | DefinedWork<Given, Read, Result>,
  options: LoopOptions & List<Element, NoInfer<Given>>,
): Claims<Read, Element, Result>;
export function claims<Read = Json, Result = unknown>(
  work: Kinds<never, Read, Result>,
  options?: LoopOptions,
): Claims<Read, Read, Result>;
/** The same in a project that is given. */
export function claims<Element, Given = unknown, Read = Json, Result = unknown>(
  connection: Connection,
  work: string | DefinedWork<Given, Read, Result>,
  options: LoopOptions & List<Element, NoInfer<Given>>,
): Claims<Read, Element, Result>;
export function claims<Read = Json, Result = unknown>(
  connection: Connection,
  work: Kinds<never, Read, Result>,
  options?: LoopOptions,
): Claims<Read, Read, Result>;
export function claims(first: unknown, second?: unknown, third?: unknown): Claims<Json, never, unknown> {
  const [connection, kinds, options = {}] = isKinds(first) ? [{}, first, second] : [first, second, third];
  return loop(connection as Connection, kinds as AnyKinds, options as AnyOptions);
}

type AnyKinds = Kinds<Json, Json, Json>;
type AnyOptions = LoopOptions & Partial<List<unknown>>;

function isKinds(given: unknown): given is AnyKinds {
  return typeof given === "string" || Array.isArray(given) || isDefinedWork(given);
}

async function* loop(connection: Connection, kinds: AnyKinds, options: AnyOptions): Claims<Json, never, unknown> {
  if (!isKinds(kinds) || Object(connection) !== connection) {
    throw new SettingsError(
      `claims() got ${typeof connection} and ${typeof kinds}; a work type was expected first, or { url, key } before it`,
    );
  }
  onlyKnown("a connection", connection, connectionOptions);
  onlyKnown("a loop", options, loopOptions);
  checkList(options);
  const left = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, left.signal]) : left.signal;
  const turns = createTurns();
  const handler = isDefinedWork(kinds) ? kinds.handler(turns.handler) : turns.handler;
  const { elements, running, sayLeft } = flag("WORK_CLAIMS_DISABLED")
    ? startPlain(kinds, handler, { ...options, signal })
    : await startShared(connection, kinds, handler, { ...options, signal });
  running.then(turns.close, turns.close);

  try {
    for (let next = await turns.next(); next !== null; next = await turns.next()) {
      const { item_id } = next.claim;
      const item = elements.has(item_id) ? elements.get(item_id) : next.claim.payload;
      const { claim, said } = createLoopClaim(next.claim, next.context, item as never);
      let isThrough = false;
      try {
        yield claim;
        isThrough = true;
      } finally {
        if (!isThrough) {
          left.abort();
          if (said() === null) {
            sayLeft(next.claim);
          }
        }
        next.end(said() ?? (isThrough ? succeed : handBack));
      }
    }
  } finally {
    left.abort();
    await running;
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

/** A worker that hands the claims of a loop to its handler. */
interface Started {
  /** The elements of the list by the ids of their items. */
  readonly elements: ReadonlyMap<string, unknown>;
  readonly running: Promise<{ why: Why }>;
  /** The language tells an iterator that its loop was left, and not how. */
  sayLeft(claim: Claim): void;
}

type StartOptions = AnyOptions & { signal: AbortSignal };

function startPlain(
  kinds: AnyKinds,
  handler: Handler,
  { over, key, payload, each, signal, log = console.error }: StartOptions,
): Started {
  if (over === undefined) {
    throw new SettingsError(
      "WORK_CLAIMS_DISABLED is set and no list (over) is given; without a database there is nothing else to go over",
    );
  }
  const elements = new Map<string, unknown>();
  const list = { over, ...defined({ key, payload, each }) };
  const running = plainWork(oneOf(kinds), handler, list, elements, { signal, log });
  return { elements, running, sayLeft() {} };
}

async function startShared(
  connection: Connection,
  kinds: AnyKinds,
  handler: Handler,
  { progress: hasBar = true, over, key, payload, each, ...given }: StartOptions,
): Promise<Started> {
  const options: WorkOptions = { ...given, ...defined(connection) };
  const settings = settle(isDefinedWork(kinds) ? kinds.name : kinds, options);
  const client = options.client ?? createClient({ ...settings, ...defined({ fetch: options.fetch }) });
  if (over && settings.token !== null) {
    throw new SettingsError("a token is given and a list too (over); a token cannot enqueue: give a key");
  }
  const list = over && { over, ...defined({ key, payload, each }) };
  const elements = list ? await enqueueList(client, oneOf(kinds), list) : new Map<string, unknown>();
  const bar = hasBar && !options.log ? createBar(client, settings, options) : null;
  const print = options.log ?? bar?.say ?? ((line: string): void => console.error(line));
  const log = createLog(settings.logFormat, () => settings.workerId, client.redact, print);
  const running = work(settings.workTypes, handler, {
    ...{ untilEmpty: true, quiet: true, ...options },
    ...{ concurrency: 1, workerId: settings.workerId, log: print },
  }).finally(() => bar?.close());
  return {
    elements,
    running,
    sayLeft(claim) {
      log(
        `handed back ${claim.work_type} ${claim.item_id}: the loop was left; an error in claim.run() would count as a failure`,
        { ...operations.handle, ...itemFields(claim), "error.type": "loop_left" },
      );
    },
  };
}

function oneOf(kinds: AnyKinds): string | DefinedWork {
  if (typeof kinds === "string" || isDefinedWork(kinds)) {
    return kinds;
  }
  const [first, ...others] = kinds;
  if (first === undefined || others.length > 0) {
    throw new SettingsError(`${kinds.length} work types are given with a list (over); expected is one`);
  }
  return first;
}

function createBar(client: Client, settings: Settings, { clock = systemClock }: WorkOptions): ProgressBar {
  const ask = (isLast: boolean): Promise<Remaining[]> =>
    askRemaining(client, settings.workTypes, isLast ? { timeoutMs: 2000, retryForMs: 0 } : { retryForMs: 0 });
  return startProgressBar(ask, clock);
}

function defined<Kind extends object>(options: Kind): { [Name in keyof Kind]?: Exclude<Kind[Name], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Kind;
}
