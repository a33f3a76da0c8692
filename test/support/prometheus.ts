// Prometheus' text format, read strictly: https://prometheus.io/docs/instrumenting/exposition_formats/

const name = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const label = `[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"`;
const sample = new RegExp(`^(${name})(\\{${label}(?:,${label})*\\})? (-?[0-9.e+-]+|[+-]Inf|NaN)$`);

/** The value of each series, such as `held` or `claimed_total{work_type="embed"}`. Throws where the text is not as it should be. */
export function parseMetrics(text: string): Record<string, number> {
  if (!text.endsWith("\n")) {
    throw new Error("the last line does not end");
  }
  const values: Record<string, number> = {};
  const families = new Set<string>();
  let family = "";
  let type = "";
  let help = "";
  for (const line of text.slice(0, -1).split("\n")) {
    const [, word, of = "", rest = ""] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (word === "HELP") {
      help = of;
    } else if (word === "TYPE") {
      if (families.has(of) || help !== of || !["counter", "gauge", "histogram"].includes(rest)) {
        throw new Error(`not one family each, with help and type: ${line}`);
      }
      families.add(of);
      family = of;
      type = rest;
    } else {
      const [, given = "", labels = "", value] = sample.exec(line) ?? [];
      const suffix = given.slice(family.length);
      const isFitting = type === "histogram" ? /^_(bucket|sum|count)$/.test(suffix) : suffix === "";
      if (!given.startsWith(family) || !isFitting || `${given}${labels}` in values) {
        throw new Error(`not a sample of ${family}, or one that was there before: ${line}`);
      }
      values[`${given}${labels}`] = Number(value);
    }
  }
  return values;
}
