// A server that speaks the metadata of AWS, Google Cloud and Azure, as a machine there sees it.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

type Answer = [status: number, body: string];

export interface MetadataServer {
  /** Sends requests for the clouds' own addresses here, and all others on. */
  fetch: typeof globalThis.fetch;
  /** The notices of the clouds; none at first. */
  aws: Answer;
  gcp: Answer;
  azure: Answer;
  close(): void;
}

const awsToken = "a token of this server";
const needs = (request: IncomingMessage, header: string, value: string, answer: Answer): Answer =>
  request.headers[header] === value
    ? answer
    : [request.url?.startsWith("/latest") ? 401 : 403, "the header is missing"];

export async function startMetadataServer(elsewhere: typeof globalThis.fetch): Promise<MetadataServer> {
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const [status, body] = answerTo(request);
    response.writeHead(status, { "content-type": "text/plain" }).end(body);
  });

  function answerTo(request: IncomingMessage): Answer {
    switch (`${request.headers["x-asked-host"]} ${request.method} ${request.url}`) {
      case "169.254.169.254 PUT /latest/api/token":
        return Number(request.headers["x-aws-ec2-metadata-token-ttl-seconds"]) > 0 ? [200, awsToken] : [400, ""];
      case "169.254.169.254 GET /latest/meta-data/spot/instance-action":
        return needs(request, "x-aws-ec2-metadata-token", awsToken, metadata.aws);
      case "metadata.google.internal GET /computeMetadata/v1/instance/preempted":
        return needs(request, "metadata-flavor", "Google", metadata.gcp);
      case "169.254.169.254 GET /metadata/scheduledevents?api-version=2020-07-01":
        return needs(request, "metadata", "true", metadata.azure);
      case "169.254.169.254 GET /metadata/instance/compute/name?api-version=2021-02-01&format=text":
        return needs(request, "metadata", "true", [200, "gpu_3"]);
      default:
        return [404, "no such path"];
    }
  }

  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const metadata: MetadataServer = {
    fetch(input, init) {
      const url = new URL(String(input));
      if (!["169.254.169.254", "metadata.google.internal"].includes(url.hostname)) {
        return elsewhere(input, init);
      }
      const headers = { ...(init?.headers as Record<string, string>), "x-asked-host": url.hostname };
      return globalThis.fetch(`http://127.0.0.1:${port}${url.pathname}${url.search}`, { ...init, headers });
    },
    aws: [404, "not found"],
    gcp: [200, "FALSE"],
    azure: [200, '{"DocumentIncarnation":1,"Events":[]}'],
    close: () => server.close(),
  };
  return metadata;
}
