-- Pools and items: the subjects of work.
create table if not exists public.work_pools (
  name text primary key check (length(name) between 1 and 200),
  source regclass unique,
  key_columns text[],
  key_is_uuid boolean not null default false,
  payload_columns text[],
  priority_column text,
  run_after_column text,
  requires_column text,
  labels_column text,
  affinity_column text,
  workflow_column text,
  column_numbers jsonb,
  mirrored_through jsonb,
  is_mirrored boolean not null default true,
  stopped_at timestamptz,
  paused_types text[],
  created_at timestamptz not null default clock_timestamp()
);
comment on table public.work_pools is
  'work-claims: named sets of items. "default" takes items from enqueue_items(); every other one mirrors a table, see attach_pool().';
comment on column public.work_pools.source is 'The attached table.';
comment on column public.work_pools.payload_columns is 'The columns that items carry to workers; null: all.';
comment on column public.work_pools.column_numbers is 'The numbers of the named columns, to find one that was renamed: {name: attnum}.';
comment on column public.work_pools.stopped_at is 'Since when rows are not followed, because a column or the table is gone.';
comment on column public.work_pools.paused_types is 'The work types that were paused because the table was dropped.';
comment on column public.work_pools.mirrored_through is 'The key of the last past row that enroll_pool() has mirrored.';

insert into public.work_pools (name) values ('default') on conflict do nothing;

-- Refuse a pool that does not exist.
create or replace function work.check_pool(pool text)
returns void
language plpgsql
as $$
begin
  if check_pool.pool is null or not exists (select from public.work_pools p where p.name = check_pool.pool) then
    perform work.refuse(
      'pool', check_pool.pool, 'there is no such pool; define_pool() makes one, attach_pool() one of a table, "default" is always there', 'PT404');
  end if;
end
$$;

create table if not exists public.work_items (
  id uuid primary key default gen_random_uuid(),
  seq bigint not null default nextval('work.item_seq'),
  pool text not null,
  source_key text,
  -- A payload travels with every claim of its item: a megabyte is where a reference to a file serves better.
  payload jsonb not null default '{}' check (pg_column_size(payload) <= 1048576),
  priority integer not null default 0 check (priority between -1000000 and 1000000),
  dedupe_key text check (length(dedupe_key) between 1 and 500),
  run_after timestamptz check (run_after > '-infinity'),
  class_id integer not null default 1,
  affinity text check (length(affinity) between 1 and 200),
  workflow_id bigint,
  traceparent text check (length(traceparent) <= 200),
  fingerprint text check (length(fingerprint) between 1 and 200),
  needs jsonb,
  gathers_id bigint,
  max_failures integer check (max_failures between 1 and 1000),
  created_at timestamptz not null default clock_timestamp()
);
comment on table public.work_items is
  'work-claims: one row a subject of work. An attached table''s rows are mirrored here; enqueue_items() adds others. Deleting an item deletes its claims.';
comment on column public.work_items.seq is 'First come, first served: the order in which items came.';
comment on column public.work_items.source_key is 'The key of the attached table''s row: its text, or a JSON array of a composite key.';
comment on column public.work_items.class_id is 'Its requirement and its labels: its row in work_classes.';
comment on column public.work_items.affinity is 'The name of a thing that a worker may have ready: a model in memory, a snapshot on disk.';
comment on column public.work_items.workflow_id is 'The workflow it belongs to: its row in work_workflows.';
comment on column public.work_items.traceparent is 'The trace that it belongs to, as W3C Trace Context has it. Its claims carry it.';
comment on column public.work_items.fingerprint is 'Names its input, in place of the payload: another one means another input.';
comment on column public.work_items.needs is 'The items that it waits for: [{item_id, work_type}], without work_type those of its own.';
comment on column public.work_items.gathers_id is 'The workflow that it waits for as a whole.';
comment on column public.work_items.max_failures is 'In place of the work type''s.';
comment on column public.work_items.dedupe_key is 'At most one item of a pool has it.';

create unique index if not exists work_items_by_source on public.work_items (pool, source_key) where source_key is not null;
comment on index public.work_items_by_source is 'Which item mirrors this row?';
-- The key first: without statistics, an index that begins with the pool looks as good as the one of all items of the pool.
create unique index if not exists work_items_by_key on public.work_items (dedupe_key, pool) where dedupe_key is not null;
comment on index public.work_items_by_key is 'Which item was enqueued under this key?';
drop index if exists public.work_items_by_dedupe_key;
create index if not exists work_items_by_class on public.work_items (class_id, seq) where class_id <> 1;
comment on index public.work_items_by_class is 'Which items are of this class?';
create index if not exists work_items_by_workflow on public.work_items (workflow_id, seq) where workflow_id is not null;
comment on index public.work_items_by_workflow is 'Which items belong to this workflow?';
create index if not exists work_items_by_gather on public.work_items (gathers_id) where gathers_id is not null;
comment on index public.work_items_by_gather is 'Which items wait for the whole of this workflow?';
create index if not exists work_items_by_pool on public.work_items (pool, seq);
comment on index public.work_items_by_pool is 'Which items of the pool come after this one? (paging candidates, enrolling past items)';

-- Name the error in an item for enqueue_items(); null where there is none.
create or replace function work.item_error(item jsonb)
returns text
language plpgsql
immutable
as $$
declare
  priority numeric;
begin
  if jsonb_typeof(item) <> 'object' then
    return 'an item is a JSON object';
  end if;
  if item - '{pool,payload,priority,dedupe_key,run_after,requires,labels,affinity,workflow,traceparent,fingerprint,needs,needs_all_of,max_failures}'::text[] <> '{}' then
    return 'an item has pool, payload, priority, dedupe_key, run_after, requires, labels, affinity, workflow, traceparent, fingerprint, needs, needs_all_of and max_failures, and nothing else';
  end if;
  if jsonb_typeof(item -> 'priority') <> 'null' then
    if jsonb_typeof(item -> 'priority') = 'number' then
      priority := item ->> 'priority';
    end if;
    if priority is null or priority <> trunc(priority) or priority not between -1000000 and 1000000 then
      return format('priority is %s; a whole number from -1000000 to 1000000 was expected', left(item ->> 'priority', 60));
    end if;
  end if;
  if jsonb_typeof(item -> 'dedupe_key') <> 'null'
    and (jsonb_typeof(item -> 'dedupe_key') <> 'string' or length(item ->> 'dedupe_key') not between 1 and 500) then
    return 'dedupe_key is a text of 1 to 500 characters';
  end if;
  if jsonb_typeof(item -> 'pool') not in ('string', 'null') then
    return 'pool is the name of a pool';
  end if;
  if jsonb_typeof(item -> 'run_after') not in ('string', 'null') or item ->> 'run_after' ~* '^\s*[-+]?inf' then
    return 'run_after is a time, such as "2030-01-31T12:00:00Z"';
  end if;
  if jsonb_typeof(item -> 'affinity') <> 'null'
    and (jsonb_typeof(item -> 'affinity') <> 'string' or length(item ->> 'affinity') not between 1 and 200) then
    return 'affinity is a text of 1 to 200 characters';
  end if;
  if jsonb_typeof(item -> 'workflow') <> 'null'
    and (jsonb_typeof(item -> 'workflow') <> 'string' or length(item ->> 'workflow') not between 1 and 200) then
    return 'workflow is a name of 1 to 200 characters';
  end if;
  if jsonb_typeof(item -> 'fingerprint') <> 'null'
    and (jsonb_typeof(item -> 'fingerprint') <> 'string' or length(item ->> 'fingerprint') not between 1 and 200) then
    return 'fingerprint is a text of 1 to 200 characters';
  end if;
  if jsonb_typeof(item -> 'needs') not in ('array', 'null') then
    return 'needs is a list of ids or dedupe keys of items';
  end if;
  if jsonb_typeof(item -> 'needs_all_of') <> 'null'
    and (jsonb_typeof(item -> 'needs_all_of') <> 'string' or length(item ->> 'needs_all_of') not between 1 and 200) then
    return 'needs_all_of is the name of a workflow, 1 to 200 characters';
  end if;
  if jsonb_typeof(item -> 'max_failures') <> 'null'
    and (jsonb_typeof(item -> 'max_failures') <> 'number' or item ->> 'max_failures' !~ '^\d{1,4}$'
      or (item ->> 'max_failures')::integer not between 1 and 1000) then
    return 'max_failures is a whole number from 1 to 1000';
  end if;
  -- A version after 00 may append fields; "ff" and zeros alone are invalid in each.
  if jsonb_typeof(item -> 'traceparent') <> 'null'
    and (jsonb_typeof(item -> 'traceparent') <> 'string' or length(item ->> 'traceparent') > 200
      or item ->> 'traceparent' !~ '^(?!ff|00-.{53})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?$') then
    return 'traceparent is a text such as "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"';
  end if;
  if pg_column_size(item -> 'payload') > 1048576 then
    return format(
      'payload has %s bytes; an item carries at most 1048576: store it elsewhere and enqueue where it is',
      pg_column_size(item -> 'payload'));
  end if;
  return null;
end
$$;
comment on function work.item_error is 'Names the error in an item for enqueue_items(); null where there is none.';

-- Ids for new items (RFC 9562, version 8). The ids of one call are neighbours in each index, and begin with the time or
-- with the request id. With a request id they follow from it alone: a repeated call meets its own rows.
create or replace function work.new_ids(request_id uuid, how_many integer)
returns uuid[]
language plpgsql
as $$
declare
  origin text := replace(coalesce(request_id, gen_random_uuid())::text, '-', '');
  head text := case
    when request_id is null then lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
    else left(origin, 12)
  end || '8' || left(md5(origin), 3) || '8';
begin
  return array(
    select (head || lpad(to_hex(n), 5, '0') || left(md5(origin || ' ' || n), 10))::uuid
      from generate_series(1, how_many) as n order by n);
end
$$;
comment on function work.new_ids is 'Ids for new items, side by side; those of a request id are always the same.';

-- Add items in bulk; the answer is their ids, in the order given. For a dedupe key that an item has already, the answer
-- is that item's id. With a request id, a repeated call adds nothing.
create or replace function public.enqueue_items(items jsonb, request_id uuid default null)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  wrong record;
  ids uuid[];
  class_ids integer[];
  needs jsonb[];
  is_repeat boolean := false;
  answer jsonb;
begin
  perform work.check_list('items', enqueue_items.items);
  select e.n - 1 as at, work.item_error(e.value) as why into wrong
    from jsonb_array_elements(enqueue_items.items) with ordinality as e(value, n)
   where work.item_error(e.value) is not null
   order by e.n
   limit 1;
  if found then
    raise exception using errcode = 'PT400', message = format('items[%s]: %s', wrong.at, wrong.why);
  end if;
  perform work.check_pool(named.pool)
     from (select distinct coalesce(e.value ->> 'pool', 'default') as pool
             from jsonb_array_elements(enqueue_items.items) as e(value)) as named;

  if jsonb_path_exists(enqueue_items.items, '$[*] ? (exists(@.requires) || exists(@.labels))') then
    select work.classes_of(
             array_agg(coalesce(nullif(e.value -> 'requires', 'null'), '{}') order by e.n),
             array_agg(coalesce(nullif(e.value -> 'labels', 'null'), '{}') order by e.n),
             array_agg('items[' || e.n - 1 || ']: ' order by e.n))
      into class_ids
      from jsonb_array_elements(enqueue_items.items) with ordinality as e(value, n);
  end if;
  if jsonb_path_exists(enqueue_items.items, '$[*] ? (@.workflow != null)') then
    perform work.intern_workflows(array_agg(e.value ->> 'workflow'))
       from jsonb_array_elements(enqueue_items.items) as e(value);
  end if;

  if enqueue_items.request_id is not null then
    is_repeat := work.is_repeated(enqueue_items.request_id, sha256(convert_to(enqueue_items.items::text, 'UTF8')));
  end if;
  ids := work.new_ids(enqueue_items.request_id, jsonb_array_length(enqueue_items.items));
  if not is_repeat and jsonb_path_exists(enqueue_items.items,
    '$[*] ? ((@.needs.type() == "array" && @.needs.size() > 0) || @.needs_all_of != null || @.fingerprint != null)') then
    needs := work.prepare_needs(enqueue_items.items, ids);
  end if;
  -- In the order of dedupe keys: two calls with the same keys would deadlock otherwise. seq keeps the order given.
  with given as materialized (
    select e.n,
           ids[e.n] as id,
           coalesce(e.value ->> 'pool', 'default') as pool,
           coalesce(e.value -> 'payload', '{}') as payload,
           coalesce((e.value ->> 'priority')::integer, 0) as priority,
           e.value ->> 'dedupe_key' as dedupe_key,
           (e.value ->> 'run_after')::timestamptz as run_after,
           coalesce(class_ids[e.n], 1) as class_id,
           e.value ->> 'affinity' as affinity,
           (select w.id from public.work_workflows w where w.name = e.value ->> 'workflow') as workflow_id,
           e.value ->> 'traceparent' as traceparent,
           e.value ->> 'fingerprint' as fingerprint,
           needs[e.n] as needs,
           (select w.id from public.work_workflows w where w.name = e.value ->> 'needs_all_of') as gathers_id,
           (e.value ->> 'max_failures')::integer as max_failures
      from jsonb_array_elements(enqueue_items.items) with ordinality as e(value, n)
  ),
  numbered as materialized (
    select given.*, nextval('work.item_seq') as seq from given order by given.n
  ),
  added as (
    insert into public.work_items
      (id, seq, pool, payload, priority, dedupe_key, run_after, class_id, affinity, workflow_id, traceparent, fingerprint,
       needs, gathers_id, max_failures)
    select id, seq, pool, payload, priority, dedupe_key, run_after, class_id, affinity, workflow_id, traceparent, fingerprint,
           needs, gathers_id, max_failures
      from numbered
     -- An item that was deleted since stays deleted.
     where not is_repeat
     order by pool, dedupe_key, n
    on conflict do nothing
  )
  select jsonb_agg(id order by n) into answer from numbered;

  -- A second statement sees the items of a call that the insert waited for.
  if jsonb_path_exists(enqueue_items.items, '$[*].dedupe_key ? (@ != null)') then
    select jsonb_agg(coalesce(held.id::text, answer ->> (e.n - 1)::integer) order by e.n) into answer
      from jsonb_array_elements(enqueue_items.items) with ordinality as e(value, n)
      left join lateral (
        select i.id from public.work_items i
         where i.pool is not distinct from coalesce(e.value ->> 'pool', 'default') and i.dedupe_key = e.value ->> 'dedupe_key'
         limit 1) as held on true;
  end if;
  if needs is not null then
    perform work.check_needed_items(needs, ids);
    perform work.renew_items(enqueue_items.items);
  end if;
  return coalesce(answer, '[]');
end
$$;
comment on function public.enqueue_items is
  'Adds items [{pool, payload, priority, dedupe_key, run_after, requires, labels, affinity, workflow, traceparent, fingerprint, needs, needs_all_of, max_failures}], at most 1000 a call; answers their ids in the same order. A dedupe key that is there already answers the id it has; with another fingerprint than before, the item gets the new payload.';
