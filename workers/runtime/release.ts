import type { CallOptions, Client } from "./client.ts";
import { isHopeless, RequestError } from "./errors.ts";
import { errorType, itemFields, type Log, operations } from "./log.ts";
import { failed, messageOf, type Outcome } from "./outcome.ts";

export async function releaseItems(
  client: Client,
  workerId: string,
  outcomes: Outcome[],
  call: CallOptions,
): Promise<string[]> {
  return client.rpc("release_items", { worker_id: workerId, outcomes }, call);
}

/**
 * Releases one by one, after the database refused the outcomes together: one that it refuses must not hold up the
 * others. That one becomes a failure that says why.
 */
export async function releaseEach(
  client: Client,
  workerId: string,
  outcomes: Outcome[],
  call: CallOptions,
  log: Log,
): Promise<string[]> {
  const states: string[] = [];
  for (const outcome of outcomes) {
    const asFailure = (why: unknown): Outcome =>
      failed(outcome, new Error(`the outcome was refused: ${messageOf(why)}`));
    states.push(
      await releaseOne(outcome).catch((why: unknown) => {
        if (!isRefusal(why)) {
          throw why;
        }
        log(`refused ${outcome.work_type} ${outcome.item_id}: ${messageOf(why)}`, {
          ...operations.release,
          ...itemFields(outcome),
          ...errorType(why),
        });
        if (outcome.outcome === "released") {
          return "refused"; // The item did not fail. Retiring the worker hands it back, or else the end of its lease does.
        }
        return releaseOne(asFailure(why)).catch((again: unknown) => {
          if (!isRefusal(again)) {
            throw again;
          }
          return "lost";
        });
      }),
    );
  }
  return states;

  async function releaseOne(outcome: Outcome): Promise<string> {
    const [state] = await releaseItems(client, workerId, [outcome], call);
    return state ?? "lost";
  }
}

/** The database will not take these outcomes, however often they come. */
export function isRefusal(error: unknown): boolean {
  return error instanceof RequestError && error.status > 0 && !error.isRetryable && !isHopeless(error);
}
