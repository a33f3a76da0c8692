import type { Keys } from "./keys.ts";

/** The headers of a request that identify its sender. */
export type Credentials = {
  apikey: string | undefined;
  authorization: string | undefined;
  userAgent: string | undefined;
};

/** The Authorization header for PostgREST, or why the request is refused. */
export type Verdict = { authorization: string } | { message: string; hint: string };

/** The rules of Supabase's API gateway: which key is accepted, and as which role PostgREST answers. */
export function authenticate(keys: Keys, { apikey, authorization, userAgent }: Credentials): Verdict {
  if (!apikey) {
    return {
      message: "No API key found in request",
      hint: "No `apikey` request header or url param was found.",
    };
  }
  const tokens = new Map([
    [keys.serviceKey, keys.serviceKey],
    [keys.secretKey, keys.serviceKey],
    [keys.anonKey, keys.anonKey],
    [keys.publishableKey, keys.anonKey],
  ]);
  const token = tokens.get(apikey);
  if (!token) {
    return {
      message: "Invalid API key",
      hint: "Double check your Supabase `anon` or `service_role` API key.",
    };
  }
  if (apikey === keys.secretKey && userAgent?.includes("Mozilla")) {
    return {
      message: "Forbidden use of secret API key in browser",
      hint: "A secret key opens everything and is for servers only; use a publishable key in a browser.",
    };
  }
  const bearer = /^bearer\s+(.*)$/i.exec(authorization ?? "")?.[1]?.trim();
  const isOpaque = bearer?.startsWith("sb_") ?? false;
  if (isOpaque && bearer !== apikey) {
    return {
      message: "Invalid JWT",
      hint: "An sb_ key in the Authorization header is no JWT; send it in the `apikey` header alone.",
    };
  }
  return { authorization: authorization && !isOpaque ? authorization : `Bearer ${token}` };
}
