import { candidatesPath, windowPath } from "./candidate-paths.ts";
import { type Claim, quoted, type Source, type SourceOptions, type Won } from "./claim.ts";
import type { CallOptions, Client, Json } from "./client.ts";
import type { Clock } from "./clock.ts";
import { randomUuid } from "./host.ts";

/** An item that seems to be free. A page may be old, so claim_items() decides. */
interface Candidate {
  id: string;
  seq: number;
  pool: string;
  class_id: number;
}

/** The position of a work type's scan through the pool. */
interface Scan {
  readonly workType: string;
  /** The seq of the last item that was read; 0 is the beginning. */
  after: number;
  /** The seq at which the present window ends; infinite in the last window, null before it is known. */
  until: number | null;
  /** The scan does not begin anew before this: the last one found nothing. */
  restartAt: number;
  /** Nothing was won since the scan began anew. */
  hasWonNothing: boolean;
  page: Candidate[];
  readAt: number;
  /** Classes that this worker does not match, and until when the scan passes over them. */
  readonly refused: Map<number, number>;
}

/** An older page shows items that others have claimed. */
const pageLifeMs = 10_000;

/** After a scan that found nothing, the next one waits for so many times its duration, except for the last look. */
const restFactor = 9;

/** A refused class is tried again after this time: the worker's profile may have been changed elsewhere. */
const refusedMs = 60_000;

/** A page in random order, so that workers on the same page claim different items of it. */
export function shuffled<T>(page: readonly T[], random: () => number): T[] {
  const order = [...page];
  for (let n = order.length - 1; n > 0; n--) {
    const other = Math.floor(random() * (n + 1));
    [order[n], order[other]] = [order[other] as T, order[n] as T];
  }
  return order;
}

/** The worker looks for free items, then claims them by id. The work type need not be declared. */
export function createCandidates(
  client: Client,
  clock: Clock,
  random: () => number,
  pool: string,
  options: SourceOptions,
): Source {
  const scans = options.workTypes.map(
    (workType): Scan => ({
      workType,
      after: 0,
      until: null,
      restartAt: 0,
      hasWonNothing: false,
      page: [],
      readAt: 0,
      refused: new Map(),
    }),
  );
  let turn = 0;

  async function claim(itemIds: string[], scan: Scan, call: CallOptions): Promise<Claim[]> {
    return client.rpc(
      "claim_items",
      {
        item_ids: itemIds,
        work_type: scan.workType,
        worker_id: options.workerId,
        ttl_seconds: options.leaseSeconds,
        request_id: randomUuid(),
      },
      call,
    );
  }

  function refusedNow(scan: Scan): number[] {
    for (const [classId, until] of scan.refused) {
      if (until <= clock.now()) {
        scan.refused.delete(classId);
      }
    }
    return [...scan.refused.keys()];
  }

  /**
   * Passes over the classes that this worker does not match. True where there are some. Only the database knows them: an
   * item that others won, or are changing, is missing from the answer to a claim as well.
   */
  async function passOver(scan: Scan, picked: Candidate[], claims: Claim[], call: CallOptions): Promise<boolean> {
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
      scan.refused.set(classId, clock.now() + refusedMs);
    }
    scan.page = scan.page.filter((item) => !scan.refused.has(item.class_id));
    return refused.length > 0;
  }

  /** The next page, window by window to the end of the pool. */
  async function read(scan: Scan, limit: number, call: CallOptions): Promise<Candidate[]> {
    for (;;) {
      if (scan.until === null) {
        const [last]: { seq: number }[] = await client.get(windowPath(pool, scan.after), call);
        scan.until = last?.seq ?? Number.POSITIVE_INFINITY;
      }
      const { workType, after, until } = scan;
      const refused = refusedNow(scan);
      const page: Candidate[] = await client.get(candidatesPath(pool, workType, after, until, limit, refused), call);
      const fitting = page.filter((item) => !refused.includes(item.class_id));
      if (page.length === limit || !Number.isFinite(until)) {
        scan.after = page.at(-1)?.seq ?? after;
      } else {
        scan.after = until;
        scan.until = null;
      }
      if (fitting.length > 0 || (page.length < limit && !Number.isFinite(until))) {
        return fitting;
      }
    }
  }

  /** Reads the next page. True where the scan began anew. */
  async function nextPage(scan: Scan, wanted: number, mayBegin: boolean, call: CallOptions): Promise<boolean> {
    // Four times the wanted number lets workers spread; PostgREST cuts an answer at 1,000 rows.
    const limit = Math.min(1000, Math.max(50, wanted * 4));
    let page = scan.after > 0 ? await read(scan, limit, call) : [];
    const isAnew = page.length === 0 && mayBegin;
    if (isAnew) {
      // An empty claim takes expired leases back first: they may be all that is left.
      const begunAt = clock.now();
      scan.after = 0;
      scan.until = null;
      await claim([], scan, call);
      page = await read(scan, limit, call);
      scan.hasWonNothing = page.length > 0;
      if (page.length === 0) {
        scan.restartAt = clock.now() + restFactor * (clock.now() - begunAt);
      }
    }
    scan.page = shuffled(page, random);
    scan.readAt = clock.now();
    return isAnew;
  }

  /**
   * Claims until it has won half of the wanted number, or the pool has no more. True where it stopped early because the
   * database refused items. The last look goes on to the end of the pool.
   */
  async function claimAlong(
    scan: Scan,
    wanted: number,
    won: Won[],
    call: CallOptions,
    isLast: boolean,
  ): Promise<boolean> {
    let isMore = false;
    let isAnew = false;
    if (clock.now() - scan.readAt > pageLifeMs) {
      scan.page = [];
    }
    // Ten attempts at most: where others win every item, there is no hurry.
    for (let attempts = 0; (isLast || attempts < 10) && won.length < wanted / 2; attempts++) {
      if (scan.page.length === 0) {
        // Once a look, since items that were not won are still there. Not right after a scan that won nothing.
        const mayBegin: boolean = !isAnew && (isLast || (!scan.hasWonNothing && clock.now() >= scan.restartAt));
        isAnew = (await nextPage(scan, wanted - won.length, mayBegin, call)) || isAnew;
      }
      if (scan.page.length === 0) {
        scan.hasWonNothing = false;
        return false;
      }
      const picked = new Map(scan.page.splice(0, wanted - won.length).map((item) => [item.id, item]));
      const sentAt = clock.now();
      const claims = await claim([...picked.keys()], scan, call);
      for (const each of claims) {
        won.push({ claim: each, sentAt });
        scan.hasWonNothing = false;
      }
      const hasPassedOver = claims.length < picked.size && (await passOver(scan, [...picked.values()], claims, call));
      isMore ||= hasPassedOver;
      if (!hasPassedOver && !isLast && claims.length < picked.size / 2) {
        scan.page = []; // Other workers are on this page: go on to the next.
      }
    }
    return isMore;
  }

  return {
    async claim(room, call, isLast) {
      const won: Won[] = [];
      const first = turn++;
      let isMore = false;
      try {
        for (let n = 0; n < scans.length && won.length < room / 2; n++) {
          isMore = (await claimAlong(scans[(first + n) % scans.length] as Scan, room, won, call, isLast)) || isMore;
        }
      } catch (error) {
        // Claims that were won must not be lost. A lasting error comes again with the next look.
        if (won.length === 0) {
          throw error;
        }
      }
      return { won, isMore };
    },
    onProfile() {
      for (const scan of scans) {
        scan.refused.clear();
      }
    },
    async diagnose(call) {
      const pools: Json[] = await client.get(`work_pools?select=name&name=in.(${quoted(pool)})`, call);
      return { missing: pools.length > 0 ? [] : [`there is no pool ${pool} (attach_pool)`], waiting: [] };
    },
  };
}
