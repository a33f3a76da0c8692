-- Rows to items: the triggers on attached tables, and enroll_pool(), make the items match the rows.

-- Make the items of a pool match these rows of its table: {key, payload} and the members that the pool names columns for.
-- Answers how many items were added or changed.
create or replace function work.mirror_rows(pool public.work_pools, source_rows jsonb[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  new_ids uuid[] := work.new_ids(null, cardinality(mirror_rows.source_rows));
  class_ids integer[];
  too_large record;
  mirrored integer;
begin
  select left(r.item ->> 'key', 60) as key, pg_column_size(r.item -> 'payload') as bytes into too_large
    from unnest(mirror_rows.source_rows) as r(item)
   where pg_column_size(r.item -> 'payload') > 1048576
   limit 1;
  if found then
    raise exception using
      errcode = 'PT400',
      message = format('the row with key %s of pool %s has a payload of %s bytes; an item carries at most 1048576: attach fewer columns',
        too_large.key, mirror_rows.pool.name, too_large.bytes);
  end if;
  if num_nonnulls(mirror_rows.pool.requires_column, mirror_rows.pool.labels_column) > 0 then
    select work.classes_of(
             array_agg(coalesce(nullif(r.item -> 'requires', 'null'), '{}') order by r.n),
             array_agg(coalesce(nullif(r.item -> 'labels', 'null'), '{}') order by r.n),
             array_agg(format('the row with key %s of pool %s: ', left(r.item ->> 'key', 60), mirror_rows.pool.name) order by r.n))
      into class_ids
      from unnest(mirror_rows.source_rows) with ordinality as r(item, n);
  end if;
  if mirror_rows.pool.workflow_column is not null then
    perform work.intern_workflows(array_agg(left(nullif(r.item ->> 'workflow', ''), 200) order by r.n))
       from unnest(mirror_rows.source_rows) with ordinality as r(item, n);
  end if;

  -- The pool comes as a column: as a constant, the planner may read all items of the pool for each row.
  with mirrored as materialized (
    select r.n, mirror_rows.pool.name as pool, r.item ->> 'key' as source_key, r.item -> 'payload' as payload,
           greatest(-1000000, least(1000000, round(coalesce((r.item ->> 'priority')::numeric, 0))))::integer as priority,
           nullif((r.item ->> 'run_after')::timestamptz, '-infinity') as run_after,
           coalesce(class_ids[r.n], 1) as class_id,
           left(nullif(r.item ->> 'affinity', ''), 200) as affinity,
           (select w.id from public.work_workflows w
             where w.name = left(nullif(r.item ->> 'workflow', ''), 200)) as workflow_id
      from unnest(mirror_rows.source_rows) with ordinality as r(item, n)
  ),
  -- Leave out a row that changes nothing: on conflict would lock its item.
  changed as materialized (
    select m.*
      from mirrored m
     where not exists (
       select from public.work_items i
        where i.pool = any (array[m.pool]) and i.source_key = any (array[m.source_key])
          and (i.payload, i.priority, i.run_after, i.class_id, i.affinity, i.workflow_id)
                is not distinct from (m.payload, m.priority, m.run_after, m.class_id, m.affinity, m.workflow_id))
  )
  -- A uuid key is the item's id, unless another item has that id.
  insert into public.work_items (id, pool, source_key, payload, priority, run_after, class_id, affinity, workflow_id)
  select case
           when not mirror_rows.pool.key_is_uuid then new_ids[c.n]
           when exists (select from public.work_items i where i.id = c.source_key::uuid) then new_ids[c.n]
           else c.source_key::uuid
         end,
         c.pool, c.source_key, c.payload, c.priority, c.run_after, c.class_id, c.affinity, c.workflow_id
    from changed c
   order by c.n
  on conflict (pool, source_key) where source_key is not null do update
     set payload = excluded.payload, priority = excluded.priority, run_after = excluded.run_after,
         class_id = excluded.class_id, affinity = excluded.affinity, workflow_id = excluded.workflow_id;
  get diagnostics mirrored = row_count;
  return mirrored;
end
$$;
comment on function work.mirror_rows is 'Makes the items of a pool match these rows of its table; answers how many were added or changed.';

-- Delete the items of rows that are gone. All is locked in the order that other calls have: items, workflows, claims by
-- key. The delete alone would lock item by item, each before its claims, and deadlock with a release of two of them.
create or replace function work.delete_mirrored(pool text, source_keys text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  gone uuid[];
begin
  with given as materialized (
    select delete_mirrored.pool as pool, u.source_key from unnest(delete_mirrored.source_keys) as u(source_key)
  )
  select coalesce(array_agg(i.id), '{}') into gone
    from given g
    join public.work_items i on i.pool = any (array[g.pool]) and i.source_key = any (array[g.source_key]);
  -- Not for update yet: a worker that holds a claim may have to look at its item.
  perform from (select u.id from unnest(gone) as u(id) order by u.id) as u
    cross join lateral (select from public.work_items i where i.id = any (array[u.id]) for no key update) as locked;
  perform work.lock_workflows(array(
    select distinct w.id
      from unnest(gone) as u(id)
      join public.work_items i on i.id = any (array[u.id])
      join public.work_workflows w on w.id = i.workflow_id
     where w.is_gathered));
  perform from (
      select c.item_id, c.work_type from unnest(gone) as u(id) join public.work_claims c on c.item_id = any (array[u.id])
       union
      select d.item_id, d.work_type from unnest(gone) as u(id) join public.work_dependencies d on d.needs_item_id = any (array[u.id])
       order by 1, 2) as k
   cross join lateral (
     select from public.work_claims c where c.item_id = any (array[k.item_id]) and c.work_type = k.work_type for update) as locked;
  delete from public.work_items i using unnest(gone) as u(id) where i.id = any (array[u.id]);
end
$$;

-- A row could not be read, since a column is gone: enroll_pool() has to go through all rows again.
create or replace function work.note_missed_rows(pool text)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  update public.work_pools p
     set stopped_at = coalesce(p.stopped_at, clock_timestamp()), is_mirrored = false, mirrored_through = null
   where p.name = note_missed_rows.pool
     and (p.stopped_at is null or p.is_mirrored or p.mirrored_through is not null);
end
$$;

-- The triggers run as their owner: a role that writes to the attached table needs no right on work-claims.
-- Their settings write times in UTC, so that a key is the same text in every session.
create or replace function work.mirror_written()
returns trigger
language plpgsql
security definer
as $$
#variable_conflict use_variable
declare
  attached public.work_pools;
  key_sql text;
  row_sql text;
  gone text[];
  page jsonb[];
begin
  select * into attached from public.work_pools p where p.source = tg_relid;
  if not found then
    return null;
  end if;
  key_sql := work.key_sql(attached.name);
  row_sql := work.row_sql(attached.name);
  -- A row with a changed key is another item.
  if tg_op = 'UPDATE' and key_sql is not null then
    execute format(
      'select array(select %1$s #>> ''{}'' from old_rows r except select %1$s #>> ''{}'' from new_rows r)', key_sql)
      into gone;
    if gone <> '{}' then
      perform work.delete_mirrored(attached.name, gone);
    end if;
  end if;
  if row_sql is null then
    perform work.note_missed_rows(attached.name);
    return null;
  end if;
  -- In pages, since a statement may write millions of rows.
  for page in execute format(
    'select array_agg(numbered.item order by numbered.row_number)
       from (select %s as item, row_number() over () as row_number from new_rows r) as numbered
      group by numbered.row_number / 1000
      order by numbered.row_number / 1000', row_sql)
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
  pool_name text;
  key_sql text;
  gone text[];
begin
  select p.name into pool_name from public.work_pools p where p.source = tg_relid;
  if not found then
    return null;
  end if;
  key_sql := work.key_sql(pool_name);
  if key_sql is null then
    perform work.note_missed_rows(pool_name);
    return null;
  end if;
  execute format('select array(select %s #>> ''{}'' from old_rows r)', key_sql) into gone;
  perform work.delete_mirrored(pool_name, gone);
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
