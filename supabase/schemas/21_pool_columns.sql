-- The columns that an attached pool names, found in its table, and pools whose table no longer fits.

-- Each named column with the SQL that reads it from a row r: the column of that name, else, if it was renamed, of its number.
-- A fault says why rows cannot be read.
create or replace view work.pool_columns with (security_invoker = true) as
select p.name as pool, c.member, c.n, c.name, a.attnum as number, 'r.' || quote_ident(a.attname) as value,
       -- A type of an extension is compared as text: its own operators are not in the search_path of our functions.
       case when t.typtype = 'b' and t.typnamespace <> 'pg_catalog'::regnamespace then 'text'
            else format_type(a.atttypid, a.atttypmod) end as compared_as,
       case
         when a.attnum is null then format('%s has no such column', p.source)
         when c.member = 'key' and not a.attnotnull then 'a key column that is not null was expected'
         when c.member = 'key' and (t.typcategory in ('A', 'C') or t.typname in ('bytea', 'jsonb'))
           then 'a key of numbers, texts, uuids or times was expected, not of arrays, bytes or JSON'
         when a.atttypid <> all (c.types) then format('a column of %s was expected', c.expected)
       end as fault
  from public.work_pools p
 cross join lateral (
   select 'key' as member, k.n, k.name, null::regtype[] as types, null as expected
     from unnest(p.key_columns) with ordinality as k(name, n)
    union all
   select 'payload', k.n, k.name, null, null
     from unnest(p.payload_columns) with ordinality as k(name, n)
    union all
   select v.member, 1, v.name, v.types::regtype[], v.expected
     from (values
       ('priority', p.priority_column, '{int2,int4,int8,numeric,float4,float8}', 'numbers'),
       ('run_after', p.run_after_column, '{timestamptz,timestamp,date}', 'times'),
       ('requires', p.requires_column, '{jsonb,json}', 'type jsonb'),
       ('labels', p.labels_column, '{jsonb,json}', 'type jsonb'),
       ('affinity', p.affinity_column, null, null),
       ('workflow', p.workflow_column, null, null)) as v(member, name, types, expected)
    where v.name is not null) as c
  left join pg_catalog.pg_attribute a
    on a.attrelid = p.source and a.attnum > 0 and not a.attisdropped
   and a.attnum = coalesce(
         (select k.attnum from pg_catalog.pg_attribute k where k.attrelid = p.source and k.attname = c.name),
         (p.column_numbers ->> c.name)::integer)
  left join pg_catalog.pg_type t on t.oid = a.atttypid
 where p.source is not null;
comment on view work.pool_columns is 'work-claims: the columns that each attached pool names, as its table has them at present.';

-- Attached pools whose rows are not followed, or were not for a while. The reason is a sentence with the remedy.
create or replace view work.broken_pools with (security_invoker = true) as
select p.name as pool,
       coalesce(
         f.fault,
         format('%s has rows that are no items yet: call enroll_pool() until it says done', p.source)) as reason,
       p.stopped_at as since,
       f.fault is not null as is_stopped
  from public.work_pools p
 cross join lateral (
   select case
            when not exists (select from pg_catalog.pg_class r where r.oid = p.source)
              then 'its table was dropped: attach another one as this pool, or let it go with detach_pool()'
            when (select count(*) from pg_catalog.pg_trigger t
                   where t.tgrelid = p.source and t.tgname like 'work\_claims\_mirror\_%' and t.tgenabled <> 'D') < 4
              then format('a trigger of work-claims on %s is missing or disabled: call attach_pool() again', p.source)
            else (
              select format(
                       '%s_column is %s; %s: rows are not followed until attach_pool() is given columns that fit',
                       c.member, c.name, c.fault)
                from work.pool_columns c
               where c.pool = p.name and c.fault is not null
               order by c.member, c.n
               limit 1)
          end as fault) as f
 where p.source is not null and (f.fault is not null or p.stopped_at is not null);
comment on view work.broken_pools is 'work-claims: attached pools whose rows are not followed, or were not for a while, and why.';

-- The SQL of a row's key as JSON, of the row r: one value, or an array. Null where a column is gone.
create or replace function work.key_sql(pool text)
returns text
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select case
             when bool_or(c.fault is not null) then null
             when count(*) = 1 then min(format('to_jsonb(%s)', c.value))
             else format('jsonb_build_array(%s)', string_agg(c.value, ', ' order by c.n))
           end
      from work.pool_columns c
     where c.pool = key_sql.pool and c.member = 'key');
end
$$;

-- The SQL of a row as mirror_rows() takes it, of the row r. Null where a column is gone.
-- Only named columns are read: a value that JSON cannot hold must not stop a write.
create or replace function work.row_sql(pool text)
returns text
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select case when not bool_or(c.fault is not null) then format(
             '(select to_jsonb(m.*) from (select %s as key, %s as payload%s) as m)',
             work.key_sql(row_sql.pool),
             case when bool_or(c.member = 'payload') then format(
               '(select to_jsonb(p.*) from (select %s) as p)',
               string_agg(format('%s as %I', c.value, c.name), ', ' order by c.n) filter (where c.member = 'payload'))
               else 'to_jsonb(r.*)' end,
             string_agg(format(', %s as %I', c.value, c.member), '') filter (where c.member not in ('key', 'payload')))
           end
      from work.pool_columns c
     where c.pool = row_sql.pool);
end
$$;
