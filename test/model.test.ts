import * as fc from "fast-check";
import { expect, test } from "vitest";
import { expectInvariants } from "./support/invariants.ts";
import { perform, type Run } from "./support/model-calls.ts";
import { type Command, commandLists, kinds } from "./support/model-commands.ts";
import { corpus } from "./support/model-corpus.ts";
import { countSteps, told, unseen } from "./support/model-life.ts";
import { shortest } from "./support/model-shrinking.ts";
import { expectSameEvents, openWorld, type World } from "./support/model-world.ts";
import { seed } from "./support/random.ts";

const runs = Number(process.env.MODEL_RUNS ?? 2000);
const length = Number(process.env.MODEL_COMMANDS ?? 8);
/** That of a failure, to begin with the run that failed. */
const path = process.env.MODEL_PATH ?? "";
/** So many runs go on at once, each in a database of its own. */
const lanes = path ? 1 : 3;
const worlds = await Promise.all(Array.from({ length: lanes }, openWorld));

const effects = [
  ...["claims given", "further claims given", "work types stopped"],
  ...["slots given", "slots given again", "slots all taken", "slots refused as lost", "slots dropped"],
  ...["stale_release", "stale_extend", "stale_lock"],
];
const counts = new Map([...kinds, ...effects].map((what) => [what, 0]));

function count(what: string): void {
  counts.set(what, (counts.get(what) ?? 0) + 1);
}

/** Counts a run's effects on its claims. */
function countEffects({ model, seen }: Run): void {
  seen.forEach(count);
  for (const { type } of model.receipts) {
    count(type.includes("#") ? "further claims given" : "claims given");
  }
  for (const claim of model.claims.values()) {
    countSteps(claim);
    for (const { cause } of claim.steps.filter(({ to }) => to === null)) {
      count(cause);
    }
  }
  for (const { deadEnds } of new Set(model.types.values())) {
    deadEnds.slice(0, 1).forEach(() => void count("work types stopped"));
  }
}

/** The shortest wait that is not declared is of ten seconds: a run that the machine holds up for longer ends early. */
const longestRunMs = 5000;

/** Command by command; each is told as it can stand in the corpus, with what was answered. */
async function makeAll(begin: () => Promise<World>, commands: Command[], told: string[] = []): Promise<void> {
  const run: Run = { ...(await begin()), repeatable: [], seen: [] };
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
  countEffects(run);
}

/** The shortest list that fails, and how. */
async function explained(begin: () => Promise<World>, commands: Command[]): Promise<string> {
  const fails = (some: Command[]): Promise<boolean> =>
    makeAll(begin, some).then(
      () => false,
      () => true,
    );
  const told: string[] = [];
  const error: unknown = await makeAll(begin, await shortest(commands, fails), told).catch(
    (failure: unknown) => failure,
  );
  return [...told, error instanceof Error ? error.message : "… which did not fail again"].join("\n");
}

async function check(begin: () => Promise<World>, seed: number): Promise<void> {
  const outcome = await fc.check(
    fc.asyncProperty(commandLists(length), (commands) => makeAll(begin, commands)),
    { seed, path, numRuns: Math.ceil(runs / lanes), endOnFailure: true },
  );
  if (outcome.failed) {
    const [commands = []] = outcome.counterexample ?? [];
    throw new Error(
      `SEED=${seed} MODEL_PATH=${outcome.counterexamplePath}: they differ after\n${await explained(begin, commands)}`,
    );
  }
}

for (const [name, commands] of Object.entries(corpus)) {
  test(name, () => makeAll(worlds[0] as () => Promise<World>, commands));
}

test(`${runs} runs of up to ${length} calls: the database gives the answers and rows of the model (SEED=${seed})`, {
  timeout: 7_200_000,
}, async () => {
  await Promise.all(worlds.map((begin, lane) => check(begin, seed + lane * 1_000_000)));
  console.log(`${runs} runs: ${[...counts].map(([what, times]) => `${what} ${times}`).join(", ")}\n${told()}`);
  // In fewer runs chance has the word.
  if (runs >= 1000) {
    expect([...counts].filter(([, times]) => times < runs / 400)).toEqual([]);
    expect(unseen()).toEqual([]);
  }
});
