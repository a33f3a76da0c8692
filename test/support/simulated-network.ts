// A network that loses, delays, repeats and spoils messages, between simulated machines and the model of the server.
import type { FakeClock, Machine } from "./fake-clock.ts";
import type { seeded } from "./random.ts";
import type { Model } from "./server-model.ts";

export const networkFaults = [
  "request lost",
  "reply lost",
  "request delayed",
  "reply delayed",
  "duplicate",
  "late copy",
  "5xx",
  "5xx after the commit",
  "5xx with Retry-After",
  "429",
  "429 with Retry-After",
  "an error that is final",
  "cut off",
  "stall",
  "stall in the body",
] as const;
export type NetworkFault = (typeof networkFaults)[number];

export interface Call {
  readonly id: number;
  readonly worker: string;
  readonly name: string;
  // biome-ignore lint/suspicious/noExplicitAny: the arguments of any function.
  readonly args: any;
  readonly path: string;
  readonly body: string;
  /** When the model last took it. */
  takenAt: number;
}

export interface Network {
  /** The fetch of a worker on this machine. */
  fetchFrom(worker: string, machine: Machine): typeof globalThis.fetch;
  /** Until then the server cannot be reached. */
  awayUntil: number;
  /** Until then nothing gets through from or to these workers. */
  readonly unpluggedUntil: Map<string, number>;
  /** How likely a fault is, and which there are. */
  chanceOfFault: number;
  readonly enabled: readonly NetworkFault[];
}

export interface Watcher {
  log(what: string): void;
  count(fault: NetworkFault | "server away"): void;
  /** Something that is not as it should be happens to a call of this worker. */
  onTrouble(worker: string, fault: NetworkFault | "server away" | "unplugged"): void;
  onSent(call: Call): void;
  /** Before the model takes a call, and after; a call may come more than once. */
  onTaken(call: Call): void;
  /** The server asked it to wait, in seconds as the header has them. */
  onWait(call: Call, retryAfter: string): void;
  /** The worker has the whole answer. */
  onAnswer(call: Call, answer: unknown): void;
}

interface Reply {
  status: number;
  body: string;
  retryAfter?: string;
  breaks?: boolean;
}

const broken: Reply = { status: 0, body: "", breaks: true };
const refusal = (status: number, code: string, retryAfter?: string): Reply => ({
  status,
  body: code === "html" ? "<html>please wait</html>" : JSON.stringify({ code, message: "it did not work" }),
  ...(retryAfter === undefined ? {} : { retryAfter }),
});

export function createNetwork(
  clock: FakeClock,
  model: Model,
  { chance, pick, random }: ReturnType<typeof seeded>,
  watcher: Watcher,
): Network {
  let calls = 0;
  const between = (least: number, most: number): number => least + random() * (most - least);
  const network: Network = {
    fetchFrom: (worker, machine) => (input, init) => send(worker, machine, String(input), init ?? {}),
    awayUntil: 0,
    unpluggedUntil: new Map(),
    chanceOfFault: pick([0, 0.03, 0.1, 0.1, 0.3, 0.6]),
    enabled: networkFaults.filter(() => chance(0.5)),
  };

  /** The model takes it, as often as it comes. */
  function take(call: Call): Reply {
    if (clock.now() < network.awayUntil) {
      watcher.count("server away");
      watcher.onTrouble(call.worker, "server away");
      return pick([broken, refusal(503, "57P03"), refusal(502, "html")]);
    }
    call.takenAt = clock.now();
    const answer = call.args === null ? model.read(call.path) : model.call(call.name, call.args);
    watcher.onTaken(call);
    return { status: 200, body: JSON.stringify(answer) };
  }

  /** The reply to a call that has come to the server, with this fault. */
  function replyTo(call: Call, fault: NetworkFault | null): Reply {
    switch (fault) {
      case "5xx":
        return pick([refusal(500, ""), refusal(502, "html"), refusal(503, "PGRST002"), refusal(500, "57014")]);
      case "5xx with Retry-After":
        return refusal(503, "", pick(["1", "3", "20"]));
      case "429":
        return refusal(429, "");
      case "429 with Retry-After":
        return refusal(429, "", pick(["1", "3", "90", "soon"]));
      case "an error that is final":
        return refusal(500, "XX000");
      case "5xx after the commit":
        take(call);
        return pick([refusal(502, "html"), refusal(504, ""), { status: 520, body: "error code: 520" }]);
      case "reply lost":
        take(call);
        return broken;
      case "cut off": {
        const reply = take(call);
        return { ...reply, body: reply.body.slice(0, Math.floor(random() * reply.body.length)) };
      }
      default:
        return take(call);
    }
  }

  function arriveLater(call: Call, fault: NetworkFault, afterMs: number): void {
    clock.at(clock.now() + afterMs, () => {
      watcher.log(`${call.worker} #${call.id} comes late`);
      watcher.onTrouble(call.worker, fault);
      take(call);
    });
  }

  async function send(worker: string, machine: Machine, url: string, init: RequestInit): Promise<Response> {
    const path = url.split("/rest/v1/")[1] as string;
    const name = path.replace(/^rpc\//, "").split("?")[0] as string;
    const body = String(init.body ?? "");
    const call: Call = { id: ++calls, worker, name, args: body ? JSON.parse(body) : null, path, body, takenAt: 0 };
    const mayFault = chance(network.chanceOfFault) && network.enabled.length > 0;
    const drawn = mayFault ? pick(network.enabled) : null;
    // A worker rightly ends when its registration is refused for good.
    const fault = drawn === "an error that is final" && name === "register_worker" ? null : drawn;
    watcher.log(`${worker} #${call.id} sends ${path} ${body}${fault ? `, ${fault}` : ""}`);
    watcher.onSent(call);
    if (fault) {
      watcher.count(fault);
      watcher.onTrouble(worker, fault);
    }
    return new Promise((resolve, reject) => {
      const signal = init.signal as AbortSignal;
      let isOver = false;
      const isUnplugged = (): boolean => {
        const isSo = clock.now() < (network.unpluggedUntil.get(worker) ?? 0);
        if (isSo) {
          watcher.onTrouble(worker, "unplugged");
        }
        return isSo;
      };
      const give = (reply: Reply): void =>
        machine.deliver(() => {
          if (isOver || (isUnplugged() && !reply.breaks)) {
            return;
          }
          isOver = true;
          signal.removeEventListener("abort", giveUp);
          watcher.log(`${worker} #${call.id} receives ${reply.breaks ? "nothing" : `${reply.status} ${reply.body}`}`);
          if (reply.breaks) {
            reject(new TypeError("fetch failed", { cause: new Error("other side closed") }));
            return;
          }
          if (reply.retryAfter !== undefined) {
            watcher.onWait(call, reply.retryAfter);
          }
          if (reply.status === 200 && fault !== "cut off" && fault !== "stall in the body") {
            watcher.onAnswer(call, JSON.parse(reply.body));
          }
          resolve(responseOf(reply, fault === "stall in the body" ? signal : null));
        });
      const giveUp = (): void => {
        isOver = true;
        reject(signal.reason);
      };
      if (signal.aborted) {
        giveUp();
        return;
      }
      signal.addEventListener("abort", giveUp);

      if (isUnplugged()) {
        if (chance(0.7)) {
          clock.at(clock.now() + between(1, 3000), () => give(broken));
        }
        return;
      }
      if (fault === "request lost") {
        clock.at(clock.now() + between(1, 500), () => give(broken));
        return;
      }
      if (fault === "duplicate") {
        arriveLater(call, fault, between(1, 200));
      } else if (fault === "late copy") {
        // Within the hour for which the server knows request ids.
        arriveLater(call, fault, between(1000, pick([30_000, 900_000])));
      }
      clock.at(clock.now() + (fault === "request delayed" ? between(500, 60_000) : between(1, 40)), () => {
        if (fault) {
          watcher.onTrouble(worker, fault);
        }
        if (fault === "stall" && chance(0.5)) {
          return;
        }
        const reply = replyTo(call, fault);
        if (fault !== "stall") {
          const delay = fault === "reply delayed" ? between(50, pick([500, 3000, 10_000, 30_000])) : between(1, 40);
          clock.at(clock.now() + delay, () => give(reply));
        }
      });
    });
  }
  return network;
}

/** As much of a response as the worker asks for. With a signal its body does not come before that aborts. */
function responseOf({ status, body, retryAfter }: Reply, stallsUntil: AbortSignal | null): Response {
  const text = (): Promise<string> =>
    stallsUntil === null
      ? Promise.resolve(body)
      : new Promise((_, reject) => stallsUntil.addEventListener("abort", () => reject(stallsUntil.reason)));
  const headers = { get: (name: string): string | null => (name === "retry-after" ? (retryAfter ?? null) : null) };
  return { status, headers, text } as unknown as Response;
}
