// The recorded steps of an item as sentences.
import { duration } from "../../workers/runtime/progress.ts";
import type { EventRow } from "../answers.ts";

/** Says one event as a sentence without its end. It keeps names as they are written, and names an unknown kind of event. */
const sentences: { readonly [event: string]: (step: EventRow) => string } = {
  enrolled: ({ work_type }) => `${work_type} is enrolled`,
  claimed: ({ work_type, worker_id }) => `${worker_id} claims it for ${work_type}`,
  succeeded: ({ work_type, worker_id }) => `${worker_id} succeeds with ${work_type}`,
  parked: ({ work_type, worker_id }) => `${worker_id} hands ${work_type} to a job elsewhere`,
  failed: ({ work_type, worker_id }) =>
    worker_id === null ? `${work_type} fails` : `${worker_id} fails at ${work_type}`,
  expired: ({ work_type }) => `The lease for ${work_type} has ended without a release`,
  handed_back: ({ work_type, worker_id }) => `${worker_id} hands ${work_type} back`,
  snoozed: ({ work_type, worker_id }) => `${worker_id} puts ${work_type} off`,
  retried: ({ work_type, actor }) => `${actor ?? "A person"} retries ${work_type}`,
  cancelled: ({ work_type, actor }) => `${actor ?? "A person"} cancels ${work_type}`,
  reopened: ({ work_type, actor }) =>
    actor === null ? `${work_type} is to be done again` : `${actor} has ${work_type} done again`,
  blocked: ({ work_type }) => `${work_type} waits for other work`,
  unblocked: ({ work_type }) => `${work_type} has all that it waited for`,
  prioritized: ({ work_type, actor }) => `${actor ?? "A person"} gives ${work_type} another priority`,
  stopped: ({ work_type }) => `${work_type} is stopped for all items`,
  stale_release: ({ work_type, worker_id }) => `${worker_id} releases ${work_type} too late`,
  stale_extend: ({ work_type, worker_id }) => `${worker_id} extends the lease for ${work_type} too late`,
  stale_lock: ({ work_type, worker_id }) => `${worker_id} asks for a lock for ${work_type} too late`,
};

/** A line a step: when, who did what, how long after the step before of the same work type, the states, fence and reason. */
export function storyLines(steps: readonly EventRow[]): string[] {
  const before = new Map<string, EventRow>();
  return steps.map((step) => {
    const last = before.get(step.work_type);
    before.set(step.work_type, step);
    return storyLine(step, last);
  });
}

function storyLine(step: EventRow, last: EventRow | undefined): string {
  const sentence = sentences[step.event]?.(step) ?? `${step.work_type}: ${step.event}`;
  const after = last === undefined ? "" : `, ${spanBetween(last.at, step.at)} later`;
  const became = step.to_status === null ? null : [step.from_status, step.to_status].filter((state) => state !== null);
  const facts = [
    ...(became === null ? [] : [became.join(" → ")]),
    ...(step.fence === null ? [] : [`fence ${step.fence}`]),
    ...(step.input === null ? [] : [`input ${step.input.slice(0, 12)}`]),
  ];
  const inBrackets = facts.length === 0 ? "" : ` (${facts.join(", ")})`;
  const reason = step.detail === null ? "." : `: ${shortened(step.detail)}`;
  return `${step.at.slice(0, 19).replace("T", " ")}  ${sentence}${after}${inBrackets}${reason}`;
}

function spanBetween(from: string, to: string): string {
  const seconds = (Date.parse(to) - Date.parse(from)) / 1000;
  return seconds < 1 ? "less than 1 s" : duration(seconds);
}

function shortened(text: string): string {
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
