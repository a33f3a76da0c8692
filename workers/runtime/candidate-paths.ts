// The requests for candidates: items of a pool that may be claimed for a work type.

/** The anti-join: an item that has no claim of this work type that is done, not to run yet, or held on a lease that has not ended. */
const embed = "work_claims()";
const notTaken = (workType: string): string =>
  `work_claims.work_type=eq.${encodeURIComponent(workType)}` +
  "&work_claims.or=(status.in.(succeeded,failed,cancelled,blocked)," +
  "and(status.eq.claimed,expires_at.gt.now),and(status.eq.waiting,due_at.gt.now))&work_claims=is.null";

/**
 * One request reads so many items. Each costs the database some ten microseconds, done or not: without windows a pool of
 * a million done items would run into the time-out of the API.
 */
const windowSize = 10_000;

/** So many classes fit into an address. The worker itself passes over the others. */
const refusedInPath = 200;

/** The item that ends the window after this one. */
export function windowPath(pool: string, after: number): string {
  return `work_items?select=seq&pool=eq.${encodeURIComponent(pool)}&seq=gt.${after}&order=seq&offset=${windowSize - 1}&limit=1`;
}

/** One page of candidates, in the order of the pool. */
export function candidatesPath(
  pool: string,
  workType: string,
  after: number,
  until: number,
  limit: number,
  refused: readonly number[] = [],
): string {
  return `work_items?${[
    `select=id,seq,pool,class_id,source_key,payload,${embed}`,
    `pool=eq.${encodeURIComponent(pool)}`,
    "or=(run_after.is.null,run_after.lte.now)",
    notTaken(workType),
    ...(refused.length > 0 ? [`class_id=not.in.(${refused.slice(0, refusedInPath)})`] : []),
    `seq=gt.${after}`,
    ...(Number.isFinite(until) ? [`seq=lte.${until}`] : []),
    "order=seq",
    `limit=${limit}`,
  ].join("&")}`;
}
