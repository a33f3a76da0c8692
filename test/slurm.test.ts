// The printed array script, as Slurm itself runs it.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import postgres, { type Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, onTestFailed, test, vi } from "vitest";
import { openApi } from "./support/api.ts";
import { call } from "./support/calls.ts";
import { declare, fleet, placeWorker } from "./support/fleet.ts";
import { type Slurm, startSlurm, withoutSlurm } from "./support/slurm.ts";
import { createToken } from "./support/tokens.ts";

const reason = withoutSlurm();
const stack = await openApi({ tokens: true });
const sql: Sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
afterAll(() => sql.end({ timeout: 1 }));

describe.skipIf(reason)(`an array of four tasks on two GPUs${reason ? ` (skipped: ${reason})` : ""}`, () => {
  let slurm: Slurm;
  let script: string;
  let token: string;

  beforeAll(async () => {
    slurm = await startSlurm();
    await declare(sql, "render");
    script = join(slurm.folder, "work.sbatch");
    const project = { SUPABASE_URL: stack.url, SUPABASE_PUBLISHABLE_KEY: stack.publishableKey };
    const worker = placeWorker(slurm.folder);
    const { out } = await fleet(["slurm", "--types", "render", "--worker", worker], project, slurm.folder);
    writeFileSync(script, out);
    token = join(slurm.folder, "token");
    writeFileSync(token, await createToken(sql, "cluster", ["render"]));
  });
  afterAll(() => slurm?.stop());

  interface Held {
    task: string;
    pid: number;
  }

  /** The tasks that hold an item, with the process that does; both stand in the worker's id. */
  async function held(): Promise<Held[]> {
    const rows = await sql`
      select worker_id from work_claims where status = 'claimed' and expires_at > now()`;
    return rows.map((row) => {
      const [, task, pid] = /slurm-\d+_(\d+)-.*-(\d+)-[0-9a-f]{8}$/.exec(row.worker_id) as unknown as string[];
      return { task: task as string, pid: Number(pid) };
    });
  }

  const until = (condition: () => Promise<boolean>): Promise<boolean> =>
    vi.waitUntil(condition, { timeout: 60_000, interval: 100 });

  const isHolding = async (...tasks: string[]): Promise<boolean> =>
    (await held())
      .map(({ task }) => task)
      .sort()
      .join() === tasks.join();

  test("does every item once, though a worker is killed and tasks are cancelled, requeued and out of time", {
    timeout: 300_000,
  }, async () => {
    onTestFailed(() => console.error(slurm.logs()));
    const hold = join(slurm.folder, "end");
    await call(sql, "enqueue_items", {
      items: Array.from({ length: 6 }, () => ({ pool: "render", payload: { hold } })),
    });

    const array = await submit(["--time=10", "--signal=B:USR1@80"], {
      WORK_GRACE_SECONDS: "1",
      WORK_IDLE_SECONDS: "1",
    });
    await until(() => isHolding("0", "1"));

    const [first] = (await held()).filter(({ task }) => task === "0") as [Held];
    process.kill(first.pid, "SIGKILL");
    await until(() => isHolding("1", "2"));

    await slurm.run("scancel", [`${array}_2`]);
    await until(() => isHolding("1", "3"));

    await slurm.run("scontrol", ["requeue", `${array}_1`]);
    await until(async () => (await slurm.job(`${array}_1`)).state === "PENDING");
    expect(await isHolding("3")).toBe(true);

    // Slurm looks at limits each half minute, and signals what will come near by the next look.
    await update(`${array}_3`, "TimeLimit=2");
    await until(async () => (await slurm.job(`${array}_3`)).state === "PENDING");
    expect(await held()).toEqual([]);

    // A requeued task waits two minutes, unless it is told to start. Within the second of its end Slurm would not start it.
    writeFileSync(hold, "");
    const endedAt = new Date().setMilliseconds(0);
    await until(async () => Date.now() >= endedAt + 1000);
    for (const task of ["1", "3"]) await update(`${array}_${task}`, "TimeLimit=10", "StartTime=now");
    await until(async () => (await slurm.run("squeue", ["-h", "-j", array])) === "");

    const jobs = await Promise.all(["0", "1", "2", "3"].map((task) => slurm.job(`${array}_${task}`)));
    expect(jobs).toEqual([
      { state: "FAILED", exitCode: "137:0", restarts: 0 },
      { state: "COMPLETED", exitCode: "0:0", restarts: 1 },
      { state: "CANCELLED", exitCode: "75:0", restarts: 0 },
      { state: "COMPLETED", exitCode: "0:0", restarts: 1 },
    ]);
    const rows = await sql`select status, crashes, failures, result from work_claims`;
    expect(rows.map((row) => row.status)).toEqual(Array(6).fill("succeeded"));
    expect(rows.filter((row) => row.crashes > 0)).toHaveLength(1);
    expect(rows.filter((row) => row.failures > 0)).toEqual([]);
    for (const { result } of rows) {
      expect(["0", "1"]).toContain(result.gpu);
      expect(["1", "3"]).toContain(result.task);
    }
  });

  test("a task with a wrong setting fails with status 78 and does not return", async () => {
    const array = await submit(["--array=0"], { WORK_GRACE_SECONDS: "soon" });
    await until(async () => (await slurm.job(`${array}_0`)).state === "FAILED");
    expect(await slurm.job(`${array}_0`)).toEqual({ state: "FAILED", exitCode: "78:0", restarts: 0 });
  });

  const update = (task: string, ...changes: string[]): Promise<string> =>
    slurm.run("scontrol", ["update", `JobId=${task}`, ...changes]);

  /** Submits the printed script; answers the number of its array. */
  function submit(options: string[], environment: Record<string, string>): Promise<string> {
    return slurm.run("sbatch", ["--parsable", ...options, script], {
      ...environment,
      WORK_TOKEN_FILE: token,
    });
  }
});
