import { execFile } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres, { type Sql } from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { table } from "../src/cli/table.ts";
import { createWorkClient, type WorkClient } from "../src/client.ts";
import { packageRoot } from "../src/stack/package-root.ts";
import { openApi } from "./support/api.ts";

type Ran = { code: number; out: string; err: string };

const stack = await openApi();
const sql: Sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} });
const client: WorkClient = createWorkClient({ url: stack.url, key: stack.secretKey });
const emptyFolder = mkdtempSync(join(tmpdir(), "work-claims-test-"));
afterAll(async () => {
  await sql.end({ timeout: 1 });
  await rm(emptyFolder, { recursive: true, force: true });
});

/** The command as it is installed, in a folder and an environment that know of no project. */
function run(args: string[]): Promise<Ran> {
  const program = join(packageRoot(), "dist", "src", "cli", "main.js");
  return new Promise((resolve) => {
    const options = { cwd: emptyFolder, env: { PATH: process.env.PATH ?? "" } };
    execFile(process.execPath, [program, ...args], options, (error, out, err) => {
      resolve({ code: error ? Number(error.code) : 0, out, err });
    });
  });
}

/** The command, told of the test's project. */
function work(...args: string[]): Promise<Ran> {
  return run([...args, "--url", stack.url, "--key", stack.secretKey]);
}

function attach(...args: string[]): Promise<Ran> {
  return run(["attach", ...args, "--db-url", stack.dbUrl]);
}

describe("without a project", () => {
  test("--help shows each command with an example", async () => {
    const { code, out } = await run(["--help"]);
    expect(code).toBe(0);
    const names = ["up", "down", "init", "attach", "types", "status", "watch", "items", "claims", "workers"];
    for (const name of [
      ...names,
      "explain",
      "history",
      "match",
      "retry",
      "invalidate",
      "cancel",
      "priority",
      "token",
      "fleet",
      "demo",
    ]) {
      expect(out).toMatch(new RegExp(`^  ${name} +\\S.*\\n +\\$ work-claims ${name}`, "m"));
    }
  });

  test("COMMAND --help shows what it takes and an example", async () => {
    const { code, out } = await run(["attach", "--help"]);
    expect(code).toBe(0);
    expect(out).toContain("--run-after COLUMN");
    expect(out).toContain("$ work-claims attach texts --columns body --type embed");
  });

  test("--version is the package's", async () => {
    const { version } = JSON.parse(await readFile(join(packageRoot(), "package.json"), "utf8"));
    expect(await run(["--version"])).toMatchObject({ code: 0, out: `${version}\n` });
  });

  test.each([
    { args: ["atach"], says: "atach is no command" },
    { args: ["status", "--jsno"], says: "--jsno" },
    { args: ["attach"], says: "one table was expected" },
    { args: ["retry"], says: "a work type was expected" },
    { args: ["retry", "a", "--reason", "b"], says: "--reason goes with invalidate" },
    { args: ["invalidate", "a"], says: "or --all for every done claim of a" },
    { args: ["explain"], says: "one item was expected, by its id" },
    { args: ["explain", "nosuch"], says: "nosuch is no item's id; a uuid was expected" },
    { args: ["explain", "\u001b[2J"], says: "\\u001b[2J is no item's id" },
    { args: ["match"], says: "one requirement was expected" },
    { args: ["match", "{gpu: 1}"], says: "the requirement is no JSON: {gpu: 1}" },
    { args: ["match", "[1]"], says: "the requirement is a JSON object" },
    { args: ["match", "{}", "--labels", "vip"], says: "--labels is no JSON: vip" },
    { args: ["watch", "--interval", "never"], says: "--interval is never" },
    { args: ["items", "--where", "pool=", "--limit", "5"], says: "a value was expected" },
    { args: ["claims", "--limit", "0"], says: "--limit is 0" },
    { args: ["workers", "--all", "--limit", "5"], says: "not both" },
    { args: ["items", "pool=texts"], says: "Unexpected argument 'pool=texts'" },
    { args: ["cancel", "embed", "--where", "status=ready", "--all"], says: "one of them only" },
    { args: ["priority", "high", "--where", "status=ready"], says: "the priority is high" },
    { args: ["priority", "5"], says: "which items?" },
  ])("$args is typed wrongly: exit code 2", async ({ args, says }) => {
    const { code, err } = await run(args);
    expect(err).toContain(says);
    expect(code).toBe(2);
  });

  test("a command that needs a project says how to name one: exit code 3", async () => {
    const { code, err } = await run(["status"]);
    expect(err).toContain("SUPABASE_URL");
    expect(code).toBe(3);
  });

  test("a project that does not answer: exit code 3", async () => {
    const nobody = await run(["status", "--url", "http://127.0.0.1:65432", "--key", "sb_secret_x"]);
    expect(nobody.err).toContain("ECONNREFUSED");
    expect(nobody.code).toBe(3);
    const noDatabase = await run(["attach", "texts", "--db-url", "postgresql://postgres@127.0.0.1:65432/postgres"]);
    expect(noDatabase.err).toContain("ECONNREFUSED");
    expect(noDatabase.code).toBe(3);
  });

  test("a key that is refused: exit code 3, and the key is not repeated", async () => {
    const { code, err } = await run(["status", "--url", stack.url, "--key", "sb_secret_wrong"]);
    expect(err).not.toContain("sb_secret_wrong");
    expect(code).toBe(3);
  });
});

describe("attach", () => {
  test("enrols the rows of the table, and those that are inserted later", async () => {
    await sql`create table public.letters (id bigint primary key, body text, rank int, secret text)`;
    await sql`insert into public.letters select n, 'letter ' || n, n, 'x' from generate_series(1, 25) n`;
    const { code, out } = await attach("letters", "--columns", "id, body", "--priority", "rank", "--type", "read");
    expect(out).toContain("letters is the pool letters, with work for read");
    expect(code).toBe(0);
    await sql`insert into public.letters values (26, 'letter 26', 26, 'x')`;
    const [first] = await client.claimNext(["read"], "a worker");
    expect(first).toMatchObject({ source_key: "26", payload: { id: 26, body: "letter 26" } });
    await client.releaseClaimsForWorker("a worker");
  });

  test("again changes the columns, and says so as JSON", async () => {
    await sql`create table public.photos (id uuid primary key default gen_random_uuid(), path text, at timestamptz)`;
    await sql`insert into public.photos (path) values ('a'), ('b')`;
    expect((await attach("photos", "--pool", "pictures")).code).toBe(0);
    const { code, out } = await attach(
      "photos",
      "--pool",
      "pictures",
      "--run-after",
      "at",
      "--type",
      "scale",
      "--json",
    );
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ pool: "pictures", enrolled: 2 });
  });

  test("again without them keeps the columns; '*' gives all, '' forgets one", async () => {
    await sql`create table public.notes (id int primary key, body text, secret text)`;
    const columns = async (): Promise<unknown> =>
      (await sql`select payload_columns from public.work_pools where name = 'notes'`)[0]?.payload_columns;
    await attach("notes", "--columns", "body");
    await attach("notes");
    expect(await columns()).toEqual(["body"]);
    await attach("notes", "--columns", "*", "--priority", "id");
    expect(await columns()).toBe(null);
    const priority = async (): Promise<unknown> =>
      (await sql`select priority_column from public.work_pools where name = 'notes'`)[0]?.priority_column;
    expect(await priority()).toBe("id");
    await attach("notes", "--priority", "");
    expect(await priority()).toBe(null);
  });

  test("sets the columns of requirements, labels, affinity and workflow", async () => {
    await sql`create table public.shots (id int primary key, needs jsonb, shows jsonb, model text, film text)`;
    await sql`insert into public.shots values (1, '{"gpu": "a100"}', '{"tier": "paid"}', 'sdxl', 'Alien')`;
    const columns = ["--requires", "needs", "--labels", "shows", "--affinity", "model", "--workflow", "film"];
    expect((await attach("shots", ...columns, "--type", "draw")).code).toBe(0);
    const [item] = await sql`
      select c.requires, c.labels, i.affinity, w.name as workflow
        from public.work_items i
        join public.work_classes c on c.id = i.class_id
        join public.work_workflows w on w.id = i.workflow_id
       where i.pool = 'shots'`;
    expect(item).toEqual({
      requires: { gpu: "a100" },
      labels: { tier: "paid" },
      affinity: "sdxl",
      workflow: "Alien",
    });
    const wrong = await attach("shots", "--requires", "model");
    expect([wrong.code, wrong.err]).toEqual([1, expect.stringContaining("a column of type jsonb was expected")]);
  });

  test("a first time that cannot be finished is undone, a later one is not", async () => {
    await sql`create table public.drafts (id int primary key)`;
    const attached = async (): Promise<boolean> =>
      (await sql`select from public.work_pools where name = 'drafts' and source is not null`).length > 0;
    const first = await attach("drafts", "--type", "");
    expect([first.code, first.err, await attached()]).toEqual([
      1,
      expect.stringContaining("; the table is detached again\n"),
      false,
    ]);
    expect((await attach("drafts")).code).toBe(0);
    const later = await attach("drafts", "--type", "");
    expect([later.code, later.err, await attached()]).toEqual([
      1,
      expect.stringContaining("; the table stays attached; undo with: select detach_pool('drafts')\n"),
      true,
    ]);
  });

  test.each([
    { table: "Upper", says: `work-claims attach '"Upper"'` },
    { table: "weird table", says: `work-claims attach '"weird table"'` },
    { table: "public.Upper", says: `work-claims attach 'public."Upper"'` },
  ])("attach shows how to quote $table", async ({ table, says }) => {
    const { code, err } = await attach(table);
    expect(err).toContain(says);
    expect(code).toBe(1);
  });

  test("attach accepts a quoted name", async () => {
    await sql`create table public."Weird table" (id int primary key)`;
    expect((await attach('"Weird table"')).code).toBe(0);
  });

  test("a table without a key is refused with its sentence: exit code 1", async () => {
    await sql`create table public.keyless (body text)`;
    const { code, err } = await attach("keyless");
    expect(err).toMatch(/^work-claims attach: .*keyless.*primary key/);
    expect(code).toBe(1);
  });

  test("a table that is not there fails: exit code 1", async () => {
    const { code, err } = await attach("nowhere");
    expect(err).toContain("nowhere");
    expect(code).toBe(1);
  });
});

describe("types", () => {
  test("declares what a type depends on and follows, and takes it away with an empty value", async () => {
    await sql`create table rows_of_types (id bigint primary key, title text, body text, vector jsonb)`;
    await attach("rows_of_types", "--columns", "title,body");
    const pool = ["--pool", "rows_of_types", "--json"];
    expect((await work("types", "cut", ...pool)).code).toBe(0);
    const rules = [
      "--depends-on",
      "cut",
      "--on-failed-need",
      "fail",
      "--input-columns",
      "title, body",
      "--version",
      "2",
    ];
    const into = ["--into", "rows_of_types.vector", "--history", "full", "--keep-events", "50", "--several", "2"];
    const { out } = await work(
      "types",
      "vec",
      ...pool,
      ...rules,
      ...into,
      "--on-dead-end",
      "stop",
      "--on-change",
      "again",
    );
    expect(JSON.parse(out)).toMatchObject({
      ...{
        depends_on: ["cut"],
        on_failed_need: "fail",
        input_columns: ["title", "body"],
        version: 2,
        on_change: "again",
      },
      ...{ into_column: "rows_of_types.vector", history: "full", keep_events: 50, several: 2, on_dead_end: "stop" },
    });
    expect((await work("types")).out).toMatch(/^vec .* cut +title, body +2$/m);
    const without = await work("types", "vec", "--depends-on", "", "--input-columns", "", "--into", "", "--json");
    expect(JSON.parse(without.out)).toMatchObject({ depends_on: [], input_columns: null, into_column: null });
    const wrong = await work("types", "vec", "--depends-on", "nothing");
    expect([wrong.code, wrong.err]).toEqual([
      1,
      expect.stringContaining("there is no such work type; define it before"),
    ]);
    await client.defineWorkType("vec", { paused: true });
    await client.defineWorkType("cut", { paused: true });
  });

  test("declares one, changes it, and lists it", async () => {
    expect((await work("types", "score", "--pool", "default", "--lease", "90")).code).toBe(0);
    const paused = await work("types", "score", "--paused", "--max-failures", "7", "--json");
    expect(JSON.parse(paused.out)).toMatchObject({ name: "score", lease_seconds: 90, max_failures: 7, paused: true });
    const patient = await work("types", "score", "--passed-over", "5", "--json");
    expect(JSON.parse(patient.out)).toMatchObject({ lease_seconds: 90, passed_over_seconds: 5 });
    expect((await work("types", "score", "--no-paused")).code).toBe(0);
    const listed = JSON.parse((await work("types", "--json")).out);
    expect(listed).toContainEqual(expect.objectContaining({ name: "score", pool: "default", paused: false }));
    expect((await work("types")).out).toMatch(/^score +default +90 +7 /m);
  });

  test("enrols the items of the pool", async () => {
    await client.enqueueItems([{ payload: 1 }, { payload: 2 }]);
    await work("types", "translate", "--pool", "default");
    const row = (await client.overview()).find(({ work_type }) => work_type === "translate");
    expect(row?.ready).toBe(2);
  });

  test("a rule out of range is refused by the database: exit code 1", async () => {
    const { code, err } = await work("types", "score", "--lease", "0");
    expect(err).toContain("lease_seconds is 0; 1 to 86400 were expected");
    expect(code).toBe(1);
  });
});

test("status shows each work type and each worker", async () => {
  await client.defineWorkType("weigh");
  await client.registerWorker("scales-1", crypto.randomUUID(), { workTypes: ["weigh"] });
  const { code, out } = await work("status", "--json");
  expect(code).toBe(0);
  const { overview, workers } = JSON.parse(out);
  expect(overview).toContainEqual(expect.objectContaining({ work_type: "weigh", ready: 0 }));
  expect(workers).toContainEqual(expect.objectContaining({ id: "scales-1" }));
  expect((await work("status")).out).toMatch(/^scales-1 +weigh/m);
});

test("status shows a dash where it is not known since when a claim is stuck", async () => {
  const [item = ""] = await client.enqueueItems([{}]);
  await client.claimItems([item], "weigh", "scales-1");
  await sql`update public.work_claims set expires_at = '-infinity' where item_id = ${item} and work_type = 'weigh'`;
  const { out } = await work("status");
  expect(out).toMatch(new RegExp(`^weigh +${item} +its lease has ended and no worker has called since +–$`, "m"));
  await sql`delete from public.work_items where id = ${item}`;
});

/** Conditions as the options that they are typed in. */
const where = (...conditions: string[]): string[] => conditions.flatMap((condition) => ["--where", condition]);

describe("items, claims and workers", () => {
  test("a list shows the rows that match, and as JSON one row a line", async () => {
    await client.defineWorkType("carve");
    const [id = ""] = await client.enqueueItems([{ payload: { wood: "oak" }, dedupe_key: "oak 1" }, {}]);
    await client.claimItems([id], "carve", "carver-1");
    expect((await work("claims", ...where("work_type=carve", "status=claimed"))).out).toMatch(
      new RegExp(`^${id} +carve +claimed +default`, "m"),
    );
    const { code, out } = await work("items", ...where("dedupe_key=oak 1", "payload.wood=oak"), "--json", "--payload");
    expect(code).toBe(0);
    expect(
      out
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line)),
    ).toMatchObject([{ id, payload: { wood: "oak" } }]);
    expect((await work("claims", ...where("work_type=nobody does this"))).out).toBe(
      "no claim fits work_type=nobody does this\n",
    );
  });

  test("a list says that more rows match, and --all shows them page by page", async () => {
    await sql`insert into work_items (pool, priority) select 'default', 77 from generate_series(1, 2100)`;
    const some = await work("items", ...where("priority=77"), "--limit", "3", "--json");
    expect([some.out.trim().split("\n").length, some.err]).toEqual([3, expect.stringContaining("there are more")]);
    const all = await work("items", ...where("priority=77"), "--all", "--json");
    expect([new Set(all.out.trim().split("\n")).size, all.err]).toEqual([2100, ""]);
  });

  test("--order lists the queue as it is claimed, or by any column", async () => {
    await sql`insert into public.work_pools (name) values ('queue')`;
    await client.defineWorkType("queued", { pool: "queue" });
    await client.enqueueItems([1, 9, 5].map((priority) => ({ pool: "queue", priority })));
    const priorities = async (order: string): Promise<number[]> => {
      const { out } = await work("claims", ...where("work_type=queued", "status=ready"), "--order", order, "--json");
      const lines = out.trim().split("\n");
      return lines.map((line) => JSON.parse(line).priority);
    };
    expect(await priorities("queue")).toEqual([9, 5, 1]);
    expect(await priorities("priority")).toEqual([1, 5, 9]);
    const wrong = await work("claims", "--order", "prioritty");
    expect([wrong.code, wrong.err]).toEqual([2, expect.stringContaining("prioritty does not exist")]);
  });

  test("workers shows the free workers, and control characters of a name as plain text", async () => {
    const id = "evil\u001b[2J\u009b31m\nrm -rf";
    await client.registerWorker(id, crypto.randomUUID(), { workTypes: ["carve"], capabilities: { gpu_memory_gb: 24 } });
    const { out } = await work("workers", ...where("free", "capabilities.gpu_memory_gb>=20"));
    expect(out).toContain("evil\\u001b[2J\\u009b31m\\u000arm -rf  free");
    const json = (await work("workers", ...where("free", "capabilities.gpu_memory_gb>=20"), "--json")).out;
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
    expect(json.trimEnd()).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
    expect(JSON.parse(json)).toMatchObject({ id });
  });

  test.each([
    { condition: "stauts=ready", says: "the selector names stauts; a row has item_id" },
    { condition: "status=redy", says: 'status is "redy"; a claim is blocked, waiting, ready' },
    { condition: "priority>high", says: "invalid input syntax for type integer" },
    { condition: "due_at<soon", says: "invalid input syntax for type timestamp" },
  ])("a list refuses $condition and says what it expects: exit code 2", async ({ condition, says }) => {
    const { code, err } = await work("claims", ...where(condition));
    expect(err).toContain(says);
    expect(code).toBe(2);
  });
});

/** A work type with so many items of its own, all failed. */
async function failed(workType: string, count: number): Promise<string[]> {
  await client.defineWorkType(workType, { maxFailures: 1 });
  const ids = await client.enqueueItems(Array.from({ length: count }, () => ({})));
  const claims = await client.claimItems(ids, workType, "a worker");
  await client.releaseItems(
    "a worker",
    claims.map(({ item_id, fence }) => ({ item_id, work_type: workType, fence, outcome: "failed", error: "no" })),
  );
  return ids;
}

test("a table has room for 200,000 rows", () => {
  const rows = Array.from({ length: 200_000 }, (_, n) => [n]);
  expect(table(["n"], rows)).toHaveLength("199999\n".length * 200_002 - 1);
});

describe("watch", () => {
  test("prints plain lines if the output is no terminal, and ends when no claim is open: exit code 1 where some failed", async () => {
    await failed("polish", 3);
    const { code, out, err } = await work("watch", "polish", "--until-done");
    expect(out).toBe("polish: 3/3 (100 %), done, 0 workers, 3 failed\n");
    expect(err).toBe(
      "polish: 3 failed; see them with: work-claims claims --where status=failed --where work_type=polish\n",
    );
    expect(code).toBe(1);
  });

  test("does not wait for a stopped work type, and says why it was stopped: exit code 1", async () => {
    await client.definePool("mill");
    await client.defineWorkType("grind", { pool: "mill" });
    await client.enqueueItems([{ pool: "mill" }]);
    await sql`update work_types set paused = true, stopped = 'item 7 failed' where name = 'grind'`;
    const { code, err } = await work("watch", "grind", "--until-done");
    expect(err).toMatch(/^grind is stopped with 1 open \(item 7 failed\); .*work-claims types grind --no-paused\n$/);
    expect(code).toBe(1);
  });

  test("runs until the last claim has ended", async () => {
    await client.defineWorkType("rinse");
    const [id = ""] = await client.enqueueItems([{}]);
    const [claim] = await client.claimItems([id], "rinse", "a worker");
    const watching = work("watch", "rinse", "--until-done", "--interval", "0.1");
    await client.releaseItem({ item_id: id, work_type: "rinse", fence: claim?.fence ?? 0 }, "a worker", "succeeded");
    const { code, out } = await watching;
    expect(out.trimEnd().split("\n").at(-1)).toContain("rinse: 1/1 (100 %), done");
    expect(code).toBe(0);
  });

  test("does not wait for a paused work type, and says so: exit code 1", async () => {
    await sql`insert into public.work_pools (name) values ('laundry')`;
    await client.defineWorkType("dry", { pool: "laundry", paused: true });
    await client.enqueueItems([{ pool: "laundry" }]);
    const { code, err } = await work("watch", "dry", "--until-done");
    expect(err).toMatch(/^dry is paused with 1 open; .*work-claims types dry --no-paused\n$/);
    expect(code).toBe(1);
  });

  test("a work type that is not there fails: exit code 1", async () => {
    expect((await work("watch", "wrong")).code).toBe(1);
  });
});

describe("retry and cancel", () => {
  test("retry reopens all failed claims", async () => {
    await failed("sand", 4);
    const { code, out } = await work("retry", "sand");
    expect(out).toBe("4 claims of sand retried\n");
    expect(code).toBe(0);
  });

  test("retry reopens the named items only", async () => {
    const [first = ""] = await failed("paint", 3);
    expect(JSON.parse((await work("retry", "paint", first, "--json")).out)).toEqual({ retried: 1 });
  });

  test("retry, cancel and priority count the claims that match, and act only with --yes", async () => {
    await sql`insert into public.work_pools (name) values ('filtered')`;
    await client.defineWorkType("filter a", { pool: "filtered" });
    await client.defineWorkType("filter b", { pool: "filtered" });
    await sql`insert into public.work_items (pool, priority) select 'filtered', n % 2 from generate_series(1, 2400) n`;
    const chosen = where("pool=filtered", "priority=1");
    const statuses = async (): Promise<unknown[]> => {
      const rows = await sql`
        select c.status, c.priority, count(*)::integer from public.work_claims c join public.work_items i on i.id = c.item_id
         where i.pool = 'filtered' group by 1, 2 order by 1, 2`;
      return rows.map((row) => Object.values(row).join(" "));
    };
    const asked = await work("cancel", ...chosen);
    expect([asked.code, asked.out]).toEqual([0, "2400 claims fit; nothing is done yet, --yes cancels them\n"]);
    expect(await statuses()).toEqual(["ready 0 2400", "ready 1 2400"]);
    expect((await work("cancel", ...chosen, "--yes")).out).toBe("2400 claims fit\n2400 claims cancelled\n");
    expect((await work("retry", ...chosen, "--json")).out).toBe('{"fit":0}\n');
    const retried = await work("retry", "filter a", ...chosen, ...where("status=cancelled"), "--yes", "--json");
    expect(JSON.parse(retried.out)).toEqual({ retried: 1200 });
    expect(await statuses()).toEqual(["cancelled 1 1200", "ready 0 2400", "ready 1 1200"]);
    const moved = await work("priority", "8", ...where("pool=filtered", "work_type=filter a"), "--yes");
    expect(moved.out).toBe("2400 claims of 2400 items fit\n2400 items changed\n");
    expect(await statuses()).toEqual(["cancelled 8 1200", "ready 8 3600"]);
  });

  test("invalidate does done work again that matches, with its reason, and acts only with --yes", async () => {
    await sql`insert into public.work_pools (name) values ('old')`;
    await client.defineWorkType("old", { pool: "old" });
    await sql`insert into public.work_items (pool, priority) select 'old', n % 2 from generate_series(1, 2400) n`;
    const finish = async (): Promise<void> => {
      let claims = await client.claimNext(["old"], "w", { maxItems: 1000 });
      while (claims.length > 0) {
        const outcomes = claims.map(({ needs: _, ...claim }) => ({ ...claim, outcome: "succeeded" as const }));
        claims = (await client.finishAndClaim("w", outcomes, ["old"], { maxItems: 1000 })).claimed;
      }
    };
    const stale = async (): Promise<unknown[]> => [
      ...(await sql`select reason, count(*)::integer from work_stale where work_type = 'old' group by 1`),
    ];
    await finish();
    const chosen = ["invalidate", "old", ...where("priority=1")];
    expect((await work(...chosen)).out).toBe("1200 claims fit; nothing is done yet, --yes invalidates them\n");
    expect(await stale()).toEqual([]);
    const { out } = await work(...chosen, "--reason", "the model was wrong", "--yes");
    expect(out).toBe("1200 claims fit\n1200 claims invalidated\n");
    expect(await stale()).toEqual([{ reason: "the model was wrong", count: 1200 }]);
    const listed = await work("claims", ...where("work_type=old", "stale=the model was wrong"), "--limit", "1");
    expect(listed.out).toContain("the model was wrong");
    const [one] = (await client.claims({ work_type: "old", status: "succeeded" }, { limit: 1 })).rows;
    expect((await work("invalidate", "old", one?.item_id ?? "", "--json")).out).toBe('{"invalidated":1}\n');
    expect(await stale()).toContainEqual({ reason: "invalidated by hand", count: 1 });
    await finish();
    expect(await stale()).toEqual([]);
    expect((await work("invalidate", "old", "--all", "--yes", "--json")).out).toBe('{"invalidated":2400}\n');
  });

  test("invalidate refuses a work type that is not there", async () => {
    const refused = await work("invalidate", "nosuch", "--all");
    expect(refused.code).toBe(1);
    expect(refused.err).toContain("nosuch");
    expect(refused.out).toBe("");
  });

  test("cancel wants items or --all: exit code 2", async () => {
    const { code, err } = await work("cancel", "sand");
    expect(err).toContain("--all");
    expect(code).toBe(2);
  });

  test("cancel --all makes as many calls as it needs", async () => {
    await sql`insert into public.work_pools (name) values ('many') on conflict do nothing`;
    await client.defineWorkType("sweep", { pool: "many" });
    await sql`insert into public.work_items (pool) select 'many' from generate_series(1, 2500)`;
    const { out } = await work("cancel", "sweep", "--all");
    expect(out).toBe("2500 claims of sweep cancelled\n");
  });

  test("an id that is no uuid fails: exit code 1", async () => {
    expect((await work("retry", "sand", "17")).code).toBe(1);
  });
});

describe("explain and match", () => {
  test("explain says why an item is not running, and how close the workers are", async () => {
    await sql`insert into public.work_pools (name) values ('renders')`;
    await client.defineWorkType("render", { pool: "renders" });
    const { rows } = await enqueue("renders", { requires: { gpu_memory_gb: 80 } });
    await client.registerWorker("gpu-7", crypto.randomUUID(), {
      workTypes: ["render"],
      capabilities: { gpu_memory_gb: 24 },
    });
    const { code, out } = await work("explain", rows[0] ?? "");
    expect(out).toMatch(
      /^render is ready since \d+ s; it is the head of its lane\. The only live worker that does render cannot run it\. It needs gpu_memory_gb >= 80; closest live worker gpu-7 has 24; 1 worker fails only on this\.\n$/,
    );
    expect(code).toBe(0);
    const asJson = await work("explain", rows[0] ?? "", "--type", "render", "--json");
    expect(JSON.parse(asJson.out).claims).toMatchObject([{ status: "ready", before: 0, workers: { matching: 0 } }]);
  });

  test("explain of an item that is not there fails with its sentence: exit code 1", async () => {
    const { code, err } = await work("explain", "00000000-0000-0000-0000-000000000000");
    expect(err).toContain("there is no such item");
    expect(code).toBe(1);
  });

  test("match names the workers that can run an item, and says why the others cannot", async () => {
    for (const gb of [16, 48]) {
      await client.registerWorker(`paints-${gb}`, crypto.randomUUID(), {
        workTypes: ["draw"],
        capabilities: { gpu_memory_gb: gb },
      });
    }
    const { code, out } = await work("match", '{"gpu_memory_gb": 20}', "--type", "draw");
    expect(out.split("\n")).toEqual([
      "gpu_memory_gb >= 20",
      "1 of the 2 live workers that do draw can run it. It needs gpu_memory_gb >= 20; closest live worker paints-16 has 16; 1 worker fails only on this.",
      "can run it: paints-48",
      "",
    ]);
    expect(code).toBe(0);
    const asJson = await work("match", "{}", "--labels", '{"customer": "acme"}', "--type", "draw", "--json");
    expect(JSON.parse(asJson.out)).toMatchObject({ matching: 2, matching_workers: ["paints-16", "paints-48"] });
  });

  test("match refuses a bad requirement and names its wrong part: exit code 1", async () => {
    const { code, err } = await work("match", '{"gpu": null}');
    expect(err).toContain("requires.gpu is null; expected a text, a number, a boolean, a list or an object");
    expect(code).toBe(1);
  });

  test("names with control characters are printed as plain text", async () => {
    const name = "evil\u001b[2J\u202e\u061c\u009b";
    await client.registerWorker(name, crypto.randomUUID(), { workTypes: ["steer"] });
    const { out } = await work("match", "{}", "--type", "steer");
    expect(out).toContain("can run it: evil\\u001b[2J\\u202e\\u061c\\u009b\n");
    const asJson = await work("match", "{}", "--type", "steer", "--json");
    expect(asJson.out).toContain("evil\\u001b[2J\\u202e\\u061c\\u009b");
    expect(JSON.parse(asJson.out).matching_workers).toEqual([name]);
  });
});

/** Items of a pool with what they require. */
async function enqueue(pool: string, item: object): Promise<{ rows: string[] }> {
  const [row] = await sql`select public.enqueue_items(${sql.json([{ pool, ...item }])}) as rows`;
  return { rows: row?.rows ?? [] };
}
