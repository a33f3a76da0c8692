import { firstStartable, type Held, inState } from "./held.ts";
import { abortError } from "./host.ts";
import { deadline, margin } from "./lease.ts";
import { itemFields, operations } from "./log.ts";
import type { Loop } from "./loop-state.ts";
import { failed, type Outcome, released } from "./outcome.ts";
import { meanWith } from "./pace.ts";
import { abandonJob } from "./parked.ts";
import { leave, lose } from "./worker.ts";

/** Runs the handler of the first claim that may start; none may where the process stalled since the loop looked. */
export async function start(loop: Loop): Promise<void> {
  const { state, holding, clock, metrics, wakeUps } = loop;
  const startedAt = clock.now();
  const held = firstStartable(holding, startedAt);
  if (held === undefined) {
    return;
  }
  held.state = "running";
  state.running++;
  wakeUps.deadline.wakeBy(deadline(held.lease));
  const limit = new AbortController();
  state.limits.add(limit);
  void limitTry(loop, held, limit.signal);
  const endHandler = metrics.startHandler(held.claim.work_type);
  const outcome = await loop.run(held);
  endHandler();
  limit.abort("ended");
  state.limits.delete(limit);
  state.running--;
  wakeUps.loop.wake();
  if (held.state === "running" && deadline(held.lease) <= clock.now()) {
    lose(loop, held, "it ended after its lease");
  }
  if (held.state !== "running" || !holding.has(held.claim.fence)) {
    if (outcome.outcome === "parked") {
      abandonJob(loop, held.claim, outcome.external_id as string);
    }
    return;
  }
  if (outcome.outcome === "succeeded" || outcome.outcome === "parked") {
    state.pace = { ...state.pace, handlerMs: meanWith(state.pace.handlerMs, clock.now() - startedAt) };
  }
  logOutcome(loop, held, outcome);
  finish(loop, held, outcome);
}

/**
 * Ends a try that outlives the limit of its work type: its signal aborts, then its claim fails. A handler that still
 * runs after the grace time holds its place for ever, so the worker hands back the rest and work() throws.
 */
async function limitTry(loop: Loop, held: Held, isOver: AbortSignal): Promise<void> {
  const { clock, settings } = loop;
  const { item_id, work_type, try_seconds } = held.claim;
  if (!try_seconds) {
    return;
  }
  const why = `the handler did not end within ${try_seconds} s (try_seconds)`;
  await clock.sleep(try_seconds * 1000, isOver);
  if (isOver.aborted) {
    return;
  }
  held.abort.abort(abortError(why));
  await clock.sleep(margin(held.lease.ttlMs), isOver);
  if (isOver.aborted) {
    return;
  }
  if (held.state === "running" && loop.holding.has(held.claim.fence)) {
    const outcome = failed(held.claim, new Error(why));
    logOutcome(loop, held, outcome);
    finish(loop, held, outcome);
  }
  await clock.sleep(settings.graceMs, isOver);
  if (!isOver.aborted) {
    const said = `the handler of ${work_type} ${item_id} takes no notice of its signal, and only the end of the process stops it`;
    leave(loop, new Error(said), said, settings.graceMs);
  }
}

function logOutcome({ log }: Loop, { claim }: Held, { outcome, error, note, external_id }: Outcome): void {
  const why = error ?? note ?? external_id;
  if (why !== undefined) {
    log(`${outcome} ${claim.work_type} ${claim.item_id}: ${why.split("\n", 1)[0]?.slice(0, 200)}`, {
      ...operations.handle,
      ...itemFields(claim),
      ...(outcome === "failed" && { "error.type": "handler_failed" }),
    });
  }
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
