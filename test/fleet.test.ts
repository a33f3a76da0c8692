// The files that `work-claims fleet` prints: tests fill them in, ask as KEDA asks, and run them.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { ScaledJob } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import postgres, { type Sql } from "postgres";
import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { NoProject } from "../src/cli/command.ts";
import { fleet as command, files } from "../src/cli/fleet.ts";
import { packageRoot } from "../src/stack/package-root.ts";
import { openApi } from "./support/api.ts";
import { call, waitUntil } from "./support/calls.ts";
import { declare, fleet, placeWorker, type Ran } from "./support/fleet.ts";
import { createToken } from "./support/tokens.ts";

const page = readFileSync(join(packageRoot(), "docs", "fleets.md"), "utf8");
const block = (language: string): string =>
  new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, "m").exec(page)?.[1] as string;
const project = { SUPABASE_URL: "https://abc.supabase.co", SUPABASE_PUBLISHABLE_KEY: "sb_publishable_abc" };

const folder = mkdtempSync(join(tmpdir(), "work-claims-test-"));
const stack = await openApi({ tokens: true });
const sql: Sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
const here = { SUPABASE_URL: stack.url, SUPABASE_PUBLISHABLE_KEY: stack.publishableKey };
afterAll(async () => {
  await sql.end({ timeout: 1 });
  rmSync(folder, { recursive: true, force: true });
});

describe("the command", () => {
  const refusal = async (args: string[], variables: Record<string, string> = project): Promise<unknown> => {
    for (const name of ["SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_ANON_KEY"]) {
      vi.stubEnv(name, variables[name]);
    }
    return command.run(args).catch((error: unknown) => error);
  };
  afterEach(() => vi.unstubAllEnvs());

  test("fills in address, public key and work types as the page on fleets has it, and no secret", async () => {
    const commands = block("sh").trim().split("\n");
    const printed = commands.map((line) => /fleet (\S+) .* > (\S+)$/.exec(line)?.slice(1, 3) as [string, string]);
    const secrets = { SUPABASE_SERVICE_ROLE_KEY: "sb_secret_canary", WORK_TOKEN: "wct_canary" };
    const program = join(packageRoot(), "dist", "src", "cli", "main.js");
    const script = commands.map((line) => line.replace(/^npx work-claims /, `"${process.execPath}" "${program}" `));
    const { stdout, stderr } = await promisify(execFile)("bash", ["--norc", "-ec", script.join("\n")], {
      cwd: folder,
      env: { ...project, ...secrets, PATH: process.env.PATH },
    });
    expect(stdout + stderr).toBe("");

    expect(printed.map(([engine]) => engine).sort()).toEqual(Object.keys(files).sort());
    for (const [, file] of printed) {
      const text = readFileSync(join(folder, file), "utf8");
      for (const filled of ["https://abc.supabase.co", "sb_publishable_abc", "embed", "WORK_TOKEN"]) {
        expect(text).toContain(filled);
      }
      expect(text).not.toMatch(/canary|YOUR-PROJECT|YOUR_/);
    }
  });

  test("names the worker's file, and says that the public key is still to be written", async () => {
    const { SUPABASE_URL } = project;
    const { out, err } = await fleet(
      ["slurm", "--types", "embed,draw", "--worker", "bin/draw.mjs"],
      { SUPABASE_URL },
      folder,
    );
    expect(out).toContain("WORK_TYPE=embed,draw\n");
    expect(out).toContain("\nnode bin/draw.mjs &\n");
    expect(err).toContain("replace sb_publishable_YOUR_KEY in the file");
  });

  test("takes the work types of the project where none is named", async () => {
    const asked = { ...here, SUPABASE_SERVICE_ROLE_KEY: stack.secretKey };
    expect(await fleet(["slurm"], asked, folder)).toMatchObject({
      status: 3,
      err: expect.stringContaining("no work type"),
    });
    await declare(sql, "listed");
    const { out } = await fleet(["slurm"], asked, folder);
    expect(out).toContain("WORK_TYPE=listed\n");
    expect(out).not.toContain(stack.secretKey);
  });

  test.each([
    { args: [], says: "nothing was given; one engine of systemd, docker" },
    { args: ["nomad"], says: "nomad was given; one engine of" },
    { args: ["constructor"], says: "constructor was given" },
    { args: ["slurm", "vast"], says: "one engine of" },
    { args: ["slurm", "--types", "a,$(id)"], says: "the list of work types is a,$(id); letters, digits" },
    { args: ["slurm", "--types", "a\nb"], says: "the list of work types is a\nb;" },
    { args: ["slurm", "--types", ""], says: "the list of work types is ;" },
    { args: ["slurm", "--types", "a", "--worker", "-e"], says: "--worker" },
    { args: ["slurm", "--types", "a", "--worker", "my worker.ts"], says: "the worker's file is my worker.ts" },
    { args: ["kubernetes", "--types", "a,b"], says: "pods are scaled by one, named with --types" },
    { args: ["slurm", "--types", "a", "--url", "abc.supabase.co"], says: "one like https://abc.supabase.co" },
    { args: ["slurm", "--types", "a", "--url", "https://me:hidden@abc.co"], says: "address holds a password" },
  ])("refuses $args", async ({ args, says }) => {
    const { message } = (await refusal(args)) as Error;
    expect(message).toContain(says);
    expect(message).not.toContain("hidden");
  });

  test("refuses a secret key in place of the public one, and does not show it", async () => {
    const error = await refusal(["slurm", "--types", "a"], {
      ...project,
      SUPABASE_PUBLISHABLE_KEY: "sb_secret_canary",
    });
    expect(error).toBeInstanceOf(NoProject);
    expect(String(error)).not.toContain("canary");
  });

  test("refuses to print without an address", async () => {
    expect(await fleet(["slurm", "--types", "a"], {}, folder)).toMatchObject({
      status: 3,
      err: expect.stringContaining("The project's address is missing"),
    });
  });
});

/** A trigger of KEDA's, as its metrics-api scaler reads it. */
interface Trigger {
  type: string;
  metadata: Record<"url" | "valueLocation" | "method" | "keyParamName", string>;
}

describe("KEDA's question", () => {
  async function triggersOf(engine: string): Promise<Trigger[]> {
    const { out } = await fleet([engine, "--types", "scaled"], here, folder);
    return parseAllDocuments(out).flatMap((document) => document.toJS().spec.triggers ?? []);
  }

  /** One GET with the key in a header. A status that is not 200 and a value that is no number are errors for KEDA. */
  async function ask({ type, metadata }: Trigger, key: string): Promise<unknown> {
    expect(type).toBe("metrics-api");
    expect(metadata.method).toBe("header");
    const answer = await fetch(metadata.url, { headers: { [metadata.keyParamName]: key } });
    const value = ((await answer.json()) as Record<string, unknown>)[metadata.valueLocation];
    return answer.status === 200 ? value : answer.status;
  }

  test("is answered with a number: for an empty work type, for ready items and for held ones", async () => {
    const [ready] = (await triggersOf("kubernetes")) as [Trigger];
    const deployment = await triggersOf("kubernetes-deployment");
    const all = (): Promise<unknown[]> => Promise.all([ready, ...deployment].map((one) => ask(one, stack.secretKey)));
    expect(await all()).toEqual([404, 404, 404]);

    await declare(sql, "scaled");
    expect(await all()).toEqual([0, 0, 0]);
    await call(sql, "enqueue_items", { items: Array.from({ length: 5 }, () => ({ pool: "scaled" })) });
    await call(sql, "claim_next", { work_types: ["scaled"], worker_id: "w", max_items: 2 });
    expect(await all()).toEqual([3, 3, 2]);
    expect(await ask(ready, stack.publishableKey)).not.toBe(3);
  });
});

interface Box {
  type: string;
  start: (variables?: Record<string, string>) => Promise<{ child: ChildProcess; ended: Promise<Omit<Ran, "out">> }>;
  /** The arguments that the provider's program got. */
  told: () => string;
  statuses: () => Promise<string[]>;
}

/** A machine of this engine, with a work type and a token of its own. */
async function rent(engine: string): Promise<Box> {
  const box = mkdtempSync(join(folder, "box-"));
  const type = `rented-${basename(box)}`;
  await declare(sql, type);
  const token = await createToken(sql, type, [type]);
  // A stand-in for the providers' programs, which need an account: it notes what it is told.
  for (const name of ["runpodctl", "vastai"]) {
    writeFileSync(join(box, name), `#!/bin/sh\necho "${name} $*" >> "${box}/told"\n`, { mode: 0o755 });
  }
  // A controller that does not answer.
  writeFileSync(join(box, "squeue"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
  const { out } = await fleet([engine, "--types", type, "--worker", placeWorker(box)], here, folder);
  writeFileSync(join(box, "start.sh"), engine === "github" ? parse(out).jobs.work.steps.at(-1).run : out);

  return {
    type,
    start: async (variables = {}) => {
      const child = spawn("bash", [join(box, "start.sh")], {
        env: {
          PATH: `${box}:${process.env.PATH}`,
          ...(engine === "github" ? { ...here, WORK_TYPE: type } : {}),
          WORK_TOKEN: token,
          WORK_FOLDER: box,
          WORK_IDLE_SECONDS: "1",
          RUNPOD_POD_ID: "pod1",
          CONTAINER_ID: "77",
          ...variables,
        },
        stdio: ["ignore", "ignore", "pipe"],
      });
      let err = "";
      child.stderr.on("data", (text) => {
        err += text;
      });
      const ended = new Promise<Omit<Ran, "out">>((resolve) => {
        child.on("close", (status) => resolve({ status, err }));
      });
      return { child, ended };
    },
    told: () => (existsSync(join(box, "told")) ? readFileSync(join(box, "told"), "utf8") : ""),
    statuses: async () =>
      (await sql`select status from work_claims where work_type = ${type}`).map((row) => row.status),
  };
}

// They wait more than they work.
describe.concurrent("on a rented box", () => {
  const stops: Record<string, string> = { runpod: "runpodctl stop pod pod1\n", vast: "vastai stop instance 77\n" };

  test.each(["runpod", "vast"])(
    "the worker of %s does its items, leaves when idle, and stops the bill",
    async (engine) => {
      const { type, start, statuses, told } = await rent(engine);
      await call(sql, "enqueue_items", { items: [{ pool: type }, { pool: type }] });
      const { ended } = await start({ WORK_LEAVE_IDLE_SECONDS: "4" });
      expect(await ended).toMatchObject({ status: 0 });
      expect(await statuses()).toEqual(["succeeded", "succeeded"]);
      expect(told()).toBe(stops[engine]);
    },
  );

  test.each(["runpod", "vast"])("a wrong setting stops the bill of %s", async (engine) => {
    const { start, told } = await rent(engine);
    const { ended } = await start({ WORK_CONCURRENCY: "none" });
    expect(await ended).toMatchObject({ status: 78 });
    expect(told()).toBe(stops[engine]);
  });

  test.each([
    { engine: "runpod", signal: "SIGTERM", status: 75 },
    { engine: "vast", signal: "SIGTERM", status: 75 },
    { engine: "github", signal: "SIGINT", status: 0 },
  ] as const)("$signal lets the worker of $engine hand back, and stops no bill", async ({ engine, signal, status }) => {
    const { type, start, statuses, told } = await rent(engine);
    await call(sql, "enqueue_items", { items: [{ pool: type, payload: { hold: join(folder, "never") } }] });
    const { child, ended } = await start({ WORK_GRACE_SECONDS: "1" });
    await waitUntil(async () => (await statuses()).includes("claimed"));
    child.kill(signal);
    expect(await ended).toMatchObject({ status });
    expect(await statuses()).toEqual(["ready"]);
    expect(told()).toBe("");
  });

  test("a pod that came back without its GPU stops, and starts no worker", async () => {
    const { start, told } = await rent("runpod");
    const { ended } = await start({ RUNPOD_GPU_COUNT: "0" });
    expect((await ended).err).toBe("this pod has no GPU: it stops\n");
    expect(told()).toBe(stops.runpod);
  });
});

test("an array task does its items where Slurm does not say when it ends", async () => {
  const { type, start, statuses } = await rent("slurm");
  await call(sql, "enqueue_items", { items: [{ pool: type }] });
  const { ended } = await start({ SLURM_JOB_ID: "1" });
  expect(await ended).toMatchObject({ status: 0 });
  expect(await statuses()).toEqual(["succeeded"]);
});

test("the SQL of the page on fleets gives KEDA a role that may ask for ready items, and nothing else", async () => {
  await sql.unsafe(block("sql"));
  await declare(sql, "embed");
  await call(sql, "enqueue_items", { items: [{ pool: "embed" }, { pool: "embed" }] });
  const trigger = parse(block("yaml"));
  const model = new ScaledJob({ spec: { jobTargetRef: { template: {} }, triggers: [trigger] } } as never);
  expect(() => model.validate()).not.toThrow();

  const admin = postgres(stack.adminUrl, { max: 1, onnotice: () => {} });
  await admin`set role work_scaler`;
  const [row] = await admin.unsafe(trigger.metadata.query);
  expect(row).toEqual({ ready: 2 });
  await expect(admin`select from public.work_claims`).rejects.toMatchObject({ code: "42501" });
  await expect(admin`select public.work_depth('embed')`).rejects.toMatchObject({ code: "42501" });
  await admin.end();
});
