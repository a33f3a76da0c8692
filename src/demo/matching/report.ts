import { table } from "../../cli/table.ts";
import { canonicalRequirement } from "../../requirement/compile.ts";
import type { DemoWorker } from "../processes.ts";
import type { Check } from "./checks.ts";
import type { FleetWorker } from "./fleet.ts";
import { kinds, workflows } from "./jobs.ts";
import { isSpared, mayRun } from "./judging.ts";
import type { DemoRecord } from "./record.ts";

/** Who there is. */
export function fleetLines(fleet: readonly FleetWorker[], workers: readonly DemoWorker[]): string[] {
  const width = Math.max(...fleet.map(({ name }) => name.length));
  return fleet.flatMap((worker) => {
    const isDeno = workers.some(({ name, host }) => name === worker.name && host === "deno");
    return [
      `${worker.name.padEnd(width)}  ${isDeno ? "Deno" : "Node"}, has ${propertiesInWords(worker.capabilities)}`,
      `${" ".repeat(width)}  takes ${takenInWords(worker)}`,
    ];
  });
}

/** What there is to do. */
export function jobLines(): string[] {
  return kinds.map(({ times, name, customer, requires, workflow }) => {
    const priority = workflows.find((each) => each.name === workflow)?.priority;
    const belongs = workflow === undefined ? "" : `, workflow ${workflow} of priority ${priority}`;
    const asked = canonicalRequirement(requires).slice("c:".length);
    return `${String(times).padStart(3)} × ${name} for ${customer}${belongs}: ${asked}`;
  });
}

/** Who was handed what; a dash where a worker may not run a job. */
export function assignmentsTable({ fleet, jobs, assignments, succeeded }: DemoRecord): string {
  return table(
    ["job", ...fleet.map(({ name }) => name), "left"],
    kinds.map(({ name }) => {
      const ofKind = jobs.filter((job) => job.kind === name);
      const ids = new Set(ofKind.map((job) => job.id));
      return [
        name,
        ...fleet.map((worker) => {
          const count = assignments.filter(({ job, worker: to }) => to === worker.name && ids.has(job)).length;
          return count === 0 && !ofKind.some((job) => mayRun(worker, job)) ? null : count;
        }),
        ofKind.filter((job) => !succeeded.has(job.id)).length,
      ];
    }),
  );
}

/** What there was to see of order, warmth and yielding. */
export function seenLines(record: DemoRecord): string[] {
  return [...raisedLines(record), ...warmLines(record), ...yieldedLines(record)];
}

function raisedLines({ jobs, assignments, raised }: DemoRecord): string[] {
  if (!raised) return [];
  const ofWorkflow = jobs.filter((job) => job.workflow === raised.workflow);
  const handed = assignments.filter(({ job }) => ofWorkflow.some(({ id }) => id === job));
  const later = handed.filter(({ began }) => began > raised.from);
  const last = later.at(-1);
  return [
    `${raised.workflow}: ${handed.length - later.length} of ${ofWorkflow.length} had been handed out when its priority went from ` +
      `${ofWorkflow[0]?.priority} to ${raised.priority}` +
      (last ? `; ${seconds(last.at - raised.to)} s later the last one was` : ""),
  ];
}

function warmLines({ jobs, assignments }: DemoRecord): string[] {
  const withModel = assignments.filter(({ job }) => jobs.find(({ id }) => id === job)?.affinity !== undefined);
  const loads = withModel.filter(({ loaded }) => loaded).length;
  return [
    `models: ${loads} loaded for ${withModel.length} jobs; within one priority a worker first gets those for the model in its memory`,
  ];
}

function yieldedLines({ fleet, jobs, assignments }: DemoRecord): string[] {
  return fleet
    .filter((worker) => worker.exclusive.length > 0)
    .map((worker) => {
      const spared = assignments.filter((assignment) => {
        const job = jobs.find(({ id }) => id === assignment.job);
        return assignment.worker === worker.name && job && isSpared(worker, job);
      });
      const soonest = Math.min(...spared.map(({ at, readySince }) => at - readySince));
      return (
        `${worker.name}: left jobs that need no GPU to others for ${worker.yieldSeconds} s, and then took ${spared.length} of them` +
        (spared.length > 0 ? `, the first after ${seconds(soonest)} s` : "")
      );
    });
}

/** Why what is left is left, in the database's words. */
export function leftLines({ jobs, unmatched }: DemoRecord): string[] {
  return [
    "left, and why:",
    ...unmatched.flatMap(({ jobs: ids, reason }) => {
      const kind = jobs.find(({ id }) => id === ids[0])?.kind ?? "a job of somebody else";
      const [first, ...more] = reason.split(/(?<=\.) (?=Its? )/);
      return [`  ${ids.length} × ${kind}: ${first}`, ...more.map((sentence) => `        ${sentence}`)];
    }),
  ];
}

/** Each check in a line; of its faults the first few. */
export function checkedLines(found: readonly Check[]): string[] {
  return found.flatMap(({ looked, faults }) =>
    faults.length === 0
      ? [`✓ ${looked}`]
      : [
          `✗ ${faults.length} ${faults.length === 1 ? "fault" : "faults"} in: ${looked}`,
          ...faults.slice(0, 5).map((fault) => `    ${fault}`),
        ],
  );
}

function propertiesInWords(properties: object): string {
  return Object.entries(properties)
    .map(([name, value]) => `${name} ${Array.isArray(value) ? value.join("+") : value}`)
    .join(", ");
}

function takenInWords({ accepts, exclusive, yieldSeconds }: FleetWorker): string {
  const taken = Object.keys(accepts).length === 0 ? "all" : JSON.stringify(accepts);
  const left = yieldSeconds === undefined ? "" : ` for ${yieldSeconds} s`;
  return exclusive.length === 0
    ? taken
    : `${taken}, but leaves what needs no ${exclusive.join(" or ")} to others${left}`;
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}
