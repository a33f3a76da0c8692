-- The start of every claim call: it takes back ended leases and makes claims ready whose wait has ended.

-- How many leases of this work type may end without a release; the default where it is not declared.
create or replace function work.max_crashes(work_type text)
returns integer
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return coalesce((select t.max_crashes from public.work_types t where t.name = max_crashes.work_type), 5);
end
$$;

-- Take back these claims, which the caller has locked and whose lease has ended. Each counts a crash; a claim with no crash
-- left ends failed. Answers how many.
create or replace function work.take_back(row_ids tid[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  reaped integer;
begin
  -- "Is not distinct from" where the rows are found already: with an equality the planner may scan the index on leases
  -- again, and so all held claims.
  with lapsed as (
    update public.work_claims c
       set crashes = c.crashes + 1,
           status = case when c.crashes + 1 >= work.max_crashes(c.work_type) then 'failed'
                         when c.waits_for > 0 then 'blocked'
                         when c.due_at > moment then 'waiting'
                         else 'ready' end,
           finished_at = case when c.crashes + 1 >= work.max_crashes(c.work_type) then moment end,
           error = format('%s ended without a release (crash %s of %s)',
             case when c.poll_at is null then 'the lease of worker ' || c.worker_id else 'the time for the job ' || c.external_id end,
             c.crashes + 1, work.max_crashes(c.work_type)),
           -- A job whose claim failed for good is to be stopped; else the next try gets its id.
           poll_at = case when c.external_id is not null and c.crashes + 1 >= work.max_crashes(c.work_type) then moment end,
           due_at = greatest(c.due_at, moment),
           worker_id = null,
           progress = null
     where c.ctid = any (take_back.row_ids)
       and c.status is not distinct from 'claimed' and c.expires_at <= moment
    returning c.item_id, c.work_type, c.fence, c.error, c.status
  ),
  tallied as (
    insert into work.tally_entries (work_type, failed, losses, final_failures, blocked)
    select l.work_type, count(*) filter (where l.status = 'failed'), count(*), count(*) filter (where l.status = 'failed'),
           count(*) filter (where l.status = 'blocked')
      from lapsed l
     group by l.work_type
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, fence, detail, from_status, to_status)
    select l.item_id, l.work_type, 'expired', l.fence, l.error, 'claimed', l.status from lapsed l
  )
  select count(*) into reaped from lapsed;
  return reaped;
end
$$;

-- Take back claims whose lease has ended: the longest ended ones, and these items' in any case.
create or replace function work.reap(max_items integer, item_ids uuid[], work_types text[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  has_followed boolean := exists (select from public.work_types t where not t.is_plain);
  reaped integer;
begin
  reaped := work.take_back(
    array(
      select l.ctid from public.work_claims l
       where l.status = 'claimed' and l.expires_at <= moment
         and not (has_followed and work.is_last_crash(l.work_type, l.crashes))
       order by l.expires_at
       limit reap.max_items
         for no key update skip locked)
    || array(
      select l.row_id
        from unnest(reap.item_ids) as wanted(id)
       cross join lateral (
         select k.ctid as row_id from public.work_claims k
          where k.item_id = any (array[wanted.id]) and k.work_type = any (reap.work_types)
            and k.status is not distinct from 'claimed' and k.expires_at <= moment
            and not (has_followed and work.is_last_crash(k.work_type, k.crashes))
            for no key update skip locked) as l));
  if has_followed then
    reaped := reaped + work.reap_last_crashes(reap.max_items - reaped, reap.item_ids, reap.work_types);
  end if;
  return reaped;
end
$$;

-- Whether a claim that others may need fails for good with its next crash.
create or replace function work.is_last_crash(work_type text, crashes integer)
returns boolean
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return exists (
    select from public.work_types t
     where t.name = is_last_crash.work_type and not t.is_plain and is_last_crash.crashes + 1 >= t.max_crashes);
end
$$;

-- Take back claims that fail with it, one by one with all that needs them: the longest ended ones, and these items' in any
-- case. One of which another call has locked a part is left to a later call: to wait here could deadlock.
create or replace function work.reap_last_crashes(max_items integer, item_ids uuid[], work_types text[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  lapsed record;
  reaped integer := 0;
begin
  for lapsed in
    select l.ctid as row_id, jsonb_build_array(jsonb_build_object('item_id', l.item_id, 'work_type', l.work_type)) as keys
      from public.work_claims l
     where l.ctid = any (
             array(
               select o.ctid from public.work_claims o
                where o.status = 'claimed' and o.expires_at <= clock_timestamp() and work.is_last_crash(o.work_type, o.crashes)
                order by o.expires_at
                limit greatest(0, least(reap_last_crashes.max_items, 100)))
             || array(
               select k.ctid
                 from unnest(reap_last_crashes.item_ids) as wanted(id)
                 join public.work_claims k on k.item_id = any (array[wanted.id])
                where k.work_type = any (reap_last_crashes.work_types) and k.status is not distinct from 'claimed'
                  and k.expires_at <= clock_timestamp() and work.is_last_crash(k.work_type, k.crashes)))
     order by l.expires_at
  loop
    begin
      perform work.lock_around(lapsed.keys, at_once => true);
      if work.take_back(array[lapsed.row_id]) = 1 then
        perform work.follow(jsonb_set(lapsed.keys, '{0}', (lapsed.keys -> 0) || '{"was": "claimed", "became": "failed"}'));
        perform work.stop_at_dead_ends(lapsed.keys);
        reaped := reaped + 1;
      end if;
    exception when lock_not_available then
      continue;
    end;
  end loop;
  return reaped;
end
$$;

-- Make claims ready whose wait has ended, the longest due ones first.
create or replace function work.ready_due(max_items integer)
returns void
language plpgsql
as $$
declare
  moment timestamptz := clock_timestamp();
begin
  update public.work_claims c
     set status = 'ready'
   where c.ctid = any (array(
           select w.ctid from public.work_claims w
            where w.status = 'waiting' and w.due_at <= moment
            order by w.due_at
            limit ready_due.max_items
              for no key update skip locked))
     and c.status is not distinct from 'waiting';
  perform work.wake_workers(null);
end
$$;

-- Take back ended leases, ready due claims (at most 1,000 of each), note the worker, judge new classes. Every claim call
-- begins with this; it answers the worker's profile. A call that may wait for rows must not lock claims of others before:
-- two such calls could deadlock.
create or replace function work.catch_up(worker_id text, may_lock boolean)
returns work.profiles
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  has_lapsed boolean;
  has_due boolean;
  is_unseen boolean;
  is_unjudged boolean;
  is_upkeep_due boolean;
  profile work.profiles;
begin
  -- One statement asks all questions: each further one costs some microseconds of every claim call.
  select exists (select from public.work_claims c where c.status = 'claimed' and c.expires_at <= moment),
         exists (select from public.work_claims c where c.status = 'waiting' and c.due_at <= moment),
         coalesce(
           (select w.last_seen_at from public.work_workers w where w.id = catch_up.worker_id) < moment - interval '5 seconds',
           false),
         exists (
           select from public.work_classes c
            where c.made_by >= pg_snapshot_xmin(p.judged)
              and not pg_visible_in_snapshot(c.made_by, p.judged))
           -- The profile came with a dump from another server.
           or pg_snapshot_xmax(p.judged) > pg_snapshot_xmax(pg_current_snapshot()),
         (select u.due_at from work.upkeep u) <= moment,
         p.id, p.class_ids, p.yielded_class_ids, p.yield_seconds
    into has_lapsed, has_due, is_unseen, is_unjudged, is_upkeep_due,
         profile.id, profile.class_ids, profile.yielded_class_ids, profile.yield_seconds
    from work.profiles p
   where p.id = coalesce(
           (select w.profile_id from public.work_workers w where w.id = catch_up.worker_id), 1);
  if has_lapsed and may_lock then
    perform work.reap(1000, '{}', '{}');
  end if;
  if has_due and may_lock then
    perform work.ready_due(1000);
  end if;
  if is_upkeep_due then
    perform work.keep_up(can_prune => may_lock);
  end if;
  if is_unseen then
    perform work.touch_worker(catch_up.worker_id);
    perform work.close_dropped_pools();
  end if;
  if is_unjudged then
    profile := work.refresh_profile(profile.id);
  end if;
  return profile;
end
$$;

-- Take back claims whose lease has ended; answers how many. Every claim call does it too.
create or replace function public.reap_expired_claims(max_items integer default 1000)
returns integer
language plpgsql
as $$
begin
  if max_items is null or max_items < 1 then
    perform work.refuse('max_items', max_items::text, 'at least 1 was expected');
  end if;
  perform work.close_dropped_pools();
  return work.reap(least(max_items, 10000), '{}', '{}');
end
$$;
comment on function public.reap_expired_claims is
  'Takes back claims whose lease has ended and answers how many. Every claim call does so too: no one has to call it.';
