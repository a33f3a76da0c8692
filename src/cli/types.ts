import { parseArgs } from "node:util";
import type { WorkTypeRules } from "../answers.ts";
import type { WorkClient } from "../client.ts";
import { enrollAll } from "../enroll.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";
import { runningLine } from "./running-line.ts";
import { table } from "./table.ts";

function wholeNumber(option: string, given: string | undefined): number | undefined {
  if (given === undefined) return undefined;
  if (!/^\d{1,9}$/.test(given)) throw new WrongUsage(`--${option} is ${given}; a whole number was expected`);
  return Number(given);
}

/** A list with commas; an empty text is an empty list, which takes the rule away. */
function names(given: string | undefined): string[] | undefined {
  return given?.split(",").flatMap((name) => name.trim() || []);
}

function show(rows: readonly WorkTypeRules[]): string {
  return table(
    [
      "work type",
      "pool",
      "lease s",
      "max failures",
      "max crashes",
      "backoff s",
      "passed over s",
      "try s",
      "min version",
      "kept",
      "paused",
      "depends on",
      "input",
      "version",
    ],
    rows.map((row) => [
      row.name,
      row.pool,
      row.lease_seconds,
      row.max_failures,
      row.max_crashes,
      row.backoff_seconds,
      row.passed_over_seconds,
      row.try_seconds,
      row.min_worker_version,
      `${row.keep_succeeded ?? "all"} / ${row.keep_failed ?? "all"}`,
      row.paused ? "yes" : "no",
      row.depends_on.join(", ") || null,
      row.input_columns?.join(", ") ?? null,
      row.version,
    ]),
  );
}

type Rules = NonNullable<Parameters<WorkClient["defineWorkType"]>[1]>;

export const types: Command = {
  name: "types",
  summary: "list the work types, or declare or change one",
  options: [
    "NAME                 declare or change this one; without it, all are listed",
    "--pool NAME          the pool whose items it is done to; those there already are enrolled",
    "--lease SECONDS      how long a worker may be silent before others take its claims (60)",
    "--max-failures N     tries before a claim ends failed (3)",
    "--max-crashes N      leases that may end without a release before it does (5)",
    "--backoff SECONDS    the wait after the first failure; it doubles with each (10)",
    "--passed-over SECONDS  how long an item may wait while workers take others that they are warm for (300)",
    "--try-seconds SECONDS  how long a handler may take for one try (no limit)",
    "--min-worker-version V  workers of a lower WORK_VERSION leave: 1.4.2",
    "--keep-succeeded TIME  how long the record of a success is kept: 30 days (for ever)",
    "--keep-failed TIME     how long a failed or cancelled claim is kept (for ever)",
    "--depends-on A,B       the work types that must have succeeded on an item before",
    "--on-failed-need RULE  a need that failed or was cancelled: wait, fail, run (wait)",
    "--input-columns A,B    a change of these does the work again; without, the whole payload is the input",
    "--on-change RULE       done work whose input changed: again, keep (again with --input-columns)",
    "--version N            raised, all that was done under a lower one is done again",
    "--apply FUNCTION       it gets (item jsonb, result jsonb) in the transaction of each release",
    "--into TABLE.COLUMN    each result is written to this column of the item's row",
    "--history RULE         the recorded steps: unhappy, full (unhappy)",
    "--keep-events N        how many events of one claim are kept (20)",
    "--on-dead-end RULE     after a claim that failed for good: go_on, stop (go_on)",
    "--several N            how many claims each item has (1)",
    "                       an empty value takes one of --depends-on, --input-columns, --apply, --into away",
    "--paused, --no-paused  hand out none of it, hand it out again",
    "--json               print JSON",
  ],
  example: "work-claims types embed --pool texts --input-columns title,body --into texts.embedding",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        ...projectOptions,
        pool: { type: "string" },
        lease: { type: "string" },
        "max-failures": { type: "string" },
        "max-crashes": { type: "string" },
        backoff: { type: "string" },
        "passed-over": { type: "string" },
        "try-seconds": { type: "string" },
        "min-worker-version": { type: "string" },
        "keep-succeeded": { type: "string" },
        "keep-failed": { type: "string" },
        "depends-on": { type: "string" },
        "on-failed-need": { type: "string" },
        "input-columns": { type: "string" },
        "on-change": { type: "string" },
        version: { type: "string" },
        apply: { type: "string" },
        into: { type: "string" },
        history: { type: "string" },
        "keep-events": { type: "string" },
        "on-dead-end": { type: "string" },
        several: { type: "string" },
        paused: { type: "boolean" },
        "no-paused": { type: "boolean" },
        json: { type: "boolean" },
      },
    });
    const [name, ...more] = positionals;
    if (more.length > 0) throw new WrongUsage("one work type was expected");
    if (values.paused && values["no-paused"]) throw new WrongUsage("give --paused or --no-paused, not both");
    const client = await projectClient(values);
    if (name === undefined) {
      const rows = await client.workTypes();
      console.log(values.json ? JSON.stringify(rows) : show(rows));
      return exitCode.fine;
    }
    // The database refuses other words.
    const rules = await client.defineWorkType(name, {
      pool: values.pool,
      leaseSeconds: wholeNumber("lease", values.lease),
      maxFailures: wholeNumber("max-failures", values["max-failures"]),
      maxCrashes: wholeNumber("max-crashes", values["max-crashes"]),
      backoffSeconds: wholeNumber("backoff", values.backoff),
      passedOverSeconds: wholeNumber("passed-over", values["passed-over"]),
      trySeconds: wholeNumber("try-seconds", values["try-seconds"]),
      minWorkerVersion: values["min-worker-version"],
      keepSucceeded: values["keep-succeeded"],
      keepFailed: values["keep-failed"],
      dependsOn: names(values["depends-on"]),
      onFailedNeed: values["on-failed-need"] as Rules["onFailedNeed"],
      inputColumns: names(values["input-columns"]),
      onChange: values["on-change"] as Rules["onChange"],
      version: wholeNumber("version", values.version),
      apply: values.apply,
      intoColumn: values.into,
      history: values.history as Rules["history"],
      keepEvents: wholeNumber("keep-events", values["keep-events"]),
      onDeadEnd: values["on-dead-end"] as Rules["onDeadEnd"],
      several: wholeNumber("several", values.several),
      paused: values.paused ? true : values["no-paused"] ? false : undefined,
    });
    const { pool } = rules;
    if (pool !== null) {
      const line = runningLine(process.stderr);
      await enrollAll(
        () => client.enrollPool(pool),
        (_, enrolled) => line.show(`${pool}: ${enrolled} claims made`),
      );
      line.end();
    }
    console.log(values.json ? JSON.stringify(rules) : show([rules]));
    return exitCode.fine;
  },
};
