-- The line: what a worker may take, in exact order, read no further than needed.

-- The first claims that a worker may take, as one line: its priority first, then what waited too long, what the worker
-- is warm for, the older workflow, first come. Each work type and class has a line of its own. The answer holds rows
-- that go before all that was not read; "is_all" says that there are no others.
--
-- Each class is asked for its first row. Only the classes with the best of them can hold what comes next, and of these
-- "depth" rows are read. Where the worker matches a good share of all classes, the first rows of all of them together
-- are read instead ("is_wide", for one work type).
create or replace function work.line_up(
  work_types text[],
  class_ids integer[],
  yielded_class_ids integer[],
  old_enough timestamptz,
  warm text[],
  pool text,
  workflow_id bigint,
  wanted integer,
  depth integer,
  is_wide boolean,
  out row_ids tid[],
  out is_all boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
begin
  with open_type as materialized (
    select t.name, moment - make_interval(secs => t.passed_over_seconds) as long_ago
      from public.work_types t
     where t.name = any (line_up.work_types) and not t.paused
       and (line_up.pool is null or t.pool is null or t.pool = line_up.pool)
  ),
  head as materialized (
    select t.name as work_type, k.class_id, k.is_yielded, h.*
      from open_type t
     cross join (
       select u.id as class_id, false as is_yielded from unnest(line_up.class_ids) as u(id)
        where not line_up.is_wide or u.id = 1
        union all
       select u.id, true from unnest(line_up.yielded_class_ids) as u(id)) as k
     cross join lateral (
       (select c.priority, c.line, c.position from public.work_claims c
         where c.work_type = t.name and c.class_id = k.class_id and c.status = 'ready' and line_up.workflow_id is null
         order by c.priority desc, c.line, c.position
         limit 1)
        union all
       (select c.priority, c.line, c.position from public.work_claims c
         where c.workflow_id = line_up.workflow_id and c.work_type = t.name and c.class_id = k.class_id
           and c.status = 'ready'
         order by c.priority desc, c.line, c.position
         limit 1)) as h
     order by h.priority desc, h.line, h.position
     limit line_up.wanted + 1
  ),
  -- What is left to others for a while hides what is behind it in its line: all of that came later, or matters less.
  seen as materialized (
    select r.*, row_number() over behind as n,
           best.is_yielded and bool_or(r.due_at > line_up.old_enough) over behind as is_too_new
      from (select h.* from head h order by h.priority desc, h.line, h.position limit line_up.wanted) as best
     cross join lateral (
       (select c.ctid as row_id, c.work_type, c.class_id, c.priority, c.line, c.position, c.affinity, c.due_at
          from public.work_claims c
         where c.work_type = best.work_type and c.class_id = best.class_id and c.status = 'ready'
           and line_up.workflow_id is null
           and (line_up.pool is null or exists (
                 select from public.work_items i where i.id = any (array[c.item_id]) and i.pool is not distinct from line_up.pool))
         order by c.priority desc, c.line, c.position
         limit line_up.depth)
        union all
       (select c.ctid, c.work_type, c.class_id, c.priority, c.line, c.position, c.affinity, c.due_at
          from public.work_claims c
         where c.workflow_id = line_up.workflow_id and c.work_type = best.work_type and c.class_id = best.class_id
           and c.status = 'ready'
           and (line_up.pool is null or exists (
                 select from public.work_items i where i.id = any (array[c.item_id]) and i.pool is not distinct from line_up.pool))
         order by c.priority desc, c.line, c.position
         limit line_up.depth)) as r
    window behind as (partition by r.work_type, r.class_id order by r.priority desc, r.line, r.position)
  ),
  wide as materialized (
    select r.*, row_number() over (order by r.priority desc, r.line, r.position) as n
      from (select c.ctid as row_id, c.work_type, c.class_id, c.priority, c.line, c.position, c.affinity, c.due_at
              from public.work_claims c
             where line_up.is_wide and c.work_type = (select t.name from open_type t) and c.status = 'ready'
               and c.class_id <> 1
             order by c.priority desc, c.line, c.position
             limit line_up.wanted * 16) as r
     where r.class_id = any (line_up.class_ids)
     limit line_up.wanted
  ),
  warmed as materialized (
    select w.*
      from open_type t
     cross join unnest(line_up.warm) as a(affinity)
     cross join lateral (
       select r.*
         from (select c.ctid as row_id, c.work_type, c.class_id, c.priority, c.line, c.position, c.affinity, c.due_at
                 from public.work_claims c
                where c.work_type = t.name and c.affinity = a.affinity and c.status = 'ready'
                  and (line_up.workflow_id is null or c.workflow_id is not distinct from line_up.workflow_id)
                  and (line_up.pool is null or exists (
                        select from public.work_items i
                         where i.id = any (array[c.item_id]) and i.pool is not distinct from line_up.pool))
                order by c.priority desc, c.line, c.position
                limit line_up.wanted * 16) as r
        where r.class_id = any (line_up.class_ids)
        limit line_up.wanted) as w
  ),
  -- The first row behind which others may stand that were not read.
  edge as materialized (
    select e.priority, e.line, e.position
      from (
        select s.priority, s.line, s.position from seen s where s.n = line_up.depth and not s.is_too_new
         union all
        (select h.priority, h.line, h.position from head h
          order by h.priority desc, h.line, h.position
         offset line_up.wanted)
         union all
        (select w.priority, w.line, w.position from wide w order by w.n desc limit 1)
      ) as e
     order by e.priority desc, e.line, e.position
     limit 1
  )
  select array_agg(
           l.row_id
           order by l.priority desc, line_up.warm is not null and l.due_at <= t.long_ago desc,
                    coalesce(l.affinity = any (line_up.warm), false) desc, l.line, l.position),
         not exists (select from edge) and not line_up.is_wide
    into row_ids, is_all
    from (
      select s.row_id, s.work_type, s.priority, s.line, s.position, s.affinity, s.due_at
        from seen s left join edge e on true
       where not s.is_too_new
         and (e.line is null or (-s.priority, s.line, s.position) <= (-e.priority, e.line, e.position))
       union all
      select w.row_id, w.work_type, w.priority, w.line, w.position, w.affinity, w.due_at
        from wide w left join edge e on true
       where e.line is null or (-w.priority, w.line, w.position) <= (-e.priority, e.line, e.position)
       union all
      select w.row_id, w.work_type, w.priority, w.line, w.position, w.affinity, w.due_at
        from warmed w left join edge e on true
       where (e.line is null or w.priority >= e.priority)
         and not exists (select from seen s where s.row_id = w.row_id)
         and not exists (select from wide o where o.row_id = w.row_id)
    ) as l
    join open_type t on t.name = l.work_type;
end
$$;
comment on function work.line_up is 'The first claims that a worker may take, in exact order, and whether they are all.';
revoke execute on function work.line_up from public, anon, authenticated;
grant execute on function work.line_up to service_role;
