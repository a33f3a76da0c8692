import { createWorkClient, type WorkClient } from "../client.ts";
import { findProject } from "./project.ts";

/** A person waits for the answer: a restart is sat out, a wrong address is not waited for. */
const retryForMs = 5000;

/** A client of the project that the options, the environment or the env file name. */
export async function projectClient(
  values: Parameters<typeof findProject>[0],
  actor?: string | undefined,
): Promise<WorkClient> {
  const { url, key } = await findProject(values);
  return createWorkClient({ url, key, actor, retryForMs });
}
