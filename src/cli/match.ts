import { parseArgs } from "node:util";
import type { Requirement } from "../../workers/runtime/requirement.ts";
import type { Json, WouldMatch } from "../answers.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { printable } from "./printable.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";
import { matchSentences } from "./sentences.ts";

function jsonObject(what: string, given: string): Record<string, unknown> {
  let read: unknown;
  try {
    read = JSON.parse(given);
  } catch {
    throw new WrongUsage(`${what} is no JSON: ${printable(given)}`);
  }
  if (typeof read !== "object" || read === null || Array.isArray(read)) {
    throw new WrongUsage(`${what} is a JSON object, such as {"gpu_memory_gb": 20}`);
  }
  return read as Record<string, unknown>;
}

function show(answer: WouldMatch, workType: string | undefined): string {
  const named = (matching: number, names: readonly string[]): string =>
    `${names.join(", ")}${matching > names.length ? ", …" : ""}`;
  return [
    answer.tag,
    matchSentences(answer, workType),
    ...(answer.matching > 0 ? [`can run it: ${named(answer.matching, answer.matching_workers)}`] : []),
    ...(answer.yielding > 0 ? [`after a while: ${named(answer.yielding, answer.yielding_workers)}`] : []),
  ]
    .map(printable)
    .join("\n");
}

export const match: Command = {
  name: "match",
  summary: "which live workers could run an item, and what fails on the others",
  options: [
    "REQUIRES       what the item would require, as JSON",
    "--labels JSON  what it would show to workers",
    "--type TYPE    only workers that do this work type",
    "--json         print JSON",
  ],
  example: `work-claims match '{"gpu_memory_gb": 20}' --type embed`,
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { ...projectOptions, labels: { type: "string" }, type: { type: "string" }, json: { type: "boolean" } },
    });
    const [requires, ...more] = positionals;
    if (requires === undefined || more.length > 0) {
      throw new WrongUsage(`one requirement was expected, such as '{"gpu_memory_gb": 20}'`);
    }
    // The database checks the requirement, and names the place of an error.
    const asked = jsonObject("the requirement", requires) as Requirement;
    const labels = values.labels === undefined ? undefined : jsonObject("--labels", values.labels);
    const client = await projectClient(values);
    const answer = await client.wouldMatch(asked, {
      labels: labels as { [name: string]: Json } | undefined,
      workType: values.type,
    });
    console.log(values.json ? printable(JSON.stringify(answer)) : show(answer, values.type));
    return exitCode.fine;
  },
};
