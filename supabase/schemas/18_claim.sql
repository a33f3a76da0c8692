-- Claiming: by id, or what is next.

-- The claims a worker still holds from an earlier call with this request id: the answer to a repeated call.
create or replace function work.claims_of_request(worker_id text, request_id uuid, with_payload boolean)
returns json
language sql
stable
as $$
  select coalesce(
    json_agg(
      jsonb_build_object(
        'item_id', c.item_id, 'work_type', c.work_type, 'fence', c.fence,
        'ttl_seconds', round(extract(epoch from c.expires_at - c.claimed_at)), 'expires_at', c.expires_at,
        'failures', c.failures, 'crashes', c.crashes)
      || case when with_payload
           then jsonb_build_object('pool', i.pool, 'source_key', i.source_key, 'payload', i.payload)
           else '{}' end
      order by c.priority desc, c.line, c.position),
    '[]')
    from public.work_claims c
    join public.work_items i on i.id = c.item_id
   where c.status = 'claimed'
     and c.worker_id = claims_of_request.worker_id
     and c.request_id = claims_of_request.request_id
$$;

-- Claim these items: the answer holds the claims that were won. Ids that do not exist, are held, done or not due are
-- just missing from it. An empty list claims nothing, but still takes back what dead workers held.
create or replace function public.claim_items(
  item_ids uuid[],
  work_type text,
  worker_id text,
  ttl_seconds integer default null,
  request_id uuid default null
)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  checked boolean;
  profile work.profiles;
  rules public.work_types;
  moment timestamptz;
  unclaimed uuid[];
  possible uuid[];
  is_patient boolean := false;
  is_complete boolean;
  answer json;
begin
  if claim_items.item_ids is null then
    perform work.refuse('item_ids', null, 'a list of item ids was expected');
  end if;
  if cardinality(claim_items.item_ids) > 1000 then
    perform work.refuse('item_ids', cardinality(claim_items.item_ids) || ' long', 'one call claims at most 1000');
  end if;
  checked := work.check_name('work_type', claim_items.work_type)
    and work.check_name('worker_id', claim_items.worker_id)
    and work.check_ttl(claim_items.ttl_seconds);
  if claim_items.request_id is not null and work.is_repeated(claim_items.request_id) then
    return work.claims_of_request(claim_items.worker_id, claim_items.request_id, false);
  end if;
  profile := work.catch_up(claim_items.worker_id, array[claim_items.work_type], claim_items.item_ids);
  if cardinality(claim_items.item_ids) = 0 then
    return '[]';
  end if;

  select * into rules from public.work_types t where t.name = claim_items.work_type;
  if not found then
    insert into public.work_types (name) values (claim_items.work_type) on conflict do nothing;
    select * into rules from public.work_types t where t.name = claim_items.work_type;
  end if;
  if rules.paused then
    return '[]';
  end if;
  moment := clock_timestamp();

  -- In the order of ids, so that no two calls wait for each other in a circle. The primary key decides who wins; the
  -- fence is drawn after the wait for a row, so that it grows with every claim of it.
  -- An item that is deleted meanwhile fails the insert, and is not there the next time.
  for attempt in 1..100 loop
    begin
      -- A claim follows its item from the moment others see it. Items without one are locked against change until then.
      -- One that somebody is changing is left out, and waited for only where nothing else could be won: a caller takes
      -- an empty answer for the end.
      unclaimed := array(
        select i.id
          from (select distinct u.id from unnest(claim_items.item_ids) as u(id)) as wanted
          join public.work_items i on i.id = any (array[wanted.id])
         where not exists (
           select from public.work_claims k where k.item_id = any (array[i.id]) and k.work_type = claim_items.work_type)
         order by i.id);
      if is_patient then
        possible := array(
          select i.id from unnest(unclaimed) as u(id) join public.work_items i on i.id = any (array[u.id])
           order by i.id for share of i);
      else
        possible := array(
          select i.id from unnest(unclaimed) as u(id) join public.work_items i on i.id = any (array[u.id])
           order by i.id for share of i skip locked);
      end if;
      is_complete := cardinality(possible) = cardinality(unclaimed) or is_patient;
      if possible <> '{}' then
        perform from public.work_workflows w
         where w.id = any (array(
                 select i.workflow_id from unnest(possible) as n(id) join public.work_items i on i.id = any (array[n.id])))
         order by w.id for share;
      end if;
      possible := possible || array(
        select u.id from unnest(claim_items.item_ids) as u(id)
         where exists (
           select from public.work_claims k where k.item_id = any (array[u.id]) and k.work_type = claim_items.work_type));
      with won as (
        insert into public.work_claims as c
          (item_id, work_type, status, priority, line, position, class_id, affinity, workflow_id,
           worker_id, fence, request_id, claimed_at, expires_at)
        select i.item_id, claim_items.work_type, 'claimed', i.priority, i.line, i.position, i.class_id, i.affinity,
               i.workflow_id, claim_items.worker_id, nextval('work.fence'), claim_items.request_id, clock_timestamp(),
               clock_timestamp() + make_interval(secs => coalesce(claim_items.ttl_seconds, rules.lease_seconds))
          from (select distinct u.id from unnest(possible) as u(id) order by u.id) as wanted
          join work.places i on i.item_id = any (array[wanted.id])
         where (i.run_after is null or i.run_after <= moment)
           and (i.class_id = any (profile.class_ids)
             or (i.class_id = any (profile.yielded_class_ids)
               -- A claim's own age is asked below.
               and (i.due_at <= moment - make_interval(secs => profile.yield_seconds)
                 or exists (
                   select from public.work_claims k where k.item_id = any (array[i.item_id]) and k.work_type = claim_items.work_type))))
        on conflict (item_id, work_type) do update
           set status = 'claimed',
               worker_id = excluded.worker_id,
               fence = nextval('work.fence'),
               request_id = excluded.request_id,
               claimed_at = clock_timestamp(),
               expires_at = clock_timestamp() + make_interval(secs => coalesce(claim_items.ttl_seconds, rules.lease_seconds)),
               progress = null
         where (c.status = 'ready' or (c.status = 'waiting' and c.due_at <= clock_timestamp()))
           and (c.class_id = any (profile.class_ids)
             or (c.class_id = any (profile.yielded_class_ids)
               and c.due_at <= moment - make_interval(secs => profile.yield_seconds)))
        returning c.*
      )
      select json_agg(told order by w.priority desc, w.line, w.position)
        into answer
        from won w
       cross join lateral (
         select w.item_id, w.work_type, w.fence, coalesce(claim_items.ttl_seconds, rules.lease_seconds) as ttl_seconds,
                w.expires_at, w.failures, w.crashes) as told;
      exit when answer is not null or is_complete;
      is_patient := true;
    exception when foreign_key_violation then
      if attempt = 100 then
        raise;
      end if;
    end;
  end loop;
  return coalesce(answer, '[]');
end
$$;
comment on function public.claim_items is
  'Claims these items for a worker and answers those it won, each with its fence and lease. Held, finished or unknown ids, and items that require more than the worker has, are just missing. Repeat it with the same request_id and it claims nothing more.';

-- Which of these classes are not for this worker, whatever the time: a worker that chooses items by itself asks, to leave
-- them out of what it looks through.
create or replace function public.refused_classes(worker_id text, class_ids integer[])
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  checked boolean;
  profile work.profiles;
begin
  checked := work.check_name('worker_id', refused_classes.worker_id);
  if refused_classes.class_ids is null or cardinality(refused_classes.class_ids) > 10000 then
    perform work.refuse('class_ids', coalesce(cardinality(refused_classes.class_ids) || ' long', 'null'),
      'a list of at most 10000 numbers of classes was expected');
  end if;
  profile := work.catch_up(refused_classes.worker_id, '{}', '{}');
  return coalesce(
    (select json_agg(distinct u.id) from unnest(refused_classes.class_ids) as u(id)
      where u.id <> all (profile.class_ids || profile.yielded_class_ids)),
    '[]');
end
$$;
comment on function public.refused_classes is
  'Answers which of these classes (class_id of items) are not for this worker: it lacks what they require, does not accept their labels, or leaves them to others for good.';

-- What is wrong with "only", by which a worker narrows what it takes: {pool, workflow, labels}.
create or replace function work.check_only("only" jsonb)
returns boolean
language plpgsql
as $$
begin
  if jsonb_typeof("only") <> 'object' or "only" - '{pool,workflow,labels}'::text[] <> '{}'
    or jsonb_typeof("only" -> 'pool') <> 'string' or jsonb_typeof("only" -> 'workflow') <> 'string' then
    perform work.refuse('only', left("only"::text, 60),
      '{"pool": name, "workflow": name, "labels": condition} was expected, or some of them');
  end if;
  return true;
end
$$;

create or replace function work.check_claim(
  work_types text[], worker_id text, max_items integer, ttl_seconds integer, warm text[], "only" jsonb)
returns boolean
language plpgsql
as $$
begin
  if work_types is null or cardinality(work_types) not between 1 and 100 then
    perform work.refuse(
      'work_types', coalesce(cardinality(work_types) || ' long', 'null'), 'a list of 1 to 100 work types was expected');
  end if;
  if max_items is null or max_items < 1 then
    perform work.refuse('max_items', max_items::text, 'at least 1 was expected');
  end if;
  if cardinality(warm) > 100 then
    perform work.refuse('warm', cardinality(warm) || ' long', 'at most 100 were expected');
  end if;
  return work.check_name('worker_id', worker_id) and (ttl_seconds is null or work.check_ttl(ttl_seconds))
    and ("only" is null or work.check_only("only"));
end
$$;

-- Claim what is next: the highest priority first; within one what the worker is warm for, unless something has waited
-- too long; then the older workflow, then what came first. Only what the worker matches. At most 1,000 a call.
create or replace function public.claim_next(
  work_types text[],
  worker_id text,
  max_items integer default 1,
  ttl_seconds integer default null,
  warm text[] default null,
  "only" jsonb default null,
  request_id uuid default null
)
returns json
language plpgsql
as $$
begin
  if request_id is not null and work.is_repeated(request_id) then
    perform work.check_claim(work_types, worker_id, max_items, ttl_seconds, warm, "only");
    return work.claims_of_request(worker_id, request_id, true);
  end if;
  return work.take_next(work_types, worker_id, max_items, ttl_seconds, warm, "only", request_id);
end
$$;
comment on function public.claim_next is
  'Claims what is next in line for these work types among the items that the worker matches, at most max_items (1000), and answers the claims with their payloads. warm: affinities it has at hand; only: {pool, workflow, labels}. Repeat it with the same request_id and it claims nothing more.';
