import { finishedClaims, type OverviewRow, openClaims, shown } from "./overview.ts";

/** How many claims of one work type had ended at one moment. */
export type Sample = { at: number; finished: number };

/** Long enough to smooth batches of slow work, short enough to show that a worker was lost. */
const rateWindowMs = 10_000;

/** The samples that the rate is taken from, with one more. */
export function withSample(samples: readonly Sample[], sample: Sample): Sample[] {
  return [...samples.filter((earlier) => sample.at - earlier.at <= rateWindowMs), sample];
}

/** Claims ended per second over the samples; null while there is nothing to tell it from. */
export function rateOf(samples: readonly Sample[]): number | null {
  const first = samples[0];
  const last = samples.at(-1);
  // Less than a second apart, one batch more or less would be most of the figure.
  if (!first || !last || last.at - first.at < 1000) return null;
  // A retried failure is taken off the count of ended ones.
  return Math.max(0, ((last.finished - first.finished) * 1000) / (last.at - first.at));
}

/** Seconds in the two units that matter: "45 s", "12 min", "3 h 20 min", "2 d 5 h". */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  return hours % 24 === 0 ? `${hours / 24} d` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A rate in the unit in which it is at least one: "27/s", "12/min", "3/h". */
export function rate(perSecond: number): string {
  const round = (value: number): string => (value < 9.95 ? value.toFixed(1) : value.toFixed(0));
  if (perSecond >= 1) return `${round(perSecond)}/s`;
  if (perSecond * 60 >= 1) return `${round(perSecond * 60)}/min`;
  return perSecond === 0 ? "0/s" : `${round(perSecond * 3600)}/h`;
}

/** `share` of `width` cells, in eighths of a cell; full only where all is done. */
export function bar(share: number, width: number): string {
  const eighths = share >= 1 ? width * 8 : Math.min(Math.floor(share * width * 8), width * 8 - 1);
  const full = "█".repeat(Math.floor(eighths / 8));
  const rest = eighths % 8 === 0 ? "" : (" ▏▎▍▌▋▊▉"[eighths % 8] ?? "");
  return (full + rest).padEnd(width, "░");
}

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
