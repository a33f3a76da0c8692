import { hostname } from "node:os";
import { afterEach, expect, test, vi } from "vitest";
import { settle } from "../workers/runtime/settings.ts";

const workerId = (): string => settle("embed", { url: "http://stack.test", key: "sb_secret_none" }).workerId;
const host = hostname().replace(/[^A-Za-z0-9._-]/g, "_");

afterEach(() => vi.unstubAllEnvs());

test.each([
  { engine: "no engine", variables: {}, prefix: "" },
  {
    engine: "a task of a Slurm array",
    variables: { SLURM_JOB_ID: "812", SLURM_ARRAY_JOB_ID: "811", SLURM_ARRAY_TASK_ID: "0" },
    prefix: "slurm-811_0-",
  },
  { engine: "a Slurm job", variables: { SLURM_JOB_ID: "812" }, prefix: "slurm-812-" },
  { engine: "a pod of RunPod", variables: { RUNPOD_POD_ID: "x1y2z3" }, prefix: "runpod-x1y2z3-" },
  { engine: "an instance of Vast.ai", variables: { VAST_CONTAINERLABEL: "C.123" }, prefix: "vast-C.123-" },
])("a worker under $engine has an id that begins with $prefix and its host", ({ variables, prefix }) => {
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
  const id = workerId();
  expect(id.startsWith(`${prefix}${host}-${process.pid}-`)).toBe(true);
  expect(workerId()).not.toBe(id);
});

test("a worker's id fits behind the name of a token, whatever the engine calls it", () => {
  vi.stubEnv("RUNPOD_POD_ID", `pod:/é ${"x".repeat(300)}`);
  expect(workerId()).toMatch(/^runpod-pod___[A-Za-z0-9._-]{1,86}$/);
});

test("WORK_ID names the worker in place of the engine", () => {
  vi.stubEnv("SLURM_JOB_ID", "812");
  vi.stubEnv("WORK_ID", "mine");
  expect(workerId()).toBe("mine");
});
