// Shared by the Edge Functions: the project's key, secrets and answers.
import { env, SettingsError } from "./host.ts";

// Node and Deno have them; not every version of their types says so.
const host = globalThis as unknown as {
  crypto: { subtle: { digest(algorithm: "SHA-256", data: Uint8Array): Promise<ArrayBuffer> } };
};

/** The project's secret keys as Supabase gives them to a function: the one named default first, the legacy key last. */
export function projectKeys(): string[] {
  const keys = parsed(env("SUPABASE_SECRET_KEYS") ?? "{}");
  const all = [keys.default, ...Object.values(keys), env("SUPABASE_SERVICE_ROLE_KEY")];
  return [...new Set(all.filter((key): key is string => typeof key === "string" && key !== ""))];
}

/** The first of them, for calls to the project. */
export function projectKey(): string {
  const [key] = projectKeys();
  if (key === undefined) {
    throw new SettingsError("neither SUPABASE_SECRET_KEYS nor SUPABASE_SERVICE_ROLE_KEY has a key");
  }
  return key;
}

/** Whether a text is one of these secrets. Its time depends on neither. */
export async function isSecret(given: string, secrets: readonly string[]): Promise<boolean> {
  const digest = await sha256(given);
  let isFound = false;
  for (const secret of secrets) {
    isFound = isEqual(digest, await sha256(secret)) || isFound;
  }
  return isFound;
}

/** Compares all bytes, so that the time does not tell how many of them are right. */
export function isEqual(one: Uint8Array, other: Uint8Array): boolean {
  let difference = one.length ^ other.length;
  for (const [n, byte] of one.entries()) {
    difference |= byte ^ (other[n] ?? 0);
  }
  return difference === 0;
}

/** An answer as JSON; a text is a message. */
export function answer(status: number, body: object | string, headers: Record<string, string> = {}): Response {
  return Response.json(typeof body === "string" ? { message: body } : body, { status, headers });
}

async function sha256(text: string): Promise<Uint8Array> {
  return new Uint8Array(await host.crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}

function parsed(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return value !== null && typeof value === "object" ? (value as Record<string, unknown>) : {};
  } catch {
    throw new SettingsError(
      'SUPABASE_SECRET_KEYS is no JSON; expected was an object, such as {"default": "sb_secret_…"}',
    );
  }
}
