import { expect } from "vitest";
import type { Sql } from "./database.ts";

/** Rules that hold of the tables at any moment. Each row of the answer is one violation. */
const violations = `
  select 'two claims have one fence' as rule, c.fence::text as what
    from public.work_claims c where c.fence is not null group by c.fence having count(*) > 1
  union all
  select 'a fence was not drawn from the sequence', c.item_id::text
    from public.work_claims c where c.fence > (select last_value from work.fence)
  union all
  select 'a fence is behind one that the claim has had', c.item_id::text
    from public.work_claims c
   where c.fence < (
     select max(e.fence) from public.work_events e
      where e.item_id = c.item_id and e.work_type = c.work_type and e.event in ('expired', 'failed', 'handed_back'))
  union all
  select 'a claim is held by nobody', c.item_id::text
    from public.work_claims c
   where c.status = 'claimed' and (c.worker_id is null or c.fence is null or c.expires_at = '-infinity')
  union all
  select 'a parked claim has no job, or a job is to be stopped that has ended', c.item_id::text
    from public.work_claims c
   where c.poll_at is not null and (c.external_id is null or c.status not in ('claimed', 'failed', 'cancelled'))
  union all
  select 'a success keeps what was for the next try', c.item_id::text
    from public.work_claims c
   where c.status = 'succeeded' and (c.state is not null or c.external_id is not null)
  union all
  select 'an ended claim has no end, or an open one has', c.item_id::text
    from public.work_claims c
   where (c.finished_at is null) <> (c.status in ('blocked', 'waiting', 'ready', 'claimed'))
  union all
  select 'a claim has no work type, so nothing takes it back', c.item_id::text
    from public.work_claims c where not exists (select from public.work_types t where t.name = c.work_type)
  union all
  select 'a claim has more tries than its type allows', c.item_id::text
    from public.work_claims c
    join public.work_types t on t.name = c.work_type
    join public.work_items i on i.id = c.item_id
   where c.failures > coalesce(i.max_failures, t.max_failures) or c.crashes > t.max_crashes
      or (c.status in ('blocked', 'ready', 'waiting', 'claimed')
        and (c.failures >= coalesce(i.max_failures, t.max_failures) or c.crashes >= t.max_crashes))
  union all
  select 'an item is not enrolled for a work type of its pool', i.id::text
    from public.work_items i join public.work_types t on t.pool = i.pool
   where (i.seq > t.enroll_until or i.seq <= t.enrolled_through)
     and not exists (select from public.work_claims c where c.item_id = i.id and c.work_type = t.name)
  union all
  select 'an open claim does not follow its item', i.item_id::text
    from public.work_claims c join work.ranked_items i on i.item_id = c.item_id
   where c.finished_at is null
     and (c.priority, c.rank, c.position, c.class_id, c.affinity, c.workflow_id)
           is distinct from (i.priority, i.rank, i.position, i.class_id, i.affinity, i.workflow_id)
  union all
  select 'the tallies do not count what is there', coalesce(t.work_type, c.work_type)
    from (select * from work.counts() where (claims, succeeded, failed, cancelled, blocked) <> (0, 0, 0, 0, 0)) as t
    full join (
      select k.work_type, count(*) as claims, count(*) filter (where k.status = 'succeeded') as succeeded,
             count(*) filter (where k.status = 'failed') as failed,
             count(*) filter (where k.status = 'cancelled') as cancelled,
             count(*) filter (where k.status = 'blocked') as blocked
        from public.work_claims k group by k.work_type) as c on c.work_type = t.work_type
   where (t.claims, t.succeeded, t.failed, t.cancelled, t.blocked)
           is distinct from (c.claims, c.succeeded, c.failed, c.cancelled, c.blocked)
  union all
  select 'a claim does not count what it waits for', c.item_id::text
    from public.work_claims c
    left join (
      select u.item_id, u.work_type, count(*) as needs
        from (select d.item_id, d.work_type from public.work_dependencies d where not d.is_met
              union all
              select k.item_id, n.work_type
                from work.type_needs n
                join public.work_claims k on k.work_type = n.work_type
                left join public.work_claims u on u.item_id = k.item_id and u.work_type = n.needs_work_type
               where not work.is_met(u.status, n.on_failed_need)) as u
       group by 1, 2) as w on (w.item_id, w.work_type) = (c.item_id, c.work_type)
   where c.waits_for <> coalesce(w.needs, 0)
  union all
  select 'a need is not marked as its claim is', d.item_id::text
    from public.work_dependencies d join public.work_types t on t.name = d.work_type
   where d.needs_item_id is not null
     and d.is_met <> work.is_met((
       select k.status from public.work_claims k
        where k.item_id = d.needs_item_id and k.work_type = d.needs_work_type), t.on_failed_need)
  union all
  select 'an open claim is blocked and waits for nothing, or the reverse', c.item_id::text
    from public.work_claims c
   where c.status in ('blocked', 'waiting', 'ready') and (c.status = 'blocked') <> (c.waits_for > 0)
  union all
  select 'an ended claim is to be done again', c.item_id::text
    from public.work_claims c where c.finished_at is not null and c.stale is not null and c.status = 'succeeded'
  union all
  select 'further claims of an item have other rules than the first', t.name
    from public.work_types t
    join public.work_types f on f.name = t.copy_of
   cross join lateral (select '{name,copy_of,into_column,enrolled_through,enroll_until,redone_through,pruned_through,pruned_at}'::text[] as names) as own
   where to_jsonb(t) - own.names is distinct from to_jsonb(f) - own.names
  union all
  select 'a work type was stopped and is not paused', t.name
    from public.work_types t where t.stopped is not null and not t.paused
  union all
  select 'a claim has two slots of one lock', min(l.name)
    from public.work_lock_list l group by l.name, l.item_id, l.work_type having count(*) > 1
  union all
  select 'two slots have one fence', l.fence::text from public.work_locks l group by l.fence having count(*) > 1
  union all
  select 'a full history lacks a step', s.item_id::text
    from (select e.item_id, e.from_status,
                 lag(e.to_status) over (partition by e.item_id, e.work_type order by e.id) as before
            from public.work_events e
            join public.work_types t on t.name = e.work_type
           where t.history = 'full' and e.to_status is not null) as s
   -- Time and a new run_after bring a claim from one of these to the other, which no history has.
   where s.from_status <> s.before
     and not (s.from_status in ('ready', 'waiting') and s.before in ('ready', 'waiting'))
`;

/** Ends every test programme. */
export async function expectInvariants(sql: Sql): Promise<void> {
  const broken = await sql.unsafe(violations, [], { prepare: true });
  expect(broken, JSON.stringify(broken)).toEqual([]);
}
