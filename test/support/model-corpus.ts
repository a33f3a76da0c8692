// Commands after which the database and the model once differed, as the model's test printed them. They run first.
import type { Command } from "./model-commands.ts";

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
};
