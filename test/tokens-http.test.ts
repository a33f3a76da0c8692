import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { denoProgram } from "../src/demo/processes.ts";
import { addMigration } from "../src/stack/migrations.ts";
import { packageRoot } from "../src/stack/package-root.ts";
import { startStack } from "../src/stack/stack.ts";
import { type Claim, call, typeWithPool } from "./support/calls.ts";
import { createToken } from "./support/tokens.ts";

const folder = mkdtempSync(join(tmpdir(), "work-claims-tokens-"));
const stack = await startStack({
  ephemeral: true,
  grants: "old",
  migrations: async () => {
    await addMigration(folder);
    await addMigration(folder, { name: "work_tokens" });
    return folder;
  },
});
const owner = postgres(stack.dbUrl, { max: 2, onnotice: () => {} });
afterAll(async () => {
  await owner.end();
  await stack.stop();
  rmSync(folder, { recursive: true });
});

const made: string[] = [];
async function fleet(name: string, items: number): Promise<{ type: string; ids: string[]; token: string }> {
  const { type, ids } = await typeWithPool(owner, items);
  const token = await createToken(owner, name, [type]);
  made.push(token);
  return { type, ids, token };
}

interface Answer {
  status: number;
  body: { code?: string; message?: string } & Claim[];
}

async function send(path: string, token?: string, args?: Record<string, unknown>, key = stack.publishableKey) {
  const response = await fetch(`${stack.url}/rest/v1/${path}`, {
    method: args === undefined ? "GET" : "POST",
    headers: {
      apikey: key,
      "content-type": "application/json",
      ...(token === undefined ? {} : { "x-work-token": token }),
    },
    ...(args === undefined ? {} : { body: JSON.stringify(args) }),
  });
  return { status: response.status, body: await response.json() } as Answer;
}

const rpc = (name: string, token?: string, args: Record<string, unknown> = {}, key?: string): Promise<Answer> =>
  send(`rpc/${name}`, token, args, key);

describe("over HTTP", () => {
  test.each(["publishableKey", "anonKey"] as const)("a token works beside the %s", async (name) => {
    const { token, type } = await fleet(`beside-${name}`, 1);
    const { status, body } = await rpc("token_claim_next", token, {}, stack[name]);
    expect([status, body.map((claim) => claim.work_type)]).toEqual([200, [type]]);
    const outcomes = body.map((claim) => ({ ...claim, outcome: "succeeded" }));
    expect(await rpc("token_release_items", token, { outcomes })).toEqual({ status: 200, body: ["succeeded"] });
  });

  test("a token opens nothing without the public key, and nothing more beside the secret key", async () => {
    const { token } = await fleet("with-other-keys", 1);
    expect((await rpc("token_claim_next", token, {}, "")).status).toBe(401);
    expect((await rpc("token_claim_next", token, {}, token)).status).toBe(401);
    expect(await rpc("token_claim_next", token, {}, stack.secretKey)).toMatchObject({
      ...{ status: 403, body: { code: "42501" } },
    });
  });

  test("every refusal of a token is the same answer", async () => {
    const { token } = await fleet("to-be-refused", 1);
    await call(owner, "revoke_token", { worker_name: "to-be-refused" });
    const { token: ended } = await fleet("to-end", 1);
    await owner`update work_tokens set ends_at = clock_timestamp() where worker_name = 'to-end'`;
    const answers = [];
    for (const given of [undefined, "", "x", `wct_${"0".repeat(48)}`, "x".repeat(7000), token, ended]) {
      answers.push(await rpc("token_claim_next", given));
    }
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
    expect(answers[0]).toMatchObject({ status: 401, body: { code: "PT401" } });
  });

  test("a token opens no other function and no table", async () => {
    const { token } = await fleet("curious", 1);
    const functions = await owner<{ name: string; args: Record<string, null> }[]>`
      select p.proname as name,
             (select coalesce(jsonb_object_agg(a.name, null), '{}')
                from unnest(p.proargnames) with ordinality as a(name, n) where a.n <= p.pronargs - p.pronargdefaults) as args
        from pg_proc p
       where p.pronamespace = 'public'::regnamespace and p.proname not like 'token\\_%' and p.proname <> 'work_token_may_upload'`;
    expect(functions.length).toBeGreaterThan(28);
    for (const { name, args } of functions) {
      expect([name, await rpc(name, token, args)]).toMatchObject([name, { status: 401, body: { code: "42501" } }]);
    }
    const relations = await owner`
      select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')`;
    expect(relations.length).toBeGreaterThan(18);
    for (const { name } of relations) {
      expect([name, await send(name, token)]).toMatchObject([name, { status: 401, body: { code: "42501" } }]);
    }
    expect((await send("rpc/hash_of_request", token, {})).status).toBe(404);
  });

  test("a call that waits for longer than anon's limit of three seconds is answered", async () => {
    const { token } = await fleet("patient", 1);
    let answer: Promise<Answer> | undefined;
    await owner.begin(async (transaction) => {
      await transaction`select pg_advisory_xact_lock(work.token_lock_key(sha256(convert_to(${token}, 'UTF8'))))`;
      answer = rpc("token_claim_next", token);
      await transaction`select pg_sleep(3.5)`;
    });
    expect(await answer).toMatchObject({ status: 200, body: [{}] });
  });
});

interface Ran {
  code: number;
  out: string;
  err: string;
}

function execute(file: string, args: string[], env: Record<string, string>): Promise<Ran> {
  return new Promise((resolve) => {
    const options = { cwd: folder, env: { PATH: process.env.PATH ?? "", ...env } };
    execFile(file, args, options, (error, out, err) => resolve({ code: error ? Number(error.code) : 0, out, err }));
  });
}

describe("a worker process with WORK_TOKEN_FILE and the public key alone", () => {
  const tokenFile = join(folder, "token.txt");
  const hosts: [string, string, string[]][] = [
    ["Node", process.execPath, [join(packageRoot(), "dist", "workers", "worker.js")]],
    [
      "Deno",
      denoProgram() ?? "deno",
      [
        ...["run", "--quiet", "--no-config", "--no-lock", "--allow-net", "--allow-env", "--allow-sys=hostname"],
        ...[`--allow-read=${tokenFile}`, join(packageRoot(), "workers", "worker.ts")],
      ],
    ],
  ];

  test.each(hosts)("does the work of its token on %s", async (host, file, args) => {
    const { token, type } = await fleet(`box-${host}`, 7);
    writeFileSync(tokenFile, `${token}\n`);
    const env = {
      SUPABASE_URL: stack.url,
      SUPABASE_PUBLISHABLE_KEY: stack.publishableKey,
      WORK_TOKEN_FILE: tokenFile,
      WORK_ID: "process-1",
      WORK_UNTIL_EMPTY: "1",
    };
    const { code, out, err } = await execute(file, args, env);
    expect(err).toContain(`worker box-${host}:process-1 is ready for ${type}`);
    expect(code).toBe(0);
    const rows =
      await owner`select status, worker_id, count(*)::integer from work_claims where work_type = ${type} group by 1, 2`;
    expect([...rows]).toEqual([{ status: "succeeded", worker_id: `box-${host}:process-1`, count: 7 }]);
    expect(out + err).not.toContain(token);
  });

  test.each(hosts)(
    "ends on %s where its token is revoked, and says why without showing it",
    async (host, file, args) => {
      const { token } = await fleet(`revoked-${host}`, 1);
      await call(owner, "revoke_token", { worker_name: `revoked-${host}` });
      writeFileSync(tokenFile, token);
      const env = { SUPABASE_URL: stack.url, SUPABASE_ANON_KEY: stack.anonKey, WORK_TOKEN_FILE: tokenFile };
      const { code, err } = await execute(file, args, env);
      expect(code).toBe(78);
      expect(err).toContain("token_register_worker: the work token is missing, unknown, ended or revoked");
      expect(err).not.toContain(token);
    },
  );
});

const main = join(packageRoot(), "dist", "src", "cli", "main.js");

describe("the command token", () => {
  const run = (...args: string[]): Promise<Ran> =>
    execute(process.execPath, [main, "token", ...args, "--url", stack.url, "--key", stack.secretKey], {});

  test("makes, lists and revokes a token, and prints it alone and once", async () => {
    const { type } = await typeWithPool(owner, 1);
    const created = await run("create", "by-hand", "--types", `${type}, ${type}`, "--ends", "30d");
    expect(created).toMatchObject({ code: 0, out: expect.stringMatching(/^wct_[0-9a-f]{48}\n$/) });
    const token = created.out.trim();
    made.push(token);
    expect(created.err).toContain("shown this once");
    expect((await rpc("token_claim_next", token)).body).toHaveLength(1);

    const { out } = await run("list");
    expect(out).toMatch(new RegExp(`^by-hand +valid +${type} +\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d +\\d{4}-`, "m"));
    const listed = await run("list", "--json");
    expect(JSON.parse(listed.out).find((row: { worker_name: string }) => row.worker_name === "by-hand")).toMatchObject({
      ...{ work_types: [type], state: "valid", revoked_at: null },
    });
    for (const text of [out, listed.out]) expect(text).not.toMatch(/wct_|hash/);

    expect(await run("revoke", "by-hand")).toMatchObject({
      ...{ code: 0, out: "the token of by-hand is revoked; 1 claim went back\n" },
    });
    expect((await rpc("token_claim_next", token)).status).toBe(401);
    expect((await run("list")).out).toMatch(/^by-hand +revoked/m);
  });

  test.each([
    [[], 2, "create, list or revoke was expected"],
    [["create"], 2, "create takes one name"],
    [["create", "a"], 2, "--types is missing"],
    [["create", "a", "b", "--types", "t"], 2, "create takes one name"],
    [["list", "a"], 2, "list takes no name"],
    [["create", "a:b", "--types", "t"], 1, "worker_name is a:b; a name of 1 to 99 letters"],
    [["create", "a", "--types", "t", "--ends", "soon"], 1, 'invalid input syntax for type interval: "soon"'],
  ])("refuses %j", async (args, code, message) => {
    const ran = await run(...args);
    expect(ran).toMatchObject({ code, out: "" });
    expect(ran.err).toContain(message);
  });
});

test("no log of the stack holds a token", async () => {
  const { token } = await fleet("logged", 1);
  await rpc("token_claim_next", token, { max_items: "x" });
  await rpc("token_nothing", token);
  await rpc("token_extend_claims", token, { held: 7 });
  const logs = readdirSync(join(stack.dataDir, "logs")).map((name) =>
    readFileSync(join(stack.dataDir, "logs", name), "utf8"),
  );
  expect(logs.join("").length).toBeGreaterThan(100);
  expect(made.length).toBeGreaterThan(5);
  for (const each of made) expect(logs.join("")).not.toContain(each);
});

test("the commands and the SQL of the page run as written, take tokens out, and push puts them in again", {
  timeout: 240_000,
}, async () => {
  const page = readFileSync(join(packageRoot(), "docs", "tokens.md"), "utf8").replace(
    "sb_publishable_YOUR_KEY",
    stack.publishableKey,
  );
  const blocks = (language: string): string[] =>
    [...page.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, "gm"))].map(([, text]) => text as string);
  const [install, create, start, end, forget] = blocks("sh") as [string, string, string, string, string];
  const [bySql, policy, takeOut] = blocks("sql") as [string, string, string];
  // npx takes programs from here.
  const programs = join(folder, "node_modules", ".bin");
  mkdirSync(programs, { recursive: true });
  writeFileSync(join(programs, "work-claims"), `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`, {
    mode: 0o755,
  });
  symlinkSync(join(packageRoot(), "node_modules", ".bin", "supabase"), join(programs, "supabase"));
  for (const name of ["worker.ts", "runtime"]) {
    cpSync(join(packageRoot(), "workers", name), join(folder, name), { recursive: true });
  }
  const shell = async (command: string): Promise<string> => {
    const { code, out, err } = await execute("bash", ["-euo", "pipefail", "-c", command], {
      ...{ PATH: `${dirname(denoProgram() ?? "/deno")}:${process.env.PATH}`, HOME: folder },
      ...{ SUPABASE_URL: stack.url, SUPABASE_SERVICE_ROLE_KEY: stack.secretKey, SUPABASE_DB_URL: stack.dbUrl },
      // The worker of the page stays for more; here it leaves.
      ...{ WORK_UNTIL_EMPTY: "1", DENO_NO_PACKAGE_JSON: "1" },
    });
    expect([command, code, err]).toEqual([command, 0, expect.anything()]);
    return out + err;
  };
  const objects = async (): Promise<unknown[]> => [
    ...(await owner`
      select oid::regprocedure::text as name from pg_proc where pronamespace in ('public'::regnamespace, 'work'::regnamespace)
      union all select oid::regclass::text from pg_class where relnamespace in ('public'::regnamespace, 'work'::regnamespace)
      union all select polname || ' on ' || polrelid::regclass from pg_policy union all select rolname from pg_roles order by 1`),
  ];

  for (const type of ["embed", "caption"]) await call(owner, "define_work_type", { work_type: type, pool: "default" });
  await call(owner, "enqueue_items", { items: [{}, {}] });
  const before = await objects();
  await shell(install);
  await shell(create);
  expect(readFileSync(join(folder, "gpu-box.token"), "utf8")).toMatch(/^wct_[0-9a-f]{48}\n$/);
  expect(await shell(start)).toMatch(/worker gpu-box:\S+ ends: 4 succeeded/);
  expect(await shell(end)).toMatch(
    /^gpu-box +valid +caption, embed[\s\S]*the token of gpu-box is revoked; 0 claims went back/m,
  );
  await owner.unsafe(bySql);
  await owner.unsafe("create schema storage; create table storage.objects (bucket_id text, name text)");
  await owner.unsafe(policy);
  await owner.unsafe("drop schema storage cascade");

  await owner.unsafe(takeOut);
  expect(JSON.stringify(await objects())).not.toMatch(/token|"work_worker"/);
  await shell(forget);
  await shell(install);
  expect(await objects()).toEqual(before);
});
