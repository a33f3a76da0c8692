// The worker's client and its waits.
import { expect, test, vi } from "vitest";
import { fullJitter, idleDelay } from "../workers/runtime/backoff.ts";
import { createClient } from "../workers/runtime/client.ts";
import { isFatal, RequestError } from "../workers/runtime/errors.ts";
import { SettingsError } from "../workers/runtime/host.ts";
import { deadline, heartbeatDelay, isFresh, leaseFrom } from "../workers/runtime/lease.ts";
import { createFakeClock } from "./support/fake-clock.ts";

const jwt = "eyJhbGciOi.eyJyb2xlIjoi.c2lnbmF0dXJl";
const secret = "sb_secret_canary0123456789";

type Sent = { url: string; headers: Record<string, string> };

function recording(answers: (() => Response)[]): { sent: Sent[]; fetch: typeof globalThis.fetch } {
  const sent: Sent[] = [];
  return {
    sent,
    fetch: async (input, init) => {
      sent.push({ url: String(input), headers: init?.headers as Record<string, string> });
      const answer = answers[Math.min(sent.length, answers.length) - 1];
      return answer ? answer() : Response.json(null);
    },
  };
}

const refused = (status: number, code: string, headers: Record<string, string> = {}): Response =>
  Response.json({ code, message: "said so", details: null, hint: "try this" }, { status, headers });

test("a client sends the key as apikey, and as a bearer only if it is a JWT", async () => {
  const { sent, fetch } = recording([]);
  await createClient({ url: "http://stack.test/", key: jwt, fetch }).rpc("claim_next", {});
  await createClient({ url: "http://stack.test/rest/v1", key: secret, fetch }).get("work_items?limit=1");
  expect(sent[0]).toMatchObject({
    url: "http://stack.test/rest/v1/rpc/claim_next",
    headers: { apikey: jwt, authorization: `Bearer ${jwt}` },
  });
  expect(sent[1]?.url).toBe("http://stack.test/rest/v1/work_items?limit=1");
  expect(sent[1]?.headers.apikey).toBe(secret);
  expect(sent[1]?.headers).not.toHaveProperty("authorization");
});

test.each([
  [secret, secret],
  [`${secret}`, "http://stack.test"],
  [`http://user:${secret}@stack.test`, secret],
  [`ftp://${secret}`, secret],
  ["http://stack.test", `${secret}\nx`],
  ["http://stack.test", ""],
])("a client refuses a malformed address or key without showing it", (url, key) => {
  expect(() => createClient({ url, key })).toThrow(/^(?!.*canary)/);
});

test("an error carries the server's status, code, message and hint, without the key", async () => {
  const echo = (): Response =>
    Response.json(
      { code: "PT400", message: `apikey ${secret} is odd`, details: null, hint: "try this" },
      { status: 400 },
    );
  const client = createClient({ url: "http://stack.test", key: secret, fetch: recording([echo]).fetch });
  const error: RequestError = await client.rpc("claim_next", {}).catch((thrown) => thrown);
  expect(error).toBeInstanceOf(RequestError);
  expect(error).toMatchObject({
    status: 400,
    code: "PT400",
    message: "claim_next: apikey [key] is odd",
    hint: "try this",
    isRetryable: false,
  });
});

test.each([
  [() => refused(500, "40P01"), true],
  [() => refused(500, "55P03"), true],
  [() => refused(500, "57014"), true],
  [() => refused(503, "53300"), true],
  [() => refused(503, "PGRST002"), true],
  [() => refused(504, "PGRST003"), true],
  [() => new Response("bad gateway", { status: 502 }), true],
  [() => new Response("error code: 520", { status: 520 }), true],
  [() => new Response("slow down", { status: 429 }), true],
  [() => new Response("oops", { status: 500 }), true],
  [() => new Response('[{"item_id":', { status: 200 }), true],
  [() => new Response("", { status: 200 }), true],
  [() => new Response(null, { status: 204 }), true],
  [() => refused(500, "XX000"), false],
  [() => Response.json({ code: "", message: "", details: null, hint: null }, { status: 400 }), true],
  [() => new Response("bad request", { status: 400 }), false],
  [() => refused(400, "PT400"), false],
  [() => refused(401, "PGRST301"), false],
  [() => refused(403, "42501"), false],
  [() => refused(404, "PGRST202"), false],
  [() => refused(409, "PT409"), false],
  [() => new Response(null, { status: 301, headers: { location: "http://elsewhere.test" } }), false],
])("a client repeats a request after a passing error (%#)", async (answer, isRetried) => {
  const clock = createFakeClock();
  const { sent, fetch } = recording([answer, () => Response.json("done")]);
  const client = createClient({ url: "http://stack.test", key: secret, fetch, clock, random: () => 0.5 });
  const result = await clock.drive(client.rpc("claim_next", {}).catch((error: RequestError) => error.isRetryable));
  expect(result).toBe(isRetried ? "done" : false);
  expect(sent).toHaveLength(isRetried ? 2 : 1);
});

test("a client stops trying at its time limit or at the caller's abort", async () => {
  const clock = createFakeClock();
  const { sent, fetch } = recording([() => refused(503, "")]);
  const client = createClient({ url: "http://stack.test", key: secret, fetch, clock, random: () => 0.5 });
  await expect(clock.drive(client.rpc("x", {}, { retryForMs: 0 }))).rejects.toThrow("said so");
  expect(sent).toHaveLength(1);
  const startedAt = clock.now();
  await expect(clock.drive(client.rpc("x", {}, { retryForMs: 20_000 }))).rejects.toThrow("said so");
  expect(clock.now() - startedAt).toBeLessThanOrEqual(20_000);
  expect(clock.now() - startedAt).toBeGreaterThan(15_000);
  const until = new AbortController();
  clock.at(clock.now() + 3000, () => until.abort());
  const calledOffAt = clock.now() + 3000;
  await expect(clock.drive(client.rpc("x", {}, { until: until.signal }))).rejects.toThrow("said so");
  expect(clock.now()).toBe(calledOffAt);
});

test("a client ends an attempt that gets no answer", async () => {
  const clock = createFakeClock();
  const fetch: typeof globalThis.fetch = (_, init) =>
    new Promise((_, reject) => init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)));
  const client = createClient({ url: "http://stack.test", key: secret, fetch, clock });
  await expect(clock.drive(client.rpc("x", {}, { timeoutMs: 4000, retryForMs: 0 }))).rejects.toMatchObject({
    code: "timeout",
    message: "x: no answer within 4 s",
  });
});

test.each(["NotCapable", "PermissionDenied"])(
  "a client without Deno's permission (%s) makes one attempt and says what to do",
  async (name) => {
    vi.stubGlobal("Deno", {});
    let attempts = 0;
    const fetch: typeof globalThis.fetch = async () => {
      attempts++;
      throw Object.assign(new Error("Requires net access"), { name });
    };
    const client = createClient({ url: "http://stack.test", key: secret, fetch });
    const error: Error = await client.rpc("x", {}).catch((thrown) => thrown);
    vi.unstubAllGlobals();
    expect(error.message).toMatch(/^x: .*--allow-net$/);
    expect(error).toBeInstanceOf(SettingsError);
    expect(isFatal(error)).toBe(true);
    expect(attempts).toBe(1);
  },
);

test("waits grow up to a bound, with a random part", () => {
  expect([0, 1, 2, 3].map((attempt) => fullJitter(attempt, () => 1))).toEqual([100, 200, 400, 800]);
  expect(fullJitter(50, () => 1)).toBe(5000);
  expect(fullJitter(3, () => 0)).toBe(0);
  expect(idleDelay(0, () => 0, 200, 5000)).toBe(100);
  expect(idleDelay(10_000, () => 1, 200, 5000)).toBe(1000);
  expect(idleDelay(1e9, () => 1, 200, 5000)).toBe(5000);
});

test("a lease counts from before its request was sent, less a margin", () => {
  const lease = leaseFrom(1000, 60, () => 0.5);
  expect(lease.beatAt).toBe(21_000);
  expect(deadline(lease)).toBe(56_000);
  expect(deadline(leaseFrom(0, 1, () => 0))).toBe(900);
  expect(heartbeatDelay(60_000, () => 0)).toBe(18_000);
  expect(heartbeatDelay(60_000, () => 1)).toBeCloseTo(22_000);
  expect(isFresh(lease, 30_999)).toBe(true);
  expect(isFresh(lease, 31_000)).toBe(false);
});
