/** A line that overwrites itself on a terminal, one line a change elsewhere. */
export function runningLine(stream: NodeJS.WriteStream): { show(text: string): void; end(): void } {
  let last = "";
  return {
    show(text) {
      if (text === last) return;
      last = text;
      stream.write(stream.isTTY ? `\r\x1b[2K${text}` : `${text}\n`);
    },
    end() {
      if (stream.isTTY && last !== "") stream.write("\n");
    },
  };
}
