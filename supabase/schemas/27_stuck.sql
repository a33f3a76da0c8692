-- Claims that a person looks at: held, failed, stuck.

create or replace view public.work_held with (security_invoker = true) as
select c.item_id,
       c.work_type,
       c.worker_id,
       c.claimed_at,
       clock_timestamp() - c.claimed_at as held_for,
       nullif(c.expires_at, '-infinity') - clock_timestamp() as lease_left,
       c.progress,
       c.fence,
       w.last_seen_at,
       case when c.poll_at is not null then c.external_id end as parked_as
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
  'work-claims: claims that have failed for good, the newest first, and why. retry_items() reopens them.';

create or replace view public.work_stale with (security_invoker = true) as
select c.work_type,
       c.item_id,
       i.pool,
       i.source_key,
       c.status,
       c.stale as reason,
       c.waits_for,
       c.result
  from public.work_claims c
  join public.work_items i on i.id = c.item_id
 where c.stale is not null;
comment on view public.work_stale is
  'work-claims: claims whose result is out of date, and why: it stays readable until the next one replaces it.';

-- Blocked claims whose need has failed or was cancelled, and those that wait for a workflow of which a part has.
create or replace function work.behind_failed()
returns table (work_type text, item_id uuid, reason text, since timestamptz)
language plpgsql
stable
as $$
begin
  return query
  select u.work_type::text, u.item_id, format('it waits for %s', work.need_in_words(u)), u.ended_at
    from work.unmet_needs u
   where u.needs_status in ('failed', 'cancelled')
   union all
  select d.work_type::text, d.item_id, format('it waits for all of workflow %s, of which a part failed or was cancelled', w.name), null
    from (select w.id, w.name
            from public.work_workflows w
           cross join lateral work.workflow_end(w.id) as e
           where w.is_gathered
             and exists (select from public.work_dependencies n where n.needs_workflow_id = w.id and not n.is_met)
             and e.is_over and not e.is_succeeded
          offset 0) as w
    join public.work_dependencies d on d.needs_workflow_id = w.id and not d.is_met;
end
$$;

-- Unregistered workers may do work that no registered worker does: the view shows it after five minutes.
create or replace view public.work_stuck with (security_invoker = true) as
with kind as materialized (
  select w.* from work.live_kinds w
)
select c.work_type,
       c.item_id,
       'its lease has ended and no worker has called since' as reason,
       nullif(c.expires_at, '-infinity') as since
  from public.work_claims c
 where c.status = 'claimed' and c.expires_at < now() - interval '5 seconds'
 union all
select c.work_type, c.item_id, 'it is due and no worker has called since', c.due_at
  from public.work_claims c
 where c.status = 'waiting' and c.due_at < now() - interval '5 seconds'
 union all
select h.work_type,
       h.item_id,
       case
         when t.paused then 'its work type is paused'
         when not j.has_workers then 'no live worker does this work type'
         when not j.is_matched
           then format('no live worker can run it: it requires %s and shows %s', left(k.requires::text, 200), left(k.labels::text, 200))
         else 'it is the head of its lane, and no worker has taken it for five minutes'
       end,
       h.due_at
  from work.lane_heads h
  join public.work_types t on t.name = h.work_type
  join public.work_classes k on k.id = h.class_id
 cross join lateral (
   select exists (select from kind w where w.work_type = h.work_type) as has_workers,
          -- It ends at the first kind that matches.
          exists (
            select from kind w
             where w.work_type = h.work_type
               and w.capabilities @@ k.path
               and k.labels @@ w.accepts_path
               and (w.yield_seconds is not null or (w.spare @@ k.path) is not true)) as is_matched
   offset 0) as j
 where t.paused or (j.has_workers and not j.is_matched) or h.due_at < now() - interval '5 minutes'
 union all
select c.work_type, c.item_id, format('it fails again and again: %s failures, %s crashes; %s', c.failures, c.crashes, c.error), c.due_at
  from public.work_claims c
 where c.status = 'waiting' and c.due_at >= now() and c.failures > 1
 union all
select c.work_type, c.item_id,
       format('its input changed %s times, each within an hour of the last: does its worker write into its own input columns?', c.changes),
       c.changed_at
  from public.work_claims c
 where c.status = 'waiting' and c.due_at >= now() and work.is_guarded(c)
 union all
select b.work_type, b.item_id, b.reason, b.since from work.behind_failed() b
 union all
select null, null, format('pool %s: %s', b.pool, b.reason), b.since
  from work.broken_pools b;
comment on view public.work_stuck is
  'work-claims: what does not move, and why: ended leases nobody took back, ready work no live worker can run or takes, paused types, what keeps failing, what waits for failed work, what changes without end, pools whose table does not fit any more.';
