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

/** An outcome that the database took, and the state of its claim after it. */
export interface Released {
  readonly outcome: Outcome;
  readonly state: string;
}

export function released(outcomes: readonly Outcome[], states: readonly string[]): Released[] {
  return outcomes.map((outcome, n) => ({ outcome, state: states[n] ?? "lost" }));
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
): Promise<Released[]> {
  const all: Released[] = [];
  for (const outcome of outcomes) {
    all.push(
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
          return { outcome, state: "refused" }; // The item did not fail. Retiring the worker hands it back, or else the end of its lease does.
        }
        const failure = failed(outcome, new Error(refusalOf(why)));
        return releaseOne(failure).catch((again: unknown) => {
          if (!isRefusal(again)) {
            throw again;
          }
          return { outcome, state: "lost" };
        });
      }),
    );
  }
  return all;

  async function releaseOne(outcome: Outcome): Promise<Released> {
    const [state] = await releaseItems(client, workerId, [outcome], call);
    return { outcome, state: state ?? "lost" };
  }
}

/** Why the database refuses an outcome. A function of the work type that refuses a result says it in its own words. */
export function refusalOf(why: unknown): string {
  const isApplied = why instanceof RequestError && why.code === "PT422";
  return isApplied ? messageOf(why).replace(/^\w+: /, "") : `the outcome was refused: ${messageOf(why)}`;
}

/** The database will not take these outcomes, however often they come. */
export function isRefusal(error: unknown): boolean {
  return error instanceof RequestError && error.status > 0 && !error.isRetryable && !isHopeless(error);
}
