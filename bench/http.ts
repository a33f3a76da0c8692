import { type Contestant, connections } from "./contest.ts";
import { type Send, workClaims } from "./work_claims.ts";

/**
 * work-claims over HTTP, as a worker has it: gateway, PostgREST, Postgres. Each of the four callers waits for its answer,
 * so that fetch keeps four connections alive.
 */
export function workClaimsHttp(dbUrl: string, url: string, key: string): Contestant {
  const headers: Record<string, string> = { apikey: key, "content-type": "application/json" };
  if (key.split(".").length === 3) headers.authorization = `Bearer ${key}`;

  const send: Send = async (call) => {
    const response = await fetch(`${url}/rest/v1/rpc/finish_and_claim`, {
      method: "POST",
      headers,
      body: JSON.stringify(call),
    });
    if (!response.ok) throw new Error(`finish_and_claim: ${response.status} ${await response.text()}`);
    const answer = (await response.json()) as { claimed: Awaited<ReturnType<Send>> };
    return answer.claimed;
  };
  return workClaims(`work-claims: HTTP, ${connections} connections`, dbUrl, connections, true, send, async () => {});
}
