// Commands that run first: the database and the model once differed after them, or they lead where chance seldom does.
import type { Command, Said } from "./model-commands.ts";

const saying = (outcome: Said["outcome"]): Said => ({
  ...{ receipt: 0, of: "held", withFence: "given", outcome, state: null, final: false, retryAfter: null },
  ...{ result: null, progress: null, items: [], needs: [] },
});

const held = (type: string): Command => ({
  ...{ do: "claim next", worker: "plain", request: null, types: [type], max: 50, ttl: null, warm: [] },
});

export const corpus: Record<string, Command[]> = {
  "an item that was cancelled before it may run, and retried, waits until then by either way in": [
    { do: "enqueue", items: [{ runAfterSeconds: 3000 }], request: null },
    { do: "cancel", claim: 0, type: "draw", items: [0], max: 1 },
    { do: "retry", claim: 0, type: "draw", items: [0], max: 1 },
    { do: "claim next", worker: "plain", request: null, types: ["draw"], max: 1, ttl: null, warm: [] },
    { do: "claim items", worker: "plain", type: "draw", items: [0], ttl: null, request: null },
    { do: "pass", seconds: 3700 },
    { do: "claim items", worker: "plain", type: "draw", items: [0], ttl: null, request: null },
  ],
  "a held claim whose item is to run later waits after its holder, its worker's leaving and the end of its lease": [
    { do: "enqueue", items: [{}, {}, {}], request: null },
    held("draw"),
    { do: "reschedule item", item: 2, seconds: 8000 },
    { do: "release item", worker: "plain", said: saying("released") },
    { do: "reschedule item", item: 1, seconds: 8000 },
    { do: "leave", worker: "plain" },
    held("tag"),
    { do: "reschedule item", item: 0, seconds: 8000 },
    { do: "pass", seconds: 3700 },
    { do: "reap", max: 1000 },
  ],
  "a held claim whose need is open again is blocked after each end of its holding but a success": [
    { do: "enqueue", items: [{ pool: "side" }, { pool: "side" }, { pool: "side" }, { pool: "side" }], request: null },
    { do: "work", worker: "plain", types: ["score", "score#2"], said: saying("succeeded"), rounds: 1 },
    held("mean"),
    { do: "invalidate", claim: 0, type: "score", items: [0, 1, 2, 3] },
    { do: "release item", worker: "plain", said: saying("failed") },
    { do: "release item", worker: "plain", said: saying("released") },
    { do: "release items", worker: "plain", said: [saying("snoozed")] },
    { do: "pass", seconds: 3700 },
    { do: "reap", max: 1000 },
  ],
  "work that is opened again by hand before it may run waits until then": [
    { do: "enqueue", items: [{}], request: null },
    { do: "work", worker: "plain", types: ["tag"], said: saying("succeeded"), rounds: 1 },
    { do: "work", worker: "plain", types: ["draw"], said: { ...saying("failed"), final: true }, rounds: 1 },
    { do: "reschedule item", item: 0, seconds: 8000 },
    { do: "retry", claim: 0, type: "draw", items: [0], max: 1 },
    { do: "invalidate", claim: 0, type: "tag", items: [0] },
    { do: "cancel", claim: 0, type: "draw", items: [0], max: 1 },
    { do: "retry", claim: 0, type: "draw", items: [0], max: 1 },
  ],
  "work that failed or was cancelled is blocked when its need is open, and its need is ready when it is retried": [
    { do: "enqueue", items: [{ pool: "side" }], request: null },
    { do: "work", worker: "plain", types: ["score", "score#2"], said: saying("succeeded"), rounds: 1 },
    { do: "work", worker: "plain", types: ["mean"], said: { ...saying("failed"), final: true }, rounds: 1 },
    { do: "invalidate", claim: 0, type: "score", items: [0] },
    { do: "cancel", claim: 1, type: "mean", items: [0], max: 1 },
    { do: "retry", claim: 0, type: "mean", items: [0], max: 1 },
    { do: "cancel", claim: 0, type: "score", items: [0], max: 1 },
    { do: "retry", claim: 0, type: "score", items: [0], max: 1 },
  ],
};
