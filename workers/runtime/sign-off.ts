import { errorType, operations } from "./log.ts";
import { messageOf } from "./outcome.ts";
import type { Registration } from "./profile.ts";
import { totals } from "./tally.ts";
import { isWorkLeft } from "./until-empty.ts";
import type { Worker } from "./worker.ts";

/** Hands back what the worker still holds, and logs what it did. True where work is left. */
export async function signOff(worker: Worker, registration: Registration): Promise<boolean> {
  const { registered, stop, tally, log } = worker;
  // A supervisor is about to kill a process that could not hand back in time.
  const call = stop.tooLate.aborted ? { timeoutMs: 2000, retryForMs: 0 } : { timeoutMs: 5000, retryForMs: 3000 };
  const retire = async (): Promise<unknown> =>
    registration.retire(call).catch((error: unknown) =>
      log(`could not sign off, the leases will end by themselves: ${messageOf(error)}`, {
        ...operations.release,
        ...errorType(error),
      }),
    );
  // Both at once, since a supervisor may kill the process soon.
  const [isLeft] = await Promise.all([isWorkLeft(worker, call), retire()]);
  tally.log(true);
  const { succeeded, failed, released, parked, lost } = tally.counts;
  const elsewhere = parked > 0 ? `${parked} parked, ` : "";
  log(
    `worker ${registered.workerId} ends: ${succeeded} succeeded, ${elsewhere}${failed} failed, ${released} handed back, ${lost} lost`,
    totals(Object.entries(tally.counts)),
  );
  return isLeft;
}
