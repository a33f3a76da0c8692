import type { Properties } from "../../answers.ts";
import type { Requirement } from "../../requirement/requirement.ts";
import type { WorkerEnvironment } from "../processes.ts";

/** What a worker has, and what it takes. */
export type FleetWorker = {
  name: string;
  capabilities: Properties;
  accepts: Requirement;
  /** Too dear for jobs that do without: those are left to others for `yieldSeconds`, or for good. */
  exclusive: readonly string[];
  yieldSeconds?: number;
};

export const fleet: readonly FleetWorker[] = [
  {
    name: "simulation",
    capabilities: { services: ["simulation"], cpus: 16 },
    accepts: {},
    exclusive: [],
  },
  {
    name: "comfyui-16",
    capabilities: { services: ["comfyui"], gpus: 1, gpu_memory_gb: 16, models: ["sd15", "sdxl"] },
    // Customers that it is denied.
    accepts: { not: { customer: { in: ["umbrella"] } } },
    exclusive: [],
  },
  {
    name: "a1111-24",
    capabilities: {
      services: ["a1111"],
      gpus: 1,
      gpu_memory_gb: 24,
      models: ["sd15", "sdxl", "upscaler"],
      tier: "spot",
    },
    // Customers that it is allowed.
    accepts: { customer: { in: ["acme", "globex"] } },
    exclusive: [],
  },
  {
    name: "all-48",
    capabilities: {
      services: ["simulation", "comfyui", "a1111"],
      cpus: 32,
      gpus: 2,
      gpu_memory_gb: 48,
      models: ["sd15", "sdxl", "flux", "upscaler"],
    },
    accepts: {},
    exclusive: ["gpus", "gpu_memory_gb"],
    yieldSeconds: 3,
  },
  {
    name: "both-8",
    capabilities: {
      services: ["comfyui", "a1111"],
      gpus: 1,
      gpu_memory_gb: 8,
      models: ["sd15"],
      dedicated_to: "initech",
    },
    // Isolated both ways: it takes nobody else's jobs, and initech's ask for a worker that is dedicated to them.
    accepts: { customer: "initech" },
    exclusive: [],
  },
];

/** A worker's own words, in the variables that every worker reads. */
export function environmentOf({ capabilities, accepts, exclusive, yieldSeconds }: FleetWorker): WorkerEnvironment {
  return {
    WORK_CAPABILITIES: JSON.stringify(capabilities),
    WORK_ACCEPTS: JSON.stringify(accepts),
    ...(exclusive.length > 0 && { WORK_EXCLUSIVE: exclusive.join(",") }),
    ...(yieldSeconds !== undefined && { WORK_YIELD_SECONDS: String(yieldSeconds) }),
  };
}
