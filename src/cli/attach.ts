import { parseArgs } from "node:util";
import postgres, { type Sql } from "postgres";
import type { EnrollStep } from "../answers.ts";
import { enrollAll } from "../enroll.ts";
import { type Command, exitCode, NoProject, WrongUsage } from "./command.ts";
import { findDatabase, projectOptions } from "./project.ts";
import { runningLine } from "./running-line.ts";

/** Rows a step: a second or two of work, so that the table's own writers are never held up for long. */
const stepRows = 10_000;

function list(given: string | undefined): string[] | null {
  if (given === undefined) return null;
  const names = given.split(",").map((name) => name.trim());
  if (names.includes("")) throw new WrongUsage(`--columns is "${given}"; names with commas between them were expected`);
  return names;
}

export const attach: Command = {
  name: "attach",
  summary: "make a table a pool of work; its rows stay in step from then on",
  options: [
    "TABLE              the table, with its schema where that is not public",
    "--type NAME        a work type to do on each row; may be given again",
    "--pool NAME        the pool's name; else the table's",
    "--columns a,b      what workers get of a row; else all columns",
    "--priority COLUMN  a number: the larger, the sooner",
    "--run-after COLUMN a time: not before it",
    "--db-url URL       the database, as the table's owner (triggers are made); else SUPABASE_DB_URL",
    "--json             print the pool and the counts as JSON",
  ],
  example: "work-claims attach texts --columns body --type embed",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        ...projectOptions,
        type: { type: "string", multiple: true },
        pool: { type: "string" },
        columns: { type: "string" },
        priority: { type: "string" },
        "run-after": { type: "string" },
        json: { type: "boolean" },
      },
    });
    const [table, ...more] = positionals;
    if (table === undefined || more.length > 0) throw new WrongUsage("one table was expected");
    const columns = list(values.columns);
    const dbUrl = await findDatabase(values);

    const sql = postgres(dbUrl, { max: 1, onnotice: () => {}, connection: { application_name: "work-claims attach" } });
    try {
      const pool = await attachPool(sql, table, values.pool ?? null, columns, values.priority, values["run-after"]);
      for (const type of values.type ?? []) {
        await sql`select public.define_work_type(${type}::text, pool => ${pool}::text)`;
      }
      const line = runningLine(process.stderr);
      const counts = { mirrored: 0, enrolled: 0 };
      await enrollAll(
        async () => {
          const [row] = await sql<
            { step: EnrollStep }[]
          >`select public.enroll_pool(${pool}::text, ${stepRows}::int) as step`;
          if (!row) throw new Error("enroll_pool() gave no answer");
          return row.step;
        },
        (mirrored, enrolled) => {
          Object.assign(counts, { mirrored, enrolled });
          line.show(`${pool}: ${mirrored} rows taken in, ${enrolled} claims made for rows that were in already`);
        },
      );
      line.end();
      console.log(values.json ? JSON.stringify({ pool, ...counts }) : nextSteps(table, pool, values.type ?? []));
      return exitCode.fine;
    } catch (error) {
      if (error instanceof postgres.PostgresError && error.code === "42883") {
        throw new NoProject("work-claims is not installed in this database; run work-claims init and supabase db push");
      }
      throw error;
    } finally {
      await sql.end({ timeout: 5 });
    }
  },
};

async function attachPool(
  sql: Sql,
  table: string,
  pool: string | null,
  columns: string[] | null,
  priority: string | undefined,
  runAfter: string | undefined,
): Promise<string> {
  const [row] = await sql<{ attached: { pool: string } }[]>`
    select public.attach_pool(
      ${table}::text::regclass,
      pool => ${pool}::text,
      payload_columns => ${columns}::text[],
      priority_column => ${priority ?? null}::text,
      run_after_column => ${runAfter ?? null}::text) as attached`;
  if (!row) throw new Error("attach_pool() gave no answer");
  return row.attached.pool;
}

function nextSteps(table: string, pool: string, types: readonly string[]): string {
  if (types.length === 0) {
    return `${table} is the pool ${pool}. Say what there is to do with: work-claims types embed --pool ${pool}`;
  }
  return [
    `${table} is the pool ${pool}, with work for ${types.join(", ")}. Start a worker on any machine:`,
    `  $ SUPABASE_URL=… SUPABASE_SERVICE_ROLE_KEY=… WORK_TYPE=${types[0]} node worker.ts`,
    "and look at it with: work-claims watch",
  ].join("\n");
}
