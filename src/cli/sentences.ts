// The sentences of work-claims explain and match, from the facts that the database answers.

import { duration } from "../../workers/runtime/progress.ts";
import type { ExplainedClaim, ExplainedItem, MatchReport } from "../answers.ts";

/** One line a claim, or one that says why the item has none. */
export function explainedLines(item: ExplainedItem): string[] {
  if (item.claims.length === 0) return [`${capital(item.reason)}.`];
  return item.claims.map((claim) => explainedLine(claim, item) + changeOf(claim));
}

/** " Its result is out of date: its input changed."; nothing where it is not. */
function changeOf({ again, stale }: ExplainedClaim): string {
  const isAgain = again === null ? "" : ` It is to be done again after that: ${again}.`;
  return stale === null ? isAgain : `${isAgain} Its result is out of date: ${stale}.`;
}

function explainedLine(claim: ExplainedClaim, item: ExplainedItem): string {
  const since = (time: string | null): string => span(time === null ? 0 : secondsBetween(time, item.asked_at));
  const tries = triesOf(claim);
  const paused = claim.paused ? " Its work type is paused: no worker is handed it." : "";
  switch (claim.status) {
    case "claimed":
      if (claim.parked_as !== null) {
        return `The job ${claim.parked_as} does it for ${claim.work_type} since ${since(claim.claimed_at)}; ${leaseOf(claim)}.`;
      }
      return `${claim.worker_id} holds it for ${claim.work_type} since ${since(claim.claimed_at)}${progressOf(claim)}; ${leaseOf(claim)}.`;
    case "waiting": {
      const left = secondsBetween(item.asked_at, claim.due_at);
      const due =
        left > 0 && claim.reason.startsWith("its input changed")
          ? `${claim.work_type} waits: ${claim.reason}; it is due in ${span(left)}`
          : left > 0
            ? `${claim.work_type} waits: it is due in ${span(left)}`
            : `${claim.work_type} is due since ${span(-left)}, and the next claim call makes it ready`;
      const asked = claim.due_at === item.run_after ? ", the run_after of the item" : "";
      return `${due}${tries}${asked}.${paused}`;
    }
    case "ready": {
      const ready = `${claim.work_type} is ready since ${since(claim.due_at)}${tries}; ${placeOf(claim)}.${paused}`;
      return claim.workers ? `${ready} ${matchSentences(claim.workers, claim.work_type)}` : ready;
    }
    case "blocked":
      return `${claim.work_type} ${claim.reason.replace(/^it /, "")}.`;
    case "succeeded":
      return `${claim.work_type} succeeded ${since(claim.finished_at)} ago by ${claim.worker_id}.`;
    case "failed":
      return `${claim.work_type} failed for good ${since(claim.finished_at)} ago${tries}. retry_items() reopens it.`;
    case "cancelled":
      return `${claim.work_type} was cancelled ${since(claim.finished_at)} ago. retry_items() reopens it.`;
  }
}

/** How many live workers match an item, and the closest worker for each of the first three reasons. */
export function matchSentences(report: MatchReport, workType?: string): string {
  return [`${matchingOf(report, workType)}${yieldingOf(report)}.`, ...report.failing.slice(0, 3).map(failingOf)].join(
    " ",
  );
}

function matchingOf({ live_workers: live, matching }: MatchReport, workType?: string): string {
  const who = workType === undefined ? "" : ` that ${live === 1 ? "does" : "do"} ${workType}`;
  if (live === 0) return workType === undefined ? "There is no live worker" : `No live worker does ${workType}`;
  if (live === 1) return `The only live worker${who} ${matching === 0 ? "cannot" : "can"} run it`;
  const count = matching === 0 ? "None" : matching === live ? "Each" : `${matching}`;
  return `${count} of the ${live} live workers${who} can run it`;
}

function yieldingOf({ matching, yielding, yield_seconds }: MatchReport): string {
  if (yielding === 0) return "";
  return `, ${yielding < matching ? `${yielding} of these ` : ""}once it has been ready for ${yield_seconds} s`;
}

function failingOf({
  reason,
  workers,
  only_this,
  closest_worker,
  closest_has,
}: MatchReport["failing"][number]): string {
  const needs = reason.startsWith("needs ") ? `It ${reason}` : capital(reason);
  const closest = closest_has === null ? "" : `; closest live worker ${closest_worker} has ${closest_has}`;
  const fail = `${counted(workers, "worker fails", "workers fail")} ${only_this === workers ? "only on this" : "on this"}`;
  const alone = only_this > 0 && only_this < workers ? `, ${only_this} only on this` : "";
  return `${needs}${closest}; ${fail}${alone}.`;
}

function progressOf({ progress }: ExplainedClaim): string {
  return progress === null ? "" : ` (${Math.round(progress * 100)} % done)`;
}

function leaseOf({ lease_left_seconds: left }: ExplainedClaim): string {
  if (left === null) return "it has no lease, and the next claim call takes it back";
  if (left > 0) return `its lease has ${span(left)} left`;
  return `its lease ended ${span(-left)} ago, and the next claim call takes it back`;
}

function placeOf({ before, more_before: isMore }: ExplainedClaim): string {
  if (!before) return "it is the head of its lane";
  return isMore
    ? `more than ${before} of its lane go before it`
    : `${counted(before, "claim of its lane goes", "claims of its lane go")} before it`;
}

/** ", after 2 failures and 1 crash: no disk"; nothing where there were none. */
function triesOf({ failures, crashes, error }: ExplainedClaim): string {
  const tries = [
    ...(failures > 0 ? [counted(failures, "failure", "failures")] : []),
    ...(crashes > 0 ? [counted(crashes, "crash", "crashes")] : []),
  ];
  const shown = error !== null && error.length > 300 ? `${error.slice(0, 300)}…` : error;
  return tries.length === 0 ? "" : `, after ${tries.join(" and ")}${shown === null ? "" : `: ${shown}`}`;
}

function counted(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`;
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

/** A second at least. */
function span(seconds: number): string {
  return duration(Math.max(1, seconds));
}

function secondsBetween(from: string, to: string): number {
  return (Date.parse(to) - Date.parse(from)) / 1000;
}
