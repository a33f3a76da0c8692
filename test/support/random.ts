/** The seed of all random choices of a test: 1, or SEED, or another one each time with SEED=random. */
export const seed = process.env.SEED === "random" ? Date.now() % 1_000_000 : Number(process.env.SEED ?? 1);

/** Numbers that follow from a seed, so that a failure can be seen again. */
export function seeded(seed: number): {
  random: () => number;
  chance: (probability: number) => boolean;
  below: (limit: number) => number;
  pick: <Value>(values: readonly Value[]) => Value;
} {
  let state = seed >>> 0;
  function random(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
  const below = (limit: number): number => Math.floor(random() * limit);
  return {
    random,
    below,
    chance: (probability) => random() < probability,
    pick: <Value>(values: readonly Value[]): Value => {
      const value = values[below(values.length)];
      if (value === undefined) {
        throw new Error("there is nothing to pick from");
      }
      return value;
    },
  };
}
