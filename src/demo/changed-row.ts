import { setTimeout as pause } from "node:timers/promises";
import type { Stage } from "./stage.ts";

/** Many times as long as a worker needs to look again. */
const patienceMs = 30_000;

/** Changes one text after all are done. True where it was done again, and no other text was. */
export async function changeOneRow({ screen, sql, signal }: Stage): Promise<boolean> {
  const [before] = await sql<{ count: number }[]>`select count(*)::int from public.demo_log`;
  const began = performance.now();
  await sql`update public.demo_texts set body = body || ', edited' where id = 17`;
  while ((await sql`select from public.work_stale`).length > 0) {
    if (performance.now() - began > patienceMs) throw new Error("the changed text was not done again");
    await pause(100, undefined, { signal });
  }
  const again = await sql<{ text: string; worker_id: string }[]>`
    select i.source_key as text, l.worker_id
      from public.demo_log l join public.work_items i on i.id = l.item_id
     order by l.at offset ${before?.count ?? 0}`;
  const isOnlyOne = again.length === 1 && again[0]?.text === "17";
  const took = ((performance.now() - began) / 1000).toFixed(1);
  screen.say(
    isOnlyOne
      ? `✓ changed text 17 with an update: ${again[0]?.worker_id} did it again after ${took} s, and no other text was done`
      : `✗ changed text 17, and these were done again: ${again.map(({ text }) => text).join(", ")}`,
  );
  return isOnlyOne;
}
