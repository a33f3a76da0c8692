import type { Sql } from "postgres";
import type { Screen } from "../cli/screen.ts";
import { finishedClaims, openClaims } from "../overview.ts";
import { changeOneRow } from "./changed-row.ts";
import { follow } from "./following.ts";
import { type DemoWorker, denoProgram, type Host, stopWorkers } from "./processes.ts";
import { check, checkSql, isExactlyOnce, takenBack } from "./record.ts";
import { checkedLines, lookAtItLines, takenBackLines, workersTable } from "./report.ts";
import { type Play, type Stage, startedLine } from "./stage.ts";
import { leaseSeconds, prepareTexts, textCount, workType } from "./texts.ts";

/** When so much is done, one worker is killed: all are at work by then, and most is still to do. */
const killedAtShare = 1 / 3;

const workerCount = 4;

/** The last one on Deno, where that is installed. */
function hostOf(index: number): Host {
  return index === workerCount - 1 && denoProgram() !== undefined ? "deno" : "node";
}

/** Several workers share a table, one of them is killed, every row is done once. Then a row changes, and is done again. */
export const exactlyOnce: Play = {
  title: `work-claims demo: ${textCount} texts, ${workerCount} workers, and one of them will be killed`,
  async perform(stage) {
    await prepareTexts(stage.sql);
    stage.done(`table demo_texts is a pool: ${textCount} rows to do ${workType} on`);
    stage.signal.throwIfAborted();
    for (let index = 0; index < workerCount; index++) {
      const host = hostOf(index);
      const place = stage.workers.filter((other) => other.host === host).length + 1;
      // Claims in hand beside the one in work, so that a killed worker has some to lose.
      stage.start(`${host}-${place}`, host, "demo", { WORK_BATCH: "4" });
    }
    stage.screen.say(startedLine(stage.workers));
    const killed = await workAndKill(stage);
    const isRight = (await report(stage, killed)) && (await changeOneRow(stage));
    await stopWorkers(stage.workers);
    return isRight;
  },
  lookAtIt: (stack) =>
    lookAtItLines(stack, [
      "select * from work_overview;",
      "select * from work_events;",
      "select worker_id, count(*) from demo_log group by worker_id;",
      `${checkSql.trim()};`,
    ]),
};

/** Follows the work, and kills one worker on the way; answers which. */
async function workAndKill(stage: Stage): Promise<DemoWorker | undefined> {
  let killed: DemoWorker | undefined;
  await follow(stage, async (row) => {
    if (openClaims(row) === 0) return "end";
    if (!killed && finishedClaims(row) >= textCount * killedAtShare) {
      killed = await killOne(stage.screen, stage.sql, stage.workers);
    }
    return "go on";
  });
  return killed;
}

/** SIGKILL for the Node worker that holds the most. */
async function killOne(screen: Screen, sql: Sql, workers: readonly DemoWorker[]): Promise<DemoWorker | undefined> {
  const held = await sql<{ worker_id: string; count: number }[]>`
    select worker_id, count(*)::int from public.work_held group by worker_id order by count(*) desc, worker_id`;
  const most = held.find(({ worker_id }) => workers.some(({ name, host }) => name === worker_id && host === "node"));
  const victim = workers.find(({ name }) => name === most?.worker_id);
  if (!victim) return undefined;
  victim.process.kill("SIGKILL");
  screen.say(
    `✗ killed ${victim.name} (pid ${victim.process.pid}) with SIGKILL while it held ${most?.count} texts; ` +
      `their leases end within ${leaseSeconds} s, and others take them`,
  );
  return victim;
}

async function report({ screen, sql, workers }: Stage, killed: DemoWorker | undefined): Promise<boolean> {
  const back = await takenBack(sql);
  const found = await check(sql);
  const parts = [[await workersTable(sql, workers, killed, back)], takenBackLines(back), checkedLines(found)];
  for (const lines of parts) screen.say(`\n${lines.join("\n")}`);
  return isExactlyOnce(found);
}
