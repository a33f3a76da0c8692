-- Give items a priority. Their open claims follow, except those of a workflow, whose priority counts for all of it.
create or replace function public.set_priority(item_ids uuid[], priority integer)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  changed uuid[];
  priorities integer[];
begin
  if set_priority.item_ids is null or cardinality(set_priority.item_ids) > 1000 then
    perform work.refuse(
      'item_ids', coalesce(cardinality(set_priority.item_ids) || ' long', 'null'), 'a list of at most 1000 was expected');
  end if;
  if set_priority.priority is null or set_priority.priority not between -1000000 and 1000000 then
    perform work.refuse('priority', set_priority.priority::text, 'a whole number from -1000000 to 1000000 was expected');
  end if;
  -- Rows are locked in the order of ids, so that two calls with the same items do not deadlock.
  with wanted as materialized (
    select i.id, i.priority
      from (select distinct u.id from unnest(set_priority.item_ids) as u(id) order by u.id) as given
      join public.work_items i on i.id = any (array[given.id])
     where i.priority <> set_priority.priority
     order by given.id
       for no key update of i
  ),
  changed as (
    update public.work_items i
       set priority = set_priority.priority
      from wanted w
     where i.id = any (array[w.id])
    returning i.id, w.priority as old_priority
  )
  select coalesce(array_agg(c.id), '{}'), array_agg(c.old_priority) into changed, priorities from changed c;
  if changed <> '{}' then
    insert into public.work_events (item_id, work_type, event, fence, detail, actor)
    select c.item_id, c.work_type, 'prioritized', c.fence,
           format('priority %s in place of %s', set_priority.priority, u.old_priority), work.actor()
      from unnest(changed, priorities) as u(id, old_priority)
      join public.work_claims c on c.item_id = any (array[u.id])
     where c.status in ('blocked', 'waiting', 'ready', 'claimed');
  end if;
  return cardinality(changed);
end
$$;
comment on function public.set_priority is
  'Gives these items a priority, at most 1000 a call; their open claims move at once. Answers how many had another priority.';
