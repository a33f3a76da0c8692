// Items and workers drawn from a seed: so many classes, and workers that match a share of them.
import type { Json } from "../../src/answers.ts";
import type { Requirement } from "../../src/index.ts";
import { call } from "./calls.ts";
import type { Sql } from "./database.ts";
import type { Wish, Worker } from "./matching-oracle.ts";
import type { seeded } from "./random.ts";

type Seeded = ReturnType<typeof seeded>;

const customers = ["acme", "blue", "cave"];
const affinities = ["sdxl", "flux", "llama", "whisper", "clip", "bark", "t5", "vae"];
const workflows = ["w0", "w1", "w2", "w3"];

export interface World {
  types: string[];
  classes: { requires: Requirement; labels: Record<string, Json> }[];
}

/** So many classes, the first one that of items that require nothing. */
export function drawClasses(count: number, { pick, below, chance }: Seeded): World["classes"] {
  return Array.from({ length: count }, (_, n) => {
    if (n === 0) {
      return { requires: {}, labels: {} };
    }
    const job: Requirement = { jobs: `job ${n}` };
    const requires: Requirement = pick([
      job,
      { ...job, memory_gb: 1 + below(40) },
      { ...job, any: [{ gpu: "a100" }, { "hardware.cores": 8 }] },
      { ...job, hardware: { cores: 1 + below(16) } },
      { all: [job, { not: { tier: "spot" } }] },
      { ...job, gpu: { in: ["a100", "h100"] } },
    ]);
    return { requires, labels: chance(0.5) ? { customer: pick(customers), n } : {} };
  });
}

export async function fill(sql: Sql, world: World, count: number, { pick, below, chance }: Seeded): Promise<void> {
  for (let left = count; left > 0; left -= 1000) {
    const items = Array.from({ length: Math.min(left, 1000) }, () => ({
      ...pick(world.classes),
      priority: pick([0, 0, 0, 1, 5, -2]),
      ...(chance(0.4) ? { affinity: pick(affinities) } : {}),
      ...(chance(0.3) ? { workflow: pick(workflows) } : {}),
      payload: { n: below(1000) },
    }));
    await call(sql, "enqueue_items", { items });
  }
}

/** A worker that runs about this share of the jobs. */
export function drawWorker(id: string, world: World, share: number, random: Seeded): Worker {
  const { pick, below, chance } = random;
  const jobs = world.classes.map((_, n) => `job ${n}`).filter(() => chance(share));
  const exclusive = chance(0.3)
    ? pick([["gpu"], ["hardware.cores"], ["gpu", "memory_gb"], ["nothing.of.it"]])
    : undefined;
  return {
    id,
    capabilities: {
      jobs,
      memory_gb: 10 * below(6),
      hardware: { cores: pick([2, 8, 16]) },
      ...(chance(0.6) ? { gpu: pick(["a100", "h100", "t4"]) } : {}),
      ...(chance(0.3) ? { tier: pick(["spot", "reserved"]) } : {}),
    },
    ...(chance(0.2) ? { accepts: { not: { customer: pick(customers) } } } : {}),
    ...(exclusive ? { exclusive } : {}),
    ...(exclusive && chance(0.6) ? { yield_seconds: 200 } : {}),
  };
}

export function drawWish(world: World, { pick, chance }: Seeded, isWarm: boolean): Wish {
  return {
    work_types: chance(0.7) ? [pick(world.types)] : world.types,
    max_items: pick([1, 1, 3, 10, 50]),
    ...(isWarm && chance(0.8) ? { warm: affinities.filter(() => chance(0.5)) } : {}),
  };
}
