import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { type Claim, call, someoneWaits } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { register } from "./support/matching-oracle.ts";
import { seeded } from "./support/random.ts";
import { migrate, type Version } from "./support/servers.ts";

const versions: Version[] = [17, 15];

describe.each(versions)("on Postgres %s", async (version) => {
  const { sql, owner, admin, as, url } = await openDatabase({ version });
  await call(sql, "define_work_type", { work_type: "type", pool: "default" });
  beforeEach(() => sql`delete from work_items where pool = 'default'`);
  afterAll(() => expectInvariants(sql));

  /** The classes of these items, in their order. */
  async function classesOf(ids: string[]): Promise<number[]> {
    const rows = await sql<{ class_id: number }[]>`
      select i.class_id from unnest(${ids}::uuid[]) with ordinality as u(id, n) join work_items i using (id) order by n`;
    return rows.map((row) => row.class_id);
  }

  function enqueue(connection: Sql, items: object[]): Promise<string[]> {
    return call(connection, "enqueue_items", { items });
  }

  async function take(connection: Sql, worker_id: string, max_items = 10): Promise<string[]> {
    const claims = await call<Claim[]>(connection, "claim_next", { work_types: ["type"], worker_id, max_items });
    return claims.map((claim) => claim.item_id);
  }

  /** As text, so that nothing tidies the spelling on the way. */
  async function enqueueText(items: string): Promise<string[]> {
    const [row] = await sql.unsafe(`select public.enqueue_items($1::text::jsonb) as ids`, [items]);
    return row?.ids;
  }

  test("one requirement is one class in any order of members and any form of numbers", async () => {
    const ids = await enqueueText(`[
      {"requires": {"a": "x", "b": {"c": 20}}},
      {"requires": {"b": {"c": 20}, "a": "x"}, "labels": null},
      {"requires": {"a": "x", "b": {"c": 20}}, "labels": {}}]`);
    expect(new Set(await classesOf(ids)).size).toBe(1);
  });

  test("items that require nothing and show nothing are of class 1", async () => {
    const ids = await enqueueText(`[{}, {"requires": {}}, {"requires": null, "labels": null}]`);
    expect(await classesOf(ids)).toEqual([1, 1, 1]);
  });

  test("labels make different classes, and a separator in a value cannot merge two", async () => {
    const ids = await enqueue(sql, [
      { requires: { a: "x,b=y" } },
      { requires: { a: "x", b: "y" } },
      { requires: { a: "x", b: "y" }, labels: { tenant: 1 } },
      { requires: { a: "x", b: "y" }, labels: { tenant: "1" } },
      { labels: { a: "x", b: "y" } },
    ]);
    expect(new Set(await classesOf(ids)).size).toBe(5);
  });

  test("eight connections that add fifty new requirements at once make each class once", async () => {
    const { below } = seeded(8);
    const requirements = Array.from({ length: 50 }, (_, n) => ({ rush: `r${n}`, "site.zone": version }));
    const answers = await Promise.all(
      Array.from({ length: 8 }, async () => {
        const order = requirements.map((_, n) => n).sort(() => below(3) - 1);
        const spelled = (n: number): object => ({ requires: requirements[n] });
        return { order, ids: await enqueue(as("service_role"), order.map(spelled)) };
      }),
    );
    for (const { order, ids } of answers) {
      const rows = await sql<{ tag: string }[]>`
        select k.tag from unnest(${ids}::uuid[]) with ordinality as u(id, n)
          join work_items i using (id) join work_classes k on k.id = i.class_id order by n`;
      expect(rows.map((row) => row.tag)).toEqual(order.map((n) => `rush = r${n} and site.zone >= ${version}`));
    }
    const [made] = await sql`select count(*)::integer as count from work_classes where tag like 'rush = %'`;
    expect(made?.count).toBe(50);
  });

  test("a profile that a dump brought from a server with more transactions judges new classes", async () => {
    await register(sql, { id: "restored", capabilities: { restored: "x" } });
    await owner`
      update work.profiles set judged = '900000000:900000000:' where capabilities = '{"restored": "x"}'`;
    const [item] = await enqueue(sql, [{ requires: { restored: "x" } }]);
    expect(await take(sql, "restored")).toEqual([item]);
  });

  test("a second run of the migration gives no class the id of a deleted one", async () => {
    await enqueue(sql, [{ requires: { old: "x" } }]);
    const [before] = await owner`select last_value from work_classes_id_seq`;
    await sql`delete from work_items`;
    await call(sql, "prune_classes");
    await migrate(url);
    const [after] = await owner`select last_value from work_classes_id_seq`;
    expect(after).toEqual(before);
  });

  test("a class of an open transaction is claimed after its commit, even after newer classes", async () => {
    await register(sql, { id: "open", capabilities: { open: ["early", "late", "lost"] } });
    const early = as("service_role");
    await early`begin`;
    const [first] = await enqueue(early, [{ requires: { open: "early" } }]);
    const lost = as("service_role");
    await lost`begin`;
    await enqueue(lost, [{ requires: { open: "lost" } }]);
    const [second] = await enqueue(sql, [{ requires: { open: "late" } }]);
    expect(await take(sql, "open")).toEqual([second]);
    await register(sql, { id: "open too", capabilities: { open: ["early", "lost"] } });
    expect(await take(sql, "open too")).toEqual([]);
    await early`commit`;
    expect(await take(sql, "open too")).toEqual([first]);
    await lost`rollback`;
    const [third] = await enqueue(sql, [{ requires: { open: "lost" } }]);
    expect(await take(sql, "open")).toEqual([third]);
  });

  test("a caller that adds the class of an open transaction waits for it and has the class after", async () => {
    for (const end of ["commit", "rollback"]) {
      const first = as("service_role");
      await first`begin`;
      const [mine] = await enqueue(first, [{ requires: { waits: end } }]);
      const second = enqueue(as("service_role"), [{ requires: { waits: end } }, { requires: { waits: end } }]);
      await someoneWaits(admin);
      await first.unsafe(end);
      const [one, other] = await classesOf(await second);
      expect(one).toBe(other);
      expect(await classesOf([mine ?? ""])).toEqual(end === "commit" ? [one] : []);
    }
  });

  test("an open transaction that spells a new class in another way blocks no claim call", async () => {
    await register(sql, { id: "spelled", capabilities: { spelled: "x" } });
    const [item] = await enqueue(sql, [{ requires: { spelled: "x" } }]);
    const open = as("service_role");
    await open`begin`;
    await enqueue(open, [{ requires: { spelled: ["x"] } }]);
    expect(await take(sql, "spelled")).toEqual([item]);
    await open`commit`;
    expect(await take(sql, "spelled")).toHaveLength(1);
  });

  test("an open transaction with new classes blocks no call and hides no class", async () => {
    await register(sql, { id: "numbers", capabilities: { numbers: ["a", "b"] } });
    const [first] = await enqueue(sql, [{ requires: { numbers: "a" } }]);
    const open = as("service_role");
    await open`begin`;
    expect(await take(open, "nobody at all")).toEqual([]);
    const [second] = await enqueue(sql, [{ requires: { numbers: "b" } }]);
    expect(await take(sql, "numbers")).toEqual([first, second]);
    await open`commit`;
    expect(await take(sql, "numbers")).toEqual([]);
  });

  test("a deleted class that is added again is found by profiles that had judged it", async () => {
    await register(sql, { id: "by hand", capabilities: { deleted: "x" } });
    await enqueue(sql, [{ requires: { deleted: "x" } }]);
    expect(await take(sql, "by hand")).toHaveLength(1);
    await owner`delete from work_items where class_id = (select id from work_classes where tag = 'c:deleted=x')`;
    await owner`delete from work_classes where tag = 'c:deleted=x'`;
    const [again] = await enqueue(sql, [{ requires: { deleted: "x" } }]);
    expect(await take(sql, "by hand")).toEqual([again]);
  });

  test("a wrong requirement or label is refused with the item's number, and no item is added", async () => {
    const [before] =
      await sql`select count(*) as items, (select count(*) from work_classes) as classes from work_items`;
    const wrong: [object, RegExp][] = [
      [{ requires: { a: null } }, /^items\[2\]: requires\.a is null; expected a text/],
      [{ requires: "gpu" }, /^items\[2\]: requires is "gpu"; expected an object/],
      [{ requires: { any: [] } }, /^items\[2\]: requires.*any.*expected a list of one or more objects/],
      [{ labels: ["x"] }, /^items\[2\]: labels is \["x"\]; a JSON object was expected/],
      [{ labels: { "a.b": 1 } }, /^items\[2\]: labels is a name with a dot, a\.b;/],
      [{ labels: { a: "x".repeat(9000) } }, /^items\[2\]: labels is 90\d\d characters long/],
    ];
    for (const [item, message] of wrong) {
      const items = [{ requires: { fine: "x" } }, {}, item, { requires: { fine: "y" } }];
      await expect(enqueue(sql, items)).rejects.toMatchObject({
        code: "PT400",
        message: expect.stringMatching(message),
      });
    }
    const [after] = await sql`select count(*) as items, (select count(*) from work_classes) as classes from work_items`;
    expect(after).toEqual(before);
  });

  describe("an attached table", async () => {
    await owner`
      create table films (id integer primary key, needs jsonb, shows jsonb, model text, series text)`;
    await call(owner, "attach_pool", {
      ...{ source: "films", requires_column: "needs", labels_column: "shows" },
      ...{ affinity_column: "model", workflow_column: "series" },
    });
    await call(sql, "define_work_type", { work_type: "film", pool: "films" });
    await register(sql, { id: "viewer", capabilities: { screen: "wide" }, accepts: { not: { adult: true } } });

    async function watch(): Promise<string[]> {
      const claims = await call<Claim[]>(sql, "claim_next", {
        work_types: ["film"],
        worker_id: "viewer",
        max_items: 10,
      });
      await call(sql, "release_claims_for_worker", { worker_id: "viewer" });
      return claims.map((claim) => claim.source_key as string);
    }

    test("items take the values of the columns, and follow changes", async () => {
      await owner`
        insert into films values
          (1, '{"screen": "wide"}', null, 'sdxl', 'first'), (2, '{"screen": "small"}', '{}', null, ''),
          (3, null, '{"adult": true}', '', null), (4, '{}', 'null', null, null)`;
      expect(await watch()).toEqual(["1", "4"]);
      await owner`update films set needs = '{"screen": "small"}', series = null where id = 1`;
      await owner`update films set needs = '{"screen": ["wide"]}' where id = 2`;
      await owner`update films set shows = '{"adult": false}' where id = 3`;
      expect(await watch()).toEqual(["2", "3", "4"]);
      await owner`update films set shows = '{"adult": true}' where id > 1`;
      expect(await watch()).toEqual([]);
      await expectInvariants(sql);
    });

    test("a wrong requirement refuses the write and names the row", async () => {
      await expect(owner`insert into films values (7, '{}'), (8, '{"screen": null}')`).rejects.toMatchObject({
        code: "PT400",
        message: expect.stringMatching(/^the row with key 8 of pool films: requires.*screen.*expected a text/),
      });
      await expect(owner`update films set shows = '[]' where id = 2`).rejects.toMatchObject({
        code: "PT400",
        message: expect.stringMatching(/^the row with key 2 of pool films: labels is \[\]; a JSON object was expected/),
      });
      expect(await owner`select from films where id > 6`).toHaveLength(0);
    });

    test("a reopened claim takes the current rank and class of its item", async () => {
      await owner`insert into films values (20, '{"screen": "wide"}', null, null, null)`;
      const [claim] = await call<Claim[]>(sql, "claim_next", { work_types: ["film"], worker_id: "viewer" });
      const outcomes = [{ ...claim, outcome: "failed", final: true }];
      await call(sql, "release_items", { worker_id: "viewer", outcomes });
      await owner`update films set needs = '{"screen": "small"}', series = 'later' where id = 20`;
      await call(sql, "retry_items", { work_type: "film", item_ids: [claim?.item_id] });
      expect(await watch()).toEqual([]);
      await expectInvariants(sql);
    });
  });
});
