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
comment on column public.work_types.enroll_until is
  'The seq of the last item that was there when the work type got its pool; later ones are enrolled as they come.';

-- Inserting items and declaring a work type for their pool must not pass each other: an insert shares this advisory
-- lock, a declaration takes it alone.
create or replace function work.pool_lock_key(pool text)
returns bigint
language sql
immutable
as $$ select hashtextextended('work-claims pool ' || pool, 0) $$;

-- Declare a work type, or change its rules: an argument that is null keeps its value. Later items are enrolled as they
-- come; enroll_pool() enrols the present ones.
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
  min_worker_version text default null
)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  declared public.work_types;
begin
  perform work.check_name('work_type', define_work_type.work_type);
  perform work.check_range('lease_seconds', define_work_type.lease_seconds, 1, 86400);
  perform work.check_range('max_failures', define_work_type.max_failures, 1, 1000);
  perform work.check_range('max_crashes', define_work_type.max_crashes, 1, 1000);
  perform work.check_range('backoff_seconds', define_work_type.backoff_seconds, 0, 86400);
  perform work.check_range('backoff_limit_seconds', define_work_type.backoff_limit_seconds, 0, 604800);
  perform work.check_range('passed_over_seconds', define_work_type.passed_over_seconds, 0, 604800);
  perform work.check_range('try_seconds', define_work_type.try_seconds, 1, 604800);
  if define_work_type.min_worker_version !~ '^\d{1,9}(\.\d{1,9}){0,3}$' then
    perform work.refuse('min_worker_version', define_work_type.min_worker_version,
      'numbers with points between them were expected, such as 1.4.2');
  end if;
  if define_work_type.keep_succeeded < '0' or define_work_type.keep_failed < '0' then
    perform work.refuse(
      'keep_succeeded or keep_failed', least(define_work_type.keep_succeeded, define_work_type.keep_failed)::text,
      'an interval such as "30 days" was expected');
  end if;
  if define_work_type.pool is not null then
    perform work.check_pool(define_work_type.pool);
    perform pg_advisory_xact_lock(work.pool_lock_key(define_work_type.pool));
  end if;

  insert into public.work_types (name) values (define_work_type.work_type) on conflict do nothing;
  select * into declared from public.work_types t where t.name = define_work_type.work_type for update;
  if declared.pool <> define_work_type.pool then
    perform work.refuse(
      'pool', define_work_type.pool,
      format('work type %s belongs to pool %s; give the other pool a work type of its own',
        define_work_type.work_type, declared.pool),
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
         passed_over_seconds = coalesce(define_work_type.passed_over_seconds, t.passed_over_seconds),
         keep_succeeded = coalesce(define_work_type.keep_succeeded, t.keep_succeeded),
         keep_failed = coalesce(define_work_type.keep_failed, t.keep_failed),
         try_seconds = coalesce(define_work_type.try_seconds, t.try_seconds),
         min_worker_version = coalesce(define_work_type.min_worker_version, t.min_worker_version)
   where t.name = define_work_type.work_type
  returning * into declared;
  return to_jsonb(declared);
end
$$;
comment on function public.define_work_type is
  'Declares a work type for a pool, or changes its rules; a null argument keeps its value. Later items are enrolled as they come, enroll_pool() enrols the present ones.';
