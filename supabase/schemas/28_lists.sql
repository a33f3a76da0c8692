-- Lists: items, claims and workers with everything that people ask about them. PostgREST filters, orders and pages.

create or replace view public.work_item_list with (security_invoker = true) as
select i.id,
       i.seq,
       i.pool,
       i.source_key,
       i.dedupe_key,
       i.priority,
       w.name as workflow,
       i.affinity,
       k.labels,
       k.requires,
       i.run_after,
       i.created_at,
       i.payload
  from public.work_items i
  left join public.work_workflows w on w.id = i.workflow_id
  left join public.work_classes k on k.id = i.class_id;
comment on view public.work_item_list is 'work-claims: items with their labels, requirements and workflow.';

-- The condition on classes is always true; with it a filter on status = ready alone can use work_claims_in_order.
-- item_key is item_id once more, as the item's own column: a page after a key bounds both, so that no plan reads the items
-- before it (a merge join would).
create or replace view public.work_claim_list with (security_invoker = true) as
select c.item_id,
       c.work_type,
       c.status,
       i.pool,
       i.source_key,
       c.priority,
       c.rank,
       c.position,
       w.name as workflow,
       c.affinity,
       k.labels,
       k.requires,
       c.worker_id,
       c.fence,
       c.request_id,
       c.failures,
       c.crashes,
       c.progress,
       c.error,
       c.due_at,
       c.claimed_at,
       c.expires_at,
       case when c.status = 'claimed' then c.expires_at - now() end as lease_left,
       c.finished_at,
       c.result,
       i.id as item_key,
       c.poll_at is not null as parked,
       c.external_id,
       c.state,
       c.stale,
       c.waits_for
  from public.work_claims c
  left join public.work_items i on i.id = c.item_id
  left join public.work_workflows w on w.id = c.workflow_id
  left join public.work_classes k on k.id = c.class_id
 where c.class_id > 0;
comment on view public.work_claim_list is
  'work-claims: claims with their item''s pool, key, labels, requirements and workflow. stale: why its result is out of date; waits_for: how many of its needs are not met. expires_at of a claim that never had a lease is -infinity.';

create or replace view public.work_worker_list with (security_invoker = true) as
select w.id,
       l.id is not null as alive,
       l.id is not null and h.holds is null as free,
       coalesce(h.holds, 0) as holds,
       w.work_types,
       case when w.work_types is not null then
         array(select distinct t.pool from public.work_types t where t.name = any (w.work_types) and t.pool is not null)
       end as pools,
       w.capabilities,
       w.accepts,
       w.exclusive,
       w.yield_seconds,
       w.version,
       w.instance,
       w.registered_at,
       w.last_seen_at,
       w.retired_at
  from public.work_workers w
  left join work.live_workers l on l.id = w.id
  left join (
    select c.worker_id, count(*) as holds
      from public.work_claims c
     where c.status = 'claimed' and c.expires_at > now() and c.poll_at is null
     group by c.worker_id) as h on h.worker_id = w.id;
comment on view public.work_worker_list is
  'work-claims: workers, whether they are alive (heard of within two minutes), free (alive, holding nothing), and how much they hold. No work_types and pools: any.';

create or replace view public.work_taken with (security_invoker = true) as
select c.item_id, c.work_type
  from public.work_claims c
 where c.status in ('succeeded', 'failed', 'cancelled', 'blocked')
    or (c.status = 'claimed' and c.expires_at > now())
    or (c.status = 'waiting' and c.due_at > now());
comment on view public.work_taken is
  'work-claims: items that cannot be claimed for a work type at the moment: done, held, blocked or not due. Embed it in work_items to read those that can.';
