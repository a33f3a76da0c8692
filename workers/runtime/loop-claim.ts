import type { Claim } from "./claim.ts";
import type { Json } from "./client.ts";
import type { Reference } from "./new-item.ts";
import { Later, type Parked, WaitFor } from "./outcome.ts";
import type { Context } from "./run.ts";

/** A claim in a loop: what a handler gets, and how it ends. Of several calls that say how, the latest counts. */
export interface LoopClaim<Payload = Json, Item = Payload, Result = unknown> extends Claim<Payload>, Context {
  /** The element of the list that the loop goes over, where this process has it; else the payload. */
  readonly item: Item;
  /** It succeeds with this result when the loop's body ends, also by break. */
  close(result?: Result | Parked): void;
  /** This try fails when the loop's body ends. FinalError and RetryAfter say more. */
  fail(error: unknown): void;
  /** It goes back for so many seconds when the loop's body ends, and no try is counted. */
  later(seconds: number, note?: string): void;
  /** It waits for these items when the loop's body ends, and comes again with their results. No try is counted. */
  waitFor(needs: Reference[], note?: string): void;
  /**
   * Runs the body of the loop: the claim succeeds with its result. If it throws, the claim fails and so does this, which
   * ends the loop; but where the claim is lost or its time is over, the loop goes on.
   */
  run<Given extends Result | Parked>(body: () => Given | Promise<Given>): Promise<Given | undefined>;
}

/** Ends a handler: returns its answer, or throws. */
export type Ending = () => unknown;

/** A claim for the loop's body; and how the body said that it ends, if it has. */
export function createLoopClaim<Payload, Item>(
  claim: Claim<Payload>,
  context: Context,
  item: Item,
): { claim: LoopClaim<Payload, Item>; said(): Ending | null } {
  let ending: Ending | null = null;
  const ways: Pick<LoopClaim, "close" | "fail" | "later" | "waitFor" | "run"> = {
    close(result: unknown = null) {
      ending = () => result;
    },
    fail(error) {
      ending = () => {
        throw error;
      };
    },
    later(seconds, note) {
      ways.fail(new Later(seconds, note));
    },
    waitFor(needs, note) {
      ways.fail(new WaitFor(needs, note));
    },
    async run(body) {
      const before = ending;
      try {
        const result = await body();
        if (ending === before) {
          ways.close(result);
        }
        return result;
      } catch (error) {
        ways.fail(error);
        if (context.signal.aborted) {
          return undefined;
        }
        throw error;
      }
    },
  };
  return { claim: { ...claim, ...context, ...ways, item }, said: () => ending };
}
