-- Workers: who is there. A claim needs no registered worker; a registered one is seen in the views.
create table if not exists public.work_workers (
  id text primary key check (length(id) between 1 and 200),
  instance uuid not null,
  work_types text[],
  capabilities jsonb not null default '{}' check (jsonb_typeof(capabilities) = 'object'),
  version text check (length(version) <= 200),
  registered_at timestamptz not null default clock_timestamp(),
  last_seen_at timestamptz not null default clock_timestamp(),
  retired_at timestamptz
);
alter table public.work_workers
  add column if not exists accepts jsonb not null default '{}',
  add column if not exists exclusive text[] not null default '{}',
  add column if not exists yield_seconds integer,
  add column if not exists profile_id integer not null default 1 references work.profiles (id);
comment on table public.work_workers is
  'work-claims: one row a worker process: what it does, has and takes, and when it was last heard of. Rows of workers not heard of for a week go by themselves, of those that accept only some items after 90 days.';
comment on column public.work_workers.capabilities is 'What it has: items that require more are not for it.';
comment on column public.work_workers.accepts is 'A condition on the labels of items: those it does not meet are not for it.';
comment on column public.work_workers.exclusive is
  'Capabilities too dear for items that do not need them: such items are left to others for yield_seconds, or for good where that is null.';
comment on column public.work_workers.profile_id is 'Its row in work.profiles, with the classes that it matches.';
create index if not exists work_workers_by_profile on public.work_workers (profile_id);
comment on index public.work_workers_by_profile is 'Which workers have this profile?';

-- Say that a worker is there, and what it has and takes; again whenever that changes. The instance is a number that its
-- process drew: the same id from another process is refused while the first one is alive, that is, heard of within a minute.
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
  checked boolean;
  profile integer;
begin
  checked := work.check_name('worker_id', register_worker.worker_id);
  if register_worker.instance is null then
    perform work.refuse('instance', null, 'a uuid that the process drew was expected');
  end if;
  checked := work.check_properties('capabilities', register_worker.capabilities, 65536);
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
  if register_worker.yield_seconds not between 1 and 604800 then
    perform work.refuse('yield_seconds', register_worker.yield_seconds::text, '1 to 604800 seconds were expected');
  end if;
  if register_worker.yield_seconds is not null and register_worker.exclusive = '{}' then
    perform work.refuse('yield_seconds', register_worker.yield_seconds::text,
      'it goes with exclusive, the capabilities that other items do not need');
  end if;
  -- What another call holds is left to the next one.
  delete from public.work_workers w
   where w.ctid = any (array(
           select s.ctid from public.work_workers s
            where s.last_seen_at < clock_timestamp() - interval '7 days'
              -- One that takes only some items would be handed all kinds, should it wake up and not be known.
              and (s.retired_at is not null or (s.accepts = '{}' and s.exclusive = '{}')
                or s.last_seen_at < clock_timestamp() - interval '90 days')
              for update skip locked));
  delete from work.profiles p
   where p.ctid = any (array(
           select s.ctid from work.profiles s
            where s.id <> 1 and s.used_at < clock_timestamp() - interval '1 day'
              and not exists (select from public.work_workers w where w.profile_id = s.id)
              for update skip locked));
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
  'Says that a worker process is there, what it has (capabilities) and what it takes (accepts, exclusive). Call it again when that changes. An id that is alive in another process is refused (409).';

-- A worker leaves: its claims go back at once and count no try. True where it was there.
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
comment on function public.retire_worker is 'A worker leaves: its claims go back at once. True where it was registered.';

-- Note that a worker is alive. Any call of its shows it; one write in five seconds is enough to tell.
create or replace function work.saw_worker(worker_id text)
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
           -- Not waited for: another call of the worker may hold it, and wait for claims that this one has.
           select s.ctid from public.work_workers s
            where s.id = saw_worker.worker_id and s.last_seen_at < recently
              for no key update skip locked));
end
$$;

-- Who is there, by the one rule for it: an idle worker looks for work every few seconds, a busy one extends its leases.
create or replace view work.live_workers with (security_invoker = true) as
select w.id, w.work_types, w.profile_id, p.capabilities, p.accepts_path, p.accepts_clauses, p.exclusive, p.yield_seconds
  from public.work_workers w
  join work.profiles p on p.id = w.profile_id
 where w.retired_at is null and w.last_seen_at > now() - interval '2 minutes';
comment on view work.live_workers is 'work-claims: the workers that were heard of within two minutes and have not left, with what they have and take.';
