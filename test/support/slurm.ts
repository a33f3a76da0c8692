import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { vi } from "vitest";
import { has } from "./programs.ts";

/** The reason that Slurm cannot run here; undefined if it can. */
export function withoutSlurm(): string | undefined {
  if (process.getuid?.() !== 0) return "Slurm's daemons need root here";
  const isInstalled = ["slurmctld", "slurmd", "sbatch"].every(has);
  return isInstalled ? undefined : "Debian's slurmctld, slurmd, slurm-client and slurm-wlm-basic-plugins are missing";
}

export interface Job {
  state: string;
  /** As Slurm writes it: status and signal. */
  exitCode: string;
  restarts: number;
}

export interface Slurm {
  folder: string;
  /** Runs one of Slurm's commands and answers what it prints. */
  run: (program: string, args: string[], environment?: Record<string, string>) => Promise<string>;
  job: (id: string) => Promise<Job>;
  /** The output of the daemons and the tasks. */
  logs: () => string;
  stop: () => Promise<void>;
}

/** A cluster of one machine with four cores and two GPUs, without munge, cgroups and systemd. */
export async function startSlurm(): Promise<Slurm> {
  const folder = mkdtempSync(join(tmpdir(), "work-claims-slurm-"));
  const [controller, node] = [await freePort(), await freePort()];
  for (const name of ["state", "spool"]) mkdirSync(join(folder, name));
  writeFileSync(
    join(folder, "slurm.conf"),
    `ClusterName=test
SlurmctldHost=localhost
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
SlurmctldPort=${controller}
SlurmdPort=${node}
StateSaveLocation=${folder}/state
SlurmdSpoolDir=${folder}/spool
SlurmctldPidFile=${folder}/controller.pid
SlurmdPidFile=${folder}/node.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# More cores than the machine has.
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=0
ReturnToService=2
KillWait=10
GresTypes=gpu
NodeName=localhost CPUs=4 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES
`,
  );
  // A GPU has to be a device.
  writeFileSync(join(folder, "gres.conf"), "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n");

  const env = { ...process.env, SLURM_CONF: join(folder, "slurm.conf") };
  const log = openSync(join(folder, "daemons.log"), "a");
  const daemons = [
    spawn("slurmctld", ["-D"], { env, stdio: ["ignore", log, log] }),
    spawn("slurmd", ["-D", "-N", "localhost"], { env, stdio: ["ignore", log, log] }),
  ];
  const run: Slurm["run"] = async (program, args, environment = {}) => {
    const { stdout } = await promisify(execFile)(program, args, { env: { ...env, ...environment }, cwd: folder });
    return stdout.trim();
  };
  const stop = async (): Promise<void> => {
    // Jobs outlive the daemons.
    await run("scancel", ["--full", "--signal=KILL", "--user=root"]).catch(() => "");
    const isRunning = async (): Promise<boolean> => (await run("squeue", ["-h", "-t", "running,completing"])) !== "";
    await vi.waitUntil(async () => !(await isRunning()), { timeout: 10_000, interval: 100 }).catch(() => {});
    await Promise.all(daemons.map(ended));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await vi.waitUntil(async () => (await run("sinfo", ["-h", "-o", "%T"]).catch(() => "")) === "idle", {
      timeout: 60_000,
      interval: 100,
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    folder,
    run,
    job: async (id) => {
      const shown = await run("scontrol", ["--oneliner", "show", "job", id]);
      const field = (name: string): string => new RegExp(` ${name}=(\\S+)`).exec(shown)?.[1] ?? "";
      return { state: field("JobState"), exitCode: field("ExitCode"), restarts: Number(field("Restarts")) };
    },
    logs: () => {
      const names = readdirSync(folder).filter((name) => name.endsWith(".log"));
      return names.map((name) => `${name}:\n${readFileSync(join(folder, name), "utf8")}`).join("\n");
    },
    stop,
  };
}

function ended(daemon: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (daemon.exitCode !== null || !daemon.kill("SIGTERM")) resolve();
    daemon.once("exit", () => resolve());
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
