import type { FleetWorker } from "./fleet.ts";
import type { Job } from "./jobs.ts";
import { isSpared, mayRun, whyNot } from "./judging.ts";
import type { Assignment, DemoRecord, Raise } from "./record.ts";

/** What was looked at, and what was wrong about it: nothing, if all is well. */
export type Check = { looked: string; faults: string[] };

export function checks(record: DemoRecord): Check[] {
  return [allowedCheck(record), orderCheck(record), doneCheck(record), leftCheck(record)];
}

/** Every assignment was allowed: judged by the requirement language in TypeScript, from what the demo itself said. */
export function allowedCheck({ fleet, jobs, assignments }: DemoRecord): Check {
  const faults = assignments.flatMap((assignment) => {
    const worker = fleet.find(({ name }) => name === assignment.worker);
    const job = jobs.find(({ id }) => id === assignment.job);
    if (!worker || !job) return [`${assignment.worker} was handed ${assignment.job}: one of them is not of this demo`];
    const handed = `${worker.name} was handed ${job.name}`;
    const why = whyNot(worker, job);
    if (why !== undefined) return [`${handed}: ${why}`];
    const waited = (assignment.at - assignment.readySince) / 1000;
    return waited < leftFor(worker, job)
      ? [`${handed} after ${waited.toFixed(1)} s, and leaves such jobs to others for ${worker.yieldSeconds} s`]
      : [];
  });
  return {
    looked: `${assignments.length} assignments: each worker had what the job requires, and accepts its customer`,
    faults,
  };
}

/**
 * No worker was handed a job while one that goes before it, and that it may run, was ready. A call looks and takes in
 * several steps while others take too: a job that another call took is only held against it where that call began later.
 */
export function orderCheck({ fleet, jobs, assignments, readyAt, raised }: DemoRecord): Check {
  const jobOf = new Map(jobs.map((job) => [job.id, job]));
  const takenFirst = new Map([...assignments].reverse().map((assignment) => [assignment.job, assignment]));
  const faults: string[] = [];
  // When a call ended is not recorded; its worker's next one began later.
  const endOf = (taken: Assignment): number =>
    assignments.find(({ worker, began }) => worker === taken.worker && began > taken.began)?.began ??
    Number.POSITIVE_INFINITY;
  let judged = 0;
  let pairs = 0;
  let atOnce = 0;
  for (const handed of assignments) {
    const worker = fleet.find(({ name }) => name === handed.worker);
    const job = jobOf.get(handed.job);
    if (!worker || !job || handed.began < readyAt || isDuring(raised, handed)) continue;
    judged += 1;
    const priority = priorityAt(handed.began, raised);
    const open = jobs.filter(
      (other) => other !== job && mayRun(worker, other) && readyAt + leftFor(worker, other) * 1000 <= handed.began,
    );
    // Where others hold all that it finds of one priority, a call takes of the next without regard to warmth.
    const isCrowded = open.some((other) => {
      const taken = takenFirst.get(other.id);
      const isOthers = taken && taken.worker !== worker.name;
      return isOthers && priority(other) > priority(job) && taken.began <= handed.at && endOf(taken) >= handed.began;
    });
    for (const other of open) {
      const isAhead =
        goesBefore(other, job, priority, handed.warm) && (!isCrowded || goesBefore(other, job, priority, []));
      if (!isAhead) continue;
      pairs += 1;
      const taken = takenFirst.get(other.id);
      if (taken === undefined || taken.began > handed.at) {
        const then = taken ? `${taken.worker} was handed that one later` : "nobody was ever handed that one";
        faults.push(
          `${worker.name} was handed ${job.name} while ${other.name} was ready, which goes before it; ${then}`,
        );
      } else if (taken.at >= handed.began) {
        atOnce += 1;
      }
    }
  }
  const unjudged = assignments.length - judged;
  return {
    looked:
      `the order of ${judged} assignments: what goes before and the worker may run had been taken each time, ${pairs} jobs in all` +
      (atOnce > 0 ? `, ${atOnce} of them by another worker in the same moment` : "") +
      (unjudged > 0 ? `; ${unjudged} not judged, since something was changed in that moment` : ""),
    faults,
  };
}

/** Every job that a worker may run succeeded, and was handed out once. */
export function doneCheck({ fleet, jobs, assignments, succeeded }: DemoRecord): Check {
  const possible = jobs.filter((job) => fleet.some((worker) => mayRun(worker, job)));
  return {
    looked: `${possible.length} jobs that some worker may run: each was handed out once, and succeeded`,
    faults: possible.flatMap((job) => {
      const times = assignments.filter((assignment) => assignment.job === job.id).length;
      const ended = succeeded.has(job.id) ? "succeeded" : "did not succeed";
      const often = times === 1 ? "once" : `${times} times`;
      return times === 1 && succeeded.has(job.id) ? [] : [`${job.name} was handed out ${often}, and ${ended}`];
    }),
  };
}

/** What the database says that nobody can run is what is left, and what no worker may run. */
export function leftCheck({ fleet, jobs, assignments, unmatched }: DemoRecord): Check {
  const said = new Set(unmatched.flatMap((line) => line.jobs));
  const handed = new Set(assignments.map((assignment) => assignment.job));
  const impossible = jobs.filter((job) => !fleet.some((worker) => mayRun(worker, job)));
  return {
    looked: `${impossible.length} jobs that no worker may run: they are what is left, and what work_unmatched tells of`,
    faults: jobs.flatMap((job) => {
      const isImpossible = impossible.includes(job);
      if (isImpossible && handed.has(job.id)) return [`${job.name} was handed out, though no worker may run it`];
      if (isImpossible && !said.has(job.id))
        return [`${job.name} can be run by nobody, and work_unmatched does not say so`];
      return !isImpossible && said.has(job.id) ? [`work_unmatched has ${job.name}, which a worker may run`] : [];
    }),
  };
}

/** For how many seconds a worker leaves a job to others. */
function leftFor(worker: FleetWorker, job: Job): number {
  return isSpared(worker, job) ? (worker.yieldSeconds ?? Number.POSITIVE_INFINITY) : 0;
}

function isDuring(raised: Raise | undefined, { began, at }: Assignment): boolean {
  return raised !== undefined && began <= raised.to && at >= raised.from;
}

function priorityAt(moment: number, raised: Raise | undefined): (job: Job) => number {
  return (job) => (raised && moment > raised.to && job.workflow === raised.workflow ? raised.priority : job.priority);
}

/** Priority, then what the worker is warm for, then the line. */
function goesBefore(one: Job, other: Job, priority: (job: Job) => number, warm: readonly string[]): boolean {
  const coldness = ({ affinity }: Job): number => (affinity !== undefined && warm.includes(affinity) ? 0 : 1);
  const difference =
    priority(other) - priority(one) ||
    coldness(one) - coldness(other) ||
    one.line - other.line ||
    one.position - other.position;
  return difference < 0;
}
