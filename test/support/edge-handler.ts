// The handler of the tests: the payload says what it does.
import type { Handler, WorkOptions } from "../../workers/runtime/work.ts";

declare const Deno: { env: { get(name: string): string | undefined } };

export const itemSeconds = 20;
export const options: WorkOptions = { concurrency: 4, maxClaims: 100 };

const kept: Uint8Array[] = [];
const waiting = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function rpc(name: string, args: object): Promise<unknown> {
  const { default: key } = JSON.parse(Deno.env.get("SUPABASE_SECRET_KEYS") ?? "{}");
  const response = await fetch(`${Deno.env.get("SUPABASE_URL")}/rest/v1/rpc/${name}`, {
    method: "POST",
    headers: { apikey: key, "content-type": "application/json" },
    body: JSON.stringify(args),
  });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

const acts: Record<string, Handler> = {
  double: (claim) => ({ twice: 2 * claim.payload.n, execution: Deno.env.get("SB_EXECUTION_ID") }),
  async wait(claim) {
    await waiting(claim.payload.ms);
  },
  async burn(_, { signal }) {
    while (!signal.aborted) {
      for (const end = performance.now() + 20; performance.now() < end; );
      await waiting(1);
    }
  },
  async allocate(_, { signal }) {
    while (!signal.aborted) {
      kept.push(new Uint8Array(2 ** 20).fill(1));
      await waiting(20);
    }
  },
  spin(claim) {
    while (claim.crashes === 0);
  },
  // The first try writes late, and whether or not it may.
  async write(claim) {
    while (claim.crashes === 0 && (await rpc("is_open", {})) === false) await waiting(50);
    return rpc("write_page", { item: claim.item_id, fence: claim.fence, body: `try ${claim.crashes}` });
  },
};

export const handler: Handler = (claim, context) => acts[claim.payload.act]?.(claim, context);
