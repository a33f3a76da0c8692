-- References: how a caller names the items that an item needs.

-- The ids that items of enqueue_items() have: of an item with a dedupe key, the id of the item that has it already, else of
-- the first with it in the call.
create or replace function work.ids_in_call(items jsonb, ids uuid[])
returns uuid[]
language plpgsql
stable
as $$
begin
  return array(
    select coalesce(
             (select i.id from public.work_items i
               where i.pool is not distinct from coalesce(e.value ->> 'pool', 'default') and i.dedupe_key = e.value ->> 'dedupe_key'),
             ids[min(e.n) over (partition by coalesce(e.value ->> 'pool', 'default'), coalesce(e.value ->> 'dedupe_key', ids[e.n]::text))])
      from jsonb_array_elements(items) with ordinality as e(value, n)
     order by e.n);
end
$$;

-- Name the error in a reference; null where there is none.
create or replace function work.reference_error(reference jsonb)
returns text
language plpgsql
immutable
as $$
begin
  if jsonb_typeof(reference) = 'string' then
    return case when length(reference #>> '{}') not between 1 and 500 then 'an id or a dedupe key has 1 to 500 characters' end;
  end if;
  if jsonb_typeof(reference) <> 'object'
    or (reference ? 'id')::integer + (reference ? 'key')::integer + (reference ? 'index')::integer <> 1
    or reference - '{id,key,pool,index,work_type}'::text[] <> '{}' then
    return 'a need is the id or the dedupe key of an item, or {"id" or "key" (with "pool") or "index", "work_type"}';
  end if;
  if reference ? 'id' and coalesce(reference ->> 'id' !~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$', true) then
    return format('id is %s; a uuid was expected', coalesce(left(reference ->> 'id', 60), 'null'));
  end if;
  if reference ? 'index' and coalesce(reference ->> 'index' !~ '^\d{1,4}$', true) then
    return format('index is %s; the place of an item of the same call was expected, from 0', coalesce(left(reference ->> 'index', 60), 'null'));
  end if;
  if jsonb_typeof(reference -> 'work_type') not in ('string', 'null')
    or length(reference ->> 'work_type') not between 1 and 200 then
    return 'work_type is a name of 1 to 200 characters';
  end if;
  return null;
end
$$;

-- Find the item that a reference names, among the items of the call and the present ones; null where there is none. The
-- items of the call with a dedupe key are `places`: {pool: {dedupe_key: place from 1}}.
create or replace function work.referred_item(reference jsonb, pool text, places jsonb, ids uuid[])
returns uuid
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  item_key text := case when jsonb_typeof(reference) = 'string' then reference #>> '{}' else reference ->> 'key' end;
  item_pool text := case when jsonb_typeof(reference) = 'object' then coalesce(reference ->> 'pool', referred_item.pool) else referred_item.pool end;
  item_id uuid;
begin
  if jsonb_typeof(reference) = 'object' and reference ? 'index' then
    return ids[(reference ->> 'index')::integer + 1];
  end if;
  item_id := case
    when jsonb_typeof(reference) = 'object' and reference ? 'id' then (reference ->> 'id')::uuid
    when jsonb_typeof(reference) = 'string' and item_key ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then item_key::uuid
  end;
  if item_id is not null then
    if item_id = any (ids) or exists (select from public.work_items i where i.id = item_id) then
      return item_id;
    end if;
    if jsonb_typeof(reference) = 'object' then
      return null;
    end if;
  end if;
  return coalesce(
    ids[(places -> item_pool ->> item_key)::integer],
    (select i.id from public.work_items i where i.pool is not distinct from item_pool and i.dedupe_key = item_key),
    -- A row of an attached table is named by its key.
    (select i.id from public.work_items i where i.pool = item_pool and i.source_key = item_key));
end
$$;

-- Turn references into [{item_id, work_type}]. Refuses one that names no item; `called` says where it stands.
create or replace function work.resolve_needs(needs jsonb, pool text, places jsonb, ids uuid[], called text)
returns jsonb
language plpgsql
stable
as $$
declare
  wrong record;
  missing text;
  resolved jsonb;
begin
  if jsonb_typeof(needs) <> 'array' or jsonb_array_length(needs) > 10000 then
    raise exception using errcode = 'PT400', message = format('%s: needs is a list of at most 10000 items', called);
  end if;
  select e.n - 1 as at, work.reference_error(e.value) as why into wrong
    from jsonb_array_elements(needs) with ordinality as e(value, n)
   where work.reference_error(e.value) is not null
   order by e.n
   limit 1;
  if found then
    raise exception using errcode = 'PT400', message = format('%s: needs[%s]: %s', called, wrong.at, wrong.why);
  end if;
  select jsonb_agg(jsonb_build_object('item_id', r.item_id, 'work_type', r.work_type) order by r.n),
         (array_agg(r.value::text order by r.n) filter (where r.item_id is null))[1]
    into resolved, missing
    from (select e.n, e.value, work.referred_item(e.value, resolve_needs.pool, places, ids) as item_id,
                 case when jsonb_typeof(e.value) = 'object' then e.value ->> 'work_type' end as work_type
            from jsonb_array_elements(needs) with ordinality as e(value, n)) as r;
  if missing is not null then
    raise exception using errcode = 'PT400',
      message = format('%s: needs: there is no item %s, in this call or in pool %s', called, left(missing, 100), resolve_needs.pool);
  end if;
  return resolved;
end
$$;

-- Refuse items of one call that need each other in a circle: needs[n] are the places of the items that item n needs.
create or replace function work.check_cycles(items jsonb, ids uuid[], needs jsonb[])
returns void
language plpgsql
as $$
declare
  sources integer[];
  targets integer[];
  before integer;
  path integer[];
begin
  select array_agg(e.n), array_agg(array_position(ids, (r.value ->> 'item_id')::uuid))
    into sources, targets
    from unnest(needs) with ordinality as e(needs, n)
   cross join lateral jsonb_array_elements(e.needs) as r(value)
   where (r.value ->> 'item_id')::uuid = any (ids);
  -- An item that needs earlier ones only is in no circle.
  if sources is null or not exists (select from unnest(sources, targets) as e(source, target) where e.target >= e.source) then
    return;
  end if;
  -- Take away, again and again, what needs nothing that is left.
  loop
    before := cardinality(sources);
    select array_agg(e.source), array_agg(e.target)
      into sources, targets
      from unnest(sources, targets) as e(source, target)
     where e.target = any (sources);
    exit when sources is null or cardinality(sources) = before;
  end loop;
  if sources is null then
    return;
  end if;
  path := array[sources[1]];
  while path[cardinality(path)] <> all (path[:cardinality(path) - 1]) loop
    path := path || targets[array_position(sources, path[cardinality(path)])];
  end loop;
  path := path[array_position(path, path[cardinality(path)]):];
  raise exception using errcode = 'PT400', message = format('the items need each other in a circle: %s', (
    select string_agg('items[' || p.place - 1 || ']' || coalesce(' (' || (items -> (p.place - 1) ->> 'dedupe_key') || ')', ''), ' → ' order by p.n)
      from unnest(path) with ordinality as p(place, n)));
end
$$;
