// Some workers, their server, and a network and machines that fail them: all from one number.
import { createHash } from "node:crypto";
import { vi } from "vitest";
import { createFakeClock } from "./fake-clock.ts";
import { seeded } from "./random.ts";
import { createModel } from "./server-model.ts";
import { createNetwork, networkFaults } from "./simulated-network.ts";
import { Exit, type Plan, startWorker, type Witness, type Worker } from "./simulated-worker.ts";
import { createChecks } from "./simulation-checks.ts";

export const faults = [
  ...networkFaults,
  "server away",
  "unplugged for a while",
  "stopped for a while",
  "suspended for a while",
  "wall clock jump",
  "crash",
  "signal",
  "second signal",
  "cancelled by a person",
] as const;
export type Fault = (typeof faults)[number];

export interface Simulated {
  violations: string[];
  history: string[];
  hash: string;
  faults: Map<Fault, number>;
  accepted: Map<string, number>;
}

/** Longer than any copy is on its way, and any handler that takes no notice of its signal. */
const settledMs = 1_000_000;
const lastWorker: Plan = {
  concurrency: 4,
  batch: null,
  pool: null,
  leaseSeconds: null,
  graceSeconds: 20,
  untilEmpty: true,
  maxClaims: Number.POSITIVE_INFINITY,
  leaveAfterSeconds: null,
  handlerMs: 100,
  isWellBehaved: true,
};

export async function simulate(seed: number): Promise<Simulated> {
  const chances = seeded(seed);
  const { chance, below, pick, random } = chances;
  vi.useFakeTimers({ toFake: ["Date"], now: 0 });
  const uuids = vi.spyOn(crypto, "randomUUID").mockImplementation(() => {
    const digits = (): string =>
      below(2 ** 32)
        .toString(16)
        .padStart(8, "0");
    return `${digits()}-0000-4000-8000-${digits()}0000`;
  });
  const exit = vi.spyOn(process, "exit").mockImplementation(() => {
    throw new Exit();
  });
  // Every abort makes an error. Its stack would cost more than all the rest.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    return await run();
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
    exit.mockRestore();
    uuids.mockRestore();
    vi.useRealTimers();
  }

  async function run(): Promise<Simulated> {
    const clock = createFakeClock();
    const history: string[] = [];
    const counts = new Map<Fault, number>();
    const count = (fault: Fault): void => {
      counts.set(fault, (counts.get(fault) ?? 0) + 1);
    };
    const log = (what: string): void => {
      history.push(`${clock.now().toFixed(1)} ${what}`);
    };
    const leaseSeconds = pick([2, 10, 30, 60]);
    const limit = chance(0.3) ? { trySeconds: leaseSeconds * pick([1, 2, 4]) } : {};
    const rules = { leaseSeconds, maxFailures: 3, maxCrashes: 5, backoffSeconds: pick([0, 1, 10]), ...limit };
    const model = createModel(clock.now, 1 + below(pick([3, 12, 30])), rules);
    const workers = new Map<string, Worker>();
    const checks = createChecks(clock, model, workers);
    model.onChange = (change, row, worker, fence) => {
      log(`${row.item_id.slice(-2)} is ${change} by ${worker} under fence ${fence}: ${row.status}`);
      checks.onChange(change, row, worker, fence);
    };
    const network = createNetwork(clock, model, chances, { ...checks, log, count });
    const witness: Witness = {
      ...checks,
      log,
      onStart(run, payload) {
        log(`${run.worker.name} begins ${run.item.slice(-2)} under fence ${run.fence}`);
        checks.onStart(run, payload);
      },
      onEnd(run) {
        log(`${run.worker.name} ${run.end ?? "is cut off"} with ${run.item.slice(-2)} under fence ${run.fence}`);
        checks.onEnd(run);
      },
    };

    /** No new fault comes after it, so that all come to an end. */
    const calmAt = clock.now() + pick([20_000, 100_000, 300_000]);
    const sometime = (): number => clock.now() + random() * (calmAt - clock.now());
    const repeat = (times: number, act: () => void): void => {
      for (let n = 0; n < times; n++) {
        clock.at(sometime(), act);
      }
    };

    function start(name: string, plan: Plan): Worker {
      const machine = clock.machine(below(10 ** 9));
      const worker = startWorker(name, plan, machine, network.fetchFrom(name, machine), chances, witness);
      workers.set(name, worker);
      log(`${name} starts: ${JSON.stringify(plan)}`);
      return worker;
    }

    function planOf(): Plan {
      const concurrency = 1 + below(4);
      return {
        concurrency,
        batch: chance(0.5) ? null : Math.max(1, concurrency + pick([-1, 0, 0, 2, 5])),
        pool: chance(0.4) ? "default" : null,
        leaseSeconds: chance(0.3) ? pick([3, 20]) : null,
        graceSeconds: pick([0, 1, 20]),
        untilEmpty: chance(0.6),
        maxClaims: chance(0.1) ? 1 + below(8) : Number.POSITIVE_INFINITY,
        leaveAfterSeconds: chance(0.15) ? 1 + below(100) : null,
        handlerMs: pick([10, 2000, leaseSeconds * 1000, leaseSeconds * 2000]),
        isWellBehaved: false,
      };
    }

    /** Faults of one worker, apart from its network. */
    function trouble(worker: Worker): void {
      const { name, machine, plan } = worker;
      const signal = (kind: "signal" | "second signal"): void => {
        if (!worker.isGone) {
          count(kind);
          log(`${name} gets a ${kind}`);
          checks.onTrouble(name, kind);
          worker.signal();
        }
      };
      if (!plan.untilEmpty || chance(0.2)) {
        clock.at(plan.untilEmpty ? sometime() : calmAt * random(), () => {
          signal("signal");
          if (chance(0.15)) {
            clock.at(clock.now() + random() * plan.graceSeconds * 1000, () => signal("second signal"));
          }
        });
      }
      repeat(chance(0.3) ? 1 + below(3) : 0, () => {
        if (worker.isGone || machine.isPaused) {
          return;
        }
        const isSuspended = chance(0.5);
        const ms = random() * pick([500, leaseSeconds * 1000, leaseSeconds * 3000]);
        const kind = isSuspended ? "suspended for a while" : "stopped for a while";
        count(kind);
        log(`${name} stands still for ${ms.toFixed(0)} ms${isSuspended ? ", and its clock too" : ""}`);
        checks.onTrouble(name, kind);
        machine.pause(ms, isSuspended);
        clock.at(clock.now() + ms, () => checks.onTrouble(name, kind));
      });
      repeat(chance(0.25) ? 1 : 0, () => {
        const ms = random() * leaseSeconds * 3000;
        count("unplugged for a while");
        log(`${name} is unplugged for ${ms.toFixed(0)} ms`);
        checks.onTrouble(name, "unplugged for a while");
        network.unpluggedUntil.set(name, clock.now() + ms);
      });
      repeat(chance(0.15) ? 1 : 0, () => {
        if (!worker.isGone) {
          count("crash");
          log(`${name} crashes`);
          worker.crash();
        }
      });
    }

    for (let n = 1 + below(4); n > 0; n--) {
      trouble(start(`w${n}`, planOf()));
    }
    repeat(chance(0.2) ? 1 : 0, () => {
      log("the server is away");
      network.awayUntil = clock.now() + random() * pick([5000, 60_000]);
    });
    repeat(chance(0.5) ? 1 + below(4) : 0, () => {
      count("wall clock jump");
      vi.setSystemTime(Date.now() + pick([-1, 1]) * random() * pick([60_000, 10 ** 10]));
    });
    repeat(chance(0.3) ? 1 + below(3) : 0, () => {
      const row = pick(model.rows);
      if (["ready", "waiting", "claimed"].includes(row.status)) {
        count("cancelled by a person");
        model.cancel(row);
      }
    });
    clock.at(calmAt, () => {
      network.chanceOfFault = 0;
    });

    try {
      await clock.drive(Promise.all([...workers.values()].map((worker) => worker.gone)));
      await clock.drive(clock.sleep(settledMs));
      await clock.drive(start("last", lastWorker).gone);
      checks.onOver();
    } catch (error) {
      checks.violations.push(String(error));
    }
    const hash = createHash("sha1").update(history.join("\n")).digest("hex");
    return { violations: checks.violations, history, hash, faults: counts, accepted: checks.accepted };
  }
}
