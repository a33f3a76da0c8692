// A cloud announces inside a machine, at an address of its own, that it takes the machine back.
import { type Json, reasonOf } from "./client.ts";
import type { Cloud } from "./leave-settings.ts";
import { handBackMs } from "./leaving.ts";
import { errorType } from "./log.ts";
import { leave, type Worker } from "./worker.ts";

type Ask = (url: string, headers: Record<string, string>, method?: string) => Promise<Response>;

/** As often as AWS advises; the shortest notice is 30 s. */
const pollMs = 5000;

/** The shortest notice of the three, where a notice names no time. */
const shortestNoticeMs = 30_000;

/** The longest, of AWS. More is a fault of this machine's clock. */
const longestNoticeMs = 120_000;

/** Azure needs up to two minutes for its first answer. */
const timeoutMs: Record<Cloud, number> = { aws: 5000, gcp: 5000, azure: 130_000 };

/** Milliseconds until the machine goes; null without a notice. */
const notices: Record<Cloud, (ask: Ask) => Promise<number | null>> = {
  async aws(ask) {
    const metadata = "http://169.254.169.254/latest";
    const token = await ask(`${metadata}/api/token`, { "x-aws-ec2-metadata-token-ttl-seconds": "60" }, "PUT");
    const headers = { "x-aws-ec2-metadata-token": await textOf(token) };
    const notice = await ask(`${metadata}/meta-data/spot/instance-action`, headers);
    if (notice.status === 404) {
      await notice.body?.cancel();
      return null;
    }
    return untilTime(JSON.parse(await textOf(notice)).time);
  },
  async gcp(ask) {
    const url = "http://metadata.google.internal/computeMetadata/v1/instance/preempted";
    const answer = await textOf(await ask(url, { "metadata-flavor": "Google" }));
    return answer.trim() === "TRUE" ? shortestNoticeMs : null;
  },
  async azure(ask) {
    const metadata = "http://169.254.169.254/metadata";
    const headers = { metadata: "true" };
    const answer = await textOf(await ask(`${metadata}/scheduledevents?api-version=2020-07-01`, headers));
    const events: Json[] = JSON.parse(answer).Events.filter((event: Json) => event.EventType === "Preempt");
    if (events.length === 0) {
      return null;
    }
    // The events of a scale set come to all of its machines.
    const nameUrl = `${metadata}/instance/compute/name?api-version=2021-02-01&format=text`;
    const name = (await textOf(await ask(nameUrl, headers))).trim();
    const own = events.find((event) => event.Resources.includes(name));
    return own ? untilTime(own.NotBefore) : null;
  },
};

/** Asks once. Throws where the cloud does not answer as this machine would be in it. */
export function noticeOf(cloud: Cloud, fetch: typeof globalThis.fetch, signal: AbortSignal): Promise<number | null> {
  return notices[cloud]((url, headers, method = "GET") =>
    fetch(url, {
      method,
      headers,
      redirect: "manual",
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs[cloud])]),
    }),
  );
}

/** A notice is a stop: its time, less that for handing back, is the grace time. */
export async function watchSpot(worker: Worker): Promise<void> {
  const { settings, clock, fetch, log, ended } = worker;
  let hasFailed = false;
  while (settings.spot !== null && !ended.signal.aborted) {
    try {
      const noticeMs = await noticeOf(settings.spot, fetch, ended.signal);
      if (noticeMs !== null) {
        leave(worker, "spot", `${settings.spot} takes this machine back`, Math.max(0, noticeMs - handBackMs));
        return;
      }
    } catch (error) {
      if (!hasFailed && !ended.signal.aborted) {
        hasFailed = true;
        log(
          `WORK_SPOT is ${settings.spot}, and no notice can be read, trying again: ${reasonOf(error)}`,
          errorType(error),
        );
      }
    }
    await clock.sleep(pollMs, ended.signal);
  }
}

function untilTime(time: unknown): number {
  const noticeMs = Date.parse(String(time)) - Date.now();
  return Number.isNaN(noticeMs) ? shortestNoticeMs : Math.min(noticeMs, longestNoticeMs);
}

async function textOf(response: Response): Promise<string> {
  const text = await response.text();
  if (!response.ok) {
    throw new Error(`${response.url} answered ${response.status}`);
  }
  return text;
}
