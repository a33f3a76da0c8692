// The check of a signed message, as https://www.standardwebhooks.com describes it.
import { isEqual } from "./edge.ts";
import { SettingsError } from "./host.ts";

/** A message older or newer than this is refused, so that a caught one cannot be sent again later. */
const windowSeconds = 300;

const host = globalThis as unknown as {
  crypto: {
    subtle: {
      importKey(format: "raw", key: Uint8Array, how: object, isExtractable: false, uses: ["sign"]): Promise<object>;
      sign(algorithm: "HMAC", key: object, data: Uint8Array): Promise<ArrayBuffer>;
    };
  };
};

/** The age of the message in seconds, or why it is refused. One of the secrets must have made one of its signatures. */
export async function verify(
  headers: { get(name: string): string | null },
  body: Uint8Array,
  secrets: readonly string[],
  nowSeconds: number,
): Promise<number | string> {
  const [id, timestamp, signatures] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map((name) =>
    headers.get(name),
  );
  if (!id || !timestamp || !signatures) {
    return "webhook-id, webhook-timestamp or webhook-signature is missing";
  }
  const age = /^\d{1,12}$/.test(timestamp) ? nowSeconds - Number(timestamp) : Number.NaN;
  if (!(Math.abs(age) <= windowSeconds)) {
    return `webhook-timestamp is ${timestamp.slice(0, 20)}; a time within ${windowSeconds} seconds of now was expected`;
  }
  const head = new TextEncoder().encode(`${id}.${timestamp}.`);
  const signed = new Uint8Array(head.length + body.length);
  signed.set(head);
  signed.set(body, head.length);
  const given = signatures.split(" ").flatMap((each) => (each.startsWith("v1,") ? [bytesOf(each.slice(3))] : []));
  let isGood = false;
  for (const secret of secrets) {
    const expected = await hmac(secret, signed);
    for (const signature of given) {
      isGood = isEqual(expected, signature ?? new Uint8Array()) || isGood;
    }
  }
  return isGood ? age : "no signature in webhook-signature is right";
}

async function hmac(secret: string, data: Uint8Array): Promise<Uint8Array> {
  const key = bytesOf(secret.replace(/^whsec_/, ""));
  if (!secret.startsWith("whsec_") || key === undefined || key.length === 0) {
    throw new SettingsError("WORK_CALLBACK_SECRET has a secret of another form; whsec_ and base64 were expected");
  }
  const { subtle } = host.crypto;
  const imported = await subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await subtle.sign("HMAC", imported, data));
}

function bytesOf(base64: string): Uint8Array | undefined {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
}
