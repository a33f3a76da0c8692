// A worker's key or token: where it comes from, how it is sent, and that no message shows it.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, expect, test, vi } from "vitest";
import { createClient } from "../workers/runtime/client.ts";
import { type CredentialOptions, credentialsFrom } from "../workers/runtime/credentials.ts";
import { SettingsError, type WorkOptions, work, workTypesFromEnv } from "../workers/runtime/work.ts";

const token = `wct_${"c0ffee".repeat(8)}`;
const publicKey = "sb_publishable_canary";
const folder = mkdtempSync(join(tmpdir(), "work-claims-credentials-"));
const file = join(folder, "token.txt");
writeFileSync(file, `${token}\r\n`);
writeFileSync(join(folder, "empty.txt"), "\n");
afterAll(() => rmSync(folder, { recursive: true }));

const variables = ["WORK_TOKEN", "WORK_TOKEN_FILE", "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_ANON_KEY"];
beforeEach(() => {
  for (const name of [...variables, "SUPABASE_SERVICE_ROLE_KEY", "WORK_TYPE"]) vi.stubEnv(name, undefined);
});
afterEach(() => vi.unstubAllEnvs());

function settings(env: Record<string, string>, options: CredentialOptions = {}): (string | null)[] {
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
  const { key, token: found } = credentialsFrom(options);
  return [key, found?.trim() ?? null];
}

const inEnv = { WORK_TOKEN: token, SUPABASE_PUBLISHABLE_KEY: publicKey };

test.each([
  ["WORK_TOKEN and the publishable key", inEnv, {}, [publicKey, token]],
  ["the legacy anon key", { WORK_TOKEN: token, SUPABASE_ANON_KEY: "a.b.c" }, {}, ["a.b.c", token]],
  ["the publishable key before the anon key", { ...inEnv, SUPABASE_ANON_KEY: "a.b.c" }, {}, [publicKey, token]],
  ["the file", { WORK_TOKEN_FILE: file, SUPABASE_PUBLISHABLE_KEY: publicKey }, {}, [publicKey, token]],
  ["WORK_TOKEN before the file", { ...inEnv, WORK_TOKEN_FILE: "/nosuch" }, {}, [publicKey, token]],
  ["a token before a key", { ...inEnv, SUPABASE_SERVICE_ROLE_KEY: "secret" }, {}, [publicKey, token]],
  ["an option before the environment", inEnv, { key: "secret" }, ["secret", null]],
  ["options", {}, { token, publishableKey: publicKey }, [publicKey, token]],
  ["the option token before the option key", inEnv, { token: "other", key: "secret" }, [publicKey, "other"]],
  ["the key alone", { SUPABASE_SERVICE_ROLE_KEY: "secret" }, {}, ["secret", null]],
] as [string, Record<string, string>, CredentialOptions, (string | null)[]][])(
  "a worker takes %s",
  (_, env, options, expected) => {
    expect(settings(env, options)).toEqual(expected);
  },
);

test.each([
  [{}, "SUPABASE_SERVICE_ROLE_KEY is not set"],
  [{ WORK_TOKEN: token }, "SUPABASE_PUBLISHABLE_KEY is not set"],
  [{ WORK_TOKEN: token, SUPABASE_SERVICE_ROLE_KEY: "secret" }, "SUPABASE_PUBLISHABLE_KEY is not set"],
  [{ WORK_TOKEN_FILE: "/nosuch" }, "WORK_TOKEN_FILE names no file that can be read (ENOENT)"],
  [{ WORK_TOKEN_FILE: folder }, "WORK_TOKEN_FILE names no file that can be read (EISDIR)"],
  [{ WORK_TOKEN_FILE: token }, "WORK_TOKEN_FILE names no file that can be read (ENOENT)"],
])("a worker says what is missing (%#)", (env, message) => {
  expect(() => settings(env)).toThrow(new SettingsError(message));
});

const options: WorkOptions = { url: "http://stack.test", handleSignals: false, log: () => {} };

test.each([
  [{ token: "wct canary" }, "the option token is empty or has characters that no token has"],
  [{ token: "" }, "the option token is empty or has characters that no token has"],
  [{ token, publishableKey: "a canary" }, "the option publishableKey is empty or has characters that no key has"],
  [
    { token, pool: "texts" },
    "a token is given and a pool too; a token opens no table to pick candidates from: leave out the pool (WORK_POOL)",
  ],
])("a worker refuses a wrong token, key or pool without showing it (%#)", async (more, message) => {
  vi.stubEnv("SUPABASE_PUBLISHABLE_KEY", publicKey);
  await expect(work([], () => null, { ...options, ...more })).rejects.toThrow(new SettingsError(message));
});

test("a worker refuses an empty token file", async () => {
  vi.stubEnv("SUPABASE_PUBLISHABLE_KEY", publicKey);
  vi.stubEnv("WORK_TOKEN_FILE", join(folder, "empty.txt"));
  const message = "the file that WORK_TOKEN_FILE names is empty or has characters that no token has";
  await expect(work([], () => null, options)).rejects.toThrow(new SettingsError(message));
});

test("WORK_TYPE is needed, but with a token", () => {
  expect(() => workTypesFromEnv()).toThrow("WORK_TYPE is not set");
  vi.stubEnv("WORK_TOKEN_FILE", file);
  expect(workTypesFromEnv()).toEqual([]);
  vi.stubEnv("WORK_TYPE", "embed,caption");
  expect(workTypesFromEnv()).toEqual(["embed", "caption"]);
});

interface Sent {
  url: string;
  headers: Record<string, string>;
  body: unknown;
}

function recording(answer: (url: string) => Response): { sent: Sent[]; fetch: typeof globalThis.fetch } {
  const sent: Sent[] = [];
  return {
    sent,
    fetch: async (input, init) => {
      sent.push({
        url: String(input),
        headers: init?.headers as Record<string, string>,
        body: JSON.parse(String(init?.body ?? "null")),
      });
      return answer(String(input));
    },
  };
}

test("a client with a token calls the token's functions, which take no worker and no work types", async () => {
  const { sent, fetch } = recording(() => Response.json([]));
  const client = createClient({ url: "http://stack.test", key: publicKey, token, workerSuffix: "w1", fetch });
  await client.rpc("claim_next", { worker_id: "w1", work_types: ["embed"], max_items: 2 });
  await client.rpc("describe_work_types", { work_types: ["embed"] });
  expect(sent.map(({ url, body }) => [url, body])).toEqual([
    ["http://stack.test/rest/v1/rpc/token_claim_next", { max_items: 2, worker_suffix: "w1" }],
    ["http://stack.test/rest/v1/rpc/token_describe_work_types", {}],
  ]);
  expect(sent[0]?.headers).toMatchObject({ apikey: publicKey, "x-work-token": token });
  expect(sent[0]?.headers).not.toHaveProperty("authorization");
});

test.each([
  [401, "PT401", "token_claim_next: it says [token] and [key]"],
  [403, "PT403", "token_claim_next: it says [token] and [key]"],
  [
    401,
    "PGRST301",
    "token_claim_next: the key was refused (401, it says [token] and [key]); the project's publishable or anon key is needed",
  ],
  [
    404,
    "PGRST202",
    "token_claim_next is not there: this project takes no tokens; run work-claims init --tokens and supabase db push",
  ],
  [400, "PT400", "token_claim_next: it says [token] and [key]"],
])("an answer %i %s is told without the token and the key", async (status, code, message) => {
  const { fetch } = recording(() => Response.json({ code, message: `it says ${token} and ${publicKey}` }, { status }));
  const client = createClient({ url: "http://stack.test", key: publicKey, token, workerSuffix: "w1", fetch });
  await expect(client.rpc("claim_next", {})).rejects.toThrow(message);
  expect(client.redact(`${token}${publicKey}`)).toBe("[token][key]");
});

test("a worker with other work types than its token's claims nothing", async () => {
  const { sent, fetch } = recording((url) =>
    Response.json(url.endsWith("register_worker") ? { worker_id: "box:w1", work_types: ["caption", "embed"] } : []),
  );
  const lines: string[] = [];
  const more = {
    ...options,
    token,
    publishableKey: publicKey,
    workerId: "w1",
    fetch,
    log: (line: string) => lines.push(line),
  };
  await expect(work("embed", () => null, more)).rejects.toThrow(
    "the worker is for embed and its token for caption, embed; leave out the work types (WORK_TYPE), or make another token",
  );
  const called = sent.map(({ url }) => url.replace(/.*\//, ""));
  expect(called).toContain("token_retire_worker");
  expect(called).not.toContain("token_claim_next");
  const stop = AbortSignal.abort();
  await expect(work(["embed", "caption"], () => null, { ...more, signal: stop })).resolves.toMatchObject({
    workerId: "box:w1",
  });
  expect(lines.join("\n")).toContain("worker box:w1 is ready for caption, embed");
});
