// Reads the message of a provider that a job has ended. This file is yours: work-claims init --edge writes it once.
import type { Json } from "../../../workers/runtime/client.ts";

/** The end of a job elsewhere. */
export interface Ended {
  /** The id that the handler returned with parked(). */
  external_id: string;
  outcome: "succeeded" | "failed";
  result?: Json;
  error?: string;
  /** A failure with no more tries. */
  final?: boolean;
}

/** The end of the job that a message is about: null where it has not ended, undefined where the message is of no known form. */
export function read(body: Json): Ended | null | undefined {
  // Our own form.
  if (typeof body?.external_id === "string" && ["succeeded", "failed"].includes(body.outcome)) {
    const { external_id, outcome, result, error, final } = body;
    return { external_id, outcome, result, error: error && String(error), final: final === true };
  }
  // A prediction of Replicate.
  if (typeof body?.id === "string" && typeof body.status === "string") {
    switch (body.status) {
      case "succeeded":
        return { external_id: body.id, outcome: "succeeded", result: body.output };
      case "failed":
      case "canceled":
      case "aborted":
        return { external_id: body.id, outcome: "failed", error: body.error ?? `the job was ${body.status}` };
      default:
        return null;
    }
  }
  return undefined;
}
