-- Why an item is not running.

-- What blocked claims wait for, other than whole workflows: the needed claims with their status, null where there is none.
create or replace view work.unmet_needs with (security_invoker = true) as
select c.item_id, c.work_type, d.needs_item_id, d.needs_work_type, k.status as needs_status, k.finished_at as ended_at
  from public.work_claims c
  join public.work_dependencies d on d.item_id = c.item_id and d.work_type = c.work_type
  left join lateral (
    select k.status, k.finished_at from public.work_claims k
     where k.item_id = d.needs_item_id and k.work_type = d.needs_work_type limit 1) as k on true
 where c.status = 'blocked' and d.needs_item_id is not null and not d.is_met
 union all
select c.item_id, c.work_type, c.item_id, n.needs_work_type, k.status, k.finished_at
  from work.type_needs n
  join public.work_claims c on c.work_type = n.work_type
  left join lateral (
    select k.status, k.finished_at from public.work_claims k
     where k.item_id = c.item_id and k.work_type = n.needs_work_type limit 1) as k on true
 where c.status = 'blocked' and not work.is_met(k.status, n.on_failed_need);
comment on view work.unmet_needs is 'work-claims: what blocked claims wait for, with its status.';

-- A need as a person reads it: "extract of the same item (failed)".
create or replace function work.need_in_words(need work.unmet_needs)
returns text
language sql
stable
as $$
  select format('%s of %s (%s)', need.needs_work_type,
    case when need.needs_item_id = need.item_id then 'the same item'
         else 'item ' || coalesce((
           select coalesce(i.dedupe_key, i.source_key) from public.work_items i where i.id = need.needs_item_id), need.needs_item_id::text)
    end,
    coalesce(need.needs_status, 'not enrolled'))
$$;

-- What a blocked claim waits for: a sentence, and at most five of its needs, failed ones first.
create or replace function work.explained_needs(claim public.work_claims)
returns jsonb
language sql
stable
as $$
  with need as materialized (
    select u.needs_item_id as item_id, u.needs_work_type as work_type, u.needs_status as status, null as workflow,
           work.need_in_words(u) as in_words, u.needs_status in ('failed', 'cancelled') as has_ended
      from work.unmet_needs u
     where u.item_id = claim.item_id and u.work_type = claim.work_type
     union all
    select null, null, null, w.name, 'all of workflow ' || w.name, e.is_over
      from public.work_dependencies d
      join public.work_workflows w on w.id = d.needs_workflow_id
     cross join lateral work.workflow_end(w.id) as e
     where d.item_id = claim.item_id and d.work_type = claim.work_type and not d.is_met
     order by 6 desc nulls last, 5
     limit 5
  ),
  told as (
    select min(n.in_words) filter (where n.n = 1) as first,
           jsonb_agg(jsonb_build_object('item_id', n.item_id, 'work_type', n.work_type, 'status', n.status, 'workflow', n.workflow)
             order by n.n) as needs
      from (select need.*, row_number() over () as n from need) as n
  )
  select jsonb_build_object(
           'reason', 'it waits for ' || coalesce(t.first, 'other work') || case
             when claim.waits_for > 2 then format(' and %s others', claim.waits_for - 1)
             when claim.waits_for = 2 then ' and one other' else '' end,
           'needs', coalesce(t.needs, '[]'))
    from told t
$$;

-- Whether a claim waits since its input changes again and again.
create or replace function work.is_guarded(claim public.work_claims)
returns boolean
language sql
immutable
as $$
  select coalesce(claim.changes > 10 and claim.due_at between claim.changed_at and claim.changed_at + interval '1 hour', false)
$$;

-- The facts of one claim, and in `reason` why it does not run or how it ended.
create or replace function work.explained_claim(claim public.work_claims)
returns jsonb
language plpgsql
stable
as $$
declare
  moment timestamptz := clock_timestamp();
  class public.work_classes;
  lease_end timestamptz := case when claim.status = 'claimed' then nullif(claim.expires_at, '-infinity') end;
  is_paused boolean := coalesce((select t.paused from public.work_types t where t.name = claim.work_type), false);
  before integer;
  workers jsonb;
  waits_for jsonb;
begin
  if claim.status = 'blocked' then
    waits_for := work.explained_needs(claim);
  end if;
  if claim.status = 'ready' then
    -- At most 1,001 rows are read, from the head of the lane.
    select count(*) filter (where (-r.priority, r.rank, r.position) < (-claim.priority, claim.rank, claim.position))
      into before
      from (select c.priority, c.rank, c.position
              from public.work_claims c
             where c.work_type = claim.work_type and c.class_id = claim.class_id and c.status = 'ready'
             order by c.priority desc, c.rank, c.position
             limit 1001) as r;
    select * into class from public.work_classes k where k.id = claim.class_id;
    workers := work.match_report(class.clauses, class.labels, claim.work_type);
  end if;
  return jsonb_build_object(
    'work_type', claim.work_type,
    'status', claim.status,
    'reason', case
      when claim.status = 'claimed' then
        case when lease_end > moment and claim.poll_at is not null then 'it is parked: its work is done elsewhere'
             when lease_end > moment then 'a worker holds it' else 'its lease has ended and no worker has called since' end
      when claim.status = 'waiting' then
        case when claim.due_at > moment and work.is_guarded(claim)
               then format('its input changed %s times, each within an hour of the last', claim.changes)
             when claim.due_at > moment then 'it is not due yet' else 'it is due and no worker has called since' end
      when claim.status = 'blocked' then waits_for ->> 'reason'
      when claim.status = 'succeeded' then 'it succeeded'
      when claim.status = 'failed' then 'it failed for good'
      when claim.status = 'cancelled' then 'it was cancelled'
      when is_paused then 'its work type is paused'
      when workers -> 'live_workers' = '0' then 'no live worker does this work type'
      when workers -> 'matching' = '0' then 'no live worker can run it: ' || (workers #>> '{failing,0,reason}')
      when before > 0 then 'others of its lane go before it'
      when workers -> 'matching' = workers -> 'yielding' then 'its workers leave it to others for a while'
      else 'it is the head of its lane'
    end,
    'failures', claim.failures,
    'crashes', claim.crashes,
    'error', left(claim.error, 2000),
    'paused', is_paused,
    'stale', claim.stale,
    'again', case when claim.read_input is not null then 'its input changed while it ran' else claim.again end,
    'waits_for', claim.waits_for,
    'needs', waits_for -> 'needs',
    'due_at', claim.due_at,
    'worker_id', claim.worker_id,
    'claimed_at', claim.claimed_at,
    'progress', claim.progress,
    'parked_as', case when claim.poll_at is not null then claim.external_id end,
    'lease_left_seconds', round(extract(epoch from lease_end - moment)),
    'finished_at', claim.finished_at,
    'before', case when before is not null then least(before, 1000) end,
    'more_before', before > 1000,
    'workers', workers);
end
$$;

-- Why an item is not running, or how it ended: the facts of each of its claims, or of that of one work type.
create or replace function public.explain_item(item_id uuid, work_type text default null)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  item public.work_items;
  class public.work_classes;
  rules public.work_types;
  claims jsonb;
  reason text;
begin
  if explain_item.item_id is null then
    perform work.refuse('item_id', null, 'the id of an item was expected');
  end if;
  if explain_item.work_type is not null then
    perform work.check_name('work_type', explain_item.work_type);
  end if;
  select * into item from public.work_items i where i.id = explain_item.item_id;
  if not found then
    perform work.refuse('item_id', explain_item.item_id::text, 'there is no such item', 'PT404');
  end if;
  select * into class from public.work_classes k where k.id = item.class_id;
  select jsonb_agg(e.claim order by e.work_type), string_agg(e.work_type || ': ' || (e.claim ->> 'reason'), '; ' order by e.work_type)
    into claims, reason
    from (select c.work_type, work.explained_claim(c) as claim
            from public.work_claims c
           where c.item_id = item.id and (explain_item.work_type is null or c.work_type = explain_item.work_type)
          offset 0) as e;
  if claims is null then
    -- Of the named work type, else of any of the item's pool.
    select * into rules
      from public.work_types t
     where t.name = explain_item.work_type or (explain_item.work_type is null and t.pool = item.pool)
     limit 1;
    reason := 'nobody has enrolled it: ' || case
      when rules.name is null and explain_item.work_type is null then 'no work type is declared for its pool'
      when rules.name is null then 'there is no such work type'
      when rules.pool = item.pool then 'enroll_pool() has not come to it'
      when rules.pool is not null then 'the work type is for the pool ' || rules.pool
      else 'the work type has no pool, and no worker has claimed it by its id'
    end;
  end if;
  return jsonb_build_object(
    'item_id', item.id,
    'pool', item.pool,
    'source_key', item.source_key,
    'class_id', item.class_id,
    'tag', class.tag,
    'requires', class.requires,
    'labels', class.labels,
    'run_after', item.run_after,
    'asked_at', clock_timestamp(),
    'reason', reason,
    'claims', coalesce(claims, '[]'));
end
$$;
comment on function public.explain_item is
  'Answers why an item is not running, or how it ended: for each claim a short reason and the facts behind it: who holds it, when it is due, how many go before it in its lane, which clause fails on how many live workers.';
