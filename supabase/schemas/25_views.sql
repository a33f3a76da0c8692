-- What a person looks at in the dashboard.

create or replace view public.work_overview with (security_invoker = true) as
select t.name as work_type,
       t.pool,
       t.paused,
       coalesce(c.ready, 0) as ready,
       coalesce(c.waiting, 0) as waiting,
       coalesce(c.blocked, 0) as blocked,
       coalesce(c.claimed, 0) as claimed,
       coalesce(c.succeeded, 0) as succeeded,
       coalesce(c.failed, 0) as failed,
       coalesce(c.cancelled, 0) as cancelled,
       case when c.longest_ready < clock_timestamp() then clock_timestamp() - c.longest_ready end as oldest_wait,
       coalesce(c.finished_last_minute, 0) as finished_last_minute,
       case when c.finished_last_minute > 0 and c.ready + c.waiting + c.blocked + c.claimed > 0
         then make_interval(secs => 60.0 * (c.ready + c.waiting + c.blocked + c.claimed) / c.finished_last_minute)
       end as time_left
  from public.work_types t
  left join (
    select k.work_type,
           count(*) filter (where k.status = 'ready') as ready,
           count(*) filter (where k.status = 'waiting') as waiting,
           count(*) filter (where k.status = 'blocked') as blocked,
           count(*) filter (where k.status = 'claimed') as claimed,
           count(*) filter (where k.status = 'succeeded') as succeeded,
           count(*) filter (where k.status = 'failed') as failed,
           count(*) filter (where k.status = 'cancelled') as cancelled,
           min(k.due_at) filter (where k.status = 'ready') as longest_ready,
           count(*) filter (where k.status in ('succeeded', 'failed') and k.finished_at > now() - interval '1 minute')
             as finished_last_minute
      from public.work_claims k
     group by k.work_type) as c on c.work_type = t.name
 order by t.name;
comment on view public.work_overview is
  'work-claims: how far each work type is: open claims by state, done, failed, the longest wait, the last minute''s rate and the time left at it.';

create or replace view public.work_held with (security_invoker = true) as
select c.item_id,
       c.work_type,
       c.worker_id,
       c.claimed_at,
       clock_timestamp() - c.claimed_at as held_for,
       nullif(c.expires_at, '-infinity') - clock_timestamp() as lease_left,
       c.progress,
       c.fence,
       w.last_seen_at
  from public.work_claims c
  left join public.work_workers w on w.id = c.worker_id
 where c.status = 'claimed'
 order by c.claimed_at;
comment on view public.work_held is
  'work-claims: who holds what, since when, and how much of the lease is left; below zero the lease has ended and the next claim call takes it back.';

create or replace view public.work_failures with (security_invoker = true) as
select c.work_type,
       c.item_id,
       i.pool,
       i.source_key,
       c.error,
       c.failures,
       c.crashes,
       c.finished_at,
       c.worker_id
  from public.work_claims c
  join public.work_items i on i.id = c.item_id
 where c.status = 'failed'
 order by c.finished_at desc;
comment on view public.work_failures is
  'work-claims: what has failed for good, the newest first, and why. retry_items() reopens it.';

create or replace view public.work_stuck with (security_invoker = true) as
select c.work_type, c.item_id, 'its lease has ended and no worker has called since' as reason, nullif(c.expires_at, '-infinity') as since
  from public.work_claims c
 where c.status = 'claimed' and c.expires_at < now() - interval '5 seconds'
union all
select c.work_type, c.item_id, 'it is due and no worker has called since', c.due_at
  from public.work_claims c
 where c.status = 'waiting' and c.due_at < now() - interval '5 seconds'
union all
select next_in_line.work_type, next_in_line.item_id,
       case
         when t.paused then 'its work type is paused'
         when not exists (
           select from work.live_workers w
            where w.work_types is null or t.name = any (w.work_types))
           then 'it is next in line, and no live worker does this work type'
         when not exists (
           select from work.live_workers w
             join work.profiles p on p.id = w.profile_id
            where (w.work_types is null or t.name = any (w.work_types))
              and k.id = any (p.class_ids || p.yielded_class_ids))
           then format('it is next in line, and no live worker has what it requires: %s', left(k.tag, 200))
         else 'it is next in line, and nobody has taken it for five minutes'
       end,
       next_in_line.due_at
  from public.work_types t
 cross join public.work_classes k
 cross join lateral (
   select c.work_type, c.item_id, c.due_at
     from public.work_claims c
    where c.work_type = t.name and c.class_id = k.id and c.status = 'ready'
    order by c.priority desc, c.rank, c.position
    limit 1) as next_in_line
 where t.paused or next_in_line.due_at < now() - interval '5 minutes'
union all
select c.work_type, c.item_id, format('it goes round: %s failures, %s crashes; %s', c.failures, c.crashes, c.error), c.due_at
  from public.work_claims c
 where c.status = 'waiting' and c.due_at >= now() and c.failures > 1;
comment on view public.work_stuck is
  'work-claims: what does not move, and why: ended leases nobody took back, the head of each line (a work type and class) that nobody takes, paused types, what keeps failing.';
