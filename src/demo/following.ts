import { setTimeout as pause } from "node:timers/promises";
import { pacer } from "../cli/watch.ts";
import type { OverviewRow } from "../overview.ts";
import { plainLines, progressLines } from "../progress.ts";
import type { Stage } from "./stage.ts";

/** Many times as long as the work takes. After it the demo reports a fault and stops waiting. */
const patienceMs = 120_000;

/** A lively bar on a terminal, a handful of lines in a log. */
const lookEveryMs = { terminal: 200, log: 2500 };

/** Shows the progress of the one work type; `look` sees how far it is, may do something, and says when to end. */
export async function follow(
  { screen, signal, client, workers }: Stage,
  look: (row: OverviewRow) => Promise<"go on" | "end">,
): Promise<void> {
  const paceOf = pacer();
  const began = performance.now();
  let shownAt = Number.NEGATIVE_INFINITY;
  for (;;) {
    const rows = await client.overview();
    const running = workers.filter((worker) => !worker.process.hasExited());
    const paces = paceOf(rows, () => running.length, performance.now());
    const row = rows[0];
    const isOver = row !== undefined && (await look(row)) === "end";
    if (screen.isLive) screen.show(progressLines(rows, paces, screen.width()));
    else if (isOver || performance.now() - shownAt > lookEveryMs.log) {
      screen.show(plainLines(rows, paces));
      shownAt = performance.now();
    }
    if (isOver) break;
    if (running.length === 0) throw new Error("no worker is left running; what they said is above");
    if (performance.now() - began > patienceMs) throw new Error(`the work took longer than ${patienceMs / 1000} s`);
    await pause(lookEveryMs.terminal, undefined, { signal });
  }
  screen.settle();
}
