-- Needs: claims that wait for others. A work type may depend on others of the same item, and an item on other items or on
-- a whole workflow. A claim counts what it waits for in waits_for.

create table if not exists public.work_dependencies (
  id bigint generated always as identity primary key,
  item_id uuid not null,
  work_type text collate "C" not null,
  needs_item_id uuid,
  needs_work_type text collate "C",
  needs_workflow_id bigint,
  is_met boolean not null default false,
  check ((needs_item_id is null) = (needs_work_type is null)),
  check (num_nonnulls(needs_item_id, needs_workflow_id) = 1),
  foreign key (item_id, work_type) references public.work_claims (item_id, work_type) on delete cascade
);
comment on table public.work_dependencies is
  'work-claims: one row a need of a claim: another item''s claim, or all of a workflow. Needs between work types of one item are in work_types.depends_on.';
create unique index if not exists work_dependencies_of_claim on public.work_dependencies
  (item_id, work_type, needs_item_id, needs_work_type);
comment on index public.work_dependencies_of_claim is 'What does this claim need? Also when it is deleted.';
create unique index if not exists work_dependencies_of_gather on public.work_dependencies
  (item_id, work_type, needs_workflow_id) where needs_workflow_id is not null;
comment on index public.work_dependencies_of_gather is 'Which workflows does this claim need?';
create index if not exists work_dependencies_on_claim on public.work_dependencies
  (needs_item_id, needs_work_type) where needs_item_id is not null;
comment on index public.work_dependencies_on_claim is 'Which claims need this one?';
create index if not exists work_dependencies_on_workflow on public.work_dependencies
  (needs_workflow_id) where needs_workflow_id is not null;
comment on index public.work_dependencies_on_workflow is 'Which claims need this workflow?';

-- Whether a need that has this status is met, for a work type with this rule. Written in PL/pgSQL, which keeps its plan: a
-- function in SQL with settings of its own is planned again at each call.
create or replace function work.is_met(status text, on_failed_need text)
returns boolean
language plpgsql
immutable
as $$
begin
  return coalesce(status = 'succeeded' or (on_failed_need = 'run' and status in ('failed', 'cancelled')), false);
end
$$;

-- Which work type needs which on the same item. A need of a work type that several do is one of each.
create or replace view work.type_needs with (security_invoker = true) as
select t.name as work_type, u.name as needs_work_type, t.on_failed_need
  from public.work_types t
 cross join unnest(t.depends_on) as d(name)
  join public.work_types u on u.name = d.name or u.copy_of = d.name;
comment on view work.type_needs is 'work-claims: which work type needs which on the same item.';

-- The work types of a needed item that a claim waits for: the named one, else its own, else all of the needed item's pool.
create or replace function work.needed_types(work_type text, needed_pool text, named text)
returns setof text
language plpgsql
stable
as $$
begin
  return query
  with own as (
    select coalesce(t.copy_of, t.name) as name from public.work_types t where t.name = needed_types.work_type and t.pool = needed_pool
  )
  select t.name
    from public.work_types t
   where case
           when named is not null then t.name = named or t.copy_of = named
           when exists (select from own) then coalesce(t.copy_of, t.name) = (select o.name from own o)
           else t.pool = needed_pool
         end
   union
  select named where named is not null;
end
$$;

-- The work types that claims of these items and work types are going to need on other items.
create or replace function work.types_needed(item_ids uuid[], work_types text[])
returns text[]
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return array(
    select distinct u.name
      from unnest(types_needed.item_ids) as given(id)
      join public.work_items i on i.id = any (array[given.id])
     cross join unnest(types_needed.work_types) as t(name)
     cross join lateral jsonb_to_recordset(i.needs) as n(item_id uuid, work_type text collate "C")
      join public.work_items y on y.id = any (array[n.item_id])
     cross join lateral work.needed_types(t.name, y.pool, n.work_type) as u(name)
     where i.needs is not null);
end
$$;

-- Write down the needs of these items' claims.
create or replace function work.add_dependencies(item_ids uuid[], work_types text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  with needed as materialized (
    select i.id, t.name as work_type, n.item_id as needs_item_id, u.name as needs_work_type
      from unnest(add_dependencies.item_ids) as given(id)
      join public.work_items i on i.id = any (array[given.id])
     cross join unnest(add_dependencies.work_types) as t(name)
     cross join lateral jsonb_to_recordset(i.needs) as n(item_id uuid, work_type text collate "C")
      join public.work_items y on y.id = any (array[n.item_id])
     cross join lateral work.needed_types(t.name, y.pool, n.work_type) as u(name)
     where i.needs is not null
  ),
  added as (
    insert into public.work_dependencies (item_id, work_type, needs_item_id, needs_work_type)
    select n.id, n.work_type, n.needs_item_id, n.needs_work_type from needed n
     where exists (select from public.work_claims c where c.item_id = any (array[n.id]) and c.work_type = n.work_type)
    on conflict do nothing
  )
  insert into public.work_dependencies (item_id, work_type, needs_workflow_id)
  select i.id, t.name, i.gathers_id
    from unnest(add_dependencies.item_ids) as given(id)
    join public.work_items i on i.id = any (array[given.id])
   cross join unnest(add_dependencies.work_types) as t(name)
   where i.gathers_id is not null
     and exists (select from public.work_claims c where c.item_id = any (array[i.id]) and c.work_type = t.name)
  on conflict do nothing;
end
$$;

-- Lock these items' claims and what they need against change: a release of it waits, and then finds them. In the order of
-- keys: without one order for both, add_needs() deadlocks with a release. Of a claim that is not there yet, its item is
-- locked: that keeps others from making the claim.
create or replace function work.lock_needs(item_ids uuid[], work_types text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  perform from (
      select distinct d.needs_item_id as item_id
        from unnest(lock_needs.item_ids) as given(id)
        join public.work_dependencies d on d.item_id = any (array[given.id])
       where d.needs_item_id is not null and not d.is_met
         and not exists (
           select from public.work_claims c where c.item_id = any (array[d.needs_item_id]) and c.work_type = d.needs_work_type)
       order by 1) as unclaimed
   cross join lateral (
     select from public.work_items i where i.id = any (array[unclaimed.item_id]) for no key update) as locked;
  perform from public.work_workflows w
    where w.id = any (array(
            select d.needs_workflow_id
              from unnest(lock_needs.item_ids) as given(id)
              join public.work_dependencies d on d.item_id = any (array[given.id])
             where d.needs_workflow_id is not null))
    order by w.id for no key update;
  perform from (
      select d.needs_item_id as item_id, d.needs_work_type as work_type
        from unnest(lock_needs.item_ids) as given(id)
        join public.work_dependencies d on d.item_id = any (array[given.id])
       where d.needs_item_id is not null and not d.is_met
       union
      select given.id, n.needs_work_type
        from unnest(lock_needs.item_ids) as given(id)
       cross join work.type_needs n
       where n.work_type = any (lock_needs.work_types)
       union
      select given.id, t.name
        from unnest(lock_needs.item_ids) as given(id)
       cross join unnest(lock_needs.work_types) as t(name)
       order by 1, 2) as needed
   cross join lateral (
     select from public.work_claims c
      where c.item_id = any (array[needed.item_id]) and c.work_type = needed.work_type
        for no key update) as locked;
end
$$;

-- Whether all of a workflow is over, and whether all of it succeeded. Items that wait for it do not belong to it.
create or replace function work.workflow_end(workflow_id bigint, out is_over boolean, out is_succeeded boolean)
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  is_over := not exists (
      select from public.work_claims c
        join public.work_items i on i.id = c.item_id
       where c.workflow_id = workflow_end.workflow_id and c.status in ('blocked', 'waiting', 'ready', 'claimed')
         and i.gathers_id is distinct from workflow_end.workflow_id)
    and exists (
      select from public.work_items i
       where i.workflow_id = workflow_end.workflow_id and i.gathers_id is distinct from workflow_end.workflow_id);
  is_succeeded := is_over and not exists (
    select from public.work_items i
      join public.work_claims c on c.item_id = i.id
     where i.workflow_id = workflow_end.workflow_id and i.gathers_id is distinct from workflow_end.workflow_id
       and c.status in ('failed', 'cancelled'));
end
$$;

-- Let these items' claims fail whose needs have failed long before: no later release tells of it.
create or replace function work.fail_with_needs(item_ids uuid[], work_types text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  perform work.follow((
    select jsonb_agg(jsonb_build_object('item_id', f.item_id, 'work_type', f.work_type, 'was', f.status, 'became', f.status))
      from unnest(fail_with_needs.item_ids) as given(id)
      join public.work_types t on t.name = any (fail_with_needs.work_types) and t.on_failed_need = 'fail'
     cross join lateral (
       select d.needs_item_id as item_id, d.needs_work_type as work_type
         from public.work_dependencies d
        where d.item_id = any (array[given.id]) and d.work_type = t.name and not d.is_met and d.needs_item_id is not null
        union all
       select given.id, n.needs_work_type from work.type_needs n where n.work_type = t.name) as n
      join public.work_claims f on f.item_id = any (array[n.item_id]) and f.work_type = n.work_type
     where f.status in ('failed', 'cancelled')));
end
$$;

-- Count anew what these items' claims wait for, and block or ready them. Every claim that has needs is made so.
create or replace function work.count_needs(item_ids uuid[], work_types text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  perform work.add_dependencies(count_needs.item_ids, count_needs.work_types);
  perform work.lock_needs(count_needs.item_ids, count_needs.work_types);
  -- An item that was deleted meanwhile is needed no more.
  delete from public.work_dependencies d
   using unnest(count_needs.item_ids) as given(id)
   where d.item_id = any (array[given.id]) and d.needs_item_id is not null and not d.is_met
     and not exists (select from public.work_items i where i.id = any (array[d.needs_item_id]));
  update public.work_dependencies d
     set is_met = true
    from (select g.id, w.name from unnest(count_needs.item_ids) as g(id) cross join unnest(count_needs.work_types) as w(name)) as given,
         public.work_types t
   where d.item_id = any (array[given.id]) and d.work_type = given.name and not d.is_met
     and t.name = any (array[given.name])
     and case
           when d.needs_workflow_id is not null then (
             select case t.on_failed_need when 'run' then e.is_over else e.is_succeeded end
               from work.workflow_end(d.needs_workflow_id) as e)
           else work.is_met((
             select k.status from public.work_claims k
              where k.item_id = any (array[d.needs_item_id]) and k.work_type = d.needs_work_type), t.on_failed_need)
         end;
  with counted as materialized (
    select c.item_id, c.work_type, c.status,
           (select count(*) from public.work_dependencies d
             where d.item_id = any (array[c.item_id]) and d.work_type = c.work_type and not d.is_met)
           + (select count(*) from work.type_needs n
               where n.work_type = c.work_type
                 and not work.is_met((
                   select k.status from public.work_claims k
                    where k.item_id = any (array[c.item_id]) and k.work_type = n.needs_work_type), n.on_failed_need)) as needs
      from (select distinct g.id, w.name
              from unnest(count_needs.item_ids) as g(id)
             cross join unnest(count_needs.work_types) as w(name)
             order by g.id, w.name) as given
     cross join lateral (
       select k.item_id, k.work_type, k.status from public.work_claims k
        where k.item_id = any (array[given.id]) and k.work_type = given.name
          for no key update) as c
  ),
  changed as (
    update public.work_claims c
       set waits_for = n.needs,
           status = case
             when c.status not in ('blocked', 'waiting', 'ready') then c.status
             when n.needs > 0 then 'blocked'
             when c.due_at > clock_timestamp() then 'waiting'
             else 'ready'
           end
      from counted n
     where c.item_id = any (array[n.item_id]) and c.work_type = n.work_type
       and (c.waits_for <> n.needs or c.status = 'blocked' and n.needs = 0 or c.status in ('waiting', 'ready') and n.needs > 0)
    returning c.item_id, c.work_type, n.status as was, c.status, c.fence
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, fence, from_status, to_status)
    select c.item_id, c.work_type, case c.status when 'blocked' then 'blocked' else 'unblocked' end, c.fence, c.was, c.status
      from changed c
     where c.was <> c.status and c.work_type in (select t.name from public.work_types t where t.history = 'full')
  )
  insert into work.tally_entries (work_type, blocked)
  select c.work_type, count(*) filter (where c.status = 'blocked') - count(*) filter (where c.was = 'blocked')
    from changed c
   group by c.work_type
  having count(*) filter (where c.status = 'blocked') <> count(*) filter (where c.was = 'blocked');
  perform work.fail_with_needs(count_needs.item_ids, count_needs.work_types);
  perform work.look_at_gathers(array(
    select i.workflow_id
      from unnest(count_needs.item_ids) as given(id)
      join public.work_items i on i.id = any (array[given.id])
      join public.work_workflows w on w.id = i.workflow_id
     where w.is_gathered and i.gathers_id is distinct from i.workflow_id
     union
    select i.gathers_id
      from unnest(count_needs.item_ids) as given(id)
      join public.work_items i on i.id = any (array[given.id])
     where i.gathers_id is not null));
end
$$;
