// A worker to copy and fill in. Node 22.18 and later and Deno 2 run it as it is:
//
//   node worker.ts
//   deno run --allow-net --allow-env --allow-sys=hostname worker.ts
//
// Environment variables are its settings:
//
//   SUPABASE_URL                the project's address, such as https://abcdefgh.supabase.co     (needed)
//   SUPABASE_SERVICE_ROLE_KEY   its service_role key, or a secret key (sb_secret_…)             (needed)
//   WORK_TOKEN                  in place of such a key a token of work-claims token create, which opens its work types
//                               and nothing else; WORK_TOKEN_FILE names a file with it (Deno: --allow-read)
//   SUPABASE_PUBLISHABLE_KEY    the project's public key, or SUPABASE_ANON_KEY                  (needed with a token)
//   WORK_TYPE                   a work type, or several with commas between                     (needed, but with a token)
//   WORK_POOL                   pick candidates from this pool, also for undeclared work types;
//                               without it the database picks among the declared work types
//   WORK_CAPABILITIES           as JSON: {"gpu": "a100", "models": ["sdxl"]};
//                               items that require more go to other workers               (none)
//   WORK_ACCEPTS                a condition on items' labels, as JSON: {"customer": "acme"}   (takes all)
//   WORK_EXCLUSIVE              capabilities too dear for items that do without them: names,
//                               with commas between; such items yield to other workers
//   WORK_YIELD_SECONDS          for how long they yield                                   (for good)
//   WORK_WARM                   affinities whose items come first, with commas between
//   WORK_CONCURRENCY            how many items at once                                    (1)
//   WORK_BATCH                  how many items to claim at once; those without a free handler
//                               wait, and are held               (half a second of work; slow jobs: WORK_CONCURRENCY)
//   WORK_LEASE_SECONDS          the silence after which other workers may claim the item  (the work type's)
//   WORK_ID                     a name different from every other worker's                (host, process, random)
//   WORK_LOG                    json: one JSON object a line, for programs                (pretty)
//   WORK_METRICS_PORT           the port at which Prometheus reads this worker's numbers  (none)
//   WORK_UNTIL_EMPTY            1: leave when nothing is left for it; or start it with --until-empty
//                                                                                         (stay and wait for more)
//   WORK_IDLE_SECONDS           the longest wait between two looks of an idle worker      (15)
//   WORK_GRACE_SECONDS          after SIGTERM or SIGINT, how long running items may take  (20)
//
// Leaving, each only where it is set; docs/running-workers.md says more:
//
//   WORK_MAX_CLAIMS             leave after so many claims
//   WORK_LEAVE_AFTER_SECONDS    claim no more after so long, and leave when what runs has ended
//   WORK_LEAVE_IDLE_SECONDS     leave when there was nothing to do for so long
//   WORK_UNTIL                  done: leave when nothing of its work types is open, also nothing that is due later or waits
//                               for other work; or start it with --until-done
//                               time: leave before WORK_END_TIME (seconds since 1970), else SLURM_JOB_END_TIME
//   WORK_SPOT                   aws, gcp or azure: leave on a notice that the cloud takes the machine back
//   WORK_VERSION                of your worker, such as 1.4.2: it leaves where its work type asks for a newer one
//   WORK_ON_LEAVE               a program to run when it has left by itself, as JSON: ["shutdown", "-h", "now"];
//                               Deno needs --allow-run for it
//
// Exit statuses: 0 nothing is left, 75 (EX_TEMPFAIL) work is left, 78 (EX_CONFIG) a setting or the key is wrong,
// 1 a crash, also of a handler that takes no notice of the end of its time.
import { runAsProgram } from "./runtime/program.ts";
import { optionsFromArguments, work, workTypesFromEnv } from "./runtime/work.ts";

await runAsProgram(() =>
  work(
    workTypesFromEnv(),
    async (claim, { signal, progress }) => {
      // Your work goes here. The returned value is stored as the result; an error counts as a failed try.
      // Pass the signal on (fetch takes it): it aborts when the claim is lost, or takes longer than its work type allows.
      progress(0.5);
      signal.throwIfAborted();
      return { done: claim.payload };
    },
    optionsFromArguments(),
  ),
);
