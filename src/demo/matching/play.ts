import { setTimeout as pause } from "node:timers/promises";
import { finishedClaims } from "../../overview.ts";
import { follow } from "../following.ts";
import { denoProgram } from "../processes.ts";
import { lookAtItLines } from "../report.ts";
import { type Play, type Stage, startedLine } from "../stage.ts";
import { checks } from "./checks.ts";
import { environmentOf, fleet } from "./fleet.ts";
import { arrivingJobs, itemsOf, type Job, raise, workflows, workType } from "./jobs.ts";
import { mayRun } from "./judging.ts";
import {
  assignmentsOf,
  type DemoRecord,
  momentOf,
  prepareWitness,
  type Raise,
  succeededJobs,
  unmatchedJobs,
} from "./record.ts";
import { assignmentsTable, checkedLines, fleetLines, jobLines, leftLines, seenLines } from "./report.ts";

/** The workflow becomes urgent when so much is done: all are at work by then, and most is still to do. */
const raisedAtShare = 1 / 3;

/** No job takes a second; when none has ended for so long, none will, and the checks say what is wrong. */
const quietMs = 15_000;

/** For what takes a moment on an idle machine. */
const patienceMs = 60_000;

/** Five unlike workers: who is handed what, in which order, and why the rest is left. */
export const matching: Play = {
  title: `work-claims demo --matching: ${arrivingJobs().length} jobs, and ${fleet.length} workers that are not alike`,
  async perform(stage) {
    await prepareWitness(stage.sql);
    // Nobody is handed a job before all workers are there and all jobs are known to them. Longer than the demo takes:
    // what has been passed over for too long goes before what a worker is warm for.
    await stage.client.defineWorkType(workType, { pool: "default", paused: true, passedOverSeconds: 3600 });
    for (const { name, priority } of workflows) await stage.client.defineWorkflow(name, { priority });
    startFleet(stage);
    stage.screen.say(startedLine(stage.workers));
    stage.screen.say(`${[...fleetLines(fleet, stage.workers), "", ...jobLines()].join("\n")}\n`);
    await until(stage, "all workers have registered", async () => {
      const live = await stage.client.liveWorkers(new Date(Date.now() - patienceMs));
      return fleet.every(({ name }) => live.some(({ id }) => id === name));
    });
    stage.done("all workers are there");

    const jobs = await enqueue(stage);
    const readyAt = await momentOf(stage.sql);
    await stage.client.defineWorkType(workType, { paused: false });
    stage.done(`${jobs.length} jobs are enqueued`);
    const raised = await followAndRaise(stage, jobs);
    return report(stage, {
      fleet,
      jobs,
      readyAt,
      raised,
      assignments: await assignmentsOf(stage.sql),
      succeeded: await succeededJobs(stage.sql),
      unmatched: await unmatchedJobs(stage.sql),
    });
  },
  lookAtIt: (stack) =>
    lookAtItLines(stack, [
      "select * from work_unmatched;",
      "select * from work_capability_match;",
      "select explain_item(example_item) ->> 'text' from work_unmatched;",
      "select worker_id, count(*) from demo_handed group by worker_id;",
      "-- The workers stay too: give them something to do.",
      `select enqueue_items('[{"payload": {"ms": 500}, "requires": {"gpus": 2}}]');`,
    ]),
};

function startFleet(stage: Stage): void {
  for (const worker of fleet) {
    // One on Deno, where that is installed.
    const host = worker.name === "simulation" && denoProgram() !== undefined ? "deno" : "node";
    stage.start(worker.name, host, "demo-matching", environmentOf(worker));
  }
}

/** Adds all jobs at once, and waits until a worker's call has made their classes known to all. */
async function enqueue({ client, sql, ...stage }: Stage): Promise<Job[]> {
  const jobs = arrivingJobs();
  const ids = await client.enqueueItems(itemsOf(jobs));
  await until(stage, "the workers know all classes", async () => {
    const [row] = await sql`select count(*)::int as unknown from public.work_classes where number is null`;
    return row?.unknown === 0;
  });
  return jobs.map((job, index) => ({ ...job, id: ids[index] as string }));
}

/** Shows the progress until no more is to come, and raises a workflow on the way; answers when. */
async function followAndRaise(stage: Stage, jobs: readonly Job[]): Promise<Raise | undefined> {
  const possible = jobs.filter((job) => fleet.some((worker) => mayRun(worker, job))).length;
  let raised: Raise | undefined;
  let finished = 0;
  let movedAt = performance.now();
  await follow(stage, async (row) => {
    if (finishedClaims(row) > finished) movedAt = performance.now();
    finished = finishedClaims(row);
    if (finished >= possible || performance.now() - movedAt > quietMs) return "end";
    if (!raised && finished >= possible * raisedAtShare) raised = await raiseWorkflow(stage);
    return "go on";
  });
  return raised;
}

async function raiseWorkflow({ client, sql, screen }: Stage): Promise<Raise> {
  const from = await momentOf(sql);
  await client.defineWorkflow(raise.workflow, { priority: raise.priority });
  screen.say(`↑ workflow ${raise.workflow} has priority ${raise.priority} from here on`);
  return { ...raise, from, to: await momentOf(sql) };
}

function report({ screen }: Stage, record: DemoRecord): boolean {
  const found = checks(record);
  const parts = [[assignmentsTable(record)], seenLines(record), leftLines(record), checkedLines(found)];
  for (const lines of parts) screen.say(`\n${lines.join("\n")}`);
  return found.every(({ faults }) => faults.length === 0);
}

async function until(
  { signal, workers }: Pick<Stage, "signal" | "workers">,
  what: string,
  isSo: () => Promise<boolean>,
): Promise<void> {
  const began = performance.now();
  while (!(await isSo())) {
    const gone = workers.find((worker) => worker.process.hasExited());
    if (gone) throw new Error(`${gone.name} has left before ${what}; what it said is above`);
    if (performance.now() - began > patienceMs) throw new Error(`${patienceMs / 1000} s were not enough until ${what}`);
    await pause(50, undefined, { signal });
  }
}
