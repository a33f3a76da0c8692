-- Items to claims.

-- Make a claim for each of these items and work types that has none; answers how many were made.
-- The caller has locked the items against change.
create or replace function work.enroll(item_ids uuid[], work_types text[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  made integer;
begin
  perform from public.work_workflows w
   where w.id = any (array(
           select i.workflow_id from unnest(enroll.item_ids) as n(id) join public.work_items i on i.id = any (array[n.id])))
   order by w.id for share;
  insert into public.work_claims
    (item_id, work_type, status, priority, line, position, class_id, affinity, workflow_id, due_at)
  select p.item_id, t.name, case when p.run_after > clock_timestamp() then 'waiting' else 'ready' end,
         p.priority, p.line, p.position, p.class_id, p.affinity, p.workflow_id, greatest(p.run_after, clock_timestamp())
    from unnest(enroll.item_ids) as n(id)
    join work.places p on p.item_id = any (array[n.id])
   cross join unnest(enroll.work_types) as t(name)
   order by n.id, t.name
  on conflict do nothing;
  get diagnostics made = row_count;
  if made > 0 then
    perform work.note_arrivals();
  end if;
  return made;
end
$$;
