import { candidatesPath, windowPath } from "./candidate-paths.ts";
import { type Claim, quoted, type Source, type SourceOptions, type Won } from "./claim.ts";
import type { CallOptions, Client, Json } from "./client.ts";
import type { Clock } from "./clock.ts";
import { randomUuid } from "./host.ts";
import { releaseItems } from "./release.ts";

/** An item that nobody seems to hold: a page may be old, only claim_items() decides. */
interface Candidate {
  id: string;
  seq: number;
  pool: string;
  class_id: number;
  source_key: string | null;
  payload: Json;
}

/** How far a work type's walk through the pool has come. */
interface Walk {
  readonly workType: string;
  /** The seq of the last item that was looked at; 0 is the beginning. */
  after: number;
  /** The seq at which the present window ends; infinite in the last one, null before it is known. */
  until: number | null;
  /** Before this there is no new beginning: the last one found nothing. */
  wrapAt: number;
  /** Nothing was won since the walk began anew. */
  isVain: boolean;
  page: Candidate[];
  readAt: number;
  /** Classes that are not for this worker, and until when they are passed over. */
  readonly aside: Map<number, number>;
}

/** A page kept longer than this shows items that others have had, and payloads that may have changed. */
const pageLifeMs = 10_000;

/** A walk that found nothing is begun anew only after so many times as long as it took, except for the last look. */
const restFactor = 9;

/** A class that is not for this worker is tried again after this time: what the worker has may have been changed elsewhere. */
const asideMs = 60_000;

/** A page in an order of this worker's own, so that workers on the same page claim different items of it. */
export function shuffled<T>(page: readonly T[], random: () => number): T[] {
  const order = [...page];
  for (let n = order.length - 1; n > 0; n--) {
    const other = Math.floor(random() * (n + 1));
    [order[n], order[other]] = [order[other] as T, order[n] as T];
  }
  return order;
}

/** The worker looks for items that nobody has, then claims them by id. The work type need not be declared. */
export function createCandidates(
  client: Client,
  clock: Clock,
  random: () => number,
  pool: string,
  options: SourceOptions,
): Source {
  const walks = options.workTypes.map(
    (workType): Walk => ({
      workType,
      after: 0,
      until: null,
      wrapAt: 0,
      isVain: false,
      page: [],
      readAt: 0,
      aside: new Map(),
    }),
  );
  let turn = 0;

  async function claim(itemIds: string[], walk: Walk, call: CallOptions): Promise<Claim[]> {
    return client.rpc(
      "claim_items",
      {
        item_ids: itemIds,
        work_type: walk.workType,
        worker_id: options.workerId,
        ttl_seconds: options.leaseSeconds,
        request_id: randomUuid(),
      },
      call,
    );
  }

  function asideNow(walk: Walk): number[] {
    for (const [classId, until] of walk.aside) {
      if (until <= clock.now()) {
        walk.aside.delete(classId);
      }
    }
    return [...walk.aside.keys()];
  }

  /**
   * Puts aside the classes that are not for this worker, of those of which it won nothing. True for some. The database
   * says which they are: what others won, or are changing, is missing from the answer to a claim as well.
   */
  async function putAside(walk: Walk, picked: Candidate[], claims: Claim[], call: CallOptions): Promise<boolean> {
    const won = new Set(claims.map((each) => each.item_id));
    const wonClasses = new Set(picked.filter((item) => won.has(item.id)).map((item) => item.class_id));
    const doubtful = new Set(picked.map((item) => item.class_id).filter((classId) => !wonClasses.has(classId)));
    if (doubtful.size === 0) {
      return false;
    }
    const refused: number[] = await client.rpc(
      "refused_classes",
      { worker_id: options.workerId, class_ids: [...doubtful] },
      call,
    );
    for (const classId of refused) {
      walk.aside.set(classId, clock.now() + asideMs);
    }
    walk.page = walk.page.filter((item) => !walk.aside.has(item.class_id));
    return refused.length > 0;
  }

  /** The next page, window by window to the end of the pool. */
  async function read(walk: Walk, limit: number, call: CallOptions): Promise<Candidate[]> {
    for (;;) {
      if (walk.until === null) {
        const [last]: { seq: number }[] = await client.get(windowPath(pool, walk.after), call);
        walk.until = last?.seq ?? Number.POSITIVE_INFINITY;
      }
      const { workType, after, until } = walk;
      const aside = asideNow(walk);
      const page: Candidate[] = await client.get(candidatesPath(pool, workType, after, until, limit, aside), call);
      const fitting = page.filter((item) => !aside.includes(item.class_id));
      if (page.length === limit || !Number.isFinite(until)) {
        walk.after = page.at(-1)?.seq ?? after;
      } else {
        walk.after = until;
        walk.until = null;
      }
      if (fitting.length > 0 || (page.length < limit && !Number.isFinite(until))) {
        return fitting;
      }
    }
  }

  /** True where the walk began anew. */
  async function turnPage(walk: Walk, wanted: number, mayBegin: boolean, call: CallOptions): Promise<boolean> {
    // Four times what is wanted leaves room to spread; PostgREST cuts an answer at 1,000 rows.
    const limit = Math.min(1000, Math.max(50, wanted * 4));
    let page = walk.after > 0 ? await read(walk, limit, call) : [];
    const isAnew = page.length === 0 && mayBegin;
    if (isAnew) {
      // The walk begins anew. What dead workers held is taken back first: it may be all that is left.
      const begunAt = clock.now();
      walk.after = 0;
      walk.until = null;
      await claim([], walk, call);
      page = await read(walk, limit, call);
      walk.isVain = page.length > 0;
      if (page.length === 0) {
        walk.wrapAt = clock.now() + restFactor * (clock.now() - begunAt);
      }
    }
    walk.page = shuffled(page, random);
    walk.readAt = clock.now();
    return isAnew;
  }

  /**
   * Adds to what was won until there is half of what is wanted, or the pool has no more; the next call asks for the rest.
   * True where it came to no end, for what the database refused. The last look goes on to the end of the pool.
   */
  async function claimAlong(
    walk: Walk,
    wanted: number,
    won: Won[],
    call: CallOptions,
    isLast: boolean,
  ): Promise<boolean> {
    let isMore = false;
    let isAnew = false;
    if (clock.now() - walk.readAt > pageLifeMs) {
      walk.page = [];
    }
    // Ten tries at most: a page of which others win everything is no reason to hurry.
    for (let tries = 0; (isLast || tries < 10) && won.length < wanted / 2; tries++) {
      if (walk.page.length === 0) {
        // Once a look: what was not won the first time, as what is left to others for a while, is still there. And not
        // right after a walk through all that was in vain.
        const mayBegin: boolean = !isAnew && (isLast || (!walk.isVain && clock.now() >= walk.wrapAt));
        isAnew = (await turnPage(walk, wanted - won.length, mayBegin, call)) || isAnew;
      }
      if (walk.page.length === 0) {
        walk.isVain = false;
        return false;
      }
      const picked = new Map(walk.page.splice(0, wanted - won.length).map((item) => [item.id, item]));
      const sentAt = clock.now();
      const claims = await claim([...picked.keys()], walk, call);
      for (const each of claims) {
        const { pool, source_key, payload } = picked.get(each.item_id) as Candidate;
        won.push({ claim: { ...each, pool, source_key, payload }, sentAt });
        walk.isVain = false;
      }
      const isAside = claims.length < picked.size && (await putAside(walk, [...picked.values()], claims, call));
      isMore ||= isAside;
      if (!isAside && !isLast && claims.length < picked.size / 2) {
        walk.page = []; // Others are on this page: go on to the next.
      }
    }
    return isMore;
  }

  return {
    async exchange(outcomes, room, call, isLast) {
      const states = outcomes.length > 0 ? await releaseItems(client, options.workerId, outcomes, call) : [];
      const won: Won[] = [];
      const first = turn++;
      let isMore = false;
      try {
        for (let n = 0; n < walks.length && won.length < room / 2; n++) {
          isMore = (await claimAlong(walks[(first + n) % walks.length] as Walk, room, won, call, isLast)) || isMore;
        }
      } catch (error) {
        // What was reached must not be forgotten; an error that stays comes again with the next look.
        if (states.length === 0 && won.length === 0) {
          throw error;
        }
      }
      return { states, won, isMore };
    },
    onProfile() {
      for (const walk of walks) {
        walk.aside.clear();
      }
    },
    async whyNothing(call) {
      const pools: Json[] = await client.get(`work_pools?select=name&name=in.(${quoted(pool)})`, call);
      return { missing: pools.length > 0 ? [] : [`there is no pool ${pool} (attach_pool)`], waiting: [] };
    },
  };
}
