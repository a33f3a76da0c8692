// Plants one bug at a time into the migrations and runs the tests that should catch it: `npm run test:planted`, in some ten
// minutes, or with words that a bug's name has, as in `npm run test:planted -- fence lease`.
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

// What the tag of a place is made of, where it is read and where it is written.
const read = "profile.judged_through, asker # (mark.top::bigint << 32) # ";
const written = "profile.judged_through, asker # (front.top::bigint << 32) # ";

/** What it is, in which migration, what stands there, what is planted, and which tests are to notice. */
const bugs = [
  [
    "a release needs no fence",
    "work_release",
    [
      "(c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_claims.worker_id, g.fence)\n    returning c.status",
      "(c.status, c.worker_id) is not distinct from ('claimed', close_claims.worker_id)\n    returning c.status",
    ],
    "claims leases",
  ],
  [
    "a release needs no holder",
    "work_release",
    [
      "(c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_claims.worker_id, g.fence)\n    returning c.status",
      "(c.status, c.fence) is not distinct from ('claimed', g.fence)\n    returning c.status",
    ],
    "claims leases",
  ],
  [
    "a failure needs no fence",
    "work_release",
    [
      "(c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_claims.worker_id, g.fence)\n    returning g.outcome",
      "(c.status, c.worker_id) is not distinct from ('claimed', close_claims.worker_id)\n    returning g.outcome",
    ],
    "claims leases model",
  ],
  [
    "failures are not counted",
    "work_release",
    ["failures = c.failures + case g.outcome when 'failed' then 1 else 0 end", "failures = c.failures"],
    "claims leases",
  ],
  [
    "a wait has no limit",
    "work_release",
    ["least(g.backoff_limit_seconds, g.backoff_seconds", "least(604800, g.backoff_seconds"],
    "leases claims model",
  ],
  [
    "a final failure is tried again",
    "work_release",
    [
      "when g.final or c.failures + 1 >= g.max_failures then 'failed'",
      "when c.failures + 1 >= g.max_failures then 'failed'",
    ],
    "leases claims",
  ],
  [
    "a late release leaves no trace",
    "work_release",
    ["where j.state = 'lost' and j.exists", "where false"],
    "claims leases",
  ],
  [
    "a heartbeat needs no fence",
    "work_extend",
    [
      "(c.status, c.worker_id, c.fence) is not distinct from ('claimed', extend_claims.worker_id, g.fence)",
      "(c.status, c.worker_id) is not distinct from ('claimed', extend_claims.worker_id)",
    ],
    "leases model worker",
  ],
  [
    "a heartbeat extends from the old end of the lease",
    "work_extend",
    ["expires_at = clock_timestamp() + make_interval", "expires_at = c.expires_at + make_interval"],
    "leases model worker",
  ],
  [
    "a heartbeat forgets the progress",
    "work_extend",
    ["coalesce(g.progress, c.progress)", "g.progress"],
    "progress leases model worker",
  ],
  [
    "leases are taken back before they end",
    "work_reap",
    ["where l.status = 'claimed' and l.expires_at <= moment", "where l.status = 'claimed'"],
    "leases claims",
  ],
  ["a lease that ends is no crash", "work_reap", ["set crashes = c.crashes + 1", "set crashes = c.crashes"], "leases"],
  [
    "who takes back leases does not count arrivals",
    "work_reap",
    ["if reaped > 0 then", "if reaped < 0 then"],
    "matching-front",
  ],
  [
    "what is due does not count as arrived",
    "work_reap",
    ["if found then\n      perform work.note_arrivals", "if not found then\n      perform work.note_arrivals"],
    "matching-front",
  ],
  [
    "held claims are claimed by id",
    "work_claim",
    ["where (c.status = 'ready' or", "where (c.status in ('ready', 'claimed') or"],
    "claims",
  ],
  [
    "a repeated claim keeps its fence",
    "work_claim",
    [
      "fence = nextval('work.fence'),\n               request_id = excluded.request_id",
      "fence = c.fence,\n               request_id = excluded.request_id",
    ],
    "claims leases concurrency",
  ],
  [
    "claims by id need no match",
    "work_claim",
    [
      "and (c.class_id = any (profile.class_ids)\n             or (c.class_id",
      "and (true or c.class_id = any (profile.class_ids)\n             or (c.class_id",
    ],
    "matching-profiles matching-order matching-churn",
  ],
  ["a repeated request claims again", "work_requests", ["  return not found;", "  return false;"], "requests"],
  [
    "new items forget their workflow's age",
    "work_claims",
    ["coalesce(w.line, i.seq), i.seq, i.class_id", "i.seq, i.seq, i.class_id"],
    "matching-workflows",
  ],
  [
    "new items forget their workflow's priority",
    "work_claims",
    [
      "         coalesce(w.priority, i.priority), coalesce(w.line, i.seq), i.seq",
      "         i.priority, coalesce(w.line, i.seq), i.seq",
    ],
    "matching-workflows",
  ],
  [
    "new items do not wait",
    "work_claims",
    [
      "case when i.run_after > clock_timestamp() then 'waiting' else 'ready' end,\n         coalesce(w",
      "'ready',\n         coalesce(w",
    ],
    "order enrolling",
  ],
  [
    "new items do not count as arrived",
    "work_claims",
    ["on conflict do nothing;\n  if found then", "on conflict do nothing;\n  if not found then"],
    "matching-front",
  ],
  [
    "one line has no priorities",
    "work_take",
    [
      "order by r.priority desc, r.line, r.position\n              limit take_line.max_items",
      "order by r.line, r.position\n              limit take_line.max_items",
    ],
    "matching-order",
  ],
  [
    "one line waits for locked rows",
    "work_take",
    [
      "limit take_line.max_items\n                for no key update skip locked",
      "limit take_line.max_items\n                for no key update",
    ],
    "order concurrency claims",
  ],
  [
    "one line is handed out while paused",
    "work_take",
    [
      "where t.name = take_line.work_type and not t.paused\n       and c.ctid = any",
      "where t.name = take_line.work_type\n       and c.ctid = any",
    ],
    "order",
  ],
  [
    "one row has no priorities",
    "work_take",
    [
      "order by r.priority desc, r.line, r.position\n              limit 1",
      "order by r.line, r.position\n              limit 1",
    ],
    "order",
  ],
  [
    "one row waits until it is unlocked",
    "work_take",
    ["limit 1\n                for no key update skip locked", "limit 1\n                for no key update"],
    "order",
  ],
  [
    "one row is handed out while paused",
    "work_take",
    [
      "where t.name = take_line.work_type and not t.paused\n       and c.ctid = (",
      "where t.name = take_line.work_type\n       and c.ctid = (",
    ],
    "order",
  ],
  [
    "what is walked past is taken",
    "work_take",
    ["get_bit(matched, least(w.class_id, beyond)) = 1", "true"],
    "matching-front",
  ],
  [
    "a place is for all kinds of workers",
    "work_take",
    [read, "profile.judged_through, (mark.top::bigint << 32) # "],
    [written, "profile.judged_through, (front.top::bigint << 32) # "],
    "matching-front",
  ],
  [
    "a place is for all priorities",
    "work_take",
    [read, "profile.judged_through, asker # "],
    [written, "profile.judged_through, asker # "],
    "matching-front",
  ],
  [
    "a place is for all times",
    "work_take",
    [" # date_part('epoch', clock_timestamp())::bigint)", ")"],
    [" # second)", ")"],
    "matching-front",
  ],
  [
    "a place outlives new classes",
    "work_take",
    [read, "1, asker # (mark.top::bigint << 32) # "],
    [written, "1, asker # (front.top::bigint << 32) # "],
    "matching-front",
  ],
  [
    "a place outlives arrivals",
    "work_take",
    ["tag := hashint8extended(coalesce(pg_sequence_last_value('work.arrivals'), 0),", "tag := hashint8extended(0,"],
    ["tag := hashint8extended(arrivals,", "tag := hashint8extended(0,"],
    "matching-front",
  ],
  [
    "nobody waits for who has arrived to commit",
    "work_take",
    ["elsif oldest >= front.ended_before and", "elsif"],
    "matching-front",
  ],
  [
    "who sees what was before leads the others",
    "work_take",
    [" and current_setting('transaction_isolation') = 'read committed' then", " then"],
    "matching-front",
  ],
  [
    "an empty line is given up for a while",
    "work_take",
    ["case when (seen >= most) is not true then 0 end", "case when seen < most then 0 end"],
    "matching-front",
  ],
  [
    "labels are not looked at",
    "work_profiles",
    [" and c.labels @@ profile.accepts_path", ""],
    "matching-profiles matching-order",
  ],
  [
    "exclusive workers take everything",
    "work_profiles",
    ["profile.exclusive <> '{}' and spared @@ c.path is true as is_spared", "false as is_spared"],
    "matching-profiles matching-order",
  ],
  [
    "a minimum is exceeded",
    "work_requirements",
    ["work.comparison(at, path, '>=', condition)", "work.comparison(at, path, '>', condition)"],
    "requirement matching-profiles",
  ],
  [
    "everybody may call a helper",
    "work_requests",
    ["revoke execute on function work.is_repeated from public, anon, authenticated;", ""],
    "privileges",
  ],
  [
    "everybody may read the requests",
    "work_requests",
    ["alter table work.requests enable row level security;", ""],
    "privileges",
  ],
];

const words = process.argv.slice(2);
const chosen = bugs.filter(([name]) => words.length === 0 || words.some((word) => name.includes(word)));
const copy = mkdtempSync(join(tmpdir(), "work-claims-planted-"));
process.on("exit", () => rmSync(copy, { recursive: true, force: true }));
const files = execFileSync("git", ["ls-files", "-z", "supabase", "src", "workers", "test", "*.json"], {
  encoding: "utf8",
});
for (const file of files.split("\0").filter(Boolean)) {
  cpSync(file, join(copy, file));
}
for (const built of ["node_modules", "dist"]) {
  symlinkSync(join(process.cwd(), built), join(copy, built));
}

const migrations = join(copy, "supabase/migrations");
let missed = 0;
for (const [name, migration, ...rest] of chosen) {
  const file = join(
    migrations,
    readdirSync(migrations).find((each) => each.endsWith(`_${migration}.sql`)),
  );
  const right = readFileSync(file, "utf8");
  let wrong = right;
  for (const [there, planted] of rest.slice(0, -1)) {
    if (wrong.split(there).length !== 2) throw new Error(`${name}: not there once in ${file}: ${there}`);
    wrong = wrong.replace(there, () => planted);
  }
  writeFileSync(file, wrong);
  const tests = rest
    .at(-1)
    .split(" ")
    .map((test) => `test/${test}.test.ts`);
  const run = spawnSync("npx", ["vitest", "run", "--config", "test/vitest.config.ts", "--bail", "1", ...tests], {
    cwd: copy,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
  });
  writeFileSync(file, right);
  // A run that does not get as far as its tests has caught nothing.
  const by = /FAIL\s+(\S+ > .*)/.exec(run.stdout + run.stderr)?.[1];
  const isCaught = run.status !== 0 && by !== undefined;
  missed += isCaught ? 0 : 1;
  if (!isCaught && run.status !== 0) console.log((run.error ?? run.stdout + run.stderr).toString().slice(-2000));
  console.log(`${isCaught ? "caught" : "MISSED"}: ${name}${isCaught ? `, by ${by}` : ""}`);
}
console.log(`${chosen.length - missed} caught, ${missed} missed`);
process.exitCode = missed > 0 ? 1 : 0;
