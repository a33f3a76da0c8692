import type { CallOptions, Client, Json } from "./client.ts";
import { randomUuid } from "./host.ts";

/** What a worker has and takes; without all of it, a worker gets what asks for nothing. */
export interface Profile {
  /** What it has: items that require more are not for it. WORK_CAPABILITIES, as JSON. */
  capabilities?: { readonly [name: string]: Json };
  /** A condition on the labels of items, in the language of their requires: others are not for it. WORK_ACCEPTS, as JSON. */
  accepts?: { readonly [name: string]: Json };
  /** Capabilities too dear for items that do without: those are left to others. WORK_EXCLUSIVE, with commas between. */
  exclusive?: readonly string[];
  /** How long they are left to others: WORK_YIELD_SECONDS, else for good. */
  yieldSeconds?: number;
}

/** What the database knows of this worker. */
export interface Registration {
  register(call: CallOptions): Promise<void>;
  /** Tells of changes, one after the other: the last one said is the one that counts. */
  update(changes: Profile, call: CallOptions): Promise<void>;
  /** No change is on its way. */
  settled(): Promise<void>;
}

export function createRegistration(
  client: Client,
  workerId: string,
  workTypes: readonly string[],
  first: Profile,
): Registration {
  const instance = randomUuid();
  let profile = first;
  let last: Promise<void> = Promise.resolve();

  async function tell(wanted: Profile, call: CallOptions): Promise<void> {
    await client.rpc(
      "register_worker",
      {
        worker_id: workerId,
        instance,
        work_types: workTypes,
        capabilities: wanted.capabilities,
        accepts: wanted.accepts,
        exclusive: wanted.exclusive,
        // It goes with exclusive only, which an update may have emptied.
        yield_seconds: wanted.exclusive?.length === 0 ? undefined : wanted.yieldSeconds,
      },
      call,
    );
    profile = wanted;
  }

  return {
    register: (call) => tell(first, call),
    update(changes, call) {
      const told = last.then(() => tell({ ...profile, ...changes }, call));
      last = told.catch(() => {});
      return told;
    },
    settled: () => last,
  };
}
