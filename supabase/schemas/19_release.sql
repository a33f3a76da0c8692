-- Release: the holder of a claim closes it, with an outcome.

-- Close claims that succeeded, in the order of keys; answers how many. Of plain work types only, or of all.
create or replace function work.close_succeeded(worker_id text, outcomes jsonb, only_plain boolean)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  closed integer;
begin
  -- "= any (array[…])" and "is not distinct from" hold the planner to one look-up by key for each outcome. With plain
  -- equalities a plan made while the table was small may scan all that is held, once for each outcome.
  with given as materialized (
    select o.*
      from jsonb_to_recordset(close_succeeded.outcomes) as o(
             item_id uuid, work_type text collate "C", fence bigint, outcome text, result jsonb)
     where o.outcome = 'succeeded' and o.fence is not null
       and not (only_plain and o.work_type in (select t.name from public.work_types t where not t.is_plain))
     order by o.item_id, o.work_type
  ),
  closed as (
    update public.work_claims c
       set status = 'succeeded', finished_at = clock_timestamp(), result = g.result, error = null, progress = 1,
           poll_at = null, external_id = null, state = null,
           stale = null, read_input = null, again = null
      from given g
     where c.item_id = any (array[g.item_id]) and c.work_type = g.work_type
       and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_succeeded.worker_id, g.fence)
    returning c.work_type, c.claimed_at - c.due_at as waited, c.finished_at - c.claimed_at as ran
  ),
  tallied as (
    insert into work.tally_entries (work_type, succeeded, successes, waited, ran)
    select c.work_type, count(*), count(*), sum(c.waited), sum(c.ran) from closed c group by c.work_type
    returning successes
  )
  select sum(t.successes) into closed from tallied t;
  return coalesce(closed, 0);
end
$$;

-- Close claims that failed, are given back or snoozed; answers how many. A failure is counted and recorded.
create or replace function work.close_others(worker_id text, outcomes jsonb)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  closed integer;
begin
  with given as materialized (
    select o.*,
           coalesce(
             (select i.max_failures from public.work_items i where i.id = any (array[o.item_id])), t.max_failures, 3) as max_failures,
           coalesce(t.backoff_seconds, 10) as backoff_seconds,
           coalesce(t.backoff_limit_seconds, 3600) as backoff_limit_seconds
      from jsonb_to_recordset(close_others.outcomes) as o(
             item_id uuid, work_type text collate "C", fence bigint, outcome text, error text, final boolean,
             retry_after_seconds double precision, seconds double precision, note text, state jsonb)
      left join public.work_types t on t.name = o.work_type
     where o.outcome in ('failed', 'released', 'snoozed')
     order by o.item_id, o.work_type
  ),
  closed as (
    update public.work_claims c
       set status = case when g.outcome = 'failed' and (g.final or c.failures + 1 >= g.max_failures) then 'failed'
                         when c.waits_for > 0 then 'blocked'
                         when g.outcome = 'released' and c.due_at <= moment then 'ready'
                         else 'waiting' end,
           failures = c.failures + case g.outcome when 'failed' then 1 else 0 end,
           finished_at = case when g.outcome = 'failed' and (g.final or c.failures + 1 >= g.max_failures) then moment end,
           due_at = case g.outcome
             when 'released' then greatest(c.due_at, moment)
             when 'snoozed' then greatest(c.due_at, moment + make_interval(secs => g.seconds))
             -- Up to a fifth more at random: claims that failed together are not tried again together.
             else greatest(c.due_at, moment + make_interval(secs => coalesce(
               g.retry_after_seconds,
               least(g.backoff_limit_seconds, g.backoff_seconds * 2.0 ^ least(c.failures, 30)) * (1 + 0.2 * random()))))
           end,
           error = case g.outcome when 'failed' then left(coalesce(g.error, 'the worker gave no reason'), 8000) end,
           progress = null,
           poll_at = null,
           -- A holder that gives up its claim has not said how a job of an earlier try ended.
           external_id = case when g.outcome <> 'failed' and c.poll_at is null then c.external_id end,
           state = coalesce(g.state, c.state)
      from given g
     where c.item_id = any (array[g.item_id]) and c.work_type = g.work_type
       and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_others.worker_id, g.fence)
    returning g.outcome, c.item_id, c.work_type, c.fence, coalesce(g.note, c.error) as detail, c.status
  ),
  tallied as (
    insert into work.tally_entries (work_type, failed, failures, final_failures, blocked)
    select u.work_type, count(*) filter (where u.status = 'failed'), count(*) filter (where u.outcome = 'failed'),
           count(*) filter (where u.status = 'failed'), count(*) filter (where u.status = 'blocked')
      from closed u
     where u.outcome = 'failed' or u.status = 'blocked'
     group by u.work_type
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail, from_status, to_status)
    select u.item_id, u.work_type, u.outcome, close_others.worker_id, u.fence, left(u.detail, 8000), 'claimed', u.status
      from closed u
     where u.outcome in ('failed', 'snoozed')
  )
  select count(*) into closed from closed;
  return closed;
end
$$;

-- Park claims whose work is done elsewhere: they stay claimed, with a lease of that length and without heartbeats.
create or replace function work.park(worker_id text, outcomes jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  with given as materialized (
    select o.*
      from jsonb_to_recordset(park.outcomes) as o(
             item_id uuid, work_type text collate "C", fence bigint, outcome text, external_id text, seconds double precision, state jsonb)
     where o.outcome = 'parked'
     order by o.item_id, o.work_type
  )
  update public.work_claims c
     set expires_at = clock_timestamp() + make_interval(secs => g.seconds), poll_at = clock_timestamp(),
         external_id = g.external_id, state = coalesce(g.state, c.state)
    from given g
   where c.item_id = any (array[g.item_id]) and c.work_type = g.work_type
     and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', park.worker_id, g.fence);
end
$$;

-- Close claims, each for its holder's worker id and current fence only. Each outcome is answered with the claim's new
-- state, or "lost", which is recorded. A repeated release is answered as before and changes nothing.
create or replace function work.close_claims(worker_id text, outcomes jsonb)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  all_succeeded boolean;
  lost jsonb;
  answer json;
begin
  perform work.wake_waiting(close_claims.outcomes);
  -- To check each outcome costs as much as to close it. Where all say that they succeeded, they are checked only if some
  -- could not be closed.
  all_succeeded := pg_column_size(close_claims.outcomes) <= 1048576
    and jsonb_path_exists(close_claims.outcomes, 'strict $[*].outcome ? (@ != "succeeded")', '{}', true) is false
    and not jsonb_path_exists(close_claims.outcomes, '$[*] ? (exists (@.items) || exists (@.needs))')
    and jsonb_array_length(close_claims.outcomes) between 1 and 1000;
  if all_succeeded
    and work.close_succeeded(close_claims.worker_id, close_claims.outcomes, only_plain => true)
      = jsonb_array_length(close_claims.outcomes) then
    return to_json(array_fill('succeeded'::text, array[jsonb_array_length(close_claims.outcomes)]));
  end if;
  perform work.check_list('outcomes', close_claims.outcomes);
  if jsonb_array_length(close_claims.outcomes) = 0 then
    return '[]';
  end if;
  perform work.check_outcomes(close_claims.outcomes);
  if all_succeeded is not true or exists (
    select from public.work_types t
     where not t.is_plain
       and t.name in (select o.work_type from jsonb_to_recordset(close_claims.outcomes) as o(work_type text))) then
    perform work.close_with_all(close_claims.worker_id, close_claims.outcomes);
  end if;

  -- A row with this worker and fence that is not held was closed by this worker, in this call or in an earlier one:
  -- reaping and cancelling leave no worker.
  select json_agg(a.state order by a.n),
         jsonb_agg(jsonb_build_object('item_id', a.item_id, 'work_type', a.work_type, 'fence', a.fence,
           'detail', format('a release as %s came too late', a.outcome)) order by a.n) filter (where a.state = 'lost')
    into answer, lost
    from (select g.*,
                 case
                   when (c.fence, c.worker_id) is distinct from (g.fence, close_claims.worker_id) then 'lost'
                   when c.poll_at is not null and c.status = 'claimed' then 'parked'
                   when c.status <> 'claimed' then c.status
                   else 'lost'
                 end as state
            from rows from (jsonb_to_recordset(close_claims.outcomes) as (
                   item_id uuid, work_type text collate "C", fence bigint, outcome text))
                 with ordinality as g(item_id, work_type, fence, outcome, n)
            left join lateral (
              select k.* from public.work_claims k where k.item_id = g.item_id and k.work_type = g.work_type limit 1) as c on true) as a;
  if lost is not null then
    perform work.record_stale(close_claims.worker_id, 'stale_release', lost);
  end if;
  return answer;
end
$$;

-- Close one claim. True for its holder only; a late or foreign call changes nothing and is recorded. False also where the
-- holder has released the claim with another outcome already.
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
  state text;
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
  state := work.close_claims(worker_id, jsonb_build_array(jsonb_build_object(
    'item_id', item_id, 'work_type', work_type, 'fence', fence, 'outcome', outcome, 'result', result, 'error', error
  ))) ->> 0;
  return case outcome
    -- Its input may have changed meanwhile: then its result is stale already.
    when 'succeeded' then state = 'succeeded' or (state in ('waiting', 'ready', 'blocked') and exists (
      select from public.work_claims c
       where c.item_id = any (array[release_item.item_id]) and c.work_type = release_item.work_type
         and c.stale is not null and c.error is null))
    when 'failed' then state in ('waiting', 'ready', 'blocked', 'failed')
    else state in ('waiting', 'ready', 'blocked')
  end;
end
$$;
comment on function public.release_item is
  'Closes one claim as succeeded, failed or released (handed back). True for the holder of its current fence only; a late or foreign call, or a second one with another outcome, changes nothing.';

-- Close many claims; each outcome is answered in its place with the claim's new state, or "lost".
create or replace function public.release_items(worker_id text, outcomes jsonb)
returns json
language plpgsql
as $$
begin
  perform work.check_name('worker_id', worker_id);
  return work.close_claims(worker_id, outcomes);
end
$$;
comment on function public.release_items is
  'Closes claims [{item_id, work_type, fence, outcome, result, error, final, retry_after_seconds, seconds, note, external_id, state, items, needs}], at most 1000 a call; answers ["succeeded", "lost", …]: each one''s new state, or "lost", in the same order. Outcomes: succeeded (items to enqueue), failed, released, snoozed (seconds, note; items, and needs to wait for) and parked (external_id, seconds). A success whose input changed meanwhile is answered ready, waiting or blocked: it is to be done again.';

-- Close a batch and claim the next one in a single round trip.
create or replace function public.finish_and_claim(
  worker_id text,
  outcomes jsonb,
  work_types text[],
  max_items integer default 1,
  ttl_seconds integer default null,
  warm text[] default null,
  request_id uuid default null
)
returns json
language plpgsql
as $$
declare
  states json;
begin
  perform work.check_claim(work_types, worker_id, max_items, ttl_seconds, warm);
  if request_id is not null and work.is_repeated(request_id) then
    select r.released into states from work.requests r where r.request_id = finish_and_claim.request_id;
    return json_build_object(
      'released', coalesce(states, work.close_claims(worker_id, outcomes)),
      'claimed', work.claims_of_request(worker_id, request_id));
  end if;
  states := work.close_claims(worker_id, outcomes);
  -- A claim that was given back or failed may be claimed again below: a repeated call could not tell its state then.
  if request_id is not null and jsonb_path_exists(states::jsonb, '$[*] ? (@ != "succeeded")') then
    update work.requests r set released = states where r.request_id = finish_and_claim.request_id;
  end if;
  return json_build_object(
    'released', states,
    'claimed', work.take_next(work_types, worker_id, max_items, ttl_seconds, warm, request_id));
end
$$;
comment on function public.finish_and_claim is
  'release_items() and claim_next() in one round trip; answers {released, claimed}.';

-- Hand back all that a worker holds: the claims are ready at once, and no try is counted. Parked claims stay parked.
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
     where h.status = 'claimed' and h.worker_id = release_claims_for_worker.worker_id and h.poll_at is null
     order by h.item_id, h.work_type
  ),
  back as (
    update public.work_claims c
       set status = case when c.waits_for > 0 then 'blocked' when c.due_at > clock_timestamp() then 'waiting' else 'ready' end,
           due_at = greatest(c.due_at, clock_timestamp()), progress = null, worker_id = null
      from held
     where c.item_id = any (array[held.item_id]) and c.work_type = held.work_type
       and (c.status, c.worker_id) is not distinct from ('claimed', release_claims_for_worker.worker_id)
       and c.poll_at is null
    returning c.item_id, c.work_type, c.fence, c.status
  ),
  tallied as (
    insert into work.tally_entries (work_type, blocked)
    select b.work_type, count(*) from back b where b.status = 'blocked' group by b.work_type
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail, from_status, to_status)
    select b.item_id, b.work_type, 'handed_back', release_claims_for_worker.worker_id, b.fence, 'the worker left', 'claimed', b.status
      from back b
  )
  select count(*) into handed_back from back;
  return handed_back;
end
$$;
comment on function public.release_claims_for_worker is
  'Hands back all that a worker holds, as it leaves: ready at once, no try counted. Answers how many.';
