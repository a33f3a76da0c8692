// claims(): loops over claims, in this process and as processes of Node and Deno that share the work.
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import postgres from "postgres";
import { afterAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { z } from "zod";
import { createWorkClient } from "../src/client.ts";
import { defineWork } from "../src/define-work.ts";
import { denoProgram } from "../src/demo/processes.ts";
import { overSql } from "../src/sql/client.ts";
import { packageRoot } from "../src/stack/package-root.ts";
import { startStack } from "../src/stack/stack.ts";
import { progressLine } from "../workers/runtime/progress-bar.ts";
import { claims, FinalError, type LoopClaim, parked, work } from "../workers/runtime/work.ts";
import { expectInvariants } from "./support/invariants.ts";
import { has } from "./support/programs.ts";

const stack = await startStack({ ephemeral: true, migrations: packageRoot() });
const sql = postgres(stack.dbUrl, { max: 3, onnotice: () => {} });
const client = createWorkClient({ url: stack.url, key: stack.secretKey });
const project = { url: stack.url, key: stack.secretKey };
const folder = mkdtempSync(join(tmpdir(), "work-claims loops-"));
const children = new Set<ChildProcess>();
afterAll(async () => {
  for (const child of children) child.kill("SIGKILL");
  await expectInvariants(sql);
  await sql.end({ timeout: 1 });
  await stack.stop();
  rmSync(folder, { recursive: true });
});

let types = 0;

/** A work type with these items. */
async function typeWith(payloads: object[], rules = {}): Promise<string> {
  const type = `loop ${++types}`;
  await client.definePool(type);
  await client.defineWorkType(type, { pool: type, backoffSeconds: 0, ...rules });
  await client.enqueueItems(payloads.map((payload) => ({ pool: type, payload: payload as never })));
  return type;
}

/** Its claims, in the order of their items. */
async function claimsOf(type: string): Promise<Record<string, unknown>[]> {
  const rows = await sql`
    select c.status, c.result, c.error, c.failures, c.crashes
      from work_claims c join work_items i on i.id = c.item_id where c.work_type = ${type} order by i.seq`;
  return rows.map((row) => ({ ...row }));
}

async function until(isTrue: () => Promise<boolean>): Promise<void> {
  for (const limit = Date.now() + 20_000; !(await isTrue()); await sleep(20)) {
    expect(Date.now()).toBeLessThan(limit);
  }
}

const quiet = { progress: false, log: (): void => {} };
type Body = (claim: LoopClaim<{ n: number }>) => unknown;

describe("a loop", () => {
  test("does every item once and ends", async () => {
    const type = await typeWith([{ n: 1 }, { n: 2 }, { n: 3 }]);
    const seen: number[] = [];
    for await (const claim of claims<{ n: number }>(project, type, quiet)) {
      expect(claim.item).toBe(claim.payload);
      seen.push(claim.item.n);
    }
    expect(seen).toEqual([1, 2, 3]);
    expect(await claimsOf(type)).toEqual(
      seen.map(() => ({ status: "succeeded", result: null, error: null, failures: 0, crashes: 0 })),
    );
    expect(await sql`select from work_workers where retired_at is null`).toHaveLength(0);
  });

  test.each<[string, Body, object]>([
    [
      "close() succeeds with the result",
      (claim) => claim.close({ a: [1] }),
      { status: "succeeded", result: { a: [1] } },
    ],
    [
      "fail() fails",
      (claim) => claim.fail(new FinalError("broken")),
      { status: "failed", error: "broken", failures: 1 },
    ],
    ["later() waits without a try", (claim) => claim.later(600), { status: "waiting", error: null, failures: 0 }],
    ["close(parked()) parks", (claim) => claim.close(parked("job 1", 600)), { status: "claimed" }],
    ["run() succeeds with what its body returns", (claim) => claim.run(() => claim.item.n), { result: 1 }],
    [
      "of several calls the latest counts",
      (claim) => [claim.close(1), claim.fail(new FinalError("2"))],
      { error: "2" },
    ],
    ["run() leaves what its body said", (claim) => claim.run(() => claim.later(600)), { status: "waiting" }],
    ["a result that is no JSON fails", (claim) => claim.close(1n), { error: expect.stringContaining("is no JSON") }],
  ])("%s", async (_, body, expected) => {
    const type = await typeWith([{ n: 1 }], { maxFailures: 1 });
    for await (const claim of claims<{ n: number }>(project, type, quiet)) {
      await body(claim);
      // A claim that waits for its next try would keep the loop.
      break;
    }
    expect(await claimsOf(type)).toMatchObject([expected]);
  });

  test("left by break hands back, and after close() it has succeeded", async () => {
    const type = await typeWith([{ n: 1 }, { n: 2 }]);
    const lines: string[] = [];
    for await (const _ of claims(project, type, { ...quiet, log: (line) => lines.push(line) })) break;
    expect(await claimsOf(type)).toMatchObject([{ status: "ready", failures: 0, crashes: 0 }, { status: "ready" }]);
    expect(lines).toEqual([expect.stringMatching(/^handed back loop .*: the loop was left; .*claim\.run\(\)/)]);
    for await (const claim of claims(project, type, quiet)) {
      claim.close("enough");
      break;
    }
    expect(await claimsOf(type)).toMatchObject([{ status: "succeeded", result: "enough" }, { status: "ready" }]);
  });

  test("left by return or an error hands back, and passes the error on", async () => {
    const type = await typeWith([{ n: 1 }]);
    const returned = async (): Promise<string> => {
      for await (const _ of claims(project, type, quiet)) return "left";
      return "through";
    };
    expect(await returned()).toBe("left");
    const threw = async (): Promise<void> => {
      for await (const _ of claims(project, type, quiet)) throw new Error("no model");
    };
    await expect(threw()).rejects.toThrow("no model");
    expect(await claimsOf(type)).toMatchObject([{ status: "ready", failures: 0, crashes: 0 }]);
  });

  test("whose run() throws fails the claim and ends; caught, it goes on", async () => {
    const type = await typeWith([{ n: 1 }, { n: 2 }], { maxFailures: 1 });
    const bad = new Error("no such model");
    const threw = async (): Promise<void> => {
      for await (const claim of claims(project, type, quiet)) await claim.run(() => Promise.reject(bad));
    };
    await expect(threw()).rejects.toBe(bad);
    expect(await claimsOf(type)).toMatchObject([{ status: "failed", error: "no such model" }, { status: "ready" }]);
    for await (const claim of claims(project, type, quiet)) await claim.run(() => Promise.reject(bad)).catch(() => {});
    expect(await claimsOf(type)).toMatchObject([{ status: "failed" }, { status: "failed" }]);
  });

  test("keeps its claim by heartbeats for longer than the lease", async () => {
    const type = await typeWith([{ n: 1 }], { leaseSeconds: 1 });
    for await (const claim of claims(project, type, quiet)) {
      const isRenewed = async (): Promise<boolean> =>
        (
          await sql`select from work_claims where fence = ${claim.fence} and expires_at > ${claim.expires_at}::timestamptz + interval '1.5 s'`
        ).length > 0;
      await until(isRenewed);
    }
    expect(await claimsOf(type)).toMatchObject([{ status: "succeeded", crashes: 0 }]);
  });

  test("goes on after a claim was lost in run()", async () => {
    const type = await typeWith([{ n: 1 }, { n: 2 }], { leaseSeconds: 1 });
    const done: number[] = [];
    for await (const claim of claims<{ n: number }>(project, type, quiet)) {
      const result = await claim.run(async () => {
        if (claim.item.n === 1) {
          await client.cancelItems(type, { itemIds: [claim.item_id] });
          await sleep(20_000, undefined, { signal: claim.signal });
        }
        return claim.item.n;
      });
      if (result !== undefined) done.push(result);
    }
    expect(done).toEqual([2]);
    expect(await claimsOf(type)).toMatchObject([{ status: "cancelled" }, { status: "succeeded", result: 2 }]);
  });

  test("gets the items that its capabilities and conditions match", async () => {
    const type = await typeWith([]);
    await client.enqueueItems([
      { pool: type, payload: { n: 1 }, requires: { gpu: "a100" } },
      { pool: type, payload: { n: 2 }, requires: { gpu: "h100" } },
      { pool: type, payload: { n: 3 }, labels: { customer: "acme" } },
      { pool: type, payload: { n: 4 }, requires: { gpu: "a100" }, labels: { customer: "acme" } },
    ]);
    const seen: number[] = [];
    const options = { ...quiet, capabilities: { gpu: "a100" }, accepts: { customer: "acme" } };
    for await (const claim of claims<{ n: number }>(project, type, options)) seen.push(claim.item.n);
    expect(seen).toEqual([3, 4]);
  });

  test("gets the results that its item needs", async () => {
    const first = await typeWith([]);
    await client.defineWorkType(`after ${first}`, { pool: first, dependsOn: [first] });
    await client.enqueueItems([{ pool: first }]);
    for await (const claim of claims(project, first, quiet)) claim.close({ text: "b" });
    const seen: unknown[] = [];
    for await (const claim of claims(project, `after ${first}`, quiet)) seen.push((claim as { needs?: unknown }).needs);
    expect(seen).toMatchObject([[{ work_type: first, status: "succeeded", result: { text: "b" } }]]);
  });

  test("ends by an error when it is stopped", async () => {
    const type = await typeWith([{ n: 1 }, { n: 2 }]);
    const stop = new AbortController();
    const stopped = async (): Promise<void> => {
      for await (const _ of claims(project, type, { ...quiet, signal: stop.signal })) stop.abort();
    };
    await expect(stopped()).rejects.toMatchObject({ name: "AbortError", message: expect.stringContaining("(signal)") });
    expect(await claimsOf(type)).toMatchObject([{ status: "succeeded" }, { status: "ready" }]);
  });

  test("refuses a work type that is not there", async () => {
    await expect(claims(project, "gone", quiet).next()).rejects.toThrow("gone is not declared");
  });
});

describe("a loop over a list", () => {
  const done = async (type: string): Promise<number> =>
    (await claimsOf(type)).filter(({ status }) => status === "succeeded").length;

  test("enqueues what is not there, does it, and does what is new the next time", async () => {
    class File {
      readonly name: string;
      constructor(name: string) {
        this.name = name;
      }
    }
    const files = Array.from({ length: 2300 }, (_, n) => new File(`file ${n}`));
    let seen = 0;
    for await (const claim of claims(project, "hash", { ...quiet, over: files, key: (file) => file.name })) {
      expect(claim.item).toBeInstanceOf(File);
      expect(claim.payload).toEqual({ name: claim.item.name });
      seen++;
    }
    expect(seen).toBe(2300);
    const [type] = await sql`select pool from work_types where name = 'hash'`;
    expect(type?.pool).toBe("hash");
    const again: string[] = [];
    const more = [...files.slice(0, 10), new File("new")];
    for await (const claim of claims(project, "hash", { ...quiet, over: more, key: (file) => file.name })) {
      again.push(claim.item.name);
    }
    expect(again).toEqual(["new"]);
    expect(await done("hash")).toBe(2301);
  });

  test("takes any iterable, does an element once however often it comes, and shows payloads of other lists", async () => {
    async function* numbers(): AsyncGenerator<number> {
      yield* [1, 2, 2, 3];
    }
    const first = claims(project, "count", { ...quiet, over: numbers(), payload: (n) => ({ n }) });
    await first.next();
    await first.return();
    const seen: unknown[] = [];
    for await (const claim of claims(project, "count", { ...quiet, over: new Set([3]) })) seen.push(claim.item);
    expect(seen).toEqual([{ n: 1 }, { n: 2 }, 3]);
  });

  test("shows its element again at a second try", async () => {
    const type = await typeWith([], { maxFailures: 2 });
    const seen: unknown[] = [];
    for await (const claim of claims(project, type, { ...quiet, over: [new Date(0)], key: String })) {
      seen.push(claim.item);
      if (seen.length === 1) claim.fail(new Error("once more"));
    }
    expect(seen).toEqual([new Date(0), new Date(0)]);
  });

  test("goes over a connection of its own, without an address", async () => {
    const over = ["a", "b"];
    const seen: unknown[] = [];
    for await (const claim of claims("over sql", { ...quiet, client: overSql(sql), over })) seen.push(claim.item);
    for await (const claim of claims({ client: overSql(sql) }, "over sql", { ...quiet, over: ["c"] }))
      seen.push(claim.item);
    expect(seen).toEqual(["a", "b", "c"]);
    expect(await done("over sql")).toBe(3);
  });

  test("sends large payloads in several calls", async () => {
    const over = Array.from({ length: 6 }, (_, n) => String(n));
    const payload = (name: string): object => ({ name, text: "x".repeat(400_000) });
    for await (const claim of claims(project, "large", { ...quiet, over, payload })) claim.close(claim.payload.name);
    expect((await claimsOf("large")).map(({ result }) => result)).toEqual(over);
  });

  test("adds to the pool that its work type has", async () => {
    const type = await typeWith([{ n: 1 }]);
    const seen: unknown[] = [];
    for await (const claim of claims(project, type, { ...quiet, over: ["a"] })) seen.push(claim.item);
    expect(seen).toEqual([{ n: 1 }, "a"]);
  });

  test("of nothing ends at once", async () => {
    for await (const _ of claims(project, "nothing", { ...quiet, over: [] })) expect.unreachable();
    expect(await claimsOf("nothing")).toEqual([]);
  });

  test("an item gets the options that each() answers", async () => {
    const customer = new Map([
      ["a", "initech"],
      ["b", "acme"],
      ["c", "acme"],
    ]);
    const options = {
      ...{ ...quiet, over: customer.keys(), accepts: { customer: "acme" } },
      each: (key: string) => ({
        ...{ labels: { customer: customer.get(key) }, requires: key === "c" ? { gpu: "a100" } : {} },
        ...{
          priority: key === "b" ? 1 : 2,
          maxFailures: 1,
          workflow: key === "a" ? "night" : undefined,
          runAfter: new Date(0),
        },
      }),
    };
    const seen: string[] = [];
    for await (const claim of claims(project, "options", { ...options, capabilities: { gpu: "a100" } })) {
      seen.push(claim.item);
      claim.fail(new Error("once"));
    }
    expect(seen).toEqual(["c", "b"]);
    expect(await claimsOf("options")).toMatchObject([{ status: "ready" }, { status: "failed" }, { status: "failed" }]);
    const items =
      await sql`select dedupe_key, priority, workflow_id is not null as flows from work_items where pool = 'options' order by seq`;
    expect(items.map((item) => ({ ...item }))).toEqual([
      { dedupe_key: "a", priority: 2, flows: true },
      { dedupe_key: "b", priority: 1, flows: false },
      { dedupe_key: "c", priority: 2, flows: false },
    ]);
  });

  test("does an element again that has another fingerprint, with its new payload", async () => {
    const seen: unknown[] = [];
    for (const size of [1, 1, 2]) {
      const list = { over: ["a"], payload: () => ({ size }), each: () => ({ fingerprint: `size ${size}` }) };
      for await (const claim of claims(project, "fingerprints", { ...quiet, ...list })) seen.push(claim.payload);
    }
    expect(seen).toEqual([{ size: 1 }, { size: 2 }]);
  });

  const first = (...given: unknown[]): Promise<unknown> =>
    (claims as unknown as (...given: unknown[]) => AsyncGenerator)(...given).next();

  test.each([
    ["an object without a key", ["keys"], [{}], {}, "the key of an element of over is a value of type object"],
    ["an empty key", ["keys"], [""], {}, "the key of an element of over is 0 characters long"],
    ["a long key", ["keys"], ["k".repeat(501)], {}, "501 characters long; a text of 1 to 500 characters"],
    ["a large payload", ["keys"], ["k"], { payload: () => "x".repeat(2 ** 20) }, "the payload of k has 1048578 bytes"],
    ["several work types", ["keys", "locks"], ["k"], {}, "2 work types are given with a list (over); expected is one"],
    ["a key that is no function", ["keys"], ["k"], { key: "name" }, "key is of type string; a function of an element"],
    [
      "a project among the options",
      ["keys"],
      ["k"],
      { url: "u" },
      "url is no option of a loop; its options are over, key,",
    ],
    [
      "an option of workers that has no use here",
      ["keys"],
      ["k"],
      { concurrency: 4 },
      "concurrency is no option of a loop; its options are over,",
    ],
    [
      "an option that no loop has",
      ["keys"],
      ["k"],
      { labels: {} },
      "labels is no option of a loop; its options are over,",
    ],
    [
      "an option that no item has",
      ["keys"],
      ["k"],
      { each: () => ({ label: {} }) },
      "needs_all_of and max_failures, and no label",
    ],
    ["a need that is nowhere", ["keys"], ["k"], { each: () => ({ needs: ["j"] }) }, 'needs: there is no item "j"'],
  ])("refuses %s", async (_, workTypes, over, more, message) => {
    await expect(first(project, workTypes, { ...quiet, over, ...more })).rejects.toThrow(message);
  });

  test.each([
    [undefined, "over is of type undefined; an array or another iterable was expected"],
    [null, "over is null; an array"],
    ["", "over is of type string; an array"],
    ["a text", "over is of type string; an array"],
    [Promise.resolve(["a"]), "over is a Promise; await it"],
  ])("refuses %s in place of a list", async (over, message) => {
    await expect(first(project, "keys", { ...quiet, over })).rejects.toThrow(message);
    vi.stubEnv("WORK_CLAIMS_DISABLED", "1");
    onTestFinished(() => void vi.unstubAllEnvs());
    await expect(first("keys", { ...quiet, over })).rejects.toThrow(message);
  });

  test("refuses a loop that has no list and says what its elements are", async () => {
    await expect(first(project, "keys", { ...quiet, key: String })).rejects.toThrow("key is given without over");
  });

  test.each([
    [
      [client, "keys"],
      /^\w+ is no option of a connection; its options are url, key, token, publishableKey, fetch, client$/,
    ],
    [
      [undefined, "keys"],
      "claims() got undefined and string; a work type was expected first, or { url, key } before it",
    ],
    [[project], "claims() got object and undefined; a work type was expected first"],
    [[project, []], "no work type was given"],
    [[project, ""], "a work type has 0 characters"],
  ])("refuses a call that names no work type, or no project: %#", async (given, message) => {
    await expect(first(...given)).rejects.toThrow(message);
  });

  test("refuses a token, and a pool that mirrors a table", async () => {
    const withToken = { url: stack.url, token: `wct_${"0".repeat(48)}`, publishableKey: "sb_publishable_x" };
    await expect(first(withToken, "keys", { ...quiet, over: ["k"] })).rejects.toThrow("a token cannot enqueue");
    await sql`create table public.songs (id integer primary key)`;
    await sql`select public.attach_pool('songs')`;
    await expect(first(project, "songs", { ...quiet, over: ["k"] })).rejects.toThrow(
      "it mirrors the table public.songs",
    );
  });
});

/** With and without a database the same comes of a loop. */
describe.each(["", "1"])("with WORK_CLAIMS_DISABLED=%s", (isOff) => {
  const disabled = (): void => {
    vi.stubEnv("WORK_CLAIMS_DISABLED", isOff);
    onTestFinished(() => void vi.unstubAllEnvs());
  };

  test("an element gets the results of the elements that it needs", async () => {
    disabled();
    const over = ["scene 1", "scene 2", "film"];
    const seen: [string, unknown[]][] = [];
    const each = (name: string): object => ({ needs: name === "film" ? ["scene 1", { key: "scene 2" }] : [] });
    for await (const claim of claims(project, `film ${isOff}`, { ...quiet, over, each })) {
      seen.push([claim.item, claim.needs.map(({ dedupe_key, status, result }) => ({ dedupe_key, status, result }))]);
      claim.close({ of: claim.item });
    }
    const needs = over.slice(0, 2).map((key) => ({ dedupe_key: key, status: "succeeded", result: { of: key } }));
    expect(seen).toEqual([
      ["scene 1", []],
      ["scene 2", []],
      ["film", needs],
    ]);
  });

  test("an element whose need failed is left", async () => {
    disabled();
    const seen: string[] = [];
    const each = (name: string): object => ({ needs: name === "b" ? ["a"] : [] });
    for await (const claim of claims(project, `left ${isOff}`, { ...quiet, over: ["a", "b", "c"], each })) {
      seen.push(claim.item);
      if (claim.item === "a") claim.fail(new FinalError("broken"));
    }
    expect(seen).toEqual(["a", "c"]);
  });

  test("a body runs with a lock, and answers what its function does", async () => {
    disabled();
    for await (const claim of claims(project, `locked ${isOff}`, { ...quiet, over: ["a"] })) {
      const held = await claim.lock("ffmpeg", { slots: 2 }, async (fence) => [
        fence,
        (await sql`select name from work_lock_list where item_id::text = ${claim.item_id}`).map(({ name }) => name),
      ]);
      expect(held).toEqual(isOff ? [0, []] : [expect.any(Number), ["ffmpeg"]]);
    }
    expect(await sql`select from work_lock_list`).toHaveLength(0);
  });

  test("a defined work judges payloads and results, and a payload is as its schema makes it", async () => {
    disabled();
    const embed = defineWork({
      ...{ name: `typed ${isOff}`, maxFailures: 1, lease: 77, requires: { gpu: "a100" } },
      payload: z.object({ n: z.number(), pages: z.array(z.string()).default([]) }),
      result: z.object({ length: z.number() }),
    });
    const lines: string[] = [];
    const options = {
      ...{ progress: false, log: (line: string) => lines.push(line), capabilities: { gpu: "a100" } },
      ...{ over: ["a", "b"], payload: (key: string) => ({ n: key.length }) },
    };
    const seen: unknown[] = [];
    for await (const claim of claims(project, embed, options)) {
      seen.push([claim.item, claim.payload]);
      claim.close({ length: (claim.item === "b" ? "two" : claim.payload.n) as number });
    }
    expect(seen).toEqual([
      ["a", { n: 1, pages: [] }],
      ["b", { n: 1, pages: [] }],
    ]);
    expect(lines).toEqual([expect.stringMatching(/^failed typed .*: result\.length: .*number/)]);
    const wrong = { ...options, payload: () => ({ n: "one" }) as never };
    await expect(claims(project, embed, wrong).next()).rejects.toThrow(/^a: payload\.n: .*number/);
  });
});

describe("a loop over a defined work", () => {
  const embed = defineWork({
    ...{ name: "defined", lease: 77, maxFailures: 3, requires: { gpu: "a100" } },
    ...{ payload: z.object({ n: z.number() }), result: z.object({ n: z.number() }) },
  });

  test("declares it with its rules where it is missing, and leaves rules that were changed by hand", async () => {
    for (const over of [[{ n: 1 }], [{ n: 2 }]]) {
      const seen: number[] = [];
      const options = { ...quiet, over, key: ({ n }: { n: number }) => n, capabilities: { gpu: "a100" } };
      for await (const claim of claims(project, embed, options)) {
        seen.push(claim.payload.n);
        claim.close(claim.payload);
      }
      expect(seen).toEqual(over.map(({ n }) => n));
      const [rules] = (await client.workTypes()).filter(({ name }) => name === "defined");
      expect(rules).toMatchObject({ lease_seconds: 77, max_failures: seen[0] === 1 ? 3 : 5 });
      await client.defineWorkType("defined", { maxFailures: 5 });
    }
  });

  test("fails a payload that does not fit for good, and goes on", async () => {
    await client.enqueueItems([
      { pool: "defined", payload: { n: "x" } },
      { pool: "defined", payload: { n: 3 } },
    ]);
    const seen: unknown[] = [];
    for await (const claim of claims(project, embed, quiet)) {
      seen.push(claim.item);
      await claim.run(() => ({ n: claim.payload.n + 1 }));
    }
    expect(seen).toEqual([{ n: 3 }]);
    expect((await claimsOf("defined")).slice(2)).toMatchObject([
      { status: "failed", failures: 1, error: expect.stringMatching(/^payload\.n: /) },
      { status: "succeeded", result: { n: 4 } },
    ]);
  });

  test("is refused where the work is not declared", async () => {
    const missing = defineWork({ name: "not there", payload: z.object({}) });
    await expect(claims(project, missing, quiet).next()).rejects.toThrow("not there is not declared");
  });
});

test("two loops never have a lock of one slot at once", async () => {
  const over = Array.from({ length: 6 }, (_, n) => n);
  let holders = 0;
  const go = async (workerId: string): Promise<number[]> => {
    const done: number[] = [];
    for await (const claim of claims(project, "exclusive", { ...quiet, over, workerId })) {
      await claim.lock("encoder", {}, async () => {
        holders += 1;
        await sleep(5);
        expect(holders).toBe(1);
        holders -= 1;
      });
      done.push(claim.item);
    }
    return done;
  };
  const done = await Promise.all([go("one"), go("two")]);
  expect(done.flat().sort()).toEqual(over);
});

test("a lock is refused with an option that it has not, and without a function", async () => {
  const type = await typeWith([{}]);
  for await (const claim of claims(project, type, quiet)) {
    await expect(claim.lock("a", { slot: 2 } as object, () => 1)).rejects.toThrow("slot is no option of a lock");
    await expect(claim.lock("a", (() => 1) as never, undefined as never)).rejects.toThrow(
      'lock() got an action of type undefined; expected is lock("a", { slots: 1 }, () => …)',
    );
  }
  expect(await claimsOf(type)).toMatchObject([{ status: "succeeded" }]);
});

test("a body adds items and waits for them, and comes again with their results", async () => {
  const type = await typeWith([{ chapters: ["It was night", "The harbour slept"] }]);
  const results: unknown[] = [];
  for await (const claim of claims(project, type, quiet)) {
    const { chapters, chapter } = claim.payload;
    if (chapter) claim.close(chapter.split(" ").length);
    else if (claim.needs.length > 0) results.push(...claim.needs.map((need) => need.result));
    else claim.waitFor(claim.enqueue(chapters.map((text: string) => ({ pool: type, payload: { chapter: text } }))));
  }
  expect(results).toEqual([3, 3]);
  expect(await claimsOf(type)).toMatchObject(Array(3).fill({ status: "succeeded", failures: 0 }));
});

interface Ended {
  status: number | null;
  out: string;
  err: string;
}

const hosts = {
  Node: [process.execPath],
  Deno: [denoProgram() ?? "deno", "run", "--allow-net", "--allow-env", "--allow-read", "--allow-sys=hostname"],
};
type Host = keyof typeof hosts;
const loopFile = join(import.meta.dirname, "support", "loop.mjs");

function start(
  command: readonly string[],
  variables: Record<string, string> = {},
): ChildProcess & { ended: Promise<Ended> } {
  const [program = "", ...args] = command;
  const env = {
    ...{
      PATH: process.env.PATH ?? "",
      HOME: folder,
      SUPABASE_URL: stack.url,
      SUPABASE_SERVICE_ROLE_KEY: stack.secretKey,
    },
    ...{ WORK_LEASE_SECONDS: "2", TERM: "xterm", NO_COLOR: "1", ...variables },
  };
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env });
  children.add(child);
  const text = { out: "", err: "" };
  child.stdout.setEncoding("utf8").on("data", (more: string) => {
    text.out += more;
  });
  child.stderr.setEncoding("utf8").on("data", (more: string) => {
    text.err += more;
  });
  const ended = once(child, "close").then(([status]) => {
    children.delete(child);
    return { status, ...text };
  });
  return Object.assign(child, { ended });
}

const heldBy = async (type: string, pid: number | undefined): Promise<boolean> =>
  (
    await sql`select from work_claims where work_type = ${type} and status = 'claimed' and worker_id like ${`%-${pid}-%`}`
  ).length > 0;

describe.each<Host>(["Node", "Deno"])("on %s", (host) => {
  const loop = (type: string, variables = {}): ReturnType<typeof start> =>
    start([...hosts[host], loopFile], { LOOP_TYPE: type, ...variables });

  test("a loop writes nothing of its own where there is no terminal, and its process ends", async () => {
    const type = await typeWith([{}, {}, {}]);
    expect(await loop(type).ended).toEqual({ status: 0, out: "all done\n", err: "" });
    expect(await claimsOf(type)).toMatchObject(Array(3).fill({ status: "succeeded" }));
  });

  test("SIGTERM hands back, and ends the loop with an error", async () => {
    const type = await typeWith([{ hangs: true }, {}]);
    const child = loop(type, { WORK_GRACE_SECONDS: "0" });
    await until(() => heldBy(type, child.pid));
    child.kill("SIGTERM");
    const { status, out } = await child.ended;
    expect({ status, out }).toEqual({ status: 1, out: "" });
    expect(await claimsOf(type)).toMatchObject([{ status: "ready", crashes: 0 }, { status: "ready" }]);
  });

  test("an error in the body ends the process with it, and hands back", async () => {
    const type = await typeWith([{ throws: true }]);
    const { status, err } = await loop(type).ended;
    expect(err).toContain("the body threw");
    expect(status).toBe(1);
    expect(await claimsOf(type)).toMatchObject([{ status: "ready", failures: 0, crashes: 0 }]);
  });

  test("WORK_CLAIMS_DISABLED goes through a list without a project, and refuses a loop without a list", async () => {
    const off = { WORK_CLAIMS_DISABLED: "1", SUPABASE_URL: "", SUPABASE_SERVICE_ROLE_KEY: "" };
    const over = { LOOP_OPTIONS: '{"over": ["a", "b"]}' };
    expect(await loop("plain", { ...off, ...over }).ended).toEqual({ status: 0, out: "all done\n", err: "" });
    const { status, err } = await loop("plain", off).ended;
    expect(err).toContain("WORK_CLAIMS_DISABLED is set and no list (over) is given");
    expect(status).toBe(1);
  });

  test.skipIf(!has("script"))("a loop draws its progress on a terminal, and errors above it", async () => {
    const type = await typeWith([{ ms: 10 }, { ms: 10 }, { throws: true }], { maxFailures: 1 });
    const command = [...hosts[host], loopFile].map((word) => `'${word}'`).join(" ");
    const { out } = await start(["script", "-qec", command, "/dev/null"], { LOOP_TYPE: type }).ended;
    const bars = out.split("\r\x1b[2K").filter((line) => line.startsWith(`${type} `));
    expect(bars.at(-1)).toMatch(/^loop \d+ █+.░+ {2}66 % · 2\/3/);
    expect(out).toContain(`\r\x1b[2Khanded back ${type} `);
  });
});

test("processes share the list of the example, one of them killed and one stopped: each file is done once", async () => {
  const files = Array.from({ length: 400 }, (_, n) => `${n}.txt`);
  for (const file of files) writeFileSync(join(folder, file), file.repeat(100));
  const example = join(packageRoot(), "examples", "loop.mjs");
  const run = (host: Host): ReturnType<typeof start> => start([...hosts[host], example, folder]);
  const killed = run("Node");
  await until(() => heldBy("checksum", killed.pid));
  killed.kill("SIGKILL");
  const stopped = run("Node");
  const others = [run("Node"), run("Deno")];
  await until(async () => stopped.exitCode !== null || (await heldBy("checksum", stopped.pid)));
  stopped.kill("SIGTERM");
  for (const { status, err } of await Promise.all(others.map((child) => child.ended))) {
    expect({ status, err }).toEqual({ status: 0, err: "" });
  }
  const results = (await claimsOf("checksum")).map(({ status, result }) => ({ status, ...(result as object) }));
  expect(results).toHaveLength(400);
  const expected = files.map((name) => {
    const sha256 = createHash("sha256").update(name.repeat(100)).digest("hex");
    return { status: "succeeded", name, sha256 };
  });
  expect(results).toEqual(expect.arrayContaining(expected));
  const [ends] = await sql`
    select sum(successes)::integer as successes
      from (select successes from work.tally_entries where work_type = 'checksum'
            union all
            select amount from work.tallies
             where work_type = 'checksum' and span = 'ever' and measure = 'successes') as all_ends`;
  expect(ends?.successes).toBe(400);
}, 60_000);

test("the example runs without a database", async () => {
  const off = { WORK_CLAIMS_DISABLED: "1", SUPABASE_URL: "", SUPABASE_SERVICE_ROLE_KEY: "" };
  const example = join(packageRoot(), "examples", "loop.mjs");
  expect(await start([process.execPath, example, folder], off).ended).toEqual({ status: 0, out: "", err: "" });
});

test("in the plain loop run() passes errors on, and both it and fail() log", async () => {
  vi.stubEnv("WORK_CLAIMS_DISABLED", "1");
  onTestFinished(() => void vi.unstubAllEnvs());
  const lines: string[] = [];
  const seen: unknown[] = [];
  const plain = async (): Promise<void> => {
    for await (const claim of claims("plain", { over: ["a", "b", "c"], log: (line) => lines.push(line) })) {
      seen.push(claim.item);
      if (claim.item === "a") claim.fail(new Error("odd"));
      if (claim.item === "b") await claim.run(() => Promise.reject(new Error("worse")));
    }
  };
  await expect(plain()).rejects.toThrow("worse");
  expect(lines).toEqual(["failed plain a: odd", "failed plain b: worse"]);
  expect(seen).toEqual(["a", "b"]);
});

test("in the plain loop fail() logs where the loop is left too", async () => {
  vi.stubEnv("WORK_CLAIMS_DISABLED", "1");
  onTestFinished(() => void vi.unstubAllEnvs());
  const lines: string[] = [];
  for await (const claim of claims("plain", { over: ["a"], log: (line) => lines.push(line) })) {
    claim.fail(new Error("odd"));
    break;
  }
  expect(lines).toEqual(["failed plain a: odd"]);
});

test("a plain loop that is left reads no further element", async () => {
  vi.stubEnv("WORK_CLAIMS_DISABLED", "1");
  onTestFinished(() => void vi.unstubAllEnvs());
  async function* stream(): AsyncGenerator<string, void> {
    yield "a";
    await new Promise(() => {});
  }
  const seen: string[] = [];
  for await (const claim of claims("plain", { over: stream() })) {
    seen.push(claim.item);
    break;
  }
  expect(seen).toEqual(["a"]);
});

test("a plain loop judges a payload as it would be stored", async () => {
  vi.stubEnv("WORK_CLAIMS_DISABLED", "1");
  onTestFinished(() => void vi.unstubAllEnvs());
  const dated = defineWork({ name: "dated", payload: z.object({ at: z.string() }), result: z.null() });
  const seen: unknown[] = [];
  const payload = (): { at: string } => ({ at: new Date(0) as unknown as string });
  for await (const claim of claims(dated, { over: ["a"], payload, log: (line) => seen.push(line) })) {
    seen.push(claim.payload);
  }
  expect(seen).toEqual([{ at: "1970-01-01T00:00:00.000Z" }]);
});

describe("until done", () => {
  test("a worker stays for what is due later, which a worker until empty leaves", async () => {
    const type = await typeWith([]);
    const runAfter = new Date(Date.now() + 1500).toISOString();
    await client.enqueueItems([{ pool: type, run_after: runAfter }]);
    const options = { ...project, log: (): void => {} };
    expect(await work(type, () => 1, { ...options, untilEmpty: true })).toMatchObject({ succeeded: 0, why: "empty" });
    expect(await work(type, () => 1, { ...options, untilDone: true })).toMatchObject({ succeeded: 1, why: "empty" });
  });

  test("a worker stays for claims that need other work, which a worker until empty leaves", async () => {
    const first = await typeWith([]);
    await client.defineWorkType(`after ${first}`, { pool: first, dependsOn: [first] });
    await client.enqueueItems([{ pool: first, payload: { text: "a" } }]);
    const workAfter = (more: object): ReturnType<typeof work> =>
      work(`after ${first}`, () => 1, { ...project, log: (): void => {}, idleMaxSeconds: 0.2, ...more });
    expect(await workAfter({ untilEmpty: true })).toMatchObject({ succeeded: 0, why: "empty" });
    const staying = workAfter({ untilDone: true, workerId: "staying" });
    await until(async () => (await sql`select from work_workers where id = 'staying'`).length > 0);
    for await (const claim of claims(project, first, quiet)) claim.close({ text: "b" });
    expect(await staying).toMatchObject({ succeeded: 1, isWorkLeft: false });
    for await (const _ of claims(project, first, quiet)) expect.unreachable();
  });

  test("worker.ts takes --until-done, and exits with 1 where its work type is stopped", async () => {
    const type = await typeWith([{}, {}]);
    const worker = [...hosts.Deno, join(packageRoot(), "workers", "worker.ts"), "--until-done"];
    expect(await start(worker, { WORK_TYPE: type }).ended).toMatchObject({ status: 0 });
    expect(await claimsOf(type)).toMatchObject([{ status: "succeeded" }, { status: "succeeded" }]);
    await client.enqueueItems([{ pool: type }]);
    await sql`update work_types set paused = true, stopped = 'item 3 failed' where name = ${type}`;
    const { status, err } = await start(worker, { WORK_TYPE: type }).ended;
    expect(err).toContain(`${type} is stopped: item 3 failed; hand it out again with`);
    expect(status).toBe(1);
  });
});

test("the line of progress shows pace, other workers and what waits, in the width of the terminal", () => {
  const sum = { work_type: "embed", open: 50, waiting: 0, blocked: 0, done: 48, failed: 2, workers: 4 };
  expect(progressLine(sum, 2.5, 100)).toBe(
    `embed ${"█".repeat(15)}${"░".repeat(15)}  50 % · 50/100 · 2.5/s · 20 s left · 3 other workers · 2 failed`,
  );
  expect(progressLine(sum, 2.5, 40)).toHaveLength(40);
  const later = { ...sum, waiting: 20, blocked: 30, workers: 1 };
  expect(progressLine(later, 2.5, 100)).toMatch(/ {2}50 % · 50\/100 · 50 waiting · 2 failed$/);
  expect(progressLine({ ...sum, open: 0, failed: 0, workers: 0 }, null, 60)).toMatch(/ 100 % · 48\/48$/);
});
