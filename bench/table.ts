import { median, type Result } from "./contest.ts";

/** The results as a Markdown table: jobs a second, and as a share of the limit, of the fastest rival, of another version. */
export function rateTable(results: Result[]): string {
  const batches = [...new Set(results.map((result) => result.batch))];
  const hasOther = results.some((result) => result.contestant.side === "other version");
  const bySide = ["limit", "rival", "other version", "ours"].flatMap((side) =>
    results.filter((result) => result.contestant.side === side),
  );
  const names = [...new Set(bySide.map((result) => result.contestant.name))];
  const header = [
    "claim and complete, jobs/s",
    ...batches.flatMap((batch) => [`by ${batch}`, "× raw", "× rival", ...(hasOther ? ["× other"] : [])]),
  ];
  const rows = names.map((name) => [
    name,
    ...batches.flatMap((batch) => {
      const own = results.find((result) => result.batch === batch && result.contestant.name === name);
      if (!own) return ["–", "–", "–", ...(hasOther ? ["–"] : [])];
      const isOther = (result: Result) =>
        own.contestant.side === "ours" && result.batch === batch && result.contestant.name === otherVersion(name);
      return [
        Math.round(median(own.rates)).toLocaleString("en"),
        ratio(own, fastest(results, batch, "limit")),
        ratio(own, fastest(results, batch, "rival")),
        ...(hasOther ? [ratio(own, results.find(isOther))] : []),
      ];
    }),
  ]);
  return markdown(header, rows);
}

/** The name of the same row for another version of work-claims. */
export function otherVersion(name: string): string {
  return name.replace("work-claims", "other version");
}

function fastest(results: Result[], batch: number, side: "limit" | "rival"): Result | undefined {
  return results
    .filter((result) => result.batch === batch && result.contestant.side === side)
    .toSorted((a, b) => median(b.rates) - median(a.rates))[0];
}

/** The median of the ratios within each round: a machine that is slower for a while is slower for both. */
function ratio(own: Result, other: Result | undefined): string {
  if (!other) return "–";
  return median(own.rates.map((rate, round) => rate / (other.rates[round] ?? Number.NaN))).toFixed(2);
}

/** A Markdown table with aligned columns: the first to the left, numbers to the right. */
export function markdown(header: string[], rows: string[][]): string {
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: string[]) =>
    `| ${cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))).join(" | ")} |`;
  const rule = `| ${widths.map((width, column) => (column === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`)).join(" | ")} |`;
  return [line(header), rule, ...rows.map(line)].join("\n");
}
