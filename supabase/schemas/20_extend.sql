-- The heartbeat: a worker extends the leases of all that it holds in one call.

-- Extend the leases of claims [{item_id, work_type, fence, progress, state}]; each is answered in its place: held, with
-- the new end of its lease, lost, or cancelled by a person. An empty list says that the worker is alive.
create or replace function public.extend_claims(worker_id text, held jsonb, ttl_seconds integer default null)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  wrong bigint;
  kept integer;
  answer json;
  lost jsonb;
begin
  perform work.check_name('worker_id', extend_claims.worker_id);
  perform work.check_list('held', extend_claims.held);
  perform work.check_ttl(extend_claims.ttl_seconds);
  select e.n - 1 into wrong
    from jsonb_array_elements(extend_claims.held) with ordinality as e(value, n)
   where jsonb_typeof(e.value) <> 'object'
      or e.value ->> 'item_id' is null
      or e.value ->> 'work_type' is null
      or jsonb_typeof(e.value -> 'fence') is distinct from 'number'
      or case jsonb_typeof(e.value -> 'progress')
           when 'null' then false
           when 'number' then (e.value ->> 'progress')::numeric not between 0 and 1
           else e.value ? 'progress'
         end
      or octet_length((e.value -> 'state')::text) > 65536
   limit 1;
  if found then
    perform work.refuse(
      format('held[%s]', wrong), left((extend_claims.held -> wrong::integer)::text, 60),
      'an object with item_id, work_type and fence, as the claim had them, was expected; progress is a number from 0 to 1, state has at most 65536 bytes');
  end if;

  -- The update has the form of close_succeeded(), for its reasons.
  with given as materialized (
    select g.*, coalesce(extend_claims.ttl_seconds, t.lease_seconds, 60) as ttl_seconds
      from rows from (jsonb_to_recordset(extend_claims.held) as (
             item_id uuid, work_type text collate "C", fence bigint, progress real, state jsonb))
           with ordinality as g(item_id, work_type, fence, progress, state, n)
      left join public.work_types t on t.name = g.work_type
     order by g.item_id, g.work_type
  ),
  extended as (
    update public.work_claims c
       set expires_at = clock_timestamp() + make_interval(secs => g.ttl_seconds),
           progress = coalesce(g.progress, c.progress),
           state = coalesce(g.state, c.state)
      from given g
     where c.item_id = any (array[g.item_id]) and c.work_type = g.work_type
       and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', extend_claims.worker_id, g.fence)
       -- A heartbeat that was under way as the claim was parked must not shorten its lease.
       and c.poll_at is null
    returning g.n, g.ttl_seconds, c.item_id, c.work_type, c.fence, c.expires_at
  )
  select count(*), json_agg(claim order by x.n)
    into kept, answer
    from extended x
   cross join lateral (
     select x.item_id, x.work_type, x.fence, 'held' as state, x.ttl_seconds, x.expires_at) as claim;
  -- After the claims: retire_worker() locks in the same order.
  perform work.touch_worker(extend_claims.worker_id);
  if kept = jsonb_array_length(extend_claims.held) then
    return coalesce(answer, '[]');
  end if;

  select json_agg(
           jsonb_build_object('item_id', a.item_id, 'work_type', a.work_type, 'fence', a.fence, 'state', a.state)
           || case when a.state = 'held' then jsonb_build_object(
                'expires_at', a.expires_at,
                'ttl_seconds', coalesce(extend_claims.ttl_seconds, (
                  select t.lease_seconds from public.work_types t where t.name = a.work_type)))
              else '{}' end
           order by a.n),
         jsonb_agg(jsonb_build_object('item_id', a.item_id, 'work_type', a.work_type, 'fence', a.fence,
           'detail', 'a heartbeat came too late') order by a.n) filter (where a.state = 'lost' and not a.is_released)
    into answer, lost
    from (select g.*, c.expires_at,
                 case
                   when (c.status, c.fence, c.worker_id) = ('claimed', g.fence, extend_claims.worker_id) then 'held'
                   when c.fence = g.fence and c.status = 'cancelled' then 'cancelled'
                   else 'lost'
                 end as state,
                 -- The worker itself has released it meanwhile: no call came too late.
                 (c.fence, c.worker_id) is not distinct from (g.fence, extend_claims.worker_id) as is_released
            from rows from (jsonb_to_recordset(extend_claims.held) as (item_id uuid, work_type text collate "C", fence bigint))
                 with ordinality as g(item_id, work_type, fence, n)
            left join lateral (
              select k.* from public.work_claims k where k.item_id = g.item_id and k.work_type = g.work_type limit 1) as c on true) as a;
  if lost is not null then
    perform work.record_stale(extend_claims.worker_id, 'stale_extend', lost);
  end if;
  return answer;
end
$$;
comment on function public.extend_claims is
  'The heartbeat of a worker: extends its claims [{item_id, work_type, fence, progress, state}] in one call and answers each: held, lost or cancelled. An empty list says that the worker is alive.';
