import { afterAll, expect, onTestFinished, test, vi } from "vitest";
import { z } from "zod";
import { defineWork } from "../src/index.ts";
import { type TestDatabase, testStack } from "../src/testing.ts";

const stack = await testStack();
afterAll(() => stack.stop());

const embed = defineWork({
  name: "embed",
  payload: z.object({ text: z.string().min(1), at: z.coerce.date().optional() }),
  result: z.object({ length: z.number() }),
  lease: 600,
  maxFailures: 2,
  backoffSeconds: 3600,
});

async function declared(): Promise<TestDatabase> {
  const database = await stack.database();
  await embed.declare(database.client);
  return database;
}

test("a drain does all that is ready, and the handler gets the payload as the schema makes it", async () => {
  const { client, drain, close } = await declared();
  const id = await client.enqueue(embed, { text: "four", at: "2030-01-31" as never });
  await client.enqueueMany(embed, [{ text: "a" }, { text: "bb" }]);
  const seen: unknown[] = [];
  const summary = await drain({
    embed: embed.handler((claim) => {
      seen.push(claim.payload.at);
      return { length: claim.payload.text.length };
    }),
  });
  expect(summary).toMatchObject({ succeeded: 3, failed: 0, why: "empty" });
  expect(seen).toEqual([new Date("2030-01-31"), undefined, undefined]);
  expect((await client.result(embed, id))?.result).toEqual({ length: 4 });
  expect(await drain({ embed: embed.handler(() => ({ length: 0 })) })).toMatchObject({ succeeded: 0, failed: 0 });
  await close();
});

test("a payload that does not fit fails at its first try, with the path, and no handler runs", async () => {
  const { client, drain, close } = await declared();
  const [id = ""] = await client.enqueueItems([{ pool: "embed", payload: { text: 7 } }]);
  const { failed } = await drain({
    embed: embed.handler(() => {
      throw new Error("the handler ran");
    }),
  });
  expect(failed).toBe(1);
  expect(await client.result(embed, id)).toMatchObject({
    status: "failed",
    error: expect.stringMatching(/^payload\.text: /),
  });
  await close();
});

test("a result that does not fit is a failure with its path, and is tried again", async () => {
  const { client, clock, drain, close } = await declared();
  const id = await client.enqueue(embed, { text: "four" });
  let tries = 0;
  const handlers = { embed: embed.handler(() => ({ length: tries++ === 0 ? ("four" as never) : 4 })) };
  expect((await drain(handlers)).failed).toBe(1);
  const [waiting] = (await client.claims({ work_type: "embed" })).rows;
  expect(waiting).toMatchObject({ status: "waiting", error: expect.stringMatching(/^result\.length: /) });
  expect((await drain(handlers)).succeeded).toBe(0);
  // The database draws up to a fifth more than the backoff.
  await clock.advance("72 minutes");
  expect((await drain(handlers)).succeeded).toBe(1);
  expect((await client.result(embed, id))?.result).toEqual({ length: 4 });
  await close();
});

test("the clock ends leases: another worker takes over", async () => {
  const { client, clock, drain, close } = await declared();
  await client.enqueue(embed, { text: "four" });
  await client.claimNext(["embed"], "a worker that dies");
  const handlers = { embed: embed.handler(({ payload, crashes }) => ({ length: payload.text.length + crashes })) };
  expect((await drain(handlers)).succeeded).toBe(0);
  await clock.advance(599);
  expect((await drain(handlers)).succeeded).toBe(0);
  await clock.advance(1);
  expect((await drain(handlers)).succeeded).toBe(1);
  await expect(clock.advance("some time")).rejects.toThrow("invalid input syntax");
  await close();
});

test("the clock makes items due that were to wait", async () => {
  const { client, clock, drain, close } = await declared();
  const id = await client.enqueue(embed, { text: "four" }, { runAfter: new Date(Date.now() + 86_400_000) });
  const handlers = { embed: embed.handler(({ payload }) => ({ length: payload.text.length })) };
  await clock.advance("23 hours");
  expect((await drain(handlers)).succeeded).toBe(0);
  await clock.advance("1 hour");
  expect((await drain(handlers)).succeeded).toBe(1);
  expect((await client.result(embed, id))?.status).toBe("succeeded");
  await close();
});

test("two databases of one stack do not meet, and one that is closed is gone", async () => {
  const [one, other] = await Promise.all([declared(), declared()]);
  await one.client.enqueue(embed, { text: "four" });
  expect((await other.client.items()).rows).toEqual([]);
  await one.close();
  await expect(one.client.items()).rejects.toMatchObject({ code: "network", isRetryable: false });
  await other.close();
});

test("an error of a work type without a handler names it", async () => {
  const { drain, close } = await declared();
  await expect(drain({ embed: undefined as never })).rejects.toThrow("the handler of embed is undefined");
  await expect(drain({})).rejects.toThrow("no work type was given");
  await expect(drain({ mbed: () => null })).rejects.toThrow("mbed is not declared");
  await close();
});

test("values are judged as JSON: a date that is read as a text is refused at once", async () => {
  const { client, drain, close } = await stack.database();
  const dated = defineWork({ name: "dated", payload: z.object({ at: z.any() }), result: z.object({ at: z.date() }) });
  const strict = defineWork({ name: "strict", payload: z.object({ at: z.date() }) });
  await dated.declare(client);
  await strict.declare(client);
  await expect(client.enqueue(strict, { at: new Date(0) })).rejects.toThrow(/^payload\.at: /);
  const id = await client.enqueue(dated, { at: new Date(0) });
  expect((await drain({ dated: dated.handler(() => ({ at: new Date(0) })) })).failed).toBe(1);
  expect(await client.result(dated, id)).toMatchObject({ error: expect.stringMatching(/^result\.at: /) });
  await close();
});

test.each([
  ["NUL", "a\0b", "has a character that JSON in Postgres cannot hold"],
  ["half a surrogate pair", "\ud800", "has a character that JSON in Postgres cannot hold"],
  ["a BigInt", 1n, "is no JSON: "],
])("a payload with %s is refused by its place in the stream", async (_, at, message) => {
  const { client, close } = await stack.database();
  const any = defineWork({ name: "any", payload: z.object({ at: z.any() }) });
  await any.declare(client);
  await expect(client.enqueueMany(any, [{ at: 1 }, { at }])).rejects.toThrow(`items[1].payload ${message}`);
  await close();
});

test("a drain leaves when nothing is ready, whatever the environment says of workers", async () => {
  vi.stubEnv("WORK_UNTIL", "done");
  onTestFinished(() => void vi.unstubAllEnvs());
  const { client, drain, close } = await declared();
  await client.enqueue(embed, { text: "four" }, { runAfter: new Date(Date.now() + 86_400_000) });
  expect(await drain({ embed: embed.handler(() => ({ length: 4 })) })).toMatchObject({ succeeded: 0, why: "empty" });
  await close();
});

test("a JSON schema given by hand is declared in place of the library's", async () => {
  const { client, close } = await stack.database();
  const byHand = { type: "object", required: ["text"] };
  const work = defineWork({ name: "by hand", payload: z.any(), payloadSchema: byHand, resultSchema: { type: "null" } });
  expect(await work.declare(client)).toMatchObject({ payload_schema: byHand, result_schema: { type: "null" } });
  await close();
});

test("a word that a rule does not take is an error of types, and refused", async () => {
  const { client, close } = await stack.database();
  // @ts-expect-error
  await expect(client.defineWorkType("words", { history: "none" })).rejects.toThrow("history");
  // @ts-expect-error
  const onChange = defineWork({ name: "words", payload: z.any(), onChange: "never" });
  await expect(onChange.declare(client)).rejects.toThrow("on_change");
  // @ts-expect-error
  await expect(client.defineWorkType("words", { onFailedNeed: "go" })).rejects.toThrow("on_failed_need");
  // @ts-expect-error
  await expect(client.defineWorkType("words", { onDeadEnd: "end" })).rejects.toThrow("on_dead_end");
  await close();
});
