import { randomUUID } from "node:crypto";
import { systemClock } from "../../workers/runtime/clock.ts";
import { withRetries } from "../../workers/runtime/retry.ts";
import { ask, type Connection } from "./connection.ts";

type Event = "ready" | "ended";
type Subscriber = { isMeant(name: string): boolean; onEvent(): void };
type Channel = { subscribers: Set<Subscriber>; opened: Promise<void>; close(): Promise<void> };

/** Calls back when something of these names became ready, or ended. Resolves, when it listens, to a function that ends that. */
export type Listen = (event: Event, subscriber: Subscriber) => Promise<() => Promise<void>>;

/** The database keeps a listener for a minute. */
const renewMs = 20_000;

/** All that one client listens for shares one connection an event, which is there while someone does. */
export function createListening(connection: Connection): Listen {
  const channels = new Map<Event, Channel>();
  return async (event, subscriber) => {
    if (connection.savepoint) {
      throw new Error("a transaction cannot listen; give the Sql that postgres() makes");
    }
    const channel = channels.get(event) ?? openChannel(connection, event);
    channels.set(event, channel);
    channel.subscribers.add(subscriber);
    const leave = async (): Promise<void> => {
      channel.subscribers.delete(subscriber);
      if (channel.subscribers.size === 0) {
        if (channels.get(event) === channel) channels.delete(event);
        await channel.close();
      }
    };
    try {
      await channel.opened;
    } catch (error) {
      await leave();
      throw error;
    }
    return leave;
  };
}

/**
 * A connection of its own, with the caller's settings. When it is lost, it listens again as soon as the database answers,
 * and calls everyone, for what came meanwhile.
 */
function openChannel(connection: Connection, event: Event): Channel {
  const id = randomUUID();
  const subscribers = new Set<Subscriber>();
  const over = new AbortController();
  let listening: (Connection & { end(options: { timeout: number }): Promise<void> }) | undefined;
  let isListening = false;

  async function listen(): Promise<void> {
    const { default: postgres } = await import("postgres");
    listening ??= postgres({
      ...connection.options,
      ...{ max: 1, idle_timeout: 0, max_lifetime: null, fetch_types: false },
      onnotify: (_: string, payload: string) => callThose(subscribers, payload),
      onclose: () => void listenAgain(),
    } as never) as never;
    await ask(listening as Connection, "listen", `listen work_${event}`, []);
    await renew();
    isListening = true;
  }
  async function listenAgain(): Promise<void> {
    if (!isListening) return;
    isListening = false;
    const forever = { retryForMs: Number.POSITIVE_INFINITY, signal: over.signal };
    await withRetries(listen, forever, { clock: systemClock, random: Math.random }).catch(() => {});
    callThose(subscribers, "");
  }
  async function renew(): Promise<void> {
    await ask(connection, "listen", "select work.listen($1::uuid, $2::text)::text as answer", [id, event]);
  }

  // A call that fails is made up for by the next one.
  const renewal = setInterval(() => void renew().catch(() => {}), renewMs);
  renewal.unref();
  return {
    subscribers,
    opened: listen(),
    async close() {
      over.abort();
      isListening = false;
      clearInterval(renewal);
      await listening?.end({ timeout: 0 });
      await ask(connection, "listen", "select work.unlisten($1::uuid)::text as answer", [id]).catch(() => {});
    },
  };
}

/** The payload has names as a JSON array. Another one may be meant for anyone. */
function callThose(subscribers: Set<Subscriber>, payload: string): void {
  const names: string[] | null = payload.startsWith("[") ? JSON.parse(payload) : null;
  for (const { isMeant, onEvent } of subscribers) {
    if (names === null || names.some(isMeant)) {
      onEvent();
    }
  }
}
