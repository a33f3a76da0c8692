// The calls that a run is made of, as plain data, and how often each is drawn.
import * as fc from "fast-check";
import type { Json, Outcome } from "../../src/answers.ts";
import type { NewItem } from "./model-enqueueing.ts";
import { profiles, types, workers } from "./model-world.ts";

/** A worker's report: the receipt of a held claim or any earlier one, and the outcome. */
export interface Said {
  receipt: number;
  of: "held" | "ever given";
  withFence: "given" | "next" | "invented";
  outcome: Outcome | "snoozed" | "parked";
  state: Json;
  final: boolean;
  retryAfter: number | null;
  result: Json;
  progress: number | null;
  /** To enqueue with a success or a snooze; a snoozed claim may wait for them. */
  items: Drawn[];
  needs: Named[];
}

/** A need as it is drawn: items by number. */
export type Named = { by: "index" | "id" | "text" | "key"; n: number; type: string | null };

/** A new item as it is drawn: what it needs by number. */
export type Drawn = Omit<NewItem, "needs"> & { needs?: Named[] };

export interface Wanted {
  types: string[];
  max: number;
  ttl: number | null;
  warm: string[];
}

export type Command =
  | { do: "enqueue"; items: Drawn[]; request: string | null }
  | ({ do: "claim next"; worker: string; request: string | null } & Wanted)
  // A worker claims all that it may have and says one outcome of all that it holds, so many times.
  | { do: "work"; worker: string; types: string[]; said: Said; rounds: number }
  | { do: "claim items"; worker: string; type: string; items: number[]; ttl: number | null; request: string | null }
  // Null means the worker of the first receipt.
  | { do: "release item"; worker: string | null; said: Said }
  | { do: "release items"; worker: string | null; said: Said[] }
  | ({ do: "finish and claim"; worker: string | null; said: Said[]; request: string | null } & Wanted)
  | { do: "repeat"; which: number }
  | { do: "extend"; worker: string | null; said: Said[]; ttl: number | null }
  | { do: "release parked"; claim: number; outcome: Outcome | "abandoned" }
  // A worker claims up to two and asks for a slot for each that it holds; then somebody asks for one, or drops one.
  | { do: "take locks"; worker: string; types: string[]; said: Said; isOfItem: boolean; slots: number; drops: boolean }
  // Null means any claim, else the number of the slot's row.
  | { do: "drop lock"; lock: number | null; said: Said }
  | { do: "leave"; worker: string }
  | { do: "reap"; max: number }
  | { do: "add needs"; item: number; needs: Named[] }
  | { do: "change payload"; item: number; payload: Json; fingerprint: string | null }
  | { do: "reread"; said: Said }
  | { do: "invalidate"; claim: number; type: string; items: number[] }
  | { do: "raise version"; claim: number; type: string }
  | { do: "sweep" }
  // A claim of the kind that it is about gives the type and the first item, if there is one.
  | { do: "retry"; claim: number; type: string; items: number[] | null; max: number }
  | { do: "cancel"; claim: number; type: string; items: number[] | null; max: number }
  | { do: "pause"; type: string; paused: boolean }
  | { do: "several"; many: number }
  | { do: "enroll" }
  | { do: "depend"; type: string; on: string[] }
  | { do: "prioritise workflow"; workflow: string; priority: number }
  | { do: "delete workflow"; workflow: string }
  | { do: "delete item"; item: number }
  | { do: "change item"; item: number; priority: number; affinity: string | null; workflow: string | null }
  | { do: "reschedule item"; item: number; seconds: number | null }
  | { do: "drop records"; type: "loose" | "undeclared" }
  | { do: "register"; worker: string; profile: number }
  | { do: "prune classes" }
  // Null means until the last lease or wait ends.
  | { do: "pass"; seconds: number | null };

const worker = fc.constantFrom(...workers);
const type = fc.constantFrom("draw", "draw", "draw", "tag", "tag", "score", "read", "embed", "embed", ...types);
const someItems = fc.array(fc.nat(12), { minLength: 1, maxLength: 4 });
const isRare = fc.nat(3).map((n) => n === 3);
/** Null so many times out of ten. */
const orNull = <Value>(of: fc.Arbitrary<Value>, times = 5): fc.Arbitrary<Value | null> =>
  fc.oneof({ weight: times, arbitrary: fc.constant(null) }, { weight: 10 - times, arbitrary: of });
const speaker = orNull(worker, 8);
const ttl = orNull(fc.constantFrom(600, 5000));
const request = orNull(fc.uuid());
const workflow = fc.constantFrom("night", "day");
const affinity = fc.constantFrom("sdxl", "flux");
const priority = fc.constantFrom(0, 0, 1, -2);

const named: fc.Arbitrary<Named> = fc.record({
  by: fc.constantFrom("index", "index", "id", "text", "key"),
  n: fc.nat(4),
  type: orNull(fc.constantFrom("draw", "tag", "score", "score#2", "embed"), 8),
});
const payload = fc.constantFrom({ n: 1 }, { n: 2 }, { n: 1, note: 1 }, { n: 2, note: 1 });
const fingerprint = fc.constantFrom("one", "two");

const newItem: fc.Arbitrary<Drawn> = fc.record(
  {
    pool: fc.constantFrom("default", "side", "side", "side", "steps", "steps", "steps"),
    priority,
    runAfterSeconds: fc.constantFrom(-200, -200, -200, -200, -200, -5000, 500, 3000),
    dedupeKey: fc.constantFrom("k1", "k2", "k3", "k4"),
    affinity,
    workflow,
    requires: fc.constantFrom({}, {}, {}, {}, {}, {}, { gpu: "a100" }, { memory_gb: 20 }),
    labels: fc.constantFrom({}, {}, {}, {}, {}, {}, { customer: "acme" }, { customer: "blue" }),
    payload,
    maxFailures: fc.constantFrom(null, null, null, 1, 4),
  },
  { requiredKeys: ["pool"] },
);
/** Most items need nothing, and name no input. */
const firstItem: fc.Arbitrary<Drawn> = fc.oneof(
  { weight: 8, arbitrary: newItem },
  { weight: 1, arbitrary: fc.tuple(newItem, workflow).map(([item, needsAllOf]) => ({ ...item, needsAllOf })) },
  { weight: 1, arbitrary: fc.tuple(newItem, fingerprint).map(([item, one]) => ({ ...item, fingerprint: one })) },
);
const anyItem: fc.Arbitrary<Drawn> = fc.oneof(
  { weight: 3, arbitrary: firstItem },
  {
    weight: 2,
    arbitrary: fc.tuple(newItem, fc.array(named, { maxLength: 2 })).map(([item, needs]) => ({ ...item, needs })),
  },
);

const said: fc.Arbitrary<Said> = fc.record({
  receipt: fc.nat(20),
  of: fc.constantFrom("held", "held", "held", "ever given"),
  withFence: fc.constantFrom("given", "given", "given", "given", "given", "given", "next", "invented"),
  outcome: fc.constantFrom(
    ...["succeeded", "succeeded", "succeeded", "succeeded", "failed", "failed"],
    ...["released", "snoozed", "parked", "parked"],
  ) as fc.Arbitrary<Said["outcome"]>,
  state: fc.constantFrom(null, null, { step: 1 }, [2]),
  final: isRare,
  retryAfter: fc.constantFrom(null, null, null, 0, 4000),
  result: fc.constantFrom({ done: 1 }, null, [1, "a"]),
  progress: fc.constantFrom(null, null, 0, 0.25),
  items: fc.oneof(
    { weight: 6, arbitrary: fc.constant<never[]>([]) },
    { weight: 1, arbitrary: fc.array(anyItem, { maxLength: 2 }) },
  ),
  needs: fc.oneof(
    { weight: 2, arbitrary: fc.constant<never[]>([]) },
    { weight: 1, arbitrary: fc.array(named, { maxLength: 2 }) },
  ),
});
const saidOften = fc.array(said, { minLength: 1, maxLength: 4 });

const wanted = {
  types: fc.oneof(
    { weight: 1, arbitrary: type.map((one) => [one]) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(["draw", "tag"], ["score", "score#2", "mean"], ["read", "embed", "sum", "report"]),
    },
    { weight: 3, arbitrary: fc.constant(types) },
  ),
  max: fc.constantFrom(1, 1, 2, 3, 50),
  ttl,
  warm: fc.constantFrom([], [], [], ["sdxl"], ["flux", "sdxl"], ["none"]),
};

/** The weight of each kind of command, and its arguments. */
const drawn: { [Kind in Command["do"]]: [number, Record<string, fc.Arbitrary<unknown>>] } = {
  enqueue: [8, { items: fc.array(anyItem, { minLength: 1, maxLength: 2, size: "max" }), request }],
  "claim next": [16, { worker, request, ...wanted }],
  work: [26, { worker, types: wanted.types, said, rounds: fc.constantFrom(1, 1, 1, 2) }],
  "claim items": [8, { worker, type, items: someItems, ttl, request }],
  "release item": [6, { worker: speaker, said }],
  "release items": [10, { worker: speaker, said: saidOften }],
  "finish and claim": [10, { worker: speaker, said: saidOften, request, ...wanted }],
  repeat: [5, { which: fc.nat(20) }],
  extend: [6, { worker: speaker, said: saidOften, ttl }],
  "release parked": [
    8,
    { claim: fc.nat(12), outcome: fc.constantFrom("succeeded", "succeeded", "failed", "released", "abandoned") },
  ],
  "take locks": [
    6,
    { worker, types: wanted.types, said, isOfItem: isRare, slots: fc.constantFrom(1, 1, 2, 3), drops: isRare },
  ],
  "drop lock": [3, { lock: orNull(fc.nat(3), 2), said }],
  leave: [4, { worker }],
  reap: [4, { max: fc.constantFrom(1, 2, 1000) }],
  retry: [6, { claim: fc.nat(12), type, items: orNull(someItems), max: fc.constantFrom(1, 2, 1000) }],
  cancel: [4, { claim: fc.nat(12), type, items: orNull(someItems, 3), max: fc.constantFrom(1, 2, 1000) }],
  pause: [2, { type, paused: fc.constantFrom(true, false, false) }],
  several: [2, { many: fc.constantFrom(2, 3, 4) }],
  enroll: [2, {}],
  depend: [2, { type: fc.constantFrom("score", "mean"), on: fc.constantFrom([], ["score"], ["mean"]) }],
  "prioritise workflow": [3, { workflow, priority }],
  "delete workflow": [2, { workflow }],
  "delete item": [2, { item: fc.nat(12) }],
  "change item": [3, { item: fc.nat(12), priority, affinity: orNull(affinity), workflow: orNull(workflow) }],
  "reschedule item": [5, { item: fc.nat(12), seconds: fc.constantFrom(null, -5000, 500, 3000) }],
  "add needs": [5, { item: fc.nat(12), needs: fc.array(named, { minLength: 1, maxLength: 2 }) }],
  "change payload": [9, { item: fc.nat(12), payload, fingerprint: orNull(fingerprint, 8) }],
  reread: [2, { said }],
  invalidate: [4, { claim: fc.nat(12), type, items: someItems }],
  "raise version": [5, { claim: fc.nat(12), type }],
  sweep: [10, {}],
  "drop records": [2, { type: fc.constantFrom("loose", "undeclared") }],
  register: [2, { worker: fc.constantFrom("big", "picky", "dear"), profile: fc.nat(profiles.length - 1) }],
  "prune classes": [1, {}],
  pass: [16, { seconds: fc.constantFrom(null, null, 130, 700, 1900, 3700) }],
};

export const kinds = Object.keys(drawn) as Command["do"][];

const commandOf = (kind: Command["do"]): fc.Arbitrary<Command> =>
  fc.record({ do: fc.constant(kind), ...drawn[kind][1] }) as unknown as fc.Arbitrary<Command>;
const anyCommand = fc.oneof(...kinds.map((kind) => ({ weight: drawn[kind][0], arbitrary: commandOf(kind) })));

const succeeding = (command: Command): Command =>
  command.do === "work" ? { ...command, types, said: { ...command.said, outcome: "succeeded" } } : command;

/** A run begins with some items and a worker that has them: without these most calls find nothing. */
export const commandLists = (length: number): fc.Arbitrary<Command[]> =>
  fc
    .tuple(
      fc.record({
        do: fc.constant("enqueue" as const),
        items: fc.array(firstItem, { minLength: 1, maxLength: 3 }),
        request,
      }),
      fc.oneof(
        { weight: 2, arbitrary: commandOf("work") },
        { weight: 2, arbitrary: commandOf("work").map(succeeding) },
        { weight: 1, arbitrary: commandOf("claim next") },
      ),
      fc.array(anyCommand, { minLength: length / 2, maxLength: length, size: "max" }),
    )
    .map(([first, second, others]) => [first, second, ...others]);
