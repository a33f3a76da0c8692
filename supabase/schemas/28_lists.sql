-- Lists: the items, claims and workers that fit a selector, a page at a time.

create or replace function work.check_page(max_items integer)
returns boolean
language plpgsql
immutable
as $$
begin
  if max_items is null or max_items not between 1 and 1000 then
    perform work.refuse('max_items', max_items::text, '1 to 1000 were expected; the answer''s "next" leads to more');
  end if;
  return true;
end
$$;

-- No call looks at more than some 20,000 rows, however rare it is what somebody asks for. It looks at a few first, which
-- will do where a quarter of them fits. Then at 20,000 at most: at those that an index leaves, where less than one in 100
-- fitted and it leaves half as many or fewer, or else at those that come next in the order of the list. Where these were not
-- all there is a "next", beside a page that is not full too, or an empty one.
--
-- Keys alone settle which rows are looked at, in a subquery with a limit or an offset: the planner does not move conditions
-- into it, and so reads no others, whatever it believes of the conditions. Plans are made for the values of each call: a
-- condition that is not there costs nothing.

-- The items that an index leaves of a list by one of its conditions, where these are at most so many; null where none does.
-- For a list of claims they are the items of its claims.
create or replace function work.items_left(
  most integer,
  pools text[] default null,
  source_keys text[] default null,
  dedupe_keys text[] default null,
  workflow_ids bigint[] default null,
  class_ids integer[] default null,
  status text default null,
  work_types text[] default null,
  dues timestamptz[] default null,
  ends timestamptz[] default null,
  finishes timestamptz[] default null
)
returns uuid[]
language plpgsql
stable
as $$
#variable_conflict use_variable
declare
  condition text;
  ids uuid[];
begin
  foreach condition in array '{source_key,dedupe_key,workflow,status,class,pool}'::text[] loop
    ids := case
      when condition = 'source_key' and source_keys is not null and pools is not null then array(
        select i.id from public.work_items i where i.pool = any (pools) and i.source_key = any (source_keys) limit most + 1)
      when condition = 'dedupe_key' and dedupe_keys is not null and pools is not null then array(
        select i.id from public.work_items i where i.pool = any (pools) and i.dedupe_key = any (dedupe_keys) limit most + 1)
      -- An open claim has its item's class.
      when condition = 'status' and status = 'ready' then array(
        select c.item_id from public.work_claims c
         where c.status = 'ready' and c.class_id > 0
           and (work_types is null or c.work_type = any (work_types))
           and (class_ids is null or c.class_id = any (class_ids))
         limit most + 1)
      when condition = 'status' and status = 'waiting' then array(
        select c.item_id from public.work_claims c
         where c.status = 'waiting' and (dues[1] is null or c.due_at >= dues[1]) and (dues[2] is null or c.due_at <= dues[2])
         limit most + 1)
      when condition = 'status' and status = 'claimed' then array(
        select c.item_id from public.work_claims c
         where c.status = 'claimed' and (ends[1] is null or c.expires_at >= ends[1]) and (ends[2] is null or c.expires_at <= ends[2])
         limit most + 1)
      when condition = 'status' and status = 'failed' and work_types is null then array(
        select c.item_id from public.work_claims c where c.status = 'failed' limit most + 1)
      when condition = 'status' and status = 'failed' then array(
        select c.item_id from public.work_claims c
         where c.status = 'failed' and c.work_type = any (work_types)
           and (finishes[1] is null or c.finished_at >= finishes[1]) and (finishes[2] is null or c.finished_at <= finishes[2])
         limit most + 1)
      when condition = 'workflow' and workflow_ids is not null then array(
        select i.id from public.work_items i where i.workflow_id = any (workflow_ids) limit most + 1)
      when condition = 'class' and 1 <> all (class_ids) then array(
        select i.id from public.work_items i where i.class_id = any (class_ids) and i.class_id <> 1 limit most + 1)
      when condition = 'pool' and pools is not null then array(
        select i.id from public.work_items i where i.pool = any (pools) limit most + 1)
    end;
    if cardinality(ids) <= most then
      return ids;
    end if;
  end loop;
  return null;
end
$$;
comment on function work.items_left is 'The items that an index leaves of a list by one of its conditions, where these are at most so many; null where none does.';

-- Items in the order they came. The answer is {"rows", "next"}: give "next" as "after" for what is behind the page.
create or replace function public.list_items(
  selector jsonb default '{}',
  max_items integer default 100,
  after jsonb default null,
  with_payload boolean default false
)
returns jsonb
language plpgsql
stable
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
  reach integer;
  is_rare boolean := true;
  named_ids uuid[];
  share integer;
  walked text[];
  bound bigint;
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
  named_ids := work.one_of(read.exact, 'id')::uuid[];
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

  foreach reach in array array[greatest(4 * list_items.max_items, 400), 20000] loop
    ids := coalesce(named_ids, case when is_rare then work.items_left(
      reach / 2, workflow_ids => workflow_ids, class_ids => class_ids, source_keys => source_keys, dedupe_keys => dedupe_keys,
      pools => case when source_keys is not null or dedupe_keys is not null then pools end) end);
    -- These items are looked up; or else the pools are walked side by side, each for its share of the reach at most.
    walked := case when ids is null then pools else array[null] end;
    share := greatest(1, reach / cardinality(pools));
    bound := case when ids is null then (
      select min(b.seq)
        from unnest(pools) as p(name)
       cross join lateral (
         select i.seq from public.work_items i
          where i.pool = p.name
            and (after_seq is null or i.seq > after_seq)
            and (seqs[1] is null or i.seq >= seqs[1]) and (seqs[2] is null or i.seq <= seqs[2])
          order by i.seq
         offset share
          limit 1) as b) end;

    with found as materialized (
      select f.*
        from unnest(walked) as p(name)
       cross join lateral (
         select i.*
           from (
             select k.*
               from public.work_items k
              where (ids is not null or k.pool = p.name)
                and (ids is null or k.id = any (ids))
                and (after_seq is null or (k.seq, k.id) > (after_seq, after_id))
                and (seqs[1] is null or k.seq >= seqs[1]) and (seqs[2] is null or k.seq <= seqs[2])
                and (bound is null or k.seq <= bound)
              order by k.seq, k.id
             offset 0) as i
          where i.pool = any (pools)
            and (source_keys is null or i.source_key = any (source_keys))
            and (dedupe_keys is null or i.dedupe_key = any (dedupe_keys))
            and (workflow_ids is null or i.workflow_id = any (workflow_ids))
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
             'next', case
               when max(f.n) > list_items.max_items then
                 (select jsonb_build_object('seq', l.seq, 'id', l.id) from page l where l.n = list_items.max_items)
               when bound is not null then
                 jsonb_build_object('seq', bound, 'id', 'ffffffff-ffff-ffff-ffff-ffffffffffff')
             end)
      into answer
      from page f
      left join public.work_workflows w on w.id = f.workflow_id
      left join public.work_classes k on k.id = f.class_id;
    exit when bound is null or jsonb_array_length(answer -> 'rows') = list_items.max_items;
    is_rare := jsonb_array_length(answer -> 'rows') * 100 < share;
  end loop;
  return answer;
end
$$;
comment on function public.list_items is
  'Items that fit a selector, in the order they came: {"rows", "next"}. "next" given as "after" leads on; null: that was all. A page has at most max_items (1000), and fewer where one call would look at too many rows; their payloads with with_payload.';

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
  reach integer;
  is_rare boolean := true;
  named_ids uuid[];
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
  named_ids := work.one_of(read.exact, 'item_id')::uuid[];
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

  foreach reach in array array[greatest(4 * list_claims.max_items, 400), 20000] loop
    item_ids := coalesce(named_ids, case when is_rare then work.items_left(
      reach / 2, pools => pools, source_keys => source_keys, workflow_ids => workflow_ids, class_ids => class_ids,
      status => case when cardinality(statuses) = 1 then statuses[1] end, work_types => work_types,
      dues => dues, ends => ends, finishes => finishes) end);

    with found as materialized (
      -- An outer join, though each claim has its item: where nothing is asked of the item, the planner leaves it out. The
      -- last one that is looked at comes along, to go on from.
      select c.*, f.fits
        from (
          select k.*, nullif(k.expires_at, '-infinity') as lease_end,
                 row_number() over (order by k.item_id, k.work_type) as looked_at
            from public.work_claims k
           where (after_item is null or (k.item_id, k.work_type) > (after_item, after_type collate "C"))
             and (item_ids is null or k.item_id = any (item_ids))
           order by k.item_id, k.work_type
           limit case when item_ids is null then reach end) as c
        left join public.work_items i on i.id = c.item_id
       cross join lateral (
         select (work_types is null or c.work_type = any (work_types))
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
           and (ends[1] is null or c.lease_end >= ends[1]) and (ends[2] is null or c.lease_end <= ends[2])
           and (finishes[1] is null or c.finished_at >= finishes[1]) and (finishes[2] is null or c.finished_at <= finishes[2])
           and (class_ids is null or i.class_id = any (class_ids))
           and (judge is null
                or (select jsonb_strip_nulls(jsonb_build_object(
                     'item_id', c.item_id, 'work_type', c.work_type, 'status', c.status, 'pool', i.pool,
                     'source_key', i.source_key, 'priority', c.priority, 'position', c.position, 'affinity', i.affinity,
                     'worker_id', c.worker_id, 'fence', c.fence, 'request_id', c.request_id, 'failures', c.failures,
                     'crashes', c.crashes, 'progress', c.progress, 'error', c.error, 'due_at', c.due_at,
                     'claimed_at', c.claimed_at, 'expires_at', c.lease_end, 'finished_at', c.finished_at,
                     'workflow', case when 'workflow' = any (judged) then
                       (select w.name from public.work_workflows w where w.id = i.workflow_id) end))
                   || case when judged && '{labels,requires}' then
                        (select jsonb_build_object('labels', k.labels, 'requires', k.asks)
                           from public.work_classes k where k.id = i.class_id) else '{}' end
                   || case when 'result' = any (judged) and c.result is not null
                        then jsonb_build_object('result', c.result) else '{}' end
                   @@ judge)) as fits) as f
       where f.fits or (c.looked_at = reach and item_ids is null)
       order by c.item_id, c.work_type
       limit list_claims.max_items + 1
    ),
    page as materialized (
      select f.*, row_number() over (order by f.item_id, f.work_type) as n from found f where f.fits
    )
    select jsonb_build_object(
             'rows', coalesce(jsonb_agg(
               jsonb_build_object(
                 'item_id', f.item_id, 'work_type', f.work_type, 'status', f.status, 'pool', i.pool,
                 'source_key', i.source_key, 'priority', f.priority, 'position', f.position, 'workflow', w.name,
                 'affinity', i.affinity, 'worker_id', f.worker_id, 'fence', f.fence, 'request_id', f.request_id,
                 'failures', f.failures, 'crashes', f.crashes, 'progress', f.progress, 'error', f.error,
                 'due_at', f.due_at, 'claimed_at', f.claimed_at, 'expires_at', f.lease_end,
                 'finished_at', f.finished_at, 'labels', k.labels, 'requires', k.requires)
               || case when list_claims.with_result then jsonb_build_object('result', f.result) else '{}' end
               order by f.n) filter (where f.n <= list_claims.max_items), '[]'),
             'next', case
               when max(f.n) > list_claims.max_items then
                 (select jsonb_build_object('item_id', l.item_id, 'work_type', l.work_type) from page l
                   where l.n = list_claims.max_items)
               else
                 (select jsonb_build_object('item_id', l.item_id, 'work_type', l.work_type) from found l
                   where l.looked_at = reach and item_ids is null)
             end)
      into answer
      from page f
      join public.work_items i on i.id = f.item_id
      left join public.work_workflows w on w.id = i.workflow_id
      left join public.work_classes k on k.id = i.class_id;
    exit when answer -> 'next' = 'null' or jsonb_array_length(answer -> 'rows') = list_claims.max_items;
    is_rare := jsonb_array_length(answer -> 'rows') * 100 < reach;
  end loop;
  return answer;
end
$$;
comment on function public.list_claims is
  'Claims that fit a selector, in the order of their keys: {"rows", "next"}. "next" given as "after" leads on; null: that was all. A page has at most max_items (1000), and fewer where one call would look at too many rows; their results with with_result.';

-- Workers by id: what each has, holds and does. Alive is who was heard of within two minutes and has not left; free is
-- who is alive and holds nothing whose lease goes on. What is held is counted for all of them at once.
create or replace function public.list_workers(
  selector jsonb default '{}',
  max_items integer default 100,
  after text default null
)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  checked boolean := work.check_page(list_workers.max_items);
  read record;
  ids text[];
  judge jsonpath;
  judged text[];
  moment timestamptz := clock_timestamp();
  reach constant integer := 20000;
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
    select w.*, s.holds, s.is_alive, s.is_alive and s.holds = 0 as is_free, f.fits
      from (
        select k.*, row_number() over (order by k.id) as looked_at
          from public.work_workers k
         where (list_workers.after is null or k.id > list_workers.after)
           and (ids is null or k.id = any (ids))
         order by k.id
         limit reach) as w
     -- Looked up once a worker, though both are named several times.
     cross join lateral (
       select coalesce((select g.holds from held g where g.worker_id = w.id), 0) as holds,
              (select l.id from work.live_workers l where l.id = w.id) is not null as is_alive
       offset 0) as s
     cross join lateral (
       select judge is null
            or (select jsonb_strip_nulls(jsonb_build_object(
                 'id', w.id, 'instance', w.instance, 'version', w.version, 'alive', s.is_alive,
                 'free', s.is_alive and s.holds = 0, 'holds', s.holds, 'exclusive', w.exclusive,
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
               @@ judge) as fits) as f
     where f.fits or w.looked_at = reach
     order by w.id
     limit list_workers.max_items + 1
  ),
  page as materialized (
    select f.*, row_number() over (order by f.id) as n from found f where f.fits
  )
  select jsonb_build_object(
           'rows', coalesce(jsonb_agg(
             jsonb_build_object(
               'id', f.id, 'alive', f.is_alive, 'free', f.is_free, 'holds', f.holds, 'work_types', f.work_types,
               'capabilities', f.capabilities, 'accepts', f.accepts, 'exclusive', f.exclusive,
               'yield_seconds', f.yield_seconds, 'version', f.version, 'instance', f.instance,
               'registered_at', f.registered_at, 'last_seen_at', f.last_seen_at, 'retired_at', f.retired_at)
             order by f.n) filter (where f.n <= list_workers.max_items), '[]'),
           'next', case
             when max(f.n) > list_workers.max_items then (select to_jsonb(l.id) from page l where l.n = list_workers.max_items)
             else (select to_jsonb(l.id) from found l where l.looked_at = reach)
           end)
    into answer
    from page f;
  return answer;
end
$$;
comment on function public.list_workers is
  'Workers that fit a selector, by id, with what each has, does and holds: {"rows", "next"}. "next" given as "after" leads on; null: that was all. A page has at most max_items (1000), and fewer where one call would look at too many rows.';
