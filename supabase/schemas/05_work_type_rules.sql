-- The rules of work types: what they name is checked, and what follows from a change is made.

-- Check what the rules name, and make what follows from a change of them.
create or replace function work.settle_rules(before public.work_types, declared public.work_types)
returns public.work_types
language plpgsql
as $$
#variable_conflict use_column
begin
  if declared.several < before.several then
    perform work.refuse('several', declared.several::text,
      format('%s has %s claims an item already; that number only grows', declared.name, before.several), 'PT409');
  end if;
  if declared.copy_of is not null and declared.several <> before.several then
    perform work.refuse('several', declared.several::text,
      format('%s is a further claim of %s; declare the number there', declared.name, declared.copy_of), 'PT409');
  end if;
  if declared.version < before.version then
    perform work.refuse('version', declared.version::text, format('%s is at version %s; a version only grows', declared.name, before.version), 'PT409');
  end if;
  if declared.apply is distinct from before.apply and declared.apply is not null then
    perform work.apply_function(declared.apply);
  end if;
  if declared.into_column is not null
    and (declared.into_column, declared.pool, declared.input_columns)
      is distinct from (before.into_column, before.pool, before.input_columns) then
    perform work.check_into(declared);
  end if;
  perform work.check_input_columns(declared);
  perform work.check_depends_on(declared);
  perform work.unplain(array(
    select t.name
      from public.work_types t
     where t.name = any (declared.depends_on) or t.copy_of = any (declared.depends_on)
       or (t.name = declared.name
         and (declared.depends_on <> '{}' or declared.input_columns is not null or declared.on_change = 'again'
           or declared.apply is not null or declared.into_column is not null or declared.version_at is not null
           or declared.history = 'full' or declared.on_dead_end = 'stop'))));
  select * into declared from public.work_types t where t.name = declared.name;
  perform work.define_copies(declared);
  perform work.count_needs_of_type(t.name)
     from public.work_types t
    where (declared.depends_on <> before.depends_on and declared.name in (t.name, t.copy_of))
       or (declared.several > before.several and declared.name = any (t.depends_on))
    order by t.name;
  perform work.wake_workers(null);
  return declared;
end
$$;

-- From the end of these work types' claims something follows from here on. Releases that are under way end first: they
-- do not look for it. The caller has not written claims yet.
create or replace function work.unplain(work_types text[])
returns void
language plpgsql
as $$
begin
  if exists (select from public.work_types t where t.name = any (work_types) and t.is_plain) then
    lock table public.work_claims in share row exclusive mode;
    update public.work_types t set is_plain = false where t.name = any (work_types) and t.is_plain;
  end if;
end
$$;

-- Refuse input columns that the items of an attached pool do not carry.
create or replace function work.check_input_columns(declared public.work_types)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  missing text;
begin
  select c.name into missing
    from public.work_pools p
   cross join unnest(declared.input_columns) as c(name)
   where p.name = declared.pool and p.source is not null
     and (c.name <> all (coalesce(p.payload_columns, array[c.name]))
       or not exists (
         select from pg_catalog.pg_attribute a
          where a.attrelid = p.source and a.attname = c.name and a.attnum > 0 and not a.attisdropped))
   limit 1;
  if found then
    perform work.refuse('input_columns', missing,
      format('a column of the table that items of pool %s carry was expected; attach_pool() names these in payload_columns', declared.pool));
  end if;
end
$$;

-- Refuse to depend on a work type that is not there, is of another pool, or depends on this one.
create or replace function work.check_depends_on(declared public.work_types)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  wrong record;
  cycle text;
begin
  if declared.depends_on = '{}' then
    return;
  end if;
  select d.name, t.pool, t.name is null as is_missing into wrong
    from unnest(declared.depends_on) as d(name)
    left join public.work_types t on t.name = d.name
   where t.name is null or t.pool is distinct from declared.pool
   limit 1;
  if found then
    perform work.refuse('depends_on', wrong.name, case
      when wrong.is_missing then 'there is no such work type; define it before'
      else format('it is of pool %s, and %s of pool %s; items of two pools are bound by needs', coalesce(wrong.pool, 'none'),
        declared.name, coalesce(declared.pool, 'none')) end,
      case when wrong.is_missing then 'PT404' else 'PT400' end);
  end if;
  with recursive up(name, path) as (
    select d.name, array[declared.name, d.name] from unnest(declared.depends_on) as d(name)
    union all
    select d.name, u.path || d.name
      from up u
      join public.work_types t on t.name = u.name
     cross join unnest(t.depends_on) as d(name)
     where u.name <> declared.name and cardinality(u.path) < 100
  )
  select array_to_string(u.path, ' → ') into cycle from up u where u.name = declared.name limit 1;
  if found then
    perform work.refuse('depends_on', declared.depends_on::text, format('that is a cycle: %s', cycle));
  end if;
end
$$;

-- Count anew what all claims of a work type wait for, after what it needs has changed.
create or replace function work.count_needs_of_type(work_type text)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  page uuid[];
begin
  for page in
    select array_agg(n.item_id)
      from (select c.item_id, row_number() over (order by c.item_id) / 1000 as page
              from public.work_claims c
             where c.work_type = count_needs_of_type.work_type) as n
     group by n.page
     order by n.page
  loop
    perform work.count_needs(page, array[count_needs_of_type.work_type]);
  end loop;
end
$$;

-- Give the further claims of an item's work type, NAME#2 and on, the rules of the first.
create or replace function work.define_copies(declared public.work_types)
returns void
language plpgsql
as $$
declare
  foreign_type text;
begin
  if declared.copy_of is not null then
    return;
  end if;
  if declared.several > 1 and length(declared.name) > 196 then
    perform work.refuse('work_type', declared.name, 'a work type with several claims an item has a name of at most 196 characters');
  end if;
  select t.name into foreign_type
    from generate_series(2, declared.several) as n
    join public.work_types t on t.name = declared.name || '#' || n and t.copy_of is distinct from declared.name;
  if found then
    perform work.refuse('several', declared.several::text,
      format('%s is a work type of its own, and would have to be a further claim of %s', foreign_type, declared.name), 'PT409');
  end if;
  if exists (
    select from generate_series(2, declared.several) as n
     where not exists (select from public.work_types t where t.name = declared.name || '#' || n)) then
    if declared.pool is not null then
      perform pg_advisory_xact_lock(work.pool_lock_key(declared.pool));
    end if;
    -- The present items are earlier ones for the further claims: enroll_pool() enrols them.
    insert into public.work_types
    select c.*
      from generate_series(2, declared.several) as n
     cross join lateral jsonb_populate_record(
       declared, jsonb_build_object('name', declared.name || '#' || n, 'copy_of', declared.name, 'into_column', null,
         'enrolled_through', 0, 'enroll_until',
         coalesce((select max(i.seq) from public.work_items i where i.pool = declared.pool), 0))) as c
    on conflict do nothing;
  end if;
  update public.work_types t
     set pool = declared.pool,
         enroll_until = case when t.pool is null then declared.enroll_until else t.enroll_until end,
         lease_seconds = declared.lease_seconds, max_failures = declared.max_failures, max_crashes = declared.max_crashes,
         backoff_seconds = declared.backoff_seconds, backoff_limit_seconds = declared.backoff_limit_seconds,
         passed_over_seconds = declared.passed_over_seconds, paused = declared.paused, try_seconds = declared.try_seconds,
         min_worker_version = declared.min_worker_version, keep_succeeded = declared.keep_succeeded,
         keep_failed = declared.keep_failed, input_columns = declared.input_columns, on_change = declared.on_change,
         version = declared.version, version_at = declared.version_at, redone_through = case when t.version < declared.version then declared.redone_through else t.redone_through end,
         depends_on = declared.depends_on, on_failed_need = declared.on_failed_need, apply = declared.apply,
         history = declared.history, keep_events = declared.keep_events, on_dead_end = declared.on_dead_end,
         stopped = declared.stopped, several = declared.several, payload_schema = declared.payload_schema,
         result_schema = declared.result_schema, is_plain = declared.is_plain
   where t.copy_of = declared.name;
end
$$;
