import { fullJitter } from "./backoff.ts";
import type { Json } from "./client.ts";
import { isFatal } from "./errors.ts";
import { beatDue, type Held, nextBeat, nextDeadline, overdue } from "./held.ts";
import { heartbeatTimeout, leaseFrom } from "./lease.ts";
import { isRefusal } from "./release.ts";
import { dropSaved } from "./save.ts";
import { lose, type Worker, wakeAll } from "./worker.ts";

/** Renews all leases in one call whenever the first of them is due. A heartbeat that fails is tried again soon. */
export async function keepLeases(worker: Worker): Promise<void> {
  const { clock, holding, random, ended, broken, outage, wakeUps } = worker;
  let failures = 0;
  while (!ended.signal.aborted) {
    const wait = nextBeat(holding) - clock.now();
    if (wait > 0) {
      await wakeUps.heartbeat.sleep(wait);
      continue;
    }
    try {
      await beat(worker);
      failures = 0;
      outage.end();
      wakeAll(worker);
    } catch (error) {
      if (ended.signal.aborted) {
        return;
      }
      if (isRefusal(error) && dropSaved(worker, error)) {
        continue;
      }
      if (isFatal(error)) {
        broken.abort(error);
        wakeUps.loop.wake();
        return;
      }
      outage.begin(error);
      await clock.sleep(fullJitter(failures++, random, 200, 2000), ended.signal);
    }
  }
}

async function beat(worker: Worker): Promise<void> {
  const { client, clock, random, holding, settings, ended } = worker;
  const sentAt = clock.now();
  // All claims go along, due or not. Left out are those whose outcome is under way and those known to be lost.
  const beating = [...holding.values()]
    .filter((held) => (held.releasedAt === null ? Number.isFinite(beatDue(held)) : beatDue(held) <= sentAt))
    .sort((one, other) => beatDue(one) - beatDue(other))
    .slice(0, 1000);
  const saved = beating.map((held) => held.saved);
  const shortest = Math.min(...beating.map((held) => held.lease.ttlMs));
  const answers: Json[] = await client.rpc(
    "extend_claims",
    {
      worker_id: settings.workerId,
      held: beating.map(({ claim, progress }, n) => ({
        item_id: claim.item_id,
        work_type: claim.work_type,
        fence: claim.fence,
        ...(progress === null ? {} : { progress }),
        ...(saved[n] && { state: saved[n].state }),
      })),
      ttl_seconds: settings.leaseSeconds,
    },
    { retryForMs: 0, timeoutMs: heartbeatTimeout(shortest), signal: ended.signal },
  );
  answers.forEach((answer, n) => {
    const held = beating[n] as Held;
    if (answer.state === "held") {
      held.lease = leaseFrom(sentAt, answer.ttl_seconds ?? held.lease.ttlMs / 1000, random);
      if (held.saved?.state === saved[n]?.state) {
        held.saved?.settle();
        held.saved = null;
      } else {
        held.lease = { ...held.lease, beatAt: sentAt };
      }
    } else if (held.state !== "finished") {
      lose(worker, held, answer.state === "cancelled" ? "it was cancelled" : "its lease was lost");
    } else {
      // The answer to its outcome will say so. Another heartbeat would only be recorded as one more that came too late.
      held.lease = { ...held.lease, beatAt: Number.POSITIVE_INFINITY };
    }
  });
}

/** Stops each handler at the end of its lease by this worker's clock, whether or not the database can be reached. */
export async function watchDeadlines(worker: Worker): Promise<void> {
  const { clock, holding, ended, wakeUps } = worker;
  while (!ended.signal.aborted) {
    const wait = nextDeadline(holding) - clock.now();
    if (wait > 0) {
      await wakeUps.deadline.sleep(wait);
      continue;
    }
    for (const held of overdue(holding, clock.now())) {
      lose(worker, held, "its lease could not be renewed in time");
    }
  }
}
