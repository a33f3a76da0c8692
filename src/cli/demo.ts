import { parseArgs } from "node:util";
import { exactlyOnce } from "../demo/exactly-once.ts";
import { matching } from "../demo/matching.ts";
import { stage } from "../demo/stage.ts";
import { type Command, exitCode } from "./command.ts";
import { openScreen } from "./screen.ts";

/** The exit code after Ctrl-C, as a shell counts it. */
const interruptedCode = 130;

export const demo: Command = {
  name: "demo",
  summary: "see it work: several workers share a table, one of them is killed, every row is done once",
  options: [
    "--matching  five unlike workers instead: who is handed what, in which order, and why the rest is left",
    "--keep      leave the stack up afterwards, to look around in, until Ctrl-C or work-claims down",
    "--verbose   show what the workers say",
  ],
  example: "work-claims demo",
  async run(args) {
    const { values } = parseArgs({
      args,
      options: { matching: { type: "boolean" }, keep: { type: "boolean" }, verbose: { type: "boolean" } },
    });
    const interrupted = new AbortController();
    const stop = (): void => interrupted.abort();
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, stop);
    const screen = openScreen(process.stdout);
    const options = { isKept: values.keep ?? false, isVerbose: values.verbose ?? false };
    try {
      const isRight = await stage(values.matching ? matching : exactlyOnce, screen, interrupted.signal, options);
      return isRight ? exitCode.fine : exitCode.failed;
    } catch (error) {
      if (!interrupted.signal.aborted) throw error;
      screen.say("stopped; nothing is left running");
      return interruptedCode;
    } finally {
      screen.close();
      for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.off(signal, stop);
    }
  },
};
