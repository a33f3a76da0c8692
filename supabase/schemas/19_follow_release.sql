-- Releases of work types that are not plain: something follows from the end of their claims.

-- Close claims with all that follows: results are applied, dependents change, new items are added.
create or replace function work.close_with_all(worker_id text, outcomes jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  held jsonb;
begin
  -- The rows that results are written to come first, then claims: in the order in which a person's update locks them.
  perform work.lock_rows(r.pool, r.source_keys)
     from (select t.pool, array_agg(i.source_key) as source_keys
             from jsonb_to_recordset(close_with_all.outcomes) as o(item_id uuid, work_type text collate "C", outcome text)
             join public.work_types t on t.name = o.work_type
             join public.work_items i on i.id = any (array[o.item_id])
            where o.outcome = 'succeeded' and t.into_column is not null and i.source_key is not null
            group by t.pool) as r;
  -- Several statements close these: without one lock of all rows in the order of keys, two calls could deadlock.
  perform work.lock_around(work.held_outcomes(close_with_all.worker_id, close_with_all.outcomes));
  held := work.held_outcomes(close_with_all.worker_id, close_with_all.outcomes);
  perform work.apply_results(h.results)
     from (select jsonb_agg(e.value) as results
             from jsonb_array_elements(held) as e(value)
            where e.value ->> 'outcome' = 'succeeded' and not (e.value ->> 'is_again')::boolean) as h
    where h.results is not null;
  perform work.close_succeeded(close_with_all.worker_id, close_with_all.outcomes, only_plain => false);
  if jsonb_path_exists(close_with_all.outcomes, '$[*].outcome ? (@ != "succeeded")') then
    perform work.close_others(close_with_all.worker_id, close_with_all.outcomes);
    perform work.park(close_with_all.worker_id, close_with_all.outcomes);
  end if;
  perform work.record_closed(close_with_all.worker_id, held);
  perform work.follow_closed(held);
  perform work.stop_at_dead_ends(held);
  perform work.wake_workers(null);
end
$$;

-- Of these outcomes, those whose claim the worker holds, with all that its release needs to know. is_again: the claim is
-- to be done once more, since its input changed meanwhile, or its work type has a new version.
create or replace function work.held_outcomes(worker_id text, outcomes jsonb)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('item_id', o.item_id, 'work_type', o.work_type, 'fence', o.fence, 'outcome', o.outcome,
             'result', o.result, 'items', o.items, 'needs', o.needs,
             'is_again', c.read_input is not null or c.again is not null or coalesce(c.claimed_at < t.version_at, false),
             'reason', case when c.read_input is not null then 'its input changed while it ran'
                            else coalesce(c.again, format('version %s', t.version)) end,
             'is_change', c.read_input is not null)
             order by o.item_id, o.work_type), '[]')
      from jsonb_to_recordset(held_outcomes.outcomes) as o(
             item_id uuid, work_type text collate "C", fence bigint, outcome text, result jsonb, items jsonb, needs jsonb)
      join public.work_claims c on c.item_id = any (array[o.item_id]) and c.work_type = o.work_type
      left join public.work_types t on t.name = o.work_type
     where (c.status, c.worker_id, c.fence) is not distinct from ('claimed', held_outcomes.worker_id, o.fence));
end
$$;

-- After claims were closed: change what needs them, add their new items and needs, and open those again that are to be
-- done once more, also after a failure: the new input has not failed yet. A new item may change one of the closed: what
-- needs that has counted its end before.
create or replace function work.follow_closed(held jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  released record;
  new_ids jsonb;
  changed jsonb;
begin
  select jsonb_agg(jsonb_build_object('item_id', c.item_id, 'work_type', c.work_type, 'was', 'claimed', 'became', c.status))
    into changed
    from jsonb_to_recordset(held) as h(item_id uuid, work_type text collate "C")
    join public.work_claims c on c.item_id = any (array[h.item_id]) and c.work_type = h.work_type
   where c.status in ('succeeded', 'failed');
  perform work.follow(changed);
  for released in
    select h.item_id, h.work_type, h.items, h.needs
      from jsonb_to_recordset(held) as h(item_id uuid, work_type text collate "C", items jsonb, needs jsonb)
     where jsonb_typeof(h.items) = 'array' or jsonb_typeof(h.needs) = 'array'
  loop
    new_ids := case when jsonb_typeof(released.items) = 'array' then public.enqueue_items(released.items) end;
    if jsonb_typeof(released.needs) = 'array' then
      perform work.need(released.item_id, released.needs, new_ids);
    end if;
  end loop;
  perform work.reopen(h.again)
     from (select jsonb_agg(e.value) as again from jsonb_array_elements(held) as e(value)
            where (e.value ->> 'is_again')::boolean and e.value ->> 'outcome' in ('succeeded', 'failed')) as h
    where h.again is not null;
end
$$;
