-- The end of a claim: released by its holder, with an outcome.

-- What is wrong with an outcome that a worker sends; null where nothing is.
create or replace function work.wrong_outcome(outcome jsonb)
returns text
language plpgsql
immutable
as $$
begin
  if jsonb_typeof(outcome) <> 'object' then
    return 'an outcome is a JSON object';
  end if;
  if outcome ->> 'item_id' is null or outcome ->> 'work_type' is null or jsonb_typeof(outcome -> 'fence') is distinct from 'number' then
    return 'an outcome has item_id, work_type and fence, as the claim had them';
  end if;
  if jsonb_typeof(outcome -> 'outcome') is distinct from 'string'
    or outcome ->> 'outcome' not in ('succeeded', 'failed', 'released') then
    return format('outcome is %s; succeeded, failed or released was expected', coalesce(left(outcome ->> 'outcome', 60), 'null'));
  end if;
  if pg_column_size(outcome -> 'result') > 1048576 then
    return format(
      'result has %s bytes; a claim keeps at most 1048576: store it elsewhere and release with where it is',
      pg_column_size(outcome -> 'result'));
  end if;
  if jsonb_typeof(outcome -> 'retry_after_seconds') not in ('number', 'null')
    or (outcome ->> 'retry_after_seconds')::numeric not between 0 and 2592000 then
    return 'retry_after_seconds is a number from 0 to 2592000';
  end if;
  return null;
end
$$;
comment on function work.wrong_outcome is 'Says what is wrong with an outcome for release_items(); null where nothing is.';

-- Refuses outcomes of which one is wrong, and says which and why.
create or replace function work.check_outcomes(outcomes jsonb)
returns void
language plpgsql
as $$
declare
  wrong record;
begin
  select e.n - 1 as at, work.wrong_outcome(e.value) as why into wrong
    from jsonb_array_elements(outcomes) with ordinality as e(value, n)
   where work.wrong_outcome(e.value) is not null
   limit 1;
  if found then
    raise exception using errcode = 'PT400', message = format('outcomes[%s]: %s', wrong.at, wrong.why);
  end if;
end
$$;

-- Close claims, each only for the holder's worker id and current fence. Each outcome is answered with the claim's new
-- state, or "lost". A release that comes again is answered as before and changes nothing.
create or replace function work.close_claims(worker_id text, outcomes jsonb)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  all_succeeded boolean;
  succeeded integer;
  handed_back integer;
  answer json;
  moment timestamptz := clock_timestamp();
begin
  -- Asking each outcome what it is costs as much as closing it: where all claim to have succeeded it is asked only if
  -- some could not be closed. Where not, their rows are locked first, since they are closed by two statements and both
  -- have to lock in one order.
  all_succeeded := pg_column_size(close_claims.outcomes) <= 1048576
    and jsonb_path_exists(close_claims.outcomes, 'strict $[*].outcome ? (@ != "succeeded")', '{}', true) is false
    and jsonb_array_length(close_claims.outcomes) between 1 and 1000;
  if all_succeeded is not true then
    if work.check_list('outcomes', close_claims.outcomes) and jsonb_array_length(close_claims.outcomes) = 0 then
      return '[]';
    end if;
    perform work.check_outcomes(close_claims.outcomes);
    perform
       from (select o.item_id, o.work_type
               from jsonb_to_recordset(close_claims.outcomes) as o(item_id uuid, work_type text)
              order by o.item_id, o.work_type) as g
      cross join lateral (
        select from public.work_claims c
         where c.item_id = any (array[g.item_id]) and c.work_type = g.work_type
           for no key update) as locked;
  end if;

  -- In the order of keys, as in every call that waits for rows. "= any (array[…])" and "is not distinct from" hold the
  -- planner to one look-up by key for each outcome: with plain equalities it could as well walk all that is held, or
  -- the whole table, once for each outcome, in a plan it made when the table was small.
  with given as materialized (
    select o.*
      from jsonb_to_recordset(close_claims.outcomes) as o(
             item_id uuid, work_type text, fence bigint, outcome text, result jsonb)
     where o.outcome = 'succeeded' and o.fence is not null
     order by o.item_id, o.work_type
  ),
  done as (
    update public.work_claims c
       set status = 'succeeded', finished_at = moment, result = g.result, error = null, progress = 1
      from given g
     where c.item_id = any (array[g.item_id]) and c.work_type = g.work_type
       and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_claims.worker_id, g.fence)
    returning c.status
  )
  select json_agg(d.status), count(*) into answer, succeeded from done d;
  if succeeded = jsonb_array_length(close_claims.outcomes) then
    return answer;
  end if;
  if all_succeeded then
    perform work.check_outcomes(close_claims.outcomes);
  end if;

  -- What left the happy path: handed back, or failed, which is counted and recorded.
  with given as materialized (
    select o.*, coalesce(t.max_failures, 3) as max_failures, coalesce(t.backoff_seconds, 10) as backoff_seconds,
           coalesce(t.backoff_limit_seconds, 3600) as backoff_limit_seconds
      from jsonb_to_recordset(close_claims.outcomes) as o(
             item_id uuid, work_type text, fence bigint, outcome text, error text, final boolean,
             retry_after_seconds double precision)
      left join public.work_types t on t.name = o.work_type
     where o.outcome <> 'succeeded'
     order by o.item_id, o.work_type
  ),
  undone as (
    update public.work_claims c
       set status = case when g.outcome = 'released' then case when c.due_at > moment then 'waiting' else 'ready' end
                         when g.final or c.failures + 1 >= g.max_failures then 'failed'
                         else 'waiting' end,
           failures = c.failures + case g.outcome when 'failed' then 1 else 0 end,
           finished_at = case when g.outcome = 'failed' and (g.final or c.failures + 1 >= g.max_failures) then moment end,
           due_at = case g.outcome
             when 'released' then greatest(c.due_at, moment)
             else moment + make_interval(secs => coalesce(
               g.retry_after_seconds,
               least(g.backoff_limit_seconds, g.backoff_seconds * 2.0 ^ least(c.failures, 30))))
           end,
           error = case g.outcome when 'failed' then left(coalesce(g.error, 'the worker gave no reason'), 8000) end,
           result = null,
           progress = null
      from given g
     where c.item_id = any (array[g.item_id]) and c.work_type = g.work_type
       and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_claims.worker_id, g.fence)
    returning g.outcome, c.item_id, c.work_type, c.fence, c.error
  ),
  told as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail)
    select u.item_id, u.work_type, 'failed', close_claims.worker_id, u.fence, u.error from undone u where u.outcome = 'failed'
  )
  select count(*) into handed_back from undone u where u.outcome = 'released';
  if handed_back > 0 then
    perform work.note_arrivals();
  end if;

  -- A row that shows this worker and this fence and is not held was closed by this worker, now or in an earlier call
  -- of the same kind: taking back and cancelling leave no worker.
  -- Locked against deletion, so that an event about the claim finds it. One that is being deleted is not waited for: who
  -- deletes it may wait for another that was closed above.
  with judged as materialized (
    select g.n, g.item_id, g.work_type, g.fence, g.outcome, c.item_id is not null as exists,
           case when (c.fence, c.worker_id) is not distinct from (g.fence, close_claims.worker_id) and c.status <> 'claimed'
             then c.status else 'lost' end as state
      from rows from (jsonb_to_recordset(close_claims.outcomes) as (
             item_id uuid, work_type text, fence bigint, outcome text))
           with ordinality
        as g(item_id, work_type, fence, outcome, n)
      left join lateral (
        select k.* from public.work_claims k where k.item_id = g.item_id and k.work_type = g.work_type
         limit 1 for key share skip locked) as c on true
  ),
  told as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail)
    select j.item_id, j.work_type, 'stale_release', close_claims.worker_id, j.fence,
           format('a release as %s came too late', j.outcome)
      from judged j
     where j.state = 'lost' and j.exists
     order by j.n
  )
  select json_agg(j.state order by j.n) into answer from judged j;
  return answer;
end
$$;
comment on function work.close_claims is 'Closes claims for their holder; every other outcome is answered "lost" and recorded.';

-- Close one claim. True for its holder only; a late or foreign call changes nothing and is recorded. Nor is it true that a
-- claim succeeded which its holder has given up already.
create or replace function public.release_item(
  item_id uuid,
  work_type text,
  worker_id text,
  outcome text,
  fence bigint,
  result jsonb default null,
  error text default null
)
returns boolean
language plpgsql
as $$
declare
  checked boolean;
  state text;
begin
  if item_id is null then
    perform work.refuse('item_id', null, 'the id of the claimed item was expected');
  end if;
  checked := work.check_name('work_type', work_type) and work.check_name('worker_id', worker_id);
  if outcome is null or outcome not in ('succeeded', 'failed', 'released') then
    perform work.refuse('outcome', outcome, 'succeeded, failed or released was expected');
  end if;
  if fence is null then
    perform work.refuse('fence', null, 'the fence that the claim came with was expected');
  end if;
  state := work.close_claims(worker_id, jsonb_build_array(jsonb_build_object(
    'item_id', item_id, 'work_type', work_type, 'fence', fence, 'outcome', outcome, 'result', result, 'error', error
  ))) ->> 0;
  return case outcome when 'succeeded' then state = 'succeeded' else state <> 'lost' end;
end
$$;
comment on function public.release_item is
  'Closes one claim as succeeded, failed or released (handed back). True for the holder of its current fence only, and for a success only where it stands; a late or foreign call changes nothing and is recorded.';

-- Close many claims [{item_id, work_type, fence, outcome, result, error, final, retry_after_seconds}]; each is answered
-- in the same place with its new state, or "lost".
create or replace function public.release_items(worker_id text, outcomes jsonb)
returns json
language plpgsql
as $$
declare
  checked boolean;
begin
  checked := work.check_name('worker_id', worker_id);
  return work.close_claims(worker_id, outcomes);
end
$$;
comment on function public.release_items is
  'Closes claims [{item_id, work_type, fence, outcome, result, error, final, retry_after_seconds}], at most 1000 a call; answers ["succeeded", "lost", …]: each one''s new state, or "lost", in the same order.';

-- Close a batch and claim the next one in a single round trip.
create or replace function public.finish_and_claim(
  worker_id text,
  outcomes jsonb,
  work_types text[],
  max_items integer default 1,
  ttl_seconds integer default null,
  warm text[] default null,
  "only" jsonb default null,
  request_id uuid default null
)
returns json
language plpgsql
as $$
declare
  states json;
begin
  if request_id is not null and work.is_repeated(request_id) then
    perform work.check_claim(work_types, worker_id, max_items, ttl_seconds, warm, "only");
    select r.released into states from work.requests r where r.request_id = finish_and_claim.request_id;
    return json_build_object(
      'released', coalesce(states, work.close_claims(worker_id, outcomes)),
      'claimed', work.claims_of_request(worker_id, request_id, true));
  end if;
  states := work.close_claims(worker_id, outcomes);
  -- What was handed back or failed may be claimed again right below: a repeated call could not tell its state then.
  if request_id is not null and jsonb_path_exists(states::jsonb, '$[*] ? (@ != "succeeded")') then
    update work.requests r set released = states where r.request_id = finish_and_claim.request_id;
  end if;
  return json_build_object(
    'released', states,
    'claimed', work.take_next(
      work_types, worker_id, max_items, ttl_seconds, warm, "only", request_id));
end
$$;
comment on function public.finish_and_claim is
  'release_items() and claim_next() in one round trip; answers {released, claimed}.';

-- Hand back all that a worker holds, as it leaves: the claims are ready at once and no try is counted.
create or replace function public.release_claims_for_worker(worker_id text)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  handed_back integer;
begin
  perform work.check_name('worker_id', release_claims_for_worker.worker_id);
  with held as materialized (
    select h.item_id, h.work_type
      from public.work_claims h
     where h.status = 'claimed' and h.worker_id = release_claims_for_worker.worker_id
     order by h.item_id, h.work_type
  ),
  back as (
    update public.work_claims c
       set status = case when c.due_at > clock_timestamp() then 'waiting' else 'ready' end,
           due_at = greatest(c.due_at, clock_timestamp()), progress = null, worker_id = null
      from held
     where c.item_id = any (array[held.item_id]) and c.work_type = held.work_type
       and (c.status, c.worker_id) is not distinct from ('claimed', release_claims_for_worker.worker_id)
    returning c.item_id, c.work_type, c.fence
  ),
  told as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail)
    select b.item_id, b.work_type, 'handed_back', release_claims_for_worker.worker_id, b.fence, 'the worker left'
      from back b
  )
  select count(*) into handed_back from back;
  if handed_back > 0 then
    perform work.note_arrivals();
  end if;
  return handed_back;
end
$$;
comment on function public.release_claims_for_worker is
  'Hands back all that a worker holds, as it leaves: ready at once, no try counted. Answers how many.';
