import { NoProject } from "./command.ts";
import { envFileName, readEnvFile } from "./env-file.ts";

/** The options that name a project, for parseArgs. */
export const projectOptions = {
  url: { type: "string" },
  key: { type: "string" },
  "db-url": { type: "string" },
} as const;

export type ProjectFlags = { url?: string | undefined; key?: string | undefined; "db-url"?: string | undefined };

/** A Supabase project: its addresses and its key. */
export type Project = { url: string; key: string; dbUrl: string | undefined };

type Around = { env: Record<string, string | undefined>; folder: string };

type Source = { [name in "url" | "key" | "publishableKey" | "dbUrl"]: string | undefined };

/** The project of the flags, else of the environment, else of the env file here. */
export async function findProject(flags: ProjectFlags, around: Around = here()): Promise<Project> {
  const { url, key, dbUrl } = resolved(flags, around);
  if (!url) throw missing("address", "--url", "SUPABASE_URL");
  if (!key) throw missing(`service key of ${url}`, "--key", "SUPABASE_SERVICE_ROLE_KEY");
  checkAddress(url);
  if (opensLittle(key)) {
    throw new NoProject("The key is the project's public one; the service_role key or an sb_secret_ key is needed");
  }
  return { url: withoutPath(url), key, dbUrl };
}

function checkAddress(url: string): void {
  if (!/^https?:\/\/[^/]/.test(url)) {
    throw new NoProject(`The project's address is ${url}; one like https://abc.supabase.co was expected`);
  }
}

function withoutPath(url: string): string {
  return url.replace(/\/+$/, "").replace(/\/rest\/v1$/, "");
}

/** The project's address and its public key, for files that lie on other machines. */
export async function findPublic(
  flags: ProjectFlags,
  around: Around = here(),
): Promise<{ url: string; publishableKey: string | undefined }> {
  const { url, publishableKey } = resolved(flags, around);
  if (!url) throw missing("address", "--url", "SUPABASE_URL");
  checkAddress(url);
  if (url.includes("@")) throw new NoProject("The project's address holds a password; give --url without it");
  if (publishableKey && !opensLittle(publishableKey)) {
    throw new NoProject("SUPABASE_PUBLISHABLE_KEY or SUPABASE_ANON_KEY holds a key that is not public");
  }
  return { url: withoutPath(url), publishableKey };
}

/** The project's database, for commands that need no address and no key. */
export async function findDatabase(flags: ProjectFlags, around: Around = here()): Promise<string> {
  const { dbUrl } = resolved(flags, around);
  if (!dbUrl) throw missing("database", "--db-url", "SUPABASE_DB_URL");
  if (!/^postgres(ql)?:\/\//.test(dbUrl)) {
    throw new NoProject("The database's address was expected to begin with postgresql://");
  }
  if (!isReadable(dbUrl)) {
    throw new NoProject("The database's address is no URL; percent-encode special characters in the password");
  }
  return dbUrl;
}

/** A raw # or / or ? in a password cuts the address short there, a raw % is no character's code. */
function isReadable(dbUrl: string): boolean {
  try {
    // The driver takes the first of several hosts.
    const { hash, username, password, pathname } = new URL(dbUrl.replace(/,[^@/?#]*(?=[/?#]|$)/, ""));
    for (const part of [username, password, pathname]) decodeURIComponent(part);
    return hash === "" && (username !== "" || !pathname.includes("@"));
  } catch {
    return false;
  }
}

/** Each value from the first source that has it; a source that speaks of another project's address is passed over. */
function resolved(flags: ProjectFlags, around: Around): Source {
  const sources: Source[] = [
    { url: flags.url, key: flags.key, publishableKey: undefined, dbUrl: flags["db-url"] },
    named(around.env),
    named(readEnvFile(around.folder)),
  ];
  const url = sources.find((source) => source.url)?.url;
  const fitting = sources.filter((source) => !source.url || source.url === url);
  return {
    url,
    key: fitting.find((source) => source.key)?.key,
    publishableKey: fitting.find((source) => source.publishableKey)?.publishableKey,
    dbUrl: fitting.find((source) => source.dbUrl)?.dbUrl,
  };
}

function named(variables: Record<string, string | undefined>): Source {
  return {
    url: variables.SUPABASE_URL,
    key: variables.SUPABASE_SERVICE_ROLE_KEY || variables.SUPABASE_SECRET_KEY,
    publishableKey: variables.SUPABASE_PUBLISHABLE_KEY || variables.SUPABASE_ANON_KEY,
    dbUrl: variables.SUPABASE_DB_URL,
  };
}

function here(): Around {
  return { env: process.env, folder: process.cwd() };
}

function missing(what: string, flag: string, variable: string): NoProject {
  return new NoProject(
    `The project's ${what} is missing; give ${flag}, set ${variable}, or run work-claims up here, which writes ${envFileName}`,
  );
}

/** Whether a key is one that browsers get: it could read nothing of ours. */
function opensLittle(key: string): boolean {
  if (key.startsWith("sb_publishable_")) return true;
  const claims = key.split(".")[1];
  if (claims === undefined) return false;
  try {
    return JSON.parse(Buffer.from(claims, "base64url").toString()).role === "anon";
  } catch {
    return false;
  }
}
