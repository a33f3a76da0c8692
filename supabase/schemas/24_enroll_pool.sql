-- Taking in earlier rows: rows become items, items get claims, one bounded step a call.

-- Mirror the next rows of an attached table, in the order of its key.
create or replace function work.mirror_next_rows(
  pool public.work_pools, max_rows integer, out mirrored integer, out is_done boolean)
language plpgsql
as $$
#variable_conflict use_column
declare
  broken text;
  keys text;
  last_key text;
  page jsonb[];
begin
  select b.reason into broken from work.broken_pools b where b.pool = mirror_next_rows.pool.name and b.is_stopped;
  if found then
    perform work.refuse('pool', mirror_next_rows.pool.name, broken, 'PT409');
  end if;
  select string_agg(format('%s::%s', c.value, c.compared_as), ', ' order by c.n),
         string_agg(format('($1 #>> %L)::%s', c.place, c.compared_as), ', ' order by c.n)
    into keys, last_key
    from (select k.*, case when count(*) over () = 1 then '{}' else format('{%s}', k.n - 1) end as place
            from work.pool_columns k
           where k.pool = mirror_next_rows.pool.name and k.member = 'key') as c;
  -- The rows are locked against change: else a row that changes meanwhile could be mirrored as it was before.
  execute format(
    'select array(select %s from (select * from %s r %s order by %s limit $2 for share) as r)',
    work.row_sql(mirror_next_rows.pool.name),
    mirror_next_rows.pool.source,
    case when mirror_next_rows.pool.mirrored_through is not null then format('where (%s) > (%s)', keys, last_key) end,
    keys)
    into page using mirror_next_rows.pool.mirrored_through, mirror_next_rows.max_rows;
  mirrored := case when cardinality(page) > 0 then work.mirror_rows(mirror_next_rows.pool, page) else 0 end;
  is_done := cardinality(page) < mirror_next_rows.max_rows;
  update public.work_pools p
     set mirrored_through = case when not is_done then page[cardinality(page)] -> 'key' end,
         stopped_at = case when not is_done then p.stopped_at end,
         is_mirrored = is_done
   where p.name = mirror_next_rows.pool.name;
end
$$;

-- Make claims for the next items that were there when a work type got its pool.
create or replace function work.enroll_next_items(
  work_type public.work_types, max_items integer, out enrolled integer, out is_done boolean)
language plpgsql
as $$
#variable_conflict use_column
declare
  -- Locked against change: their claims copy their present values.
  item_ids uuid[] := array(
    select i.id
      from public.work_items i
     where i.pool = enroll_next_items.work_type.pool
       and i.seq > enroll_next_items.work_type.enrolled_through and i.seq <= enroll_next_items.work_type.enroll_until
     order by i.seq
     limit enroll_next_items.max_items
       for share);
begin
  enrolled := work.enroll(item_ids, array[enroll_next_items.work_type.name]);
  is_done := cardinality(item_ids) < enroll_next_items.max_items;
  update public.work_types t
     set enrolled_through = case
           when is_done then t.enroll_until
           else (select i.seq from public.work_items i where i.id = item_ids[cardinality(item_ids)])
         end
   where t.name = enroll_next_items.work_type.name;
end
$$;

-- Take in earlier rows and items: rows of the attached table become items, items get claims for the pool's work types.
-- One bounded step a call; repeat it until the answer says done.
create or replace function public.enroll_pool(pool text, max_items integer default 10000)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  entered public.work_pools;
  declared public.work_types;
  step record;
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
    select * into step from work.mirror_next_rows(entered, enroll_pool.max_items);
    mirrored := step.mirrored;
    is_done := step.is_done;
  end if;
  for declared in
    select t.* from public.work_types t
     where t.pool = enroll_pool.pool and t.enrolled_through < t.enroll_until
     order by t.name for no key update
  loop
    select * into step from work.enroll_next_items(declared, enroll_pool.max_items);
    enrolled := enrolled + step.enrolled;
    is_done := is_done and step.is_done;
  end loop;
  return jsonb_build_object('mirrored', mirrored, 'enrolled', enrolled, 'done', is_done);
end
$$;
comment on function public.enroll_pool is
  'Takes in what was there before, one bounded step a call: rows of the attached table become items, items get claims for the pool''s work types. Repeat it until done is true.';
