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

-- Refuse a name that is for the further claims of a work type, unless they are there.
create or replace function work.check_own_name(work_type text)
returns void
language plpgsql
as $$
begin
  if check_own_name.work_type ~ '#[0-9]+$'
    and not exists (select from public.work_types t where t.name = check_own_name.work_type) then
    perform work.refuse('work_type', check_own_name.work_type,
      'a name that ends in # and a number is for the further claims of a work type; several => 2 makes them');
  end if;
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

  perform work.check_own_name(define_work_type.work_type);
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

