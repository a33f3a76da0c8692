import { once } from "node:events";
import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { seeded } from "./random.ts";

interface Answer {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

/** One request, and the actions on it and on its connection. */
interface Exchange {
  headers: IncomingMessage["headers"];
  below: (limit: number) => number;
  /** Sends it on, or only so many bytes of its body, and waits for the answer. */
  carryOut(bytes?: number): Promise<Answer>;
  answer(answer: Answer): void;
  /** Announces the whole answer, sends so many bytes of it, and closes. */
  breakOff(answer: Answer, bytes: number): void;
  close(): void;
  reset(): void;
  /** The client has closed the connection. */
  gaveUp: Promise<unknown>;
}

const page = (status: number, type: string, body: string, headers: Record<string, string> = {}): Answer => ({
  status,
  headers: { "content-type": type, ...headers },
  body: Buffer.from(body),
});
const html = (title: string): string => `<html><head><title>${title}</title></head><body>${title}</body></html>`;
const half = (body: Buffer): number => Math.floor(body.length / 2);

/** The faults of a request on its way to the database and back. */
const faults = {
  "request lost": async ({ close }) => close(),
  "request cut": async ({ carryOut, headers, close }) => {
    await carryOut(Math.floor(Number(headers["content-length"] ?? 0) / 2)).catch(() => {});
    close();
  },
  "reply lost": async ({ carryOut, close }) => {
    await carryOut();
    close();
  },
  "connection reset": async ({ carryOut, reset }) => {
    const done = carryOut();
    reset();
    await done;
  },
  // It shows the request with its key, as a gateway in debug mode does. The worker must not log it.
  "502": async ({ answer, headers }) =>
    answer(page(502, "application/json", JSON.stringify({ message: `bad gateway: ${JSON.stringify(headers)}` }))),
  "503 with Retry-After": async ({ answer }) =>
    answer(page(503, "application/json", '{"code":"PGRST002","message":"no schema cache"}', { "retry-after": "1" })),
  "504, not carried out": async ({ answer }) => answer(page(504, "text/html", html("504 Gateway Time-out"))),
  "504, carried out": async ({ carryOut, answer }) => {
    await carryOut();
    answer(page(504, "text/html", html("504 Gateway Time-out")));
  },
  "520, carried out": async ({ carryOut, answer }) => {
    await carryOut();
    answer(page(520, "text/html", html("520: Web server is returning an unknown error")));
  },
  "429": async ({ answer }) =>
    answer(page(429, "application/json", '{"message":"too many requests"}', { "retry-after": "1" })),
  // Complete by its headers: only the JSON shows it.
  "answer cut": async ({ carryOut, answer }) => {
    const whole = await carryOut();
    answer({ ...whole, body: whole.body.subarray(0, half(whole.body)) });
  },
  "answer empty": async ({ carryOut, answer }) => answer({ ...(await carryOut()), body: Buffer.alloc(0) }),
  "answer broken off": async ({ carryOut, breakOff }) => {
    const whole = await carryOut();
    breakOff(whole, half(whole.body));
  },
  "no answer": async ({ carryOut, gaveUp }) => {
    await carryOut();
    await gaveUp;
  },
  // The client has repeated it by then, or has gone on to other things.
  "carried out after the client gave up": async ({ carryOut, gaveUp, below }) => {
    await gaveUp;
    await sleep(below(1000));
    await carryOut();
  },
  "carried out twice at once": async ({ carryOut, answer, below }) => {
    const both = await Promise.all([carryOut(), carryOut()]);
    answer(both[below(2)] as Answer);
  },
  "carried out again later": async ({ carryOut, answer, below }) => {
    answer(await carryOut());
    await sleep(below(1000));
    await carryOut();
  },
} satisfies Record<string, (exchange: Exchange) => Promise<void>>;

type Fault = keyof typeof faults;
const kinds = Object.keys(faults) as Fault[];

/** A request that was answered whole and in time. */
export interface Answered {
  path: string;
  body: string;
  answer: string;
  at: number;
}

export interface FaultyProxy {
  url: string;
  /** How many requests came. */
  requests(): number;
  /** How often each fault was made. */
  counts(): Record<Fault, number>;
  answered: Answered[];
  /** Waits for the requests under way. */
  settled(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Stands before a stack and makes a fault of this share of the requests. Each function and table has its own line of
 * faults, which follows from the seed, and in which each kind has its turn before any comes again.
 */
export async function startFaultyProxy(target: string, seed: number, share: number): Promise<FaultyProxy> {
  const agent = new Agent({ keepAlive: true });
  const counts = Object.fromEntries(kinds.map((kind) => [kind, 0])) as Record<Fault, number>;
  const lines = new Map<string, () => Fault | undefined>();
  const answered: Answered[] = [];
  const underWay = new Set<Promise<void>>();
  let requests = 0;

  function faultFor(path: string): Fault | undefined {
    const name = path.split("?", 1)[0] as string;
    const next =
      lines.get(name) ?? lineOf(seeded([...name].reduce((sum, each) => sum * 31 + each.charCodeAt(0), seed)));
    lines.set(name, next);
    return next();
  }
  function lineOf({ chance, below }: ReturnType<typeof seeded>): () => Fault | undefined {
    let left: Fault[] = [];
    return () => {
      if (!chance(share)) {
        return undefined;
      }
      left = left.length > 0 ? left : [...kinds];
      return left.splice(below(left.length), 1)[0];
    };
  }

  function send(incoming: IncomingMessage, body: Buffer, bytes = body.length): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const { method, headers } = incoming;
      const upstream = request(new URL(incoming.url ?? "/", target), { agent, method, headers }, (response) => {
        read(response).then((body) => {
          const type = response.headers["content-type"] ?? "application/json";
          resolve({ status: response.statusCode ?? 0, headers: { "content-type": type }, body });
        }, reject);
      });
      upstream.once("error", reject);
      if (bytes === body.length) {
        upstream.end(body);
      } else {
        upstream.write(body.subarray(0, bytes), () => upstream.destroy());
      }
    });
  }

  const chances = seeded(seed);
  async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    requests += 1;
    const path = incoming.url ?? "/";
    const gaveUp = once(outgoing, "close");
    const body = await read(incoming);
    const carryOut = (bytes?: number): Promise<Answer> => send(incoming, body, bytes);
    function answer(given: Answer): void {
      outgoing.writeHead(given.status, { ...given.headers, "content-length": given.body.length }).end(given.body);
    }
    function pass(whole: Answer): void {
      if (!outgoing.destroyed && whole.status < 300) {
        answered.push({ path, body: body.toString(), answer: whole.body.toString(), at: Date.now() });
      }
      answer(whole);
    }
    const fault = faultFor(path);
    if (fault === undefined) {
      pass(await carryOut());
      return;
    }
    counts[fault] += 1;
    const make: (exchange: Exchange) => Promise<void> = faults[fault];
    await make({
      headers: incoming.headers,
      below: chances.below,
      carryOut,
      answer: fault.startsWith("carried out") ? pass : answer,
      breakOff(given, bytes) {
        outgoing.writeHead(given.status, { ...given.headers, "content-length": given.body.length });
        outgoing.write(given.body.subarray(0, bytes), () => outgoing.destroy());
      },
      close: () => outgoing.destroy(),
      reset: () => incoming.socket.resetAndDestroy(),
      gaveUp,
    });
  }

  const server = createServer((incoming, outgoing) => {
    const served = serve(incoming, outgoing).finally(() => outgoing.writableEnded || outgoing.destroy());
    underWay.add(served);
    // A failed request stays: settled() throws its error.
    served.then(
      () => underWay.delete(served),
      () => {},
    );
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: () => requests,
    counts: () => ({ ...counts }),
    answered,
    async settled() {
      await Promise.all(underWay);
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      agent.destroy();
    },
  };
}

async function read(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) {
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
