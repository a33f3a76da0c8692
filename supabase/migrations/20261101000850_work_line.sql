-- The lines: each work type and class has one, in the order of priority, workflow, arrival. A worker takes from the
-- front of those that it matches, as if they were one line. Rows that another call holds at that moment are passed over.

-- Claim the first of one line. The rows are picked and locked by ctid first: with a join or an IN the planner may run
-- the limit more than once.
create or replace function work.take_line(
  work_type text, class_id integer, worker_id text, max_items integer, ttl_seconds integer, request_id uuid)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  answer json;
begin
  with won as (
    update public.work_claims c
       set status = 'claimed',
           worker_id = take_line.worker_id,
           fence = nextval('work.fence'),
           request_id = take_line.request_id,
           claimed_at = moment,
           expires_at = moment + make_interval(secs => coalesce(
             take_line.ttl_seconds, (select t.lease_seconds from public.work_types t where t.name = take_line.work_type))),
           progress = null
     where c.ctid = any (array(
             select r.ctid
               from public.work_claims r
              where r.work_type = (
                      select t.name from public.work_types t where t.name = take_line.work_type and not t.paused)
                and r.class_id = take_line.class_id and r.status = 'ready'
              order by r.priority desc, r.line, r.position
              limit take_line.max_items
                for no key update skip locked))
    returning c.item_id, c.work_type, c.fence, c.expires_at, c.failures, c.crashes, c.priority, c.line, c.position
  )
  select coalesce(json_agg(told order by w.priority desc, w.line, w.position), '[]') into answer
    from won w
    join public.work_items i on i.id = w.item_id
   cross join lateral (
     select w.item_id, w.work_type, w.fence, round(extract(epoch from w.expires_at - moment)) as ttl_seconds, w.expires_at,
            w.failures, w.crashes, i.pool, i.source_key, i.payload) as told;
  return answer;
end
$$;
comment on function work.take_line is 'Claims the first of one line.';
revoke execute on function work.take_line from public, anon, authenticated;
grant execute on function work.take_line to service_role;

-- Claim these rows, the first of them that nobody holds; as long as they are ready and of these classes.
create or replace function work.take_rows(
  row_ids tid[], row_classes integer[], worker_id text, max_items integer, ttl_seconds integer, request_id uuid)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  answer json;
begin
  with picked as materialized (
    select r.ctid as row_id, p.n
      from unnest(take_rows.row_ids, take_rows.row_classes) with ordinality as p(row_id, class_id, n)
      join public.work_claims r on r.ctid = p.row_id
     where r.status is not distinct from 'ready' and r.class_id is not distinct from p.class_id
     order by p.n
     limit take_rows.max_items
       for no key update of r skip locked
  ),
  won as (
    update public.work_claims c
       set status = 'claimed',
           worker_id = take_rows.worker_id,
           fence = nextval('work.fence'),
           request_id = take_rows.request_id,
           claimed_at = moment,
           expires_at = moment + make_interval(secs => coalesce(take_rows.ttl_seconds, (
             select t.lease_seconds from public.work_types t where t.name = c.work_type))),
           progress = null
      from picked p
     where c.ctid = p.row_id
    returning p.n, c.item_id, c.work_type, c.fence, c.expires_at, c.failures, c.crashes
  )
  select json_agg(told order by w.n) into answer
    from won w
    join public.work_items i on i.id = w.item_id
   cross join lateral (
     select w.item_id, w.work_type, w.fence, round(extract(epoch from w.expires_at - moment)) as ttl_seconds, w.expires_at,
            w.failures, w.crashes, i.pool, i.source_key, i.payload) as told;
  return answer;
end
$$;
comment on function work.take_rows is 'Claims the first of these rows that nobody holds.';
revoke execute on function work.take_rows from public, anon, authenticated;
grant execute on function work.take_rows to service_role;

-- The first rows of several lines, locked, where it matches a good share of the classes: all lines
-- are walked as one, and what the worker does not match is stepped over. The walk has an end; what is behind it is looked
-- for line by line.
create or replace function work.walk_lines(
  work_types text[], matched varbit, max_items integer, out row_ids tid[], out row_classes integer[])
language plpgsql
set search_path = pg_catalog, pg_temp
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
comment on function work.walk_lines is 'The first rows of several lines, locked.';
revoke execute on function work.walk_lines from public, anon, authenticated;
grant execute on function work.walk_lines to service_role;

-- The first rows of several lines, in exact order: at least so many, if the guess is good. A few lines are read to guess
-- how far back in line that is; then each line is asked for what it has up to there, which is little. All of them have the
-- highest priority that is ready at all; nothing where no line has such a row.
create or replace function work.gather_lines(
  work_types text[], class_ids integer[], wanted integer, out row_ids tid[], out row_classes integer[])
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  top integer;
  sampled integer := 4;
  first_line bigint;
  last_line bigint;
  seen integer;
  bound bigint;
begin
  select max(f.priority) into top
    from unnest(gather_lines.work_types) as t(name)
   cross join lateral (
     select c.priority from public.work_claims c
      where c.work_type = t.name and c.status = 'ready' and c.class_id > 0
      order by c.priority desc, c.line, c.position
      limit 1) as f;
  select min(s.line), max(s.line), count(*) into first_line, last_line, seen
    from (
      select r.line
        from (select gather_lines.class_ids[1 + floor(random() * cardinality(gather_lines.class_ids))::integer] as id
                from generate_series(1, sampled)) as k
       cross join unnest(gather_lines.work_types) as t(name)
       cross join lateral (
         select c.line, c.position from public.work_claims c
          where c.class_id = k.id and c.work_type = t.name and c.status = 'ready' and c.priority = top
          order by c.line, c.position
          limit gather_lines.wanted / sampled + 2) as r
       order by r.line, r.position
       limit gather_lines.wanted) as s;
  if seen < 2 then
    return;
  end if;
  -- Twice as far as what is wanted should reach if the other lines are as full.
  bound := first_line + (last_line - first_line) * 2 * gather_lines.wanted / seen
    * least(1, sampled::numeric / cardinality(gather_lines.class_ids));
  select array_agg(g.row_id order by g.line, g.position), array_agg(g.class_id order by g.line, g.position)
    into row_ids, row_classes
    from (
      select r.*
        from unnest(gather_lines.class_ids) as k(id)
       cross join unnest(gather_lines.work_types) as t(name)
       cross join lateral (
         select c.ctid as row_id, c.class_id, c.line, c.position from public.work_claims c
          where c.class_id = k.id and c.work_type = t.name and c.status = 'ready' and c.priority = top and c.line <= bound
          order by c.line, c.position
          limit gather_lines.wanted) as r
       order by r.line, r.position
       limit gather_lines.wanted
    ) as g;
end
$$;
comment on function work.gather_lines is 'The first rows of several lines, in exact order: about so many.';
revoke execute on function work.gather_lines from public, anon, authenticated;
grant execute on function work.gather_lines to service_role;

-- Claim the first of several lines, in exact order. Each line is asked for its first row; only the lines with the best
-- first rows can have what comes next, and of these some rows are read. What goes before all that was not read is
-- claimed, and the rest looked for further back.
create or replace function work.take_merged(
  profile work.profiles, work_types text[], worker_id text, max_items integer, ttl_seconds integer, warm text[],
  "only" jsonb, request_id uuid)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  old_enough timestamptz := moment - make_interval(secs => profile.yield_seconds);
  class_ids integer[] := profile.class_ids;
  yielded_class_ids integer[] := profile.yielded_class_ids;
  only_pool text := "only" ->> 'pool';
  only_labels jsonpath;
  only_workflow bigint;
  open_types text[];
  -- How many lines are read, and how many rows of each.
  breadth integer;
  depth integer;
  reach integer := 1;
  lines integer;
  line_types text[];
  line_classes integer[];
  line_yields boolean[];
  top integer;
  edge_priority integer;
  edge_line bigint;
  edge_position bigint;
  found record;
  part json;
  answer json;
  left_to_win integer := take_merged.max_items;
  rounds integer := 0;
  is_warmed boolean := coalesce(cardinality(take_merged.warm), 0) > 0;
  is_plain boolean := profile.yielded_class_ids = '{}' and "only" is null and not is_warmed;
begin
  open_types := array(
    select t.name from public.work_types t
     where t.name = any (take_merged.work_types) and not t.paused
       and (only_pool is null or t.pool is null or t.pool = only_pool)
     order by t.name);
  if "only" ? 'labels' then
    only_labels := work.compile_requirement("only" -> 'labels', 'only.labels');
    class_ids := array(
      select c.id from unnest(class_ids) as m(id) join public.work_classes c on c.id = m.id where c.labels @@ only_labels);
    yielded_class_ids := array(
      select c.id from unnest(yielded_class_ids) as m(id) join public.work_classes c on c.id = m.id
       where c.labels @@ only_labels);
  end if;
  if "only" ? 'workflow' then
    only_workflow := (select w.id from public.work_workflows w where w.name = "only" ->> 'workflow');
    if only_workflow is null then
      return '[]';
    end if;
  end if;

  -- Where the classes that it matches are a good share of all: walk. The concatenation unpacks what was stored
  -- compressed, once and not for each row.
  if is_plain and profile.class_bits is not null then
    found := work.walk_lines(open_types, profile.class_bits || B'', left_to_win);
    if found.row_ids is not null then
      answer := work.take_rows(
        found.row_ids, found.row_classes, take_merged.worker_id, left_to_win, take_merged.ttl_seconds, take_merged.request_id);
      left_to_win := left_to_win - coalesce(json_array_length(answer), 0);
    end if;
  end if;

  -- Others may hold the first rows at this moment: some more are read than are asked for.
  breadth := left_to_win + least(take_merged.max_items * 3, 60) + 4;
  if is_plain and left_to_win > 0 and cardinality(open_types) * cardinality(class_ids) > 2 then
    found := work.gather_lines(open_types, class_ids, breadth);
    if found.row_ids is not null then
      part := work.take_rows(
        found.row_ids, found.row_classes, take_merged.worker_id, left_to_win, take_merged.ttl_seconds, take_merged.request_id);
      if part is not null then
        answer := case when answer is null then part else (answer::jsonb || part::jsonb)::json end;
        left_to_win := left_to_win - json_array_length(part);
      end if;
    end if;
  end if;

  -- What is lacking is looked for line by line.
  while left_to_win > 0 and reach <= 65536 loop
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
           select u.id as class_id, false as is_yielded from unnest(class_ids) as u(id)
            union all
           select u.id, true from unnest(yielded_class_ids) as u(id)) as k
         cross join unnest(open_types) as t(name)
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
    exit when lines = 0;
    if lines = 1 and answer is null and not line_yields[1] and "only" is null and not is_warmed then
      return work.take_line(
        line_types[1], line_classes[1], take_merged.worker_id, left_to_win, take_merged.ttl_seconds, take_merged.request_id);
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
    -- For a worker that is warm for something, one priority at a time: what waited too long goes first.
    select array_agg(r.row_id order by o.is_overdue desc, r.priority desc, r.line, r.position) as row_ids,
           array_agg(r.class_id order by o.is_overdue desc, r.priority desc, r.line, r.position) as row_classes,
           count(*) filter (where o.is_overdue) as overdue,
           not exists (select from edge) as is_all
      into found
      from read r
      left join edge e on true
     cross join lateral (
       select is_warmed and r.due_at <= moment - make_interval(secs => (
                select t.passed_over_seconds from public.work_types t where t.name = r.work_type)) as is_overdue) as o
     where not r.is_too_new
       and (e.line is null or (-r.priority, r.line, r.position) <= (-e.priority, e.line, e.position))
       and (not is_warmed or r.priority = top);
    -- Where all that was read has waited too long, what follows may have as well, and what is at hand comes after it.
    if is_warmed and (found.is_all or found.overdue < coalesce(cardinality(found.row_ids), 0)) then
      select array_agg(u.row_id order by u.n), array_agg(u.class_id order by u.n)
        into found.row_ids, found.row_classes
        from (
          select a.row_id, a.class_id, min(a.n) as n
            from (
              select u.row_id, u.class_id, case when u.n <= found.overdue then u.n else u.n + 10000 end as n
                from unnest(found.row_ids, found.row_classes) with ordinality as u(row_id, class_id, n)
               union all
              select w.row_id, w.class_id, 5000 + row_number() over (order by w.line, w.position)
                from unnest(open_types) as t(name)
               cross join (select distinct d.affinity from unnest(take_merged.warm) as d(affinity)) as at_hand
               cross join lateral (
                 select f.row_id, f.class_id, f.line, f.position
                   from (select c.ctid as row_id, c.item_id, c.workflow_id, c.class_id, c.line, c.position
                           from public.work_claims c
                          where c.work_type = t.name and c.affinity = at_hand.affinity and c.priority = top
                            and c.status = 'ready'
                          order by c.line, c.position
                          -- A preference is no duty: it is not looked for behind this many that are not for this worker.
                          limit breadth * 16) as f
                  where f.class_id = any (class_ids)
                    and (only_workflow is null or f.workflow_id is not distinct from only_workflow)
                    and (only_pool is null or exists (
                          select from public.work_items i
                           where i.id = any (array[f.item_id]) and i.pool is not distinct from only_pool))
                  order by f.line, f.position
                  limit breadth) as w
            ) as a
           group by a.row_id, a.class_id) as u;
    end if;
    part := work.take_rows(
      found.row_ids, found.row_classes, take_merged.worker_id, left_to_win, take_merged.ttl_seconds, take_merged.request_id);
    if part is not null then
      answer := case when answer is null then part else (answer::jsonb || part::jsonb)::json end;
      left_to_win := left_to_win - json_array_length(part);
    end if;
    if is_warmed then
      -- Again, for what is left of this priority or for the next one; without regard to warmth where others hold all of
      -- this one that was found.
      is_warmed := part is not null;
      -- Each round reads all lines: what is left after so many priorities is for the next call.
      rounds := rounds + 1;
      exit when rounds >= 20 and answer is not null;
    else
      exit when found.is_all;
      reach := reach * 4;
      breadth := breadth * 2;
    end if;
  end loop;
  return coalesce(answer, '[]');
end
$$;
comment on function work.take_merged is 'Claims the first of several lines, in exact order.';
revoke execute on function work.take_merged from public, anon, authenticated;
grant execute on function work.take_merged to service_role;
