-- Take: which ready rows a worker gets next.
--
-- Ready claims have one order: priority, rank, position. A lane is the ready claims of one work type and one class.
-- work_claims_ready holds each lane in order, work_claims_in_order all lanes of a work type together. A worker takes from
-- the lanes of the classes it matches, and gets the first rows of all of these.
--
-- Each lock_… function locks rows and answers their ctids, in order. It skips rows that another call has locked, so a call
-- may win fewer than there are. A row that changed since it was read is judged again by its new status and class.
-- Nothing is kept between calls. docs/decisions/matching-by-class.md gives the reasons for three ways, and their costs.

-- Lock the first rows of one lane.
create or replace function work.lock_lane(work_type text, class_id integer, wanted integer)
returns tid[]
language plpgsql
as $$
begin
  return array(
    select c.ctid
      from public.work_claims c
     where c.class_id = lock_lane.class_id and c.work_type = lock_lane.work_type and c.status = 'ready'
     order by c.priority desc, c.rank, c.position
     limit lock_lane.wanted
       for no key update skip locked);
end
$$;

-- Lock the first rows of a few lanes: the first rows of each are read and merged.
create or replace function work.lock_few(work_types text[], class_ids integer[], wanted integer)
returns tid[]
language plpgsql
as $$
declare
  -- Another call may hold as many rows. Where more do, lock_first() looks further.
  width constant integer := 8 + 2 * wanted;
begin
  return array(
    select c.ctid
      from (select r.*
              from unnest(lock_few.work_types) as t(name)
             cross join unnest(lock_few.class_ids) as k(id)
             cross join lateral (
               select n.ctid as row_id, n.class_id, n.priority, n.rank, n.position
                 from public.work_claims n
                where n.class_id = k.id and n.work_type = t.name and n.status = 'ready'
                order by n.priority desc, n.rank, n.position
                limit width) as r
             order by r.priority desc, r.rank, r.position
             limit width) as near
      join public.work_claims c on c.ctid = near.row_id
     where c.status is not distinct from 'ready' and c.class_id is not distinct from near.class_id
     order by near.priority desc, near.rank, near.position
     limit lock_few.wanted
       for no key update of c skip locked);
end
$$;

-- Lock the first rows of these classes that are among the first rows of all classes. It reads a bounded number of rows,
-- however many lanes there are, and finds enough where much of the ready work is for this worker.
create or replace function work.lock_ahead(work_types text[], class_ids integer[], wanted integer)
returns tid[]
language plpgsql
as $$
declare
  window_size constant integer := 64 + 16 * wanted;
begin
  return array(
    select c.ctid
      from (select r.*
              from unnest(lock_ahead.work_types) as t(name)
             cross join lateral (
               select n.ctid as row_id, n.class_id, n.priority, n.rank, n.position
                 from public.work_claims n
                where n.work_type = t.name and n.status = 'ready' and n.class_id > 0
                order by n.priority desc, n.rank, n.position
                limit window_size) as r
             order by r.priority desc, r.rank, r.position
             limit window_size) as ahead
      join public.work_claims c on c.ctid = ahead.row_id
     -- The ids of a profile are sorted: this is a binary search, where "= any" would compare with each of thousands.
     where class_ids[width_bucket(ahead.class_id, class_ids)] = ahead.class_id
       and c.status is not distinct from 'ready' and c.class_id is not distinct from ahead.class_id
     order by ahead.priority desc, ahead.rank, ahead.position
     limit lock_ahead.wanted
       for no key update of c skip locked);
end
$$;

-- Whether more rows than this many are ready, of any class.
create or replace function work.is_more_ready(work_types text[], how_many integer)
returns boolean
language plpgsql
as $$
begin
  return (
    select count(*)
      from unnest(is_more_ready.work_types) as t(name)
     cross join lateral (
       select from public.work_claims n
        where n.work_type = t.name and n.status = 'ready' and n.class_id > 0
        limit how_many + 1) as r) > how_many;
end
$$;

-- Lock the first rows of many lanes of one work type with one range scan. The heads of some lanes give its end: if they
-- are as many as are wanted, no row behind the last of them can be among the first rows of all lanes. Empty where the
-- heads are too few or the range is long: lock_first() finds the same rows then.
create or replace function work.lock_range(work_type text, class_ids integer[], wanted integer)
returns tid[]
language plpgsql
as $$
#variable_conflict use_column
declare
  -- Three other calls may hold as many rows each.
  enough constant integer := 8 + 4 * wanted;
  longest constant integer := 64 * enough;
  top integer;
  last_rank bigint;
  row_ids tid[];
begin
  select h.priority, max(h.rank)
    into top, last_rank
    from (select f.*, rank() over (order by f.priority desc) as priority_rank
            from unnest(lock_range.class_ids[:64]) as k(id)
           cross join lateral (
             select c.priority, c.rank
               from public.work_claims c
              where c.class_id = k.id and c.work_type = lock_range.work_type and c.status = 'ready'
              order by c.priority desc, c.rank, c.position
              limit 1) as f
           order by f.priority desc, f.rank
           limit enough) as h
   where h.priority_rank = 1
   group by h.priority
  having count(*) = enough;
  -- A lane outside of the sample may have a higher priority.
  if top is distinct from (
    select c.priority
      from public.work_claims c
     where c.work_type = lock_range.work_type and c.status = 'ready' and c.class_id > 0
     order by c.priority desc, c.rank, c.position
     limit 1) then
    return '{}';
  end if;
  with near as materialized (
    select n.ctid as row_id, n.class_id, n.rank, n.position
      from public.work_claims n
     where n.class_id = any (lock_range.class_ids) and n.work_type = lock_range.work_type
       and n.status = 'ready' and n.priority = top and n.rank <= last_rank
     limit longest
  )
  select array(
           select c.ctid
             from near
             join public.work_claims c on c.ctid = near.row_id
            where c.status is not distinct from 'ready' and c.class_id is not distinct from near.class_id
              and (select count(*) from near) < longest
            order by near.rank, near.position
            limit wanted
              for no key update of c skip locked)
    into row_ids;
  return row_ids;
end
$$;

-- Lock the first rows of these lanes, wherever they are, besides those that this call has locked. The first N rows of many
-- lanes are in the N lanes with the first heads, and none is behind the head of the Nth of these.
create or replace function work.lock_first(
  work_types text[], class_ids integer[], wanted integer, besides tid[] default '{}', due_before timestamptz default null)
returns tid[]
language plpgsql
as $$
#variable_conflict use_column
declare
  -- So many rows are read in one round; of yielded lanes more, since some have not waited long enough.
  width integer := 4 * wanted + case when due_before is null then 8 else 100 end;
  -- Only priorities under this one are left.
  below integer := 2000000;
  lane_types text[];
  lane_classes integer[];
  top integer;
  last_rank bigint;
  last_position bigint;
  is_bounded boolean;
  row_ids tid[];
  seen integer;
begin
  -- Each round looks at one priority, and again with a greater width where other calls hold the rows found.
  loop
    select array_agg(h.work_type), array_agg(h.class_id), max(h.priority), count(*) = width,
           (array_agg(h.rank order by h.rank desc, h.position desc))[1],
           (array_agg(h.position order by h.rank desc, h.position desc))[1]
      into lane_types, lane_classes, top, is_bounded, last_rank, last_position
      from (select t.name as work_type, k.id as class_id, f.*, rank() over (order by f.priority desc) as priority_rank
              from unnest(lock_first.work_types) as t(name)
             cross join unnest(lock_first.class_ids) as k(id)
             cross join lateral (
               select c.priority, c.rank, c.position
                 from public.work_claims c
                where c.class_id = k.id and c.work_type = t.name and c.status = 'ready' and c.priority < below
                order by c.priority desc, c.rank, c.position
                limit 1) as f
             order by f.priority desc, f.rank, f.position
             limit width) as h
     where h.priority_rank = 1;
    exit when top is null;
    if not is_bounded then
      last_rank := 9223372036854775807;
    end if;

    with near as materialized (
      select r.*
        from unnest(lane_types, lane_classes) as l(work_type, class_id)
       cross join lateral (
         select c.ctid as row_id, c.class_id, c.rank, c.position, c.due_at
           from public.work_claims c
          where c.class_id = l.class_id and c.work_type = l.work_type and c.status = 'ready'
            and c.priority = top and (c.rank, c.position) <= (last_rank, last_position)
          order by c.rank, c.position
          limit width) as r
       order by r.rank, r.position
       limit width
    )
    select array(
             select c.ctid
               from near n
               join public.work_claims c on c.ctid = n.row_id
              where c.status is not distinct from 'ready' and c.class_id is not distinct from n.class_id
                and c.ctid <> all (besides)
                and (due_before is null or n.due_at <= due_before)
              order by n.rank, n.position
              limit wanted
                for no key update of c skip locked),
           (select count(*) from near)
      into row_ids, seen;
    besides := besides || row_ids;
    wanted := wanted - cardinality(row_ids);
    exit when wanted = 0;
    -- Yielded rows are looked for once in each priority.
    if due_before is not null or (seen < width and not is_bounded) then
      below := top;
    else
      width := width * 4;
    end if;
  end loop;
  return besides;
end
$$;

-- Lock rows that a worker is warm for, of the priority of the first row in order, unless that row has waited too long.
create or replace function work.lock_warm(work_types text[], class_ids integer[], wanted integer, warm text[])
returns tid[]
language plpgsql
as $$
declare
  first record;
begin
  select f.* into first
    from (select c.priority, c.rank, c.position,
                 c.due_at <= clock_timestamp() - make_interval(secs => t.passed_over_seconds) as is_overdue
            from public.work_types t
           cross join unnest(lock_warm.class_ids) as k(id)
           cross join lateral (
             select h.priority, h.rank, h.position, h.due_at
               from public.work_claims h
              where h.class_id = k.id and h.work_type = t.name and h.status = 'ready'
              order by h.priority desc, h.rank, h.position
              limit 1) as c
           where t.name = any (lock_warm.work_types)) as f
   order by f.priority desc, f.rank, f.position
   limit 1;
  if not found or first.is_overdue then
    return '{}';
  end if;
  return array(
    select c.ctid
      from (select r.*
              from unnest(lock_warm.work_types) as t(name)
             cross join (select distinct u.affinity from unnest(lock_warm.warm) as u(affinity)) as w
             cross join lateral (
               select n.ctid as row_id, n.class_id, n.rank, n.position
                 from public.work_claims n
                where n.work_type = t.name and n.affinity = w.affinity and n.priority = first.priority and n.status = 'ready'
                order by n.rank, n.position
                -- Warmth is a preference: rows behind this many that are for others do not count.
                limit 64 + 16 * wanted) as r) as near
      join public.work_claims c on c.ctid = near.row_id
     where class_ids[width_bucket(near.class_id, class_ids)] = near.class_id
       and c.status is not distinct from 'ready' and c.class_id is not distinct from near.class_id
     order by near.rank, near.position
     limit lock_warm.wanted
       for no key update of c skip locked);
end
$$;

-- Claim the next items of a worker, at most max_items.
create or replace function work.take_next(
  work_types text[], worker_id text, max_items integer, ttl_seconds integer, warm text[], request_id uuid)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  profile work.profiles := work.catch_up(take_next.worker_id, may_lock => true);
  wanted integer := least(max_items, 1000);
  open_types text[];
  lanes integer;
  has_more boolean := true;
  row_ids tid[] := '{}';
begin
  if cardinality(work_types) = 1 and work_types[1] is not null and cardinality(profile.class_ids) = 1
    and profile.yielded_class_ids = '{}' and coalesce(warm, '{}') = '{}' then
    -- The most frequent call: hold() passes over a paused work type.
    return work.hold(
      work.lock_lane(work_types[1], profile.class_ids[1], wanted), take_next.worker_id, ttl_seconds, take_next.request_id);
  end if;
  open_types := array(select t.name from public.work_types t where t.name = any (take_next.work_types) and not t.paused);
  lanes := cardinality(profile.class_ids) * cardinality(open_types);
  if cardinality(warm) > 0 then
    row_ids := work.lock_warm(open_types, profile.class_ids, wanted, warm);
  elsif lanes <= 16 then
    row_ids := work.lock_few(open_types, profile.class_ids, wanted);
  else
    row_ids := work.lock_ahead(open_types, profile.class_ids, wanted);
    has_more := cardinality(row_ids) < wanted and work.is_more_ready(open_types, 64 + 16 * wanted);
    if has_more and lanes > 64 and cardinality(open_types) = 1 then
      row_ids := work.lock_range(open_types[1], profile.class_ids, wanted);
    end if;
  end if;
  if cardinality(row_ids) < wanted and has_more then
    if coalesce(warm, '{}') = '{}' then
      -- One of these may lack rows behind those that other calls hold: looked for from the beginning, the order is exact.
      row_ids := '{}';
    end if;
    row_ids := work.lock_first(open_types, profile.class_ids, wanted - cardinality(row_ids), row_ids);
  end if;
  -- A worker that spares its capabilities takes common items that others left for yield_seconds, after all of its own.
  if cardinality(row_ids) < wanted and profile.yielded_class_ids <> '{}' then
    row_ids := work.lock_first(
      open_types, profile.yielded_class_ids, wanted - cardinality(row_ids), row_ids,
      clock_timestamp() - make_interval(secs => profile.yield_seconds));
  end if;
  return work.hold(row_ids, take_next.worker_id, ttl_seconds, take_next.request_id);
end
$$;
