// The worker's runtime with a network, machines and people that fail at random. Each run follows from one number.
// SIMULATIONS is the number of runs, SEED the first of them. REPLAY repeats one run and prints its history.
import { expect, test } from "vitest";
import { seed } from "./support/random.ts";
import { type Fault, faults, simulate } from "./support/simulation.ts";

const replayed = process.env.REPLAY;
const runs = replayed ? 1 : Number(process.env.SIMULATIONS ?? 1000);
const first = Number(replayed ?? seed);
const command = "npx vitest run --config test/vitest.config.ts simulation.test";

function merge<Key>(into: Map<Key, number>, counts: Map<Key, number>): void {
  for (const [what, times] of counts) {
    into.set(what, (into.get(what) ?? 0) + times);
  }
}

test(`workers under any fault lose no item, do none twice, and stop when asked (SEED=${first})`, {
  timeout: 24 * 3_600_000,
}, async () => {
  const counts = new Map<Fault, number>();
  const accepted = new Map<string, number>();
  const failures: string[] = [];
  for (let number = first; number < first + runs; number++) {
    if (failures.length === 5) {
      break;
    }
    const simulated = await simulate(number);
    const { violations, history, hash } = simulated;
    merge(counts, simulated.faults);
    merge(accepted, simulated.accepted);
    if (replayed) {
      console.log(history.join("\n"));
    }
    // A run that is not the same the second time could not be looked into.
    if (number % 10 === 0 && (await simulate(number)).hash !== hash) {
      violations.push("the second run of the same seed took another course");
    }
    if (violations.length > 0) {
      failures.push(`${violations[0]} (${violations.length} in all): REPLAY=${number} ${command}`);
    }
  }
  console.log(
    `${runs} runs; ${faults.map((fault) => `${fault}: ${counts.get(fault) ?? 0}`).join(", ")}; accepted: ` +
      [...accepted].map(([what, times]) => `${what}: ${times}`).join(", "),
  );
  expect(failures.join("\n")).toBe("");
  if (runs >= 500) {
    const few = faults.filter((fault) => (counts.get(fault) ?? 0) < runs / 20);
    expect(few).toEqual([]);
  }
});
