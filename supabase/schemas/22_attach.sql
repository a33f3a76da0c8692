-- Attached tables: attach_pool() makes a table a pool, whose rows are items; detach_pool() lets it go.

-- Refuse a relation that cannot be attached.
create or replace function work.check_source(source regclass)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  if check_source.source is null then
    perform work.refuse('source', null, 'the name of a table was expected');
  end if;
  if exists (
    select from pg_catalog.pg_class r
     where r.oid = check_source.source
       and (r.relkind not in ('r', 'p')
         or r.relnamespace = 'work'::regnamespace
         or (r.relnamespace = 'public'::regnamespace and obj_description(r.oid, 'pg_class') like 'work-claims:%'))) then
    perform work.refuse('source', check_source.source::text, 'a table of your own was expected');
  end if;
  if exists (select from pg_catalog.pg_inherits h where h.inhrelid = check_source.source) then
    perform work.refuse(
      'source', check_source.source::text,
      'a partition or child table is not attached by itself: attach its parent, and write through that');
  end if;
end
$$;

-- The columns of a table's primary key, or of a unique index whose columns cannot be null.
create or replace function work.key_of(source regclass)
returns text[]
language sql
stable
as $$
  select array_agg(a.attname::text order by k.n)
    from (
      select x.indexrelid, (x.indkey::int2[])[0:x.indnkeyatts - 1] as attnums
        from pg_catalog.pg_index x
       where x.indrelid = key_of.source and x.indisunique and x.indisvalid and x.indpred is null and x.indexprs is null
         and not exists (
           select from pg_catalog.pg_attribute a
            where a.attrelid = x.indrelid and not a.attnotnull
              and a.attnum = any ((x.indkey::int2[])[0:x.indnkeyatts - 1]))
       order by x.indisprimary desc, x.indexrelid
       limit 1) as key
   cross join unnest(key.attnums) with ordinality as k(attnum, n)
    join pg_catalog.pg_attribute a on a.attrelid = key_of.source and a.attnum = k.attnum
$$;

-- The name of the pool that a table becomes: the given one, else the table's. Refused where pool or table is taken.
create or replace function work.free_pool_name(source regclass, given text)
returns text
language plpgsql
as $$
#variable_conflict use_column
declare
  pool_name text := coalesce(
    free_pool_name.given,
    (select case when n.nspname = 'public' then r.relname else n.nspname || '.' || r.relname end
       from pg_catalog.pg_class r join pg_catalog.pg_namespace n on n.oid = r.relnamespace
      where r.oid = free_pool_name.source));
  present text;
begin
  perform work.check_name('pool', pool_name);
  select p.name into present from public.work_pools p where p.source = free_pool_name.source and p.name <> pool_name;
  if found then
    perform work.refuse(
      'pool', pool_name, format('%s is attached as pool %s; detach_pool() lets it go', free_pool_name.source, present), 'PT409');
  end if;
  if pool_name = 'default' or exists (
    select from public.work_pools p join pg_catalog.pg_class r on r.oid = p.source
     where p.name = pool_name and p.source <> free_pool_name.source) then
    perform work.refuse(
      'pool', pool_name, 'another table is that pool; give this one another name, or let the other go with detach_pool()', 'PT409');
  end if;
  return pool_name;
end
$$;

-- Make the triggers that keep items in step with the rows of a table.
create or replace function work.make_mirror_triggers(source regclass)
returns void
language plpgsql
as $$
declare
  event text;
begin
  -- Names come from the catalog, quoted by it.
  foreach event in array array['insert', 'update', 'delete', 'truncate'] loop
    execute format(
      'create or replace trigger work_claims_mirror_%1$s after %1$s on %2$s %3$s for each statement execute function work.%4$s()',
      event, make_mirror_triggers.source,
      case event
        when 'insert' then 'referencing new table as new_rows'
        when 'update' then 'referencing old table as old_rows new table as new_rows'
        when 'delete' then 'referencing old table as old_rows'
      end,
      case event when 'delete' then 'mirror_deleted' when 'truncate' then 'mirror_truncated' else 'mirror_written' end);
  end loop;
end
$$;

-- Make a table a pool: rows that are written from here on become items, enroll_pool() takes in those that are there.
-- Attaching again changes the columns that are named: '{}' means all payload columns, '' no column.
-- The caller needs the right to create triggers on the table.
create or replace function public.attach_pool(
  source regclass,
  pool text default null,
  payload_columns text[] default null,
  priority_column text default null,
  run_after_column text default null,
  requires_column text default null,
  labels_column text default null,
  affinity_column text default null,
  workflow_column text default null
)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  pool_name text;
  key text[] := work.key_of(attach_pool.source);
  attached public.work_pools;
  faulty record;
begin
  perform work.check_source(attach_pool.source);
  pool_name := work.free_pool_name(attach_pool.source, attach_pool.pool);
  if key is null then
    perform work.refuse(
      'source', attach_pool.source::text, 'a table with a primary key was expected: alter table … add primary key (…)');
  end if;

  insert into public.work_pools (name) values (pool_name) on conflict do nothing;
  update public.work_pools p
     set source = attach_pool.source,
         key_columns = key,
         column_numbers = case when p.source = attach_pool.source then p.column_numbers end,
         payload_columns = nullif(coalesce(attach_pool.payload_columns, p.payload_columns), '{}'),
         priority_column = nullif(coalesce(attach_pool.priority_column, p.priority_column), ''),
         run_after_column = nullif(coalesce(attach_pool.run_after_column, p.run_after_column), ''),
         requires_column = nullif(coalesce(attach_pool.requires_column, p.requires_column), ''),
         labels_column = nullif(coalesce(attach_pool.labels_column, p.labels_column), ''),
         affinity_column = nullif(coalesce(attach_pool.affinity_column, p.affinity_column), ''),
         workflow_column = nullif(coalesce(attach_pool.workflow_column, p.workflow_column), ''),
         mirrored_through = null,
         is_mirrored = false
   where p.name = pool_name
  returning * into attached;

  select c.member || '_column' as argument, c.name, c.fault into faulty
    from work.pool_columns c
   where c.pool = pool_name and c.fault is not null
   order by c.member, c.n
   limit 1;
  if found then
    perform work.refuse(faulty.argument, faulty.name, faulty.fault);
  end if;
  update public.work_pools p
     set column_numbers = (select jsonb_object_agg(c.name, c.number) from work.pool_columns c where c.pool = p.name),
         key_is_uuid = (
           select array_agg(c.compared_as) = '{uuid}' from work.pool_columns c where c.pool = p.name and c.member = 'key'),
         paused_types = null
   where p.name = pool_name;

  -- All items are gone through anew. Work types that were paused because the pool's table was dropped go on.
  update public.work_types t
     set enrolled_through = 0,
         enroll_until = coalesce((select max(i.seq) from public.work_items i where i.pool = pool_name), 0),
         paused = t.paused and t.name <> all (coalesce(attached.paused_types, '{}'))
   where t.pool = pool_name;

  perform work.make_mirror_triggers(attach_pool.source);
  return jsonb_build_object('pool', attached.name, 'key', attached.key_columns);
end
$$;
comment on function public.attach_pool is
  'Makes a table a pool: rows that are written become items; enroll_pool() takes in those that are there. Attaching again changes the columns that are named.';

-- Let an attached table go. Its items and claims stay until they are deleted.
create or replace function public.detach_pool(pool text)
returns boolean
language plpgsql
as $$
#variable_conflict use_column
declare
  attached regclass;
  event text;
begin
  perform work.check_pool(detach_pool.pool);
  select p.source into attached from public.work_pools p where p.name = detach_pool.pool for no key update;
  if attached is null then
    return false;
  end if;
  if exists (select from pg_catalog.pg_class r where r.oid = attached) then
    foreach event in array array['insert', 'update', 'delete', 'truncate'] loop
      execute format('drop trigger if exists work_claims_mirror_%s on %s', event, attached);
    end loop;
  end if;
  update public.work_pools p
     set source = null, is_mirrored = true, stopped_at = null, paused_types = null
   where p.name = detach_pool.pool;
  return true;
end
$$;
comment on function public.detach_pool is
  'Lets an attached table go: its rows are not followed from here on. Its items and claims stay until you delete them.';

-- Pause the work types of pools whose table was dropped, once: no worker gets their items.
-- Attaching a table as the pool again ends the pause.
create or replace function work.close_dropped_pools()
returns void
language plpgsql
as $$
begin
  with dropped as (
    select p.name
      from public.work_pools p
     where p.paused_types is null and p.source is not null
       and not exists (select from pg_catalog.pg_class r where r.oid = p.source)
     order by p.name
       for no key update of p skip locked
  ),
  closed as (
    update public.work_pools p
       set stopped_at = coalesce(p.stopped_at, clock_timestamp()),
           paused_types = array(select t.name::text from public.work_types t where t.pool = p.name and not t.paused)
      from dropped d
     where p.name = d.name
    returning p.paused_types
  )
  update public.work_types t set paused = true from closed c where t.name = any (c.paused_types);
end
$$;
comment on function work.close_dropped_pools is 'Pauses the work types of pools whose table was dropped.';
