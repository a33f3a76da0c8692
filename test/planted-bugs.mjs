// Plants one bug at a time into the SQL and runs the tests that hold its invariant: `npm run test:planted`, some minutes; with
// words of a bug's name only those bugs, as in `npm run test:planted -- fence`.
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

// The invariant that breaks, the file, the right text, the wrong text, the tests that must fail.
const bugs = [
  [
    "one holder: a claim call takes rows that are held",
    "16_take.sql",
    "c.class_id = lock_lane.class_id and c.work_type = lock_lane.work_type and c.status = 'ready'",
    "c.class_id = lock_lane.class_id and c.work_type = lock_lane.work_type and c.status in ('ready', 'claimed')",
    "claims",
  ],
  [
    "fence: a success needs no fence",
    "19_release.sql",
    "(c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_succeeded.worker_id, g.fence)",
    "(c.status, c.worker_id) is not distinct from ('claimed', close_succeeded.worker_id)",
    "claims leases",
  ],
  [
    "fence: a failure needs no fence",
    "19_release.sql",
    "(c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_others.worker_id, g.fence)",
    "(c.status, c.worker_id) is not distinct from ('claimed', close_others.worker_id)",
    "claims leases model",
  ],
  [
    "fence: a release needs no holder",
    "19_release.sql",
    "(c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_succeeded.worker_id, g.fence)",
    "(c.status, c.fence) is not distinct from ('claimed', g.fence)",
    "claims leases",
  ],
  [
    "fence: a heartbeat needs no fence",
    "20_extend.sql",
    "(c.status, c.worker_id, c.fence) is not distinct from ('claimed', extend_claims.worker_id, g.fence)",
    "(c.status, c.worker_id) is not distinct from ('claimed', extend_claims.worker_id)",
    "leases model",
  ],
  [
    "lease: a lease is taken back before it ends",
    "14_reap.sql",
    "where l.status = 'claimed' and l.expires_at <= moment",
    "where l.status = 'claimed'",
    "leases claims",
  ],
  [
    "poison: a lease that ends is no crash",
    "14_reap.sql",
    "set crashes = c.crashes + 1",
    "set crashes = c.crashes",
    "leases",
  ],
  [
    "poison: a failure is not counted",
    "19_release.sql",
    "failures = c.failures + case g.outcome when 'failed' then 1 else 0 end",
    "failures = c.failures",
    "claims leases",
  ],
  [
    "once: a repeated request claims again",
    "15_requests.sql",
    "  return true;\nend",
    "  return false;\nend",
    "requests",
  ],
  [
    "matching: labels are not looked at",
    "12_profiles.sql",
    " and c.labels @@ profile.accepts_path",
    "",
    "matching-profiles matching-order",
  ],
  [
    "order: a look ahead forgets the priority",
    "16_take.sql",
    "order by ahead.priority desc, ahead.rank, ahead.position",
    "order by ahead.rank, ahead.position",
    "matching-order matching-line",
  ],
  [
    "rights: anon may read a table",
    "99_rights_and_settings.sql",
    "revoke all on %s from public, anon, authenticated, service_role', relation.name);\n    if",
    "revoke all on %s from public, authenticated, service_role', relation.name);\n    if",
    "privileges",
  ],
  [
    "rights: anon may call a function",
    "99_rights_and_settings.sql",
    "execute format('revoke execute on function %s from public, anon, authenticated', function.name);",
    "null;",
    "privileges",
  ],
];

const words = process.argv.slice(2);
const chosen = bugs.filter(([name]) => words.length === 0 || words.some((word) => name.includes(word)));
const copy = mkdtempSync(join(tmpdir(), "work-claims-planted-"));
process.on("exit", () => rmSync(copy, { recursive: true, force: true }));
const listed = execFileSync("git", ["ls-files", "-z", "supabase", "src", "workers", "test", "*.json"], {
  encoding: "utf8",
});
for (const file of listed.split("\0").filter(Boolean)) {
  cpSync(file, join(copy, file));
}
for (const built of ["node_modules", "dist"]) {
  symlinkSync(join(process.cwd(), built), join(copy, built));
}

let missed = 0;
for (const [name, schema, there, planted, tests] of chosen) {
  const file = join(copy, "supabase/schemas", schema);
  const right = readFileSync(file, "utf8");
  if (right.split(there).length !== 2) throw new Error(`${name}: ${schema} does not have this text once: ${there}`);
  writeFileSync(
    file,
    right.replace(there, () => planted),
  );
  const paths = tests.split(" ").map((test) => `test/${test}.test.ts`);
  const run = spawnSync("npx", ["vitest", "run", "--config", "test/vitest.config.ts", "--bail", "1", ...paths], {
    cwd: copy,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
  });
  writeFileSync(file, right);
  // A run that does not reach its tests has caught nothing.
  const by = /FAIL\s+(\S+ > .*)/.exec(run.stdout + run.stderr)?.[1];
  const isCaught = run.status !== 0 && by !== undefined;
  missed += isCaught ? 0 : 1;
  if (!isCaught && run.status !== 0) console.log((run.error ?? run.stdout + run.stderr).toString().slice(-2000));
  console.log(`${isCaught ? "caught" : "MISSED"}: ${name}${isCaught ? `, by ${by}` : ""}`);
}
console.log(`${chosen.length - missed} caught, ${missed} missed`);
process.exitCode = missed > 0 ? 1 : 0;
