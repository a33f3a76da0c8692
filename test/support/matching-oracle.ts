// A worker's next claims, straight from the definition: every ready row is read, judged in TypeScript, and sorted.
import type { Json } from "../../src/answers.ts";
import type { Requirement } from "../../src/index.ts";
import { call } from "./calls.ts";
import type { Sql } from "./database.ts";
import { matches } from "./requirement-judge.ts";

export interface Worker {
  id: string;
  capabilities: Record<string, Json>;
  accepts?: Requirement;
  exclusive?: string[];
  yield_seconds?: number | undefined;
}

/** The arguments of a claim call. */
export interface Wish {
  work_types: string[];
  max_items: number;
  warm?: string[];
}

/** A ready claim and its item. */
export interface Row {
  item_id: string;
  work_type: string;
  class_id: number;
  priority: number;
  rank: number;
  position: number;
  affinity: string | null;
  pool: string;
  workflow: string | null;
  requires: Requirement;
  labels: Record<string, Json>;
  ready_seconds: number;
  passed_over_seconds: number;
}

export async function register(sql: Sql, worker: Worker): Promise<void> {
  const { id, ...rest } = worker;
  const [known] = await sql`select instance from public.work_workers where id = ${id}`;
  await call(sql, "register_worker", { worker_id: id, instance: known?.instance ?? crypto.randomUUID(), ...rest });
}

/** The items that the next call is to answer, in their order. */
export async function expectedItems(sql: Sql, worker: Worker, wish: Wish): Promise<string[]> {
  const rows = await sql<Row[]>`
    select c.item_id, c.work_type, i.class_id, i.pool, i.affinity, k.requires, k.labels, w.name as workflow,
           coalesce(w.priority, i.priority) as priority, coalesce(w.rank, i.seq)::float as rank, i.seq::float as position,
           extract(epoch from clock_timestamp() - c.due_at)::float as ready_seconds, t.passed_over_seconds
      from public.work_claims c
      join public.work_items i on i.id = c.item_id
      join public.work_classes k on k.id = i.class_id
      join public.work_types t on t.name = c.work_type
      left join public.work_workflows w on w.id = i.workflow_id
     where c.status = 'ready' and c.work_type = any (${wish.work_types}) and not t.paused`;
  return inOrder(rows, worker, wish)
    .slice(0, wish.max_items)
    .map((row) => row.item_id);
}

/**
 * The ready claims that the worker may have, in the order in which it gets them: its own, then those that it yields and
 * that have waited long enough, of the first ones of each priority. Of its own it gets those first that it is warm for,
 * within the priority of the first one, unless that one has waited too long.
 */
export function inOrder(rows: Row[], worker: Worker, wish: Wish): Row[] {
  const judged = new Map<number, ReturnType<typeof judgeClass>>();
  const judge = (row: Row): string => {
    const known = judged.get(row.class_id) ?? judgeClass(row, worker);
    judged.set(row.class_id, known);
    return known;
  };
  const sorted = [...rows].sort(compare);
  const own = sorted.filter((row) => judge(row) === "at once");
  const looked = 100 + 4 * (wish.max_items - own.length);
  const common = sorted.filter((row) => judge(row) === "after a while");
  const yielded = [...new Set(common.map((row) => row.priority))].flatMap((priority) =>
    common
      .filter((row) => row.priority === priority)
      .slice(0, looked)
      .filter((row) => row.ready_seconds >= (worker.yield_seconds ?? 0)),
  );
  const [first] = own;
  const isWarm = (row: Row): boolean =>
    first !== undefined &&
    first.ready_seconds < first.passed_over_seconds &&
    row.priority === first.priority &&
    row.affinity !== null &&
    (wish.warm ?? []).includes(row.affinity);
  return [...own.filter(isWarm), ...own.filter((row) => !isWarm(row)), ...yielded];
}

/** As documented: a class is spared if the worker would match it without its exclusive capabilities. */
export function judgeClass(
  row: Pick<Row, "requires" | "labels">,
  worker: Worker,
): "at once" | "after a while" | "never" {
  if (!matches(row.requires, worker.capabilities) || !matches(worker.accepts ?? {}, row.labels)) {
    return "never";
  }
  const { exclusive = [] } = worker;
  const isSpared =
    exclusive.length > 0 &&
    matches(
      row.requires,
      exclusive.reduce((left, name) => without(left, name.split(".")) as Worker["capabilities"], worker.capabilities),
    );
  return isSpared ? (worker.yield_seconds === undefined ? "never" : "after a while") : "at once";
}

/** A list on the way means the objects in it, as in a requirement. */
function without(value: Json, [name = "", ...rest]: string[]): Json {
  if (Array.isArray(value)) {
    return value.map((each) => (Array.isArray(each) ? each : without(each, [name, ...rest])));
  }
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) {
    return value;
  }
  const { [name]: inner, ...others } = value;
  return rest.length === 0 ? others : { ...others, [name]: without(inner as Json, rest) };
}

/** Zero only for claims of one item. */
export function compare(one: Row, other: Row): number {
  return other.priority - one.priority || one.rank - other.rank || one.position - other.position;
}
