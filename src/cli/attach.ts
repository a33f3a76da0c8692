import { parseArgs } from "node:util";
import postgres, { type Sql } from "postgres";
import type { EnrollStep } from "../answers.ts";
import { enrollAll } from "../enroll.ts";
import { type Command, exitCode, NoProject, WrongUsage } from "./command.ts";
import { findDatabase, projectOptions } from "./project.ts";
import { runningLine } from "./running-line.ts";

/** Rows a call: a second or two of work. The table's own writers wait no longer than that. */
const stepRows = 10_000;

const notInstalled = "work-claims is not installed in this database; run work-claims init and supabase db push";

function list(given: string | undefined): string[] | null {
  if (given === undefined) return null;
  // attach_pool() takes an empty list for all columns, and null for those of an earlier attach.
  if (given.trim() === "*") return [];
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
    "--columns a,b      the columns that workers get; '*' for all",
    "--priority COLUMN  a number: rows with a larger one come first",
    "--run-after COLUMN a time: the row is not handed out before it",
    "--requires COLUMN  jsonb: what the row asks of a worker",
    "--labels COLUMN    jsonb: what the row shows to workers",
    "--affinity COLUMN  what a worker may be warm for",
    "--workflow COLUMN  the name of the workflow that the row belongs to",
    "                   Attached again, a table keeps the columns that are not named; '' forgets one.",
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
        requires: { type: "string" },
        labels: { type: "string" },
        affinity: { type: "string" },
        workflow: { type: "string" },
        json: { type: "boolean" },
      },
    });
    const [table, ...more] = positionals;
    if (table === undefined || more.length > 0) throw new WrongUsage("one table was expected");
    const columns = list(values.columns);
    const dbUrl = await findDatabase(values);

    const sql = postgres(dbUrl, { max: 1, onnotice: () => {}, connection: { application_name: "work-claims attach" } });
    try {
      const wasAttached = await isAttached(sql, table);
      const pool = await attachPool(sql, table, values, columns);
      const counts = { mirrored: 0, enrolled: 0 };
      try {
        await enroll(sql, pool, values.type ?? [], counts);
      } catch (error) {
        throw await unfinished(sql, pool, wasAttached, counts.mirrored, error);
      }
      console.log(values.json ? JSON.stringify({ pool, ...counts }) : nextSteps(table, pool, values.type ?? []));
      return exitCode.fine;
    } catch (error) {
      if (error instanceof postgres.PostgresError && error.code === "42883") {
        throw new NoProject(notInstalled);
      }
      throw error;
    } finally {
      await sql.end({ timeout: 5 });
    }
  },
};

/** Whether the table is attached already. A name that has to be quoted is refused with its quoted form. */
async function isAttached(sql: Sql, table: string): Promise<boolean> {
  try {
    const [row] = await sql<{ is_attached: boolean }[]>`
      select exists (select from public.work_pools p where p.source = given.source) as is_attached
        from (select ${table}::text::regclass as source) as given`;
    return row?.is_attached ?? false;
  } catch (error) {
    if (!(error instanceof postgres.PostgresError)) throw error;
    if (error.code === "42P01" && error.message.includes("public.work_pools")) throw new NoProject(notInstalled);
    const isNoName = ["42P01", "3F000", "42602"].includes(error.code);
    if (!isNoName || !/[^a-z0-9_.]/.test(table) || table.includes('"')) throw error;
    throw new Error(
      `${table}: ${error.message}; a name with capitals, spaces or signs in it is quoted: work-claims attach ${quoted(table)}`,
    );
  }
}

/** A table's name quoted for SQL, and that quoted for a shell. */
function quoted(table: string): string {
  const name = table
    .split(".")
    .map((part) => (/^[a-z_][a-z0-9_]*$/.test(part) ? part : `"${part}"`))
    .join(".");
  return `'${name.replaceAll("'", "'\\''")}'`;
}

/** Declares the work types and takes in the rows that are there. */
async function enroll(
  sql: Sql,
  pool: string,
  types: readonly string[],
  counts: { mirrored: number; enrolled: number },
): Promise<void> {
  for (const type of types) await sql`select public.define_work_type(${type}::text, pool => ${pool}::text)`;
  const line = runningLine(process.stderr);
  try {
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
  } finally {
    line.end();
  }
}

/** Detaches a table that this call attached. The error names the table's state. */
async function unfinished(
  sql: Sql,
  pool: string,
  wasAttached: boolean,
  mirrored: number,
  cause: unknown,
): Promise<Error> {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const isDetached =
    !wasAttached &&
    (await sql`select public.detach_pool(${pool}::text)`.then(
      () => true,
      () => false,
    ));
  const state = isDetached
    ? `the table is detached again${mirrored > 0 ? `; the ${mirrored} rows taken in stay as items` : ""}`
    : `the table stays attached; undo with: select detach_pool('${pool.replaceAll("'", "''")}')`;
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  return Object.assign(new Error(`${reason}; ${state}`, { cause }), { code });
}

type NamedOption = "pool" | "priority" | "run-after" | "requires" | "labels" | "affinity" | "workflow";

/** The pool's name and the columns, as the options name them. */
type Named = { readonly [option in NamedOption]?: string | undefined };

async function attachPool(sql: Sql, table: string, named: Named, columns: string[] | null): Promise<string> {
  const [row] = await sql<{ attached: { pool: string } }[]>`
    select public.attach_pool(
      ${table}::text::regclass,
      pool => ${named.pool ?? null}::text,
      payload_columns => ${columns}::text[],
      priority_column => ${named.priority ?? null}::text,
      run_after_column => ${named["run-after"] ?? null}::text,
      requires_column => ${named.requires ?? null}::text,
      labels_column => ${named.labels ?? null}::text,
      affinity_column => ${named.affinity ?? null}::text,
      workflow_column => ${named.workflow ?? null}::text) as attached`;
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
