// A worker as a program: its exit status tells a supervisor whether to start it again.
import { isHopeless, RequestError } from "./errors.ts";
import { env, exit, programStarter, SettingsError } from "./host.ts";
import { isOwnReason } from "./leaving.ts";
import { printError } from "./log.ts";
import { wrong } from "./variable.ts";
import type { Summary } from "./work.ts";

/** As sysexits.h has them: EX_TEMPFAIL, another run can go on, and EX_CONFIG, another run would end the same way. */
const statuses = { nothingLeft: 0, crashed: 1, workLeft: 75, wrongSettings: 78 };

/**
 * Runs a worker and ends the process: 0 nothing is left, 75 work is left, 78 a wrong setting or key, 1 a crash. Before
 * that it runs the program that WORK_ON_LEAVE names, where the worker left by itself; where that fails the status is 1.
 */
export async function runAsProgram(start: () => Promise<Summary>): Promise<void> {
  try {
    const onLeave = settleOnLeave();
    const { why, isWorkLeft } = await start();
    const failure = isOwnReason(why) ? await onLeave() : null;
    if (failure !== null) {
      printError(new Error(`WORK_ON_LEAVE failed: ${failure}`));
      exit(statuses.crashed);
    }
    exit(isWorkLeft ? statuses.workLeft : statuses.nothingLeft);
  } catch (error) {
    printError(error);
    exit(isWrongSetting(error) ? statuses.wrongSettings : statuses.crashed);
  }
}

/** The key or the address is wrong, or the database has refused an argument that is a setting. */
function isWrongSetting(error: unknown): boolean {
  return (
    error instanceof SettingsError || isHopeless(error) || (error instanceof RequestError && error.code === "PT400")
  );
}

/** Resolves with the reason if the program fails. */
function settleOnLeave(): () => Promise<string | null> {
  const text = env("WORK_ON_LEAVE");
  if (text === undefined) {
    return async () => null;
  }
  const [program, ...args] = argumentsOf(text);
  if (!program) {
    throw wrong("WORK_ON_LEAVE", text, 'a JSON list of texts was expected, such as ["shutdown", "-h", "now"]');
  }
  const run = programStarter(program);
  return () => run(args);
}

/** A program and its arguments; empty where the text is something else. */
function argumentsOf(text: string): string[] {
  try {
    const parsed: unknown = JSON.parse(text);
    return Array.isArray(parsed) && parsed.every((each) => typeof each === "string") ? parsed : [];
  } catch {
    return [];
  }
}
