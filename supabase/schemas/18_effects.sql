-- Effects: a result reaches the person's own table inside of the release, so once.

-- Find the function that a work type applies to its results; refuse a name that is none.
create or replace function work.apply_function(name text)
returns regprocedure
language plpgsql
stable
as $$
declare
  found_function regprocedure := to_regprocedure(name || '(jsonb, jsonb)');
begin
  if found_function is null then
    perform work.refuse('apply', name,
      'a function (item jsonb, result jsonb) was expected, named with its schema, such as public.store_embedding');
  end if;
  return found_function;
end
$$;

-- Find the table and column that a work type writes its results to; refuse what is no column of its pool's table.
create or replace function work.check_into(declared public.work_types)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  attached public.work_pools;
  column_name text := substring(declared.into_column from '[^.]+$');
begin
  select * into attached from public.work_pools p where p.name = declared.pool and p.source is not null;
  if not found or to_regclass(left(declared.into_column, -1 - length(column_name))) is distinct from attached.source::oid
    and 'public.' || left(declared.into_column, -1 - length(column_name)) is distinct from (
      select n.nspname || '.' || r.relname from pg_catalog.pg_class r
        join pg_catalog.pg_namespace n on n.oid = r.relnamespace where r.oid = attached.source) then
    perform work.refuse('into_column', declared.into_column,
      format('a column of the table that pool %s is attached to was expected, such as documents.embedding', declared.pool));
  end if;
  if not exists (
    select from pg_catalog.pg_attribute a
     where a.attrelid = attached.source and a.attname = column_name and a.attnum > 0 and not a.attisdropped
       and a.attgenerated = '') then
    perform work.refuse('into_column', declared.into_column, format('%s has no such column', attached.source));
  end if;
  if column_name = any (coalesce(declared.input_columns, '{}') || attached.key_columns) then
    perform work.refuse('into_column', declared.into_column,
      'it is a key or an input of the same work type, which would set itself off; give the result a column of its own');
  end if;
end
$$;

-- Lock the rows that these results are written to, before any claim: a person's update locks the row first too.
create or replace function work.lock_rows(pool text, source_keys text[])
returns void
language plpgsql
security definer
as $$
begin
  execute format(
    'select from unnest($1) as g(key) cross join lateral (select from %s r where %s for no key update) as locked',
    (select p.source from public.work_pools p where p.name = pool), work.row_condition(pool))
    using array(select k.key from unnest(source_keys) as k(key) order by k.key);
end
$$;

-- The SQL that finds the row r of a source key g.key.
create or replace function work.row_condition(pool text)
returns text
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select case
             when count(*) = 1 then min(format('%s = any (array[g.key::%s])', c.value, c.compared_as))
             else string_agg(format('%s = any (array[(g.key::jsonb ->> %s)::%s])', c.value, c.n - 1, c.compared_as), ' and ' order by c.n)
           end
      from work.pool_columns c
     where c.pool = row_condition.pool and c.member = 'key');
end
$$;

-- Write results [{key, result}] into a column of the pool's table, each as the column's type reads it from JSON.
-- It runs as its owner: a worker's role needs no right on the table.
create or replace function work.write_results(pool text, into_column text, results jsonb)
returns void
language plpgsql
security definer
as $$
declare
  source regclass := (select p.source from public.work_pools p where p.name = pool);
  column_name text := substring(into_column from '[^.]+$');
begin
  execute format(
    'update %1$s r
        set %2$I = (jsonb_populate_record(null::%1$s, jsonb_build_object(%2$L, g.result))).%2$I
       from jsonb_to_recordset($1) as g(key text, result jsonb)
      where %3$s',
    source, column_name, work.row_condition(pool))
    using results;
end
$$;

-- Run the effects of results that are about to be stored: each is {item_id, work_type, fence, result}. A result of an input
-- that is no longer there has none. An error stops the release with its sentence, and the claims are still held.
create or replace function work.apply_results(held jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  result record;
  written record;
begin
  for written in
    select t.pool, t.into_column, jsonb_agg(jsonb_build_object('key', i.source_key, 'result', h.result)) as results
      from jsonb_to_recordset(held) as h(item_id uuid, work_type text collate "C", result jsonb)
      join public.work_types t on t.name = h.work_type
      join public.work_items i on i.id = any (array[h.item_id])
     where t.into_column is not null and i.source_key is not null
     group by t.pool, t.into_column
  loop
    perform work.write_results(written.pool, written.into_column, written.results);
  end loop;
  for result in
    select h.*, t.apply, i.pool, i.source_key, i.payload
      from jsonb_to_recordset(held) as h(item_id uuid, work_type text collate "C", fence bigint, result jsonb)
      join public.work_types t on t.name = h.work_type
      join public.work_items i on i.id = any (array[h.item_id])
     where t.apply is not null
     order by h.item_id, h.work_type
  loop
    execute format('select %s($1, $2)', work.apply_function(result.apply)::oid::regproc)
      using jsonb_build_object('id', result.item_id, 'work_type', result.work_type, 'fence', result.fence, 'pool', result.pool,
        'source_key', result.source_key, 'payload', result.payload), result.result;
  end loop;
exception
  -- The caller tries these again by itself.
  when deadlock_detected or lock_not_available or query_canceled then
    raise;
  when others then
    raise exception using errcode = 'PT422', message = format('the result was not applied: %s', sqlerrm);
end
$$;
