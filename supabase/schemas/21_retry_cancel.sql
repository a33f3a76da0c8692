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
  keys jsonb;
begin
  perform work.check_choice(retry_items.work_type, retry_items.item_ids, retry_items.max_items);
  if chosen is null then
    chosen := array(
      select c.item_id from public.work_claims c
       where c.work_type = retry_items.work_type and c.status = 'failed'
       order by c.finished_at
       limit retry_items.max_items);
  end if;
  select coalesce(jsonb_agg(jsonb_build_object('item_id', u.id, 'work_type', retry_items.work_type, 'reason', 'retried by hand')), '[]')
    into keys
    from (select distinct g.id from unnest(chosen) as g(id)) as u;
  perform work.lock_around(keys, deep => true);
  return work.reopen((
    select coalesce(jsonb_agg(k.value), '[]')
      from jsonb_array_elements(keys) as k(value)
      join public.work_claims c
        on c.item_id = any (array[(k.value ->> 'item_id')::uuid]) and c.work_type = k.value ->> 'work_type'
     where c.status = 'failed' or (c.status = 'cancelled' and retry_items.item_ids is not null)), 'retried', work.actor());
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
        union all
        (select b.item_id from public.work_claims b
          where b.work_type = open_items.work_type and b.status = 'blocked' limit open_items.max_items)
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
  keys jsonb;
  cancelled jsonb;
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
  select coalesce(jsonb_agg(jsonb_build_object('item_id', u.id, 'work_type', cancel_items.work_type)), '[]')
    into keys
    from (select distinct g.id from unnest(chosen) as g(id)) as u;
  perform work.lock_around(keys);
  with wanted as materialized (
    select distinct u.id, cancel_items.work_type as work_type from unnest(chosen) as u(id) order by u.id
  ),
  before as materialized (
    select wanted.*, c.status, c.worker_id
      from wanted
      join public.work_claims c on c.item_id = any (array[wanted.id]) and c.work_type = wanted.work_type
  ),
  cancelled as (
    update public.work_claims c
       set status = 'cancelled', finished_at = clock_timestamp(), worker_id = null, progress = null,
           -- A job elsewhere is to be stopped at once.
           poll_at = case when c.external_id is not null then clock_timestamp() end
      from before b
     where c.item_id = any (array[b.id]) and c.work_type = b.work_type
       and c.status in ('blocked', 'waiting', 'ready', 'claimed')
    returning c.item_id, c.work_type, c.fence, b.status as was, b.worker_id
  ),
  tallied as (
    insert into work.tally_entries (work_type, cancelled, blocked)
    select cancel_items.work_type, count(*), -count(*) filter (where c.was = 'blocked') from cancelled c having count(*) > 0
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, from_status, to_status, actor)
    select c.item_id, cancel_items.work_type, 'cancelled', case when c.was = 'claimed' then c.worker_id end, c.fence, c.was, 'cancelled',
           work.actor()
      from cancelled c
  )
  select coalesce(jsonb_agg(jsonb_build_object('item_id', c.item_id, 'work_type', c.work_type, 'was', c.was, 'became', 'cancelled')), '[]')
    into cancelled
    from cancelled c;
  perform work.follow(cancelled);
  return jsonb_array_length(cancelled);
end
$$;
comment on function public.cancel_items is
  'Cancels open claims of a work type: of the named items, or all open ones, at most max_items a call. A worker that runs one hears of it with its next heartbeat. Answers how many.';
