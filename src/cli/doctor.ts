import { parseArgs } from "node:util";
import postgres from "postgres";
import { checkApi } from "../doctor/api.ts";
import { checkDatabase, limits } from "../doctor/database.ts";
import { type Finding, wrong } from "../doctor/finding.ts";
import { type Command, exitCode, NoProject } from "./command.ts";
import { envFileName, readEnvFile } from "./env-file.ts";
import { printable } from "./printable.ts";
import { findDatabase, findProject, projectOptions } from "./project.ts";

type Values = Parameters<typeof findProject>[0];

export const doctor: Command = {
  name: "doctor",
  summary: "look at a project: is work-claims installed, current, closed to the public, reachable with this key",
  options: [
    "--url URL     the project; else SUPABASE_URL",
    "--key KEY     its service key; else SUPABASE_SERVICE_ROLE_KEY",
    "--db-url URL  its database, for what the API does not show; else SUPABASE_DB_URL",
    "--json        print what was found as JSON",
  ],
  example: "work-claims doctor",
  async run(args) {
    const { values } = parseArgs({ args, options: { ...projectOptions, json: { type: "boolean" } } });
    const findings = [...(await lookThroughApi(values)), ...(await lookIntoDatabase(values))];
    if (findings.every((finding) => finding.isRight === undefined)) {
      throw new NoProject(findings.map((finding) => finding.text).join("\n"));
    }
    console.log(values.json ? JSON.stringify(findings) : findings.flatMap(linesOf).map(printable).join("\n"));
    return findings.some((finding) => finding.isRight === false) ? exitCode.failed : exitCode.fine;
  },
};

async function lookThroughApi(values: Values): Promise<Finding[]> {
  const project = await orUnknown("address", () => findProject(values));
  if ("check" in project) return [project];
  const { SUPABASE_ANON_KEY: anonKey, SUPABASE_URL: url } = { ...readEnvFile(process.cwd()), ...process.env };
  // A public key that belongs to another project says nothing about this one.
  return checkApi({ ...project, anonKey: url?.replace(/\/+$/, "") === project.url ? anonKey : undefined });
}

async function lookIntoDatabase(values: Values): Promise<Finding[]> {
  const dbUrl = await orUnknown("database", async () => ({ address: await findDatabase(values) }));
  if ("check" in dbUrl) return [dbUrl];
  const sql = postgres(dbUrl.address, {
    max: 1,
    connect_timeout: 10,
    onnotice: () => {},
    connection: { application_name: "work-claims doctor" },
  });
  try {
    await sql`select`;
  } catch (error) {
    await sql.end({ timeout: 1 });
    const reason = error instanceof Error ? error.message : String(error);
    return [
      wrong(
        "database",
        `it takes no connection (${reason})`,
        `look at SUPABASE_DB_URL in ${envFileName} or the environment`,
      ),
    ];
  }
  try {
    return await checkDatabase(sql, Date.now, limits);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/** The value, or a finding that says why nothing could be looked at. */
async function orUnknown<T extends object>(check: string, find: () => Promise<T>): Promise<T | Finding> {
  try {
    return await find();
  } catch (error) {
    if (!(error instanceof NoProject)) throw error;
    const isMissing = error.message.includes("is missing");
    return { check, isRight: isMissing ? undefined : false, text: error.message };
  }
}

function linesOf({ check, isRight, text, advice }: Finding): string[] {
  const mark = isRight === undefined ? "–" : isRight ? "✓" : "✗";
  const line = `${mark} ${check.padEnd(10)}  ${text}`;
  return advice === undefined ? [line] : [line, `  ${" ".repeat(10)}  → ${advice}`];
}
