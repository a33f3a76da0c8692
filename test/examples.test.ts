// The files in examples/, each checked by a tool that knows its kind.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { Deployment } from "kubernetes-models/apps/v1";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { packageRoot } from "../src/stack/package-root.ts";
import { has } from "./support/programs.ts";

const examples = join(packageRoot(), "examples");
const read = (file: string): string => readFileSync(join(examples, file), "utf8");
const installed = (file: string): string => join(packageRoot(), "node_modules", file);

/** Runs a checker; its findings are the error's message. */
function check(program: string, args: readonly string[], cwd = examples): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: "utf8", cwd });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}\n${stdout}${stderr}`);
  return stdout + stderr;
}

/** Seconds that a worker gets to finish and hand back, and those until its supervisor kills it. */
interface Times {
  grace: number;
  kill: number;
}

/** Handing back takes five seconds at most, and a process some time to end. */
function expectTimeToHandBack({ grace, kill }: Times): void {
  expect(kill).toBeGreaterThanOrEqual(grace + 10);
}

describe("the systemd unit", () => {
  const unit = read("work-claims.service");
  const isMissing = !has("systemd-analyze");
  const title = isMissing ? " (skipped: there is no systemd-analyze)" : "";

  test.skipIf(isMissing)(`is right for systemd, and less exposed than 2 of 10${title}`, () => {
    const file = join(examples, "work-claims.service");
    check("systemd-analyze", ["verify", file]);
    const rated = check("systemd-analyze", ["security", "--offline=yes", "--threshold=20", file]);
    expect(rated).toContain("Overall exposure level");
  });

  test("starts a worker again, but not after a wrong setting, and gives it time to hand back", () => {
    expect(unit).toMatch(/^Restart=always$/m);
    expect(unit).toMatch(/^RestartPreventExitStatus=78$/m);
    expectTimeToHandBack({
      grace: Number(/WORK_GRACE_SECONDS=(\d+)/.exec(unit)?.[1]),
      kill: Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1]),
    });
  });
});

describe("the Dockerfile", () => {
  test("has no finding of dockerfilelint", () => {
    const found = check(process.execPath, [installed("dockerfilelint/bin/dockerfilelint"), "Dockerfile"]);
    expect(found).toContain("Issues: None found");
  });

  test("runs tini as no root, in exec form, with files that lie in workers/", () => {
    const text = read("Dockerfile");
    expect(text).toMatch(/^USER [1-9]\d*$/m);
    const [entry, command] = ["ENTRYPOINT", "CMD"].map((name) =>
      JSON.parse(new RegExp(`^${name} (.*)$`, "m").exec(text)?.[1] as string),
    );
    expect([...entry, ...command]).toEqual(["tini", "--", "node", "worker.ts"]);
    const copied = [...text.matchAll(/^COPY (\S+) /gm)].map(([, name]) => name);
    expect(copied).toHaveLength(2);
    expect(readdirSync(join(packageRoot(), "workers"))).toEqual(expect.arrayContaining(copied));
  });
});

interface Manifest {
  kind: string;
  spec: Record<string, unknown>;
}

describe.each(["kubernetes.yaml", "kubernetes-deployment.yaml"])("the objects of %s", (file) => {
  const manifests = parseAllDocuments(read(file)).map((document) => document.toJS({ maxAliasCount: 0 }) as Manifest);
  const models = { ...keda, Deployment } as unknown as Record<string, new (data: unknown) => { validate(): void }>;

  test("are valid by the schemas of Kubernetes and KEDA", () => {
    expect(manifests.length).toBeGreaterThan(1);
    for (const manifest of manifests) {
      const model = models[manifest.kind];
      if (!model) throw new Error(`no schema for ${manifest.kind}`);
      new model(manifest).validate();
    }
  });

  // The schemas let unknown names pass, TypeScript does not.
  test("have no property that Kubernetes and KEDA do not know", () => {
    const folder = mkdtempSync(join(packageRoot(), "node_modules", ".work-claims-"));
    try {
      const typed = manifests.map((manifest) => `(${JSON.stringify(manifest)}) satisfies I${manifest.kind};`);
      const imports = [
        'import type { IScaledJob, IScaledObject, ITriggerAuthentication } from "@kubernetes-models/keda/keda.sh/v1alpha1";',
        'import type { IDeployment } from "kubernetes-models/apps/v1";',
      ];
      writeFileSync(join(folder, "manifests.mts"), [...imports, ...typed].join("\n"));
      const options = [
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--module",
        "nodenext",
        "--ignoreConfig",
        "--types",
        "",
      ];
      check(process.execPath, [installed("typescript/bin/tsc"), ...options, "manifests.mts"], folder);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("give a worker time to hand back, and its token in a file", () => {
    const { spec } = manifests.at(-1) as Manifest;
    const { template } = (spec.jobTargetRef ?? spec) as { template: { spec: Pod } };
    const [container] = template.spec.containers as [Container];
    const variables = Object.fromEntries(container.env.map(({ name, value }) => [name, value]));
    expectTimeToHandBack({
      grace: Number(variables.WORK_GRACE_SECONDS),
      kill: template.spec.terminationGracePeriodSeconds,
    });
    const token = template.spec.volumes.find((volume) => volume.secret?.secretName === "work-token");
    const mount = container.volumeMounts.find(({ name }) => name === token?.name);
    expect(variables.WORK_TOKEN_FILE).toBe(`${mount?.mountPath}/token`);
  });
});

interface Container {
  env: { name: string; value: string }[];
  volumeMounts: { name: string; mountPath: string }[];
}

interface Pod {
  terminationGracePeriodSeconds: number;
  containers: Container[];
  volumes: { name: string; secret?: { secretName: string } }[];
}

describe("the GitHub workflow", () => {
  let folder: string;
  const workflow = parse(read("github.yml"));
  const [step] = workflow.jobs.work.steps.slice(-1);

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "work-claims-test-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("is valid for action-validator", () => {
    const validator = installed("@action-validator/cli/cli.mjs");
    check(process.execPath, [validator, "github.yml"]);
    cpSync(join(examples, "github.yml"), join(folder, "wrong.yml"));
    writeFileSync(join(folder, "wrong.yml"), read("github.yml").replace("runs-on:", "runs-at:"));
    expect(() => check(process.execPath, [validator, "wrong.yml"], folder)).toThrow("runs-on");
  });

  test("ends before GitHub ends it", () => {
    const { env, "timeout-minutes": minutes } = workflow.jobs.work;
    expect(Number(env.WORK_LEAVE_AFTER_SECONDS)).toBeLessThan(minutes * 60);
  });

  test.each([
    { worker: 0, step: 0 },
    { worker: 75, step: 0 },
    { worker: 78, step: 78 },
    { worker: 1, step: 1 },
  ])("passes with a worker's status $worker as $step", ({ worker, step: expected }) => {
    const script = (step.run as string).replace("node worker.ts", `bash -c 'exit ${worker}'`);
    // GitHub's own shell options.
    const { status } = spawnSync("bash", ["--noprofile", "--norc", "-eo", "pipefail", "-c", script]);
    expect(status).toBe(expected);
  });
});

describe("the shell files", () => {
  const scripts = ["slurm.sbatch", "runpod.sh", "vast.sh"];

  test.each(scripts)("%s is read by bash", (file) => {
    check("bash", ["-n", file]);
  });

  const isMissing = !has("shellcheck");
  test.skipIf(isMissing)(`have no finding of shellcheck${isMissing ? " (skipped: it is missing)" : ""}`, () => {
    check("shellcheck", scripts);
  });

  test("vast.sh fits into the 4,048 characters of an on-start command", () => {
    expect(read("vast.sh").length).toBeLessThan(4048);
  });
});
