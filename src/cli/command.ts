/** One command of `work-claims`. */
export type Command = {
  name: string;
  /** Half a line for the list of commands. */
  summary: string;
  /** Its arguments and options, a line each, for `--help`. */
  options?: readonly string[];
  /** One call of it, as a person types it. */
  example: string;
  run(args: string[]): Promise<number>;
};

/** The exit codes of the process. */
export const exitCode = { fine: 0, failed: 1, wrongUsage: 2, noProject: 3 } as const;

/** The command was typed wrongly. */
export class WrongUsage extends Error {
  override name = "WrongUsage";
}

/** There is no project to work on, or it does not answer. */
export class NoProject extends Error {
  override name = "NoProject";
}
