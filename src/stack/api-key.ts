import { createHash, timingSafeEqual } from "node:crypto";
import { type ApiRole, type Keys, signJwt } from "./keys.ts";

/** What a request shows at the door. */
export type Credentials = {
  apikey: string | undefined;
  authorization: string | undefined;
  userAgent: string | undefined;
};

export type Verdict =
  | { admitted: true; authorization: string }
  | { admitted: false; body: { message: string; hint: string } };

/** Seconds that the token behind an opaque key is good for; it is renewed long before. */
const tokenLife = 3600;

/** The rules of Supabase's gateway: which key opens, and as which role the request goes on. */
export function createDoorkeeper(keys: Keys, now: () => number): (credentials: Credentials) => Verdict {
  const known: { digest: Uint8Array; role: ApiRole; legacy: boolean; secret: boolean; key: string }[] = [
    { digest: digest(keys.serviceKey), role: "service_role", legacy: true, secret: false, key: keys.serviceKey },
    { digest: digest(keys.anonKey), role: "anon", legacy: true, secret: false, key: keys.anonKey },
    { digest: digest(keys.secretKey), role: "service_role", legacy: false, secret: true, key: keys.secretKey },
    { digest: digest(keys.publishableKey), role: "anon", legacy: false, secret: false, key: keys.publishableKey },
  ];
  const token = tokens(keys.jwtSecret, now);

  return ({ apikey, authorization, userAgent }) => {
    if (!apikey) return refused("No API key found in request", "No `apikey` request header or url param was found.");
    // Digests have one length, and every key is compared: the time says nothing about any of them.
    const shown = digest(apikey);
    const match = known.filter((entry) => timingSafeEqual(entry.digest, shown))[0];
    if (!match) return refused("Invalid API key", "Double check your Supabase `anon` or `service_role` API key.");
    if (match.secret && userAgent?.includes("Mozilla")) {
      return refused(
        "Forbidden use of secret API key in browser",
        "Secret API keys open everything and can only be used on a server; use a publishable key in a browser.",
      );
    }
    const bearer = /^bearer\s+(.*)$/i.exec(authorization ?? "")?.[1]?.trim();
    if (bearer?.startsWith("sb_") && !timingSafeEqual(digest(bearer), shown)) {
      return refused(
        "Invalid JWT",
        "An sb_ key in the Authorization header is no JWT; send it in the `apikey` header alone.",
      );
    }
    if (authorization && !bearer?.startsWith("sb_")) return { admitted: true, authorization };
    return { admitted: true, authorization: `Bearer ${match.legacy ? match.key : token(match.role)}` };
  };
}

/** A short token for each role, made again when half of its life is over. */
function tokens(secret: string, now: () => number): (role: ApiRole) => string {
  const made = new Map<ApiRole, { token: string; at: number }>();
  return (role) => {
    const at = Math.floor(now() / 1000);
    const kept = made.get(role);
    if (kept && at - kept.at < tokenLife / 2) return kept.token;
    const token = signJwt(secret, role, at, tokenLife);
    made.set(role, { token, at });
    return token;
  };
}

function refused(message: string, hint: string): Verdict {
  return { admitted: false, body: { message, hint } };
}

function digest(text: string): Uint8Array {
  return Uint8Array.from(createHash("sha256").update(text).digest());
}
