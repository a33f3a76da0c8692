-- Effects: a result reaches the person's own table inside of the release, so once.

-- Find the function that a work type applies to its results; refuse a name that is none.
create or replace function work.apply_function(name text)
returns regprocedure
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  found_function regprocedure;
begin
  begin
    found_function := to_regprocedure(apply_function.name || '(jsonb, jsonb)');
  exception when invalid_name or invalid_text_representation or syntax_error or feature_not_supported then
    null; -- The text is no name: this is what Postgres 15 raises.
  end;
  if found_function is null or not exists (
    select from pg_catalog.pg_proc p where p.oid = found_function and p.prokind = 'f') then
    perform work.refuse('apply', apply_function.name,
      'a function (item jsonb, result jsonb) was expected, named with its schema, such as public.store_embedding');
  end if;
  return found_function;
end
$$;

-- The name of the column that 'table.column' names, of this table: with or without the schema, with or without quotes.
-- Null where it names none.
create or replace function work.column_of(source regclass, named text)
returns text
language sql
stable
as $$
  select a.attname::text
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_class r on r.oid = a.attrelid
    join pg_catalog.pg_namespace n on n.oid = r.relnamespace
   where a.attrelid = column_of.source and a.attnum > 0 and not a.attisdropped
     and column_of.named in (
       format('%s.%s', r.relname, a.attname), format('%s.%s.%s', n.nspname, r.relname, a.attname),
       format('%I.%I', r.relname, a.attname), format('%I.%I.%I', n.nspname, r.relname, a.attname))
   limit 1
$$;

-- The columns of a pool's table that results are written to.
create or replace function work.written_columns(pool text)
returns text[]
language sql
stable
as $$
  select array_agg(work.column_of(p.source, t.into_column))
    from public.work_types t
    join public.work_pools p on p.name = t.pool
   where t.pool = written_columns.pool and t.into_column is not null
$$;

-- Refuse a column for results that is no column of the pool's table, or that no result can be written to.
create or replace function work.check_into(declared public.work_types)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  attached public.work_pools;
  column_name text;
begin
  select * into attached from public.work_pools p where p.name = declared.pool and p.source is not null;
  column_name := work.column_of(attached.source, declared.into_column);
  if column_name is null then
    perform work.refuse('into_column', declared.into_column, case
      when attached.source is null then 'a column of an attached table was expected, and its pool is attached to none'
      else format('a column of the table %s was expected, such as documents.embedding', attached.source) end);
  end if;
  if exists (
    select from pg_catalog.pg_attribute a
     where a.attrelid = attached.source and a.attname = column_name and (a.attgenerated <> '' or a.attidentity = 'a')) then
    perform work.refuse('into_column', declared.into_column, 'Postgres makes its values; a column that can be written to was expected');
  end if;
  if column_name = any (coalesce(declared.input_columns, '{}') || attached.key_columns) then
    perform work.refuse('into_column', declared.into_column,
      'it is a key or an input of the same work type, which would set itself off; give the result a column of its own');
  end if;
end
$$;

-- The SQL that finds the row r of a source key g.key; null where the pool has no table, or a key column is gone.
create or replace function work.row_condition(pool text)
returns text
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select case
             when bool_or(c.fault is not null) then null
             when count(*) = 1 then min(format('%s = any (array[g.key::%s])', c.value, c.compared_as))
             else string_agg(format('%s = any (array[(g.key::jsonb ->> %s)::%s])', c.value, c.n - 1, c.compared_as), ' and ' order by c.n)
           end
      from work.pool_columns c
     where c.pool = row_condition.pool and c.member = 'key');
end
$$;

-- Lock the rows that these results are written to, before any claim: a person's update locks the row first too.
create or replace function work.lock_rows(pool text, source_keys text[])
returns void
language plpgsql
security definer
as $$
#variable_conflict use_column
declare
  condition text := work.row_condition(lock_rows.pool);
begin
  if condition is not null then
    execute format(
      'select from unnest($1) as g(key) cross join lateral (select from %s r where %s for no key update) as locked',
      (select p.source from public.work_pools p where p.name = lock_rows.pool), condition)
      using array(select k.key from unnest(lock_rows.source_keys) as k(key) order by k.key);
  end if;
end
$$;

-- Write results [{key, result}] into the column that their work type names, each as the column's type reads it from JSON.
-- It runs as its owner: a worker's role needs no right on the table. A row that is gone is passed over.
create or replace function work.write_results(work_type text, results jsonb)
returns void
language plpgsql
security definer
as $$
#variable_conflict use_column
declare
  condition text;
  written record;
begin
  select t.pool, t.into_column, p.source, a.attname, format_type(a.atttypid, a.atttypmod) as type
    into written
    from public.work_types t
    join public.work_pools p on p.name = t.pool
    left join pg_catalog.pg_attribute a on a.attrelid = p.source and a.attname = work.column_of(p.source, t.into_column)
   where t.name = write_results.work_type;
  condition := work.row_condition(written.pool);
  if condition is null or written.attname is null then
    raise exception using errcode = 'PT422', message = format('pool %s has no table with the column %s and the key that its items have; %s',
      written.pool, written.into_column, 'mend the table, or name another column with define_work_type()');
  end if;
  execute format(
    'update %s r set %I = g.result from jsonb_to_recordset($1) as g(key text, result %s) where %s',
    written.source, written.attname, written.type, condition)
    using write_results.results;
end
$$;

-- Call the person's function with one result. Its settings are those of a session, not those of our functions.
create or replace function work.call_apply(function regprocedure, item jsonb, result jsonb)
returns void
language plpgsql
as $$
begin
  execute format('select %s($1, $2)', function::oid::regproc) using item, result;
end
$$;

-- Run the effects of results that are about to be stored: each is {item_id, work_type, fence, result}. An error stops the
-- release with its sentence, and the claims are still held.
create or replace function work.apply_results(held jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  perform work.write_results(w.work_type, w.results)
     from (select h.work_type, jsonb_agg(jsonb_build_object('key', i.source_key, 'result', h.result)) as results
             from jsonb_to_recordset(apply_results.held) as h(item_id uuid, work_type text collate "C", result jsonb)
             join public.work_types t on t.name = h.work_type
             join public.work_items i on i.id = any (array[h.item_id])
            where t.into_column is not null and i.source_key is not null
            group by h.work_type
            order by h.work_type) as w;
  perform work.call_apply(work.apply_function(a.apply), a.item, a.result)
     from (select t.apply, h.result,
                  jsonb_build_object('id', h.item_id, 'work_type', h.work_type, 'fence', h.fence, 'pool', i.pool,
                    'source_key', i.source_key, 'payload', i.payload) as item
             from jsonb_to_recordset(apply_results.held) as h(item_id uuid, work_type text collate "C", fence bigint, result jsonb)
             join public.work_types t on t.name = h.work_type
             join public.work_items i on i.id = any (array[h.item_id])
            where t.apply is not null
            order by h.item_id, h.work_type) as a;
exception
  -- These pass: the caller tries them again by itself.
  when deadlock_detected or lock_not_available or query_canceled or insufficient_resources then
    raise;
  when others then
    raise exception using errcode = 'PT422', message = format('the result was not applied: %s', sqlerrm);
end
$$;
