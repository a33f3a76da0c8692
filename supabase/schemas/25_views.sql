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
