// A worker to copy and fill in. Node 22.18 and later and Deno 2 run it as it is:
//
//   node worker.ts
//   deno run --allow-net --allow-env --allow-sys=hostname worker.ts
//
// It is told by environment variables alone:
//
//   SUPABASE_URL                the project's address, such as https://abcdefgh.supabase.co     (needed)
//   SUPABASE_SERVICE_ROLE_KEY   its service_role key, or a secret key (sb_secret_…)             (needed)
//   WORK_TYPE                   what to do: a work type, or several with commas between          (needed)
//   WORK_POOL                   claim from this pool, also work types that nobody declared;
//                               without it the database picks among the declared work types
//   WORK_CAPABILITIES           what this worker has, as JSON: {"gpu": "a100", "models": ["sdxl"]};
//                               items that require more go to others                      (nothing)
//   WORK_ACCEPTS                a condition on items' labels, as JSON: {"customer": "acme"}   (takes all)
//   WORK_EXCLUSIVE              capabilities too dear for items that do without them: names,
//                               with commas between; such items are left to others
//   WORK_YIELD_SECONDS          for how long they are                                     (for good)
//   WORK_WARM                   affinities whose items come first, with commas between
//   WORK_CONCURRENCY            how many items at once                                    (1)
//   WORK_BATCH                  how many items to ask for at once; more wait their turn     (WORK_CONCURRENCY)
//   WORK_LEASE_SECONDS          after how long without a sign of life others take over    (the work type's)
//   WORK_ID                     this worker's name, unlike any other's                    (host, process, random)
//   WORK_UNTIL_EMPTY            1: leave when nothing is left                             (stay and wait for more)
//   WORK_GRACE_SECONDS          after SIGTERM or SIGINT, how long running items may take  (20)
import { exit } from "./runtime/host.ts";
import { work, workTypesFromEnv } from "./runtime/work.ts";

try {
  await work(workTypesFromEnv(), async (claim, { signal, progress }) => {
    // Your work goes here. What is returned is stored as the result; what is thrown counts as a failed try.
    // Pass the signal on (fetch takes it): it aborts when the claim is lost and going on is of no use.
    progress(0.5);
    signal.throwIfAborted();
    return { done: claim.payload };
  });
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  exit(1);
}
exit(0);
