import { bar, duration, rate } from "../workers/runtime/progress.ts";
import { finishedClaims, type OverviewRow, openClaims, shown } from "./overview.ts";

/** Figures that a work type's line shows beside its row. */
export type Pace = { rate: number | null; liveWorkers: number };

function wordsOf(row: OverviewRow, pace: Pace): string[] {
  const open = openClaims(row);
  const isMoving = pace.rate !== null && pace.rate > 0;
  return [
    open > 0 && pace.rate !== null ? rate(pace.rate) : "",
    open === 0 ? "done" : isMoving ? `${duration(open / (pace.rate ?? 1))} left` : "",
    row.paused ? "paused" : "",
    pace.liveWorkers === 1 ? "1 worker" : `${pace.liveWorkers} workers`,
    row.claimed > 0 ? `${shown(row.claimed, row)} held` : "",
    row.parked > 0 ? `${shown(row.parked, row)} parked` : "",
    row.late > 0 ? `${row.late} late` : "",
    row.waiting > 0 ? `${shown(row.waiting, row)} waiting` : "",
    row.blocked > 0 ? `${row.blocked} blocked` : "",
    row.failed > 0 ? `${row.failed} failed` : "",
    row.cancelled > 0 ? `${row.cancelled} cancelled` : "",
  ].filter((word) => word !== "");
}

function share(row: OverviewRow): number {
  const total = finishedClaims(row) + openClaims(row);
  return total === 0 ? 1 : finishedClaims(row) / total;
}

function percent(row: OverviewRow): string {
  return `${Math.floor(share(row) * 100)} %`.padStart(5);
}

function count(row: OverviewRow): string {
  return `${finishedClaims(row)}/${finishedClaims(row) + openClaims(row)}`;
}

/** One line a work type, for a terminal of `width` columns: the bar gives way first, then the words at the end. */
export function progressLines(rows: readonly OverviewRow[], paces: readonly Pace[], width: number): string[] {
  const nameWidth = Math.min(24, Math.max(0, ...rows.map((row) => row.work_type.length)));
  const countWidth = Math.max(0, ...rows.map((row) => count(row).length));
  // The figures take 60 columns. The bar gets the rest of the width, up to 40.
  const barWidth = Math.max(8, Math.min(40, width - nameWidth - countWidth - 60));
  return rows.map((row, index) => {
    const name = row.work_type.length > nameWidth ? `${row.work_type.slice(0, nameWidth - 1)}…` : row.work_type;
    const figures = wordsOf(row, paces[index] ?? { rate: null, liveWorkers: 0 }).join(" · ");
    const head = `${name.padEnd(nameWidth)} ${bar(share(row), barWidth)} ${percent(row)} ${count(row).padStart(countWidth)}`;
    return `${head}  ${figures}`.slice(0, width);
  });
}

/** One line a work type for a log file: no bar, nothing cut. */
export function plainLines(rows: readonly OverviewRow[], paces: readonly Pace[]): string[] {
  return rows.map((row, index) =>
    [
      `${row.work_type}: ${count(row)} (${percent(row).trim()})`,
      ...wordsOf(row, paces[index] ?? { rate: null, liveWorkers: 0 }),
    ].join(", "),
  );
}
