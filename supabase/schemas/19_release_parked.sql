-- Parked claims: their work is done by a job elsewhere. A callback or a poll closes them.

-- Answer parked claims whose job is to be asked about, and ended claims whose job is to be stopped: those not answered
-- for so many seconds, the longest ago first. So several workers share the asking.
create or replace function public.take_parked(
  work_types text[],
  worker_id text,
  max_items integer default 100,
  every_seconds integer default 30
)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  answer json;
begin
  perform work.check_claim(take_parked.work_types, take_parked.worker_id, take_parked.max_items, null, null);
  if take_parked.every_seconds is null then
    perform work.refuse('every_seconds', null, '1 to 86400 were expected');
  end if;
  perform work.check_range('every_seconds', take_parked.every_seconds, 1, 86400);
  with taken as (
    update public.work_claims c
       set poll_at = moment + make_interval(secs => take_parked.every_seconds)
     where c.ctid = any (array(
             select p.row_id
               from unnest(take_parked.work_types) as wanted(work_type)
              cross join lateral (
                select k.ctid as row_id from public.work_claims k
                 where k.work_type = wanted.work_type and k.poll_at <= moment
                   and (k.status is distinct from 'claimed' or k.expires_at > moment)
                 order by k.poll_at
                 limit least(take_parked.max_items, 1000)
                   for no key update skip locked) as p
              limit least(take_parked.max_items, 1000)))
       and c.poll_at <= moment
    returning c.item_id, c.work_type, c.fence, c.status, c.external_id, c.state, c.claimed_at, c.expires_at
  )
  select json_agg(job order by t.claimed_at)
    into answer
    from taken t
    join public.work_items i on i.id = t.item_id
   cross join lateral (
     select t.item_id, t.work_type, t.fence, t.external_id, t.state, t.status <> 'claimed' as is_ended, t.claimed_at,
            t.expires_at, i.pool, i.source_key, i.payload) as job;
  return coalesce(answer, '[]');
end
$$;
comment on function public.take_parked is
  'Answers parked claims whose job elsewhere is to be asked about, and ended ones (is_ended) whose job is to be stopped; none of them again for every_seconds. release_parked() closes them.';

-- Close what is parked under the id of a job elsewhere, each claim by its current fence, or only the one with this fence.
-- The outcome abandoned says that the job of an ended claim was stopped. Answers each claim's new state; nothing is
-- parked under an id that was closed before.
create or replace function public.release_parked(
  external_id text,
  outcome text,
  result jsonb default null,
  error text default null,
  final boolean default false,
  fence bigint default null,
  work_types text[] default null,
  retry_after_seconds double precision default null
)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  parked record;
  state text;
  answer jsonb := '[]';
begin
  if release_parked.external_id is null or length(release_parked.external_id) not between 1 and 500 then
    perform work.refuse('external_id', release_parked.external_id, 'the id of the job elsewhere was expected, 1 to 500 characters');
  end if;
  if release_parked.outcome is null or release_parked.outcome not in ('succeeded', 'failed', 'released', 'abandoned') then
    perform work.refuse('outcome', release_parked.outcome, 'succeeded, failed, released or abandoned was expected');
  end if;
  if release_parked.outcome = 'succeeded' then
    perform work.lock_before_claims((
      select coalesce(jsonb_agg(jsonb_build_object('item_id', c.item_id, 'work_type', c.work_type, 'outcome', 'succeeded')), '[]')
        from public.work_claims c
       where c.external_id = release_parked.external_id and c.status = 'claimed'));
  end if;
  for parked in
    select c.item_id, c.work_type, c.worker_id, c.fence, c.status, c.poll_at
      from public.work_claims c
     where c.external_id = release_parked.external_id
       and (c.status = 'claimed') = (release_parked.outcome <> 'abandoned')
       and (release_parked.fence is null or c.fence = release_parked.fence)
       and (release_parked.work_types is null or c.work_type = any (release_parked.work_types))
     order by c.item_id, c.work_type
       for no key update
  loop
    -- A condition of the query that names poll_at would let the planner read all parked claims.
    continue when parked.poll_at is null;
    if release_parked.outcome = 'abandoned' then
      update public.work_claims c
         set poll_at = null, external_id = null
       where c.item_id = any (array[parked.item_id]) and c.work_type = parked.work_type;
      state := parked.status;
    else
      state := work.close_claims(parked.worker_id, jsonb_build_array(jsonb_build_object(
        'item_id', parked.item_id, 'work_type', parked.work_type, 'fence', parked.fence, 'outcome', release_parked.outcome,
        'result', release_parked.result, 'error', release_parked.error, 'final', release_parked.final,
        'retry_after_seconds', release_parked.retry_after_seconds))) ->> 0;
    end if;
    answer := answer || jsonb_build_object('item_id', parked.item_id, 'work_type', parked.work_type, 'state', state);
  end loop;
  return answer;
end
$$;
comment on function public.release_parked is
  'Closes what is parked under this id of a job elsewhere as succeeded, failed or released, each by its current fence; abandoned says that the job of a cancelled claim was stopped. Answers [{item_id, work_type, state}], empty where nothing is parked under the id.';
