import type { Properties } from "../../answers.ts";
import { failingClauses } from "../../requirement/explain.ts";
import { matches } from "../../requirement/judge.ts";
import type { FleetWorker } from "./fleet.ts";
import type { Job } from "./jobs.ts";

/** What a job asks of a worker, and shows to it. */
type Asking = Pick<Job, "requires" | "labels">;

/** Whether a worker may ever be handed a job. Judged here, without the database. */
export function mayRun(worker: FleetWorker, job: Asking): boolean {
  return whyNot(worker, job) === undefined;
}

/** Whether a worker leaves a job to others, at least for a while: it would meet it without what it is exclusive about. */
export function isSpared({ capabilities, exclusive }: FleetWorker, { requires }: Asking): boolean {
  return exclusive.length > 0 && matches(requires, without(capabilities, exclusive));
}

/** Why a worker may never be handed a job. */
export function whyNot(worker: FleetWorker, job: Asking): string | undefined {
  const [failing] = failingClauses(job.requires, worker.capabilities);
  if (failing)
    return `it needs ${failing.needs}, and the worker has ${failing.has === null ? "none" : JSON.stringify(failing.has)}`;
  if (!matches(worker.accepts, job.labels)) {
    return `it is ${JSON.stringify(job.labels)}, and the worker accepts ${JSON.stringify(worker.accepts)}`;
  }
  if (worker.yieldSeconds === undefined && isSpared(worker, job)) {
    return `it needs nothing of what the worker is exclusive about: ${worker.exclusive.join(", ")}`;
  }
  return undefined;
}

function without(capabilities: Properties, names: readonly string[]): Properties {
  return Object.fromEntries(Object.entries(capabilities).filter(([name]) => !names.includes(name)));
}
