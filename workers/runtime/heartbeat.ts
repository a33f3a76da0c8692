import { fullJitter } from "./backoff.ts";
import type { Client, Json } from "./client.ts";
import type { Bell, Clock } from "./clock.ts";
import { beatDue, type Held, type Holding, nextBeat, nextDeadline, overdue } from "./held.ts";
import { heartbeatTimeout, leaseFrom } from "./lease.ts";

export interface Keeper {
  client: Client;
  clock: Clock;
  random: () => number;
  holding: Holding;
  workerId: string;
  leaseSeconds: number | null;
  /** The claim is another's now, or a person's. */
  onLost(held: Held, why: string): void;
  /** Leases were renewed. */
  onKept(): void;
  /** A heartbeat failed; false where no other one will succeed. */
  isPassing(error: unknown): boolean;
  ended: AbortSignal;
}

/** Renews all leases in one call whenever the first of them is due; a heartbeat that fails is tried again soon. */
export async function keepLeases(keeper: Keeper, bell: Bell): Promise<void> {
  const { clock, holding, random, ended } = keeper;
  let failures = 0;
  while (!ended.aborted) {
    const wait = nextBeat(holding) - clock.now();
    if (wait > 0) {
      await bell.wait(wait);
      continue;
    }
    try {
      await beat(keeper);
      failures = 0;
    } catch (error) {
      if (ended.aborted) {
        return;
      }
      if (!keeper.isPassing(error)) {
        return;
      }
      await clock.sleep(fullJitter(failures++, random, 200, 2000), ended);
    }
  }
}

async function beat({
  client,
  clock,
  random,
  holding,
  workerId,
  leaseSeconds,
  ended,
  ...keeper
}: Keeper): Promise<void> {
  const sentAt = clock.now();
  // All that is held goes along, due or not, but those whose outcome is on its way, and those that are known to be lost.
  const beating = [...holding.values()]
    .filter((held) => (held.deliveredAt === null ? Number.isFinite(beatDue(held)) : beatDue(held) <= sentAt))
    .sort((one, other) => beatDue(one) - beatDue(other))
    .slice(0, 1000);
  const shortest = Math.min(...beating.map((held) => held.lease.ttlMs));
  const answers: Json[] = await client.rpc(
    "extend_claims",
    {
      worker_id: workerId,
      held: beating.map(({ claim, progress }) => ({
        item_id: claim.item_id,
        work_type: claim.work_type,
        fence: claim.fence,
        ...(progress === null ? {} : { progress }),
      })),
      ttl_seconds: leaseSeconds,
    },
    { retryForMs: 0, timeoutMs: heartbeatTimeout(shortest), signal: ended },
  );
  answers.forEach((answer, n) => {
    const held = beating[n] as Held;
    if (answer.state === "held") {
      held.lease = leaseFrom(sentAt, answer.ttl_seconds ?? held.lease.ttlMs / 1000, random);
    } else if (held.state !== "finished") {
      keeper.onLost(held, answer.state === "cancelled" ? "it was cancelled" : "its lease was lost");
    } else {
      // The answer to its outcome will say so. Another heartbeat would only be noted as one more that came too late.
      held.lease = { ...held.lease, beatAt: Number.POSITIVE_INFINITY };
    }
  });
  keeper.onKept();
}

/** Stops each handler at the end of its lease, as this worker reckons it, whether or not the database can be reached. */
export async function watchDeadlines(keeper: Keeper, bell: Bell): Promise<void> {
  const { clock, holding, ended } = keeper;
  while (!ended.aborted) {
    const wait = nextDeadline(holding) - clock.now();
    if (wait > 0) {
      await bell.wait(wait);
      continue;
    }
    for (const held of overdue(holding, clock.now())) {
      keeper.onLost(held, "its lease could not be renewed in time");
    }
  }
}
