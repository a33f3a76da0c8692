-- The end of a claim: released by its holder, with an outcome.

-- What is wrong with an outcome that a worker sends; null where nothing is.
create or replace function work.wrong_outcome(outcome jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(outcome) <> 'object' then
    return 'an outcome is a JSON object';
  end if;
  if outcome ->> 'item_id' is null or outcome ->> 'work_type' is null or jsonb_typeof(outcome -> 'fence') is distinct from 'number' then
    return 'an outcome has item_id, work_type and fence, as the claim had them';
  end if;
  if coalesce(outcome ->> 'outcome', 'null') not in ('succeeded', 'failed', 'released') then
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
revoke execute on function work.wrong_outcome from public, anon, authenticated;
grant execute on function work.wrong_outcome to service_role;

-- Close claims, each only for the holder's worker id and current fence. Each outcome is answered with the claim's new
-- state, or "lost". A release that comes again is answered as before and changes nothing.
create or replace function work.close_claims(worker_id text, outcomes jsonb)
returns jsonb
language plpgsql
set search_path = ''
as $$
#variable_conflict use_column
declare
  wrong record;
  closed bigint[];
  has_failed boolean;
  answer jsonb;
  moment timestamptz := clock_timestamp();
begin
  perform work.check_list('outcomes', close_claims.outcomes);
  if jsonb_array_length(close_claims.outcomes) = 0 then
    return '[]';
  end if;
  select e.n - 1 as at, work.wrong_outcome(e.value) as why into wrong
    from jsonb_array_elements(close_claims.outcomes) with ordinality as e(value, n)
   where work.wrong_outcome(e.value) is not null
   limit 1;
  if found then
    raise exception using errcode = 'PT400', message = format('outcomes[%s]: %s', wrong.at, wrong.why);
  end if;

  -- In the order of the key, as every call that waits for rows.
  with given as materialized (
    select o.*, t.max_failures, t.backoff_seconds, t.backoff_limit_seconds
      from rows from (jsonb_to_recordset(close_claims.outcomes) as (
             item_id uuid, work_type text, fence bigint, outcome text, result jsonb, error text, final boolean,
             retry_after_seconds double precision))
           with ordinality
        as o(item_id, work_type, fence, outcome, result, error, final, retry_after_seconds, n)
      join public.work_types t on t.name = o.work_type
     order by o.item_id, o.work_type
  ),
  done as (
    update public.work_claims c
       set status = case
             when g.outcome = 'succeeded' then 'succeeded'
             when g.outcome = 'released' then 'ready'
             when g.final or c.failures + 1 >= g.max_failures then 'failed'
             else 'waiting'
           end,
           finished_at = case
             when g.outcome = 'succeeded' then moment
             when g.outcome = 'failed' and (g.final or c.failures + 1 >= g.max_failures) then moment
           end,
           failures = c.failures + case when g.outcome = 'failed' then 1 else 0 end,
           due_at = case g.outcome
             when 'failed' then moment + make_interval(secs => coalesce(
               g.retry_after_seconds,
               least(g.backoff_limit_seconds, g.backoff_seconds * 2.0 ^ least(c.failures, 30))))
             when 'released' then moment
             else c.due_at
           end,
           result = case when g.outcome = 'succeeded' then g.result end,
           error = case when g.outcome = 'failed' then left(coalesce(g.error, 'the worker gave no reason'), 8000) end,
           progress = case when g.outcome = 'succeeded' then 1 end
      from given g
     where c.item_id = g.item_id and c.work_type = g.work_type
       and c.status = 'claimed' and c.worker_id = close_claims.worker_id and c.fence = g.fence
    returning g.n, c.item_id, c.work_type, c.fence, c.status, g.outcome
  )
  select array_agg(d.n), bool_or(d.outcome = 'failed'),
         jsonb_agg(
           jsonb_build_object('item_id', d.item_id, 'work_type', d.work_type, 'fence', d.fence, 'state', d.status)
           order by d.n)
    into closed, has_failed, answer
    from done d;
  if not has_failed and cardinality(closed) = jsonb_array_length(close_claims.outcomes) then
    return answer;
  end if;

  -- Something left the happy path: say what became of each, and record it.
  with judged as materialized (
    select g.n, g.item_id, g.work_type, g.fence, g.outcome, left(g.error, 8000) as error,
           c.item_id is not null as exists,
           case
             when g.n = any (closed) then c.status
             when c.fence = g.fence and c.worker_id = close_claims.worker_id and c.status <> 'claimed' then c.status
             else 'lost'
           end as state
      from rows from (jsonb_to_recordset(close_claims.outcomes) as (
             item_id uuid, work_type text, fence bigint, outcome text, error text))
           with ordinality
        as g(item_id, work_type, fence, outcome, error, n)
      left join public.work_claims c on c.item_id = g.item_id and c.work_type = g.work_type
  ),
  told as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail)
    select j.item_id, j.work_type,
           case when j.state = 'lost' then 'stale_release' else 'failed' end,
           close_claims.worker_id, j.fence,
           case when j.state = 'lost' then 'a release as ' || j.outcome || ' came too late' else j.error end
      from judged j
     where (j.state = 'lost' and j.exists) or (j.n = any (closed) and j.outcome = 'failed')
     order by j.n
  )
  select jsonb_agg(
           jsonb_build_object('item_id', j.item_id, 'work_type', j.work_type, 'fence', j.fence, 'state', j.state)
           order by j.n)
    into answer
    from judged j;
  return answer;
end
$$;
comment on function work.close_claims is 'Closes claims for their holder; every other outcome is answered "lost" and recorded.';
revoke execute on function work.close_claims from public, anon, authenticated;
grant execute on function work.close_claims to service_role;

-- Close one claim. True for its holder only; a late or foreign call changes nothing and is recorded.
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
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set lock_timeout = '5s'
as $$
begin
  if item_id is null then
    perform work.refuse('item_id', null, 'the id of the claimed item was expected');
  end if;
  perform work.check_name('work_type', work_type);
  perform work.check_name('worker_id', worker_id);
  if outcome is null or outcome not in ('succeeded', 'failed', 'released') then
    perform work.refuse('outcome', outcome, 'succeeded, failed or released was expected');
  end if;
  if fence is null then
    perform work.refuse('fence', null, 'the fence that the claim came with was expected');
  end if;
  return work.close_claims(worker_id, jsonb_build_array(jsonb_build_object(
    'item_id', item_id, 'work_type', work_type, 'fence', fence, 'outcome', outcome, 'result', result, 'error', error
  ))) -> 0 ->> 'state' <> 'lost';
end
$$;
comment on function public.release_item is
  'Closes one claim as succeeded, failed or released (handed back). True for the holder of its current fence only; anything else changes nothing and is recorded.';
revoke execute on function public.release_item from public, anon, authenticated;
grant execute on function public.release_item to service_role;

-- Close many claims [{item_id, work_type, fence, outcome, result, error, final, retry_after_seconds}]; each is answered
-- in the same place with its new state, or "lost".
create or replace function public.release_items(worker_id text, outcomes jsonb)
returns jsonb
language plpgsql
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set lock_timeout = '5s'
as $$
begin
  perform work.check_name('worker_id', worker_id);
  return work.close_claims(worker_id, outcomes);
end
$$;
comment on function public.release_items is
  'Closes claims [{item_id, work_type, fence, outcome, result, error, final, retry_after_seconds}], at most 1000 a call; answers each one''s new state, or "lost", in the same order.';
revoke execute on function public.release_items from public, anon, authenticated;
grant execute on function public.release_items to service_role;

-- Close a batch and claim the next one in a single round trip.
create or replace function public.finish_and_claim(
  worker_id text,
  outcomes jsonb,
  work_types text[],
  max_items integer default 1,
  ttl_seconds integer default null,
  request_id uuid default null
)
returns jsonb
language plpgsql
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set lock_timeout = '5s'
as $$
declare
  released jsonb;
  claimed jsonb;
begin
  perform work.check_claim(work_types, worker_id, max_items, ttl_seconds);
  released := work.close_claims(worker_id, outcomes);
  if work.is_repeated(request_id) then
    claimed := work.claims_of_request(worker_id, request_id, true);
  else
    perform work.saw_worker(worker_id);
    perform work.catch_up();
    claimed := work.take_next(work_types, worker_id, least(max_items, 1000), ttl_seconds, request_id);
  end if;
  return jsonb_build_object('released', released, 'claimed', claimed);
end
$$;
comment on function public.finish_and_claim is
  'release_items() and claim_next() in one round trip; answers {released, claimed}.';
revoke execute on function public.finish_and_claim from public, anon, authenticated;
grant execute on function public.finish_and_claim to service_role;

-- Hand back all that a worker holds, as it leaves: the claims are ready at once and no try is counted.
create or replace function public.release_claims_for_worker(worker_id text)
returns integer
language plpgsql
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set lock_timeout = '5s'
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
       for no key update of h
  ),
  back as (
    update public.work_claims c
       set status = 'ready', due_at = clock_timestamp(), progress = null, worker_id = null
      from held
     where c.item_id = held.item_id and c.work_type = held.work_type
    returning c.item_id, c.work_type, c.fence
  ),
  told as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail)
    select b.item_id, b.work_type, 'handed_back', release_claims_for_worker.worker_id, b.fence, 'the worker left'
      from back b
  )
  select count(*) into handed_back from back;
  return handed_back;
end
$$;
comment on function public.release_claims_for_worker is
  'Hands back all that a worker holds, as it leaves: ready at once, no try counted. Answers how many.';
revoke execute on function public.release_claims_for_worker from public, anon, authenticated;
grant execute on function public.release_claims_for_worker to service_role;
