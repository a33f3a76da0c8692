import { env, readText, requiredEnv, SettingsError } from "./host.ts";

/** A worker sends a key, which opens the project, or a token, which opens its work types, beside the public key. */
export interface Credentials {
  /** The header apikey: with a token the project's public key. */
  key: string;
  /** Null where the key opens the project. */
  token: string | null;
  /** The names of both where they were set, for messages. */
  called: { key: string; token: string };
}

export interface CredentialOptions {
  /** A service_role or secret key: SUPABASE_SERVICE_ROLE_KEY. */
  key?: string;
  /** In place of such a key, a token: WORK_TOKEN, or the content of the file that WORK_TOKEN_FILE names. */
  token?: string;
  /** The project's public key, beside a token: SUPABASE_PUBLISHABLE_KEY, else SUPABASE_ANON_KEY. */
  publishableKey?: string;
}

interface Given {
  text: string;
  /** The option or variable, for messages. */
  from: string;
}

/** An option counts before the environment. Of a token and a key from the same place the token counts: it opens less. */
export function credentialsFrom(options: CredentialOptions): Credentials {
  const token = option("token", options.token) ?? (options.key === undefined ? tokenFromEnv() : undefined);
  const key = token
    ? (option("publishableKey", options.publishableKey) ?? variable("SUPABASE_PUBLISHABLE_KEY", "SUPABASE_ANON_KEY"))
    : (option("key", options.key) ?? variable("SUPABASE_SERVICE_ROLE_KEY"));
  return { key: key.text, token: token?.text ?? null, called: { key: key.from, token: token?.from ?? "" } };
}

function option(name: string, text: string | undefined): Given | undefined {
  return text === undefined ? undefined : { text, from: `the option ${name}` };
}

/** The first of these variables that is set; the first one is needed where none is. */
function variable(first: string, ...others: string[]): Given {
  const from = [first, ...others].find((name) => env(name) !== undefined) ?? first;
  return { text: requiredEnv(from), from };
}

/** Whether the environment has a token, which brings its work types along. */
export function hasTokenInEnv(): boolean {
  return (env("WORK_TOKEN") ?? env("WORK_TOKEN_FILE")) !== undefined;
}

function tokenFromEnv(): Given | undefined {
  if (!hasTokenInEnv()) {
    return undefined;
  }
  const path = env("WORK_TOKEN") === undefined ? env("WORK_TOKEN_FILE") : undefined;
  if (path === undefined) {
    return variable("WORK_TOKEN");
  }
  try {
    return { text: readText(path), from: "the file that WORK_TOKEN_FILE names" };
  } catch (error) {
    // The path and the host's message are not shown: the path may be the token, in the wrong variable.
    const { code, name, message } = error as Error & { code?: string };
    throw new SettingsError(
      `WORK_TOKEN_FILE names no file that can be read (${error instanceof SettingsError ? message : (code ?? name)})`,
    );
  }
}
