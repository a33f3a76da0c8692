import { printable } from "./printable.ts";

/** Rows as a table of text: numbers to the right, a missing value as "–". */
export function table(head: readonly string[], rows: readonly (readonly (string | number | null)[])[]): string {
  const shown = (cell: string | number | null | undefined): string =>
    cell === null || cell === undefined ? "–" : printable(String(cell));
  // Not as arguments of Math.max(): a list may have more rows than the stack has room for.
  const widths = head.map((name, column) =>
    rows.reduce((width, row) => Math.max(width, shown(row[column]).length), name.length),
  );
  const isNumeric = head.map((_, column) => rows.some((row) => typeof row[column] === "number"));
  const line = (cells: readonly (string | number | null)[]): string =>
    widths
      .map((width, column) =>
        isNumeric[column] ? shown(cells[column]).padStart(width) : shown(cells[column]).padEnd(width),
      )
      .join("  ")
      .trimEnd();
  return [line(head), widths.map((width) => "─".repeat(width)).join("  "), ...rows.map(line)].join("\n");
}
