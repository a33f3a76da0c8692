import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { packageRoot } from "../stack/package-root.ts";
import { type Command, exitCode, NoProject, WrongUsage } from "./command.ts";
import { findPublic, projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";

/** Each engine's file in examples/. The files are the templates: they are right as they stand, but for these names. */
export const files: Readonly<Record<string, string>> = {
  systemd: "work-claims.service",
  docker: "Dockerfile",
  kubernetes: "kubernetes.yaml",
  "kubernetes-deployment": "kubernetes-deployment.yaml",
  slurm: "slurm.sbatch",
  github: "github.yml",
  runpod: "runpod.sh",
  vast: "vast.sh",
};
const urlInFile = "https://YOUR-PROJECT.supabase.co";
const keyInFile = "sb_publishable_YOUR_KEY";
const typesInFile = "YOUR_WORK_TYPE";
const workerInFile = "worker.ts";

export const fleet: Command = {
  name: "fleet",
  summary: "print the file that starts workers under systemd, Kubernetes, Slurm and others",
  options: [
    `ENGINE         ${Object.keys(files).join(", ")}`,
    "--types A,B    the work types; else all of the project",
    "--worker FILE  your worker; else worker.ts",
  ],
  example: "work-claims fleet slurm --types embed > embed.sbatch",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { ...projectOptions, types: { type: "string" }, worker: { type: "string" } },
    });
    const [engine = "", ...more] = positionals;
    const file = Object.hasOwn(files, engine) ? files[engine] : undefined;
    if (file === undefined || more.length > 0) {
      throw new WrongUsage(
        `${engine || "nothing"} was given; one engine of ${Object.keys(files).join(", ")} was expected`,
      );
    }
    const { url, publishableKey } = await findPublic(values);
    const types = values.types?.split(",").map((name) => name.trim()) ?? (await workTypes(values));
    if (engine.startsWith("kubernetes") && types.length > 1) {
      throw new WrongUsage(`the work types are ${types.join(", ")}; pods are scaled by one, named with --types`);
    }
    process.stdout.write(
      filledIn(file, [
        ["the project's address", urlInFile, url],
        ["the publishable key", keyInFile, publishableKey ?? keyInFile],
        ["the list of work types", typesInFile, types.join(",")],
        ["the worker's file", workerInFile, values.worker ?? workerInFile],
      ]),
    );
    if (publishableKey === undefined) {
      console.error(`work-claims fleet: SUPABASE_PUBLISHABLE_KEY is not set here; replace ${keyInFile} in the file`);
    }
    return exitCode.fine;
  },
};

/** The text of an example with each value in place of the words that stand for it. */
function filledIn(file: string, values: readonly (readonly [what: string, standIn: string, value: string])[]): string {
  const text = readFileSync(join(packageRoot(), "examples", file), "utf8");
  return values.reduce((rest, [what, standIn, value]) => rest.replaceAll(standIn, plain(what, value)), text);
}

async function workTypes(values: Parameters<typeof projectClient>[0]): Promise<string[]> {
  const rows = await (await projectClient(values)).workTypes();
  if (rows.length === 0) throw new NoProject("the project has no work type; declare one with work-claims types NAME");
  return rows.map((row) => row.name);
}

/** A value that means the same in each of the files, which quote in different ways. */
function plain(what: string, value: string): string {
  if (!/^[A-Za-z0-9_./:][A-Za-z0-9_./:,-]*$/.test(value)) {
    throw new WrongUsage(
      `${what} is ${value}; letters, digits and _ . / : , - are filled in: give a plain one, and replace it in the file`,
    );
  }
  return value;
}
