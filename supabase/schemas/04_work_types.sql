-- Work types: the kinds of work on the items of a pool, and their rules.
create table if not exists public.work_types (
  -- Compared byte by byte, here and in the claims: a claim call compares little else.
  name text collate "C" primary key check (length(name) between 1 and 200),
  pool text,
  lease_seconds integer not null default 60 check (lease_seconds between 1 and 86400),
  max_failures integer not null default 3 check (max_failures between 1 and 1000),
  max_crashes integer not null default 5 check (max_crashes between 1 and 1000),
  backoff_seconds integer not null default 10 check (backoff_seconds between 0 and 86400),
  backoff_limit_seconds integer not null default 3600 check (backoff_limit_seconds between 0 and 604800),
  passed_over_seconds integer not null default 300 check (passed_over_seconds between 0 and 604800),
  paused boolean not null default false,
  try_seconds integer check (try_seconds between 1 and 604800),
  min_worker_version text check (min_worker_version ~ '^\d{1,9}(\.\d{1,9}){0,3}$'),
  input_columns text[],
  on_change text check (on_change in ('again', 'keep')),
  version integer not null default 1 check (version between 1 and 1000000000),
  version_at timestamptz,
  redone_through uuid,
  depends_on text[] not null default '{}',
  on_failed_need text not null default 'wait' check (on_failed_need in ('wait', 'fail', 'run')),
  apply text,
  into_column text,
  history text not null default 'unhappy' check (history in ('unhappy', 'full')),
  keep_events integer not null default 20 check (keep_events between 1 and 1000),
  on_dead_end text not null default 'go_on' check (on_dead_end in ('go_on', 'stop')),
  stopped text,
  several integer not null default 1 check (several between 1 and 100),
  copy_of text collate "C",
  payload_schema jsonb,
  result_schema jsonb,
  is_plain boolean not null default true,
  enrolled_through bigint not null default 0,
  enroll_until bigint not null default 0,
  keep_succeeded interval check (keep_succeeded >= '0'),
  keep_failed interval check (keep_failed >= '0'),
  pruned_through uuid,
  pruned_at timestamptz,
  created_at timestamptz not null default clock_timestamp()
);
comment on table public.work_types is
  'work-claims: one row a work type, with its rules. define_work_type() writes it; a work type that is first seen in claim_items() gets the defaults.';
comment on column public.work_types.pool is 'The pool whose items are enrolled for this work; null: only claim_items() makes claims.';
comment on column public.work_types.max_failures is 'A claim ends failed when its handler has failed so often.';
comment on column public.work_types.max_crashes is 'A claim ends failed when its lease has ended so often without a release.';
comment on column public.work_types.backoff_seconds is 'The wait after the first failure; it doubles with each further one, up to backoff_limit_seconds.';
comment on column public.work_types.passed_over_seconds is
  'How long an item may wait while workers take others of its priority that they are warm for.';
comment on column public.work_types.try_seconds is
  'How long a handler may take for one try; null: as long as its worker extends the lease. The worker ends the try.';
comment on column public.work_types.min_worker_version is 'Workers with a lower version, or without one, leave: "1.4.2".';
comment on column public.work_types.keep_succeeded is
  'How long the record of a success is kept; null: for ever. Claim calls remove what is older, in passing.';
comment on column public.work_types.keep_failed is 'How long a failed or cancelled claim is kept; null: for ever.';
comment on column public.work_types.pruned_through is 'The last item that pruning has looked at; null: it begins anew.';
comment on column public.work_types.enrolled_through is 'The seq of the last past item that enroll_pool() has enrolled.';
comment on column public.work_types.input_columns is
  'The members of the payload that are its input; null: the whole payload, or the fingerprint that the item came with.';
comment on column public.work_types.on_change is
  'again: done work whose input changed is done again; keep: it stays done. null: again where input_columns are named or the item has a fingerprint.';
comment on column public.work_types.version is 'Raised, all that was claimed before version_at is done again.';
comment on column public.work_types.redone_through is 'How far claims of older versions have been reopened; null: none are left.';
comment on column public.work_types.depends_on is 'The work types that must have succeeded on an item before.';
comment on column public.work_types.on_failed_need is
  'A need that ended failed or cancelled: wait for it, fail with it, or run anyway.';
comment on column public.work_types.apply is 'The function (item jsonb, result jsonb) that runs inside of each successful release.';
comment on column public.work_types.into_column is 'The column of the attached table that gets each result.';
comment on column public.work_types.history is 'Which steps are recorded in work_events: unhappy, or full.';
comment on column public.work_types.keep_events is 'How many events of one claim are kept.';
comment on column public.work_types.on_dead_end is 'A claim failed for good: go_on, or stop the work type.';
comment on column public.work_types.stopped is 'Why the work type was stopped at a claim that failed for good.';
comment on column public.work_types.several is 'How many claims each item has; the others are of the work types NAME#2, NAME#3, ….';
comment on column public.work_types.copy_of is 'The work type that this one is a further claim of.';
comment on column public.work_types.payload_schema is 'The JSON schema of payloads, for forms. Clients and workers judge by it, the database does not.';
comment on column public.work_types.is_plain is
  'Nothing follows from the end of its claims: none waits for them, none reopens, no result is applied, no step is recorded.';
comment on column public.work_types.enroll_until is
  'The seq of the last item that was there when the work type got its pool; later ones are enrolled as they come.';

create index if not exists work_types_not_plain on public.work_types (name) where not is_plain;
comment on index public.work_types_not_plain is 'From the end of which work types'' claims does something follow?';

-- Inserting items and declaring a work type for their pool must not pass each other: an insert shares this advisory
-- lock, a declaration takes it alone.
create or replace function work.pool_lock_key(pool text)
returns bigint
language sql
immutable
as $$ select hashtextextended('work-claims pool ' || pool, 0) $$;

-- Refuse values that no work type can have. Null passes: it keeps the present value.
create or replace function work.check_rules(rules jsonb)
returns void
language plpgsql
as $$
declare
  wrong record;
begin
  perform work.check_range(l.rule, (rules ->> l.rule)::bigint, l.low, l.high)
     from (values
       ('lease_seconds', 1, 86400), ('max_failures', 1, 1000), ('max_crashes', 1, 1000), ('backoff_seconds', 0, 86400),
       ('backoff_limit_seconds', 0, 604800), ('passed_over_seconds', 0, 604800), ('try_seconds', 1, 604800),
       ('version', 1, 1000000000), ('keep_events', 1, 1000), ('several', 1, 100)) as l(rule, low, high);
  select o.* into wrong
    from (values
      ('on_change', 'again or keep', '{again,keep}'),
      ('on_failed_need', 'wait, fail or run', '{wait,fail,run}'),
      ('history', 'unhappy or full', '{unhappy,full}'),
      ('on_dead_end', 'go_on or stop', '{go_on,stop}')) as o(rule, expected, allowed)
   where rules ->> o.rule <> all (o.allowed::text[])
   limit 1;
  if found then
    perform work.refuse(wrong.rule, rules ->> wrong.rule, wrong.expected || ' was expected');
  end if;
  if rules ->> 'min_worker_version' !~ '^\d{1,9}(\.\d{1,9}){0,3}$' then
    perform work.refuse('min_worker_version', rules ->> 'min_worker_version',
      'numbers with points between them were expected, such as 1.4.2');
  end if;
  if least((rules ->> 'keep_succeeded')::interval, (rules ->> 'keep_failed')::interval) < '0' then
    perform work.refuse(
      'keep_succeeded or keep_failed', least((rules ->> 'keep_succeeded')::interval, (rules ->> 'keep_failed')::interval)::text,
      'an interval such as "30 days" was expected');
  end if;
end
$$;

-- Give the further claims of an item's work type, NAME#2 and on, the rules of the first.
create or replace function work.define_copies(declared public.work_types)
returns void
language plpgsql
as $$
declare
  foreign_type text;
begin
  if declared.copy_of is not null then
    return;
  end if;
  if declared.several > 1 and length(declared.name) > 196 then
    perform work.refuse('work_type', declared.name, 'a work type with several claims an item has a name of at most 196 characters');
  end if;
  select t.name into foreign_type
    from generate_series(2, declared.several) as n
    join public.work_types t on t.name = declared.name || '#' || n and t.copy_of is distinct from declared.name;
  if found then
    perform work.refuse('several', declared.several::text,
      format('%s is a work type of its own, and would have to be a further claim of %s', foreign_type, declared.name), 'PT409');
  end if;
  if exists (
    select from generate_series(2, declared.several) as n
     where not exists (select from public.work_types t where t.name = declared.name || '#' || n)) then
    if declared.pool is not null then
      perform pg_advisory_xact_lock(work.pool_lock_key(declared.pool));
    end if;
    -- The present items are earlier ones for the further claims: enroll_pool() enrols them.
    insert into public.work_types
    select c.*
      from generate_series(2, declared.several) as n
     cross join lateral jsonb_populate_record(
       declared, jsonb_build_object('name', declared.name || '#' || n, 'copy_of', declared.name, 'into_column', null,
         'enrolled_through', 0, 'enroll_until',
         coalesce((select max(i.seq) from public.work_items i where i.pool = declared.pool), 0))) as c
    on conflict do nothing;
  end if;
  update public.work_types t
     set pool = declared.pool,
         enroll_until = case when t.pool is null then declared.enroll_until else t.enroll_until end,
         lease_seconds = declared.lease_seconds, max_failures = declared.max_failures, max_crashes = declared.max_crashes,
         backoff_seconds = declared.backoff_seconds, backoff_limit_seconds = declared.backoff_limit_seconds,
         passed_over_seconds = declared.passed_over_seconds, paused = declared.paused, try_seconds = declared.try_seconds,
         min_worker_version = declared.min_worker_version, keep_succeeded = declared.keep_succeeded,
         keep_failed = declared.keep_failed, input_columns = declared.input_columns, on_change = declared.on_change,
         version = declared.version, version_at = declared.version_at, redone_through = declared.redone_through,
         depends_on = declared.depends_on, on_failed_need = declared.on_failed_need, apply = declared.apply,
         history = declared.history, keep_events = declared.keep_events, on_dead_end = declared.on_dead_end,
         stopped = declared.stopped, several = declared.several, payload_schema = declared.payload_schema,
         result_schema = declared.result_schema, is_plain = declared.is_plain
   where t.copy_of = declared.name;
end
$$;

-- Declare a work type, or change its rules: an argument that is null keeps its value, '{}' or '' takes it away. Later items
-- are enrolled as they come; enroll_pool() enrols the present ones.
create or replace function public.define_work_type(
  work_type text,
  pool text default null,
  lease_seconds integer default null,
  max_failures integer default null,
  max_crashes integer default null,
  backoff_seconds integer default null,
  backoff_limit_seconds integer default null,
  paused boolean default null,
  passed_over_seconds integer default null,
  keep_succeeded interval default null,
  keep_failed interval default null,
  try_seconds integer default null,
  min_worker_version text default null,
  depends_on text[] default null,
  on_failed_need text default null,
  input_columns text[] default null,
  on_change text default null,
  version integer default null,
  apply text default null,
  into_column text default null,
  history text default null,
  keep_events integer default null,
  on_dead_end text default null,
  several integer default null,
  payload_schema jsonb default null,
  result_schema jsonb default null
)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  before public.work_types;
  declared public.work_types;
begin
  perform work.check_name('work_type', define_work_type.work_type);
  perform work.check_rules(jsonb_build_object(
    'lease_seconds', lease_seconds, 'max_failures', max_failures, 'max_crashes', max_crashes, 'try_seconds', try_seconds,
    'backoff_seconds', backoff_seconds, 'backoff_limit_seconds', backoff_limit_seconds,
    'passed_over_seconds', passed_over_seconds, 'min_worker_version', min_worker_version, 'keep_succeeded', keep_succeeded,
    'keep_failed', keep_failed, 'on_failed_need', on_failed_need, 'on_change', on_change, 'version', version,
    'history', history, 'keep_events', keep_events, 'on_dead_end', on_dead_end, 'several', several));
  if define_work_type.pool is not null then
    perform work.check_pool(define_work_type.pool);
    perform pg_advisory_xact_lock(work.pool_lock_key(define_work_type.pool));
  end if;

  if define_work_type.work_type ~ '#[0-9]+$'
    and not exists (select from public.work_types t where t.name = define_work_type.work_type) then
    perform work.refuse('work_type', define_work_type.work_type,
      'a name that ends in # and a number is for the further claims of a work type; several => 2 makes them');
  end if;
  insert into public.work_types (name) values (define_work_type.work_type) on conflict do nothing;
  select * into before from public.work_types t where t.name = define_work_type.work_type for update;
  if before.pool <> define_work_type.pool then
    perform work.refuse(
      'pool', define_work_type.pool,
      format('work type %s belongs to pool %s; give the other pool a work type of its own',
        define_work_type.work_type, before.pool),
      'PT409');
  end if;

  update public.work_types t
     set pool = coalesce(define_work_type.pool, t.pool),
         enroll_until = case
           when t.pool is null and define_work_type.pool is not null
             then coalesce((select max(i.seq) from public.work_items i where i.pool = define_work_type.pool), 0)
           else t.enroll_until
         end,
         lease_seconds = coalesce(define_work_type.lease_seconds, t.lease_seconds),
         max_failures = coalesce(define_work_type.max_failures, t.max_failures),
         max_crashes = coalesce(define_work_type.max_crashes, t.max_crashes),
         backoff_seconds = coalesce(define_work_type.backoff_seconds, t.backoff_seconds),
         backoff_limit_seconds = coalesce(define_work_type.backoff_limit_seconds, t.backoff_limit_seconds),
         paused = coalesce(define_work_type.paused, t.paused),
         stopped = case when define_work_type.paused is null then t.stopped end,
         passed_over_seconds = coalesce(define_work_type.passed_over_seconds, t.passed_over_seconds),
         keep_succeeded = coalesce(define_work_type.keep_succeeded, t.keep_succeeded),
         keep_failed = coalesce(define_work_type.keep_failed, t.keep_failed),
         try_seconds = coalesce(define_work_type.try_seconds, t.try_seconds),
         min_worker_version = coalesce(define_work_type.min_worker_version, t.min_worker_version),
         depends_on = coalesce(define_work_type.depends_on, t.depends_on),
         on_failed_need = coalesce(define_work_type.on_failed_need, t.on_failed_need),
         input_columns = nullif(coalesce(define_work_type.input_columns, t.input_columns), '{}'),
         on_change = coalesce(define_work_type.on_change, t.on_change),
         version = coalesce(define_work_type.version, t.version),
         version_at = case when define_work_type.version > t.version then clock_timestamp() else t.version_at end,
         redone_through = case
           when define_work_type.version > t.version then '00000000-0000-0000-0000-000000000000'
           else t.redone_through
         end,
         apply = nullif(coalesce(define_work_type.apply, t.apply), ''),
         into_column = nullif(coalesce(define_work_type.into_column, t.into_column), ''),
         history = coalesce(define_work_type.history, t.history),
         keep_events = coalesce(define_work_type.keep_events, t.keep_events),
         on_dead_end = coalesce(define_work_type.on_dead_end, t.on_dead_end),
         several = coalesce(define_work_type.several, t.several),
         payload_schema = coalesce(define_work_type.payload_schema, t.payload_schema),
         result_schema = coalesce(define_work_type.result_schema, t.result_schema)
   where t.name = define_work_type.work_type
  returning * into declared;
  return to_jsonb(work.settle_rules(before, declared));
end
$$;
comment on function public.define_work_type is
  'Declares a work type for a pool, or changes its rules; a null argument keeps its value. Later items are enrolled as they come, enroll_pool() enrols the present ones.';

-- Check what the rules name, and make what follows from a change of them.
create or replace function work.settle_rules(before public.work_types, declared public.work_types)
returns public.work_types
language plpgsql
as $$
#variable_conflict use_column
begin
  if declared.several < before.several then
    perform work.refuse('several', declared.several::text,
      format('%s has %s claims an item already; that number only grows', declared.name, before.several), 'PT409');
  end if;
  if declared.copy_of is not null and declared.several <> before.several then
    perform work.refuse('several', declared.several::text,
      format('%s is a further claim of %s; declare the number there', declared.name, declared.copy_of), 'PT409');
  end if;
  if declared.version < before.version then
    perform work.refuse('version', declared.version::text, format('%s is at version %s; a version only grows', declared.name, before.version), 'PT409');
  end if;
  if declared.apply is distinct from before.apply and declared.apply is not null then
    perform work.apply_function(declared.apply);
  end if;
  if declared.into_column is not null then
    perform work.check_into(declared);
  end if;
  perform work.check_input_columns(declared);
  perform work.check_depends_on(declared);
  perform work.unplain(array(
    select t.name
      from public.work_types t
     where t.name = any (declared.depends_on) or t.copy_of = any (declared.depends_on)
       or (t.name = declared.name
         and (declared.depends_on <> '{}' or declared.input_columns is not null or declared.on_change = 'again'
           or declared.apply is not null or declared.into_column is not null or declared.version_at is not null
           or declared.history = 'full' or declared.on_dead_end = 'stop'
           or exists (select from public.work_workflows w where w.is_gathered)))));
  select * into declared from public.work_types t where t.name = declared.name;
  perform work.define_copies(declared);
  if declared.depends_on <> before.depends_on then
    perform work.count_needs_of_type(declared.name);
  end if;
  return declared;
end
$$;

-- From the end of these work types' claims something follows from here on. Releases that are under way end first: they
-- do not look for it. The caller has not written claims yet.
create or replace function work.unplain(work_types text[])
returns void
language plpgsql
as $$
begin
  if exists (select from public.work_types t where t.name = any (work_types) and t.is_plain) then
    lock table public.work_claims in share row exclusive mode;
    update public.work_types t set is_plain = false where t.name = any (work_types) and t.is_plain;
  end if;
end
$$;

-- Refuse input columns that the items of an attached pool do not carry.
create or replace function work.check_input_columns(declared public.work_types)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  missing text;
begin
  select c.name into missing
    from public.work_pools p
   cross join unnest(declared.input_columns) as c(name)
   where p.name = declared.pool and p.source is not null
     and (c.name <> all (coalesce(p.payload_columns, array[c.name]))
       or not exists (
         select from pg_catalog.pg_attribute a
          where a.attrelid = p.source and a.attname = c.name and a.attnum > 0 and not a.attisdropped))
   limit 1;
  if found then
    perform work.refuse('input_columns', missing,
      format('a column of the table that items of pool %s carry was expected; attach_pool() names these in payload_columns', declared.pool));
  end if;
end
$$;

-- Refuse to depend on a work type that is not there, is of another pool, or depends on this one.
create or replace function work.check_depends_on(declared public.work_types)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  wrong record;
  cycle text;
begin
  if declared.depends_on = '{}' then
    return;
  end if;
  select d.name, t.pool, t.name is null as is_missing into wrong
    from unnest(declared.depends_on) as d(name)
    left join public.work_types t on t.name = d.name
   where t.name is null or t.pool is distinct from declared.pool
   limit 1;
  if found then
    perform work.refuse('depends_on', wrong.name, case
      when wrong.is_missing then 'there is no such work type; define it before'
      else format('it is of pool %s, and %s of pool %s; items of two pools are bound by needs', coalesce(wrong.pool, 'none'),
        declared.name, coalesce(declared.pool, 'none')) end,
      case when wrong.is_missing then 'PT404' else 'PT400' end);
  end if;
  with recursive up(name, path) as (
    select d.name, array[declared.name, d.name] from unnest(declared.depends_on) as d(name)
    union all
    select d.name, u.path || d.name
      from up u
      join public.work_types t on t.name = u.name
     cross join unnest(t.depends_on) as d(name)
     where u.name <> declared.name and cardinality(u.path) < 100
  )
  select array_to_string(u.path, ' → ') into cycle from up u where u.name = declared.name limit 1;
  if found then
    perform work.refuse('depends_on', declared.depends_on::text, format('that is a cycle: %s', cycle));
  end if;
end
$$;

-- Count anew what all open claims of a work type wait for, since it depends on others than before.
create or replace function work.count_needs_of_type(work_type text)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  page uuid[];
begin
  for page in
    select array_agg(n.item_id)
      from (select c.item_id, row_number() over (order by c.item_id) / 1000 as page
              from public.work_claims c
             where c.work_type = count_needs_of_type.work_type) as n
     group by n.page
     order by n.page
  loop
    perform work.count_needs(page, array[count_needs_of_type.work_type]);
  end loop;
end
$$;
