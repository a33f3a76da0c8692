-- Dead ends: a work type may stop at the first claim that fails for good, until a person has looked.

-- Stop the work types of which one of these claims has failed for good, each with its further claims, and say why. The
-- caller has locked the claims; it locks nothing after. Once a type is stopped, other releases find it so and wait for none.
create or replace function work.stop_at_dead_ends(keys jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  dead record;
begin
  for dead in
    select distinct on (t.first_name) t.first_name, c.item_id, c.work_type, c.fence,
           format('item %s failed for good in %s: %s', c.item_id, c.work_type, left(c.error, 500)) as why
      from jsonb_to_recordset(keys) as k(item_id uuid, work_type text collate "C")
      join public.work_claims c on c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
     cross join lateral (
       select coalesce(w.copy_of, w.name) as first_name
         from public.work_types w
        where w.name = c.work_type and w.on_dead_end = 'stop' and not w.paused) as t
     where c.status is not distinct from 'failed'
     order by t.first_name, c.finished_at
  loop
    update public.work_types t
       set paused = true, stopped = dead.why
     where (t.name = dead.first_name or t.copy_of = dead.first_name) and not t.paused;
    if found then
      insert into public.work_events (item_id, work_type, event, fence, detail)
      values (dead.item_id, dead.work_type, 'stopped', dead.fence, dead.why);
    end if;
  end loop;
end
$$;
