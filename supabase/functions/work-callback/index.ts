// Closes parked claims when a provider says that the job has ended. Messages are signed as Standard Webhooks describes.
import { createClient } from "../../../workers/runtime/client.ts";
import { answer, projectKey } from "../../../workers/runtime/edge.ts";
import { RequestError } from "../../../workers/runtime/errors.ts";
import { env, requiredEnv } from "../../../workers/runtime/host.ts";
import { messageOf } from "../../../workers/runtime/outcome.ts";
import { isRefusal } from "../../../workers/runtime/release.ts";
import { verify } from "../../../workers/runtime/webhook.ts";
import { type Ended, read } from "./callback.ts";

declare const Deno: { serve(handle: (request: Request) => Promise<Response>): unknown };

/** A claim keeps a result of 1 MB. */
const mostBytes = 2_000_000;

/** A job may end before its claim is parked: for so long the sender is asked to come again. */
const parkingSeconds = 60;

Deno.serve(async (request) => {
  try {
    return await close(request);
  } catch (error) {
    console.error(error);
    // Senders try again after any answer of the kind 5xx.
    const status = error instanceof RequestError ? (isRefusal(error) ? 400 : 503) : 500;
    return answer(status, messageOf(error));
  }
});

async function close(request: Request): Promise<Response> {
  if (request.method !== "POST") {
    return answer(405, `the method is ${request.method}; POST was expected`, { allow: "POST" });
  }
  const body = await bodyOf(request);
  if (body === null) {
    return answer(413, `the message is too long; ${mostBytes} bytes are the most`);
  }
  const secrets = requiredEnv("WORK_CALLBACK_SECRET").split(/\s+/);
  const verified = await verify(request.headers, body, secrets, Math.floor(Date.now() / 1000));
  if (typeof verified === "string") {
    return answer(401, verified);
  }
  const ended = endIn(body);
  if (ended === undefined) {
    return answer(
      400,
      "the message is of no form that callback.ts knows; expected was {external_id, outcome, result, error}",
    );
  }
  if (ended === null) {
    return answer(200, { closed: 0 });
  }
  const closed = await release(ended);
  if (closed === 0 && verified < parkingSeconds) {
    return answer(503, `nothing is parked under ${ended.external_id} yet; send the message again`, {
      "retry-after": "10",
    });
  }
  return answer(200, { closed });
}

/** Null where it is too long. Its sender is not known yet, and may give no length or a wrong one. */
async function bodyOf({ body }: Request): Promise<Uint8Array | null> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.length;
    if (bytes > mostBytes) {
      return null;
    }
    chunks.push(chunk);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

function endIn(body: Uint8Array): Ended | null | undefined {
  try {
    return read(JSON.parse(new TextDecoder().decode(body)));
  } catch {
    return undefined;
  }
}

/** How many claims were closed. A result that the database refuses becomes a failure that says why. */
async function release({ external_id, outcome, result, error, final }: Ended): Promise<number> {
  const client = createClient({ url: env("SUPABASE_URL") ?? "", key: projectKey() });
  const call = (args: object): Promise<unknown[]> =>
    client.rpc("release_parked", { external_id, ...args }, { retryForMs: 5000 });
  // Postgres cannot store the character NUL.
  const closed = await call({ outcome, result, error: error?.replaceAll("\0", ""), final }).catch(
    (refusal: unknown) => {
      if (outcome !== "succeeded" || !isRefusal(refusal)) {
        throw refusal;
      }
      return call({ outcome: "failed", error: `the result was refused: ${messageOf(refusal)}` });
    },
  );
  return closed.length;
}
