// The demo's worker counts the words of a text and computes its SHA-256. It waits as long as a GPU would take.
// Runs as it is on Deno and Node 22.18 or later; `npm start` runs the built one on Node 20 too.
import { work } from "./runtime/work.ts";

// Both hosts have it; not every version of their types says so.
const { crypto } = globalThis as unknown as {
  crypto: { subtle: { digest(algorithm: "SHA-256", data: Uint8Array): Promise<ArrayBuffer> } };
};

type Text = { id: number; body: string };

/** A small model's time for one text, a little different for each. */
function simulatedGpuMs(text: Text): number {
  return 100 + ((text.id * 37) % 100);
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function waiting(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

await work("count_words", async (claim, { signal }) => {
  const text = claim.payload as Text;
  await waiting(simulatedGpuMs(text), signal);
  return { words: text.body.split(/\s+/).length, sha256: await sha256(text.body) };
});
