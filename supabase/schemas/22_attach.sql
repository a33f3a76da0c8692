-- Attached tables: their rows are items, kept in step by triggers, in bulk.

-- The key of a row as text: the value of a single column, or a JSON array of several.
create or replace function work.source_key(pool public.work_pools, source_row jsonb)
returns text
language sql
immutable
as $$
  select case when cardinality(pool.key_columns) = 1 then source_row ->> pool.key_columns[1]
    else (select jsonb_agg(source_row -> k.name order by k.n) from unnest(pool.key_columns) with ordinality as k(name, n))::text
  end
$$;

-- The pool that a table is attached as, its key's columns by their present names; nothing where it is not attached.
create or replace function work.pool_of(source oid)
returns public.work_pools
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  attached public.work_pools;
begin
  select * into attached from public.work_pools p where p.source = pool_of.source;
  if found then
    attached.key_columns := array(
      select a.attname::text
        from unnest(attached.key_attnums) with ordinality as k(attnum, n)
        join pg_catalog.pg_attribute a on a.attrelid = pool_of.source and a.attnum = k.attnum and not a.attisdropped
       order by k.n);
    if cardinality(attached.key_columns) < cardinality(attached.key_attnums) then
      perform work.refuse(
        'pool', attached.name,
        format('a key column of %s is gone: call attach_pool() again, or detach_pool()', attached.source), 'PT409');
    end if;
  end if;
  return attached;
end
$$;

-- The SQL that makes JSON of a row r of the attached table: of the columns that an item needs, or of the key's alone.
-- Other columns are not looked at: what JSON cannot hold in them must not stop a write to the table. Names come from
-- the catalog, quoted.
create or replace function work.row_as_json(pool public.work_pools, is_key_only boolean)
returns text
language plpgsql
stable
as $$
begin
  if pool.payload_columns is null and not is_key_only then
    return 'to_jsonb(r.*)';
  end if;
  return (
    select format('(select to_jsonb(c.*) from (select %s) as c)', string_agg(format('r.%I', a.attname), ', '))
      from pg_catalog.pg_attribute a
     where a.attrelid = pool.source and a.attnum > 0 and not a.attisdropped
       and (a.attname = any (pool.key_columns)
         or (not is_key_only
           and (a.attname = any (pool.payload_columns) or a.attname in (
             pool.priority_column, pool.run_after_column, pool.requires_column, pool.labels_column,
             pool.affinity_column, pool.workflow_column)))));
end
$$;

-- What workers are told of a row.
create or replace function work.payload_of(pool public.work_pools, source_row jsonb)
returns jsonb
language plpgsql
immutable
as $$
declare
  payload jsonb := source_row;
begin
  if pool.payload_columns is not null then
    payload := coalesce(
      (select jsonb_object_agg(k.name, source_row -> k.name) from unnest(pool.payload_columns) as k(name)), '{}');
  end if;
  if pg_column_size(payload) > 1048576 then
    raise exception using
      errcode = 'PT400',
      message = format('the row with key %s of pool %s has a payload of %s bytes; an item carries at most 1048576: attach fewer columns',
        left(work.source_key(pool, source_row), 60), pool.name, pg_column_size(payload));
  end if;
  return payload;
end
$$;

-- Make the items of a pool match these rows: changed ones are updated, missing ones added. The answer is how many
-- were added.
create or replace function work.mirror_rows(pool public.work_pools, source_rows jsonb[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  added integer;
  ids uuid[];
  class_ids integer[];
begin
  if mirror_rows.pool.requires_column is not null or mirror_rows.pool.labels_column is not null then
    select work.classes_of(
             array_agg(coalesce(nullif(r.source_row -> mirror_rows.pool.requires_column, 'null'), '{}') order by r.n),
             array_agg(coalesce(nullif(r.source_row -> mirror_rows.pool.labels_column, 'null'), '{}') order by r.n),
             array_agg(format('the row with key %s of pool %s: ',
               left(work.source_key(mirror_rows.pool, r.source_row), 60), mirror_rows.pool.name) order by r.n))
      into class_ids
      from unnest(mirror_rows.source_rows) with ordinality as r(source_row, n);
  end if;
  if mirror_rows.pool.workflow_column is not null then
    perform work.intern_workflows(array_agg(left(nullif(r.source_row ->> mirror_rows.pool.workflow_column, ''), 200)))
       from unnest(mirror_rows.source_rows) as r(source_row);
  end if;

  if not mirror_rows.pool.key_is_uuid then
    ids := work.new_ids(null, cardinality(mirror_rows.source_rows));
  end if;
  -- The pool comes as a column, so that each row's item is looked up by pool and key, and never by the pool alone.
  with mirrored as materialized (
    select r.n, mirror_rows.pool.name as pool, work.source_key(mirror_rows.pool, r.source_row) as source_key,
           work.payload_of(mirror_rows.pool, r.source_row) as payload,
           greatest(-1000000, least(1000000, round(coalesce(
             (r.source_row ->> mirror_rows.pool.priority_column)::numeric, 0))))::integer as priority,
           nullif((r.source_row ->> mirror_rows.pool.run_after_column)::timestamptz, '-infinity') as run_after,
           coalesce(class_ids[r.n], 1) as class_id,
           left(nullif(r.source_row ->> mirror_rows.pool.affinity_column, ''), 200) as affinity,
           (select w.id from public.work_workflows w
             where w.name = left(nullif(r.source_row ->> mirror_rows.pool.workflow_column, ''), 200)) as workflow_id
      from unnest(mirror_rows.source_rows) with ordinality as r(source_row, n)
  ),
  changed as (
    update public.work_items i
       set payload = m.payload, priority = m.priority, run_after = m.run_after,
           class_id = m.class_id, affinity = m.affinity, workflow_id = m.workflow_id
      from mirrored m
     where i.pool = any (array[m.pool]) and i.source_key = any (array[m.source_key])
       and (i.payload, i.priority, i.run_after, i.class_id, i.affinity, i.workflow_id)
             is distinct from (m.payload, m.priority, m.run_after, m.class_id, m.affinity, m.workflow_id)
  ),
  new_items as (
    -- A uuid key is the item's id, unless an item of another pool has that id.
    insert into public.work_items
      (id, pool, source_key, payload, priority, run_after, class_id, affinity, workflow_id)
    select case when mirror_rows.pool.key_is_uuid and taken.id is null then m.source_key::uuid
                else coalesce(ids[m.n], gen_random_uuid()) end,
           m.pool, m.source_key, m.payload, m.priority, m.run_after, m.class_id, m.affinity, m.workflow_id
      from mirrored m
      left join lateral (
        select i.id from public.work_items i where i.pool = m.pool and i.source_key = m.source_key
         limit 1) as present on true
      left join lateral (
        select i.id from public.work_items i
         where mirror_rows.pool.key_is_uuid
           and i.id = case when mirror_rows.pool.key_is_uuid then m.source_key::uuid end
         limit 1) as taken on true
     where present.id is null
     order by m.n
    on conflict (pool, source_key) where source_key is not null do update
       set payload = excluded.payload, priority = excluded.priority, run_after = excluded.run_after,
           class_id = excluded.class_id, affinity = excluded.affinity, workflow_id = excluded.workflow_id
    returning 1
  )
  select count(*) into added from new_items;
  return added;
end
$$;
comment on function work.mirror_rows is 'Makes the items of a pool match these rows of its table; answers how many were added.';

-- The triggers run as their owner: who may write to the attached table need not know of work-claims.
-- They go through the rows in pages, since a statement may touch millions. Times are written in UTC, since a key is
-- one text for everyone.
create or replace function work.mirror_written()
returns trigger
language plpgsql
security definer
as $$
#variable_conflict use_variable
declare
  attached public.work_pools;
  page jsonb[];
begin
  attached := work.pool_of(tg_relid);
  if attached.name is null then
    return null;
  end if;
  -- A row whose key changed is another item.
  if tg_op = 'UPDATE' then
    execute format(
      'delete from public.work_items i
        using (
          select $1 as pool, work.source_key($2, %1$s) as source_key from old_rows r
          except
          select $1, work.source_key($2, %1$s) from new_rows r) as gone
        where i.pool = any (array[gone.pool]) and i.source_key = any (array[gone.source_key])',
      work.row_as_json(attached, true))
      using attached.name, attached;
  end if;
  for page in execute format(
    'select array_agg(numbered.source_row order by numbered.row_number)
       from (select %s as source_row, row_number() over () as row_number from new_rows r) as numbered
      group by numbered.row_number / 1000
      order by numbered.row_number / 1000',
    work.row_as_json(attached, false))
  loop
    perform work.mirror_rows(attached, page);
  end loop;
  return null;
end
$$;

create or replace function work.mirror_deleted()
returns trigger
language plpgsql
security definer
as $$
#variable_conflict use_variable
declare
  attached public.work_pools;
begin
  attached := work.pool_of(tg_relid);
  if attached.name is null then
    return null;
  end if;
  -- Materialized: a pool that the planner saw as a constant, and that statistics do not know yet, would be walked whole
  -- for each row.
  execute format(
    'with gone as materialized (select $1 as pool, work.source_key($2, %s) as source_key from old_rows r)
     delete from public.work_items i using gone
      where i.pool = any (array[gone.pool]) and i.source_key = any (array[gone.source_key])',
    work.row_as_json(attached, true))
    using attached.name, attached;
  return null;
end
$$;

create or replace function work.mirror_truncated()
returns trigger
language plpgsql
security definer
as $$
begin
  delete from public.work_items i
   using public.work_pools p
   where p.source = tg_relid and i.pool = p.name and i.source_key is not null;
  return null;
end
$$;

-- Turn a table into a pool: from now on its rows are items. enroll_pool() takes in the rows that are there. Attaching
-- it again changes the columns that are named (an empty list of payload columns stands for all), and goes through all
-- rows anew. The caller needs the right to create triggers on the table.
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
  key_columns text[];
  key_attnums int2[];
  key_types oid[];
  missing text;
  ill_typed record;
  attached public.work_pools;
begin
  if attach_pool.source is null then
    perform work.refuse('source', null, 'the name of a table was expected');
  end if;
  if (select r.relkind not in ('r', 'p') or r.relnamespace = 'work'::regnamespace
             or (r.relnamespace = 'public'::regnamespace and r.relname in (
                  'work_pools', 'work_items', 'work_claims', 'work_types', 'work_workers', 'work_events',
                  'work_classes', 'work_workflows'))
        from pg_catalog.pg_class r where r.oid = attach_pool.source) then
    perform work.refuse('source', attach_pool.source::text, 'a table of your own was expected');
  end if;
  if exists (select from pg_catalog.pg_inherits h where h.inhrelid = attach_pool.source) then
    perform work.refuse(
      'source', attach_pool.source::text,
      'a partition or child table is not attached by itself: attach its parent, and write through that');
  end if;

  -- The primary key, or else a unique index on columns that cannot be null.
  select array_agg(a.attname::text order by k.n), array_agg(a.attnum order by k.n), array_agg(a.atttypid order by k.n)
    into key_columns, key_attnums, key_types
    from (select x.indexrelid, x.indrelid, x.indkey
            from pg_catalog.pg_index x
           where x.indrelid = attach_pool.source and x.indisunique and x.indisvalid
             and x.indpred is null and x.indexprs is null
             and not exists (
               select from unnest((x.indkey::int2[])[0:x.indnkeyatts - 1]) as c(attnum)
                 join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = c.attnum
                where not a.attnotnull)
           order by x.indisprimary desc, x.indexrelid
           limit 1) as key
   cross join lateral unnest((key.indkey::int2[])[0:(
           select i.indnkeyatts - 1 from pg_catalog.pg_index i where i.indexrelid = key.indexrelid)])
           with ordinality as k(attnum, n)
    join pg_catalog.pg_attribute a on a.attrelid = key.indrelid and a.attnum = k.attnum;
  if key_columns is null then
    perform work.refuse(
      'source', attach_pool.source::text,
      'a table with a primary key was expected: alter table … add primary key (…)');
  end if;

  if exists (
    select from pg_catalog.pg_type t where t.oid = any (key_types) and (t.typcategory in ('A', 'C') or t.typname = 'bytea')) then
    perform work.refuse(
      'source', attach_pool.source::text, 'a key of numbers, texts, uuids or times was expected, not of arrays or bytes');
  end if;

  select c.name into missing
    from unnest(
           attach_pool.payload_columns || array[
             attach_pool.priority_column, attach_pool.run_after_column, attach_pool.requires_column,
             attach_pool.labels_column, attach_pool.affinity_column, attach_pool.workflow_column]) as c(name)
   where c.name is not null
     and not exists (
       select from pg_catalog.pg_attribute a
        where a.attrelid = attach_pool.source and a.attname = c.name and a.attnum > 0 and not a.attisdropped)
   limit 1;
  if missing is not null then
    perform work.refuse('column', missing, format('%s has no such column', attach_pool.source));
  end if;
  if attach_pool.priority_column is not null and not exists (
    select from pg_catalog.pg_attribute a
     where a.attrelid = attach_pool.source and a.attname = attach_pool.priority_column
       and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'float4'::regtype, 'float8'::regtype)) then
    perform work.refuse('priority_column', attach_pool.priority_column, 'a column of numbers was expected');
  end if;
  if attach_pool.run_after_column is not null and not exists (
    select from pg_catalog.pg_attribute a
     where a.attrelid = attach_pool.source and a.attname = attach_pool.run_after_column
       and a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)) then
    perform work.refuse('run_after_column', attach_pool.run_after_column, 'a column of times was expected');
  end if;

  for ill_typed in
    select c.argument, c.name
      from (values ('requires_column', attach_pool.requires_column), ('labels_column', attach_pool.labels_column)) as c(argument, name)
     where c.name is not null
       and not exists (
         select from pg_catalog.pg_attribute a
          where a.attrelid = attach_pool.source and a.attname = c.name and a.atttypid in ('jsonb'::regtype, 'json'::regtype))
  loop
    perform work.refuse(ill_typed.argument, ill_typed.name, 'a column of type jsonb was expected');
  end loop;

  select coalesce(attach_pool.pool, case when n.nspname = 'public' then r.relname::text else n.nspname || '.' || r.relname end)
    into pool_name
    from pg_catalog.pg_class r join pg_catalog.pg_namespace n on n.oid = r.relnamespace
   where r.oid = attach_pool.source;
  perform work.check_name('pool', pool_name);
  if exists (select from public.work_pools p where p.source = attach_pool.source and p.name <> pool_name) then
    perform work.refuse(
      'pool', pool_name,
      format('%s is attached as pool %s already; detach_pool() lets it go', attach_pool.source,
        (select p.name from public.work_pools p where p.source = attach_pool.source)),
      'PT409');
  end if;
  if exists (select from public.work_pools p
              where p.name = pool_name
                and (p.name = 'default'
                  or (p.source <> attach_pool.source
                    and exists (select from pg_catalog.pg_class r where r.oid = p.source)))) then
    perform work.refuse(
      'pool', pool_name, 'another table is that pool; give this one another name, or let the other go with detach_pool()',
      'PT409');
  end if;

  insert into public.work_pools as p
    (name, source, key_columns, key_attnums, key_is_uuid, payload_columns, priority_column, run_after_column,
     requires_column, labels_column, affinity_column, workflow_column, is_mirrored)
  values
    (pool_name, attach_pool.source, key_columns, key_attnums, key_types = array['uuid'::regtype::oid],
     nullif(attach_pool.payload_columns, '{}'), attach_pool.priority_column,
     attach_pool.run_after_column, attach_pool.requires_column, attach_pool.labels_column,
     attach_pool.affinity_column, attach_pool.workflow_column, false)
  on conflict (name) do update
     set source = excluded.source,
         key_columns = excluded.key_columns,
         key_attnums = excluded.key_attnums,
         key_is_uuid = excluded.key_is_uuid,
         payload_columns = case when attach_pool.payload_columns is null then p.payload_columns else excluded.payload_columns end,
         priority_column = coalesce(excluded.priority_column, p.priority_column),
         run_after_column = coalesce(excluded.run_after_column, p.run_after_column),
         requires_column = coalesce(excluded.requires_column, p.requires_column),
         labels_column = coalesce(excluded.labels_column, p.labels_column),
         affinity_column = coalesce(excluded.affinity_column, p.affinity_column),
         workflow_column = coalesce(excluded.workflow_column, p.workflow_column),
         mirrored_through = null,
         is_mirrored = false
  returning * into attached;

  -- Attached again, it is gone through from the beginning: rows and items that were missed are taken in.
  update public.work_types t
     set enrolled_through = 0,
         enroll_until = coalesce((select max(i.seq) from public.work_items i where i.pool = pool_name), 0)
   where t.pool = pool_name;

  -- Names come from the catalog, quoted by it.
  execute format(
    'create or replace trigger work_claims_mirror_insert after insert on %s referencing new table as new_rows '
    'for each statement execute function work.mirror_written()', attach_pool.source);
  execute format(
    'create or replace trigger work_claims_mirror_update after update on %s referencing old table as old_rows '
    'new table as new_rows for each statement execute function work.mirror_written()', attach_pool.source);
  execute format(
    'create or replace trigger work_claims_mirror_delete after delete on %s referencing old table as old_rows '
    'for each statement execute function work.mirror_deleted()', attach_pool.source);
  execute format(
    'create or replace trigger work_claims_mirror_truncate after truncate on %s '
    'for each statement execute function work.mirror_truncated()', attach_pool.source);
  return jsonb_build_object('pool', attached.name, 'key', attached.key_columns);
end
$$;
comment on function public.attach_pool is
  'Turns a table into a pool: its rows become items and stay in step from now on; enroll_pool() takes in those that are there. Attaching again changes the columns that are named.';

-- Let an attached table go. Its items and claims stay until they are deleted.
create or replace function public.detach_pool(pool text)
returns boolean
language plpgsql
as $$
#variable_conflict use_column
declare
  attached regclass;
begin
  perform work.check_pool(detach_pool.pool);
  select p.source into attached from public.work_pools p where p.name = detach_pool.pool;
  if attached is null then
    return false;
  end if;
  if exists (select from pg_catalog.pg_class r where r.oid = attached) then
    execute format('drop trigger if exists work_claims_mirror_insert on %s', attached);
    execute format('drop trigger if exists work_claims_mirror_update on %s', attached);
    execute format('drop trigger if exists work_claims_mirror_delete on %s', attached);
    execute format('drop trigger if exists work_claims_mirror_truncate on %s', attached);
  end if;
  update public.work_pools p set source = null, is_mirrored = true where p.name = detach_pool.pool;
  return true;
end
$$;
comment on function public.detach_pool is
  'Lets an attached table go: its rows are followed no longer. Its items and claims stay until you delete them.';

-- Take in what was there before: rows of the attached table become items, items are enrolled for the pool's work types.
-- One bounded step a call; repeat it until the answer says done.
create or replace function public.enroll_pool(pool text, max_items integer default 10000)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  entered public.work_pools;
  declared record;
  keys text;
  cursor_values text;
  page jsonb[];
  item_ids uuid[];
  through bigint;
  page_size integer;
  step integer;
  mirrored integer := 0;
  enrolled integer := 0;
  is_done boolean := true;
begin
  perform work.check_pool(enroll_pool.pool);
  if enroll_pool.max_items is null or enroll_pool.max_items not between 1 and 100000 then
    perform work.refuse('max_items', enroll_pool.max_items::text, 'expected 1 to 100000');
  end if;
  select * into entered from public.work_pools p where p.name = enroll_pool.pool for no key update;

  if not entered.is_mirrored then
    if not exists (
      select from pg_catalog.pg_trigger t
       where t.tgrelid = entered.source and t.tgfoid = 'work.mirror_written'::regproc) then
      perform work.refuse(
        'pool', entered.name, 'its table is gone or was never attached: call attach_pool() again, or detach_pool()', 'PT409');
    end if;
    entered := work.pool_of(entered.source);
    select string_agg(format('r.%I', a.attname), ', ' order by k.n),
           string_agg(format('($1 ->> %s)::%s', k.n - 1, format_type(a.atttypid, a.atttypmod)), ', ' order by k.n)
      into keys, cursor_values
      from unnest(entered.key_attnums) with ordinality as k(attnum, n)
      join pg_catalog.pg_attribute a on a.attrelid = entered.source and a.attnum = k.attnum;
    -- The rows are locked against change, so that none is mirrored older than its own trigger has done. Names and
    -- types come from the catalog, quoted by it.
    execute format(
      'select array(select %s from (select * from %s r %s order by %s limit $2 for share) as r)',
      work.row_as_json(entered, false),
      entered.source,
      case when entered.mirrored_through is null then '' else format('where (%s) > (%s)', keys, cursor_values) end,
      keys)
      into page using entered.mirrored_through, enroll_pool.max_items;
    page_size := cardinality(page);
    if page_size > 0 then
      mirrored := work.mirror_rows(entered, page);
      update public.work_pools p
         set mirrored_through = (
               select jsonb_agg(page[page_size] -> k.name order by k.n)
                 from unnest(entered.key_columns) with ordinality as k(name, n))
       where p.name = entered.name;
    end if;
    if page_size < enroll_pool.max_items then
      update public.work_pools p set is_mirrored = true, mirrored_through = null where p.name = entered.name;
    end if;
    is_done := page_size < enroll_pool.max_items;
  end if;

  for declared in
    select t.name, t.enrolled_through, t.enroll_until from public.work_types t
     where t.pool = enroll_pool.pool and t.enrolled_through < t.enroll_until
     order by t.name for no key update
  loop
    -- Items and workflows are locked against change, and read by a statement of its own.
    item_ids := array(
      select i.id
        from public.work_items i
       where i.pool = enroll_pool.pool and i.seq > declared.enrolled_through and i.seq <= declared.enroll_until
       order by i.seq
       limit enroll_pool.max_items
         for share);
    step := work.enroll(item_ids, array[declared.name]);
    page_size := cardinality(item_ids);
    through := (select i.seq from public.work_items i where i.id = item_ids[page_size]);
    enrolled := enrolled + step;
    is_done := is_done and page_size < enroll_pool.max_items;
    update public.work_types t
       set enrolled_through = case when page_size < enroll_pool.max_items then declared.enroll_until else through end
     where t.name = declared.name;
  end loop;
  return jsonb_build_object('mirrored', mirrored, 'enrolled', enrolled, 'done', is_done);
end
$$;
comment on function public.enroll_pool is
  'Takes in what was there before, one bounded step a call: rows of the attached table become items, items get claims for the pool''s work types. Repeat it until done is true.';
