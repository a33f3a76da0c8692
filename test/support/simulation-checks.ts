// These checks hold for every run of the simulation.
import type { Summary } from "../../workers/runtime/work.ts";
import type { FakeClock } from "./fake-clock.ts";
import { contradictions, type Step } from "./history.ts";
import type { Change, Model, Row } from "./server-model.ts";
import type { Call } from "./simulated-network.ts";
import type { Run, Worker } from "./simulated-worker.ts";

export interface Checks {
  readonly violations: string[];
  /** How often something was accepted that looks like one. */
  readonly accepted: Map<string, number>;
  onChange(change: Change, row: Row, worker: string, fence: number): void;
  /** A fault that may cost this worker leases. */
  onTrouble(worker: string, what: string): void;
  onSent(call: Call): void;
  onWait(call: Call, retryAfter: string): void;
  onTaken(call: Call): void;
  onAnswer(call: Call, answer: unknown): void;
  onStart(run: Run, payload: { n: number }): void;
  onEnd(run: Run): void;
  onLeft(worker: Worker, lines: string[], summary: Summary): void;
  onThrown(worker: Worker, error: unknown): void;
  /** All is over, and a last worker without faults has done the rest. */
  onOver(): void;
}

/** After the grace time: handing back (5 s), then signing off (8 s with its last try). */
const farewellMs = 13_000;

/** The most claims that a worker without a batch queues and runs. */
const mostClaimsAhead = 100;
/** The longest time for which such a worker keeps a claim in its queue: four times 2.5 s. */
const longestQueueMs = 10_000;

export function createChecks(clock: FakeClock, model: Model, workers: Map<string, Worker>): Checks {
  const violations: string[] = [];
  const accepted = new Map<string, number>();
  const history: Step[] = [];
  const runs = new Map<number, Run>();
  /** The end of each lease, on the clock of the worker that has it. */
  const leaseEnds = new Map<number, number>();
  const grantedAt = new Map<number, number>();
  const claimedAt = new Map<number, number>();
  /** The claims in the answers that a worker has received. */
  const known = new Map<string, Set<number>>();
  const changedAt = new Map<string, number>();
  const troubleAt = new Map<string, number>();
  const refusedOnce = new Set<string>();
  const retiredAt = new Map<string, number>();
  /** When the database last answered whether work was still to come, and the same at the last claim call after that. */
  const askedAt = new Map<string, number>();
  const lookedAt = new Map<string, number>();
  const bodies = new Map<string, string>();
  /** The last call that was answered with a wait, and how long that is. */
  const waits = new Map<string, { body: string; until: number }>();
  const successes = new Map<string, number>();
  const handedBack = new Map<string, number>();

  const add = (counts: Map<string, number>, what: string): number => {
    counts.set(what, (counts.get(what) ?? 0) + 1);
    return counts.get(what) as number;
  };
  const must = (isSo: boolean, otherwise: string): void => {
    if (!isSo) {
      violations.push(`at ${clock.now().toFixed(1)} ms: ${otherwise}`);
    }
  };
  const isOver = (run: Run | undefined): boolean => run !== undefined && (run.end !== null || run.signal.aborted);
  const isRunning = (run: Run): boolean =>
    run.end === null && !run.isCut && !run.isLimited && !run.worker.machine.isCrashed;
  const describe = (run: Run): string => `${run.worker.name} with fence ${run.fence} on ${run.item.slice(-2)}`;

  /** A lease binds on the worker's own clock. Timers that were due in a pause fire at its end. */
  function mustBeInLease(run: Run, what: string): void {
    const { machine } = run.worker;
    const over = machine.now() - (leaseEnds.get(run.fence) ?? 0);
    run.isLate ||= over > 0;
    must(over <= 0 || machine.resumesAt === clock.now(), `${describe(run)} ${what} ${over} ms after its lease`);
  }

  /** A claim that waits for long goes to another worker. */
  function mustNotBeHoarded(run: Run): void {
    const since = claimedAt.get(run.fence) ?? 0;
    const isExcused = run.worker.plan.batch !== null || (troubleAt.get(run.worker.name) ?? 0) >= since;
    const waited = clock.now() - since;
    must(isExcused || waited <= longestQueueMs + 1000, `${describe(run)} begins ${waited} ms after it was claimed`);
  }

  /** Without faults a heartbeat finds it: one is due in a third of the lease, a tenth more or less. */
  function mustStopSoon(fence: number, leaseMs: number): void {
    const run = runs.get(fence);
    if (run && isRunning(run)) {
      clock.at(clock.now() + leaseMs * 0.37 + 200, () => {
        const isExcused = (troubleAt.get(run.worker.name) ?? 0) >= (grantedAt.get(fence) ?? 0);
        must(isExcused || !isRunning(run), `${describe(run)} goes on long after it was cancelled`);
      });
    }
  }

  function noteChange(change: Change, row: Row, name: string, fence: number): void {
    const step = { item: row.item_id, fence, worker: name, sent: clock.now(), answered: clock.now() };
    if (change === "claimed" || change === "held") {
      history.push({ ...step, kind: change, leaseFrom: clock.now(), leaseTo: row.expiresAt });
      const worker = workers.get(name) as Worker;
      leaseEnds.set(fence, worker.machine.now() + row.expiresAt - clock.now());
      grantedAt.set(fence, clock.now());
      if (change === "claimed") {
        claimedAt.set(fence, clock.now());
      }
    } else if (change !== "expired" && change !== "cancelled") {
      history.push({ ...step, kind: change === "failed" ? "released" : change });
    }
    if (change !== "held") {
      changedAt.set(row.item_id, clock.now());
    }
  }

  function mustBeEarned(change: Change, row: Row, name: string, fence: number): void {
    const run = runs.get(fence);
    const what = `the ${change} of ${row.item_id.slice(-2)} by ${name} under fence ${fence}`;
    if (change === "succeeded") {
      add(successes, name);
      must(run?.worker.name === name && run.end === "succeeded" && !run.isCut, `${what} is no result of its handler`);
      must(
        JSON.stringify(row.result) === JSON.stringify({ item: row.item_id, fence }),
        `${what} has the result ${JSON.stringify(row.result)}`,
      );
    } else if (change === "failed") {
      const isRefused = refusedOnce.has(name) && row.error?.startsWith("the outcome was refused") === true;
      const isLimited = run?.isLimited === true && row.error?.includes("try_seconds") === true;
      const isFailure = run?.end === "failed" || isRefused || isLimited;
      must(run?.worker.name === name && !run.isCut && isFailure, `${what} was no failure`);
    } else if (change === "released") {
      add(handedBack, name);
      must(!run || workers.get(name)?.isLeaving === true, `${what} came without a stop`);
    }
  }

  return {
    violations,
    accepted,
    onChange(change, row, name, fence) {
      noteChange(change, row, name, fence);
      mustBeEarned(change, row, name, fence);
      const worker = workers.get(name);
      if (change === "cancelled") {
        mustStopSoon(fence, row.expiresAt - (grantedAt.get(fence) ?? 0));
      }
      if (change === "expired" && worker && !worker.machine.isCrashed && !worker.machine.isPaused) {
        // A heartbeat under way may still extend a claim that the worker has given up for lost.
        must(
          (troubleAt.get(name) ?? 0) >= (grantedAt.get(fence) ?? 0) || runs.get(fence)?.signal.aborted === true,
          `${name} let the lease of fence ${fence} end though nothing was in its way`,
        );
      }
    },
    onTrouble(name, what) {
      troubleAt.set(name, clock.now());
      if (what === "an error that is final") {
        refusedOnce.add(name);
      }
    },
    onSent({ worker: name, name: called, args, body }) {
      const worker = workers.get(name);
      must(!worker?.isGone, `${name} calls ${called} after its end`);
      const id = args?.request_id as string | undefined;
      if (id) {
        must((bodies.get(id) ?? body) === body, `${name} sends another request as ${id}`);
        bodies.set(id, body);
      }
      const wait = waits.get(name);
      // A worker that ends asks what is left, whatever the answer to its last question was.
      if (worker?.isLimited === false && wait?.body === body && called !== "describe_work_types") {
        must(worker.machine.now() >= wait.until, `${name} sends ${called} again before it may`);
      }
      for (const { fence, outcome } of args?.outcomes ?? []) {
        const run = runs.get(fence);
        must(
          outcome === "released" || (run?.isCut === false && !run.isLate),
          `${name} sends a result of fence ${fence}, which it had lost`,
        );
      }
    },
    onWait({ worker: name, name: called, body }, retryAfter) {
      // A lease does not wait, and a look is not the same for asking the same.
      if (called !== "extend_claims" && called !== "describe_work_types" && body !== "") {
        const seconds = Math.min(60, Number(retryAfter) || 0);
        waits.set(name, { body, until: (workers.get(name) as Worker).machine.now() + seconds * 1000 });
      }
    },
    onTaken(call) {
      if (call.name === "retire_worker" && !retiredAt.has(call.worker)) {
        retiredAt.set(call.worker, clock.now());
      }
    },
    onAnswer(call, answer) {
      const worker = workers.get(call.worker) as Worker;
      if (call.name === "describe_work_types") {
        askedAt.set(call.worker, call.takenAt);
      } else if (call.name === "extend_claims") {
        const gone = (answer as { state: string; fence: number }[]).filter(({ state }) => state !== "held");
        const affected = gone.map(({ fence }) => runs.get(fence)).filter((run) => run !== undefined && isRunning(run));
        clock.at(clock.now(), () => {
          for (const run of affected as Run[]) {
            must(!isRunning(run), `${describe(run)} goes on though an answer said that its claim is gone`);
          }
        });
      } else if (/claim_next|finish_and_claim|claim_items/.test(call.name)) {
        // A worker asks once more as it signs off.
        lookedAt.set(call.worker, askedAt.get(call.worker) ?? Number.POSITIVE_INFINITY);
        const claims = ((answer as { claimed?: unknown }).claimed ?? answer) as { fence: number }[];
        const received = known.get(call.worker) ?? new Set();
        known.set(call.worker, received);
        for (const { fence } of claims) {
          received.add(fence);
        }
        const held = model.rows.filter(
          (row) => row.status === "claimed" && received.has(row.fence) && !isOver(runs.get(row.fence)),
        );
        // A worker with refused requests, or one that has to leave, cannot ask again for a lost answer.
        const unanswered = model.rows.filter(
          (row) => row.status === "claimed" && row.worker_id === call.worker && row.claimedAt <= call.takenAt,
        );
        must(
          worker.isLeaving || refusedOnce.has(call.worker) || unanswered.every((row) => received.has(row.fence)),
          `${call.worker} holds a claim whose answer it has not received`,
        );
        const { batch, concurrency, maxClaims } = worker.plan;
        const most = Math.max(batch ?? mostClaimsAhead, concurrency);
        must(
          // If the database refuses an outcome, the claim stays until its lease ends.
          held.length <= most || worker.isLeaving || refusedOnce.has(call.worker),
          `${call.worker} holds ${held.length} claims`,
        );
        const kept = received.size - (handedBack.get(call.worker) ?? 0);
        must(kept <= maxClaims, `${call.worker} has claimed ${kept} times`);
      }
    },
    onStart(run, payload) {
      const { worker, fence, item } = run;
      must(worker.askedAt === null, `${describe(run)} begins after the stop`);
      must(known.get(worker.name)?.has(fence) === true, `${describe(run)} begins what it was not given`);
      must(!runs.has(fence), `${describe(run)} begins a second time`);
      must(Number(item.slice(-6)) === payload.n, `${describe(run)} has the payload of ${payload.n}`);
      mustBeInLease(run, "begins");
      mustNotBeHoarded(run);
      for (const other of runs.values()) {
        // A worker on a paused machine, or with a stopped clock, cannot know. The fence keeps its result out.
        const isExcused = [worker, other.worker].some(
          ({ machine }) => machine.resumesAt >= clock.now() || machine.wasSuspended,
        );
        must(
          other.item !== item || !isRunning(other) || isExcused,
          `${describe(run)} begins beside ${describe(other)}`,
        );
      }
      runs.set(fence, run);
      const busy = [...runs.values()].filter((each) => each.worker === worker && each.end === null).length;
      must(busy <= worker.plan.concurrency, `${worker.name} runs ${busy} handlers`);
    },
    onEnd(run) {
      if (!run.isLimited && (run.end === null || !run.isCut)) {
        mustBeInLease(run, run.isCut ? "is aborted" : "ends");
      }
    },
    onLeft(worker, lines, summary) {
      const { name, machine, plan, askedAt } = worker;
      for (const run of runs.values()) {
        must(
          run.worker !== worker || run.end !== null || run.signal.aborted,
          `${describe(run)} goes on without worker`,
        );
      }
      must(
        askedAt === null || machine.awake() - askedAt <= plan.graceSeconds * 1000 + farewellMs,
        `${name} took ${machine.awake() - (askedAt ?? 0)} ms to stop`,
      );
      const counted = summary.succeeded + summary.again + summary.failed + summary.released + summary.lost;
      const received = known.get(name)?.size ?? 0;
      must(
        counted === received || (worker.isLeaving && counted < received),
        `${name} counts ${counted} of ${received} claims`,
      );
      must(summary.succeeded <= (successes.get(name) ?? 0), `${name} counts ${summary.succeeded} successes`);
      const isSignedOff = !lines.some((line) => line.startsWith("could not sign off"));
      for (const row of model.rows.filter((row) => row.status === "claimed" && row.worker_id === name)) {
        if (isSignedOff && row.claimedAt < (retiredAt.get(name) ?? 0)) {
          must(false, `${name} left with ${row.item_id.slice(-2)} under fence ${row.fence}`);
        } else {
          add(accepted, isSignedOff ? "a claim request came after its worker had left" : "could not sign off");
        }
      }
      if (plan.untilEmpty && !worker.isLeaving && received - (handedBack.get(name) ?? 0) < plan.maxClaims) {
        mustBeEmpty(name);
      }
    },
    onThrown(worker, error) {
      // Its handler takes no notice of the end of its try, and the process ends.
      const isHung = model.rules.trySeconds !== undefined && String(error).includes("takes no notice of its signal");
      must(isHung, `${worker.name} ended with ${error}`);
      add(accepted, "a worker ended since its handler did not");
    },
    onOver() {
      for (const row of model.rows) {
        const isOver = ["succeeded", "failed", "cancelled"].includes(row.status);
        must(isOver, `${row.item_id.slice(-2)} is ${row.status} in the end, held by ${row.worker_id}`);
      }
      violations.push(...contradictions(history));
    },
  };

  /** An item that has been open since the worker's last question must not be left behind. */
  function mustBeEmpty(name: string): void {
    const asked = lookedAt.get(name) ?? Number.POSITIVE_INFINITY;
    for (const row of model.rows) {
      const isOpen = ["ready", "waiting", "claimed"].includes(row.status);
      if (isOpen && (changedAt.get(row.item_id) ?? 0) < asked) {
        must(false, `${name} left while ${row.item_id.slice(-2)} was ${row.status}`);
      } else if (isOpen) {
        add(accepted, "others had an item that an until-empty worker left behind");
      }
    }
  }
}
