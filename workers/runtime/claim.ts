import type { CallOptions, Json } from "./client.ts";
import type { Log } from "./log.ts";
import type { Outcome } from "./outcome.ts";

/** A claimed item, as the database answers it. */
export interface Claim<Payload = Json> {
  readonly item_id: string;
  /** NAME#2 and on for the further claims of an item, where its work type has several. */
  readonly work_type: string;
  /** Which of its item's claims it is, from 1. The worker adds it. */
  readonly number: number;
  /** New with every claim. A write elsewhere can carry it, so that a write of an older claim is recognised. */
  readonly fence: number;
  readonly ttl_seconds: number;
  readonly expires_at: string;
  /** How often a handler failed on it, and how often a worker vanished with it. */
  readonly failures: number;
  readonly crashes: number;
  /** How long its handler may take; null: no limit. */
  readonly try_seconds: number | null;
  /** The state that the handler of an earlier try has saved. */
  readonly state: Json;
  /** The job elsewhere that an earlier try was parked as, where nobody has said how that ended. */
  readonly external_id: string | null;
  /** The trace that the item belongs to. */
  readonly traceparent: string | null;
  readonly pool: string;
  /** The key of the attached table's row, where that is no uuid. */
  readonly source_key: string | null;
  /** The claims that it waited for, at most 100: as they stood when this claim was made. */
  readonly needs: readonly Need[];
  readonly payload: Payload;
}

/** A claim that another one needs. */
export interface Need {
  readonly item_id: string;
  readonly work_type: string;
  readonly source_key: string | null;
  readonly dedupe_key: string | null;
  readonly status: string;
  readonly result?: Json;
  /** The results of the needs together have more than 256 kB, so this one is left out. */
  readonly is_large?: boolean;
}

/** A claim that was won, and the moment before the request that won it was first sent. */
export interface Won {
  readonly claim: Claim;
  readonly sentAt: number;
}

/** A way to claim: the database picks what is next (pull), or the worker picks from a pool (candidates). */
export interface Source {
  /** Claims at most so many items. The last look before an until-empty worker leaves goes through all that there is. */
  claim(room: number, call: CallOptions, isLast: boolean): Promise<Claimed>;
  /** Releases and claims in one call, where there is such a call. A state for each outcome, or "lost". */
  finishAndClaim?(outcomes: Outcome[], room: number, call: CallOptions): Promise<Claimed & { states: string[] }>;
  /** The worker's profile has changed: a refused class may match. */
  onProfile(): void;
  diagnose(call: CallOptions): Promise<Diagnosis>;
}

export interface Claimed {
  readonly won: Won[];
  /** The look ended before it came to the end; the next one continues. */
  readonly isMore: boolean;
}

/** Why no work may come; both are empty where there is just no work. */
export interface Diagnosis {
  /** Work types or pools that do not exist: most likely a typing error. */
  readonly missing: string[];
  /** Work types that are not handed out. */
  readonly waiting: string[];
}

export interface SourceOptions {
  workTypes: string[];
  workerId: string;
  /** Null leaves it to the work type. */
  leaseSeconds: number | null;
  warm(): readonly string[];
  log: Log;
}

/** A value inside PostgREST's in.(…), where commas and brackets would end it. */
export function quoted(value: string): string {
  return encodeURIComponent(`"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`);
}
