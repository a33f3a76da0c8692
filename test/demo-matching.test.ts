import { describe, expect, test } from "vitest";
import { allowedCheck, doneCheck, leftCheck, orderCheck } from "../src/demo/matching/checks.ts";
import type { FleetWorker } from "../src/demo/matching/fleet.ts";
import type { Job } from "../src/demo/matching/jobs.ts";
import type { Assignment, DemoRecord } from "../src/demo/matching/record.ts";
import { checkedLines } from "../src/demo/matching/report.ts";
import { isAlive, runDemo, workersOf } from "./demo-runs.ts";

const small: FleetWorker = {
  name: "small",
  capabilities: { gpu_memory_gb: 8 },
  accepts: { customer: "acme" },
  exclusive: [],
};
const big: FleetWorker = {
  name: "big",
  capabilities: { gpu_memory_gb: 48 },
  accepts: {},
  exclusive: ["gpu_memory_gb"],
  yieldSeconds: 3,
};

function job(position: number, more: Partial<Job> = {}): Job {
  const name = `job ${position}`;
  const place = { priority: 0, line: position, position };
  return { id: name, kind: name, name, requires: {}, labels: { customer: "acme" }, payload: {}, ...place, ...more };
}

/** Takes ten milliseconds from the call to the job. */
function handed(to: FleetWorker, { id }: Job, began: number, more: Partial<Assignment> = {}): Assignment {
  return { job: id, worker: to.name, began, at: began + 10, readySince: 0, warm: [], loaded: false, ...more };
}

function record(jobs: Job[], assignments: Assignment[], more: Partial<DemoRecord> = {}): DemoRecord {
  const succeeded = new Set(assignments.map((assignment) => assignment.job));
  return { fleet: [small, big], jobs, assignments, readyAt: 0, raised: undefined, succeeded, unmatched: [], ...more };
}

const dear = { requires: { gpu_memory_gb: 24 } };

describe("the demo's check that assignments were allowed", () => {
  test("is content with what the worker has and accepts", () => {
    const jobs = [job(0), job(1, dear), job(2)];
    const assignments = [
      handed(small, job(0), 0),
      handed(big, job(1), 0),
      handed(big, job(2), 3000, { readySince: 10 }),
    ];
    expect(allowedCheck(record(jobs, assignments)).faults).toEqual([]);
  });

  test.each([
    ["requires more than the worker has", job(0, dear), small, "it needs gpu_memory_gb >= 24, and the worker has 8"],
    [
      "asks for what the worker has not got at all",
      job(0, { requires: { services: ["comfyui"] } }),
      small,
      "it needs services = comfyui, and the worker has none",
    ],
    [
      "is of a customer that the worker does not accept",
      job(0, { labels: { customer: "globex" } }),
      small,
      'it is {"customer":"globex"}, and the worker accepts {"customer":"acme"}',
    ],
  ])("is not content with a job that %s", (_, wrong, worker, why) => {
    expect(allowedCheck(record([wrong], [handed(worker, wrong, 0)])).faults).toEqual([
      `${worker.name} was handed job 0: ${why}`,
    ]);
  });

  test("is not content with a job that the worker still had to leave to others", () => {
    const assignments = [handed(big, job(0), 2980, { readySince: 0 })];
    expect(allowedCheck(record([job(0)], assignments)).faults).toEqual([
      "big was handed job 0 after 3.0 s, and leaves such jobs to others for 3 s",
    ]);
  });

  test("is not content with a worker or a job of somebody else", () => {
    expect(allowedCheck(record([job(0)], [handed({ ...small, name: "stranger" }, job(0), 0)])).faults).toHaveLength(1);
    expect(allowedCheck(record([], [handed(small, job(0), 0)])).faults).toHaveLength(1);
  });
});

describe("the demo's check of the order", () => {
  const urgent = job(2, { priority: 5 });
  const later = "small was handed job 1 while job 0 was ready, which goes before it; small was handed that one later";

  test("is content with priority first, then the order of arrival", () => {
    const assignments = [handed(small, urgent, 0), handed(small, job(0), 100), handed(small, job(1), 200)];
    const { faults, looked } = orderCheck(record([job(0), job(1), urgent], assignments));
    expect(faults).toEqual([]);
    expect(looked).toContain("the order of 3 assignments");
    expect(looked).toContain("3 jobs in all");
  });

  test("is not content when a later one goes first", () => {
    const assignments = [handed(small, job(1), 0), handed(small, job(0), 100)];
    expect(orderCheck(record([job(0), job(1)], assignments)).faults).toEqual([later]);
  });

  test("is not content when a lower priority goes first", () => {
    const assignments = [handed(small, job(0), 0), handed(small, urgent, 100)];
    expect(orderCheck(record([job(0), urgent], assignments)).faults).toHaveLength(1);
  });

  test("is not content when the one that goes before is never handed out", () => {
    expect(orderCheck(record([job(0), job(1)], [handed(small, job(1), 0)])).faults).toEqual([
      "small was handed job 1 while job 0 was ready, which goes before it; nobody was ever handed that one",
    ]);
  });

  test("passes over what the worker may not run, or leaves to others for now", () => {
    const jobs = [job(0, dear), job(1), job(2, dear)];
    const assignments = [handed(small, job(1), 0), handed(big, job(0), 20), handed(big, job(2), 40)];
    expect(orderCheck(record(jobs, assignments)).faults).toEqual([]);
  });

  test("is not content when a worker has left a job to others for long enough, and still passes it over", () => {
    const jobs = [job(0), job(1, dear)];
    expect(orderCheck(record(jobs, [handed(big, job(1), 2999)])).faults).toEqual([]);
    expect(orderCheck(record(jobs, [handed(big, job(1), 3000)])).faults).toHaveLength(1);
  });

  test("holds nothing against a worker that another one took in the same moment, and tells of it", () => {
    const twin = { ...small, name: "twin" };
    const inOneMoment = [handed(small, job(1), 0), handed(twin, job(0), 5)];
    const check = orderCheck(record([job(0), job(1)], inOneMoment, { fleet: [small, twin] }));
    expect(check.faults).toEqual([]);
    expect(check.looked).toContain("1 of them by another worker in the same moment");
    const oneAfterTheOther = [handed(small, job(1), 0), handed(twin, job(0), 11)];
    expect(orderCheck(record([job(0), job(1)], oneAfterTheOther, { fleet: [small, twin] })).faults).toHaveLength(1);
  });

  test("lets what the worker is warm for go first within one priority, and only there", () => {
    const jobs = [job(0), job(1, { affinity: "sdxl" }), urgent];
    const warm = { warm: ["sdxl"] };
    const right = [handed(small, urgent, 0, warm), handed(small, job(1), 100, warm), handed(small, job(0), 200, warm)];
    expect(orderCheck(record(jobs, right)).faults).toEqual([]);
    const cold = [handed(small, urgent, 0), handed(small, job(1), 100), handed(small, job(0), 200)];
    expect(orderCheck(record(jobs, cold)).faults).toEqual([later]);
    const passedOver = [
      handed(small, urgent, 0, warm),
      handed(small, job(0), 100, warm),
      handed(small, job(1), 200, warm),
    ];
    expect(orderCheck(record(jobs, passedOver)).faults).toHaveLength(1);
  });

  test("asks for no warmth where others held all of a higher priority in that moment", () => {
    const twin = { ...small, name: "twin" };
    const jobs = [job(0), job(1, { affinity: "sdxl" }), urgent];
    const assignments = [
      handed(twin, urgent, 0),
      handed(small, job(0), 5, { warm: ["sdxl"] }),
      handed(small, job(1), 100, { warm: ["sdxl"] }),
    ];
    expect(orderCheck(record(jobs, assignments, { fleet: [small, twin] })).faults).toEqual([]);
  });

  test("goes by a workflow's new priority once it has been raised, and judges nothing meanwhile", () => {
    const raised = { workflow: "nightly", priority: 9, from: 100, to: 120 };
    const jobs = [job(0), job(1), job(2, { workflow: "nightly", priority: -5, line: -1 })];
    const right = [handed(small, job(0), 0), handed(small, job(2), 130), handed(small, job(1), 200)];
    expect(orderCheck(record(jobs, right, { raised })).faults).toEqual([]);
    const meanwhile = [handed(small, job(0), 0), handed(small, job(1), 95), handed(small, job(2), 200)];
    const check = orderCheck(record(jobs, meanwhile, { raised }));
    expect(check.faults).toEqual([]);
    expect(check.looked).toContain("1 not judged");
    const tooLate = [handed(small, job(0), 0), handed(small, job(1), 130), handed(small, job(2), 200)];
    expect(orderCheck(record(jobs, tooLate, { raised })).faults).toHaveLength(1);
    const tooEarly = [handed(small, job(2), 0), handed(small, job(0), 130), handed(small, job(1), 200)];
    expect(orderCheck(record(jobs, tooEarly, { raised })).faults).toHaveLength(2);
  });
});

describe("the demo's check of what was done, and of what is left", () => {
  const impossible = job(1, { requires: { gpu_memory_gb: 80 } });
  const unmatched = [{ jobs: ["job 1"], reason: "None of the 2 live workers can run it." }];

  test("are content when all that can be done is, once, and the rest is told of", () => {
    const good = record([job(0), impossible], [handed(small, job(0), 0)], { unmatched });
    expect(doneCheck(good).faults).toEqual([]);
    expect(leftCheck(good).faults).toEqual([]);
  });

  test("are not content when a job is handed out twice, not at all, or did not succeed", () => {
    const twice = [handed(small, job(0), 0), handed(small, job(0), 100)];
    expect(doneCheck(record([job(0)], twice)).faults).toEqual(["job 0 was handed out 2 times, and succeeded"]);
    expect(doneCheck(record([job(0)], [])).faults).toEqual(["job 0 was handed out 0 times, and did not succeed"]);
    expect(doneCheck(record([job(0)], [handed(small, job(0), 0)], { succeeded: new Set() })).faults).toEqual([
      "job 0 was handed out once, and did not succeed",
    ]);
  });

  test("are not content when somebody got what nobody may run, or the view is silent or wrong about it", () => {
    expect(leftCheck(record([impossible], [handed(small, impossible, 0)])).faults).toEqual([
      "job 1 was handed out, though no worker may run it",
    ]);
    expect(leftCheck(record([impossible], [])).faults).toEqual([
      "job 1 can be run by nobody, and work_unmatched does not say so",
    ]);
    expect(leftCheck(record([job(1)], [], { unmatched })).faults).toEqual([
      "work_unmatched has job 1, which a worker may run",
    ]);
  });

  test("are told in a line each, with the first faults", () => {
    const faults = Array.from({ length: 7 }, (_, index) => `fault ${index}`);
    expect(checkedLines([{ looked: "all jobs", faults: [] }])).toEqual(["✓ all jobs"]);
    expect(checkedLines([{ looked: "all jobs", faults }])).toEqual([
      "✗ 7 faults in: all jobs",
      ...faults.slice(0, 5).map((fault) => `    ${fault}`),
    ]);
  });
});

test("the demo of matching hands each job to a worker that may run it, in order, and says why the rest is left", async () => {
  const { code, out } = await runDemo(["--matching"]);
  expect(out).toMatch(/^↑ workflow previews has priority 20 from here on$/m);
  expect(out).toMatch(/^film scene +– +– +– +4 +– +0$/m);
  expect(out).toMatch(/^initech's picture +– +– +– +– +5 +0$/m);
  expect(out).toMatch(/^poster in 8k +– +– +– +– +– +2$/m);
  expect(out).toMatch(/^ {2}2 × poster in 8k: None of the 5 live workers that do generate can run it\.$/m);
  expect(out).toMatch(/^ +It needs gpu_memory_gb >= 80; closest live worker all-48 has 48; /m);
  expect(out.match(/^✓ (79 assignments|the order of \d+ assignments|79 jobs|5 jobs)/gm)).toHaveLength(4);
  expect(out).not.toContain("✗");
  expect(code).toBe(0);
  expect(workersOf(out)).toHaveLength(5);
  expect(workersOf(out).filter(isAlive)).toEqual([]);
}, 90_000);
