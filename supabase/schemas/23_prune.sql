-- Pruning: the record of old ended claims goes, and no worker gets them again.

-- The time of the next upkeep by a claim call: one row, which one call at a time locks.
create table if not exists work.upkeep (
  is_only boolean primary key default true check (is_only),
  due_at timestamptz not null default '-infinity'
);
comment on table work.upkeep is 'work-claims: when a claim call next folds tallies and prunes.';
insert into work.upkeep default values on conflict do nothing;

-- Remove these items with all their claims; answers how many claims. Rows that another call has locked are left to a later
-- call, and an item of which a claim is locked stays whole: nothing here waits.
create or replace function work.remove_items(item_ids uuid[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  locked uuid[];
  removed integer;
begin
  -- No claim can be added to an item that is locked for update.
  locked := array(
    select i.id from unnest(remove_items.item_ids) as u(id) join public.work_items i on i.id = any (array[u.id])
       for update of i skip locked);
  with claim as materialized (
    select c.item_id
      from unnest(locked) as u(id)
     cross join lateral (
       select k.item_id from public.work_claims k
        where k.item_id = any (array[u.id]) and k.finished_at is not null
          for update skip locked) as c
  )
  select coalesce(array_agg(w.item_id), '{}')
    into locked
    from (select c.item_id
            from claim c
           group by c.item_id
          having count(*) = (select count(*) from public.work_claims k where k.item_id = any (array[c.item_id]))) as w;
  -- Claims first, by one statement: as a consequence of deleting items each would be looked for again.
  delete from public.work_claims c using unnest(locked) as u(id) where c.item_id = any (array[u.id]);
  get diagnostics removed = row_count;
  delete from public.work_items i using unnest(locked) as u(id) where i.id = any (array[u.id]);
  return removed;
end
$$;

-- Remove a run's values from these items' claims of a work type; answers how many. The bare claims say that the items
-- are done.
create or replace function work.strip_claims(item_ids uuid[], work_type text)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  stripped uuid[];
begin
  with stripped as (
    update public.work_claims c
       set worker_id = null, fence = null, request_id = null, claimed_at = null, progress = null, result = null, error = null,
           poll_at = null, external_id = null, state = null
     where c.ctid = any (array(
             select k.row_id
               from unnest(strip_claims.item_ids) as u(id)
              cross join lateral (
                select o.ctid as row_id from public.work_claims o
                 where o.item_id = any (array[u.id]) and o.work_type = strip_claims.work_type
                   and o.fence is not null and o.finished_at is not null
                   for update skip locked) as k))
    returning c.item_id
  )
  select array_agg(s.item_id) into stripped from stripped s;
  delete from public.work_events e
   using unnest(stripped) as u(id)
   where e.item_id = any (array[u.id]) and e.work_type = strip_claims.work_type;
  return coalesce(cardinality(stripped), 0);
end
$$;

-- Prune these items' claims of a work type, which ended before these times; answers how many claims. An item that came by
-- enqueue_items() goes, once all its claims ended before, and those of other types are stripped; other claims are stripped.
create or replace function work.prune_items(
  item_ids uuid[], work_type text, succeeded_before timestamptz, failed_before timestamptz)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  removable uuid[];
  others uuid[];
begin
  select array_agg(p.id) filter (where p.is_removable), array_agg(p.id) filter (where not p.is_removable)
    into removable, others
    from (select i.id,
                 i.source_key is null
                   -- Something waits for it.
                   and not exists (
                     select from public.work_dependencies d where d.needs_item_id = any (array[i.id]) and not d.is_met)
                   and not exists (
                   select from public.work_claims c
                    where c.item_id = any (array[i.id])
                      and (c.finished_at < case
                             when c.work_type <> prune_items.work_type and c.fence is not null then '-infinity'
                             when c.status = 'succeeded' then prune_items.succeeded_before
                             else prune_items.failed_before end) is not true) as is_removable
            from unnest(prune_items.item_ids) as u(id)
            join public.work_items i on i.id = any (array[u.id])) as p;
  return work.remove_items(removable) + work.strip_claims(others, prune_items.work_type);
end
$$;

-- Look at the next claims along the primary key, and prune those of a work type that ended before these times. Answers
-- {pruned, done}; done when the end was reached, from which the next call begins anew. Succeeded claims are in no index
-- by time: such an entry a claim would cost a tenth of the rate.
create or replace function work.prune_next(
  work_type text, succeeded_before timestamptz, failed_before timestamptz, at_most integer, look_at integer)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  through uuid;
  old uuid[];
  last_item uuid;
  pruned integer := 0;
begin
  select coalesce(t.pruned_through, '00000000-0000-0000-0000-000000000000')
    into through
    from public.work_types t
   where t.name = prune_next.work_type
     for no key update skip locked;
  if not found then
    return jsonb_build_object('pruned', 0, 'done', false);
  end if;
  old := array(
    select l.item_id
      from (select c.item_id, c.work_type, c.status, c.finished_at
              from public.work_claims c
             where c.item_id > through
             order by c.item_id
             limit prune_next.look_at) as l
     where l.work_type = prune_next.work_type
       and l.finished_at < case when l.status = 'succeeded' then prune_next.succeeded_before else prune_next.failed_before end
     limit prune_next.at_most);
  if cardinality(old) = prune_next.at_most then
    last_item := old[prune_next.at_most];
  else
    last_item := (
      select c.item_id from public.work_claims c where c.item_id > through order by c.item_id
      offset prune_next.look_at - 1 limit 1);
    -- The page may end between two claims of an item: the next one begins with that item.
    last_item := coalesce((
      select c.item_id from public.work_claims c
       where c.item_id > through and c.item_id < last_item order by c.item_id desc limit 1), last_item);
  end if;
  if cardinality(old) > 0 then
    pruned := work.prune_items(old, prune_next.work_type, prune_next.succeeded_before, prune_next.failed_before);
  end if;
  update public.work_types t set pruned_through = last_item, pruned_at = clock_timestamp() where t.name = prune_next.work_type;
  return jsonb_build_object('pruned', pruned, 'done', last_item is null);
end
$$;

-- Remove the record of claims that ended this long ago, at most so many a call, and answer {pruned, done}. It goes
-- through all claims a page a call: repeat it until done.
create or replace function public.prune_finished(work_type text, older_than interval, at_most integer default 1000)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp() - prune_finished.older_than;
begin
  if not exists (select from public.work_types t where t.name = prune_finished.work_type) then
    perform work.refuse('work_type', prune_finished.work_type, 'there is no such work type; see work_overview', 'PT404');
  end if;
  if prune_finished.older_than is null or prune_finished.older_than < '0' then
    perform work.refuse('older_than', prune_finished.older_than::text, 'an interval such as "30 days" was expected');
  end if;
  if prune_finished.at_most is null or prune_finished.at_most not between 1 and 10000 then
    perform work.refuse('at_most', prune_finished.at_most::text, 'expected 1 to 10000');
  end if;
  return work.prune_next(
    prune_finished.work_type, moment, moment, prune_finished.at_most, 1000 + 10 * prune_finished.at_most);
end
$$;
comment on function public.prune_finished is
  'Removes the record of claims of a work type that ended so long ago, at most at_most a call; answers {pruned, done}: repeat it until done. An item of enqueue_items() goes with its last record; a claim on a row of an attached table stays, bare, and so stays done.';

-- Fold entries into tallies, and prune a little of one work type that has a retention. One claim call in two seconds does
-- it; the others skip the locked row.
create or replace function work.keep_up(can_prune boolean)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  kept public.work_types;
  has_more boolean;
begin
  -- With one snapshot for the whole transaction, a row that another call has changed is an error.
  if current_setting('transaction_isolation') <> 'read committed' then
    return;
  end if;
  perform from work.upkeep u where u.due_at <= moment for no key update skip locked;
  if not found then
    return;
  end if;
  has_more := work.fold_tallies(10000) = 10000;
  select t.* into kept from public.work_types t where can_prune and t.redone_through is not null limit 1;
  if found then
    perform work.redo_next(kept, 2000);
    has_more := true;
  end if;
  select t.* into kept
    from public.work_types t
   where can_prune and (t.keep_succeeded is not null or t.keep_failed is not null)
   order by t.pruned_at nulls first
   limit 1;
  if found then
    has_more := (work.prune_next(
      kept.name, moment - kept.keep_succeeded, moment - kept.keep_failed, 500, 1000) ->> 'pruned')::integer > 100 or has_more;
  end if;
  update work.upkeep set due_at = clock_timestamp() + case when has_more then interval '0.5 s' else interval '2 s' end;
end
$$;
