// Three stages in one worker. Each could be a program of its own, on machines of its own kind.
import { work } from "work-claims/worker";

/** Each stage gets the payload of its item and the results of the stages that it depends on. */
const stages = {
  extract: ({ html }) => ({ text: html.replace(/<[^>]*>/g, " ").trim() }),

  // A model goes here; see ../embedding/worker.mjs.
  embed_page: (_, { extract }) => [extract.text.length, extract.text.split(/\s+/).length],

  // And a language model here.
  summarise: ({ language }, { extract, embed_page }) => ({
    summary: `[${language}] ${extract.text.slice(0, 20)}… (${embed_page[1]} words)`,
  }),
};

await work(Object.keys(stages), (claim) => {
  const results = Object.fromEntries((claim.needs ?? []).map((need) => [need.work_type, need.result]));
  return stages[claim.work_type](claim.payload, results);
});
