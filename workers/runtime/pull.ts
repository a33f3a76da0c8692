import { type Claim, quoted, type Source, type SourceOptions, type WhyNothing, type Won } from "./claim.ts";
import type { CallOptions, Client } from "./client.ts";
import type { Clock } from "./clock.ts";
import { randomUuid } from "./host.ts";
import { messageOf } from "./outcome.ts";
import { releaseItems } from "./release.ts";

/** The database picks what is next in line, and takes the outcomes of what is done in the same round trip. */
export function createPull(client: Client, clock: Clock, options: SourceOptions): Source {
  const { workTypes, workerId } = options;

  /** Being warm only orders what comes: what fails there must not cost the outcomes that go in the same call. */
  async function warmNow(): Promise<readonly string[]> {
    try {
      return await options.warm();
    } catch (error) {
      options.log(`warm failed, and nothing is taken to be warm: ${messageOf(error)}`);
      return [];
    }
  }

  return {
    async exchange(outcomes, room, call) {
      if (room === 0) {
        return { states: await releaseItems(client, workerId, outcomes, call), won: [] };
      }
      const warm = await warmNow();
      const wanted = {
        work_types: workTypes,
        worker_id: workerId,
        max_items: room,
        ttl_seconds: options.leaseSeconds,
        ...(warm.length > 0 && { warm }),
        request_id: randomUuid(),
      };
      const sentAt = clock.now();
      const won = (claims: Claim[]): Won[] => claims.map((claim) => ({ claim, sentAt }));
      if (outcomes.length === 0) {
        return { states: [], won: won(await client.rpc("claim_next", wanted, call)) };
      }
      const { released, claimed } = await client.rpc("finish_and_claim", { ...wanted, outcomes }, call);
      return { states: released, won: won(claimed) };
    },
    onProfile() {},
    whyNothing: (call) => whyNothing(client, workTypes, call),
  };
}

async function whyNothing(client: Client, workTypes: string[], call: CallOptions): Promise<WhyNothing> {
  const declared: { name: string; pool: string | null; paused: boolean }[] = await client.get(
    `work_types?select=name,pool,paused&name=in.(${workTypes.map(quoted).join(",")})`,
    call,
  );
  const waiting = declared.flatMap(({ name, pool, paused }) =>
    paused ? [`${name} is paused`] : pool === null ? [`${name} has no pool`] : [],
  );
  const missing = workTypes
    .filter((name) => !declared.some((row) => row.name === name))
    .map((name) => `${name} is not declared (define_work_type)`);
  return { missing, waiting };
}
