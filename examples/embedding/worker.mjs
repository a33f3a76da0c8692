// Embeds documents, and each one again after a change. Start it as often as you like: node worker.mjs
import { work } from "work-claims/worker";

const dimensions = 64;

/** Stands in for a model, so that the example needs no key: it counts words, each at a place of its own. */
function embed(text) {
  // With a model, this function is one call, such as:
  //   const { data } = await openai.embeddings.create({ model: "text-embedding-3-small", input: text, dimensions });
  //   return data[0].embedding;
  const vector = new Array(dimensions).fill(0);
  for (const word of text.toLowerCase().match(/\p{L}+|\d+/gu) ?? []) {
    let place = 0;
    for (const character of word) place = (place * 31 + (character.codePointAt(0) ?? 0)) % dimensions;
    vector[place] += 1;
  }
  const length = Math.hypot(...vector) || 1;
  return vector.map((number) => number / length);
}

await work("embed", ({ payload }) => embed(`${payload.title}\n${payload.body}`));
