-- A person's calls: retry failed work, cancel open work.

-- Refuse wrong arguments of retry_items() and cancel_items().
create or replace function work.check_choice(work_type text, item_ids uuid[], max_items integer)
returns void
language plpgsql
as $$
begin
  perform work.check_name('work_type', check_choice.work_type);
  if not exists (select from public.work_types t where t.name = check_choice.work_type) then
    perform work.refuse('work_type', check_choice.work_type, 'there is no such work type; see work_overview', 'PT404');
  end if;
  if cardinality(item_ids) > 1000 then
    perform work.refuse('item_ids', cardinality(item_ids) || ' long', 'one call takes at most 1000');
  end if;
  if max_items is null or max_items not between 1 and 10000 then
    perform work.refuse('max_items', max_items::text, '1 to 10000 were expected');
  end if;
end
$$;

-- Reopen failed claims with their tries reset: of the named items (cancelled ones too), or all failed ones of the type,
-- the longest failed first, at most max_items a call. A claim whose item may not run yet waits. Answers how many.
create or replace function public.retry_items(
  work_type text,
  item_ids uuid[] default null,
  max_items integer default 1000
)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  chosen uuid[] := retry_items.item_ids;
  reopened integer;
begin
  perform work.check_choice(retry_items.work_type, retry_items.item_ids, retry_items.max_items);
  if chosen is null then
    chosen := array(
      select c.item_id from public.work_claims c
       where c.work_type = retry_items.work_type and c.status = 'failed'
       order by c.finished_at
       limit retry_items.max_items);
  end if;
  -- A terminal claim has not followed its item. Items and workflows are locked against change, then read by a statement
  -- that sees the changes the lock waited for.
  perform from (select distinct u.id from unnest(chosen) as u(id) order by u.id) as wanted
    join public.work_items i on i.id = any (array[wanted.id])
     for share of i;
  perform from public.work_workflows w
   where w.id = any (array(
           select i.workflow_id from unnest(chosen) as u(id) join public.work_items i on i.id = any (array[u.id])))
   order by w.id for share;
  with wanted as materialized (
    select r.*, retry_items.work_type as work_type
      from (select distinct u.id from unnest(chosen) as u(id) order by u.id) as given
      join work.ranked_items r on r.item_id = any (array[given.id])
     order by given.id
  ),
  ended as materialized (
    select wanted.*, e.status
      from wanted
     cross join lateral (
       select k.status from public.work_claims k
        where k.item_id = any (array[wanted.item_id]) and k.work_type = wanted.work_type
          and (k.status is not distinct from 'failed'
            or (k.status is not distinct from 'cancelled' and retry_items.item_ids is not null))
          for no key update) as e
  ),
  reopened as (
    update public.work_claims c
       set priority = e.priority, rank = e.rank, class_id = e.class_id, affinity = e.affinity,
           workflow_id = e.workflow_id, failures = 0, crashes = 0, finished_at = null,
           status = case when e.run_after > clock_timestamp() then 'waiting' else 'ready' end,
           due_at = greatest(e.run_after, clock_timestamp()), worker_id = null, progress = null,
           poll_at = null
      from ended e
     where c.item_id = any (array[e.item_id]) and c.work_type = e.work_type
    returning c.item_id, c.fence, e.status as ended_as
  ),
  tallied as (
    insert into work.tally_entries (work_type, failed, cancelled)
    select retry_items.work_type, -count(*) filter (where r.ended_as = 'failed'),
           -count(*) filter (where r.ended_as = 'cancelled')
      from reopened r
    having count(*) > 0
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, fence)
    select r.item_id, retry_items.work_type, 'retried', r.fence from reopened r
  )
  select count(*) into reopened from reopened;
  return reopened;
end
$$;
comment on function public.retry_items is
  'Reopens failed claims of a work type with their tries reset: of the named items (cancelled ones too), or all failed ones, at most max_items a call. Answers how many.';

-- Open claims of a work type, at most so many: the ready ones in order, then others.
create or replace function work.open_items(work_type text, max_items integer)
returns uuid[]
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return array(
    select o.item_id
      from (
        (select r.item_id from public.work_claims r
          where r.work_type = open_items.work_type and r.status = 'ready' and r.class_id > 0
          order by r.priority desc, r.rank, r.position limit open_items.max_items)
        union all
        (select w.item_id from public.work_claims w
          where w.work_type = open_items.work_type and w.status = 'waiting' limit open_items.max_items)
        union all
        (select h.item_id from public.work_claims h
          where h.work_type = open_items.work_type and h.status = 'claimed' limit open_items.max_items)
      ) as o
     limit open_items.max_items);
end
$$;

-- Cancel open claims: of the named items, also those that have no claim yet, or all open ones of the type, at most
-- max_items a call. A worker hears of it with its next heartbeat. Answers how many.
create or replace function public.cancel_items(
  work_type text,
  item_ids uuid[] default null,
  max_items integer default 1000
)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  chosen uuid[] := cancel_items.item_ids;
  cancelled integer;
begin
  perform work.check_choice(cancel_items.work_type, cancel_items.item_ids, cancel_items.max_items);
  if chosen is null then
    chosen := work.open_items(cancel_items.work_type, cancel_items.max_items);
  else
    chosen := array(
      select i.id
        from (select distinct u.id from unnest(chosen) as u(id) order by u.id) as wanted
        join public.work_items i on i.id = any (array[wanted.id])
       order by i.id
         for share of i);
    perform work.enroll(chosen, array[cancel_items.work_type]);
  end if;
  with wanted as materialized (
    select distinct u.id, cancel_items.work_type as work_type from unnest(chosen) as u(id) order by u.id
  ),
  cancelled as (
    update public.work_claims c
       set status = 'cancelled', finished_at = clock_timestamp(), worker_id = null, progress = null,
           -- A job elsewhere is to be stopped at once.
           poll_at = case when c.external_id is not null then clock_timestamp() end
      from wanted
     where c.item_id = any (array[wanted.id]) and c.work_type = wanted.work_type
       and c.status in ('blocked', 'waiting', 'ready', 'claimed')
    returning c.item_id, c.fence
  ),
  tallied as (
    insert into work.tally_entries (work_type, cancelled)
    select cancel_items.work_type, count(*) from cancelled having count(*) > 0
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, fence)
    select c.item_id, cancel_items.work_type, 'cancelled', c.fence from cancelled c
  )
  select count(*) into cancelled from cancelled;
  return cancelled;
end
$$;
comment on function public.cancel_items is
  'Cancels open claims of a work type: of the named items, or all open ones, at most max_items a call. A worker that runs one hears of it with its next heartbeat. Answers how many.';
