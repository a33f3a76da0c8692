import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { rateOf, type Sample, withSample } from "../../workers/runtime/progress.ts";
import { isOver } from "../../workers/runtime/remaining.ts";
import type { WorkClient } from "../client.ts";
import { finishedClaims, type OverviewRow } from "../overview.ts";
import { type Pace, plainLines, progressLines } from "../progress.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { projectOptions } from "./project.ts";
import { projectClient } from "./project-client.ts";
import { openScreen } from "./screen.ts";

const defaultIntervalSeconds = { terminal: 1, log: 10 };

/** Computes the pace of each row from earlier samples, which it keeps. */
export function pacer(): (
  rows: readonly OverviewRow[],
  liveWorkers: (workType: string) => number,
  at: number,
) => Pace[] {
  const seen = new Map<string, Sample[]>();
  return (rows, liveWorkers, at) =>
    rows.map((row) => {
      const samples = withSample(seen.get(row.work_type) ?? [], { at, finished: finishedClaims(row) });
      seen.set(row.work_type, samples);
      return { rate: rateOf(samples), liveWorkers: liveWorkers(row.work_type) };
    });
}

function intervalMs(given: string | undefined): number {
  const seconds =
    given === undefined
      ? process.stdout.isTTY
        ? defaultIntervalSeconds.terminal
        : defaultIntervalSeconds.log
      : Number(given);
  if (!(seconds >= 0.1 && seconds <= 86_400)) {
    throw new WrongUsage(`--interval is ${given}; 0.1 to 86400 seconds were expected`);
  }
  return seconds * 1000;
}

/** How each work type ended: "" where all is well, else a sentence; null where it goes on. */
async function endsOf(client: WorkClient, rows: readonly OverviewRow[]): Promise<(string | null)[]> {
  const types = rows.length === 0 ? [] : await client.remaining(rows.map((row) => row.work_type));
  return types.map((type) => {
    const { work_type, open, failed, running, is_paused, stopped } = type;
    const isHeld = running > 0;
    if (open > 0 && !isHeld && (is_paused || stopped !== null)) {
      const how = stopped === null ? `paused with ${open} open` : `stopped with ${open} open (${stopped})`;
      return `${work_type} is ${how}; hand it out again with: work-claims types ${work_type} --no-paused`;
    }
    if (!isOver(type)) return null;
    return failed === 0
      ? ""
      : `${work_type}: ${failed} failed; see them with: work-claims claims --where status=failed --where work_type=${work_type}`;
  });
}

export const watch: Command = {
  name: "watch",
  summary: "a live progress bar for each work type; plain lines where the output is no terminal",
  options: [
    "TYPE ...            these work types; else all",
    "--interval SECONDS  how often to look (1; 10 where the output is no terminal)",
    "--until-done        end when nothing is open; 1 where something failed, or what is open is paused or stopped",
    "--json              one JSON line a look",
  ],
  example: "work-claims watch embed --until-done",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        ...projectOptions,
        interval: { type: "string" },
        "until-done": { type: "boolean" },
        json: { type: "boolean" },
      },
    });
    const interval = intervalMs(values.interval);
    const client = await projectClient(values);
    const paceOf = pacer();
    const interrupted = new AbortController();
    const stop = (): void => interrupted.abort();
    const whenInterrupted = new Promise<undefined>((resolve) => {
      interrupted.signal.addEventListener("abort", () => resolve(undefined));
    });
    process.once("SIGINT", stop).once("SIGTERM", stop);
    const screen = openScreen(process.stdout);
    try {
      for (;;) {
        const pulse = await Promise.race([whenInterrupted, client.pulse()]);
        if (!pulse) break;
        const unknown = positionals.filter((name) => !pulse.types.some((row) => row.work_type === name));
        if (unknown.length > 0) throw new Error(`there is no work type ${unknown.join(", ")}; see work-claims types`);
        const rows = pulse.types.filter((row) => positionals.length === 0 || positionals.includes(row.work_type));
        const paces = paceOf(
          rows,
          (workType) => rows.find((row) => row.work_type === workType)?.workers ?? 0,
          performance.now(),
        );
        if (values.json) console.log(JSON.stringify(rows.map((row, index) => ({ ...row, ...paces[index] }))));
        else if (screen.isLive) screen.show(progressLines(rows, paces, screen.width()));
        else screen.show(plainLines(rows, paces));
        if (values["until-done"]) {
          const ends = await endsOf(client, rows);
          if (ends.every((end) => end !== null)) {
            const complaints = ends.filter((end) => end !== "");
            for (const complaint of complaints) console.error(complaint);
            return complaints.length > 0 ? exitCode.failed : exitCode.fine;
          }
        }
        await Promise.race([whenInterrupted, pause(interval)]);
      }
      return exitCode.fine;
    } finally {
      screen.close();
      process.off("SIGINT", stop).off("SIGTERM", stop);
    }
  },
};
