-- Give items a priority. Their open claims follow, except those of a workflow, whose priority counts for all of it.
create or replace function public.set_priority(item_ids uuid[], priority integer)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  changed integer;
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
    select i.id
      from (select distinct u.id from unnest(set_priority.item_ids) as u(id) order by u.id) as given
      join public.work_items i on i.id = any (array[given.id])
     where i.priority <> set_priority.priority
     order by given.id
       for no key update of i
  )
  update public.work_items i
     set priority = set_priority.priority
    from wanted w
   where i.id = any (array[w.id]);
  get diagnostics changed = row_count;
  return changed;
end
$$;
comment on function public.set_priority is
  'Gives these items a priority, at most 1000 a call; their open claims move at once. Answers how many had another priority.';
