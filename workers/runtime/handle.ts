import { firstStartable, type Held, inState } from "./held.ts";
import { abortError } from "./host.ts";
import { deadline } from "./lease.ts";
import { itemFields, operations } from "./log.ts";
import type { Loop } from "./loop-state.ts";
import { type Outcome, released } from "./outcome.ts";
import { meanWith } from "./pace.ts";
import { lose } from "./worker.ts";

/** Runs the handler of the first claim that may start. */
export async function start(loop: Loop): Promise<void> {
  const { state, holding, clock, log, metrics, wakeUps } = loop;
  const held = firstStartable(holding, clock.now()) as Held;
  const startedAt = clock.now();
  held.state = "running";
  state.running++;
  wakeUps.deadline.wakeBy(deadline(held.lease));
  const endHandler = metrics.startHandler(held.claim.work_type);
  const outcome = await loop.run(held);
  endHandler();
  state.running--;
  wakeUps.loop.wake();
  if (held.state !== "running" || !holding.has(held.claim.fence)) {
    return;
  }
  if (deadline(held.lease) <= clock.now()) {
    lose(loop, held, "it ended after its lease");
    return;
  }
  if (outcome.outcome === "succeeded" || outcome.outcome === "parked") {
    state.pace = { ...state.pace, handlerMs: meanWith(state.pace.handlerMs, clock.now() - startedAt) };
  }
  const why = outcome.error ?? outcome.note ?? outcome.external_id;
  if (why !== undefined) {
    log(`${outcome.outcome} ${outcome.work_type} ${outcome.item_id}: ${why.split("\n", 1)[0]?.slice(0, 200)}`, {
      ...operations.handle,
      ...itemFields(held.claim),
      ...(outcome.outcome === "failed" && { "error.type": "handler_failed" }),
    });
  }
  finish(loop, held, outcome);
}

/** A handler is free, so the next look for work is due. */
function finish({ state, clock, wakeUps }: Loop, held: Held, outcome: Outcome): void {
  held.state = "finished";
  // The heartbeat has not taken it: it goes with the outcome. A success needs no next try.
  held.outcome = held.saved && outcome.outcome !== "succeeded" ? { ...outcome, state: held.saved.state } : outcome;
  state.lookAt = Math.min(state.lookAt, clock.now());
  wakeUps.loop.wake();
}

/** Ends these claims without a try counted: they are ready for other workers at once. */
export function handBack(loop: Loop, state: "queued" | "running"): void {
  for (const held of inState(loop.holding, state)) {
    held.abort.abort(abortError("the claim is handed back"));
    finish(loop, held, released(held.claim));
  }
}
