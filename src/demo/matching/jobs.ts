import type { Json, NewItem, Properties } from "../../answers.ts";
import type { Requirement } from "../../requirement/requirement.ts";

export const workType = "generate";

/** In the order in which they are made; both before any job. */
export const workflows: readonly { name: string; priority: number }[] = [
  { name: "film", priority: 10 },
  { name: "previews", priority: -5 },
];

/** This workflow becomes urgent while the demo runs. */
export const raise = { workflow: "previews", priority: 20 } as const;

/** Jobs that are alike, and how many of them there are. */
export type JobKind = {
  name: string;
  times: number;
  requires: Requirement;
  customer: string;
  ms: number;
  comesFirst?: boolean;
  model?: string;
  workflow?: string;
};

export const kinds: readonly JobKind[] = [
  // They come first and need no GPU: without being left to others they would fill all-48 while dear jobs wait.
  {
    name: "simulation",
    times: 20,
    customer: "acme",
    ms: 250,
    comesFirst: true,
    requires: { services: ["simulation"], cpus: 8 },
  },
  {
    name: "sdxl picture",
    times: 10,
    customer: "globex",
    ms: 120,
    model: "sdxl",
    requires: { services: ["comfyui"], gpu_memory_gb: 12, models: ["sdxl"] },
  },
  {
    name: "sd15 picture",
    times: 10,
    customer: "acme",
    ms: 120,
    model: "sd15",
    requires: { services: ["comfyui"], gpu_memory_gb: 6, models: ["sd15"] },
  },
  {
    name: "upscaling",
    times: 8,
    customer: "acme",
    ms: 200,
    model: "upscaler",
    requires: { services: ["a1111"], gpu_memory_gb: 20, models: ["sdxl", "upscaler"] },
  },
  {
    name: "upscaling, not on spot",
    times: 4,
    customer: "globex",
    ms: 200,
    model: "upscaler",
    requires: { services: ["a1111"], gpu_memory_gb: 20, models: ["sdxl", "upscaler"], not: { tier: "spot" } },
  },
  {
    name: "umbrella's picture",
    times: 3,
    customer: "umbrella",
    ms: 120,
    model: "sdxl",
    requires: { services: ["comfyui"], gpu_memory_gb: 12, models: ["sdxl"] },
  },
  {
    name: "film scene",
    times: 4,
    customer: "globex",
    ms: 300,
    model: "flux",
    workflow: "film",
    requires: { services: ["simulation", "comfyui"], gpus: 2, gpu_memory_gb: 40, models: ["flux"] },
  },
  {
    name: "preview",
    times: 10,
    customer: "acme",
    ms: 150,
    workflow: "previews",
    requires: { gpu_memory_gb: 6, any: [{ services: "comfyui" }, { services: "a1111" }] },
  },
  {
    name: "initech's picture",
    times: 5,
    customer: "initech",
    ms: 150,
    model: "sd15",
    requires: { services: ["comfyui"], gpu_memory_gb: 6, models: ["sd15"], dedicated_to: "initech" },
  },
  {
    name: "initech's retouching",
    times: 5,
    customer: "initech",
    ms: 150,
    requires: { services: ["a1111"], gpu_memory_gb: 8, dedicated_to: "initech" },
  },
  // Nobody can run these.
  { name: "poster in 8k", times: 2, customer: "acme", ms: 0, requires: { services: ["comfyui"], gpu_memory_gb: 80 } },
  {
    name: "controlled picture",
    times: 1,
    customer: "globex",
    ms: 0,
    requires: { services: ["comfyui"], models: ["sdxl", "controlnet"] },
  },
  {
    name: "initech's poster",
    times: 1,
    customer: "initech",
    ms: 0,
    requires: { services: ["comfyui"], gpu_memory_gb: 16, dedicated_to: "initech" },
  },
  { name: "voice", times: 1, customer: "umbrella", ms: 0, requires: { services: ["speech"] } },
];

/** A job in its place in line, as far as this demo knows it from its own list. */
export type Job = {
  /** Its item, once it is enqueued. */
  id: string;
  kind: string;
  name: string;
  requires: Requirement;
  labels: Properties;
  priority: number;
  /** The order within one priority: that of the workflow, else its own. */
  line: number;
  position: number;
  payload: Json;
  affinity?: string;
  workflow?: string;
};

/** All jobs in the order in which they come: most kinds mixed, each spread evenly. */
export function arrivingJobs(): Job[] {
  const all = kinds.flatMap((kind) =>
    Array.from({ length: kind.times }, (_, index) => ({
      kind,
      index,
      at: kind.comesFirst ? 0 : (index + 0.5) / kind.times,
    })),
  );
  return all
    .sort((a, b) => a.at - b.at)
    .map(({ kind, index }, position) => {
      const { name, times, requires, customer, ms, model, workflow } = kind;
      // Older than any job, and in the order in which they were made.
      const place = workflows.findIndex((each) => each.name === workflow);
      return {
        id: "",
        kind: name,
        name: times === 1 ? name : `${name} ${index + 1}`,
        requires,
        labels: { customer },
        priority: workflows[place]?.priority ?? 0,
        line: place === -1 ? position : place - workflows.length,
        position,
        payload: { ms, ...(model && { model }) },
        ...(model && { affinity: model }),
        ...(workflow && { workflow }),
      };
    });
}

/** As they are handed to enqueue_items(). */
export function itemsOf(jobs: readonly Job[]): NewItem[] {
  return jobs.map(({ payload, requires, labels, affinity, workflow }) => ({
    payload,
    requires,
    labels,
    ...(affinity && { affinity }),
    ...(workflow && { workflow }),
  }));
}
