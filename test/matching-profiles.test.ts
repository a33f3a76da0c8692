import { afterAll, beforeEach, describe, expect, test } from "vitest";
import type { Requirement } from "../src/index.ts";
import { type Claim, call } from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { expectInvariants } from "./support/invariants.ts";
import { expectedItems, register } from "./support/matching-oracle.ts";
import type { Version } from "./support/servers.ts";

const versions: Version[] = [17, 15];

describe.each(versions)("on Postgres %s", async (version) => {
  const { sql, owner, as } = await openDatabase({ version });
  await call(sql, "define_work_type", { work_type: "type", pool: "default" });
  beforeEach(() => sql`delete from work_items`);
  afterAll(() => expectInvariants(sql));

  function enqueue(items: object[]): Promise<string[]> {
    return call(sql, "enqueue_items", { items });
  }

  async function take(worker_id: string, more: Record<string, unknown> = {}, connection = sql): Promise<string[]> {
    const args = { work_types: ["type"], worker_id, max_items: 10, ...more };
    const claims = await call<Claim[]>(connection, "claim_next", args);
    return claims.map((claim) => claim.item_id);
  }

  async function inOpenTransaction(
    work: (other: Sql) => Promise<unknown>,
    meanwhile: () => Promise<void>,
  ): Promise<void> {
    const other = as("service_role");
    await other`begin`;
    await work(other);
    await meanwhile();
    await other`commit`;
  }

  describe("a worker's profile", () => {
    test("counts from the call that registers it", async () => {
      const [a, b] = await enqueue([{ requires: { disk: "a" } }, { requires: { disk: "b" } }]);
      await register(sql, { id: "changes", capabilities: { disk: "a" } });
      expect(await take("changes")).toEqual([a]);
      await register(sql, { id: "changes", capabilities: { disk: "b" } });
      await call(sql, "release_claims_for_worker", { worker_id: "changes" });
      expect(await take("changes")).toEqual([b]);
      expect(await call(sql, "claim_items", { item_ids: [a, b], work_type: "type", worker_id: "changes" })).toEqual([]);
    });

    test("stays when the worker retires and comes back without a profile", async () => {
      await register(sql, { id: "retires", capabilities: { disk: "a" } });
      await call(sql, "retire_worker", { worker_id: "retires" });
      const [a] = await enqueue([{ requires: { disk: "a" } }, { requires: { disk: "b" } }]);
      expect(await take("retires")).toEqual([a]);
    });

    test("is empty for an unregistered worker", async () => {
      const ids = await enqueue([
        { requires: { a: 1 } },
        {},
        { requires: { not: { gpu: "x" } } },
        { labels: { t: 1 } },
      ]);
      const byId = { item_ids: ids, work_type: "another type", worker_id: "nobody" };
      const claims = await call<Claim[]>(sql, "claim_items", byId);
      expect(claims.map((claim) => claim.item_id)).toEqual(ids.slice(1));
      expect(await take("nobody")).toEqual(ids.slice(1));
    });

    test("does not block an equal worker while an open transaction judges it", async () => {
      const capabilities = { rack: 7 };
      await register(sql, { id: "twin 1", capabilities });
      await register(sql, { id: "twin 2", capabilities });
      const [first] = await enqueue([{ requires: { rack: 5 } }, { requires: { rack: 9 } }]);
      await owner`update work.profiles set used_at = now() - interval '2 hours'`;
      await inOpenTransaction(
        (other) => take("twin 1", { max_items: 1 }, other),
        async () => {
          const [second] = await enqueue([{ requires: { rack: 6 } }]);
          expect([[], [second]]).toContainEqual(await take("twin 2"));
          await register(sql, { id: "twin 3", capabilities });
        },
      );
      const held = await sql`select item_id from work_claims where status = 'claimed'`;
      const rest = await take("twin 2");
      expect(held.length + rest.length).toBe(2);
      expect(held.map((row) => row.item_id)).toContain(first);
    });

    test("is kept while a worker has it, and is deleted a day after the last one left", async () => {
      const profiles = (): Promise<number[]> =>
        owner`select id from work.profiles where id <> 1`.then((rows) => rows.map((row) => row.id));
      await sql`delete from work_workers`;
      await owner`delete from work.profiles where id <> 1`;
      await register(sql, { id: "stays", capabilities: { stays: true } });
      await register(sql, { id: "leaves", capabilities: { leaves: true } });
      await sql`delete from work_workers where id = 'leaves'`;
      await owner`update work.profiles set used_at = now() - interval '2 days'`;
      // Whoever has the old profile in hand is not waited for.
      await inOpenTransaction(
        (other) => other`select from work.profiles for update`,
        () => register(sql, { id: "comes", capabilities: { comes: true } }),
      );
      expect(await profiles()).toHaveLength(3);
      await register(sql, { id: "comes", capabilities: { comes: true } });
      expect(await profiles()).toHaveLength(2);
      const [item] = await enqueue([{ requires: { stays: true } }]);
      expect(await take("stays")).toEqual([item]);
    });

    test("may have 3,000 capabilities and 60,000 characters", async () => {
      const many = Object.fromEntries(Array.from({ length: 3000 }, (_, n) => [`has ${n}`, n]));
      await register(sql, {
        id: "rich",
        capabilities: { ...many, models: Array.from({ length: 100 }, (_, n) => `m${n}`) },
      });
      const [item] = await enqueue([
        { requires: { "has 2999": 2999, models: ["m99", "m0"] } },
        { requires: { "has 1": 2 } },
      ]);
      expect(await take("rich")).toEqual([item]);
      await expect(register(sql, { id: "richer", capabilities: { a: "x".repeat(66_000) } })).rejects.toMatchObject({
        code: "PT400",
      });
    });
  });

  describe("exclusive capabilities", () => {
    const gpu = { gpu: "a100", cpu: 16, gpus: [{ type: "a100", slots: 2 }], site: { room: "r1", rack: 4 } };
    const cases: [string, string[], Requirement, "at once" | "spared"][] = [
      ["nothing is asked for", ["gpu"], {}, "spared"],
      ["it is asked for", ["gpu"], { gpu: "a100" }, "at once"],
      ["it is asked for beside others", ["gpu"], { gpu: "a100", cpu: 4 }, "at once"],
      ["another alternative will do", ["gpu"], { any: [{ gpu: "a100" }, { cpu: 8 }] }, "spared"],
      ["no other alternative holds", ["gpu"], { any: [{ gpu: "a100" }, { cpu: 32 }] }, "at once"],
      ["only its absence would be asked for", ["gpu"], { not: { gpu: "h100" } }, "spared"],
      ["something else is asked for", ["gpu"], { cpu: 4 }, "spared"],
      ["one of two is asked for", ["gpu", "cpu"], { cpu: 4 }, "at once"],
      ["the name is nested, and asked for", ["site.rack"], { site: { rack: 2 } }, "at once"],
      ["the name is nested, and its neighbour is asked for", ["site.rack"], { site: { room: "r1" } }, "spared"],
      ["the name stands in objects of a list", ["gpus.type"], { gpus: { type: "a100" } }, "at once"],
      [
        "the name stands in objects of a list, its neighbour is asked for",
        ["gpus.type"],
        { gpus: { slots: 1 } },
        "spared",
      ],
      ["there is no such name", ["tpu", "gpu.inner", "gpus.0", ""], { gpu: "a100" }, "spared"],
    ];

    test.each(cases)("is given out where %s: %s %j is %s", async (_, exclusive, requires, answer) => {
      const [item] = await enqueue([{ requires }]);
      const refuses = { id: "refuses", capabilities: gpu, exclusive };
      const yields = { id: "yields", capabilities: gpu, exclusive, yield_seconds: 60 };
      for (const worker of [refuses, yields]) {
        await register(sql, worker);
        const wish = { work_types: ["type"], max_items: 1 };
        expect(await expectedItems(sql, worker, wish)).toEqual(answer === "at once" ? [item] : []);
        expect(await take(worker.id)).toEqual(answer === "at once" ? [item] : []);
        await call(sql, "release_claims_for_worker", { worker_id: worker.id });
      }
      await sql`update work_claims set due_at = now() - interval '61 s'`;
      expect(await take("refuses")).toEqual(answer === "at once" ? [item] : []);
      await call(sql, "release_claims_for_worker", { worker_id: "refuses" });
      await sql`update work_claims set due_at = now() - interval '61 s'`;
      expect(await take("yields")).toEqual([item]);
    });

    test("a worker gets yielded items after its own, each once it has waited long enough", async () => {
      const ids = await enqueue([{}, {}, { requires: { cpu: 2 } }, { requires: { gpu: "a100" } }]);
      await register(sql, { id: "behind", capabilities: gpu, exclusive: ["gpu"], yield_seconds: 60 });
      await sql`update work_claims set due_at = now() - interval '2 minutes' where item_id = any (${ids.slice(1)})`;
      expect(await take("behind")).toEqual([ids[3], ids[1], ids[2]]);
      await call(sql, "release_claims_for_worker", { worker_id: "behind" });
      await sql`update work_claims set due_at = now() - interval '2 minutes' where item_id = any (${ids.slice(1)})`;
      const claims = await call<Claim[]>(sql, "claim_items", { item_ids: ids, work_type: "type", worker_id: "behind" });
      expect(claims.map((claim) => claim.item_id)).toEqual(ids.slice(1));
    });
  });

  test("claim_items leaves out items that the worker does not match, new or claimed before", async () => {
    const item_ids = await enqueue([
      { requires: { disk: "a" } },
      { requires: { disk: "b" } },
      { labels: { tenant: "x" } },
    ]);
    await register(sql, { id: "chooses", capabilities: { disk: "b" }, accepts: { not: { tenant: "x" } } });
    for (const work_type of ["type", "a type of its own"]) {
      const claims = await call<Claim[]>(sql, "claim_items", { item_ids, work_type, worker_id: "chooses" });
      expect(claims.map((claim) => claim.item_id)).toEqual([item_ids[1]]);
    }
  });

  test("finish_and_claim claims as claim_next does", async () => {
    const [first, second, third] = await enqueue([
      { requires: { disk: "a" } },
      { requires: { disk: "a" }, labels: { tenant: "y" } },
      { requires: { disk: "a" }, affinity: "flux" },
    ]);
    await register(sql, { id: "finishes", capabilities: { disk: "a" } });
    const step = async (outcomes: object[], more: object): Promise<Claim[]> => {
      const args = { worker_id: "finishes", work_types: ["type"], outcomes, ...more };
      return (await call<{ claimed: Claim[] }>(sql, "finish_and_claim", args)).claimed;
    };
    const warm = await step([], { warm: ["flux"] });
    expect(warm).toMatchObject([{ item_id: third }]);
    const next = await step([{ ...warm[0], outcome: "succeeded" }], { warm: ["none"] });
    expect(next).toMatchObject([{ item_id: first }]);
    expect(await step([{ ...next[0], outcome: "succeeded" }], {})).toMatchObject([{ item_id: second }]);
  });
});
