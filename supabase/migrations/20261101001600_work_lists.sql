-- Lists: the items, claims and workers that fit a selector, a page at a time.

create or replace function work.check_page(max_items integer)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if max_items is null or max_items not between 1 and 1000 then
    perform work.refuse('max_items', max_items::text, '1 to 1000 were expected; the answer''s "next" leads to more');
  end if;
  return true;
end
$$;
comment on function work.check_page is 'Refuses a page of less than one row or more than 1000.';
revoke execute on function work.check_page from public, anon, authenticated;
grant execute on function work.check_page to service_role;

-- The plan of each page below is made for its own values: it knows which conditions there are, and how rare they are.
-- The judge stands in a subquery, which the planner takes to hold for every second row. Of a bare @@ it expects one row in
-- a hundred, and would rather read and sort all of them than walk along an index until the page is full.

-- Items in the order they came. The answer is {"rows", "next"}: give "next" as "after" for the page behind it.
create or replace function public.list_items(
  selector jsonb default '{}',
  max_items integer default 100,
  after jsonb default null,
  with_payload boolean default false
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_custom_plan
set jit = off
as $$
#variable_conflict use_column
declare
  checked boolean := work.check_page(list_items.max_items);
  read record;
  after_seq bigint;
  after_id uuid;
  ids uuid[];
  pools text[];
  source_keys text[];
  dedupe_keys text[];
  workflow_ids bigint[];
  seqs bigint[];
  priorities bigint[];
  starts timestamptz[];
  creations timestamptz[];
  class_ids integer[];
  judge jsonpath;
  judged text[];
  answer jsonb;
begin
  begin
    after_seq := list_items.after ->> 'seq';
    after_id := list_items.after ->> 'id';
  exception when data_exception then
    after_seq := null;
  end;
  if (list_items.after is not null and list_items.after <> 'null') and (after_seq is null or after_id is null) then
    perform work.refuse('after', left(list_items.after::text, 60), 'the "next" of an earlier page was expected');
  end if;
  select * into read from work.read_selector(
    'items', list_items.selector, '{id,pool,source_key,dedupe_key,workflow,seq,priority,run_after,created_at}');
  judge := read.judge;
  judged := read.judged;
  class_ids := read.class_ids;
  ids := work.one_of(read.exact, 'id')::uuid[];
  pools := work.one_of(read.exact, 'pool');
  source_keys := work.one_of(read.exact, 'source_key');
  dedupe_keys := work.one_of(read.exact, 'dedupe_key');
  seqs := work.numbers_between(read.exact, 'seq');
  priorities := work.numbers_between(read.exact, 'priority');
  starts := work.times_between(read.exact, 'run_after');
  creations := work.times_between(read.exact, 'created_at');
  if work.one_of(read.exact, 'workflow') is not null then
    workflow_ids := array(select w.id from public.work_workflows w where w.name = any (work.one_of(read.exact, 'workflow')));
  end if;
  if pools is null then
    -- From one pool to the next in the index: items of a pool that nobody declared are items too.
    with recursive pool as (
      (select i.pool from public.work_items i order by i.pool limit 1)
      union all
      select (select i.pool from public.work_items i where i.pool > p.pool order by i.pool limit 1)
        from pool p
       where p.pool is not null
    )
    select array_agg(p.pool) into pools from pool p where p.pool is not null;
  end if;

  with found as materialized (
    select f.*
      from unnest(pools) as p(name)
     cross join lateral (
       select i.*
         from public.work_items i
        where i.pool = p.name
          and (after_seq is null or (i.seq, i.id) > (after_seq, after_id))
          and (ids is null or i.id = any (ids))
          and (source_keys is null or i.source_key = any (source_keys))
          and (dedupe_keys is null or i.dedupe_key = any (dedupe_keys))
          and (workflow_ids is null or i.workflow_id = any (workflow_ids))
          and (seqs[1] is null or i.seq >= seqs[1]) and (seqs[2] is null or i.seq <= seqs[2])
          and (priorities[1] is null or i.priority >= priorities[1]) and (priorities[2] is null or i.priority <= priorities[2])
          and (starts[1] is null or i.run_after >= starts[1]) and (starts[2] is null or i.run_after <= starts[2])
          and (creations[1] is null or i.created_at >= creations[1]) and (creations[2] is null or i.created_at <= creations[2])
          and (class_ids is null or i.class_id = any (class_ids))
          and (judge is null
               or (select jsonb_strip_nulls(jsonb_build_object(
                    'id', i.id, 'seq', i.seq, 'pool', i.pool, 'source_key', i.source_key, 'dedupe_key', i.dedupe_key,
                    'priority', i.priority, 'affinity', i.affinity, 'run_after', i.run_after,
                    'created_at', i.created_at,
                    'workflow', case when 'workflow' = any (judged) then
                      (select w.name from public.work_workflows w where w.id = i.workflow_id) end))
                  || case when judged && '{labels,requires}' then
                       (select jsonb_build_object('labels', k.labels, 'requires', k.asks)
                          from public.work_classes k where k.id = i.class_id) else '{}' end
                  || case when 'payload' = any (judged) then jsonb_build_object('payload', i.payload) else '{}' end
                  @@ judge))
        order by i.seq, i.id
        limit list_items.max_items + 1) as f
     order by f.seq, f.id
     limit list_items.max_items + 1
  ),
  page as materialized (
    select f.*, row_number() over (order by f.seq, f.id) as n from found f
  )
  select jsonb_build_object(
           'rows', coalesce(jsonb_agg(
             jsonb_build_object(
               'id', f.id, 'seq', f.seq, 'pool', f.pool, 'source_key', f.source_key, 'dedupe_key', f.dedupe_key,
               'priority', f.priority, 'workflow', w.name, 'affinity', f.affinity, 'run_after', f.run_after,
               'created_at', f.created_at, 'labels', k.labels, 'requires', k.requires)
             || case when list_items.with_payload then jsonb_build_object('payload', f.payload) else '{}' end
             order by f.n) filter (where f.n <= list_items.max_items), '[]'),
           'next', case when max(f.n) > list_items.max_items then
             (select jsonb_build_object('seq', l.seq, 'id', l.id) from page l where l.n = list_items.max_items) end)
    into answer
    from page f
    left join public.work_workflows w on w.id = f.workflow_id
    left join public.work_classes k on k.id = f.class_id;
  return answer;
end
$$;
comment on function public.list_items is
  'Items that fit a selector, in the order they came: {"rows", "next"}. "next" given as "after" leads to the page behind it; null: there is none. At most 1000 a page; their payloads with with_payload.';
revoke execute on function public.list_items from public, anon, authenticated;
grant execute on function public.list_items to service_role;

-- Claims in the order of their keys, which never change: a claim that moves while somebody turns pages is seen once.
create or replace function public.list_claims(
  selector jsonb default '{}',
  max_items integer default 100,
  after jsonb default null,
  with_result boolean default false
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_custom_plan
set jit = off
as $$
#variable_conflict use_column
declare
  checked boolean := work.check_page(list_claims.max_items);
  read record;
  after_item uuid;
  after_type text;
  item_ids uuid[];
  work_types text[];
  statuses text[];
  worker_ids text[];
  pools text[];
  source_keys text[];
  workflow_ids bigint[];
  priorities bigint[];
  positions bigint[];
  fences bigint[];
  failures_between bigint[];
  crashes_between bigint[];
  dues timestamptz[];
  starts timestamptz[];
  ends timestamptz[];
  finishes timestamptz[];
  class_ids integer[];
  judge jsonpath;
  judged text[];
  answer jsonb;
begin
  begin
    after_item := list_claims.after ->> 'item_id';
    after_type := list_claims.after ->> 'work_type';
  exception when data_exception then
    after_item := null;
  end;
  if (list_claims.after is not null and list_claims.after <> 'null') and (after_item is null or after_type is null) then
    perform work.refuse('after', left(list_claims.after::text, 60), 'the "next" of an earlier page was expected');
  end if;
  select * into read
    from work.read_selector(
      'claims', list_claims.selector,
      '{item_id,work_type,status,worker_id,pool,source_key,workflow,priority,position,fence,failures,crashes,
        due_at,claimed_at,expires_at,finished_at}');
  judge := read.judge;
  judged := read.judged;
  class_ids := read.class_ids;
  item_ids := work.one_of(read.exact, 'item_id')::uuid[];
  work_types := work.one_of(read.exact, 'work_type');
  statuses := work.one_of(read.exact, 'status');
  worker_ids := work.one_of(read.exact, 'worker_id');
  pools := work.one_of(read.exact, 'pool');
  source_keys := work.one_of(read.exact, 'source_key');
  priorities := work.numbers_between(read.exact, 'priority');
  positions := work.numbers_between(read.exact, 'position');
  fences := work.numbers_between(read.exact, 'fence');
  failures_between := work.numbers_between(read.exact, 'failures');
  crashes_between := work.numbers_between(read.exact, 'crashes');
  dues := work.times_between(read.exact, 'due_at');
  starts := work.times_between(read.exact, 'claimed_at');
  ends := work.times_between(read.exact, 'expires_at');
  finishes := work.times_between(read.exact, 'finished_at');
  if work.one_of(read.exact, 'workflow') is not null then
    workflow_ids := array(select w.id from public.work_workflows w where w.name = any (work.one_of(read.exact, 'workflow')));
  end if;

  with found as materialized (
    -- An outer join, though each claim has its item: where nothing is asked of the item, the planner leaves it out. The
    -- cursor is said of both sides, so that a merge of the two begins there.
    select c.*
      from public.work_claims c
      left join public.work_items i on i.id = c.item_id and (after_item is null or i.id >= after_item)
     where (after_item is null or (c.item_id, c.work_type) > (after_item, after_type collate "C"))
       and (item_ids is null or c.item_id = any (item_ids))
       and (work_types is null or c.work_type = any (work_types))
       and (statuses is null or c.status = any (statuses))
       and (worker_ids is null or c.worker_id = any (worker_ids))
       and (pools is null or i.pool = any (pools))
       and (source_keys is null or i.source_key = any (source_keys))
       and (workflow_ids is null or i.workflow_id = any (workflow_ids))
       and (priorities[1] is null or c.priority >= priorities[1]) and (priorities[2] is null or c.priority <= priorities[2])
       and (positions[1] is null or c.position >= positions[1]) and (positions[2] is null or c.position <= positions[2])
       and (fences[1] is null or c.fence >= fences[1]) and (fences[2] is null or c.fence <= fences[2])
       and (failures_between[1] is null or c.failures >= failures_between[1]) and (failures_between[2] is null or c.failures <= failures_between[2])
       and (crashes_between[1] is null or c.crashes >= crashes_between[1]) and (crashes_between[2] is null or c.crashes <= crashes_between[2])
       and (dues[1] is null or c.due_at >= dues[1]) and (dues[2] is null or c.due_at <= dues[2])
       and (starts[1] is null or c.claimed_at >= starts[1]) and (starts[2] is null or c.claimed_at <= starts[2])
       and (ends[1] is null or c.expires_at >= ends[1]) and (ends[2] is null or c.expires_at <= ends[2])
       and (finishes[1] is null or c.finished_at >= finishes[1]) and (finishes[2] is null or c.finished_at <= finishes[2])
       and (class_ids is null or i.class_id = any (class_ids))
       and (judge is null
            or (select jsonb_strip_nulls(jsonb_build_object(
                 'item_id', c.item_id, 'work_type', c.work_type, 'status', c.status, 'pool', i.pool,
                 'source_key', i.source_key, 'priority', c.priority, 'position', c.position, 'affinity', i.affinity,
                 'worker_id', c.worker_id, 'fence', c.fence, 'request_id', c.request_id, 'failures', c.failures,
                 'crashes', c.crashes, 'progress', c.progress, 'error', c.error, 'due_at', c.due_at,
                 'claimed_at', c.claimed_at, 'expires_at', c.expires_at, 'finished_at', c.finished_at,
                 'workflow', case when 'workflow' = any (judged) then
                   (select w.name from public.work_workflows w where w.id = i.workflow_id) end))
               || case when judged && '{labels,requires}' then
                    (select jsonb_build_object('labels', k.labels, 'requires', k.asks)
                       from public.work_classes k where k.id = i.class_id) else '{}' end
               || case when 'result' = any (judged) and c.result is not null
                    then jsonb_build_object('result', c.result) else '{}' end
               @@ judge))
     order by c.item_id, c.work_type
     limit list_claims.max_items + 1
  ),
  page as materialized (
    select f.*, row_number() over (order by f.item_id, f.work_type) as n from found f
  )
  select jsonb_build_object(
           'rows', coalesce(jsonb_agg(
             jsonb_build_object(
               'item_id', f.item_id, 'work_type', f.work_type, 'status', f.status, 'pool', i.pool,
               'source_key', i.source_key, 'priority', f.priority, 'position', f.position, 'workflow', w.name,
               'affinity', i.affinity, 'worker_id', f.worker_id, 'fence', f.fence, 'request_id', f.request_id,
               'failures', f.failures, 'crashes', f.crashes, 'progress', f.progress, 'error', f.error,
               'due_at', f.due_at, 'claimed_at', f.claimed_at, 'expires_at', f.expires_at,
               'finished_at', f.finished_at, 'labels', k.labels, 'requires', k.requires)
             || case when list_claims.with_result then jsonb_build_object('result', f.result) else '{}' end
             order by f.n) filter (where f.n <= list_claims.max_items), '[]'),
           'next', case when max(f.n) > list_claims.max_items then
             (select jsonb_build_object('item_id', l.item_id, 'work_type', l.work_type) from page l
               where l.n = list_claims.max_items) end)
    into answer
    from page f
    join public.work_items i on i.id = f.item_id
    left join public.work_workflows w on w.id = i.workflow_id
    left join public.work_classes k on k.id = i.class_id;
  return answer;
end
$$;
comment on function public.list_claims is
  'Claims that fit a selector, in the order of their keys: {"rows", "next"}. "next" given as "after" leads to the page behind it; null: there is none. At most 1000 a page; their results with with_result.';
revoke execute on function public.list_claims from public, anon, authenticated;
grant execute on function public.list_claims to service_role;

-- Workers by id: what each has, holds and does. Alive is who was heard of within two minutes and has not left; free is
-- who is alive and holds nothing whose lease goes on.
create or replace function public.list_workers(
  selector jsonb default '{}',
  max_items integer default 100,
  after text default null
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_custom_plan
set jit = off
as $$
#variable_conflict use_column
declare
  checked boolean := work.check_page(list_workers.max_items);
  read record;
  ids text[];
  judge jsonpath;
  judged text[];
  moment timestamptz := clock_timestamp();
  any_work jsonb;
  answer jsonb;
begin
  select * into read from work.read_selector('workers', list_workers.selector, '{id}');
  judge := read.judge;
  judged := read.judged;
  ids := work.one_of(read.exact, 'id');
  select jsonb_build_object(
           'pool', coalesce(jsonb_agg(t.pool) filter (where t.pool is not null), '[]')
                   || to_jsonb(coalesce(work.one_of(read.exact, 'pool'), '{}')),
           'work_type', coalesce(jsonb_agg(t.name), '[]')
                        || to_jsonb(coalesce(work.one_of(read.exact, 'work_type'), '{}')))
    into any_work
    from public.work_types t;

  with held as materialized (
    select c.worker_id, count(*) as holds
      from public.work_claims c
     where c.status = 'claimed' and c.expires_at > moment
     group by c.worker_id
  ),
  found as materialized (
    select w.*, h.holds, s.is_alive, s.is_alive and h.holds = 0 as is_free
      from public.work_workers w
      left join work.live_workers l on l.id = w.id
     cross join lateral (
       select coalesce((select g.holds from held g where g.worker_id = w.id), 0) as holds) as h
     cross join lateral (select l.id is not null as is_alive) as s
     where (list_workers.after is null or w.id > list_workers.after)
       and (ids is null or w.id = any (ids))
       and (judge is null
            or (select jsonb_strip_nulls(jsonb_build_object(
                 'id', w.id, 'instance', w.instance, 'version', w.version, 'alive', s.is_alive,
                 'free', s.is_alive and h.holds = 0, 'holds', h.holds, 'exclusive', w.exclusive,
                 'yield_seconds', w.yield_seconds, 'registered_at', w.registered_at,
                 'last_seen_at', w.last_seen_at, 'retired_at', w.retired_at))
               -- Who does any work type does the ones asked for, declared or not.
               || case when w.work_types is null then any_work else (
                    select jsonb_build_object(
                             'pool', coalesce(jsonb_agg(t.pool) filter (where t.pool is not null), '[]'),
                             'work_type', w.work_types)
                      from public.work_types t
                     where t.name = any (w.work_types)) end
               || jsonb_build_object('capabilities', w.capabilities)
               || case when 'accepts' = any (judged) then jsonb_build_object('accepts', work.asked(w.accepts)) else '{}' end
               @@ judge))
     order by w.id
     limit list_workers.max_items + 1
  ),
  page as materialized (
    select f.*, row_number() over (order by f.id) as n from found f
  )
  select jsonb_build_object(
           'rows', coalesce(jsonb_agg(
             jsonb_build_object(
               'id', f.id, 'alive', f.is_alive, 'free', f.is_free, 'holds', f.holds, 'work_types', f.work_types,
               'capabilities', f.capabilities, 'accepts', f.accepts, 'exclusive', f.exclusive,
               'yield_seconds', f.yield_seconds, 'version', f.version, 'instance', f.instance,
               'registered_at', f.registered_at, 'last_seen_at', f.last_seen_at, 'retired_at', f.retired_at)
             order by f.n) filter (where f.n <= list_workers.max_items), '[]'),
           'next', case when max(f.n) > list_workers.max_items then
             (select to_jsonb(l.id) from page l where l.n = list_workers.max_items) end)
    into answer
    from page f;
  return answer;
end
$$;
comment on function public.list_workers is
  'Workers that fit a selector, by id, with what each has, does and holds: {"rows", "next"}. "next" given as "after" leads to the page behind it; null: there is none. At most 1000 a page.';
revoke execute on function public.list_workers from public, anon, authenticated;
grant execute on function public.list_workers to service_role;

notify pgrst, 'reload schema';
