// A stand-in for what Supabase's edge runtime adds to Deno: EdgeRuntime.waitUntil, and the event beforeunload with its
// reason. Deno runs it before a function. The stack decides when an isolate ends, and says so on standard input.

type Server = { shutdown(): Promise<void> };
type Serve = (...given: unknown[]) => Server;

const host = globalThis as unknown as {
  Deno: { serve: Serve; stdin: { readable: ReadableStream<Uint8Array> }; exit(code: number): never };
  EdgeRuntime: { waitUntil(promise: unknown): unknown };
  CustomEvent: new (name: string, about: { detail: unknown }) => Event;
  dispatchEvent(event: Event): boolean;
};

const promises = new Set<Promise<unknown>>();

host.EdgeRuntime = {
  waitUntil(promise) {
    if (promise instanceof Promise) {
      promises.add(promise);
      const settle = (): boolean => promises.delete(promise);
      promise.then(settle, settle);
    }
    return promise;
  },
};

async function obey(server: Server): Promise<void> {
  for await (const text of host.Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    for (const reason of text.trim().split("\n")) {
      void end(server, reason);
    }
  }
}

async function end(server: Server, reason: string): Promise<void> {
  if (reason === "early_drop") {
    // Only an isolate with nothing left to do is dropped early.
    await Promise.allSettled(promises);
  }
  host.dispatchEvent(new host.CustomEvent("beforeunload", { detail: { reason } }));
  if (reason === "early_drop" || reason === "termination") {
    await Promise.allSettled(promises);
    await server.shutdown();
    host.Deno.exit(0);
  }
}

// Deno runs the function after all that this file waits for, so reading begins when the function serves.
const { serve } = host.Deno;
host.Deno.serve = (...given) => {
  const server = serve(...given);
  void obey(server);
  return server;
};
