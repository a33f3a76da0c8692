/** The effect of one call on one claim. Times are the database's where the answer has them, else the test's. */
export interface Step {
  kind: "claimed" | "held" | "released" | "succeeded" | "left";
  item: string;
  fence: number;
  worker: string;
  /** When the call was sent and when its answer came. */
  sent: number;
  answered: number;
  /** The lease that the answer told, in milliseconds of the database's clock. */
  leaseFrom?: number;
  leaseTo?: number;
}

/** The violations in a history. */
export function contradictions(history: Step[]): string[] {
  const byItem = new Map<string, Step[]>();
  for (const step of history) {
    byItem.set(step.item, [...(byItem.get(step.item) ?? []), step]);
  }
  return [...byItem.values()].flatMap((steps) => [
    ...doubleClaims(steps),
    ...doubleSuccesses(steps),
    ...overlaps(steps),
    ...lateWrites(steps),
  ]);
}

function claims(steps: Step[]): Step[] {
  return steps.filter((step) => step.kind === "claimed").sort((one, other) => one.fence - other.fence);
}

function doubleClaims(steps: Step[]): string[] {
  return claims(steps)
    .filter((claim, index, all) =>
      all.some((other, at) => at < index && other.fence === claim.fence && other.worker !== claim.worker),
    )
    .map((claim) => `${claim.item} was claimed by two workers with fence ${claim.fence}`);
}

function doubleSuccesses(steps: Step[]): string[] {
  const fences = new Set(steps.filter((step) => step.kind === "succeeded").map((step) => step.fence));
  return fences.size > 1 ? [`${steps[0]?.item} succeeded under fences ${[...fences].join(" and ")}`] : [];
}

/** A claim begins after the lease before it has ended, unless that was given back first; and later means a greater fence. */
function overlaps(steps: Step[]): string[] {
  const all = claims(steps);
  return all.flatMap((claim, index) => {
    const following = all[index + 1];
    if (!following || following.fence === claim.fence) {
      return [];
    }
    const found: string[] = [];
    if ((following.leaseFrom ?? 0) < (claim.leaseFrom ?? 0)) {
      found.push(`${claim.item} has fence ${following.fence} from before fence ${claim.fence}`);
    }
    const own = steps.filter((step) => step.fence === claim.fence);
    const isGivenBack = own.some(
      (step) => (step.kind === "released" || step.kind === "left") && step.sent <= following.answered,
    );
    // A heartbeat may also shorten a lease.
    const lastLease = own.filter((step) => step.kind === "claimed" || step.kind === "held").at(-1)?.leaseTo ?? 0;
    // Leases are told in microseconds and kept here in milliseconds.
    if (!isGivenBack && (following.leaseFrom ?? 0) < lastLease - 1) {
      found.push(`${claim.item} was claimed with fence ${following.fence} while fence ${claim.fence} was held`);
    }
    return found;
  });
}

/** Nothing that was sent after a newer claim was answered may have worked under an older fence. */
function lateWrites(steps: Step[]): string[] {
  return claims(steps).flatMap((claim) =>
    steps
      .filter(
        (step) => !["claimed", "left"].includes(step.kind) && step.fence < claim.fence && step.sent > claim.answered,
      )
      .map((step) => `${step.item} was ${step.kind} under fence ${step.fence} after fence ${claim.fence} was claimed`),
  );
}
