// How fast work goes, in words and bars: for the command line and for claims().

/** How many claims had ended at one moment. */
export type Sample = { at: number; finished: number };

/** Long enough to smooth batches of slow work, short enough to show that a worker was lost. */
const rateWindowMs = 10_000;

/** The samples that the rate is taken from, with one more. */
export function withSample(samples: readonly Sample[], sample: Sample, windowMs: number = rateWindowMs): Sample[] {
  return [...samples.filter((earlier) => sample.at - earlier.at <= windowMs), sample];
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
