-- What a person looks at in the dashboard.

create or replace view public.work_overview with (security_invoker = true) as
select t.name as work_type,
       t.pool,
       t.paused,
       coalesce(open.ready, 0) as ready,
       coalesce(open.waiting, 0) as waiting,
       coalesce(open.blocked, 0) as blocked,
       coalesce(open.claimed, 0) as claimed,
       coalesce(ended.succeeded, 0) as succeeded,
       coalesce(ended.failed, 0) as failed,
       coalesce(ended.cancelled, 0) as cancelled,
       case when open.longest_ready < clock_timestamp() then clock_timestamp() - open.longest_ready end as oldest_wait,
       coalesce(recent.finished, 0) as finished_last_minute,
       case when recent.finished > 0 and open.total > 0
         then make_interval(secs => 60.0 * open.total / recent.finished) end as time_left
  from public.work_types t
  left join (
    select c.work_type,
           count(*) as total,
           count(*) filter (where c.status = 'ready') as ready,
           count(*) filter (where c.status = 'waiting') as waiting,
           count(*) filter (where c.status = 'blocked') as blocked,
           count(*) filter (where c.status = 'claimed') as claimed,
           min(c.due_at) filter (where c.status = 'ready') as longest_ready
      from public.work_claims c
     where c.finished_at is null
     group by c.work_type) as open on open.work_type = t.name
  left join (
    select c.work_type,
           count(*) filter (where c.status = 'succeeded') as succeeded,
           count(*) filter (where c.status = 'failed') as failed,
           count(*) filter (where c.status = 'cancelled') as cancelled
      from public.work_claims c
     where c.finished_at is not null
     group by c.work_type) as ended on ended.work_type = t.name
  left join lateral (
    select count(*) as finished
      from public.work_claims c
     where c.work_type = t.name and c.status in ('succeeded', 'failed')
       and c.finished_at > now() - interval '1 minute') as recent on true
 order by t.name;
comment on view public.work_overview is
  'work-claims: how far each work type is: open claims by state, done, failed, the longest wait, the last minute''s rate and the time left at it.';

create or replace view public.work_held with (security_invoker = true) as
select c.item_id,
       c.work_type,
       c.worker_id,
       c.claimed_at,
       clock_timestamp() - c.claimed_at as held_for,
       c.expires_at - clock_timestamp() as lease_left,
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
 where c.status = 'failed' and c.finished_at is not null
 order by c.finished_at desc;
comment on view public.work_failures is
  'work-claims: what has failed for good, the newest first, and why. retry_items() reopens it.';

create or replace view public.work_stuck with (security_invoker = true) as
select c.work_type, c.item_id, 'its lease has ended and no worker has called since' as reason, c.expires_at as since
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
           select from public.work_workers w
            where w.retired_at is null and w.last_seen_at > now() - interval '2 minutes'
              and (w.work_types is null or t.name = any (w.work_types)))
           then 'it is next in line, and no live worker does this work type'
         else 'it is next in line, and nobody has taken it for five minutes'
       end,
       next_in_line.due_at
  from public.work_types t
 cross join lateral (
   select c.work_type, c.item_id, c.due_at
     from public.work_claims c
    where c.work_type = t.name and c.status = 'ready'
    order by c.priority desc, c.position
    limit 1) as next_in_line
 where t.paused or next_in_line.due_at < now() - interval '5 minutes'
union all
select c.work_type, c.item_id, format('it goes round: %s failures, %s crashes; %s', c.failures, c.crashes, c.error), c.due_at
  from public.work_claims c
 where c.status = 'waiting' and c.due_at >= now() and c.failures > 1;
comment on view public.work_stuck is
  'work-claims: what does not move, and why: ended leases nobody took back, the head of each line that nobody takes, paused types, what keeps failing.';

revoke all on public.work_overview, public.work_held, public.work_failures, public.work_stuck
  from public, anon, authenticated, service_role;
grant select on public.work_overview, public.work_held, public.work_failures, public.work_stuck to service_role;

notify pgrst, 'reload schema';
