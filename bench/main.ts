import { availableParallelism } from "node:os";
import { type Contestant, connections, contest } from "./contest.ts";
import { dag } from "./dag.ts";
import { completionsGathered, graphileWorker, localQueue, oneByOne } from "./graphile.ts";
import { workClaimsHttp } from "./http.ts";
import { describeInstance, type Instance, openInstance, settle } from "./instance.ts";
import { claimLatency, latencyTable } from "./latency.ts";
import { matching } from "./matching.ts";
import { help, isWanted, type Options, readOptions } from "./options.ts";
import { overhead } from "./overhead.ts";
import { pgBoss } from "./pg_boss.ts";
import { pgmq } from "./pgmq.ts";
import { rawUpdates } from "./raw.ts";
import { runtime } from "./runtime.ts";
import { scale } from "./scale.ts";
import { idleToStart } from "./start.ts";
import { rateTable } from "./table.ts";
import { asOtherVersion, workClaimsGathered, workClaimsSql } from "./work_claims.ts";

const options = readOptions(process.argv.slice(2));
if (options) {
  const instance = await openInstance(options, console.error);
  try {
    await bench(instance, options);
  } finally {
    await instance.stop();
  }
} else {
  console.log(help);
}

async function bench(instance: Instance, options: Options): Promise<void> {
  const started = performance.now();
  const tell = (line: string) => console.error(`${Math.round((performance.now() - started) / 1000)} s: ${line}`);
  const settled = (dbUrl: string) => settle(instance.adminUrl, dbUrl);
  const contestants = everyone(instance, options).filter((contestant) => isWanted(options, contestant.name));
  const tables: string[] = [];
  try {
    if (contestants.length > 0) tables.push(rateTable(await contest(contestants, settled, options, tell)));
    if (isWanted(options, "latency")) {
      tables.push(latencyTable(await claimLatency(instance.dbUrl, options.finished, settled, tell)));
    }
    if (isWanted(options, "start") && instance.api) {
      tables.push(await idleToStart(instance.dbUrl, instance.api, tell));
    }
    if (isWanted(options, "runtime") && instance.api) {
      tables.push(await runtime(instance.dbUrl, instance.api, settled, tell));
    }
    if (isWanted(options, "overhead") && instance.api) {
      tables.push(await overhead(instance.dbUrl, instance.api, settled, tell));
    }
    if (isWanted(options, "matching")) {
      tables.push(await matching(instance, settled, options.matching, tell));
    }
    if (isWanted(options, "dag")) {
      tables.push(await dag(instance.dbUrl, options.rounds, settled, tell));
    }
    if (isWanted(options, "scale")) {
      tables.push(await scale(instance.dbUrl, options.claims, settled, tell));
    }
  } finally {
    await Promise.all(contestants.map((contestant) => contestant.close()));
  }
  console.log(
    [
      ...tables,
      `Medians of ${options.rounds} interleaved rounds; a ratio is the median of the rounds' ratios. ${connections} ` +
        `connections, one client process (Node ${process.versions.node}), ${availableParallelism()} cores for all.`,
      `Postgres: ${await describeInstance(instance.dbUrl)}.`,
    ].join("\n\n"),
  );
}

function everyone({ dbUrl, rivalsUrl, otherUrl, api }: Instance, { pgmq: pgmqFile }: Options): Contestant[] {
  return [
    rawUpdates(dbUrl),
    pgBoss(rivalsUrl),
    graphileWorker("graphile-worker", rivalsUrl, oneByOne),
    graphileWorker("graphile-worker: completions gathered", rivalsUrl, completionsGathered),
    graphileWorker("graphile-worker: local queue", rivalsUrl, localQueue),
    ...(pgmqFile ? [pgmq(rivalsUrl, pgmqFile, "delete"), pgmq(rivalsUrl, pgmqFile, "archive")] : []),
    ...(otherUrl ? [false, true].map((withRequestIds) => asOtherVersion(workClaimsSql(otherUrl, withRequestIds))) : []),
    workClaimsSql(dbUrl, false),
    workClaimsSql(dbUrl, true),
    workClaimsGathered(dbUrl),
    ...(api ? [workClaimsHttp(dbUrl, api.url, api.key)] : []),
  ];
}
