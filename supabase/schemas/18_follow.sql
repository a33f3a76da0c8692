-- Following: a claim that ends, or is open again, changes the claims that need it.

-- The claims that need these, through all claims between them where `deep` is true. Keys are {item_id, work_type}.
create or replace function work.dependents_of(keys jsonb, deep boolean)
returns table (item_id uuid, work_type text)
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return query
  with recursive given as materialized (
    select k.item_id, k.work_type from jsonb_to_recordset(dependents_of.keys) as k(item_id uuid, work_type text collate "C")
  ),
  down as (
    select g.item_id, g.work_type, 0 as depth from given g
     union
    select n.item_id, n.work_type, 1
      from down u
     cross join lateral (
       select d.item_id, d.work_type
         from public.work_dependencies d
        where d.needs_item_id = any (array[u.item_id]) and d.needs_work_type = u.work_type
        union all
       select u.item_id, t.work_type from work.type_needs t where t.needs_work_type = u.work_type
        union all
       select d.item_id, d.work_type
         from public.work_claims c
         join public.work_dependencies d on d.needs_workflow_id = c.workflow_id
        where c.item_id = any (array[u.item_id]) and c.work_type = u.work_type) as n
     where deep or u.depth = 0
  )
  select distinct d.item_id, d.work_type from down d where d.depth > 0;
end
$$;

-- Lock workflows against change; those that an item waits for so that one call at a time looks whether they are over.
create or replace function work.lock_workflows(ids bigint[], at_once boolean default false)
returns void
language plpgsql
as $$
declare
  locked bigint[];
begin
  if ids = '{}' then
    return;
  end if;
  if at_once then
    perform from public.work_workflows w where w.id = any (ids) order by w.id for no key update nowait;
    return;
  end if;
  locked := array(
    select w.id from public.work_workflows w where w.id = any (ids) and w.is_gathered order by w.id for no key update);
  locked := locked || array(
    select w.id from public.work_workflows w where w.id = any (ids) and not w.is_gathered order by w.id for share skip locked);
  -- Another call changes the others, and an item may begin to wait for them. A share lock taken now could not be raised.
  perform from public.work_workflows w where w.id = any (ids) and w.id <> all (locked) order by w.id for no key update;
end
$$;

-- Lock claims and all that is changed by their end, in the order of keys: without this, two releases deadlock, or a
-- release with a person's update of the row. At once gives up with an error rather than wait for another call.
create or replace function work.lock_around(keys jsonb, deep boolean default false, at_once boolean default false)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  around jsonb;
begin
  select jsonb_agg(jsonb_build_object('item_id', a.item_id, 'work_type', a.work_type) order by a.item_id, a.work_type)
    into around
    from (select k.item_id, k.work_type from jsonb_to_recordset(lock_around.keys) as k(item_id uuid, work_type text collate "C")
           union
          select d.item_id, d.work_type from work.dependents_of(lock_around.keys, lock_around.deep) d) as a;
  perform work.lock_workflows(array(
    select distinct c.workflow_id
      from jsonb_to_recordset(around) as k(item_id uuid, work_type text collate "C")
      join public.work_claims c on c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
     where c.workflow_id is not null
     order by 1), lock_around.at_once);
  if lock_around.at_once then
    perform from rows from (jsonb_to_recordset(around) as (item_id uuid, work_type text collate "C")) with ordinality as k(item_id, work_type, n)
     cross join lateral (
       select from public.work_claims c
        where c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
          for no key update nowait) as locked;
  else
    perform from rows from (jsonb_to_recordset(around) as (item_id uuid, work_type text collate "C")) with ordinality as k(item_id, work_type, n)
     cross join lateral (
       select from public.work_claims c
        where c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
          for no key update) as locked;
  end if;
end
$$;

-- Mark needs on whole workflows as met or not. Answers the claims whose count changes: {item_id, work_type, delta, fails}.
create or replace function work.meet_gathers(workflow_ids bigint[])
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  answer jsonb;
begin
  if workflow_ids = '{}' then
    return '[]';
  end if;
  with ended as materialized (
    select w.id, e.is_over, e.is_succeeded
      from (select distinct u.id from unnest(workflow_ids) as u(id)) as w
     cross join lateral work.workflow_end(w.id) as e
  ),
  turned as (
    update public.work_dependencies d
       set is_met = not d.is_met
      from ended e, public.work_types t
     where d.needs_workflow_id = e.id and t.name = d.work_type
       and d.is_met <> case t.on_failed_need when 'run' then e.is_over else e.is_succeeded end
    returning d.item_id, d.work_type, case when d.is_met then -1 else 1 end as delta
  )
  select jsonb_agg(jsonb_build_object('item_id', a.item_id, 'work_type', a.work_type, 'delta', a.delta, 'why', a.why,
           'fails', a.fails))
    into answer
    from (select t.item_id, t.work_type, t.delta, 'a part of its workflow is done again' as why, false as fails from turned t
          union all
          select d.item_id, d.work_type, 0, 'a part of its workflow failed', true
            from ended e
            join public.work_dependencies d on d.needs_workflow_id = e.id
            join public.work_types t on t.name = d.work_type
           where t.on_failed_need = 'fail' and e.is_over and not e.is_succeeded) as a;
  return coalesce(answer, '[]');
end
$$;

-- Mark needs on these claims as met or not: each is {item_id, work_type, was, became}. Answers as meet_gathers().
create or replace function work.meet_needs(changed jsonb)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  answer jsonb;
begin
  with given as materialized (
    select k.* from jsonb_to_recordset(meet_needs.changed) as k(item_id uuid, work_type text collate "C", was text, became text)
  ),
  turned as (
    update public.work_dependencies d
       set is_met = not d.is_met
      from given g, public.work_types t
     where d.needs_item_id = any (array[g.item_id]) and d.needs_work_type = g.work_type and t.name = d.work_type
       and d.is_met <> (g.became is null or work.is_met(g.became, t.on_failed_need))
    returning d.item_id, d.work_type, case when d.is_met then -1 else 1 end as delta, g.work_type as needed, g.became
  ),
  affected as (
    select t.* from turned t
    union all
    select g.item_id, n.work_type, case when work.is_met(g.became, n.on_failed_need) then -1 else 1 end, g.work_type, g.became
      from given g
      join work.type_needs n on n.needs_work_type = g.work_type
     where work.is_met(g.became, n.on_failed_need) <> work.is_met(g.was, n.on_failed_need)
    union all
    select d.item_id, d.work_type, 0, g.work_type, g.became
      from given g
     cross join lateral (
       select e.item_id, e.work_type from public.work_dependencies e
        where e.needs_item_id = any (array[g.item_id]) and e.needs_work_type = g.work_type
        union all
       select g.item_id, n.work_type from work.type_needs n where n.needs_work_type = g.work_type) as d
      join public.work_types t on t.name = d.work_type
     where t.on_failed_need = 'fail' and g.became in ('failed', 'cancelled')
  )
  select jsonb_agg(jsonb_build_object('item_id', a.item_id, 'work_type', a.work_type, 'delta', a.delta,
           'why', format('%s is done again', a.needed), 'fails', a.delta = 0))
    into answer
    from affected a;
  return coalesce(answer, '[]');
end
$$;

-- Give claims their new count of unmet needs. One that waits for nothing more is ready; one that was done before its need
-- was open again is to be done again, unless done work stays done; one that fails with its need fails. Answers these
-- changes as meet_needs() takes them.
create or replace function work.apply_counts(affected jsonb, stays_done boolean default false)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  answer jsonb;
begin
  with given as materialized (
    select a.item_id, a.work_type, sum(a.delta)::integer as delta, bool_or(a.fails) as fails,
           min(a.why) filter (where a.delta > 0) as why
      from jsonb_to_recordset(apply_counts.affected) as a(item_id uuid, work_type text collate "C", delta integer, why text, fails boolean)
     group by a.item_id, a.work_type
     order by a.item_id, a.work_type
  ),
  before as materialized (
    select g.*, c.status, c.status in ('succeeded', 'failed') and g.delta > 0 and not apply_counts.stays_done as reopens,
           c.status = 'blocked' and g.fails as ends
      from given g
     cross join lateral (
       select k.status from public.work_claims k
        where k.item_id = any (array[g.item_id]) and k.work_type = g.work_type
          for no key update) as c
  ),
  changed as (
    update public.work_claims c
       set waits_for = c.waits_for + b.delta,
           status = case
             when b.ends then 'failed'
             when b.reopens or (c.status in ('ready', 'waiting') and c.waits_for + b.delta > 0) then 'blocked'
             when c.status <> 'blocked' or c.waits_for + b.delta > 0 then c.status
             when c.due_at > moment then 'waiting'
             else 'ready'
           end,
           due_at = case
             when b.reopens then greatest(moment, (select i.run_after from public.work_items i where i.id = any (array[c.item_id])))
             when c.status = 'blocked' and c.waits_for + b.delta = 0 then greatest(c.due_at, moment)
             else c.due_at
           end,
           finished_at = case when b.ends then moment when not b.reopens then c.finished_at end,
           error = case when b.ends then 'something it needs failed or was cancelled' when b.reopens then null else c.error end,
           failures = case when b.reopens then 0 else c.failures end,
           crashes = case when b.reopens then 0 else c.crashes end,
           poll_at = case when not b.reopens then c.poll_at end,
           progress = case when not b.reopens then c.progress end,
           stale = case when b.reopens and c.status = 'succeeded' then b.why else c.stale end,
           again = case when c.status = 'claimed' and b.delta > 0 then b.why else c.again end
      from before b
     where c.item_id = any (array[b.item_id]) and c.work_type = b.work_type
    returning c.item_id, c.work_type, b.status as was, c.status, c.fence, c.stale, c.error
  ),
  tallied as (
    insert into work.tally_entries (work_type, succeeded, failed, blocked)
    select c.work_type, -count(*) filter (where c.was = 'succeeded'),
           count(*) filter (where c.status = 'failed') - count(*) filter (where c.was = 'failed'),
           count(*) filter (where c.status = 'blocked') - count(*) filter (where c.was = 'blocked')
      from changed c
     where c.was <> c.status
     group by c.work_type
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, fence, detail, from_status, to_status)
    select c.item_id, c.work_type,
           case when c.status = 'failed' then 'failed' when c.was in ('succeeded', 'failed') then 'reopened'
                when c.status = 'blocked' then 'blocked' else 'unblocked' end,
           c.fence,
           case when c.status = 'failed' then c.error else c.stale end, c.was, c.status
      from changed c
     where c.was <> c.status
       and (c.status = 'failed' or c.was in ('succeeded', 'failed')
         or c.work_type in (select t.name from public.work_types t where t.history = 'full'))
  )
  select jsonb_agg(jsonb_build_object('item_id', c.item_id, 'work_type', c.work_type, 'was', c.was, 'became', c.status))
    into answer
    from changed c
   where c.was <> c.status and (c.was in ('succeeded', 'failed') or c.status = 'failed');
  return answer;
end
$$;

-- Change all that needs these claims, and what needs that: each is {item_id, work_type, was, became}; became null says
-- that the claim is gone with its item. The caller has locked them with lock_around().
create or replace function work.follow(changed jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  affected jsonb;
begin
  while jsonb_array_length(changed) > 0 loop
    affected := work.meet_needs(changed) || work.meet_gathers(array(
      select c.workflow_id
        from jsonb_to_recordset(changed) as k(item_id uuid, work_type text collate "C")
        join public.work_claims c on c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
        join public.work_workflows w on w.id = c.workflow_id
       where w.is_gathered));
    exit when affected = '[]';
    changed := work.apply_counts(affected);
  end loop;
end
$$;

-- Look whether these workflows are over or open again, after items were added or removed. Work that is done stays done.
create or replace function work.look_at_gathers(workflow_ids bigint[])
returns void
language plpgsql
as $$
begin
  if workflow_ids = '{}' then
    return;
  end if;
  perform work.lock_workflows(array(select distinct u.id from unnest(look_at_gathers.workflow_ids) as u(id) order by u.id));
  perform work.follow(work.apply_counts(work.meet_gathers(look_at_gathers.workflow_ids), stays_done => true));
end
$$;

-- A workflow is gone: nothing waits for it any more.
create or replace function work.forget_gather(workflow_id bigint)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  affected jsonb;
begin
  with gone as (
    delete from public.work_dependencies d where d.needs_workflow_id = forget_gather.workflow_id
    returning d.item_id, d.work_type, d.is_met
  )
  select jsonb_agg(jsonb_build_object('item_id', g.item_id, 'work_type', g.work_type, 'delta', -1, 'fails', false))
    into affected
    from gone g
   where not g.is_met;
  if affected is not null then
    perform work.follow(work.apply_counts(affected));
  end if;
end
$$;

-- Items are gone: nothing waits for them any more.
create or replace function work.forget_needs()
returns trigger
language plpgsql
as $$
declare
  affected jsonb;
begin
  if not exists (select from public.work_dependencies) then
    return null;
  end if;
  with gone as materialized (
    select d.id, d.item_id, d.work_type, d.is_met
      from old_items o
      join public.work_dependencies d on d.needs_item_id = any (array[o.id])
     order by d.item_id, d.work_type
  ),
  deleted as (
    delete from public.work_dependencies d using gone g where d.id = g.id
  )
  select jsonb_agg(jsonb_build_object('item_id', g.item_id, 'work_type', g.work_type, 'delta', -1, 'fails', false))
    into affected
    from gone g
   where not g.is_met;
  if affected is not null then
    perform work.follow(work.apply_counts(affected));
  end if;
  perform work.look_at_gathers(array(
    select distinct o.workflow_id
      from old_items o
      join public.work_workflows w on w.id = o.workflow_id
     where w.is_gathered
       -- Its last record was pruned: what waited for it has run.
       and exists (
         select from public.work_items i where i.workflow_id = w.id and i.gathers_id is distinct from w.id)));
  return null;
end
$$;
create or replace trigger forget_needs
  after delete on public.work_items referencing old table as old_items
  for each statement execute function work.forget_needs();
