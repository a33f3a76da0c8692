import type { CallOptions, Client, Json } from "./client.ts";
import { randomUuid, SettingsError } from "./host.ts";
import type { Settings } from "./settings.ts";
import { firstName } from "./several.ts";

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

export interface Registered {
  worker_id: string;
  work_types?: string[];
}

/** This worker's row in the database. */
export interface Registration {
  /** Answers the worker's id, and the work types of its token where it has one. */
  register(call: CallOptions): Promise<Registered>;
  /** Sends changes one after the other, so that the latest counts. */
  update(changes: Profile, call: CallOptions): Promise<void>;
  /** Waits until no change is under way. */
  settled(): Promise<void>;
  /** Releases all that the worker still holds. If that fails, the leases end by themselves. */
  retire(call: CallOptions): Promise<void>;
}

export function createRegistration(
  client: Client,
  { workerId, workTypes, version, profile: first }: Pick<Settings, "workerId" | "workTypes" | "version" | "profile">,
): Registration {
  const instance = randomUuid();
  let profile = first;
  let last: Promise<void> = Promise.resolve();

  async function send(wanted: Profile, call: CallOptions): Promise<Registered> {
    const answer = await client.rpc(
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
    return answer;
  }

  return {
    register: (call) => send(first, call),
    update(changes, call) {
      const sent = last.then(async () => void (await send({ ...profile, ...changes }, call)));
      last = sent.catch(() => {});
      return sent;
    },
    settled: () => last,
    retire: (call) => client.rpc("retire_worker", { worker_id: workerId }, call),
  };
}

/** The work types of the worker. A token opens exactly its own: with other ones the handler would get what it is not for. */
export function typesOpened(wanted: readonly string[], ofToken: readonly string[] = wanted): readonly string[] {
  // The database adds the further claims of a work type's items.
  const isCopy = (name: string): boolean => firstName(name) !== name && ofToken.includes(firstName(name));
  const declared = ofToken.filter((name) => wanted.includes(name) || !isCopy(name));
  if (wanted.length > 0 && [...wanted].sort().join() !== declared.sort().join()) {
    throw new SettingsError(
      `the worker is for ${wanted.join(", ")} and its token for ${ofToken.join(", ")}; leave out the work types (WORK_TYPE), or make another token`,
    );
  }
  return ofToken;
}
