import type { CallOptions, Json } from "./client.ts";
import type { Outcome } from "./outcome.ts";

/** A claimed item, as the database answers it. */
export interface Claim<Payload = Json> {
  readonly item_id: string;
  readonly work_type: string;
  /** New with every claim: what is written elsewhere can carry it, so that an older claim's write is told apart. */
  readonly fence: number;
  readonly ttl_seconds: number;
  readonly expires_at: string;
  /** How often a handler failed on it, and how often a worker vanished with it. */
  readonly failures: number;
  readonly crashes: number;
  readonly pool: string;
  /** The key of the attached table's row, where that is no uuid. */
  readonly source_key: string | null;
  readonly payload: Payload;
}

/** A claim that was won, and the moment before the request that won it was first sent. */
export interface Won {
  readonly claim: Claim;
  readonly sentAt: number;
}

/** Hands outcomes in and brings at most so many new claims; each outcome is answered with its new state, or "lost". */
export interface Source {
  /** The last look, after which the worker leaves where it finds nothing, goes through all that there is. */
  exchange(outcomes: Outcome[], room: number, call: CallOptions, isLast: boolean): Promise<Exchanged>;
  /** What the worker has or takes is another: what was not for it may be. */
  onProfile(): void;
  whyNothing(call: CallOptions): Promise<WhyNothing>;
}

export interface Exchanged {
  readonly states: string[];
  readonly won: Won[];
  /** The look ended before all was looked at; the next one goes on from there. */
  readonly isMore?: boolean;
}

/** Why nothing may be coming; both are empty where it is just that there is no work now. */
export interface WhyNothing {
  /** What was asked for is not there: most likely a typing error. */
  readonly missing: string[];
  /** There is work that is not given out. */
  readonly waiting: string[];
}

export interface SourceOptions {
  workTypes: string[];
  workerId: string;
  /** Null leaves it to the work type. */
  leaseSeconds: number | null;
  warm(): readonly string[];
  log(line: string): void;
}

/** A value inside PostgREST's in.(…), where commas and brackets would end it. */
export function quoted(value: string): string {
  return encodeURIComponent(`"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`);
}
