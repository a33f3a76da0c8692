-- Claiming: named items, or the next ones.

-- Claim rows that the caller has locked, and answer the claims in their order. Every claim is made by this statement.
create or replace function work.hold(row_ids tid[], worker_id text, ttl_seconds integer, request_id uuid)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  answer json;
  are_plain boolean;
begin
  if row_ids = '{}' then
    return '[]';
  end if;
  -- The clock is read with the row locked: no lease begins before the last one of the row has ended.
  with held as (
    update public.work_claims c
       set status = 'claimed',
           worker_id = hold.worker_id,
           fence = nextval('work.fence'),
           request_id = hold.request_id,
           claimed_at = clock_timestamp(),
           expires_at = clock_timestamp() + make_interval(secs => coalesce(hold.ttl_seconds, t.lease_seconds)),
           progress = null,
           poll_at = null,
           read_input = null,
           again = null
      from unnest(hold.row_ids) with ordinality as p(row_id, n), public.work_types t
     where c.ctid = p.row_id and t.name = c.work_type and not t.paused
    returning p.n, c.item_id, c.work_type, c.fence, coalesce(hold.ttl_seconds, t.lease_seconds) as ttl_seconds,
              c.expires_at, c.failures, c.crashes, c.state, c.external_id, t.try_seconds, t.is_plain
  )
  select json_agg(claim order by h.n), bool_and(h.is_plain)
    into answer, are_plain
    from held h
    join public.work_items i on i.id = h.item_id
   cross join lateral (
     select h.item_id, h.work_type, h.fence, h.ttl_seconds, h.expires_at, h.try_seconds, h.failures, h.crashes,
            h.external_id, h.state, i.traceparent, i.pool, i.source_key, i.payload) as claim;
  if not are_plain then
    perform work.record_claimed(hold.worker_id, answer);
    answer := work.with_needs(answer);
  end if;
  return coalesce(answer, '[]');
end
$$;

-- Claims with what they need: each need with its result, while these fit into 256 kB a claim; at most 100 of one claim.
create or replace function work.with_needs(claims json)
returns json
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select coalesce(json_agg(case when n.needs is null then e.value else (e.value::jsonb || jsonb_build_object('needs', n.needs))::json end order by e.n), '[]')
      from json_array_elements(claims) with ordinality as e(value, n)
     cross join lateral (select (e.value ->> 'item_id')::uuid as item_id, e.value ->> 'work_type' as work_type) as c
     cross join lateral (
       select jsonb_agg(jsonb_build_object('item_id', w.item_id, 'work_type', w.work_type, 'source_key', w.source_key,
                'dedupe_key', w.dedupe_key, 'status', w.status)
                || case when w.bytes <= 262144 then jsonb_build_object('result', w.result) else '{"is_large": true}' end
                order by w.position) as needs
         from (select k.item_id, k.work_type, i.source_key, i.dedupe_key, k.status, k.result, k.position,
                      sum(coalesce(pg_column_size(k.result), 0)) over (order by k.position, k.item_id, k.work_type) as bytes
                 from (select c.item_id, t.needs_work_type as work_type from work.type_needs t where t.work_type = c.work_type
                        union
                       select d.needs_item_id, d.needs_work_type
                         from public.work_dependencies d
                        where d.item_id = any (array[c.item_id]) and d.work_type = c.work_type and d.needs_item_id is not null
                        union
                       select m.id, p.work_type
                         from public.work_dependencies d
                         join public.work_items m on m.workflow_id = d.needs_workflow_id and m.gathers_id is distinct from d.needs_workflow_id
                         join public.work_claims p on p.item_id = m.id
                        where d.item_id = any (array[c.item_id]) and d.work_type = c.work_type and d.needs_workflow_id is not null
                        limit 100) as d
                 join public.work_claims k on k.item_id = any (array[d.item_id]) and k.work_type = d.work_type
                 join public.work_items i on i.id = k.item_id) as w) as n);
end
$$;

-- The claims that a worker still holds of an earlier call with this request id: the answer to a repeated call.
create or replace function work.claims_of_request(worker_id text, request_id uuid)
returns json
language sql
stable
as $$
  select work.with_needs(coalesce(json_agg(claim order by c.priority desc, c.rank, c.position), '[]'))
    from public.work_claims c
    join public.work_items i on i.id = c.item_id
    join public.work_types t on t.name = c.work_type
   cross join lateral (
     select c.item_id, c.work_type, c.fence, round(extract(epoch from c.expires_at - c.claimed_at)) as ttl_seconds,
            c.expires_at, t.try_seconds, c.failures, c.crashes, c.external_id, c.state, i.traceparent, i.pool, i.source_key,
            i.payload) as claim
   where c.status = 'claimed'
     and c.poll_at is null
     and c.worker_id = claims_of_request.worker_id
     and c.request_id = claims_of_request.request_id
$$;

-- Lock items that have no claim for a work type, so that they can be enrolled. Locked ones are skipped.
create or replace function work.lock_unclaimed(item_ids uuid[], work_type text, class_ids integer[])
returns uuid[]
language plpgsql
as $$
#variable_conflict use_column
begin
  return array(
    select i.id
      from (select distinct u.id from unnest(lock_unclaimed.item_ids) as u(id) order by u.id) as wanted
      join public.work_items i on i.id = any (array[wanted.id])
     where i.class_id = any (lock_unclaimed.class_ids)
       and (i.run_after is null or i.run_after <= clock_timestamp())
       and not exists (
         select from public.work_claims k where k.item_id = any (array[i.id]) and k.work_type = lock_unclaimed.work_type)
     order by i.id
       for share of i skip locked);
end
$$;

-- Lock the claims of these items that a worker may hold, in the order of keys. Locked ones are skipped.
create or replace function work.lock_named(item_ids uuid[], work_type text, profile work.profiles)
returns tid[]
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
begin
  return coalesce((
    select array_agg(l.row_id order by l.priority desc, l.rank, l.position)
      from (select c.ctid as row_id, c.priority, c.rank, c.position
              from (select distinct u.id, lock_named.work_type as work_type
                      from unnest(lock_named.item_ids) as u(id)
                     order by u.id) as wanted
              join public.work_claims c on c.item_id = any (array[wanted.id]) and c.work_type = wanted.work_type
             where (c.status is not distinct from 'ready' or (c.status is not distinct from 'waiting' and c.due_at <= moment))
               and (c.class_id = any (profile.class_ids)
                 or (c.class_id = any (profile.yielded_class_ids)
                   and c.due_at <= moment - make_interval(secs => profile.yield_seconds)))
             order by c.item_id
               for no key update of c skip locked) as l),
    '{}');
end
$$;

-- Wait for the transactions that have locked these items, or their ready claims.
create or replace function work.wait_for_named(item_ids uuid[], work_type text, class_ids integer[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  perform from (select distinct u.id from unnest(wait_for_named.item_ids) as u(id) order by u.id) as wanted
     join public.work_items i on i.id = any (array[wanted.id])
    where i.class_id = any (wait_for_named.class_ids)
      and not exists (
        select from public.work_claims k where k.item_id = any (array[i.id]) and k.work_type = wait_for_named.work_type)
    order by i.id
      for share of i;
  perform from (select distinct u.id, wait_for_named.work_type as work_type
                  from unnest(wait_for_named.item_ids) as u(id)
                 order by u.id) as wanted
     join public.work_claims c on c.item_id = any (array[wanted.id]) and c.work_type = wanted.work_type
    where c.class_id = any (wait_for_named.class_ids) and c.status is not distinct from 'ready'
    order by c.item_id
      for no key update of c;
end
$$;

-- Claim these items; the answer holds the claims that were won. Ids that do not exist, are held, done or not due are
-- missing from it. An empty list claims nothing, but takes back ended leases.
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
  profile work.profiles;
  class_ids integer[];
  is_paused boolean;
  moment timestamptz := clock_timestamp();
  row_ids tid[];
begin
  if claim_items.item_ids is null then
    perform work.refuse('item_ids', null, 'a list of item ids was expected');
  end if;
  if cardinality(claim_items.item_ids) > 1000 then
    perform work.refuse('item_ids', cardinality(claim_items.item_ids) || ' long', 'one call claims at most 1000');
  end if;
  perform work.check_name('work_type', claim_items.work_type);
  perform work.check_name('worker_id', claim_items.worker_id);
  perform work.check_ttl(claim_items.ttl_seconds);
  if claim_items.request_id is not null and work.is_repeated(claim_items.request_id) then
    return work.claims_of_request(claim_items.worker_id, claim_items.request_id);
  end if;
  profile := work.catch_up(claim_items.worker_id, may_lock => cardinality(claim_items.item_ids) = 0);
  if cardinality(claim_items.item_ids) = 0 then
    return '[]';
  end if;
  select t.paused into is_paused from public.work_types t where t.name = claim_items.work_type;
  if is_paused then
    return '[]';
  elsif is_paused is null then
    perform work.check_own_name(claim_items.work_type);
    insert into public.work_types (name, is_plain)
    values (claim_items.work_type, not exists (select from public.work_workflows w where w.is_gathered))
    on conflict do nothing;
  end if;

  class_ids := profile.class_ids || profile.yielded_class_ids;
  for round in 1..2 loop
    perform work.enroll(work.lock_unclaimed(claim_items.item_ids, claim_items.work_type, class_ids), array[claim_items.work_type]);
    if exists (select from public.work_claims c where c.status = 'claimed' and c.expires_at <= moment) then
      perform work.reap(0, claim_items.item_ids, array[claim_items.work_type]);
    end if;
    row_ids := work.lock_named(claim_items.item_ids, claim_items.work_type, profile);
    exit when row_ids <> '{}' or round = 2;
    -- A caller takes an empty answer for the end: rows that others have locked are waited for before it gets one.
    perform work.wait_for_named(claim_items.item_ids, claim_items.work_type, class_ids);
  end loop;
  return work.hold(row_ids, claim_items.worker_id, claim_items.ttl_seconds, claim_items.request_id);
end
$$;
comment on function public.claim_items is
  'Claims these items for a worker and answers those it won, each with its fence, lease and payload. Held, finished or unknown ids, and items that require more than the worker has, are missing. Repeat it with the same request_id and it claims nothing more.';

-- Which of these classes a worker is never given: a worker that pages candidates leaves them out.
create or replace function public.refused_classes(worker_id text, class_ids integer[])
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  profile work.profiles;
begin
  perform work.check_name('worker_id', refused_classes.worker_id);
  if refused_classes.class_ids is null or cardinality(refused_classes.class_ids) > 10000 then
    perform work.refuse('class_ids', coalesce(cardinality(refused_classes.class_ids) || ' long', 'null'),
      'a list of at most 10000 ids of classes was expected');
  end if;
  profile := work.catch_up(refused_classes.worker_id, may_lock => true);
  return coalesce(
    (select json_agg(distinct u.id) from unnest(refused_classes.class_ids) as u(id)
      where u.id <> all (profile.class_ids || profile.yielded_class_ids)),
    '[]');
end
$$;
comment on function public.refused_classes is
  'Answers which of these classes (class_id of items) a worker is never given: it lacks what they require, does not accept their labels, or leaves them to others for good.';

-- Refuse wrong arguments of claim_next() and finish_and_claim().
create or replace function work.check_claim(
  work_types text[], worker_id text, max_items integer, ttl_seconds integer, warm text[])
returns void
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
  if worker_id is null or length(worker_id) not between 1 and 200 then
    perform work.check_name('worker_id', worker_id);
  end if;
  if ttl_seconds is not null then
    perform work.check_ttl(ttl_seconds);
  end if;
end
$$;

-- Claim the next items that the worker matches: the highest priority first; within one priority the items that the
-- worker is warm for, then the older workflow, then first come, first served. At most 1,000 a call.
create or replace function public.claim_next(
  work_types text[],
  worker_id text,
  max_items integer default 1,
  ttl_seconds integer default null,
  warm text[] default null,
  request_id uuid default null
)
returns json
language plpgsql
as $$
begin
  perform work.check_claim(work_types, worker_id, max_items, ttl_seconds, warm);
  if request_id is not null and work.is_repeated(request_id) then
    return work.claims_of_request(worker_id, request_id);
  end if;
  return work.take_next(work_types, worker_id, max_items, ttl_seconds, warm, request_id);
end
$$;
comment on function public.claim_next is
  'Claims what is next of these work types among the items that the worker matches, at most max_items (1000), and answers the claims with their payloads. warm: affinities of which the worker has something loaded. Repeat it with the same request_id and it claims nothing more.';
