import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { stopStack } from "../stack/down.ts";
import { type Command, exitCode } from "./command.ts";

export const down: Command = {
  name: "down",
  summary: "stop the stack of a data folder, and end what a killed one left behind; the data stays",
  options: ["--data DIR  its data folder; else .work-claims"],
  example: "work-claims down",
  async run(args) {
    const { values } = parseArgs({ args, options: { data: { type: "string" } } });
    const dataDir = resolve(values.data ?? ".work-claims");
    const stopped = existsSync(dataDir) ? await stopStack(dataDir, console.log) : "nothing";
    console.log(
      {
        running: `stopped; the data stays in ${dataDir}`,
        "left over": `what a killed stack had left running on ${dataDir} is ended; the data stays`,
        nothing: `no stack runs on ${dataDir}`,
      }[stopped],
    );
    return exitCode.fine;
  },
};
