// Needs on work types that are not known yet. No item here waits for a workflow: where one does, no new work type is plain.
import { expect, test } from "vitest";
import { type Claim, call, release, someoneWaits, stored } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";

const { sql, as } = await openDatabase();
let pools = 0;

/** A pool with a work type, and the name of a work type that nobody knows. */
async function typeAndLater(): Promise<{ pool: string; type: string; later: string }> {
  pools += 1;
  const [pool, type, later] = [`pool ${pools}`, `type ${pools}`, `later ${pools}`];
  await sql`insert into public.work_pools (name) values (${pool})`;
  await call(sql, "define_work_type", { work_type: type, pool });
  return { pool, type, later };
}

const statusOf = async (item: string | undefined, type: string): Promise<unknown> =>
  (await stored(sql, item, type)).status;

test("a need on a claim that nobody has made yet is met by it, however the calls meet", async () => {
  const { pool, type, later } = await typeAndLater();
  const [needed] = await call<string[]>(sql, "enqueue_items", { items: [{ pool }] });
  const needs = [{ id: needed, work_type: later }];
  const add = (by: Sql): Promise<string[]> => call(by, "enqueue_items", { items: [{ pool, needs }] });
  const claim = (by: Sql): Promise<Claim[]> =>
    call(by, "claim_items", { item_ids: [needed], work_type: later, worker_id: "w" });
  const [early] = await add(sql);
  expect(await statusOf(early, type)).toBe("blocked");

  const [adding, claiming] = [as("service_role"), as("service_role")];
  await adding`begin`;
  const [during] = await add(adding);
  const claimed = claim(claiming);
  await someoneWaits(sql);
  await adding`commit`;
  const [held] = await claimed;
  await claiming`begin`;
  expect(await release(claiming, "w", held, "succeeded")).toBe("succeeded");
  const added = add(adding);
  await someoneWaits(sql);
  await claiming`commit`;
  expect(await statusOf(early, type)).toBe("ready");
  expect(await statusOf(during, type)).toBe("ready");
  expect(await statusOf((await added)[0], type)).toBe("ready");
  await expectInvariants(sql);
});

test("a need on a claim that is made, done and not committed yet is met", async () => {
  const { pool, type, later } = await typeAndLater();
  const [needed] = await call<string[]>(sql, "enqueue_items", { items: [{ pool }] });
  const [adding, claiming] = [as("service_role"), as("service_role")];
  await claiming`begin`;
  const [claim] = await call<Claim[]>(claiming, "claim_items", {
    item_ids: [needed],
    work_type: later,
    worker_id: "w",
  });
  expect(await release(claiming, "w", claim, "succeeded")).toBe("succeeded");
  const added = call<string[]>(adding, "enqueue_items", {
    items: [{ pool, needs: [{ id: needed, work_type: later }] }],
  });
  await someoneWaits(sql);
  await claiming`commit`;
  expect(await statusOf((await added)[0], type)).toBe("ready");
});

test("a need on a further claim that is not there is refused, and leaves its name to the work type", async () => {
  const { pool, type } = await typeAndLater();
  const [needed] = await call<string[]>(sql, "enqueue_items", { items: [{ pool }] });
  const further = `${type}#2`;
  const because = /several => 2 makes them/;
  const items = [{ pool, needs: [{ id: needed, work_type: further }] }];
  await expect(call(sql, "enqueue_items", { items })).rejects.toThrow(because);
  await expect(call(sql, "claim_items", { item_ids: [needed], work_type: further, worker_id: "w" })).rejects.toThrow(
    because,
  );
  await call(sql, "define_work_type", { work_type: type, several: 2 });
  await call(sql, "enroll_pool", { pool });
  const [item] = await call<string[]>(sql, "enqueue_items", { items });
  const [claim] = await call<Claim[]>(sql, "claim_items", { item_ids: [needed], work_type: further, worker_id: "w" });
  expect(await release(sql, "w", claim, "succeeded")).toBe("succeeded");
  expect(await statusOf(item, type)).toBe("ready");
  await expectInvariants(sql);
});
