import { createHash, createHmac, randomBytes } from "node:crypto";

/** The keys and passwords of a project, made once for a data folder and kept in it. */
export type Keys = {
  jwtSecret: string;
  anonKey: string;
  serviceKey: string;
  publishableKey: string;
  secretKey: string;
  /** The database superuser's password; it is needed by the stack and by tests alone. */
  adminPassword: string;
};

export type ApiRole = "anon" | "service_role";

const tenYears = 10 * 365 * 24 * 3600;

export function createKeys(nowSeconds: number): Keys {
  const jwtSecret = randomBytes(32).toString("hex");
  return {
    jwtSecret,
    anonKey: signJwt(jwtSecret, "anon", nowSeconds, tenYears),
    serviceKey: signJwt(jwtSecret, "service_role", nowSeconds, tenYears),
    publishableKey: opaqueKey("sb_publishable_"),
    secretKey: opaqueKey("sb_secret_"),
    adminPassword: randomBytes(24).toString("hex"),
  };
}

/** A legacy key of Supabase's form: HS256 over a role. */
function signJwt(secret: string, role: ApiRole, nowSeconds: number, lifeSeconds: number): string {
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const body = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({
    iss: "supabase",
    ref: "work-claims-local",
    role,
    iat: nowSeconds,
    exp: nowSeconds + lifeSeconds,
  })}`;
  return `${body}.${createHmac("sha256", secret).update(body).digest("base64url")}`;
}

function opaqueKey(prefix: string): string {
  const secret = randomBytes(24).toString("base64url").replace(/[-_]/g, "x").slice(0, 22);
  const checksum = createHash("sha256")
    .update(prefix + secret)
    .digest("hex")
    .slice(0, 8);
  return `${prefix}${secret}_${checksum}`;
}
