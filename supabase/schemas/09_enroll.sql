-- Enrolling: items get claims, and open claims follow changes of their item or workflow.

-- Make a claim for each of these items and work types that has none. The caller has locked the items against change;
-- answers how many claims were made.
create or replace function work.enroll(item_ids uuid[], work_types text[])
returns integer
language plpgsql
as $$
declare
  enrolled integer;
  have_needs boolean := exists (
    select from unnest(item_ids) as given(id)
      join public.work_items i on i.id = any (array[given.id])
     where i.needs is not null or i.gathers_id is not null
        or exists (select from public.work_workflows w where w.id = i.workflow_id and w.is_gathered));
begin
  -- A work type may be newer than the needs of its items.
  if have_needs then
    perform work.unplain(work_types || work.types_needed(item_ids, work_types));
  end if;
  -- A workflow's priority must not change until the claims that copy it are visible.
  perform work.lock_workflows(array(
    select i.workflow_id from unnest(item_ids) as given(id) join public.work_items i on i.id = any (array[given.id])
     where i.workflow_id is not null));
  -- In the order of keys: claim_items() may wait for these keys at the same time.
  insert into public.work_claims
    (item_id, work_type, status, priority, rank, position, class_id, affinity, workflow_id, due_at)
  select i.item_id, t.name,
         case when i.has_needs or r.depends_on <> '{}' then 'blocked'
              when i.run_after > clock_timestamp() then 'waiting'
              else 'ready' end,
         i.priority, i.rank, i.position, i.class_id, i.affinity, i.workflow_id, greatest(i.run_after, clock_timestamp())
    from unnest(item_ids) as given(id)
    join work.ranked_items i on i.item_id = any (array[given.id])
   cross join unnest(work_types) as t(name)
    left join public.work_types r on r.name = t.name
   order by i.item_id, t.name
  on conflict do nothing;
  get diagnostics enrolled = row_count;
  perform work.wake_workers(work_types);
  if enrolled > 0 and (have_needs or exists (
    select from public.work_types t where not t.is_plain and t.name = any (work_types))) then
    perform work.count_needs(item_ids, work_types);
  end if;
  return enrolled;
end
$$;

-- New items are enrolled for the work types of their pool, in the transaction that adds them.
create or replace function work.enroll_new_items()
returns trigger
language plpgsql
as $$
declare
  pool_name text;
  work_types text[];
begin
  for pool_name in select distinct i.pool from new_items i order by i.pool loop
    perform pg_advisory_xact_lock_shared(work.pool_lock_key(pool_name));
    work_types := array(select t.name from public.work_types t where t.pool = pool_name);
    if work_types <> '{}' then
      perform work.enroll(array(select i.id from new_items i where i.pool = pool_name), work_types);
    end if;
  end loop;
  return null;
end
$$;
create or replace trigger enroll_new_items
  after insert on public.work_items referencing new table as new_items
  for each statement execute function work.enroll_new_items();

-- The claims of a deleted item go with it. They are locked in the order of keys first: the cascade deletes them in any
-- order, and would deadlock with a release of two of them.
create or replace function work.lock_claims_of_item()
returns trigger
language plpgsql
as $$
begin
  perform from public.work_claims c where c.item_id = any (array[old.id]) order by c.work_type for update;
  return old;
end
$$;
create or replace trigger lock_claims_of_item
  before delete on public.work_items
  for each row execute function work.lock_claims_of_item();

-- Claims follow their item: its priority, workflow, class, affinity and run_after. Ended ones too: a change may open them
-- again at the same moment.
create or replace function work.move_open_claims()
returns trigger
language plpgsql
as $$
declare
  moved uuid[];
  rescheduled boolean[];
  regrouped bigint[];
begin
  select array_agg(n.id order by n.id), array_agg(n.run_after is distinct from o.run_after order by n.id),
         array_agg(o.workflow_id) filter (where o.workflow_id is distinct from n.workflow_id)
           || array_agg(n.workflow_id) filter (where o.workflow_id is distinct from n.workflow_id)
    into moved, rescheduled, regrouped
    from new_items n
    join old_items o on o.id = n.id
   where (n.priority, n.run_after, n.class_id, n.affinity, n.workflow_id)
           is distinct from (o.priority, o.run_after, o.class_id, o.affinity, o.workflow_id);
  if moved is null then
    return null;
  end if;
  perform work.unplain(array(
    select distinct c.work_type
      from new_items i
      join public.work_workflows w on w.id = i.workflow_id and w.is_gathered
      join public.work_claims c on c.item_id = any (array[i.id])
     where i.id = any (moved)));
  perform work.lock_workflows(array(
    select i.workflow_id from new_items i where i.workflow_id is not null
     union
    select u.id from unnest(regrouped) as u(id) where u.id is not null));
  with changed as materialized (
    select m.is_rescheduled, i.*
      from unnest(moved, rescheduled) as m(id, is_rescheduled)
     cross join lateral (select r.* from work.ranked_items r where r.item_id = m.id limit 1) as i
     order by m.id
  )
  update public.work_claims c
     set priority = m.priority,
         rank = m.rank,
         class_id = m.class_id,
         affinity = m.affinity,
         workflow_id = m.workflow_id,
         status = case
           when not m.is_rescheduled or c.status not in ('ready', 'waiting') then c.status
           when m.run_after > clock_timestamp() then 'waiting'
           else 'ready'
         end,
         due_at = case
           when m.is_rescheduled and c.status in ('blocked', 'ready', 'waiting', 'claimed') then greatest(m.run_after, clock_timestamp())
           else c.due_at
         end
    from changed m
   where c.item_id = any (array[m.item_id]);
  perform work.look_at_gathers(array(
    select w.id from public.work_workflows w where w.id = any (regrouped) and w.is_gathered));
  return null;
end
$$;
create or replace trigger move_open_claims
  after update on public.work_items referencing old table as old_items new table as new_items
  for each statement execute function work.move_open_claims();

-- Open claims follow their workflow's priority and rank. The items of a deleted workflow go on without one.
create or replace function work.move_workflow()
returns trigger
language plpgsql
as $$
begin
  if tg_op = 'DELETE' then
    perform work.forget_gather(old.id);
    update public.work_items i set gathers_id = null where i.gathers_id = old.id;
    update public.work_items i set workflow_id = null where i.workflow_id = old.id;
    return null;
  end if;
  if (new.priority, new.rank) is distinct from (old.priority, old.rank) then
    -- In the order of keys. A claim that changes while this waits for its row is looked at again: it moves if it is still
    -- open and still of this workflow.
    with moved as materialized (
      select c.item_id, c.work_type
        from public.work_claims c
       where c.workflow_id = new.id and c.status in ('blocked', 'waiting', 'ready', 'claimed')
       order by c.item_id, c.work_type
    )
    update public.work_claims c
       set priority = new.priority, rank = new.rank
      from moved m
     where c.item_id = any (array[m.item_id]) and c.work_type = m.work_type
       and c.workflow_id is not distinct from new.id
       and c.status in ('blocked', 'waiting', 'ready', 'claimed')
       and (c.priority, c.rank) is distinct from (new.priority, new.rank);
  end if;
  return null;
end
$$;
create or replace trigger move_workflow
  after update or delete on public.work_workflows for each row execute function work.move_workflow();
