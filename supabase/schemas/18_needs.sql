-- Needs of items: as enqueue_items() takes them, and as they are added later.

-- Make ready what items with needs or a fingerprint name: workflows that are waited for, work types whose releases must look
-- for what waits. Answers the needs of each item as [{item_id, work_type}].
create or replace function work.prepare_needs(items jsonb, ids uuid[])
returns jsonb[]
language plpgsql
as $$
#variable_conflict use_column
declare
  actual uuid[] := work.ids_in_call(prepare_needs.items, ids);
  gathered text[] := array(
    select distinct e.value ->> 'needs_all_of' from jsonb_array_elements(prepare_needs.items) as e(value)
     where e.value ->> 'needs_all_of' is not null);
  places jsonb := (
    select coalesce(jsonb_object_agg(k.pool, k.places), '{}')
      from (select coalesce(e.value ->> 'pool', 'default') as pool, jsonb_object_agg(e.value ->> 'dedupe_key', e.n) as places
              from jsonb_array_elements(prepare_needs.items) with ordinality as e(value, n)
             where e.value ->> 'dedupe_key' is not null
             group by 1) as k);
  needs jsonb[];
begin
  needs := array(
    select case when jsonb_typeof(e.value -> 'needs') = 'array' then
             work.resolve_needs(e.value -> 'needs', coalesce(e.value ->> 'pool', 'default'), places, actual,
               format('items[%s]', e.n - 1))
           end
      from jsonb_array_elements(prepare_needs.items) with ordinality as e(value, n)
     order by e.n);
  perform work.check_cycles(prepare_needs.items, actual, needs);
  perform work.mark_needed(
    array(select distinct coalesce(e.value ->> 'pool', 'default') from jsonb_array_elements(prepare_needs.items) as e(value)),
    (select jsonb_agg(r.value) from unnest(needs) as n(list) cross join lateral jsonb_array_elements(n.list) as r(value)));
  if gathered <> '{}' then
    perform work.unplain(array(
      select t.name
        from public.work_types t
       where t.pool in (
               select i.pool from public.work_workflows w join public.work_items i on i.workflow_id = w.id
                where w.name = any (gathered))
          or t.name in (
               select c.work_type from public.work_workflows w join public.work_claims c on c.workflow_id = w.id
                where w.name = any (gathered) and c.status in ('blocked', 'waiting', 'ready', 'claimed'))));
    perform work.intern_workflows(gathered);
    update public.work_workflows w set is_gathered = true
     where w.name = any (gathered) and not w.is_gathered;
  end if;
  return needs;
end
$$;

-- End the short way of the work types that these needs bind: their releases look for what waits. An unknown name becomes a
-- work type.
create or replace function work.mark_needed(pools text[], needs jsonb)
returns void
language plpgsql
as $$
begin
  perform work.check_own_name(r.work_type) from jsonb_to_recordset(needs) as r(work_type text);
  insert into public.work_types (name, is_plain)
  select distinct r.work_type, false
    from jsonb_to_recordset(needs) as r(work_type text collate "C")
   where r.work_type is not null
   order by 1
  on conflict do nothing;
  perform work.unplain(array(
    select t.name
      from public.work_types t
     where t.pool = any (pools)
        or t.pool in (select i.pool from jsonb_to_recordset(needs) as r(item_id uuid) join public.work_items i on i.id = r.item_id)
        or t.name in (select r.work_type from jsonb_to_recordset(needs) as r(work_type text))));
end
$$;

-- Refuse needs on items that another call has added at the same moment, and circles through a whole workflow.
create or replace function work.check_needed_items(needs jsonb[], ids uuid[])
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  circular record;
begin
  if exists (
    select from unnest(needs) as n(list)
     cross join lateral jsonb_array_elements(n.list) as r(value)
     where (r.value ->> 'item_id')::uuid = any (ids)
       and not exists (select from public.work_items i where i.id = (r.value ->> 'item_id')::uuid)) then
    raise exception using errcode = 'PT503', message = 'another call has added an item with the same dedupe key at the same moment; repeat the call';
  end if;
  -- Few items need one that waits for a whole workflow: the way down from it is short, the way up from its parts is long.
  select w.name, m.id into circular
    from (select distinct v.id from unnest(ids) as u(id)
            join public.work_items i on i.id = u.id
           cross join lateral (values (i.workflow_id), (i.gathers_id)) as v(id)) as touched
    join public.work_workflows w on w.id = touched.id and w.is_gathered
    join public.work_dependencies d on d.needs_workflow_id = w.id
   cross join lateral work.dependents_of(
     jsonb_build_array(jsonb_build_object('item_id', d.item_id, 'work_type', d.work_type)), true) as x
    join public.work_items m on m.id = x.item_id and m.workflow_id = w.id and m.gathers_id is distinct from w.id
   limit 1;
  if found then
    raise exception using errcode = 'PT400',
      message = format('item %s is a part of workflow %s, and needs something that waits for all of it', circular.id, circular.name);
  end if;
end
$$;

-- Whether one of these items needs the other one, through any items and workflows between them.
create or replace function work.needs_itself(starts uuid[], item_id uuid)
returns boolean
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return exists (
    with recursive up(id) as (
      select n.id from unnest(starts) as s(id) cross join lateral work.needed_items(s.id) as n(id)
      union
      select n.id from up u cross join lateral work.needed_items(u.id) as n(id)
    )
    select from up u where u.id = needs_itself.item_id);
end
$$;

-- The items that an item needs.
create or replace function work.needed_items(item_id uuid)
returns setof uuid
language sql
stable
as $$
  select (r.value ->> 'item_id')::uuid
    from public.work_items i
   cross join lateral jsonb_array_elements(i.needs) as r(value)
   where i.id = needed_items.item_id
   union
  select m.id
    from public.work_items i
    join public.work_items m on m.workflow_id = i.gathers_id and m.gathers_id is distinct from i.gathers_id
   where i.id = needed_items.item_id
$$;

-- Items with a dedupe key and another fingerprint than before get their new payload.
create or replace function work.renew_items(items jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  with given as materialized (
    select distinct on (g.pool, g.dedupe_key) g.*
      from (select coalesce(e.value ->> 'pool', 'default') as pool, e.value ->> 'dedupe_key' as dedupe_key,
                   e.value ->> 'fingerprint' as fingerprint, coalesce(e.value -> 'payload', '{}') as payload, e.n
              from jsonb_array_elements(renew_items.items) with ordinality as e(value, n)
             where e.value ->> 'dedupe_key' is not null and e.value ->> 'fingerprint' is not null) as g
     order by g.pool, g.dedupe_key, g.n desc
  ),
  wanted as materialized (
    select i.id, g.fingerprint, g.payload
      from given g
      join public.work_items i on i.pool = any (array[g.pool]) and i.dedupe_key = any (array[g.dedupe_key])
     where i.fingerprint is distinct from g.fingerprint
     order by i.id
       for no key update of i
  )
  update public.work_items i
     set payload = w.payload, fingerprint = w.fingerprint
    from wanted w
   where i.id = any (array[w.id]);
end
$$;

-- Give an item further needs, as references; `ids` are those of the items that an index names. Its claims that are done
-- stay done.
create or replace function work.need(item_id uuid, needs jsonb, ids jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  item public.work_items;
  resolved jsonb;
  in_call uuid[] := array(select u.value::uuid from jsonb_array_elements_text(ids) with ordinality as u(value, n) order by u.n);
begin
  select * into item from public.work_items i where i.id = need.item_id for no key update;
  resolved := coalesce(work.resolve_needs(need.needs, item.pool, '{}', in_call, format('item %s', need.item_id)), '[]');
  if exists (select from jsonb_array_elements(resolved) as r(value) where (r.value ->> 'item_id')::uuid = need.item_id)
    or work.needs_itself(array(select (r.value ->> 'item_id')::uuid from jsonb_array_elements(resolved) as r(value)), need.item_id) then
    raise exception using errcode = 'PT400', message = format('item %s would need itself, through one of these needs', need.item_id);
  end if;
  perform work.mark_needed(array[item.pool], resolved);
  -- A call that is repeated adds nothing.
  update public.work_items i
     set needs = coalesce(i.needs, '[]') || array_to_json(array(
           select distinct r.value from jsonb_array_elements(resolved) as r(value)
            where not coalesce(i.needs, '[]') @> jsonb_build_array(r.value)))::jsonb
   where i.id = need.item_id;
  perform work.count_needs(array[need.item_id], array(
    select c.work_type from public.work_claims c where c.item_id = need.item_id));
end
$$;

-- Give an item further needs: ids or dedupe keys of items, or {"id" or "key", "pool", "work_type"}. Work that is done stays
-- done. Answers how many of its claims wait.
create or replace function public.add_needs(item_id uuid, needs jsonb)
returns integer
language plpgsql
as $$
begin
  if item_id is null or not exists (select from public.work_items i where i.id = add_needs.item_id) then
    perform work.refuse('item_id', item_id::text, 'there is no such item', 'PT404');
  end if;
  -- Two calls could make a circle together.
  perform pg_advisory_xact_lock(hashtextextended('work-claims needs', 0));
  perform work.need(item_id, needs, '[]');
  return (select count(*) from public.work_claims c where c.item_id = add_needs.item_id and c.status = 'blocked');
end
$$;
comment on function public.add_needs is
  'Gives an item further needs, by ids or dedupe keys of items, or {"id" or "key", "pool", "work_type"}: its open claims wait for them. Done work stays done; a circle is refused. Answers how many of its claims wait.';
