// Each command calls the database and the model. Then both answers and both states are compared.
import { expect } from "vitest";
import { type Claim as Answered, call } from "./calls.ts";
import {
  type Claim,
  claimOf,
  enqueue,
  forget,
  type Item,
  isOpen,
  key,
  nameWorkflow,
  reschedule,
  rulesOf,
} from "./model.ts";
import { asGiven, choice, itemsOf, nobody, nth, outcomeOf, type Spoken, spoken, wishOf } from "./model-choices.ts";
import { type Ask, claimItems, claimNext, type Expected, hold, lapsed, takeBack } from "./model-claiming.ts";
import type { Command } from "./model-commands.ts";
import { cancel, extend, leave, release, releaseParked, retry } from "./model-ending.ts";
import { expectEqual, expectSame, pass, readClaims, register, type Stored, type World } from "./model-world.ts";

/** A run also remembers the calls that may be sent a second time. */
export interface Run extends World {
  repeatable: { name: string; args: Record<string, unknown>; again(answer: unknown): void; isLeftAlone(): boolean }[];
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
}

/** Makes one call to both. Answers a text about it, which is empty if no call was possible. */
export async function perform(run: Run, command: Command): Promise<string> {
  const { model } = run;
  const done = async (name: string, args: Record<string, unknown>, check: (answer: never) => void): Promise<string> => {
    const [answer, after] = await ask<never>(run, name, args);
    check(answer);
    expectSame(model, after);
    return `${name} ${JSON.stringify(args)} answered ${JSON.stringify(answer)}`;
  };
  /** The same for a call that a person makes of the tables. */
  const changed = async (name: string, change: Promise<unknown>): Promise<string> => {
    await change;
    expectSame(model, await readClaims(run));
    return name;
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
      const items = command.items.map(({ runAfterSeconds, dedupeKey, ...rest }) => ({
        ...rest,
        ...(dedupeKey ? { dedupe_key: dedupeKey } : {}),
        ...(runAfterSeconds === undefined ? {} : { run_after: new Date(Date.now() + runAfterSeconds * 1000) }),
      }));
      const args = { items, request_id: command.request };
      return done("enqueue_items", args, (answer: string[]) => {
        expectEqual(answer, enqueue(model, command.items, answer), "the items' ids");
        remember(
          "enqueue_items",
          args,
          (repeated) => expectEqual(repeated, answer, "the ids of a repeated call"),
          // A repeated call makes deleted items again: no record of the call is kept.
          () =>
            answer.every((id) => model.items.has(id)) &&
            command.items.every(({ workflow: of }) => !of || model.workflows.has(of)),
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
        const plain = { ...given, outcome: ends, final: false, retryAfter: undefined, state: null };
        const [state] = release(model, worker_id, [plain]);
        const agreeing = {
          succeeded: ["succeeded"],
          failed: ["waiting", "ready", "failed"],
          released: ["waiting", "ready"],
        };
        const isSo = agreeing[ends].includes(state ?? "lost");
        expectEqual(answer, isSo, "whether it was released");
      });
    }
    case "release items": {
      const [worker_id, given] = spoken(model, command.worker, command.said);
      const args = { worker_id, outcomes: given.map(outcomeOf) };
      return done("release_items", args, (answer: string[]) =>
        expectEqual(answer, release(model, worker_id, asGiven(given)), "the states"),
      );
    }
    case "finish and claim": {
      const [worker_id, given] = spoken(model, command.worker, command.said);
      const asked: Ask = { ...command, worker: worker_id };
      const args = {
        ...{ worker_id, outcomes: given.map(outcomeOf), ...wishOf(command) },
        ...{ ttl_seconds: command.ttl, request_id: command.request },
      };
      return done("finish_and_claim", args, (answer: { released: string[]; claimed: Answered[] }) => {
        const states = release(model, worker_id, asGiven(given));
        const check = (told: typeof answer): void => {
          expectEqual(told.released, states, "the states");
          take(run, asked, claimNext(model, asked, wishOf(command)), told.claimed);
        };
        check(answer);
        // Nor is there a record of successes, beside the claims themselves.
        const closed = given.filter((each) => claimOf(model, each.item, each.type));
        remember(
          "finish_and_claim",
          args,
          (repeated) => check(repeated as typeof answer),
          () => closed.every((each) => claimOf(model, each.item, each.type)),
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
    case "leave":
      return done("release_claims_for_worker", { worker_id: command.worker }, (answer: number) =>
        expectEqual(answer, leave(model, command.worker), "how many were handed back"),
      );
    case "reap": {
      const [answer, after] = await ask<number>(run, "reap_expired_claims", { max_items: command.max });
      const could = lapsed(model);
      expectEqual(answer, Math.min(could.length, command.max), "how many were taken back");
      const chosen = could.filter((claim) => storedStatus(after, claim) !== "claimed");
      expectFirst(could, chosen, (claim) => claim.expiresAt);
      takeBack(model, chosen);
      expectSame(model, after);
      return `reap_expired_claims(${command.max}) answered ${answer}`;
    }
    case "retry":
    case "cancel": {
      const isRetry = command.do === "retry";
      const { work_type, item_ids } = choice(model, command, (claim) => (isRetry ? isUndone(claim) : isOpen(claim)));
      const args = { work_type, item_ids, max_items: command.max };
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
      expectEqual(
        item_ids ? 0 : many,
        item_ids ? 0 : Math.min(could.length, command.max),
        "how many of those there are",
      );
      expectSame(model, after);
      return `${name} ${JSON.stringify(args)} answered ${answer}`;
    }
    case "pause": {
      if (!model.types.has(command.type)) {
        return "";
      }
      const { type: work_type, paused } = command;
      return done("define_work_type", { work_type, paused }, () => {
        rulesOf(model, work_type).paused = paused;
      });
    }
    case "prioritise workflow":
      return done("define_workflow", { workflow: command.workflow, priority: command.priority }, () => {
        nameWorkflow(model, command.workflow).priority = command.priority;
      });
    case "delete workflow":
      model.workflows.delete(command.workflow);
      for (const item of model.items.values()) {
        item.workflow = item.workflow === command.workflow ? null : item.workflow;
      }
      return changed(
        `workflow ${command.workflow} was deleted`,
        run.sql`delete from public.work_workflows where name = ${command.workflow}`.execute(),
      );
    case "delete item": {
      const [id = nobody] = itemsOf(model, [command.item]);
      forget(model, id);
      return changed(`item ${id} was deleted`, run.sql`delete from public.work_items where id = ${id}`.execute());
    }
    case "change item":
    case "reschedule item": {
      const [id = nobody] = itemsOf(model, [command.item]);
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
      return changed(`${command.worker} registered`, register(run, command.worker, command.profile));
    case "prune classes":
      return done("prune_classes", {}, () => {});
    case "pass":
      return changed(`${command.seconds} seconds passed`, pass(run, command.seconds));
  }
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
  item.workflow = isKnown ? command.workflow : null;
  await sql`
    update public.work_items
       set priority = ${command.priority}, affinity = ${command.affinity},
           workflow_id = (select id from public.work_workflows where name = ${command.workflow})
     where id = ${item.id}`;
}
