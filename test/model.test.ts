import * as fc from "fast-check";
import { expect, test } from "vitest";
import { expectInvariants } from "./support/invariants.ts";
import { perform, type Run } from "./support/model-calls.ts";
import { anyCommand, type Command, kinds } from "./support/model-commands.ts";
import { corpus } from "./support/model-corpus.ts";
import { shortest } from "./support/model-shrinking.ts";
import { expectSameEvents, openWorld } from "./support/model-world.ts";
import { seed } from "./support/random.ts";

const runs = Number(process.env.MODEL_RUNS ?? 200);
const length = Number(process.env.MODEL_COMMANDS ?? 60);
/** That of a failure, to begin with the run that failed. */
const path = process.env.MODEL_PATH ?? "";
const begin = await openWorld();
const commandLists = fc.array(anyCommand, { minLength: length / 2, maxLength: length, size: "max" });

const effects = [
  "claims given",
  ...["blocked", "waiting", "ready", "claimed", "succeeded", "failed", "cancelled"].map((status) => `is ${status}`),
  ...[
    "expired",
    "failed",
    "handed_back",
    "snoozed",
    "reopened",
    "retried",
    "cancelled",
    "stale_release",
    "stale_extend",
  ],
];
const counts = new Map([...kinds, ...effects].map((what) => [what, 0]));

function count(what: string): void {
  counts.set(what, (counts.get(what) ?? 0) + 1);
}

/** The shortest wait that is not declared is of ten seconds: a run that the machine holds up for longer ends early. */
const longestRunMs = 5000;

/** Command by command; each is told as it can stand in the corpus, with what was answered. */
async function makeAll(commands: Command[], told: string[] = []): Promise<void> {
  const run: Run = { ...(await begin()), repeatable: [] };
  const began = performance.now();
  for (const command of commands) {
    if (performance.now() - began > longestRunMs) {
      return;
    }
    told.push(`${JSON.stringify(command)},`);
    const note = await perform(run, command);
    if (note) {
      told.push(`  // ${note}`);
      count(command.do);
    }
  }
  await expectSameEvents(run);
  await expectInvariants(run.sql);
  for (const _ of run.model.receipts) {
    count("claims given");
  }
  for (const { status, events } of run.model.claims.values()) {
    [`is ${status}`, ...events].forEach(count);
  }
}

/** The shortest list that fails, and how. */
async function explained(commands: Command[]): Promise<string> {
  const fails = (some: Command[]): Promise<boolean> =>
    makeAll(some).then(
      () => false,
      () => true,
    );
  const told: string[] = [];
  const error: unknown = await makeAll(await shortest(commands, fails), told).catch((failure: unknown) => failure);
  return [...told, error instanceof Error ? error.message : "… which did not fail again"].join("\n");
}

for (const [name, commands] of Object.entries(corpus)) {
  test(name, () => makeAll(commands));
}

test(`${runs} runs of up to ${length} calls: the database gives the answers and rows of the model (SEED=${seed})`, {
  timeout: 7_200_000,
}, async () => {
  counts.forEach((_, what) => void counts.set(what, 0));
  const outcome = await fc.check(
    fc.asyncProperty(commandLists, (commands) => makeAll(commands)),
    {
      seed,
      path,
      numRuns: runs,
      endOnFailure: true,
    },
  );
  if (outcome.failed) {
    const [commands = []] = outcome.counterexample ?? [];
    throw new Error(
      `SEED=${seed} MODEL_PATH=${outcome.counterexamplePath}: they differ after\n${await explained(commands)}`,
    );
  }
  console.log(`${runs} runs: ${[...counts].map(([what, times]) => `${what} ${times}`).join(", ")}`);
  // In fewer runs chance has the word.
  if (runs >= 100) {
    expect([...counts].filter(([, times]) => times < runs / 20)).toEqual([]);
  }
});
