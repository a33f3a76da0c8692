// The Edge Function work-callback: a provider says, in a signed message, that a job has ended.
import { createHmac, randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { verify } from "../workers/runtime/webhook.ts";
import { claimNext, release, stored, typeWithPool } from "./support/calls.ts";
import { type EdgeProject, openEdgeProject } from "./support/edge-project.ts";

let project: EdgeProject;
const secret = `whsec_${randomBytes(24).toString("base64")}`;
const older = `whsec_${randomBytes(24).toString("base64")}`;

beforeAll(async () => {
  project = await openEdgeProject({ WORK_CALLBACK_SECRET: `"${older} ${secret}"` });
});
afterAll(() => project?.remove());

let jobs = 0;

/** A claim that is parked under a new id of a job elsewhere. */
async function parked(): Promise<{ type: string; item: string; job: string }> {
  const job = `job ${++jobs}`;
  const { type } = await typeWithPool(project.sql, 1);
  const [claim] = await claimNext(project.sql, type, "submitter");
  expect(await release(project.sql, "submitter", claim, "parked", { external_id: job, seconds: 3600 })).toBe("parked");
  return { type, item: claim?.item_id ?? "", job };
}

interface Message {
  id?: string;
  ageSeconds?: number;
  with?: string;
  signatures?: (signature: string) => string;
}

function signed(body: string, message: Message = {}): RequestInit {
  const id = message.id ?? "msg_1";
  const timestamp = String(Math.floor(Date.now() / 1000) - (message.ageSeconds ?? 0));
  const key = Buffer.from((message.with ?? secret).slice("whsec_".length), "base64");
  const signature = `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64")}`;
  return {
    body,
    headers: {
      "webhook-id": id,
      "webhook-timestamp": timestamp,
      "webhook-signature": message.signatures?.(signature) ?? signature,
    },
  };
}

async function send(request: RequestInit): Promise<{ status: number; closed?: number; message?: string }> {
  const response = await project.invoke("work-callback", request);
  return { status: response.status, ...((await response.json()) as object) };
}

const ended = (job: string, more: object = {}): string =>
  JSON.stringify({ external_id: job, outcome: "succeeded", result: { url: "https://a.example/1.png" }, ...more });

test("the example that the libraries of Standard Webhooks share is accepted at its time", async () => {
  const headers = new Headers({
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  });
  const body = new TextEncoder().encode('{"test": 2432232314}');
  expect(await verify(headers, body, ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], 1614265333)).toBe(3);
});

test("a signed message closes the claim with its result", async () => {
  const { type, item, job } = await parked();
  expect(await send(signed(ended(job)))).toEqual({ status: 200, closed: 1 });
  expect(await stored(project.sql, item, type)).toMatchObject({
    ...{ status: "succeeded", result: { url: "https://a.example/1.png" } },
    ...{ failures: 0, crashes: 0 },
  });
});

test("a failure that is final ends the claim, and one that is not gives it another try", async () => {
  const [one, other] = [await parked(), await parked()];
  await send(signed(ended(one.job, { outcome: "failed", error: "no such model", final: true })));
  await send(signed(ended(other.job, { outcome: "failed", error: "too busy" })));
  expect(await stored(project.sql, one.item, one.type)).toMatchObject({ status: "failed", error: "no such model" });
  expect(await stored(project.sql, other.item, other.type)).toMatchObject({ status: "waiting", error: "too busy" });
});

test("a prediction of Replicate closes its claim, and one that still runs leaves it parked", async () => {
  const [done, canceled] = [await parked(), await parked()];
  const prediction = (id: string, status: string): string =>
    JSON.stringify({ id, status, output: ["https://a.example/2.png"], error: null, version: "abc" });
  expect(await send(signed(prediction(done.job, "processing")))).toEqual({ status: 200, closed: 0 });
  expect(await stored(project.sql, done.item, done.type)).toMatchObject({ status: "claimed", external_id: done.job });
  expect(await send(signed(prediction(done.job, "succeeded")))).toEqual({ status: 200, closed: 1 });
  expect(await send(signed(prediction(canceled.job, "canceled")))).toEqual({ status: 200, closed: 1 });
  expect(await stored(project.sql, done.item, done.type)).toMatchObject({
    status: "succeeded",
    result: ["https://a.example/2.png"],
  });
  expect(await stored(project.sql, canceled.item, canceled.type)).toMatchObject({
    status: "waiting",
    error: "the job was canceled",
  });
});

describe("a message is refused, and its claim stays parked,", () => {
  const refused: [string, (body: string) => RequestInit, string][] = [
    ["without headers", (body) => ({ body }), "is missing"],
    ["signed with another secret", (body) => signed(body, { with: `whsec_${btoa("another secret")}` }), "no signature"],
    ["with a changed body", (body) => ({ ...signed(body), body: `${body} ` }), "no signature"],
    [
      "with another id",
      (body) => ({ body, headers: { ...(signed(body).headers as object), "webhook-id": "msg_2" } }),
      "no signature",
    ],
    [
      "with no signature of version 1",
      (body) => signed(body, { signatures: (v1) => v1.replace("v1,", "v1a,") }),
      "no sig",
    ],
    ["with half a signature", (body) => signed(body, { signatures: (v1) => v1.slice(0, 24) }), "no signature"],
    ["with an empty signature", (body) => signed(body, { signatures: () => "v1," }), "no signature"],
    ["with one that is no base64", (body) => signed(body, { signatures: () => "v1,%%%" }), "no signature"],
    ["older than five minutes", (body) => signed(body, { ageSeconds: 302 }), "within 300 seconds of now"],
    ["from the future", (body) => signed(body, { ageSeconds: -320 }), "within 300 seconds of now"],
    [
      "with a time that is no number",
      (body) => ({ body, headers: { ...(signed(body).headers as object), "webhook-timestamp": "today" } }),
      "within 300 seconds of now",
    ],
  ];
  test.each(refused)("%s", async (_, request, sentence) => {
    const { type, item, job } = await parked();
    const answer = await send(request(ended(job)));
    expect([answer.status, answer.message]).toEqual([401, expect.stringContaining(sentence)]);
    expect(await stored(project.sql, item, type)).toMatchObject({ status: "claimed", external_id: job });
  });
});

test("one good signature among several is enough, and each secret counts", async () => {
  const [one, other] = [await parked(), await parked()];
  const wrong = `v1,${randomBytes(32).toString("base64")}`;
  const among = { signatures: (good: string): string => `v2,abc ${wrong} ${good} ${wrong}` };
  expect(await send(signed(ended(one.job), among))).toMatchObject({ closed: 1 });
  expect(await send(signed(ended(other.job), { with: older }))).toMatchObject({ closed: 1 });
});

test("a message that comes again changes nothing", async () => {
  const { type, item, job } = await parked();
  const request = signed(ended(job), { ageSeconds: 70 });
  expect(await send(request)).toEqual({ status: 200, closed: 1 });
  const before = await stored(project.sql, item, type);
  expect(await send(request)).toEqual({ status: 200, closed: 0 });
  expect(await send(signed(ended(job, { outcome: "failed" }), { ageSeconds: 70 }))).toEqual({ status: 200, closed: 0 });
  expect(await stored(project.sql, item, type)).toEqual(before);
});

test("twenty copies of a message at once close its claim once", async () => {
  const { type, item, job } = await parked();
  const request = signed(ended(job), { ageSeconds: 70 });
  const answers = await Promise.all(Array.from({ length: 20 }, () => send(request)));
  expect(answers.map((answer) => answer.closed).sort()).toEqual([...Array(19).fill(0), 1]);
  expect(await stored(project.sql, item, type)).toMatchObject({ status: "succeeded" });
});

test("a job that ends before its claim is parked: the sender is asked to come again, and an old message is let go", async () => {
  const young = await send(signed(ended("a job of tomorrow")));
  expect(young).toEqual({
    status: 503,
    message: expect.stringContaining("nothing is parked under a job of tomorrow yet"),
  });
  expect(await send(signed(ended("a job of tomorrow"), { ageSeconds: 61 }))).toEqual({ status: 200, closed: 0 });
});

test("a message of an unknown form, or none at all, is refused with a sentence", async () => {
  for (const body of [
    "",
    "{",
    "null",
    "[]",
    '{"id": "x"}',
    '{"external_id": 7, "outcome": "succeeded"}',
    ended("x", { outcome: "won" }),
  ]) {
    const answer = await send(signed(body));
    expect([body, answer.status]).toEqual([body, 400]);
    expect(answer.message).toContain("expected was {external_id, outcome, result, error}");
  }
  expect((await send({ method: "GET" })).status).toBe(405);
});

test("a result that the database refuses becomes a failure that says why", async () => {
  const { type, item, job } = await parked();
  expect(await send(signed(ended(job, { result: "x".repeat(1_100_000) })))).toEqual({ status: 200, closed: 1 });
  expect(await stored(project.sql, item, type)).toMatchObject({
    status: "waiting",
    error: expect.stringContaining("the result was refused"),
  });
});

test("a message that is too long is refused whatever its signature, also where it comes in chunks without its length", async () => {
  const text = "x".repeat(2_000_001);
  expect((await send({ body: text })).status).toBe(413);
  const inChunks = { body: new Blob([text]).stream(), duplex: "half" };
  expect((await send(inChunks as RequestInit)).status).toBe(413);
});

test("an id that is too long is refused with a sentence that has no key in it", async () => {
  const answer = await send(signed(ended("x".repeat(501))));
  expect([answer.status, answer.message]).toEqual([400, expect.stringContaining("1 to 500 characters")]);
  expect(JSON.stringify(answer)).not.toContain(project.stack.secretKey);
});

test("without a secret, or with one of another form, the answer says what to set", async () => {
  const { job } = await parked();
  await project.write({}, { WORK_CALLBACK_SECRET: "a password" });
  expect(await send(signed(ended(job)))).toMatchObject({ status: 500, message: expect.stringContaining("whsec_") });
  await project.write({}, {});
  expect(await send(signed(ended(job)))).toMatchObject({
    status: 500,
    message: "WORK_CALLBACK_SECRET is not set (or Deno was not allowed to read it: --allow-env)",
  });
});
