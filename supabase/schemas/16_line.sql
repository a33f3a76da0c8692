-- The lines: each work type and class has one, in the order of priority, workflow, arrival. A worker takes from the
-- front of those that it matches, as if they were one line. Rows that another call holds at that moment are passed over.

-- The first rows of several lines, locked, for a worker that matches a good share of the classes: all lines are walked as
-- one, and what the worker does not match is stepped over. The walk has an end, and may find less than there is.
create or replace function work.walk_lines(
  work_types text[], matched varbit, max_items integer, out row_ids tid[], out row_classes integer[])
language plpgsql
as $$
#variable_conflict use_column
begin
  select array_agg(p.row_id order by p.priority desc, p.line, p.position),
         array_agg(p.class_id order by p.priority desc, p.line, p.position)
    into row_ids, row_classes
    from (
    select c.ctid as row_id, c.class_id, c.priority, c.line, c.position
      from (select n.*
              from unnest(walk_lines.work_types) as t(name)
             cross join lateral (
               select r.ctid as row_id, r.class_id, r.priority, r.line, r.position
                 from public.work_claims r
                where r.work_type = t.name and r.status = 'ready' and r.class_id > 0
                order by r.priority desc, r.line, r.position
                limit walk_lines.max_items * 16 + 64) as n
             order by n.priority desc, n.line, n.position
             -- Of eight rows one is the worker's own, or more, and others hold some of those.
             limit walk_lines.max_items * 16 + 64) as w
      join public.work_claims c on c.ctid = w.row_id
     where case when w.class_id < length(walk_lines.matched) then get_bit(walk_lines.matched, w.class_id) = 1 end
       and c.status is not distinct from 'ready' and c.class_id is not distinct from w.class_id
     order by w.priority desc, w.line, w.position
     limit walk_lines.max_items
       for no key update of c skip locked) as p;
end
$$;

-- How far back in line so many rows will reach, of the highest priority that is ready at all: a guess from a few rows of a
-- few lines, as a place and what lies before it. Places are lines or, within one line, positions. Nothing where these have
-- no such rows.
create or replace function work.guess_front(
  work_types text[], class_ids integer[], wanted integer,
  out top integer, out workflow_line bigint, out place bigint, out span bigint)
language plpgsql
as $$
#variable_conflict use_column
declare
  sampled constant integer := 4;
  seen integer;
  last_line bigint;
  first_position bigint;
  last_position bigint;
begin
  select max(f.priority) into top
    from public.work_types t
   cross join lateral (
     select c.priority from public.work_claims c
      where c.work_type = t.name and c.status = 'ready' and c.class_id > 0
      order by c.priority desc, c.line, c.position
      limit 1) as f
   where t.name = any (guess_front.work_types) and not t.paused;
  select count(*), min(r.line), max(r.line), min(r.position), max(r.position)
    into seen, place, last_line, first_position, last_position
    from (select guess_front.class_ids[1 + floor(random() * cardinality(guess_front.class_ids))::integer] as id
            from generate_series(1, sampled)) as k
   cross join public.work_types t
   cross join lateral (
     select c.line, c.position from public.work_claims c
      where c.class_id = k.id and c.work_type = t.name and c.status = 'ready' and c.priority = top
      order by c.line, c.position
      limit sampled) as r
   where t.name = any (guess_front.work_types) and not t.paused;
  if seen < 2 then
    top := null;
    return;
  end if;
  if place = last_line then
    workflow_line := place;
    place := first_position;
    last_line := last_position;
  end if;
  -- Others may hold as many as three times what is wanted. It should do if the other lines are as full.
  span := greatest(1,
    5.0::float8 * guess_front.wanted / seen * least(1, sampled::float8 / cardinality(guess_front.class_ids)) * (last_line - place));
end
$$;

-- The first rows of several lines, in exact order; "is_all" says that there are no others. Each line is asked for its first
-- row; only the lines with the best first rows can have what comes next, and of these some rows are read. The answer has
-- what goes before all that was not read. For a worker that is warm for something it has one priority: first what waited
-- too long, then what it is warm for.
create or replace function work.read_lines(
  work_types text[],
  class_ids integer[],
  yielded_class_ids integer[],
  old_enough timestamptz,
  warm text[],
  only_pool text,
  only_workflow bigint,
  breadth integer,
  reach integer,
  out row_ids tid[],
  out row_classes integer[],
  out is_all boolean
)
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  is_warmed boolean := cardinality(read_lines.warm) > 0;
  depth integer;
  lines integer;
  line_types text[];
  line_classes integer[];
  line_yields boolean[];
  top integer;
  edge_priority integer;
  edge_line bigint;
  edge_position bigint;
  overdue integer;
begin
  -- One line more than is read: its first row is where the others end.
  select count(*), (array_agg(h.work_type order by h.n))[1:breadth], (array_agg(h.class_id order by h.n))[1:breadth],
         (array_agg(h.is_yielded order by h.n))[1:breadth], max(h.priority),
         max(h.priority) filter (where h.n > breadth), max(h.line) filter (where h.n > breadth),
         max(h.position) filter (where h.n > breadth)
    into lines, line_types, line_classes, line_yields, top, edge_priority, edge_line, edge_position
    from (
      select t.name as work_type, k.class_id, k.is_yielded, f.*,
             row_number() over (order by f.priority desc, f.line, f.position) as n
        from (
         select u.id as class_id, false as is_yielded from unnest(read_lines.class_ids) as u(id)
          union all
         select u.id, true from unnest(read_lines.yielded_class_ids) as u(id)) as k
       cross join unnest(read_lines.work_types) as t(name)
       cross join lateral (
         (select c.priority, c.line, c.position from public.work_claims c
           where c.class_id = k.class_id and c.work_type = t.name and c.status = 'ready'
             and only_workflow is null and only_pool is null
           order by c.priority desc, c.line, c.position
           limit 1)
          union all
         (select c.priority, c.line, c.position from public.work_claims c
           where c.class_id = k.class_id and c.work_type = t.name and c.status = 'ready'
             and only_workflow is null and only_pool is not null
             and exists (
               select from public.work_items i where i.id = any (array[c.item_id]) and i.pool is not distinct from only_pool)
           order by c.priority desc, c.line, c.position
           limit 1)
          union all
         -- Status as a range: work_claims_of_workflow serves this, and no other index does.
         (select c.priority, c.line, c.position from public.work_claims c
           where c.workflow_id = only_workflow and c.class_id = k.class_id and c.work_type = t.name
             and c.status >= 'ready' and c.status <= 'ready' and only_workflow is not null
             and (only_pool is null or exists (
               select from public.work_items i where i.id = any (array[c.item_id]) and i.pool is not distinct from only_pool))
           order by c.priority desc, c.line, c.position
           limit 1)) as f
       -- A line that begins with what is left to others has nothing to take, and no room among the first ones.
       where not k.is_yielded
          or (select c.due_at from public.work_claims c
               where c.class_id = k.class_id and c.work_type = t.name and c.status = 'ready'
                 and c.priority = f.priority and c.line = f.line and c.position = f.position
               limit 1) <= old_enough
       order by f.priority desc, f.line, f.position
       limit breadth + 1
    ) as h;
  if lines = 0 then
    is_all := true;
    return;
  end if;

  -- Somewhat more than is wanted in all, at first.
  depth := (2 + breadth / least(lines, breadth)) * reach;
  with read as materialized (
    select r.*
      from unnest(line_types, line_classes, line_yields) as l(work_type, class_id, is_yielded)
     cross join lateral (
       select f.*, row_number() over back as n,
              -- What is left to others for a while hides what is behind it in its line.
              l.is_yielded and bool_or(f.due_at > old_enough) over back as is_too_new
         from (
           (select c.ctid as row_id, c.work_type, c.class_id, c.priority, c.line, c.position, c.due_at
              from public.work_claims c
             where c.class_id = l.class_id and c.work_type = l.work_type and c.status = 'ready' and only_workflow is null
               and (only_pool is null or exists (
                     select from public.work_items i
                      where i.id = any (array[c.item_id]) and i.pool is not distinct from only_pool))
             order by c.priority desc, c.line, c.position
             limit depth)
            union all
           (select c.ctid, c.work_type, c.class_id, c.priority, c.line, c.position, c.due_at
              from public.work_claims c
             where c.workflow_id = only_workflow and c.class_id = l.class_id and c.work_type = l.work_type
               and c.status >= 'ready' and c.status <= 'ready' and only_workflow is not null
               and (only_pool is null or exists (
                     select from public.work_items i
                      where i.id = any (array[c.item_id]) and i.pool is not distinct from only_pool))
             order by c.priority desc, c.line, c.position
             limit depth)) as f
       window back as (order by f.priority desc, f.line, f.position)) as r
  ),
  edge as materialized (
    select e.priority, e.line, e.position
      from (select r.priority, r.line, r.position from read r where r.n = depth and not r.is_too_new
             union all
            select edge_priority, edge_line, edge_position where edge_line is not null) as e
     order by e.priority desc, e.line, e.position
     limit 1
  )
  select array_agg(r.row_id order by o.is_overdue desc, r.priority desc, r.line, r.position),
         array_agg(r.class_id order by o.is_overdue desc, r.priority desc, r.line, r.position),
         count(*) filter (where o.is_overdue),
         not exists (select from edge)
    into row_ids, row_classes, overdue, is_all
    from read r
    left join edge e on true
   cross join lateral (
     select is_warmed and r.due_at <= moment - make_interval(secs => (
              select t.passed_over_seconds from public.work_types t where t.name = r.work_type)) as is_overdue) as o
   where not r.is_too_new
     and (e.line is null or (-r.priority, r.line, r.position) <= (-e.priority, e.line, e.position))
     and (not is_warmed or r.priority = top);
  -- Where all that was read has waited too long, what follows may have as well, and what is at hand comes after it.
  if is_warmed and (is_all or overdue < cardinality(row_ids)) then
    select array_agg(u.row_id order by u.rank, u.n), array_agg(u.class_id order by u.rank, u.n)
      into row_ids, row_classes
      from (
        select distinct on (a.row_id) a.row_id, a.class_id, a.rank, a.n
          from (
            select u.row_id, u.class_id, case when u.n <= overdue then 1 else 3 end as rank, u.n
              from unnest(row_ids, row_classes) with ordinality as u(row_id, class_id, n)
             union all
            select w.row_id, w.class_id, 2, row_number() over (order by w.line, w.position)
              from unnest(read_lines.work_types) as t(name)
             cross join (select distinct d.affinity from unnest(read_lines.warm) as d(affinity)) as at_hand
             cross join lateral (
               select f.row_id, f.class_id, f.line, f.position
                 from (select c.ctid as row_id, c.item_id, c.workflow_id, c.class_id, c.line, c.position
                         from public.work_claims c
                        where c.work_type = t.name and c.affinity = at_hand.affinity and c.priority = top
                          and c.status = 'ready'
                        order by c.line, c.position
                        -- A preference is no duty: it is not looked for behind this many that are not for this worker.
                        limit breadth * 16) as f
                where f.class_id = any (read_lines.class_ids)
                  and (only_workflow is null or f.workflow_id is not distinct from only_workflow)
                  and (only_pool is null or exists (
                        select from public.work_items i
                         where i.id = any (array[f.item_id]) and i.pool is not distinct from only_pool))
                order by f.line, f.position
                limit breadth) as w
          ) as a
         order by a.row_id, a.rank) as u;
  end if;
end
$$;
