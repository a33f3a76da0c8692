// How candidates are asked for: items of a pool that nobody has claimed for a work type.

/**
 * So many items are looked at by one request. Each costs the database some ten microseconds, done or not: a pool of a
 * million done ones would run into the API's time-out, and hold up the worker.
 */
const windowSize = 10_000;

/** So many classes fit into an address; what is of more of them is passed over here. */
const asideInPath = 200;

/** The item that ends the window after this one. */
export function windowPath(pool: string, after: number): string {
  return `work_items?select=seq&pool=eq.${encodeURIComponent(pool)}&seq=gt.${after}&order=seq&offset=${windowSize - 1}&limit=1`;
}

/** One page of candidates: an anti-join on the embed itself, which runs once an item, so the walk never starts over. */
export function candidatesPath(
  pool: string,
  workType: string,
  after: number,
  until: number,
  limit: number,
  aside: readonly number[] = [],
): string {
  return `work_items?${[
    "select=id,seq,pool,class_id,source_key,payload,work_taken()",
    `pool=eq.${encodeURIComponent(pool)}`,
    "or=(run_after.is.null,run_after.lte.now)",
    `work_taken.work_type=eq.${encodeURIComponent(workType)}`,
    "work_taken=is.null",
    ...(aside.length > 0 ? [`class_id=not.in.(${aside.slice(0, asideInPath)})`] : []),
    `seq=gt.${after}`,
    ...(Number.isFinite(until) ? [`seq=lte.${until}`] : []),
    "order=seq",
    `limit=${limit}`,
  ].join("&")}`;
}
