import { describe, expect, test } from "vitest";
import {
  type Claim,
  call,
  claimNext,
  endLeases,
  events,
  release,
  someoneWaits,
  stored,
  typeWithItems,
  typeWithPool,
} from "./support/calls.ts";
import { openDatabase, type Sql } from "./support/database.ts";
import { migrate, optionalMigration } from "./support/servers.ts";
import { asRequest, createToken, request } from "./support/tokens.ts";

const { owner, admin, sql, as } = await openDatabase({ tokens: true, grants: "old" });
const anon = as("anon", { max: 3 });

const refusal = "the work token is missing, unknown, ended or revoked; work-claims token create makes one";
let names = 0;

/** A work type with items of its own, and a token for it. */
async function fleet(items = 2): Promise<{ type: string; ids: string[]; name: string; token: string }> {
  const { type, ids } = await typeWithPool(sql, items);
  const name = `fleet-${++names}`;
  return { type, ids, name, token: await createToken(sql, name, [type]) };
}

const claim = (token: string | null, more: Record<string, unknown> = {}): Promise<Claim[]> =>
  request(anon, token, "token_claim_next", more);
const keyOf = ({ item_id, work_type, fence }: Claim) => ({ item_id, work_type, fence });
const close = (token: string, claims: Claim[], outcome: string, more: Record<string, unknown> = {}) =>
  request<string[]>(anon, token, "token_release_items", {
    outcomes: claims.map((each) => ({ ...keyOf(each), outcome, ...more })),
  });
const heartbeat = async (token: string, claims: Claim[], more: Record<string, unknown> = {}) => {
  const answers = await request<{ state: string }[]>(anon, token, "token_extend_claims", {
    held: claims.map(keyOf),
    ...more,
  });
  return answers.map(({ state }) => state);
};

describe("a token", () => {
  test("takes the worker's id from its name and the work types from its row", async () => {
    const { type, ids, name, token } = await fleet(3);
    const registered = await request(anon, token, "token_register_worker", {
      instance: crypto.randomUUID(),
      capabilities: { gpu: "a100" },
      version: "1.4.2",
      worker_suffix: "host-1",
    });
    expect(registered).toEqual({ worker_id: `${name}:host-1`, work_types: [type] });
    const [worker] =
      await owner`select work_types, capabilities, version from work_workers where id = ${`${name}:host-1`}`;
    expect(worker).toEqual({ work_types: [type], capabilities: { gpu: "a100" }, version: "1.4.2" });

    const [first] = (await claim(token, { worker_suffix: "host-1", ttl_seconds: 30 })) as [Claim];
    expect(await stored(owner, ids[0], type)).toMatchObject({ status: "claimed", worker_id: `${name}:host-1` });
    expect(await heartbeat(token, [first], { worker_suffix: "host-1" })).toEqual(["held"]);
    const { released, claimed } = await request<{ released: string[]; claimed: Claim[] }>(
      anon,
      token,
      "token_finish_and_claim",
      { outcomes: [{ ...keyOf(first), outcome: "succeeded", result: [1] }], worker_suffix: "host-1" },
    );
    expect(released).toEqual(["succeeded"]);
    expect(claimed.map((each) => each.item_id)).toEqual([ids[1]]);
    expect(await request(anon, token, "token_retire_worker", { worker_suffix: "host-1" })).toBe(true);
    expect(await stored(owner, ids[1], type)).toMatchObject({ status: "ready" });
    // Without a suffix the name is the id.
    const [last] = (await claim(token)) as [Claim];
    expect(await stored(owner, last.item_id, type)).toMatchObject({ worker_id: name });
  });

  test("repeats a claim call without claiming more", async () => {
    const { token } = await fleet(3);
    const request_id = crypto.randomUUID();
    const first = await claim(token, { request_id });
    expect((await claim(token, { request_id })).map(keyOf)).toEqual(first.map(keyOf));
  });

  test("describes its own work types", async () => {
    const { type, token } = await fleet();
    expect(await request(anon, token, "token_describe_work_types")).toMatchObject([
      { name: type, is_declared: true, has_ready: true },
    ]);
  });

  test("asks what is left of its own work types", async () => {
    const { type, token } = await fleet(2);
    expect(await request(anon, token, "token_work_remaining")).toMatchObject([{ work_type: type, ready: 2, open: 2 }]);
  });

  test("asks about parked claims of its work types and closes them, also those of another worker", async () => {
    const { type, ids, token } = await fleet(1);
    const other = await typeWithPool(sql, 1);
    for (const [each, external_id] of [
      [type, "job of the type"],
      [other.type, "job of another type"],
    ] as const) {
      const [held] = await claimNext(sql, each, "another worker");
      await release(sql, "another worker", held, "parked", { seconds: 600, external_id });
    }
    const parked = await request<{ external_id: string }[]>(anon, token, "token_take_parked");
    expect(parked.map((each) => each.external_id)).toEqual(["job of the type"]);
    const closeParked = (external_id: string) =>
      request(anon, token, "token_release_parked", { external_id, outcome: "succeeded", result: 7 });
    expect(await closeParked("job of another type")).toEqual([]);
    expect(await closeParked("job of the type")).toEqual([{ item_id: ids[0], work_type: type, state: "succeeded" }]);
  });

  test("releases into a table that its worker has no right on, and opens what waits for it", async () => {
    await owner`create schema lab`;
    await owner`create table lab.scans (id int primary key, body text, label text, length int)`;
    await owner`select attach_pool('lab.scans')`;
    await call(sql, "define_work_type", { work_type: "label", pool: "lab.scans", into_column: "scans.label" });
    const next = { work_type: "measure", pool: "lab.scans", into_column: "scans.length", depends_on: ["label"] };
    await call(sql, "define_work_type", { ...next, input_columns: ["label"] });
    const token = await createToken(sql, "scanner", ["label", "measure"]);
    await owner`insert into lab.scans (id, body) values (1, 'a')`;
    const [label] = (await claim(token)) as [Claim];
    expect(label.work_type).toBe("label");
    await owner`update lab.scans set body = 'b'`;
    const reread = await request<Claim>(anon, token, "token_reread_claim", keyOf(label));
    expect(reread.payload).toMatchObject({ body: "b" });
    expect(await close(token, [label], "succeeded", { result: "B" })).toEqual(["succeeded"]);
    const measure = (await claim(token)) as (Claim & { needs: unknown })[];
    expect(measure).toMatchObject([{ work_type: "measure", needs: [{ work_type: "label", result: "B" }] }]);
    expect(await close(token, measure, "succeeded", { result: 1 })).toEqual(["succeeded"]);
    expect(await owner`select * from lab.scans`).toEqual([{ id: 1, body: "b", label: "B", length: 1 }]);
  });

  test("applies results by a function that work_worker may run, and says so where it may not", async () => {
    const { type, token } = await fleet(1);
    await owner.unsafe(`
      create schema hidden;
      create table hidden.applied (result jsonb);
      grant usage on schema hidden to service_role;
      create function hidden.store_result(item jsonb, result jsonb) returns void language sql security definer
        set search_path = public as $$ insert into hidden.applied values (result) $$;
      revoke execute on function hidden.store_result from public;`);
    await call(sql, "define_work_type", { work_type: type, apply: "hidden.store_result" });
    const claims = await claim(token);
    const refused = (what: string): object => ({
      code: "PT422",
      message: `the result was not applied: permission denied for ${what}`,
    });
    const closed = close(token, claims, "succeeded", { result: 1 });
    await expect(closed).rejects.toMatchObject(refused("schema hidden"));
    await owner`grant usage on schema hidden to work_worker`;
    const again = close(token, claims, "succeeded", { result: 1 });
    await expect(again).rejects.toMatchObject(refused("function store_result"));
    await owner`grant execute on function hidden.store_result to work_worker`;
    expect(await close(token, claims, "succeeded", { result: 1 })).toEqual(["succeeded"]);
    expect(await owner`select * from hidden.applied`).toEqual([{ result: 1 }]);
  });

  test("notes its use at most once a minute", async () => {
    const { name, token } = await fleet();
    const used = async () =>
      (await owner`select last_used_at as at from work_tokens where worker_name = ${name}`)[0]?.at;
    expect(await used()).toBeNull();
    await claim(token);
    const first = await used();
    expect(first).not.toBeNull();
    await claim(token);
    expect(await used()).toEqual(first);
    await owner`update work_tokens set last_used_at = last_used_at - interval '61 seconds' where worker_name = ${name}`;
    await claim(token);
    expect((await used()) >= first).toBe(true);
  });
});

describe("a token is refused", async () => {
  const { name: endedName, token: ended } = await fleet();
  const { name: revokedName, token: revoked } = await fleet();
  await owner`update work_tokens set ends_at = clock_timestamp() where worker_name = ${endedName}`;
  await call(sql, "revoke_token", { worker_name: revokedName });
  const reasons: [string, string | null][] = [
    ["missing", null],
    ["empty", ""],
    ["cut short", revoked.slice(0, -1)],
    ["in another case", revoked.toUpperCase()],
    ["unknown", `wct_${"0".repeat(48)}`],
    ["huge", "w".repeat(1_000_000)],
    ["its own hash", "\\x00"],
    ["ended", ended],
    ["revoked", revoked],
  ];
  const calls: [string, Record<string, unknown>][] = [
    ["token_claim_next", {}],
    ["token_describe_work_types", {}],
    ["token_extend_claims", { held: [] }],
    ["token_finish_and_claim", { outcomes: [] }],
    ["token_register_worker", { instance: crypto.randomUUID() }],
    ["token_release_items", { outcomes: [] }],
    ["token_release_parked", { external_id: "x", outcome: "succeeded" }],
    ["token_reread_claim", { item_id: crypto.randomUUID(), work_type: "x", fence: 1 }],
    ["token_retire_worker", {}],
    ["token_take_parked", {}],
    ["token_work_remaining", {}],
  ];

  test.each(reasons)("by every function and with one text where it is %s", async (_, token) => {
    for (const [name, args] of calls) {
      await expect(request(anon, token, name, args)).rejects.toMatchObject({ code: "PT401", message: refusal });
    }
    expect(await request(anon, token, "work_token_may_upload", { name: "a/b/1/c" })).toBe(false);
  });

  test("where the request has no headers at all", async () => {
    await expect(call(anon, "token_claim_next")).rejects.toMatchObject({ code: "PT401", message: refusal });
  });

  test("after the same calls and index scans for each reason", async () => {
    const steps: Record<string, Record<string, number>> = {};
    for (const [reason, token] of reasons) {
      steps[reason] = await asRequest(admin, token, async (transaction) => {
        await transaction`set local track_functions = 'all'`;
        const before = await counted(transaction);
        await transaction.unsafe("do $$ begin perform token_claim_next(); exception when others then null; end $$");
        const after = await counted(transaction);
        return Object.fromEntries(Object.entries(after).map(([name, count]) => [name, count - (before[name] ?? 0)]));
      });
    }
    expect(steps.unknown).toMatchObject({ hash_of_request: 1, valid_token: 1, "scans of work_tokens": 1 });
    for (const [reason] of reasons) {
      expect([reason, steps[reason]]).toEqual([reason, steps.unknown]);
    }

    /** How often this connection has called each function and scanned each table. */
    async function counted(transaction: Sql): Promise<Record<string, number>> {
      const rows = await transaction`
        select funcname as name, calls::integer as count from pg_stat_xact_user_functions
        union all
        select 'scans of ' || relname, (coalesce(seq_scan, 0) + coalesce(idx_scan, 0))::integer from pg_stat_xact_user_tables`;
      return Object.fromEntries(rows.map(({ name, count }) => [name, count]));
    }
  });
});

describe("a token does not reach", () => {
  test("a function or table beside its own", async () => {
    const { token } = await fleet();
    const functions = await admin`
      select p.oid::regprocedure::text as name,
             format('select %s(%s)', p.oid::regproc, (
               select string_agg(format('null::%s', format_type(t.type, null)), ', ' order by t.n)
                 from unnest(p.proargtypes) with ordinality as t(type, n))) as call
        from pg_proc p
       where p.pronamespace in ('public'::regnamespace, 'work'::regnamespace) and p.prorettype <> 'trigger'::regtype
         and not (p.pronamespace = 'public'::regnamespace and p.proname ~ '^(token_|work_token_may_upload$)')`;
    const relations = await admin`
      select oid::regclass::text as name, format('select * from %s', oid::regclass) as call from pg_class
       where relnamespace in ('public'::regnamespace, 'work'::regnamespace) and relkind in ('r', 'v', 'S')`;
    expect(functions.length + relations.length).toBeGreaterThan(150);
    for (const { name, call: text } of [...functions, ...relations]) {
      const tried = asRequest(anon, token, (transaction) => transaction.unsafe(text));
      await expect(tried, name).rejects.toMatchObject({ code: "42501" });
    }
  });

  test("what another token's worker holds, or a worker with its own name and another suffix", async () => {
    const { type, token, ids } = await fleet(1);
    const second = await createToken(sql, `fleet-${++names}`, [type]);
    const [held] = (await claim(token, { worker_suffix: "a" })) as [Claim];
    const before = await stored(owner, ids[0], type);
    for (const [thief, worker_suffix] of [
      [second, undefined],
      [second, "a"],
      [token, undefined],
      [token, "b"],
    ] as const) {
      expect(await heartbeat(thief, [held], { worker_suffix })).toEqual(["lost"]);
      const outcomes = [{ ...keyOf(held), outcome: "succeeded" }];
      expect(await request(anon, thief, "token_release_items", { outcomes, worker_suffix })).toEqual(["lost"]);
      await request(anon, thief, "token_retire_worker", { worker_suffix });
    }
    expect(await stored(owner, ids[0], type)).toEqual(before);
  });

  test("a worker id that it writes into a claim, an outcome or a suffix", async () => {
    const { type, token } = await fleet(1);
    const [held] = (await claim(token)) as [Claim];
    const second = await createToken(sql, `fleet-${++names}`, [type]);
    const outcomes = [{ ...keyOf(held), outcome: "succeeded", worker_id: held.work_type }];
    expect(await request(anon, second, "token_release_items", { outcomes })).toEqual(["lost"]);
    await expect(claim(second, { worker_id: "x" })).rejects.toMatchObject({ code: "42883" });
    for (const worker_suffix of ["", "a:b", "a b", "ä", "a\n", "%", "x".repeat(101)]) {
      await expect(claim(second, { worker_suffix })).rejects.toMatchObject({ code: "PT400" });
    }
    expect(await claim(second, { worker_suffix: "x".repeat(100) })).toEqual([]);
  });

  test("claims of another work type, not even of a worker with the same id", async () => {
    const { type, name, token } = await fleet(1);
    const other = await typeWithPool(sql, 1);
    const [theirs] = (await claimNext(sql, other.type, name)) as [Claim];
    const before = await stored(owner, theirs.item_id, other.type);
    const foreign = { code: "PT403", message: `held is of work type ${other.type}; the token does not open it` };
    await expect(heartbeat(token, [theirs])).rejects.toMatchObject(foreign);
    await expect(close(token, [theirs], "succeeded")).rejects.toMatchObject({ code: "PT403" });
    const outcomes = [{ ...keyOf(theirs), outcome: "failed" }];
    await expect(request(anon, token, "token_finish_and_claim", { outcomes })).rejects.toMatchObject({ code: "PT403" });
    expect(await stored(owner, theirs.item_id, other.type)).toEqual(before);
    expect((await claim(token, { max_items: 10 })).map((each) => each.work_type)).toEqual([type]);
  });

  test("new items or needs in its outcomes, and the payload of another work type", async () => {
    const { token } = await fleet(1);
    const claims = await claim(token);
    const refused = {
      code: "PT400",
      message: expect.stringContaining("a worker with a token adds no items and no needs"),
    };
    await expect(close(token, claims, "succeeded", { items: [{}] })).rejects.toMatchObject(refused);
    await expect(close(token, claims, "snoozed", { seconds: 0, needs: ["a"] })).rejects.toMatchObject(refused);
    const other = await typeWithPool(sql, 1);
    const [theirs] = (await claimNext(sql, other.type, "w")) as [Claim];
    await expect(request(anon, token, "token_reread_claim", keyOf(theirs))).rejects.toMatchObject({ code: "PT403" });
    expect(await close(token, claims, "succeeded")).toEqual(["succeeded"]);
  });

  test("a claim by a fence that is not its current one", async () => {
    const { type, token, ids } = await fleet(1);
    const [old] = (await claim(token)) as [Claim];
    await endLeases(owner, type);
    const [current] = (await claim(token)) as [Claim];
    expect(await close(token, [old], "succeeded")).toEqual(["lost"]);
    expect(await heartbeat(token, [{ ...current, fence: current.fence + 1 }])).toEqual(["lost"]);
    expect(await stored(owner, ids[0], type)).toMatchObject({ status: "claimed", fence: String(current.fence) });
  });

  test.each([
    ["token_release_items", { outcomes: null }],
    ["token_release_items", { outcomes: {} }],
    ["token_release_items", { outcomes: [1, "x", null, []] }],
    ["token_release_items", { outcomes: Array.from({ length: 1001 }, () => ({})) }],
    ["token_extend_claims", { held: "x" }],
    ["token_extend_claims", { held: [{ work_type: null }] }],
    ["token_finish_and_claim", { outcomes: [], max_items: 0 }],
    ["token_claim_next", { ttl_seconds: 86_401 }],
    ["token_take_parked", { every_seconds: 0 }],
    ["token_register_worker", { instance: null }],
  ])("anything by a malformed call of %s (%#)", async (name, args) => {
    const { token } = await fleet(1);
    await expect(request(anon, token, name, args)).rejects.toMatchObject({ code: "PT400" });
  });
});

describe("a revoked token", () => {
  test("is refused at the next heartbeat, and what its workers hold goes back without a try", async () => {
    const { type, ids, name, token } = await fleet(4);
    const other = await createToken(sql, `${name}-2`, [type]);
    await request(anon, token, "token_register_worker", { instance: crypto.randomUUID(), worker_suffix: "a" });
    const [first] = (await claim(token, { worker_suffix: "a" })) as [Claim];
    const [second, third] = (await claim(token, { max_items: 2 })) as [Claim, Claim];
    await close(token, [third], "parked", { external_id: "its job", seconds: 604_800 });
    const [kept] = (await claim(other)) as [Claim];
    expect(await call(sql, "revoke_token", { worker_name: name })).toBe(3);
    await expect(heartbeat(token, [first])).rejects.toMatchObject({ code: "PT401" });
    for (const each of [first, second, third]) {
      expect(await stored(owner, each.item_id, type)).toMatchObject({
        ...{ status: "ready", worker_id: null, failures: 0, crashes: 0, poll_at: null },
      });
      expect(await events(owner, each.item_id, type)).toEqual(["handed_back"]);
    }
    expect(await stored(owner, third.item_id, type)).toMatchObject({ external_id: "its job" });
    expect(await stored(owner, ids[3], type)).toMatchObject({ status: "claimed" });
    expect(await heartbeat(other, [kept])).toEqual(["held"]);
    const [worker] =
      await owner`select retired_at is not null as is_retired from work_workers where id = ${`${name}:a`}`;
    expect(worker?.is_retired).toBe(true);
  });

  test("may be revoked again, and its name is free", async () => {
    const { type, name, token } = await fleet();
    await expect(createToken(sql, name, [type])).rejects.toMatchObject({ code: "PT409" });
    await call(sql, "revoke_token", { worker_name: name });
    expect(await call(sql, "revoke_token", { worker_name: name })).toBe(0);
    const next = await createToken(sql, name, [type]);
    expect(await claim(next)).toHaveLength(1);
    await expect(claim(token)).rejects.toMatchObject({ code: "PT401" });
  });

  test("waits for its calls under way, so that none of them keeps a claim", async () => {
    const { type, ids, name, token } = await fleet(1);
    const revoker = as("service_role");
    let revoked: Promise<unknown> = Promise.resolve();
    await asRequest(anon, token, async (transaction) => {
      expect(await call(transaction, "token_claim_next", { ttl_seconds: 86_400 })).toHaveLength(1);
      revoked = call(revoker, "revoke_token", { worker_name: name });
      await someoneWaits(owner);
    });
    expect(await revoked).toBe(1);
    expect(await stored(owner, ids[0], type)).toMatchObject({ status: "ready" });
  });

  test("locks the claims of its workers in the order of keys, so that it cannot deadlock with a cancelling", async () => {
    const { ids, name, token } = await fleet(8);
    for (const n of ids.keys()) await claim(token, { worker_suffix: `host-${9 - n}` });
    // As cancel_items() locks them: in the order of keys.
    const keys = ids.toSorted();
    let revoked: Promise<unknown> = Promise.resolve();
    await owner.begin(async (transaction) => {
      const lock = (id?: string) => transaction`select from work_claims where item_id = ${id ?? ""} for no key update`;
      await lock(keys[0]);
      revoked = call(as("service_role"), "revoke_token", { worker_name: name });
      await someoneWaits(admin);
      for (const id of keys) await lock(id);
    });
    expect(await revoked).toBe(8);
  });

  test("that nobody made is an error", async () => {
    await expect(call(sql, "revoke_token", { worker_name: "nobody" })).rejects.toMatchObject({ code: "PT404" });
  });
});

describe("create_token", () => {
  test.each([
    [{ worker_name: "a:b" }, "worker_name is a:b; a name of 1 to 99 letters"],
    [{ worker_name: "" }, "worker_name is ; a name"],
    [{ worker_name: null }, "worker_name is null; a name"],
    [{ worker_name: "x".repeat(100) }, "a name of 1 to 99 letters"],
    [{ worker_name: "a", work_types: [] }, "work_types is 0 long; a list of 1 to 100"],
    [{ worker_name: "a", work_types: null }, "work_types is null; a list of 1 to 100"],
    [{ worker_name: "a", work_types: ["nosuch"] }, "work_types is nosuch; declared work types were expected"],
    [{ worker_name: "a", work_types: [null] }, "work_types is a list with null; declared work types"],
    [{ worker_name: "a", work_types: ["t"], ends_in: "-1 day" }, "ends_in is -1 days; a time from now"],
    [{ worker_name: "a", work_types: ["t"], ends_in: "0" }, "ends_in is 00:00:00; a time from now"],
  ])("refuses %j", async (args, message) => {
    await call(sql, "define_work_type", { work_type: "t" });
    await expect(call(sql, "create_token", { work_types: ["t"], ...args })).rejects.toThrow(message);
  });

  test("answers another token each time, of 192 bits, and keeps its hash alone", async () => {
    const { type } = await fleet();
    const made = [];
    for (const _ of [1, 2, 3]) made.push(await createToken(sql, `fleet-${++names}`, [type, type], "30 days"));
    expect(new Set(made).size).toBe(3);
    for (const token of made) {
      expect(token).toMatch(/^wct_[0-9a-f]{48}$/);
      const [row] = await owner`
        select work_types, extract(day from ends_at - created_at)::integer as days from work_tokens
         where hash = sha256(convert_to(${token}, 'UTF8'))`;
      expect(row).toEqual({ work_types: [type], days: 30 });
    }
    const [list] = await owner`select string_agg(l::text, '') as text from work_token_list l`;
    const [hash] = await owner`select encode(hash, 'hex') as text from work_tokens limit 1`;
    for (const secret of [...made, hash?.text]) expect(list?.text).not.toContain(secret);
  });

  test("gives the name of an ended token away again", async () => {
    const { type, name, token } = await fleet();
    await owner`update work_tokens set ends_at = clock_timestamp() where worker_name = ${name}`;
    expect(await createToken(sql, name, [type])).not.toBe(token);
    const states = await owner`select state from work_token_list where worker_name = ${name} order by created_at`;
    expect(states.map((row) => row.state)).toEqual(["revoked", "valid"]);
  });

  test("makes one token of two calls with one name at once", async () => {
    const { type } = await fleet();
    const name = `fleet-${++names}`;
    const made = await Promise.allSettled([createToken(sql, name, [type]), createToken(sql, name, [type])]);
    expect(made.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  });
});

test("an upload is allowed below a claim that the token's worker holds, and nowhere else", async () => {
  // Storage writes a row as anon, with the headers of the request. This table stands in for its own.
  await admin.unsafe(`
    create schema storage;
    grant usage on schema storage to anon, postgres;
    create table storage.objects (bucket_id text, name text, owner text, primary key (bucket_id, name));
    grant insert, select on storage.objects to anon;
    alter table storage.objects owner to postgres;
    alter table storage.objects enable row level security;`);
  await owner.unsafe(
    "create policy workers_upload on storage.objects for insert to anon with check (bucket_id = 'results' and work_token_may_upload(name))",
  );
  const { type, token } = await fleet(2);
  const [held, done] = (await claim(token, { max_items: 2, worker_suffix: "a" })) as [Claim, Claim];
  await request(anon, token, "token_release_items", {
    outcomes: [{ ...keyOf(done), outcome: "succeeded" }],
    worker_suffix: "a",
  });
  const { token: other } = await fleet();
  const upload = (sender: string | null, name: string, bucket = "results") =>
    asRequest(anon, sender, (transaction) => transaction`insert into storage.objects values (${bucket}, ${name})`);
  const folder = `${type}/${held.item_id}/${held.fence}`;
  await upload(token, `${folder}/image.png`);
  await upload(token, `${folder}/more/image.png`);
  const refused: [string | null, string, string?][] = [
    [null, `${folder}/a`],
    ["wct_unknown", `${folder}/a`],
    [other, `${folder}/a`],
    [token, `${folder}/a`, "avatars"],
    [token, `${type}/${held.item_id}/${held.fence + 1}/a`],
    [token, `${type}/${done.item_id}/${done.fence}/a`],
    [token, `other/${held.item_id}/${held.fence}/a`],
    [token, `${folder}/`],
    [token, folder],
    [token, `/${folder}/a`],
    [token, `${type}/not-a-uuid/1/a`],
    [token, `${type}/${held.item_id}/99999999999999999999/a`],
    [token, `${folder}/../a`],
    [token, `${folder}/a/..`],
    [token, `${folder}/./a`],
    [token, ""],
  ];
  for (const [sender, name, bucket] of refused) {
    await expect(upload(sender, name, bucket), name).rejects.toMatchObject({ code: "42501" });
  }
  await owner`update work_tokens set revoked_at = now() where hash = sha256(convert_to(${token}, 'UTF8'))`;
  await expect(upload(token, `${folder}/b`)).rejects.toMatchObject({ code: "42501" });
});

test("no row of any table or view holds a token", async () => {
  const { type, token } = await fleet(2);
  const [held] = (await claim(token)) as [Claim];
  await close(token, [held], "failed", { error: "broken" });
  await close(token, [{ ...held, fence: held.fence + 1 }], "succeeded");
  await expect(close(token, [{ ...held, work_type: "other" }], "succeeded")).rejects.toMatchObject({ code: "PT403" });
  const relations = await admin`
    select oid::regclass::text as name from pg_class
     where relnamespace in ('public'::regnamespace, 'work'::regnamespace) and relkind in ('r', 'v')`;
  for (const { name } of relations) {
    const [row] = await admin.unsafe(`select coalesce(string_agg(t::text, ' '), '') as text from ${name} t`);
    expect(row?.text, name).not.toContain(token.slice(0, 20));
  }
  expect(await events(owner, held.item_id, type)).toContain("stale_release");
});

describe("after an update of work-claims", async () => {
  const { owner: updated, sql: service, as: asRole, url: address } = await openDatabase({ tokens: true });
  const { type } = await typeWithItems(service, 2);
  const token = await createToken(service, "box", [type]);

  test("the migration of tokens gives its rights on replaced functions again", async () => {
    const publicRole = asRole("anon");
    await updated`drop function public.claim_next`;
    await migrate(address);
    await expect(request(publicRole, token, "token_claim_next")).rejects.toMatchObject({ code: "42501" });
    await migrate(address, [optionalMigration("work_tokens")]);
    expect(await request(publicRole, token, "token_claim_next")).toHaveLength(1);
  });

  test("the migrations change nothing the second time, in either order", async () => {
    const before = await rights(updated);
    await migrate(address, [optionalMigration("work_tokens")]);
    expect(await rights(updated)).toEqual(before);
    await migrate(address);
    expect(await rights(updated)).toEqual(before);
  });

  test("a right that the migration does not give to work_worker goes", async () => {
    await updated`grant insert, delete on public.work_types to work_worker`;
    await updated`grant execute on function public.prune_classes(integer) to work_worker`;
    await migrate(address, [optionalMigration("work_tokens")]);
    const [row] = await updated`
      select has_table_privilege('work_worker', 'work_types', 'insert, delete') as table,
             has_function_privilege('work_worker', 'prune_classes(integer)', 'execute') as function`;
    expect(row).toEqual({ table: false, function: false });
  });

  /** All rights, owners and policies. */
  async function rights(connection: Sql): Promise<string[]> {
    const rows = await connection`
      select oid::regclass || ' ' || relowner::regrole || ' ' || coalesce(relacl::text, '') as line from pg_class
       where relnamespace in ('public'::regnamespace, 'work'::regnamespace)
      union all
      select oid::regprocedure || ' ' || proowner::regrole || ' ' || coalesce(proacl::text, '') || coalesce(proconfig::text, '') from pg_proc
       where pronamespace in ('public'::regnamespace, 'work'::regnamespace)
      union all
      select polrelid::regclass || ' ' || polname || ' ' || polroles::text from pg_policy order by 1`;
    // The order of two grants in one list says nothing.
    return rows.map((row) =>
      String(row.line).replace(/\{(.*?)\}/g, (_, list) => String(list).split(",").sort().join()),
    );
  }
});

test("work_worker may run exactly the public functions that the functions of tokens call", async () => {
  const functions = await admin<
    { name: string; schema: string; body: string; is_token: boolean; may: boolean; trigger: boolean }[]
  >`
    select p.proname as name, p.pronamespace::regnamespace::text as schema, p.prosrc as body,
           p.proowner = 'work_worker'::regrole as is_token, p.prorettype = 'trigger'::regtype as trigger,
           has_function_privilege('work_worker', p.oid, 'execute') as may
      from pg_proc p where p.pronamespace in ('public'::regnamespace, 'work'::regnamespace)`;
  const reached = new Set(functions.filter((each) => each.is_token));
  for (const each of reached) {
    const calls = [...each.body.matchAll(/\b(public|work)\.(\w+)\s*\(/g)];
    for (const [, schema, name] of calls) {
      for (const found of functions.filter((other) => other.schema === schema && other.name === name))
        reached.add(found);
    }
  }
  const named = (list: Iterable<{ schema: string; name: string }>) =>
    [...list].flatMap((each) => (each.schema === "public" ? [each.name] : [])).sort();
  expect(named(reached).length).toBeGreaterThan(15);
  // Outcomes of a token add no items.
  expect([...named(functions.filter((each) => each.may)), "enqueue_items"].sort()).toEqual(named(reached));
});
