-- Progress: one row a work type, one answer for a monitor, one for an autoscaler. None reads ended claims.

-- Open claims that are not ready, at most 10,000 waiting and 10,000 held ones, of all work types together.
create or replace function work.unready()
returns table (work_type text, waiting bigint, claimed bigint, late bigint)
language sql
stable
as $$
  select a.work_type, count(*) filter (where not a.is_held), count(*) filter (where a.is_held), count(*) filter (where a.is_late)
    from ((select c.work_type, false as is_held, false as is_late
             from public.work_claims c where c.status = 'waiting' order by c.due_at limit 10000)
          union all
          (select c.work_type, true, c.expires_at <= clock_timestamp()
             from public.work_claims c where c.status = 'claimed' order by c.expires_at limit 10000)) as a
   group by a.work_type
$$;

-- Parked claims of each work type, of at most 10,000.
create or replace function work.parked()
returns table (work_type text, parked bigint)
language sql
stable
as $$
  select c.work_type, count(*)
    from (select k.work_type, k.status from public.work_claims k where k.poll_at is not null
           order by k.work_type, k.poll_at limit 10000) as c
   where c.status = 'claimed'
   group by c.work_type
$$;

-- Each work type's numbers. All claims less those that are over are open; of these, those that are neither blocked, waiting
-- nor held are ready, however many. The first 1,000 in order are looked at, for the longest wait among them.
create or replace function work.overview()
returns table (
  work_type text, pool text, paused boolean, open bigint, ready bigint, waiting bigint, blocked bigint, claimed bigint,
  late bigint, succeeded bigint, failed bigint, cancelled bigint, is_capped boolean, oldest_wait interval,
  finished_last_minute bigint)
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
begin
  return query
  with unready as materialized (select a.* from work.unready() a),
  is_full as materialized (select sum(a.waiting) >= 10000 or sum(a.claimed) >= 10000 as is_full from unready a),
  counts as materialized (select c.*, c.claims - c.succeeded - c.failed - c.cancelled as open from work.counts() c),
  finished as materialized (
    select f.work_type, sum(f.amount)::bigint as last_minute
      from (select e.work_type, e.successes + e.final_failures as amount from work.tally_entries e
             where e.at > moment - interval '1 minute'
            union all
            select t.work_type, t.amount from work.tallies t
             where t.span = 'second' and t.starts_at > moment - interval '1 minute'
               and t.measure in ('successes', 'final_failures')) as f
     group by f.work_type
  ),
  numbers as (
    select t.name, t.pool, t.paused, coalesce(c.open, 0) as open, first.ready, coalesce(a.waiting, 0) as waiting,
           coalesce(a.claimed, 0) as claimed, coalesce(a.late, 0) as late,
           coalesce(c.blocked, 0) as blocked,
           greatest(0, coalesce(c.open - c.blocked - coalesce(a.waiting, 0) - coalesce(a.claimed, 0), 0)) as others,
           coalesce(c.succeeded, 0) as succeeded, coalesce(c.failed, 0) as failed, coalesce(c.cancelled, 0) as cancelled,
           first.due_at, coalesce(f.last_minute, 0) as last_minute
      from public.work_types t
      left join counts c on c.work_type = t.name
      left join unready a on a.work_type = t.name
      left join finished f on f.work_type = t.name
     cross join lateral (
       select count(*) as ready, min(r.due_at) as due_at
         from (select q.due_at from public.work_claims q
                where q.work_type = t.name and q.status = 'ready' and q.class_id > 0
                order by q.priority desc, q.rank, q.position
                limit 1000) as r) as first
  )
  select n.name, n.pool, n.paused, n.open,
         case when n.ready < 1000 or w.is_full then n.ready else n.others end,
         n.waiting, n.blocked, n.claimed, n.late, n.succeeded, n.failed, n.cancelled,
         w.is_full is true and n.others > n.ready,
         case when n.due_at < moment then moment - n.due_at end,
         n.last_minute
    from numbers n
   cross join is_full w
   order by n.name;
end
$$;

create or replace view public.work_overview with (security_invoker = true) as
select o.work_type, o.pool, o.paused, o.ready, o.waiting, o.blocked,
       greatest(0, o.claimed - coalesce(p.parked, 0)) as claimed, o.succeeded, o.failed, o.cancelled,
       o.oldest_wait, o.finished_last_minute,
       case when o.finished_last_minute > 0 and o.open > 0 then make_interval(secs => 60.0 * o.open / o.finished_last_minute)
       end as time_left,
       o.open, o.late, o.is_capped, coalesce(p.parked, 0) as parked
  from work.overview() o
  left join work.parked() p on p.work_type = o.work_type;
comment on view public.work_overview is
  'work-claims: how far each work type is: open claims by state, done, failed, the longest wait among the first 1000 in order, the last minute''s rate and the time left at it. claimed ones have a worker, parked ones are done elsewhere. is_capped: more than 10000 wait or are held in all, so ready, waiting and claimed are lower bounds; open and blocked are exact.';

-- One small answer, cheap enough to ask every second.
create or replace function public.work_pulse(since_event bigint default null)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
begin
  return (
    with types as materialized (select o.* from public.work_overview o),
    held as materialized (
      select h.worker_id, count(*) as held, count(*) filter (where h.expires_at <= moment) as late, avg(h.progress) as progress
        from (select c.worker_id, c.expires_at, c.progress from public.work_claims c
               where c.status = 'claimed' and c.poll_at is null order by c.expires_at limit 10000) as h
       group by h.worker_id
    ),
    workers as materialized (
      select w.id, w.work_types, w.last_seen_at, coalesce(h.held, 0) as held, coalesce(h.late, 0) as late, h.progress
        from public.work_workers w
        left join held h on h.worker_id = w.id
       where w.retired_at is null and w.last_seen_at > moment - interval '2 minutes'
    )
    select jsonb_build_object(
      'at', moment,
      'types', coalesce((
        select jsonb_agg(to_jsonb(t) || jsonb_build_object('workers', (
                 select count(*) from workers w where w.work_types is null or t.work_type = any (w.work_types)))
                 order by t.work_type)
          from types t), '[]'),
      'held', (select coalesce(sum(h.held), 0) from held h),
      'late', (select coalesce(sum(h.late), 0) from held h),
      'live_workers', (select count(*) from workers),
      'workers', coalesce((
        select jsonb_agg(jsonb_build_object(
                 'id', w.id, 'held', w.held, 'late', w.late, 'progress', round(w.progress::numeric, 3),
                 'last_seen_at', w.last_seen_at) order by w.late desc, w.id)
          from (select * from workers w order by w.late desc, w.id limit 200) as w), '[]'),
      'events', coalesce((
        select jsonb_agg(to_jsonb(e) order by e.id)
          from (select v.id, v.at, v.event, v.work_type, v.item_id, v.worker_id, left(v.detail, 200) as detail
                  from public.work_events v
                 where v.id > coalesce(work_pulse.since_event, 0)
                 order by v.id desc
                 limit 20) as e), '[]')));
end
$$;
comment on function public.work_pulse is
  'One small answer for a monitor, cheap enough to ask every second: work_overview with live workers, at most 200 workers (late ones first), the last 20 events after since_event.';

-- The work for a worker with these capabilities, each number at most so large; null counts all work.
-- Ended waits and leases count as ready: where no worker runs, no call has made them ready. Nothing of a paused work type
-- is ready, or an autoscaler would start workers that leave at once, again and again.
create or replace function public.work_depth(work_type text, capabilities jsonb default null, at_most integer default 10000)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  is_paused boolean;
begin
  select t.paused into is_paused from public.work_types t where t.name = work_depth.work_type;
  if not found then
    perform work.refuse('work_type', work_depth.work_type, 'there is no such work type; see work_overview', 'PT404');
  end if;
  if work_depth.at_most is null or work_depth.at_most not between 1 and 100000 then
    perform work.refuse('at_most', work_depth.at_most::text, '1 to 100000 were expected');
  end if;
  if work_depth.capabilities is not null then
    perform work.check_properties('capabilities', work_depth.capabilities, 65536);
  end if;
  return (
    with matched as materialized (
      select k.id from public.work_classes k
       where work_depth.capabilities is null or work_depth.capabilities @@ k.path
    ),
    ready as (
      select r.due_at
        from matched m
       cross join lateral (
         select c.due_at from public.work_claims c
          where c.class_id = m.id and c.work_type = work_depth.work_type and c.status = 'ready'
          order by c.priority desc, c.rank, c.position
          limit work_depth.at_most) as r
       limit work_depth.at_most
    ),
    due as (
      select w.due_at
        from (select c.due_at, c.work_type, c.class_id from public.work_claims c
               where c.status = 'waiting' and c.due_at <= moment order by c.due_at limit work_depth.at_most) as w
       where w.work_type = work_depth.work_type and w.class_id in (select m.id from matched m)
    ),
    held as (
      select h.due_at, h.expires_at <= moment as is_late, h.poll_at is not null as is_parked
        from (select c.due_at, c.expires_at, c.poll_at, c.work_type, c.class_id from public.work_claims c
               where c.status = 'claimed' order by c.expires_at limit work_depth.at_most) as h
       where h.work_type = work_depth.work_type and h.class_id in (select m.id from matched m)
    ),
    takeable as (
      select r.due_at from ready r
      union all
      select d.due_at from due d
      union all
      select h.due_at from held h where h.is_late
    )
    select jsonb_build_object(
      'ready', case when is_paused then 0 else least(count(*), work_depth.at_most) end,
      'held', (select count(*) from held h where not h.is_late and not h.is_parked),
      'oldest_wait_seconds', coalesce(greatest(0, round(extract(epoch from moment - min(t.due_at))::numeric, 1)), 0))
      from takeable t);
end
$$;
comment on function public.work_depth is
  'What an autoscaler asks: {ready, held, oldest_wait_seconds} of a work type, for a worker with these capabilities (null: any). Numbers stop at at_most; ready is 0 while the work type is paused.';

create or replace view public.work_history with (security_invoker = true) as
select t.span, t.starts_at, t.work_type,
       coalesce(sum(t.amount) filter (where t.measure = 'successes'), 0) as succeeded,
       coalesce(sum(t.amount) filter (where t.measure = 'failures'), 0) as failed,
       coalesce(sum(t.amount) filter (where t.measure = 'losses'), 0) as lost,
       coalesce(sum(t.amount) filter (where t.measure = 'final_failures'), 0) as failed_for_good,
       coalesce(sum(t.amount) filter (where t.measure = 'waited'), 0) / 1000 as waited_seconds,
       coalesce(sum(t.amount) filter (where t.measure = 'ran'), 0) / 1000 as ran_seconds,
       jsonb_object_agg(substr(t.measure, 8), t.amount) filter (where t.measure like 'waited\_%') as waited,
       jsonb_object_agg(substr(t.measure, 5), t.amount) filter (where t.measure like 'ran\_%') as ran
  from work.tallies t
 where t.span in ('minute', 'hour')
 group by t.span, t.starts_at, t.work_type;
comment on view public.work_history is
  'work-claims: how tries ended, per minute for an hour and per hour for 90 days; a few seconds late. waited and ran count successes by how long they took: {"1s": under 1 s, "10s": under 10 s, …}.';
