import { packagedMigration, publicNames } from "../stack/migrations.ts";
import { type Finding, installAdvice, right, wrong } from "./finding.ts";

export type Api = { url: string; key: string; anonKey: string | undefined };

/** Look with a worker's key: does the address answer, is the key accepted, are the functions there, is anon refused. */
export async function checkApi({ url, key, anonKey }: Api): Promise<Finding[]> {
  let response: Response;
  try {
    response = await ask(url, "", key);
  } catch (error) {
    const { cause, message } = error as Error;
    const reason = cause instanceof Error ? cause.message : message;
    return [wrong("address", `${url} does not answer (${reason})`, "look at SUPABASE_URL and the network between")];
  }
  if (response.status === 401 || response.status === 403) {
    return [
      right("address", `${url} answers`),
      wrong("key", "it is refused", "take the service_role key or an sb_secret_ key from the project's dashboard"),
    ];
  }
  const paths = response.ok ? ((await response.json()) as { paths?: Record<string, unknown> }).paths : undefined;
  if (!paths) {
    const text = `${url} answers with status ${response.status}, and not as a Supabase project does`;
    return [wrong("address", text, "look at SUPABASE_URL; it has the form https://abc.supabase.co")];
  }
  const findings = [right("address", `${url} answers`), right("key", "it is accepted")];
  const { text } = await packagedMigration();
  const missing = publicNames(text, "function").filter((name) => !(`/rpc/${name}` in paths));
  findings.push(
    missing.length === 0
      ? right("functions", "all of them can be called")
      : wrong("functions", `this key cannot call ${missing.join(", ")}`, installAdvice),
  );
  if (anonKey)
    findings.push(await checkAnon(url, anonKey, [...publicNames(text, "table"), ...publicNames(text, "view")]));
  return findings;
}

async function checkAnon(url: string, anonKey: string, relations: readonly string[]): Promise<Finding> {
  const open: string[] = [];
  for (const relation of relations) if ((await ask(url, `${relation}?limit=0`, anonKey)).ok) open.push(relation);
  return open.length === 0
    ? right("public key", "it reads nothing of work-claims")
    : wrong(
        "public key",
        `everybody can read ${open.join(", ")}`,
        `revoke all on ${open.join(", ")} from anon, then push again`,
      );
}

function ask(url: string, path: string, key: string): Promise<Response> {
  const headers = { apikey: key, ...(key.startsWith("sb_") ? {} : { authorization: `Bearer ${key}` }) };
  return fetch(`${url}/rest/v1/${path}`, { headers, signal: AbortSignal.timeout(10_000) });
}
