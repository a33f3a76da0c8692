-- What a person does: retry what failed, cancel what is open.

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
    perform work.refuse('max_items', max_items::text, 'expected 1 to 10000');
  end if;
end
$$;

-- Reopen failed claims with their tries reset: the named items' (then cancelled ones too), or all failed ones of the
-- type, the longest failed first, at most max_items a call. One whose item may not run yet waits until then. The answer
-- is how many.
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
  -- An ended claim did not follow its item; items and workflows are locked against change, and read by a statement of
  -- its own.
  perform from (select distinct u.id from unnest(chosen) as u(id) order by u.id) as wanted
    join public.work_items i on i.id = any (array[wanted.id])
     for share of i;
  perform from public.work_workflows w
   where w.id = any (array(
           select i.workflow_id from unnest(chosen) as u(id) join public.work_items i on i.id = any (array[u.id])))
   order by w.id for share;
  with wanted as materialized (
    select p.*, retry_items.work_type as work_type
      from (select distinct u.id from unnest(chosen) as u(id) order by u.id) as given
      join work.places p on p.item_id = any (array[given.id])
     order by given.id
  ),
  open as (
    update public.work_claims c
       set priority = wanted.priority, line = wanted.line, class_id = wanted.class_id, affinity = wanted.affinity,
           workflow_id = wanted.workflow_id, failures = 0, crashes = 0, finished_at = null,
           status = case when wanted.run_after > clock_timestamp() then 'waiting' else 'ready' end,
           due_at = greatest(wanted.run_after, clock_timestamp()), worker_id = null, progress = null
      from wanted
     where c.item_id = any (array[wanted.item_id]) and c.work_type = wanted.work_type
       and (c.status is not distinct from 'failed'
         or (c.status is not distinct from 'cancelled' and retry_items.item_ids is not null))
    returning c.item_id, c.fence
  ),
  told as (
    insert into public.work_events (item_id, work_type, event, fence)
    select o.item_id, retry_items.work_type, 'retried', o.fence from open o
  )
  select count(*) into reopened from open;
  if reopened > 0 then
    perform work.note_arrivals();
  end if;
  return reopened;
end
$$;
comment on function public.retry_items is
  'Reopens failed claims of a work type with their tries reset: of the named items (cancelled ones too), or all failed ones, at most max_items a call. Answers how many.';

-- Cancel open claims: the named items', also those nobody has claimed yet, or all open ones of the type, at most
-- max_items a call. Running ones are told by their next heartbeat. The answer is how many.
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
    chosen := array(
      select o.item_id
        from (
          (select r.item_id from public.work_claims r
            where r.work_type = cancel_items.work_type and r.status = 'ready' and r.class_id > 0
            order by r.priority desc, r.line, r.position limit cancel_items.max_items)
          union all
          (select w.item_id from public.work_claims w
            where w.work_type = cancel_items.work_type and w.status = 'waiting' limit cancel_items.max_items)
          union all
          (select h.item_id from public.work_claims h
            where h.work_type = cancel_items.work_type and h.status = 'claimed' limit cancel_items.max_items)
        ) as o
       limit cancel_items.max_items);
  end if;
  with stopped as (
    insert into public.work_claims as c
      (item_id, work_type, status, priority, line, position, class_id, affinity, workflow_id, finished_at)
    select i.id, cancel_items.work_type, 'cancelled', coalesce(w.priority, i.priority), coalesce(w.line, i.seq), i.seq,
           i.class_id, i.affinity, i.workflow_id, clock_timestamp()
      from (select distinct u.id from unnest(chosen) as u(id) order by u.id) as wanted
      join public.work_items i on i.id = any (array[wanted.id])
      left join public.work_workflows w on w.id = i.workflow_id
       for key share of i
    on conflict (item_id, work_type) do update
       set status = 'cancelled', finished_at = clock_timestamp(), worker_id = null, progress = null
     where c.status in ('blocked', 'waiting', 'ready', 'claimed')
    returning c.item_id, c.fence
  ),
  told as (
    insert into public.work_events (item_id, work_type, event, fence)
    select s.item_id, cancel_items.work_type, 'cancelled', s.fence from stopped s
  )
  select count(*) into cancelled from stopped;
  return cancelled;
end
$$;
comment on function public.cancel_items is
  'Cancels open claims of a work type: of the named items, or all open ones, at most max_items a call. A worker that runs one hears of it with its next heartbeat. Answers how many.';
