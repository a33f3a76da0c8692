-- Named locks: a handler that needs a scarce thing takes one of its slots, for as long as its claim is held.
create table if not exists public.work_locks (
  name text collate "C" not null check (length(name) between 1 and 300),
  slot integer not null check (slot between 1 and 1000),
  item_id uuid not null,
  work_type text collate "C" not null,
  claim_fence bigint not null,
  fence bigint not null default nextval('work.fence'),
  taken_at timestamptz not null default clock_timestamp(),
  primary key (name, slot)
);
comment on table public.work_locks is
  'work-claims: which claim took which slot of a lock. A row counts only while its claim is held under that fence: see work_lock_list.';
comment on column public.work_locks.claim_fence is 'The fence of the claim that took it.';
comment on column public.work_locks.fence is 'New each time the slot is taken: a write elsewhere can carry it.';
create index if not exists work_locks_by_age on public.work_locks (taken_at);
comment on index public.work_locks_by_age is 'Which lock was taken the longest ago?';

-- Which locks are held. A lease that has ended holds its locks until the claim is taken back: its holder may extend it still.
create or replace view work.live_locks with (security_invoker = true) as
select l.name, l.slot, l.item_id, l.work_type, l.claim_fence, l.fence, l.taken_at, c.worker_id, c.expires_at
  from public.work_locks l
 cross join lateral (
   select k.worker_id, k.expires_at, k.status, k.fence, k.poll_at
     from public.work_claims k
    where k.item_id = any (array[l.item_id]) and k.work_type = l.work_type
    limit 1) as c
 where c.status = 'claimed' and c.fence = l.claim_fence and c.poll_at is null;
comment on view work.live_locks is 'work-claims: the locks whose claim is held.';

create or replace view public.work_lock_list with (security_invoker = true) as
select l.name, l.slot, l.item_id, l.work_type, l.worker_id, l.fence, l.taken_at, l.expires_at - now() as lease_left
  from work.live_locks l
 order by l.name, l.slot;
comment on view public.work_lock_list is 'work-claims: which claim holds which slot of which lock, and since when.';

-- Delete rows of locks that nobody holds, of the 100 that were taken the longest ago.
create or replace function work.forget_locks()
returns void
language plpgsql
as $$
begin
  delete from public.work_locks l
   where l.ctid = any (array(
           select o.ctid
             from (select a.name, a.slot from public.work_locks a order by a.taken_at limit 100) as oldest
             join public.work_locks o on o.name = oldest.name and o.slot = oldest.slot
            where not exists (select from work.live_locks h where h.name = o.name and h.slot = o.slot)
              for update of o skip locked));
end
$$;

-- Take a slot of a lock for a claim: {slot, fence}, null where each slot is held, "lost" where the claim is not held under
-- this fence. A claim that has a slot of this lock is answered with it again.
create or replace function public.take_lock(
  name text, slots integer, item_id uuid, work_type text, worker_id text, fence bigint)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  answer json;
begin
  perform work.check_lock(take_lock.name, take_lock.item_id, take_lock.work_type, take_lock.worker_id, take_lock.fence);
  if take_lock.slots is null then
    perform work.refuse('slots', null, '1 to 1000 were expected');
  end if;
  perform work.check_range('slots', take_lock.slots, 1, 1000);
  if not exists (
    select from public.work_claims c
     where c.item_id = any (array[take_lock.item_id]) and c.work_type = take_lock.work_type
       and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', take_lock.worker_id, take_lock.fence)
       and c.poll_at is null and c.expires_at > clock_timestamp()) then
    perform work.record_stale(take_lock.worker_id, 'stale_lock', jsonb_build_array(jsonb_build_object(
      'item_id', take_lock.item_id, 'work_type', take_lock.work_type, 'fence', take_lock.fence,
      'detail', format('it asked for the lock %s too late', take_lock.name))));
    return to_json('lost'::text);
  end if;
  -- One call at a time takes slots of one name.
  perform pg_advisory_xact_lock(hashtextextended('work-claims lock ' || take_lock.name, 0));
  perform work.forget_locks();
  -- A lease that has ended frees its slot with the claim, in one step. A claim that is being extended stays held.
  perform work.reap(0, array_agg(h.item_id), array_agg(h.work_type))
     from work.live_locks h
    where h.name = take_lock.name and h.expires_at <= clock_timestamp()
   having count(*) > 0;

  select json_build_object('slot', h.slot, 'fence', h.fence) into answer
    from work.live_locks h
   where h.name = take_lock.name and h.item_id = take_lock.item_id and h.work_type = take_lock.work_type
     and h.claim_fence = take_lock.fence;
  if found or (select count(*) from work.live_locks h where h.name = take_lock.name) >= take_lock.slots then
    return answer;
  end if;
  insert into public.work_locks as l (name, slot, item_id, work_type, claim_fence)
  select take_lock.name, s.slot, take_lock.item_id, take_lock.work_type, take_lock.fence
    from generate_series(1, take_lock.slots) as s(slot)
   where not exists (select from work.live_locks h where h.name = take_lock.name and h.slot = s.slot)
   order by s.slot
   limit 1
  on conflict (name, slot) do update
     set item_id = excluded.item_id, work_type = excluded.work_type, claim_fence = excluded.claim_fence,
         fence = excluded.fence, taken_at = excluded.taken_at
  returning json_build_object('slot', l.slot, 'fence', l.fence) into answer;
  return answer;
end
$$;
comment on function public.take_lock is
  'Takes one of so many slots of a named lock for a claim: {slot, fence}, null where each is held, "lost" where the claim is not held under this fence. The slot is free again after drop_lock(), or when the claim ends in any way.';

-- Free the slot that a claim has of a lock; true where it had one. Its end frees it too.
create or replace function public.drop_lock(name text, item_id uuid, work_type text, worker_id text, fence bigint)
returns boolean
language plpgsql
as $$
#variable_conflict use_column
begin
  perform work.check_lock(drop_lock.name, drop_lock.item_id, drop_lock.work_type, drop_lock.worker_id, drop_lock.fence);
  delete from public.work_locks l
   where l.name = drop_lock.name and l.item_id = drop_lock.item_id and l.work_type = drop_lock.work_type
     and l.claim_fence = drop_lock.fence
     and exists (
       select from public.work_claims c
        where c.item_id = any (array[drop_lock.item_id]) and c.work_type = drop_lock.work_type
          and (c.worker_id, c.fence) is not distinct from (drop_lock.worker_id, drop_lock.fence));
  return found;
end
$$;
comment on function public.drop_lock is 'Frees the slot of a named lock that a claim has taken. True where it had one.';

-- Refuse wrong arguments of take_lock() and drop_lock().
create or replace function work.check_lock(name text, item_id uuid, work_type text, worker_id text, fence bigint)
returns void
language plpgsql
as $$
begin
  if name is null or length(name) not between 1 and 300 then
    perform work.refuse('name', name, 'a name of 1 to 300 characters was expected');
  end if;
  if item_id is null then
    perform work.refuse('item_id', null, 'the id of the claimed item was expected');
  end if;
  perform work.check_name('work_type', work_type);
  perform work.check_name('worker_id', worker_id);
  if fence is null then
    perform work.refuse('fence', null, 'the fence that the claim came with was expected');
  end if;
end
$$;
