// The life of a claim: each step that may be, under its cause. The model's test counts them.
import type { Claim, Status } from "./model.ts";

type Arrow = [from: Status | "no row", to: Status];

const toOpen = (...from: Arrow[0][]): Arrow[] =>
  from.flatMap((status): Arrow[] => [
    [status, "ready"],
    [status, "waiting"],
    [status, "blocked"],
  ]);

const life: Record<string, Arrow[]> = {
  enrolled: toOpen("no row"),
  due: [["waiting", "ready"]],
  rescheduled: [
    ["ready", "waiting"],
    ["waiting", "ready"],
  ],
  blocked: [
    ["ready", "blocked"],
    ["waiting", "blocked"],
  ],
  unblocked: [
    ["blocked", "ready"],
    ["blocked", "waiting"],
  ],
  claimed: [["ready", "claimed"]],
  succeeded: [["claimed", "succeeded"]],
  failed: [
    ["claimed", "waiting"],
    ["claimed", "blocked"],
    ["claimed", "failed"],
  ],
  "failed: with its need": [["blocked", "failed"]],
  snoozed: [
    ["claimed", "waiting"],
    ["claimed", "blocked"],
  ],
  parked: [["claimed", "claimed"]],
  "handed_back: released": toOpen("claimed"),
  "handed_back: its worker left": toOpen("claimed"),
  expired: [...toOpen("claimed"), ["claimed", "failed"]],
  cancelled: [
    ["blocked", "cancelled"],
    ["waiting", "cancelled"],
    ["ready", "cancelled"],
    ["claimed", "cancelled"],
  ],
  retried: toOpen("failed", "cancelled"),
  "reopened: its input changed": toOpen("succeeded", "failed"),
  "reopened: by hand": toOpen("succeeded"),
  "reopened: an older version": toOpen("succeeded"),
  "reopened: after its holder": toOpen("succeeded", "failed"),
  "reopened: its need is open": [
    ["succeeded", "blocked"],
    ["failed", "blocked"],
  ],
};

const stepName = ([from, to]: Arrow, cause: string): string => `${from} → ${to}: ${cause}`;

/** How often each step was seen. */
export const steps = new Map(
  Object.entries(life).flatMap(([cause, arrows]) =>
    arrows.map((arrow): [string, number] => [stepName(arrow, cause), 0]),
  ),
);

/** Counts what a claim has gone through. A step that the life does not have is an error. */
export function countSteps(claim: Claim): void {
  for (const { cause, from, to } of claim.steps.filter((step) => step.to !== null)) {
    const name = stepName([from ?? "no row", to as Status], cause);
    const times = steps.get(name);
    if (times === undefined) {
      throw new Error(`a claim went ${name}`);
    }
    steps.set(name, times + 1);
  }
}

/** Arrows, whatever their causes, and causes, whatever their arrows, that were never seen. */
export function unseen(): string[] {
  const halves = [...steps].map(([name, times]) => ({ halves: name.split(/: (.*)/, 2), times }));
  const seen = new Set(halves.filter(({ times }) => times > 0).flatMap((each) => each.halves));
  return [...new Set(halves.flatMap((each) => each.halves))].filter((half) => !seen.has(half));
}

/** One arrow a line, with its causes. */
export function told(): string {
  const arrows = new Map<string, [string, number][]>();
  for (const [name, times] of steps) {
    const arrow = name.split(": ")[0] ?? name;
    arrows.set(arrow, [...(arrows.get(arrow) ?? []), [name, times]]);
  }
  return [...arrows]
    .map(
      ([arrow, all]) =>
        `${arrow}  ${all.map(([name, times]) => `${name.slice(arrow.length + 2)} ${times}`).join(", ")}`,
    )
    .join("\n");
}
