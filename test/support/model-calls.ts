// Each command calls the database and the model. Then both answers and both states are compared.
import { expect } from "vitest";
import { type Claim as Answered, call } from "./calls.ts";
import type { Worker } from "./matching-oracle.ts";
import {
  type Claim,
  claimOf,
  firstName,
  type Item,
  isOpen,
  key,
  type Lock,
  type Model,
  nameWorkflow,
  type Receipt,
  Refused,
  reschedule,
  rulesOf,
} from "./model.ts";
import { changeInput, invalidate, raiseVersion, sweep } from "./model-changes.ts";
import {
  asGiven,
  choice,
  isHeld,
  itemOf,
  itemsDrawn,
  itemsOf,
  itemsOut,
  lockSaid,
  nth,
  outcomeOf,
  referenceOf,
  restOf,
  type Spoken,
  spoken,
  wishOf,
} from "./model-choices.ts";
import { type Ask, catchUp, claimItems, claimNext, type Expected, hold, lapsed, takeBack } from "./model-claiming.ts";
import type { Command, Said } from "./model-commands.ts";
import { cancel, extend, type Given, leave, release, releaseParked, retry } from "./model-ending.ts";
import { addNeeds, enqueue } from "./model-enqueueing.ts";
import { dropLock, takeLock } from "./model-locks.ts";
import { dependOn, enrollPool, forget, forgetWorkflow, lookAt, neededClaims, raiseSeveral } from "./model-needs.ts";
import {
  expectEqual,
  expectSame,
  pass,
  profiles,
  readClaims,
  register,
  type Stored,
  type World,
} from "./model-world.ts";

/** A run also remembers the calls that may be sent a second time. */
export interface Run extends World {
  repeatable: { name: string; args: Record<string, unknown>; again(answer: unknown): void; isLeftAlone(): boolean }[];
  /** For the test to count. */
  seen: string[];
}

/** One call and a read of its effect: sent together, answered in this order. */
async function ask<Answer>(run: Run, name: string, args: Record<string, unknown>): Promise<[Answer, Stored]> {
  return Promise.all([call<Answer>(run.sql, name, args), readClaims(run)]);
}

/** Compares the answer with the model. Each fence must be new. Then the worker holds the claims. */
function take(run: Run, asked: Ask, expected: Expected, answer: Answered[]): void {
  const { model } = run;
  expectEqual(
    answer.map((each) => each.item_id),
    expected.claims.map((claim) => claim.item.id),
    "the items that were claimed",
  );
  const before = model.lastFence;
  const fences = answer.map((each) => each.fence);
  expectEqual(new Set(fences).size, fences.length, "different fences");
  for (const [index, each] of answer.entries()) {
    const claim = claimOf(model, each.item_id, each.work_type);
    const meant = expected.claims[index];
    if (!claim || !meant || (claim !== meant && !expected.isAsGood(meant, claim))) {
      throw new Error(`${each.work_type} of item ${each.item_id} was answered in place of ${meant?.type}`);
    }
    if (expected.isRepeated) {
      expectEqual(each.fence, claim.fence, "the fence of a repeated call");
    } else {
      expect(each.fence).toBeGreaterThan(before);
      hold(model, claim, asked, each.fence);
      model.lastFence = Math.max(model.lastFence, each.fence);
      expectEqual(each.ttl_seconds, asked.ttl ?? rulesOf(model, claim.type).lease_seconds, "ttl_seconds");
    }
    expectEqual([each.failures, each.crashes], [claim.failures, claim.crashes], "failures and crashes");
    expectEqual([each.state, each.external_id], [claim.state, claim.job], "what the last try left");
    if ("payload" in each) {
      expectEqual([each.payload, each.pool], [claim.item.payload, claim.item.pool], "payload and pool");
    }
  }
  for (const each of answer) {
    expectNeeds(model, claimOf(model, each.item_id, each.work_type) as Claim, each.needs);
  }
}

/** Each need of a claim with its state and result, as its worker gets them. */
function expectNeeds(model: Model, claim: Claim, answered: Answered["needs"]): void {
  const sorted = (needs: unknown[][]): string[] => needs.map((need) => JSON.stringify(need)).sort();
  expectEqual(
    sorted((answered ?? []).map((need) => [need.item_id, need.work_type, need.status, need.result])),
    sorted(neededClaims(model, claim).map(({ item, type, status, result }) => [item.id, type, status, result])),
    "the needs of a claim",
  );
}

/** Whether the model refuses this change. It is tried on a copy. */
function isRefused(model: Model, change: (copy: Model) => void): boolean {
  try {
    change(structuredClone(model));
    return false;
  } catch (error) {
    if (error instanceof Refused) {
      return true;
    }
    throw error;
  }
}

/** The ids of items that the model lacks, in the order in which they came. */
function newItems(model: Model, { claims }: Stored): string[] {
  const fresh = claims.filter((row) => !model.items.has(row.item_id));
  return [...new Set(fresh.sort((one, other) => one.position - other.position).map((row) => row.item_id))];
}

/** Makes one call to both. Answers a text about it, which is empty if no call was possible. */
export async function perform(run: Run, command: Command): Promise<string> {
  const { model } = run;
  const done = async (
    name: string,
    args: Record<string, unknown>,
    check: (answer: never, told: string[]) => void,
  ): Promise<string> => {
    const [answer, after] = await ask<never>(run, name, args);
    check(answer, newItems(model, after));
    expectSame(model, after);
    return `${name} ${JSON.stringify(args)} answered ${JSON.stringify(answer)}`;
  };
  /** The same for a call that a person makes of the tables. */
  const changed = async (name: string, change: Promise<unknown>): Promise<string> => {
    await change;
    expectSame(model, await readClaims(run));
    return name;
  };
  const refused = async (name: string, args: Record<string, unknown>): Promise<string> => {
    await expect(call(run.sql, name, args)).rejects.toMatchObject({ code: "PT400" });
    expectSame(model, await readClaims(run));
    return `${name} ${JSON.stringify(args)} was refused`;
  };
  const remember = (
    name: string,
    args: Record<string, unknown>,
    again: (answer: unknown) => void,
    isLeftAlone: () => boolean,
  ): void => {
    if (args.request_id !== null) {
      run.repeatable.push({ name, args, again, isLeftAlone });
    }
  };

  switch (command.do) {
    case "enqueue": {
      const given = itemsDrawn(model, command.items);
      const args = { items: itemsOut(given), request_id: command.request };
      if (isRefused(model, (copy) => void enqueue(copy, given, []))) {
        return refused("enqueue_items", args);
      }
      return done("enqueue_items", args, (answer: string[]) => {
        expectEqual(answer, enqueue(model, given, answer), "the items' ids");
        remember(
          "enqueue_items",
          args,
          (repeated) => expectEqual(repeated, answer, "the ids of a repeated call"),
          // A repeated call makes deleted items again: no record of the call is kept.
          () =>
            answer.every((id) => model.items.has(id)) &&
            given.every(({ workflow: of }) => !of || model.workflows.has(of)),
        );
      });
    }
    case "claim next": {
      const asked: Ask = command;
      const args = {
        ...{ ...wishOf(command), worker_id: command.worker },
        ...{ ttl_seconds: command.ttl, request_id: command.request },
      };
      const check = (answer: Answered[]): void => take(run, asked, claimNext(model, asked, wishOf(command)), answer);
      return done("claim_next", args, (answer: Answered[]) => {
        check(answer);
        remember(
          "claim_next",
          args,
          (repeated) => check(repeated as Answered[]),
          () => true,
        );
      });
    }
    case "work": {
      const { worker, types, said } = command;
      const claiming = { do: "claim next", worker, types, max: 50, request: null, ttl: null, warm: [] } as const;
      const claimed = await perform(run, { ...claiming, warm: [] });
      const held = [...model.claims.values()].filter((claim) => claim.status === "claimed" && claim.worker === worker);
      if (held.length === 0) {
        return claimed;
      }
      const all = held.map((_, receipt): Said => ({ ...said, receipt, of: "held", withFence: "given" }));
      const released = `${claimed}, ${await perform(run, { do: "release items", worker, said: all })}`;
      const next = { ...command, rounds: command.rounds - 1 };
      return command.rounds > 1 ? `${released}, ${await perform(run, next)}` : released;
    }
    case "claim items": {
      const asked: Ask = command;
      const item_ids = itemsOf(model, command.items);
      const args = {
        ...{ item_ids, work_type: command.type, worker_id: command.worker },
        ...{ ttl_seconds: command.ttl, request_id: command.request },
      };
      const check = (answer: Answered[]): void =>
        take(run, asked, claimItems(model, asked, command.type, item_ids), answer);
      return done("claim_items", args, (answer: Answered[]) => {
        check(answer);
        remember(
          "claim_items",
          args,
          (repeated) => check(repeated as Answered[]),
          () => true,
        );
      });
    }
    case "release item": {
      const [worker_id, [given]] = spoken(model, command.worker, [command.said]) as [string, [Spoken]];
      const { item: item_id, type: work_type, fence, outcome, result } = given;
      // It knows neither snoozing nor parking.
      const ends = outcome === "snoozed" || outcome === "parked" ? "released" : outcome;
      const args = { item_id, work_type, worker_id, outcome: ends, fence, result };
      return done("release_item", args, (answer: boolean) => {
        const plain: Given = { item: item_id, type: work_type, worker: worker_id, fence, outcome: ends, result };
        const [state] = release(model, worker_id, [plain]);
        // A success may be opened again at once.
        const isOpenAgain = claimOf(model, item_id, work_type)?.isStale ? ["blocked", "waiting", "ready"] : [];
        const agreeing = {
          succeeded: ["succeeded", ...isOpenAgain],
          failed: ["blocked", "waiting", "ready", "failed"],
          released: ["blocked", "waiting", "ready"],
        };
        const isSo = agreeing[ends].includes(state ?? "lost");
        expectEqual(answer, isSo, "whether it was released");
      });
    }
    case "release items": {
      const [worker_id, said] = spoken(model, command.worker, command.said);
      const given = asGiven(model, said);
      const args = { worker_id, outcomes: given.map(outcomeOf) };
      if (isRefused(model, (copy) => void release(copy, worker_id, given))) {
        return refused("release_items", args);
      }
      return done("release_items", args, (answer: string[], told) =>
        expectEqual(answer, release(model, worker_id, given, told), "the states"),
      );
    }
    case "finish and claim": {
      const [worker_id, said] = spoken(model, command.worker, command.said);
      const given = asGiven(model, said);
      const asked: Ask = { ...command, worker: worker_id };
      const args = {
        ...{ worker_id, outcomes: given.map(outcomeOf), ...wishOf(command) },
        ...{ ttl_seconds: command.ttl, request_id: command.request },
      };
      if (isRefused(model, (copy) => void release(copy, worker_id, given))) {
        return refused("finish_and_claim", args);
      }
      return done("finish_and_claim", args, (answer: { released: string[]; claimed: Answered[] }, told) => {
        const states = release(model, worker_id, given, told);
        const check = (told: typeof answer): void => {
          expectEqual(told.released, states, "the states");
          take(run, asked, claimNext(model, asked, wishOf(command)), told.claimed);
        };
        check(answer);
        // Nor is there a record of successes, beside the claims themselves.
        const isRecorded = states.some((state) => state !== "succeeded");
        const isAsIt = (each: Given): boolean => {
          const claim = claimOf(model, each.item, each.type);
          return claim?.status === "succeeded" && claim.fence === each.fence;
        };
        remember(
          "finish_and_claim",
          args,
          (repeated) => check(repeated as typeof answer),
          () => isRecorded || given.every(isAsIt),
        );
      });
    }
    case "repeat": {
      const first = nth(
        run.repeatable.filter((each) => each.isLeftAlone()),
        command.which,
      );
      return first ? done(first.name, first.args, (answer: unknown) => first.again(answer)) : "";
    }
    case "extend": {
      const [worker_id, given] = spoken(model, command.worker, command.said);
      const held = given.map(({ item, type: work_type, fence, progress, state }) => ({
        ...{ item_id: item, work_type, fence },
        ...(progress === null ? {} : { progress }),
        ...(state === null ? {} : { state }),
      }));
      const args = { worker_id, held, ttl_seconds: command.ttl };
      return done("extend_claims", args, (answer: { state: string }[]) => {
        const extensions = given.map((each) => ({ ...each, progress: each.progress ?? undefined }));
        expectEqual(
          answer.map((each) => each.state),
          extend(model, worker_id, extensions, command.ttl),
          "the states",
        );
      });
    }
    case "release parked": {
      const { outcome } = command;
      const parked = [...model.claims.values()].filter(
        (claim) => claim.isParked && (claim.status === "claimed") === (outcome !== "abandoned"),
      );
      const external_id = nth(parked, command.claim)?.job ?? "job 0";
      return done("release_parked", { external_id, outcome }, (answer: { state: string }[]) =>
        expectEqual(
          answer.map((each) => each.state),
          releaseParked(model, external_id, outcome),
          "the states",
        ),
      );
    }
    case "take locks": {
      const { worker, types, said, isOfItem, slots } = command;
      const claiming = { do: "claim next", worker, types, max: 2, request: null, ttl: null } as const;
      const notes = [await perform(run, { ...claiming, warm: [] })];
      const held = model.receipts.filter((each) => each.worker === worker && isHeld(model, each));
      for (const given of [...held, ...spoken(model, null, [said])[1]]) {
        const { item: item_id, type: work_type, worker: worker_id, fence } = given;
        const name = isOfItem ? `disk ${item_id}` : "licence";
        const args = { name, slots, item_id, work_type, worker_id, fence };
        notes.push(
          await done("take_lock", args, (answer: Slot | "lost" | null) => takeSlot(run, name, slots, given, answer)),
        );
      }
      if (command.drops) {
        notes.push(await perform(run, { do: "drop lock", lock: 0, said }));
      }
      return notes.join(", ");
    }
    case "drop lock": {
      const { name, ...given } = lockSaid(model, command.lock, command.said);
      const args = { name, item_id: given.item, work_type: given.type, worker_id: given.worker, fence: given.fence };
      return done("drop_lock", args, (answer: boolean) => {
        expectEqual(answer, dropLock(model, name, given), "whether it had a slot");
        run.seen.push(...(answer ? ["slots dropped"] : []));
      });
    }
    case "leave":
      return done("release_claims_for_worker", { worker_id: command.worker }, (answer: number) =>
        expectEqual(answer, leave(model, command.worker), "how many were handed back"),
      );
    case "reap": {
      const [answer, after] = await ask<number>(run, "reap_expired_claims", { max_items: command.max });
      const could = lapsed(model);
      expectEqual(answer, Math.min(could.length, command.max), "how many were taken back");
      const chosen = could.filter((claim) => storedStatus(after, claim) !== "claimed");
      // Those that fail with this crash come after the others.
      const isLast = (claim: Claim): boolean => claim.crashes + 1 >= rulesOf(model, claim.type).max_crashes;
      expectFirst(could, chosen, (claim) => (could.some(isLast) ? 0 : claim.expiresAt));
      takeBack(model, chosen);
      expectSame(model, after);
      return `reap_expired_claims(${command.max}) answered ${answer}`;
    }
    case "retry":
    case "cancel": {
      const isRetry = command.do === "retry";
      const { work_type, item_ids } = choice(model, command, (claim) => (isRetry ? isUndone(claim) : isOpen(claim)));
      const ofType = [...model.claims.values()].filter((claim) => claim.type === work_type);
      // Where others follow, their changes do not tell which ones the call chose.
      const isAlone = ofType.every((claim) => neededClaims(model, claim).length === 0);
      const max_items = isAlone ? command.max : 1000;
      const args = { work_type, item_ids, max_items };
      const name = isRetry ? "retry_items" : "cancel_items";
      if (!model.types.has(work_type)) {
        await expect(call(run.sql, name, args)).rejects.toMatchObject({ code: "PT404" });
        return `${name} of an unknown work type was refused`;
      }
      const [answer, after] = await ask<number>(run, name, args);
      const could = [...model.claims.values()].filter(
        (claim) =>
          claim.type === work_type &&
          (item_ids === null ? !isRetry || claim.status === "failed" : item_ids.includes(claim.item.id)) &&
          (isRetry ? isUndone(claim) : isOpen(claim)),
      );
      const chosen = item_ids ? could : could.filter((claim) => storedStatus(after, claim) !== claim.status);
      const ids = item_ids ?? chosen.map((claim) => claim.item.id);
      if (isRetry) {
        expectFirst(could, chosen, (claim) => (item_ids ? 0 : claim.finishedAt));
        retry(model, chosen);
      }
      const many = isRetry ? chosen.length : cancel(model, work_type, ids);
      expectEqual(answer, many, "how many were changed");
      expectEqual(item_ids ? 0 : many, item_ids ? 0 : Math.min(could.length, max_items), "how many of those there are");
      expectSame(model, after);
      return `${name} ${JSON.stringify(args)} answered ${answer}`;
    }
    case "pause": {
      if (!model.types.has(command.type)) {
        return "";
      }
      const { paused } = command;
      const work_type = firstName(command.type);
      return done("define_work_type", { work_type, paused }, () => {
        Object.assign(rulesOf(model, work_type), { paused, deadEnds: [] });
      });
    }
    case "several": {
      const args = { work_type: "score", several: command.many };
      if (command.many < rulesOf(model, "score").several) {
        await expect(call(run.sql, "define_work_type", args)).rejects.toMatchObject({ code: "PT409" });
        return "fewer claims an item were refused";
      }
      return done("define_work_type", args, () => raiseSeveral(model, "score", command.many));
    }
    case "depend": {
      const { type: work_type, on: depends_on } = command;
      const args = { work_type, depends_on };
      if (isRefused(model, (copy) => dependOn(copy, work_type, depends_on))) {
        return refused("define_work_type", args);
      }
      return done("define_work_type", args, () => dependOn(model, work_type, depends_on));
    }
    case "enroll":
      return done("enroll_pool", { pool: "side" }, (answer: { enrolled: number }) =>
        expectEqual(answer.enrolled, enrollPool(model, "side"), "how many claims were made"),
      );
    case "prioritise workflow":
      return done("define_workflow", { workflow: command.workflow, priority: command.priority }, () => {
        nameWorkflow(model, command.workflow).priority = command.priority;
      });
    case "add needs": {
      const id = itemOf(model, command.item);
      const references = command.needs.map((each) => referenceOf(model, each, 0));
      const args = { item_id: id, needs: references };
      if (!model.items.has(id)) {
        return "";
      }
      if (isRefused(model, (copy) => addNeeds(copy, id, references))) {
        return refused("add_needs", args);
      }
      return done("add_needs", args, () => addNeeds(model, id, references));
    }
    case "change payload": {
      const item = model.items.get(itemOf(model, command.item));
      if (!item) {
        return "";
      }
      const { payload, fingerprint } = command;
      changeInput(model, item, { payload, fingerprint: fingerprint ?? item.fingerprint });
      return changed(
        `item ${item.id} got the input ${JSON.stringify([payload, item.fingerprint])}`,
        run.sql`
          update public.work_items set payload = ${run.sql.json(payload as never)}, fingerprint = ${item.fingerprint}
           where id = ${item.id}`.execute(),
      );
    }
    case "reread": {
      const [worker_id, [given]] = spoken(model, null, [command.said]) as [string, [Spoken]];
      const args = { item_id: given.item, work_type: given.type, worker_id, fence: given.fence };
      return done("reread_claim", args, (answer: { payload: unknown } | null) => {
        const claim = claimOf(model, given.item, given.type);
        const isHeld = claim?.status === "claimed" && claim.worker === worker_id && claim.fence === given.fence;
        const read = claim && isHeld && claim.expiresAt > model.now ? claim : undefined;
        expectEqual(answer?.payload ?? null, read?.item.payload ?? null, "the present payload");
        if (read) {
          read.readInput = null;
        }
      });
    }
    case "invalidate": {
      const { work_type, item_ids } = choice(
        model,
        command,
        ({ status }) => status === "succeeded" || status === "claimed",
      );
      return model.types.has(work_type)
        ? done("invalidate_items", { work_type, item_ids, reason: "by hand" }, (answer: number) =>
            expectEqual(answer, invalidate(model, work_type, item_ids ?? []), "how many are to be done again"),
          )
        : "";
    }
    case "raise version": {
      const isDone = ({ status }: Claim): boolean => status === "succeeded" || status === "claimed";
      const work_type = firstName(choice(model, { ...command, items: null }, isDone).work_type);
      if (!model.types.has(work_type)) {
        return "";
      }
      const version = rulesOf(model, work_type).version + 1;
      return done("define_work_type", { work_type, version }, () => raiseVersion(model, work_type));
    }
    case "sweep": {
      const [due] = await run.sql<{ name: string }[]>`
        select name from public.work_types where redone_through is not null limit 1`;
      if (!due) {
        return "";
      }
      await run.admin`update work.upkeep set due_at = '-infinity'`;
      return done("claim_next", { work_types: ["nothing"], worker_id: "plain" }, () => {
        catchUp(model);
        sweep(model, due.name);
      }).finally(() => run.admin`update work.upkeep set due_at = 'infinity'`);
    }
    case "delete workflow":
      forgetWorkflow(model, command.workflow);
      return changed(
        `workflow ${command.workflow} was deleted`,
        run.sql`delete from public.work_workflows where name = ${command.workflow}`.execute(),
      );
    case "delete item": {
      const id = itemOf(model, command.item);
      forget(model, id);
      return changed(`item ${id} was deleted`, run.sql`delete from public.work_items where id = ${id}`.execute());
    }
    case "change item":
    case "reschedule item": {
      const id = itemOf(model, command.item);
      const item = model.items.get(id);
      return item ? changed(`item ${id} was changed`, changeItem(run, item, command)) : "";
    }
    case "drop records": {
      const records = [...model.claims.values()].filter((claim) => claim.type === command.type && !isOpen(claim));
      for (const claim of records) {
        model.claims.delete(key(claim.item.id, claim.type));
      }
      return changed(
        `${records.length} records of ${command.type} were dropped`,
        run.sql`delete from public.work_claims where work_type = ${command.type} and finished_at is not null`.execute(),
      );
    }
    case "register":
      model.workers.set(command.worker, { id: command.worker, ...(profiles[command.profile] as Omit<Worker, "id">) });
      return changed(`${command.worker} registered`, register(run.sql, command.worker, command.profile));
    case "prune classes":
      return done("prune_classes", {}, () => {});
    case "pass": {
      const seconds = command.seconds ?? restOf(model);
      return changed(`${seconds} seconds passed`, pass(run, seconds));
    }
  }
}

type Slot = Pick<Lock, "slot" | "fence">;

/** Compares the answer with the model. The fence of a slot that was free must be new. */
function takeSlot(
  { model, seen }: Run,
  name: string,
  slots: number,
  given: Receipt,
  answer: Slot | "lost" | null,
): void {
  const told = answer === null || answer === "lost" ? 0 : answer.fence;
  const isNew = !model.locks.some((lock) => lock.fence === told);
  expectEqual(answer, takeLock(model, name, slots, given, told), "the slot");
  if (told > 0 && isNew) {
    expect(told).toBeGreaterThan(model.lastFence);
    model.lastFence = told;
  }
  seen.push(
    `slots ${answer === null ? "all taken" : answer === "lost" ? "refused as lost" : isNew ? "given" : "given again"}`,
  );
}

const isUndone = (claim: Claim): boolean => claim.status === "failed" || claim.status === "cancelled";

/** Where a call took some of those it could, they were the first by their time. */
function expectFirst(could: Claim[], chosen: Claim[], time: (claim: Claim) => number): void {
  const last = Math.max(...chosen.map(time));
  expect(could.filter((claim) => !chosen.includes(claim) && time(claim) < last)).toEqual([]);
}

const storedStatus = ({ claims }: Stored, { item, type: of }: Claim): string | undefined =>
  claims.find((row) => row.item_id === item.id && row.work_type === of)?.status;

async function changeItem(
  { model, sql }: Run,
  item: Item,
  command: Extract<Command, { do: "change item" | "reschedule item" }>,
): Promise<void> {
  if (command.do === "reschedule item") {
    const { seconds } = command;
    reschedule(model, item, seconds === null ? null : model.now + seconds);
    await sql`
      update public.work_items set run_after = clock_timestamp() + interval '1 second' * ${seconds} where id = ${item.id}`;
    return;
  }
  const isKnown = command.workflow !== null && model.workflows.has(command.workflow);
  item.priority = command.priority;
  item.affinity = command.affinity;
  const former = item.workflow;
  item.workflow = isKnown ? command.workflow : null;
  if (former !== item.workflow) {
    lookAt(model, [former, item.workflow]);
  }
  await sql`
    update public.work_items
       set priority = ${command.priority}, affinity = ${command.affinity},
           workflow_id = (select id from public.work_workflows where name = ${command.workflow})
     where id = ${item.id}`;
}
