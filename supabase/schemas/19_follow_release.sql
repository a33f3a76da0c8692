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
  perform work.lock_before_claims(close_with_all.outcomes);
  -- Several statements close these: without one lock of all rows in the order of keys, two calls could deadlock. Lost
  -- claims are left out, so that a late call does not wait for their locks.
  perform work.lock_around(work.held_outcomes(close_with_all.worker_id, close_with_all.outcomes));
  held := work.held_outcomes(close_with_all.worker_id, close_with_all.outcomes);
  -- A result of an input that is no longer there has no effects.
  perform work.apply_results(h.results)
     from (select jsonb_agg(e.value) as results
             from jsonb_array_elements(held) as e(value)
            where e.value ->> 'outcome' = 'succeeded' and not (e.value ->> 'is_again')::boolean) as h
    where h.results is not null;
  perform work.close_succeeded(close_with_all.worker_id, held, only_plain => false);
  if jsonb_path_exists(held, '$[*].outcome ? (@ != "succeeded")') then
    perform work.close_others(close_with_all.worker_id, held);
    perform work.park(close_with_all.worker_id, held);
  end if;
  perform work.record_closed(close_with_all.worker_id, held);
  perform work.follow_closed(held);
  perform work.stop_at_dead_ends(held);
  perform work.wake_workers(null);
end
$$;

-- Lock what a release needs beside claims, before any claim: the rows that results are written to, then the items that get
-- further needs. A person's update of a row takes its locks in this order.
create or replace function work.lock_before_claims(outcomes jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  -- Items that come with needs end the plain way of their pools' work types.
  perform work.unplain(array(
    select t.name
      from public.work_types t
     where t.pool in (
       select coalesce(e.value ->> 'pool', 'default')
         from jsonb_to_recordset(lock_before_claims.outcomes) as o(items jsonb)
        cross join lateral jsonb_array_elements(case jsonb_typeof(o.items) when 'array' then o.items else '[]' end) as e(value)
        where e.value ?| '{needs,needs_all_of,fingerprint}')));
  perform work.lock_rows(r.pool, r.source_keys)
     from (select t.pool, array_agg(i.source_key) as source_keys
             from jsonb_to_recordset(lock_before_claims.outcomes) as o(item_id uuid, work_type text collate "C", outcome text)
             join public.work_types t on t.name = o.work_type
             join public.work_pools p on p.name = t.pool and p.source is not null
             join public.work_items i on i.id = any (array[o.item_id])
            where o.outcome = 'succeeded' and (t.into_column is not null or t.apply is not null) and i.source_key is not null
            group by t.pool) as r;
  perform from (select distinct o.item_id
                  from jsonb_to_recordset(lock_before_claims.outcomes) as o(item_id uuid, needs jsonb)
                 where jsonb_typeof(o.needs) = 'array'
                 order by o.item_id) as wanted
    cross join lateral (
      select from public.work_items i where i.id = any (array[wanted.item_id]) for no key update) as locked;
end
$$;

-- Of these outcomes, those whose claim the worker holds, the first of each claim, with all that its release needs to know.
-- is_again: the claim is to be done once more, since its input changed meanwhile, or its work type has a new version.
create or replace function work.held_outcomes(worker_id text, outcomes jsonb)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select coalesce(jsonb_agg(h.outcome order by h.item_id, h.work_type), '[]')
      from (select distinct on (o.item_id, o.work_type) o.item_id, o.work_type,
                   o.outcome || jsonb_build_object(
                     'is_again', c.read_input is not null or c.again is not null or coalesce(c.claimed_at < t.version_at, false),
                     'reason', case when c.read_input is not null then 'its input changed while it ran'
                                    else coalesce(c.again, format('version %s', t.version)) end,
                     'is_change', c.read_input is not null) as outcome
              from rows from (
                     jsonb_to_recordset(held_outcomes.outcomes) as (item_id uuid, work_type text collate "C", fence bigint),
                     jsonb_array_elements(held_outcomes.outcomes))
                   with ordinality as o(item_id, work_type, fence, outcome, n)
              join public.work_claims c on c.item_id = any (array[o.item_id]) and c.work_type = o.work_type
              left join public.work_types t on t.name = o.work_type
             where (c.status, c.worker_id, c.fence) is not distinct from ('claimed', held_outcomes.worker_id, o.fence)
               -- A repeated call parks nothing, and must not lengthen the lease.
               and not (c.poll_at is not null and o.outcome ->> 'outcome' = 'parked')
             order by o.item_id, o.work_type, o.n) as h);
end
$$;

-- After claims were closed: change what needs them, then add their new items and needs, since these may change one of the
-- closed; and open those again that are to be done once more, also after a failure: the new input has not failed yet. The
-- next try adds the items of the new input.
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
      from jsonb_to_recordset(held) as h(
             item_id uuid, work_type text collate "C", outcome text, is_again boolean, items jsonb, needs jsonb)
     where (jsonb_typeof(h.items) = 'array' or jsonb_typeof(h.needs) = 'array') and not (h.outcome = 'succeeded' and h.is_again)
  loop
    begin
      new_ids := case when jsonb_typeof(released.items) = 'array' then public.enqueue_items(released.items) end;
      if jsonb_typeof(released.needs) = 'array' then
        perform work.need(released.item_id, released.needs, new_ids);
      end if;
    exception when sqlstate 'PT404' then
      -- With this status a worker would take its own address or key to be wrong.
      raise exception using errcode = 'PT400', message = sqlerrm;
    end;
  end loop;
  perform work.reopen(h.again)
     from (select jsonb_agg(e.value) as again from jsonb_array_elements(held) as e(value)
            where (e.value ->> 'is_again')::boolean and e.value ->> 'outcome' in ('succeeded', 'failed')) as h
    where h.again is not null;
end
$$;
