/** The last lines of a terminal, redrawn in place; a plain stream just gets the lines. */
export type Screen = {
  isLive: boolean;
  width(): number;
  /** Replaces the lines shown before. */
  show(lines: readonly string[]): void;
  /** Prints above the shown lines, for good. */
  say(line: string): void;
  /** Keeps the shown lines. Later lines go below them. */
  settle(): void;
  /** Leaves the shown lines, and gives the cursor back. */
  close(): void;
};

const hideCursor = "\x1b[?25l";
const showCursor = "\x1b[?25h";

export function openScreen(stream: NodeJS.WriteStream): Screen {
  const isLive = stream.isTTY === true && process.env.TERM !== "dumb";
  let shown: readonly string[] = [];
  const clear = (): void => {
    if (shown.length > 0) stream.write(`\x1b[${shown.length}A\x1b[0J`);
  };
  const draw = (lines: readonly string[]): void => {
    shown = lines;
    if (lines.length > 0) stream.write(`${lines.join("\n")}\n`);
  };
  if (isLive) stream.write(hideCursor);
  return {
    isLive,
    // A line as wide as the terminal would wrap on some, and throw the redrawing off.
    width: () => (stream.columns ?? 100) - 1,
    show(lines) {
      if (isLive) clear();
      draw(lines);
    },
    say(line) {
      const below = shown;
      if (isLive) clear();
      stream.write(`${line}\n`);
      if (isLive) draw(below);
    },
    settle() {
      shown = [];
    },
    close() {
      if (isLive) stream.write(showCursor);
    },
  };
}
