// What a worker is to get, straight from the definition: every ready row is read, judged in TypeScript, and sorted.
import type { Json } from "../src/answers.ts";
import { matches, type Requirement } from "../src/index.ts";
import { call } from "./calls.ts";
import type { Sql } from "./database.ts";

export interface Worker {
  id: string;
  capabilities: Record<string, Json>;
  accepts?: Requirement;
  exclusive?: string[];
  yield_seconds?: number | undefined;
}

/** What a claim call asks for. */
export interface Wish {
  work_types: string[];
  max_items: number;
  warm?: string[];
  only?: { pool?: string; workflow?: string; labels?: Requirement };
}

/** A ready claim and its item. */
export interface Row {
  item_id: string;
  work_type: string;
  class_id: number;
  priority: number;
  line: number;
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
           coalesce(w.priority, i.priority) as priority, coalesce(w.line, i.seq)::float as line, i.seq::float as position,
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

/** Of these ready claims what the worker may have, in the order in which it is to get them. */
export function inOrder(rows: Row[], worker: Worker, wish: Wish): Row[] {
  const judged = new Map<number, "at once" | "after a while" | "never">();
  const judge = (row: Row): string => {
    const known = judged.get(row.class_id) ?? judgeClass(row, worker);
    judged.set(row.class_id, known);
    return known;
  };
  const mine = rows.filter((row) => judge(row) !== "never" && isWanted(row, wish));
  return visible(mine, (row) => judge(row) === "after a while", worker.yield_seconds ?? 0).sort((one, other) =>
    compare(one, other, wish.warm),
  );
}

/** As documented: matched with all it has, and spared where it would match without what it is exclusive about. */
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

/** A list on the way stands for the objects in it, as in a requirement. */
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

function isWanted(row: Row, { only }: Wish): boolean {
  return (
    (only?.pool === undefined || row.pool === only.pool) &&
    (only?.workflow === undefined || row.workflow === only.workflow) &&
    (only?.labels === undefined || matches(only.labels, row.labels))
  );
}

/** What is left to others for a while hides what is behind it in the line of its work type and class. */
function visible(rows: Row[], isYielded: (row: Row) => boolean, seconds: number): Row[] {
  const lines = new Map<string, Row[]>();
  for (const row of rows) {
    const name = JSON.stringify([row.work_type, row.class_id]);
    lines.set(name, [...(lines.get(name) ?? []), row]);
  }
  return [...lines.values()].flatMap((line) => {
    const inOrder = line.sort((one, other) => compare(one, other));
    const young = inOrder.findIndex((row) => isYielded(row) && row.ready_seconds < seconds);
    return young === -1 ? inOrder : inOrder.slice(0, young);
  });
}

/** Zero only for claims of one item. */
export function compare(one: Row, other: Row, warm?: string[]): number {
  const favour = (row: Row): number => {
    // What has waited too long comes as it came, and before all that is at hand.
    if (warm?.length && row.ready_seconds >= row.passed_over_seconds) return 0;
    return row.affinity !== null && warm?.includes(row.affinity) ? 1 : 2;
  };
  const ranks = (row: Row): number[] => [-row.priority, favour(row), row.line, row.position];
  const theirs = ranks(other);
  return (
    ranks(one)
      .map((rank, index) => rank - (theirs[index] as number))
      .find((difference) => difference !== 0) ?? 0
  );
}
