import type { CallOptions, Client, Json } from "./client.ts";
import { randomUuid } from "./host.ts";
import type { Settings } from "./settings.ts";

/** A worker's capabilities and conditions. A worker without a profile gets the items that require nothing. */
export interface Profile {
  /** Items that require more go to other workers. WORK_CAPABILITIES, as JSON. */
  capabilities?: { readonly [name: string]: Json };
  /** A condition on the labels of items, in the language of their requires. WORK_ACCEPTS, as JSON. */
  accepts?: { readonly [name: string]: Json };
  /** Capabilities too dear for items that do without them: such items yield to other workers. WORK_EXCLUSIVE, with commas between. */
  exclusive?: readonly string[];
  /** How long such items yield: WORK_YIELD_SECONDS, else for good. */
  yieldSeconds?: number;
}

/** This worker's row in the database. */
export interface Registration {
  register(call: CallOptions): Promise<void>;
  /** Sends changes one after the other, so that the latest counts. */
  update(changes: Profile, call: CallOptions): Promise<void>;
  /** Waits until no change is under way. */
  settled(): Promise<void>;
  /** Releases all that the worker still holds. If that fails, the leases end by themselves. */
  retire(): Promise<void>;
}

export function createRegistration(
  client: Client,
  { workerId, workTypes, version, profile: first }: Pick<Settings, "workerId" | "workTypes" | "version" | "profile">,
): Registration {
  const instance = randomUuid();
  let profile = first;
  let last: Promise<void> = Promise.resolve();

  async function send(wanted: Profile, call: CallOptions): Promise<void> {
    await client.rpc(
      "register_worker",
      {
        worker_id: workerId,
        instance,
        work_types: workTypes,
        version: version ?? undefined,
        capabilities: wanted.capabilities,
        accepts: wanted.accepts,
        exclusive: wanted.exclusive,
        // The database takes it with exclusive only, and an update may have emptied that.
        yield_seconds: wanted.exclusive?.length === 0 ? undefined : wanted.yieldSeconds,
      },
      call,
    );
    profile = wanted;
  }

  return {
    register: (call) => send(first, call),
    update(changes, call) {
      const sent = last.then(() => send({ ...profile, ...changes }, call));
      last = sent.catch(() => {});
      return sent;
    },
    settled: () => last,
    retire: () => client.rpc("retire_worker", { worker_id: workerId }, { timeoutMs: 5000, retryForMs: 3000 }),
  };
}
