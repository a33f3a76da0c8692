import type { NewItem } from "../../workers/runtime/new-item.ts";
import type { Requirement } from "../../workers/runtime/requirement.ts";
import type { Properties } from "../answers.ts";
import { explainedLines } from "../cli/sentences.ts";
import { table } from "../cli/table.ts";
import { finishedClaims } from "../overview.ts";
import { follow } from "./following.ts";
import { lookAtItLines } from "./report.ts";
import { type Play, type Stage, startedLine } from "./stage.ts";

type FleetWorker = { has: Properties; accepts?: Requirement; exclusive?: string; yieldSeconds?: number };

const fleet: { [name: string]: FleetWorker } = {
  simulation: { has: { services: ["simulation"], cpus: 16 } },
  "comfyui-16": {
    has: { services: ["comfyui"], gpu_memory_gb: 16, models: ["sd15", "sdxl"] },
    accepts: { not: { customer: "umbrella" } },
  },
  "a1111-24": {
    has: { services: ["a1111"], gpu_memory_gb: 24, models: ["sdxl", "upscaler"], tier: "spot" },
    accepts: { customer: { in: ["acme", "globex"] } },
  },
  "all-48": {
    has: { services: ["simulation", "comfyui", "a1111"], cpus: 32, gpu_memory_gb: 48, models: ["sdxl", "upscaler"] },
    exclusive: "gpu_memory_gb",
    yieldSeconds: 2,
  },
  "initech-8": {
    has: { services: ["comfyui", "a1111"], gpu_memory_gb: 8, models: ["sd15"], dedicated_to: "initech" },
    accepts: { customer: "initech" },
  },
};

type Kind = { times: number; customer: string; requires: Requirement; model?: string; workflow?: string };

const kinds: { [name: string]: Kind } = {
  simulation: { times: 24, customer: "acme", requires: { services: ["simulation"], cpus: 8 } },
  "sdxl picture": { times: 6, customer: "globex", model: "sdxl", requires: { gpu_memory_gb: 12, models: ["sdxl"] } },
  "sd15 picture": { times: 6, customer: "acme", model: "sd15", requires: { gpu_memory_gb: 6, models: ["sd15"] } },
  upscaling: { times: 6, customer: "acme", model: "upscaler", requires: { gpu_memory_gb: 20, models: ["upscaler"] } },
  "no spot": { times: 3, customer: "globex", requires: { gpu_memory_gb: 20, not: { tier: "spot" } } },
  "umbrella's picture": { times: 3, customer: "umbrella", model: "sdxl", requires: { gpu_memory_gb: 12 } },
  "film scene": { times: 4, customer: "globex", workflow: "film", requires: { gpu_memory_gb: 40 } },
  preview: { times: 6, customer: "acme", workflow: "previews", requires: { gpu_memory_gb: 6 } },
  "initech's picture": { times: 4, customer: "initech", model: "sd15", requires: { dedicated_to: "initech" } },
};

/** No worker of the fleet can run these. */
const impossible: { [name: string]: Kind } = {
  "poster in 8k": { times: 2, customer: "acme", requires: { services: ["comfyui"], gpu_memory_gb: 80 } },
  "initech's poster": { times: 1, customer: "initech", requires: { gpu_memory_gb: 16, dedicated_to: "initech" } },
  voice: { times: 1, customer: "umbrella", requires: { services: ["speech"] } },
};

const jobs = jobsOf({ ...kinds, ...impossible });
const possible = jobsOf(kinds).length;

/** Five unlike workers share a queue. It shows the jobs of each in order, and why the rest is left. */
export const matching: Play = {
  title: `work-claims demo --matching: ${jobs.length} jobs, and ${Object.keys(fleet).length} workers that are not alike`,
  async perform(stage) {
    const { client, screen } = stage;
    const takes = ({ accepts, exclusive, yieldSeconds }: FleetWorker): string =>
      exclusive ? `after ${yieldSeconds} s what needs no ${exclusive}` : accepts ? plain(accepts) : "all";
    const workers = Object.entries(fleet).map(([name, worker]) => [name, plain(worker.has), takes(worker)]);
    const asked = Object.entries({ ...kinds, ...impossible }).map(
      ([name, { times, customer, requires, workflow = "" }]) => [times, name, customer, plain(requires), workflow],
    );
    screen.say(`\n${table(["worker", "has", "takes"], workers)}\n`);
    screen.say(`${table(["jobs", "kind", "for", "requires", "workflow"], asked)}\n`);
    await client.defineWorkType("generate", { pool: "default" });
    await client.defineWorkflow("film", { priority: 10 });
    await client.defineWorkflow("previews", { priority: -5 });
    const ids = await client.enqueueItems(jobs.map(({ item }) => item));
    for (const [name, worker] of Object.entries(fleet)) stage.start(name, "node", "demo-matching", settingsOf(worker));
    screen.say(startedLine(stage.workers));
    let isRaised = false;
    await follow(stage, async (row) => {
      if (!isRaised && finishedClaims(row) >= possible / 3) {
        isRaised = true;
        await client.defineWorkflow("previews", { priority: 20 });
        screen.say("↑ workflow previews has priority 20 from here on");
      }
      return finishedClaims(row) >= possible ? "end" : "go on";
    });
    screen.say(`\neach worker's jobs, in order:\n${await handedTable(stage)}\n\nleft, and why:`);
    for (const name of Object.keys(impossible)) {
      const left = await client.explainItem(ids[jobs.findIndex((job) => job.kind === name)] as string);
      screen.say(`  ${name}: ${explainedLines(left).join(" ")}`);
    }
    return true;
  },
  lookAtIt: (stack) => lookAtItLines(stack, ["select * from work_stuck;", "select * from work_capability_match;"]),
};

/** All jobs, the kinds mixed: the first of each kind, then the second of each. */
function jobsOf(some: { [name: string]: Kind }): { kind: string; item: NewItem }[] {
  const all = Object.entries(some).flatMap(([kind, { times, customer, requires, model, workflow }]) => {
    const belongs = { ...(model && { affinity: model }), ...(workflow && { workflow }) };
    const item = { payload: { kind, model: model ?? null }, requires, labels: { customer }, ...belongs };
    return Array.from({ length: times }, (_, place) => ({ place, kind, item }));
  });
  return all.sort((one, other) => one.place - other.place);
}

/** The variables that every worker reads. */
function settingsOf({ has, accepts, exclusive, yieldSeconds }: FleetWorker): { [name: string]: string } {
  return {
    WORK_CAPABILITIES: JSON.stringify(has),
    ...(accepts && { WORK_ACCEPTS: JSON.stringify(accepts) }),
    ...(exclusive && { WORK_EXCLUSIVE: exclusive, WORK_YIELD_SECONDS: String(yieldSeconds) }),
  };
}

/** The jobs of each worker in the order in which it got them; jobs of one kind in a row are one entry. */
async function handedTable({ sql }: Stage): Promise<string> {
  const rows = await sql<{ worker: string; kind: string }[]>`
    select c.worker_id as worker, i.payload ->> 'kind' as kind
      from public.work_claims c
      join public.work_items i on i.id = c.item_id
     where c.status = 'succeeded'
     order by c.worker_id, c.fence`;
  const handed = new Map<string, { kind: string; count: number }[]>();
  for (const { worker, kind } of rows) {
    const runs = handed.get(worker) ?? [];
    const last = runs.at(-1);
    if (last?.kind === kind) last.count += 1;
    else handed.set(worker, [...runs, { kind, count: 1 }]);
  }
  return table(
    ["worker", "jobs"],
    [...handed].map(([worker, runs]) => [worker, runs.map(({ kind, count }) => `${count} × ${kind}`).join(", ")]),
  );
}

function plain(value: object): string {
  return JSON.stringify(value).slice(1, -1).replaceAll('"', "").replaceAll(",", ", ");
}
