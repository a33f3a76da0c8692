import { randomUUID } from "node:crypto";
import { ask, type Connection } from "./connection.ts";

/** The database keeps a listener for a minute. */
const renewMs = 20_000;

/**
 * Calls back when something of these names became ready, or ended. Each connection lost meanwhile may have missed a call:
 * it is made up for when the new one listens. Resolves to a function that ends it.
 */
export async function listenFor(
  connection: Connection,
  event: "ready" | "ended",
  isMeant: (name: string) => boolean,
  onEvent: () => void,
): Promise<() => Promise<void>> {
  if (connection.listen === undefined) {
    throw new Error("a transaction cannot listen; give the Sql that postgres() makes");
  }
  const id = randomUUID();
  const renew = async (): Promise<void> => {
    await ask(connection, "listen", "select work.listen($1::uuid, $2::text)::text as answer", [id, event]);
  };
  const hear = (payload: string): void => {
    if (payload === "" || (JSON.parse(payload) as string[]).some(isMeant)) {
      onEvent();
    }
  };
  const { unlisten } = await connection.listen(`work_${event}`, hear, onEvent);
  await renew();
  // A failed call is made again with the next one; looks from time to time find what was not told.
  const renewal = setInterval(() => void renew().catch(() => {}), renewMs);
  renewal.unref();
  // What came before the database knew of the listener was not told.
  onEvent();
  return async () => {
    clearInterval(renewal);
    await unlisten();
    await ask(connection, "unlisten", "select work.unlisten($1::uuid)::text as answer", [id]).catch(() => {});
  };
}
