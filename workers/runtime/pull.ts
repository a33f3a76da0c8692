import type { Claim, Claimed, Diagnosis, Source, SourceOptions } from "./claim.ts";
import type { CallOptions, Client, Json } from "./client.ts";
import type { Clock } from "./clock.ts";
import { describeWorkTypes } from "./describe.ts";
import { randomUuid } from "./host.ts";
import { errorType, operations } from "./log.ts";
import { messageOf } from "./outcome.ts";

/** The database picks what is next in order. */
export function createPull(client: Client, clock: Clock, options: SourceOptions): Source {
  const { workTypes, workerId } = options;

  /** Warm affinities only order what comes: an error there must not cost the outcomes that go in the same call. */
  async function warmNow(): Promise<readonly string[]> {
    try {
      return await options.warm();
    } catch (error) {
      options.log(`warm failed, and nothing is taken to be warm: ${messageOf(error)}`, {
        ...operations.claim,
        ...errorType(error),
      });
      return [];
    }
  }

  async function request(room: number): Promise<{ [name: string]: Json }> {
    const warm = await warmNow();
    return {
      work_types: workTypes,
      worker_id: workerId,
      max_items: room,
      ttl_seconds: options.leaseSeconds,
      ...(warm.length > 0 && { warm }),
      request_id: randomUuid(),
    };
  }

  function answered(claims: Claim[], sentAt: number): Claimed {
    return { won: claims.map((claim) => ({ claim, sentAt })), isMore: false };
  }

  return {
    async claim(room, call) {
      const wanted = await request(room);
      const sentAt = clock.now();
      return answered(await client.rpc("claim_next", wanted, call), sentAt);
    },
    async finishAndClaim(outcomes, room, call) {
      const wanted = await request(room);
      const sentAt = clock.now();
      const { released, claimed } = await client.rpc("finish_and_claim", { ...wanted, outcomes }, call);
      return { states: released, ...answered(claimed, sentAt) };
    },
    onProfile() {},
    diagnose: (call) => diagnose(client, workTypes, call),
  };
}

async function diagnose(client: Client, workTypes: string[], call: CallOptions): Promise<Diagnosis> {
  const asked = await describeWorkTypes(client, workTypes, call);
  const waiting = asked
    .filter((type) => type.is_declared)
    .flatMap(({ name, pool, is_paused }) =>
      is_paused ? [`${name} is paused`] : pool === null ? [`${name} has no pool`] : [],
    );
  const missing = asked
    .filter((type) => !type.is_declared)
    .map(({ name }) => `${name} is not declared (define_work_type)`);
  return { missing, waiting };
}
