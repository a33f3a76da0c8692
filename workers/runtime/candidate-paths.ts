// The requests for candidates: items of a pool that may be claimed for a work type. The anti-join is on the view work_taken.

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
    "select=id,seq,class_id,work_taken()",
    `pool=eq.${encodeURIComponent(pool)}`,
    "or=(run_after.is.null,run_after.lte.now)",
    `work_taken.work_type=eq.${encodeURIComponent(workType)}`,
    "work_taken=is.null",
    ...(refused.length > 0 ? [`class_id=not.in.(${refused.slice(0, refusedInPath)})`] : []),
    `seq=gt.${after}`,
    ...(Number.isFinite(until) ? [`seq=lte.${until}`] : []),
    "order=seq",
    `limit=${limit}`,
  ].join("&")}`;
}
