import { type Claim, claimNext, typeWithItems } from "./calls.ts";
import type { Sql } from "./database.ts";

export interface BadCall {
  what: string;
  name: string;
  args: Record<string, unknown>;
  code: string;
  says: string;
}

const tenThousand = Array.from(
  { length: 10_000 },
  (_, index) => `00000000-0000-0000-0000-${String(index).padStart(12, "0")}`,
);
const fiveMegabytes = Array.from({ length: 500_000 }, (_, index) => String(index * 7919).padStart(9, "x")).join("");

/** Every bad input that has a sentence of its own, for any way to send it. `keyless` is a table without a key. */
export async function badCalls(sql: Sql): Promise<BadCall[]> {
  const { type, ids } = await typeWithItems(sql, 2);
  const [claim] = (await claimNext(sql, type, "a")) as [Claim];
  const [item] = ids;
  const claimItems = { item_ids: ids, work_type: type, worker_id: "a" };
  const nextCall = { work_types: [type], worker_id: "a" };
  const release = { item_id: item, work_type: type, worker_id: "a", outcome: "succeeded", fence: claim.fence };
  const outcome = { item_id: item, work_type: type, fence: claim.fence, outcome: "succeeded" };
  const bad = (what: string, name: string, args: Record<string, unknown>, says: string, code = "PT400"): BadCall => ({
    ...{ what, name, args, says, code },
  });
  return [
    bad(
      "an unknown outcome",
      "release_item",
      { ...release, outcome: "done" },
      "outcome is done; succeeded, failed or released was expected",
    ),
    bad("no outcome", "release_item", { ...release, outcome: null }, "outcome is null"),
    bad("no fence", "release_item", { ...release, fence: null }, "fence is null"),
    bad("no item", "release_item", { ...release, item_id: null }, "item_id is null"),
    bad(
      "an unknown outcome in a list",
      "release_items",
      { worker_id: "a", outcomes: [outcome, { ...outcome, outcome: "done" }] },
      "outcomes[1]: outcome is done",
    ),
    bad(
      "an outcome that is no object",
      "release_items",
      { worker_id: "a", outcomes: [7] },
      "outcomes[0]: an outcome is a JSON object",
    ),
    bad(
      "an outcome without a fence",
      "release_items",
      { worker_id: "a", outcomes: [{ ...outcome, fence: null }] },
      "outcomes[0]: an outcome has item_id, work_type and fence",
    ),
    bad(
      "outcomes that are no list",
      "release_items",
      { worker_id: "a", outcomes: { a: 1 } },
      "outcomes is object; a JSON array was expected",
    ),
    bad(
      "10,000 outcomes",
      "release_items",
      { worker_id: "a", outcomes: Array(10_000).fill(outcome) },
      "outcomes is 10000 long",
    ),
    bad("a result of 5 MB", "release_item", { ...release, result: fiveMegabytes }, "result has"),
    bad(
      "a result of 5 MB in a list",
      "release_items",
      { worker_id: "a", outcomes: [{ ...outcome, result: fiveMegabytes }] },
      "outcomes[0]: result has",
    ),
    bad(
      "a wait of a year",
      "release_items",
      { worker_id: "a", outcomes: [{ ...outcome, outcome: "failed", retry_after_seconds: 31_536_000 }] },
      "outcomes[0]: retry_after_seconds is a number from 0 to 2592000",
    ),
    bad(
      "a lease of 0",
      "claim_items",
      { ...claimItems, ttl_seconds: 0 },
      "ttl_seconds is 0; a lease needs 1 to 86400 seconds",
    ),
    bad(
      "a lease of a year",
      "claim_items",
      { ...claimItems, ttl_seconds: 31_536_000 },
      "ttl_seconds is 31536000; a lease needs 1 to 86400 seconds",
    ),
    bad("a lease below 0", "claim_next", { ...nextCall, ttl_seconds: -1 }, "ttl_seconds is -1"),
    bad(
      "a lease of 0 in a heartbeat",
      "extend_claims",
      { worker_id: "a", held: [claim], ttl_seconds: 0 },
      "ttl_seconds is 0",
    ),
    bad(
      "10,000 ids",
      "claim_items",
      { ...claimItems, item_ids: tenThousand },
      "item_ids is 10000 long; one call claims at most 1000",
    ),
    bad("null for ids", "claim_items", { ...claimItems, item_ids: null }, "item_ids is null"),
    bad("no work type", "claim_items", { ...claimItems, work_type: null }, "work_type is null"),
    bad("an empty worker", "claim_items", { ...claimItems, worker_id: "" }, "worker_id is empty"),
    bad("a work type of 10 kB", "claim_items", { ...claimItems, work_type: "x".repeat(10_240) }, "work_type is xxx"),
    bad("a work type of 10 kB to declare", "define_work_type", { work_type: "x".repeat(10_240) }, "work_type is xxx"),
    bad("no work types", "claim_next", { ...nextCall, work_types: [] }, "work_types is 0 long"),
    bad("null for work types", "claim_next", { ...nextCall, work_types: null }, "work_types is null"),
    bad("no items wanted", "claim_next", { ...nextCall, max_items: 0 }, "max_items is 0"),
    bad(
      "no items wanted after an outcome",
      "finish_and_claim",
      { ...nextCall, outcomes: [outcome], max_items: 0 },
      "max_items is 0",
    ),
    bad(
      "an id that is no uuid",
      "claim_items",
      { ...claimItems, item_ids: ["seven"] },
      `invalid input syntax for type uuid: "seven"`,
      "22P02",
    ),
    bad(
      "an id in a list that is no uuid",
      "release_items",
      { worker_id: "a", outcomes: [{ ...outcome, item_id: "seven" }] },
      `invalid input syntax for type uuid: "seven"`,
      "22P02",
    ),
    bad(
      "a heartbeat without a fence",
      "extend_claims",
      { worker_id: "a", held: [{ item_id: item, work_type: type }] },
      "held[0] is",
    ),
    bad(
      "a progress beyond the end",
      "extend_claims",
      { worker_id: "a", held: [{ ...claim, progress: 1.5 }] },
      "held[0] is",
    ),
    bad("a payload of 5 MB", "enqueue_items", { items: [{}, { payload: fiveMegabytes }] }, "items[1]: payload has"),
    bad(
      "a priority out of range",
      "enqueue_items",
      { items: [{ priority: 1_000_001 }] },
      "items[0]: priority is 1000001; a whole number from -1000000 to 1000000 was expected",
    ),
    bad(
      "a priority that is no number",
      "enqueue_items",
      { items: [{ priority: "high" }] },
      "items[0]: priority is high",
    ),
    bad(
      "a pool that does not exist",
      "enqueue_items",
      { items: [{ pool: "nowhere" }] },
      "pool is nowhere; there is no such pool; define_pool() makes one, attach_pool() one of a table",
      "PT404",
    ),
    bad(
      "a pool that does not exist to declare for",
      "define_work_type",
      { work_type: "new", pool: "nowhere" },
      "pool is nowhere",
      "PT404",
    ),
    bad("a pool that does not exist to enrol", "enroll_pool", { pool: "nowhere" }, "pool is nowhere", "PT404"),
    bad("a pool that does not exist to detach", "detach_pool", { pool: "nowhere" }, "pool is nowhere", "PT404"),
    bad(
      "an item with a word we do not know",
      "enqueue_items",
      { items: [{ prioriti: 1 }] },
      "items[0]: an item has pool, payload",
    ),
    bad("a time that is none", "enqueue_items", { items: [{ run_after: "soon" }] }, "soon", "22007"),
    bad("10,000 items", "enqueue_items", { items: Array(10_000).fill({}) }, "items is 10000 long"),
    bad(
      "a table without a key",
      "attach_pool",
      { source: "keyless" },
      "source is public.keyless; a table with a primary key was expected",
    ),
    bad(
      "a table that does not exist",
      "attach_pool",
      { source: "nowhere" },
      `relation "nowhere" does not exist`,
      "42P01",
    ),
    bad("a table of ours", "attach_pool", { source: "work_items" }, "a table of your own was expected"),
    bad("a view", "attach_pool", { source: "work_held" }, "a table of your own was expected"),
    bad(
      "a column that does not exist",
      "attach_pool",
      { source: "keyed", payload_columns: ["nothing"] },
      "column is nothing; public.keyed has no such column",
    ),
    bad(
      "a priority that is a text",
      "attach_pool",
      { source: "keyed", priority_column: "body" },
      "priority_column is body; a column of numbers was expected",
    ),
    bad(
      "a time that is a text",
      "attach_pool",
      { source: "keyed", run_after_column: "body" },
      "run_after_column is body; a column of times was expected",
    ),
    bad("the name of another pool", "attach_pool", { source: "keyed", pool: "default" }, "pool is default", "PT409"),
    bad("steps of nothing", "enroll_pool", { pool: "default", max_items: 0 }, "max_items is 0"),
    bad("a backoff below 0", "define_work_type", { work_type: "new", backoff_seconds: -1 }, "backoff_seconds is -1"),
    bad("no tries", "define_work_type", { work_type: "new", max_failures: 0 }, "max_failures is 0"),
    bad(
      "a work type that does not exist to retry",
      "retry_items",
      { work_type: "nothing" },
      "work_type is nothing",
      "PT404",
    ),
    bad(
      "a work type that does not exist to cancel",
      "cancel_items",
      { work_type: "nothing" },
      "work_type is nothing",
      "PT404",
    ),
    bad("10,000 ids to cancel", "cancel_items", { work_type: type, item_ids: tenThousand }, "item_ids is 10000 long"),
    bad("no instance", "register_worker", { worker_id: "w", instance: null }, "instance is null"),
    bad(
      "capabilities that are a list",
      "register_worker",
      { worker_id: "w", instance: item, capabilities: [1] },
      "capabilities is [1]",
    ),
    bad("nothing to reap", "reap_expired_claims", { max_items: 0 }, "max_items is 0"),
    bad("no worker to leave", "release_claims_for_worker", { worker_id: "" }, "worker_id is empty"),
  ];
}

/** All we keep, as one text to compare. */
export async function contents(sql: Sql): Promise<unknown> {
  return sql`
    select (select jsonb_agg(t order by t) from work_types t) as types,
           (select jsonb_agg(p order by p) from work_pools p) as pools,
           (select jsonb_agg(i order by i.id) from work_items i) as items,
           (select jsonb_agg(c order by c.item_id, c.work_type) from work_claims c) as claims,
           (select jsonb_agg(w order by w.id) from work_workers w) as workers,
           (select jsonb_agg(e order by e.id) from work_events e) as events,
           (select count(*) from work.requests) as requests`;
}
