// Prints how Postgres runs the hot statements beside 900,000 finished and 100,000 ready claims: each statement inside
// our functions, as auto_explain saw it run, with the pages that it read.
import postgres, { type Sql } from "postgres";
import { openInstance, settle } from "./instance.ts";
import { addFinished } from "./latency.ts";
import { readOptions } from "./options.ts";
import { type Question, questions } from "./questions.ts";
import { addItems, emptyTables, workType } from "./work_claims.ts";

const finished = 900_000;
const ready = 100_000;
const pool = "default";

interface Statement {
  text: string;
  plan: string;
  milliseconds: number;
}

const options = readOptions(process.argv.slice(2));
if (!options) throw new Error("npm run explain takes --db-url and --admin-url: only a superuser may load auto_explain");
const instance = await openInstance(options, console.error);
const seen: Statement[] = [];
const database = postgres(instance.adminUrl, {
  max: 1,
  onnotice: ({ message }) => seen.push(...readStatement(message ?? "")),
});
try {
  console.error(`Building ${finished + ready} items and claims …`);
  await build(database);
  await watchPlans(database);
  for (const question of questions(pool, workType)) await explain(database, question);
} finally {
  await database.end();
  const cleaner = postgres(instance.dbUrl, { max: 1, onnotice: () => {} });
  await emptyTables(cleaner);
  await cleaner.end();
  await instance.stop();
}

async function build(database: Sql): Promise<void> {
  await emptyTables(database);
  // Without a work type the finished items are not enrolled as they come.
  await database`delete from public.work_types where pool = ${pool}`;
  await addFinished(database, finished, pool);
  await database`select public.define_work_type(${workType}, pool => ${pool})`;
  await addItems(database, ready);
  await settle(instance.adminUrl, instance.dbUrl);
}

async function watchPlans(database: Sql): Promise<void> {
  await database`load 'auto_explain'`;
  for (const setting of [
    "auto_explain.log_min_duration = 0",
    "auto_explain.log_nested_statements = on",
    "auto_explain.log_analyze = on",
    "auto_explain.log_buffers = on",
    "auto_explain.log_timing = off",
    "client_min_messages = log",
    "role = service_role",
  ]) {
    await database.unsafe(`set ${setting}`);
  }
}

/** Asks twice and prints the second run: its plans and pages are warm. */
async function explain(database: Sql, { title, prepare, ask }: Question): Promise<void> {
  for (let time = 0; time < 2; time++) {
    const prepared = await prepare?.(database);
    seen.length = 0;
    await ask(database, prepared ?? []);
  }
  console.log(`## ${title}\n`);
  const runs = Map.groupBy(seen.filter(isAboutWork), (statement) => statement.text);
  for (const [text, statements] of runs) {
    const [{ plan, milliseconds }] = statements as [Statement];
    const times = statements.length > 1 ? `the first of ${statements.length} times, ` : "";
    console.log(`${shortened(text)}\n\n\`\`\`\n${plan}\n(${times}${milliseconds.toFixed(2)} ms)\n\`\`\`\n`);
  }
}

/** A notice of auto_explain: duration, statement, parameters of one that was sent by itself, plan. */
function readStatement(message: string): Statement[] {
  const [, duration, text, plan] =
    /^duration: ([\d.]+) ms {2}plan:\nQuery Text: ([\s\S]*?)\n(?:Query Parameters: .*\n)?(\S.*\(cost=[\s\S]*)$/.exec(
      message,
    ) ?? [];
  return duration && text && plan ? [{ text, plan, milliseconds: Number(duration) }] : [];
}

/** Leaves out statements that only call a function: the statements inside it are printed too. */
function isAboutWork({ plan }: Statement): boolean {
  return /work_claims|work_items|requests/.test(plan);
}

function shortened(text: string): string {
  const words = text.replace(/\s+/g, " ").trim();
  return `\`${words.length > 160 ? `${words.slice(0, 160)} …` : words}\``;
}
