// Edge Functions on the local stack: real Deno processes behind the gateway, ended at limits as Supabase ends isolates.
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { hostedLimits, type Limits } from "../src/stack/isolate.ts";
import { type Stack, startStack } from "../src/stack/stack.ts";
import { waitUntil } from "./support/calls.ts";

let folder: string;
let stack: Stack;
const limits: Partial<Limits> = {};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "work-claims-functions-"));
  await mkdir(join(folder, "functions"));
  await writeFile(
    join(folder, "config.toml"),
    ["open", "slow", "broken", "leaving", "events"]
      .map((name) => `[functions.${name}]\nverify_jwt = false\n`)
      .join("\n"),
  );
  stack = await startStack({ ephemeral: true, functions: { folder, limits } });
});
afterAll(async () => {
  await stack?.stop();
  await rm(folder, { recursive: true, force: true });
});
afterEach(() => Object.assign(limits, hostedLimits));

async function write(name: string, text: string): Promise<void> {
  await mkdir(join(folder, "functions", name), { recursive: true });
  await writeFile(join(folder, "functions", name, "index.ts"), text);
}

const ask = (path: string, init?: RequestInit): Promise<Response> => fetch(`${stack.url}/functions/v1/${path}`, init);

async function refusal(response: Response): Promise<unknown[]> {
  const { message } = (await response.json()) as { message: string };
  return [response.status, response.headers.get("sb-error-code"), message];
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

const answering = (expression: string): string =>
  `Deno.serve(async (request: Request) => Response.json(${expression} ?? null));`;

test("a function has the variables of a hosted one and the person's own, and none of this process", async () => {
  process.env.OF_THIS_PROCESS = "secret";
  await writeFile(join(folder, "functions", ".env"), 'MINE="a b"\nSUPABASE_URL=https://elsewhere.example\n');
  await write("open", answering("Deno.env.toObject()"));
  const env = (await (await ask("open")).json()) as Record<string, string>;
  expect(env).toMatchObject({
    MINE: "a b",
    SUPABASE_URL: stack.url,
    SUPABASE_DB_URL: stack.dbUrl,
    SUPABASE_SECRET_KEYS: JSON.stringify({ default: stack.secretKey }),
    SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: stack.publishableKey }),
    SUPABASE_SERVICE_ROLE_KEY: stack.serviceKey,
    SUPABASE_ANON_KEY: stack.anonKey,
    SB_EXECUTION_ID: expect.stringMatching(/^[0-9a-f-]{36}$/),
  });
  expect(env).not.toHaveProperty("OF_THIS_PROCESS");
});

test("a function gets the path, the query, the headers and the body, and an edit counts at the next request", async () => {
  await write(
    "open",
    answering(
      '[request.method, request.url.replace(/^.*?:\\d+/, ""), request.headers.get("x-own"), await request.text()]',
    ),
  );
  const request = { method: "PUT", headers: { "x-own": "7" }, body: "text" };
  expect(await (await ask("open/a/b?c=d", request)).json()).toEqual(["PUT", "/open/a/b?c=d", "7", "text"]);
  await write("open", answering('"edited"'));
  expect(await (await ask("open")).json()).toBe("edited");
});

test("a function asks for a key unless config.toml says that it does not", async () => {
  await write("closed", answering('"in"'));
  const statuses = async (headers: Record<string, string>): Promise<number> =>
    (await ask("closed", { headers })).status;
  expect(await statuses({})).toBe(401);
  expect(await statuses({ apikey: "guess" })).toBe(401);
  expect(await statuses({ authorization: "Bearer guess" })).toBe(401);
  expect(await statuses({ apikey: stack.publishableKey })).toBe(200);
  expect(await statuses({ authorization: `Bearer ${stack.anonKey}` })).toBe(200);
});

test("a function that does not exist, does not start or does not serve is answered with a sentence", async () => {
  expect(await refusal(await ask("nothing"))).toEqual([
    404,
    "NOT_FOUND",
    expect.stringContaining("functions/nothing/index.ts"),
  ]);
  expect(await refusal(await ask("open.ts"))).toEqual([404, "NOT_FOUND", expect.any(String)]);
  await write("broken", "const x: string = ;");
  expect(await refusal(await ask("broken"))).toEqual([
    503,
    "BOOT_ERROR",
    expect.stringContaining("Expression expected"),
  ]);
  await write("broken", "console.log('I serve nothing');");
  expect(await refusal(await ask("broken"))).toEqual([503, "BOOT_ERROR", expect.stringContaining("I serve nothing")]);
  process.env.DENO_BIN = "/no/deno";
  expect(await refusal(await ask("broken"))).toEqual([
    503,
    "BOOT_ERROR",
    expect.stringContaining("DENO_BIN is /no/deno"),
  ]);
  delete process.env.DENO_BIN;
  await write("broken", answering("1"));
  expect((await ask("broken")).status).toBe(200);
});

test("a request without an answer in time is answered in the function's place", async () => {
  limits.answerMs = 300;
  await write(
    "slow",
    "Deno.serve(() => new Promise((resolve) => setTimeout(() => resolve(new Response('late')), 900)));",
  );
  expect(await refusal(await ask("slow"))).toEqual([504, "IDLE_TIMEOUT", "slow did not answer in time"]);
  expect((await ask("slow/again")).status).toBe(504);
});

test("an isolate whose process dies is replaced, and requests at once start one", async () => {
  await write("open", answering("Deno.pid"));
  const pids = await Promise.all(Array.from({ length: 8 }, async () => (await ask("open")).json() as Promise<number>));
  expect(new Set(pids).size).toBe(1);
  process.kill(pids[0] as number, "SIGKILL");
  await waitUntil(async () => (await (await ask("open")).json()) !== pids[0]);
});

test("a caller that leaves while its function starts does not keep the isolate", async () => {
  await write(
    "leaving",
    `addEventListener("beforeunload", (event: any) => console.log("told", event.detail.reason)); ${answering("Deno.pid")}`,
  );
  const caller = new AbortController();
  const left = ask("leaving", { signal: caller.signal }).catch(() => "left");
  caller.abort();
  expect(await left).toBe("left");
  const pid = (await (await ask("leaving")).json()) as number;
  await write("leaving", answering("0"));
  await ask("leaving");
  await expect.poll(() => isRunning(pid)).toBe(false);
});

test("an isolate is retired at half of its limit, and told of its end at nine tenths", async () => {
  limits.wallClockMs = 1_600;
  await write(
    "events",
    `addEventListener("beforeunload", (event: any) => console.log("told", Deno.pid, event.detail.reason));
     Deno.serve(async () => { EdgeRuntime.waitUntil(new Promise((end) => setTimeout(end, 60_000))); return Response.json(Deno.pid); });`,
  );
  const first = (await (await ask("events")).json()) as number;
  await waitUntil(async () => (await (await ask("events")).json()) !== first);
  await expect.poll(() => isRunning(first)).toBe(false);
  const said = await readFile(join(stack.dataDir, "logs", "function-events.log"), "utf8");
  expect(said.split("\n").filter((line) => line.startsWith(`told ${first} `))).toEqual([`told ${first} wall_clock`]);
});
