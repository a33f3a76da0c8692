-- Workers: the processes that claim. A claim needs no registered worker; a registered one is seen in the views.
create table if not exists public.work_workers (
  id text primary key check (length(id) between 1 and 200),
  instance uuid not null,
  work_types text[],
  capabilities jsonb not null default '{}' check (jsonb_typeof(capabilities) = 'object'),
  version text check (length(version) <= 200),
  accepts jsonb not null default '{}',
  exclusive text[] not null default '{}',
  yield_seconds integer,
  profile_id integer not null default 1 references work.profiles (id),
  registered_at timestamptz not null default clock_timestamp(),
  last_seen_at timestamptz not null default clock_timestamp(),
  retired_at timestamptz
);
comment on table public.work_workers is
  'work-claims: one row a worker process: its work types, capabilities and conditions, and when it was last seen. A row is deleted when its worker was not seen for a week; one that accepts only some items, after 90 days.';
comment on column public.work_workers.capabilities is 'Its capabilities: it gets no items that require more.';
comment on column public.work_workers.accepts is 'A condition on the labels of items: it is not given items that do not meet it.';
comment on column public.work_workers.exclusive is
  'Capabilities too dear for items that do not need them: such items are left to others for yield_seconds, or for good where that is null.';
comment on column public.work_workers.profile_id is 'Its row in work.profiles, with the classes that it matches.';
create index if not exists work_workers_by_profile on public.work_workers (profile_id);
comment on index public.work_workers_by_profile is 'Which workers have this profile?';

-- Delete workers that were not seen for long, and profiles that no worker has. Locked rows are left to the next call.
create or replace function work.forget_workers()
returns void
language plpgsql
as $$
begin
  delete from public.work_workers w
   where w.ctid = any (array(
           select s.ctid from public.work_workers s
            where s.last_seen_at < clock_timestamp() - interval '7 days'
              -- A worker that accepts only some items would be given all kinds, should it call again without a row.
              and (s.retired_at is not null or (s.accepts = '{}' and s.exclusive = '{}')
                or s.last_seen_at < clock_timestamp() - interval '90 days')
              for update skip locked));
  delete from work.profiles p
   where p.ctid = any (array(
           select s.ctid from work.profiles s
            where s.id <> 1 and s.used_at < clock_timestamp() - interval '1 day'
              and not exists (select from public.work_workers w where w.profile_id = s.id)
              for update skip locked));
end
$$;

-- These work types with their further claims: a worker of the first does the others too.
create or replace function work.with_copies(work_types text[])
returns text[]
language plpgsql
stable
as $$
begin
  return work_types || array(
    select t.name from public.work_types t
     where t.copy_of = any (work_types) and t.name <> all (work_types)
     order by length(t.name), t.name);
end
$$;

-- Register a worker process with its capabilities and conditions; again when these change. The process draws the instance:
-- the same id from another process is refused while the first one is alive, that is, was seen within a minute.
create or replace function public.register_worker(
  worker_id text,
  instance uuid,
  work_types text[] default null,
  capabilities jsonb default '{}',
  version text default null,
  accepts jsonb default '{}',
  exclusive text[] default '{}',
  yield_seconds integer default null
)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  profile integer;
begin
  perform work.check_name('worker_id', register_worker.worker_id);
  if register_worker.instance is null then
    perform work.refuse('instance', null, 'a uuid that the process drew was expected');
  end if;
  perform work.check_properties('capabilities', register_worker.capabilities, 65536);
  if register_worker.accepts is null then
    perform work.refuse('accepts', null, 'a condition on labels was expected; {} accepts all');
  end if;
  if length(register_worker.version) > 200 then
    perform work.refuse('version', register_worker.version, 'at most 200 characters were expected');
  end if;
  if cardinality(register_worker.work_types) > 1000 then
    perform work.refuse('work_types', cardinality(register_worker.work_types) || ' long', 'at most 1000 were expected');
  end if;
  if register_worker.exclusive is null or cardinality(register_worker.exclusive) > 100
    or exists (select from unnest(register_worker.exclusive) as u(name) where u.name is null) then
    perform work.refuse('exclusive', register_worker.exclusive::text, 'a list of at most 100 names of capabilities was expected');
  end if;
  perform work.check_range('yield_seconds', register_worker.yield_seconds, 1, 604800);
  if register_worker.yield_seconds is not null and register_worker.exclusive = '{}' then
    perform work.refuse('yield_seconds', register_worker.yield_seconds::text,
      'it goes with exclusive, the capabilities that other items do not need');
  end if;
  if register_worker.work_types is not null then
    register_worker.work_types := work.with_copies(register_worker.work_types);
  end if;
  perform work.forget_workers();
  profile := work.profile_of(
    register_worker.capabilities, register_worker.accepts, register_worker.exclusive, register_worker.yield_seconds);

  insert into public.work_workers as w
    (id, instance, work_types, capabilities, version, accepts, exclusive, yield_seconds, profile_id)
  values (register_worker.worker_id, register_worker.instance, register_worker.work_types,
          register_worker.capabilities, register_worker.version, register_worker.accepts,
          register_worker.exclusive, register_worker.yield_seconds, profile)
  on conflict (id) do update
     set instance = excluded.instance,
         work_types = excluded.work_types,
         capabilities = excluded.capabilities,
         version = excluded.version,
         accepts = excluded.accepts,
         exclusive = excluded.exclusive,
         yield_seconds = excluded.yield_seconds,
         profile_id = excluded.profile_id,
         registered_at = clock_timestamp(),
         last_seen_at = clock_timestamp(),
         retired_at = null
   where w.instance = excluded.instance
      or w.retired_at is not null
      or w.last_seen_at < clock_timestamp() - interval '1 minute';
  if not found then
    perform work.refuse(
      'worker_id', register_worker.worker_id,
      'a living worker has that id; give each process its own, or wait a minute after one has died', 'PT409');
  end if;
  return jsonb_build_object('worker_id', register_worker.worker_id);
end
$$;
comment on function public.register_worker is
  'Registers a worker process with what it has (capabilities) and takes (accepts, exclusive). Call it again when that changes. An id that is alive in another process is refused (409).';

-- Retire a worker: its claims go back at once, and no try is counted. True where it was registered.
create or replace function public.retire_worker(worker_id text)
returns boolean
language plpgsql
as $$
#variable_conflict use_column
begin
  perform public.release_claims_for_worker(retire_worker.worker_id);
  update public.work_workers w
     set retired_at = clock_timestamp()
   where w.id = retire_worker.worker_id and w.retired_at is null;
  return found;
end
$$;
comment on function public.retire_worker is 'Retires a worker: its claims go back at once. True where it was registered.';

-- Note that a worker is alive, at most once in five seconds.
create or replace function work.touch_worker(worker_id text)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  recently timestamptz := clock_timestamp() - interval '5 seconds';
begin
  update public.work_workers w
     set last_seen_at = clock_timestamp(), retired_at = null
   where w.ctid = any (array(
           -- Skip locked: another call of the worker may hold the row, and wait for claims that this call holds.
           select s.ctid from public.work_workers s
            where s.id = touch_worker.worker_id and s.last_seen_at < recently
              for no key update skip locked));
end
$$;

-- The one rule for a live worker: an idle worker looks for work every few seconds, a busy one extends its leases.
create or replace view work.live_workers with (security_invoker = true) as
select w.id, w.work_types, w.profile_id, p.capabilities, p.accepts_path, p.accepts_clauses, p.exclusive, p.yield_seconds
  from public.work_workers w
  join work.profiles p on p.id = w.profile_id
 where w.retired_at is null and w.last_seen_at > now() - interval '2 minutes';
comment on view work.live_workers is 'work-claims: the workers that were seen within two minutes and have not retired, with their capabilities and conditions.';

-- Answer each of these work types as a worker needs it: whether it is declared and handed out, which version of a worker
-- it asks for, why it was stopped, its further claims, and what of it is left: ready now, held by workers or to be tried again (open), or parked.
create or replace function public.describe_work_types(work_types text[])
returns json
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
begin
  if describe_work_types.work_types is null or cardinality(describe_work_types.work_types) not between 1 and 100 then
    perform work.refuse('work_types', coalesce(cardinality(describe_work_types.work_types) || ' long', 'null'),
      'a list of 1 to 100 work types was expected');
  end if;
  -- With a plain equality the planner may read all claims into a hash table, for one question.
  return (
    select json_agg(json_build_object(
             'name', asked.name,
             'is_declared', t.name is not null,
             'pool', t.pool,
             'is_paused', coalesce(t.paused, false),
             'stopped', t.stopped,
             'copies', (
               select coalesce(json_agg(k.name order by length(k.name), k.name), '[]') from public.work_types k where k.copy_of = asked.name),
             'min_worker_version', t.min_worker_version,
             'has_ready', exists (
               select from public.work_claims c
                where c.work_type = any (array[asked.name]) and c.status = 'ready' and c.class_id > 0)
               or exists (
               select from public.work_claims c
                where c.work_type = any (array[asked.name]) and c.status = 'waiting' and c.due_at <= moment),
             -- A claim that has a fence was held before: it waits for another try.
             'has_open', exists (
               select from public.work_claims c
                where c.work_type = any (array[asked.name]) and c.status = 'claimed' and c.poll_at is null)
               or exists (
               select from public.work_claims c
                where c.work_type = any (array[asked.name]) and c.status = 'waiting' and c.fence is not null)
               -- Upkeep still opens claims that succeeded under an older version.
               or t.redone_through is not null,
             'has_parked', exists (
               select from public.work_claims c
                where c.work_type = any (array[asked.name]) and c.status = 'claimed' and c.poll_at is not null))
             order by asked.n)
      from unnest(describe_work_types.work_types) with ordinality as asked(name, n)
      left join public.work_types t on t.name = asked.name);
end
$$;
comment on function public.describe_work_types is
  'Answers each of these work types as a worker asks: [{name, is_declared, pool, is_paused, stopped, copies, min_worker_version, has_ready, has_open, has_parked}]. open: held by workers, or to be tried again; parked: done elsewhere.';
