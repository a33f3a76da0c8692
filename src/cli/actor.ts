import { WrongUsage } from "./command.ts";

/** The option of commands by hand that says who acts, for parseArgs. */
export const actorOption = { as: { type: "string" } } as const;

export const actorHelp = "--as NAME          who does it, for the record (WORK_AS); see work-claims history";

/** The name that is recorded with an act by hand. A header carries it, so it is ASCII. */
export function actorFrom(values: { as?: string | undefined }): string | undefined {
  const [name, called] = values.as === undefined ? [process.env.WORK_AS || undefined, "WORK_AS"] : [values.as, "--as"];
  if (name !== undefined && !/^[\x21-\x7e]([\x20-\x7e]{0,198}[\x21-\x7e])?$/.test(name)) {
    throw new WrongUsage(
      `${called} is ${name || "empty"}; a name of 1 to 200 letters was expected, of those that ASCII has`,
    );
  }
  return name;
}
