-- The functions that a worker with a token calls. Each takes worker and work types from the token, and passes the rest on.

create or replace function public.token_claim_next(
  max_items integer default 1,
  ttl_seconds integer default null,
  warm text[] default null,
  request_id uuid default null,
  worker_suffix text default null
)
returns json
language plpgsql
security definer
as $$
begin
  return (
    select public.claim_next(
             w.work_types, w.worker_id, token_claim_next.max_items, token_claim_next.ttl_seconds, token_claim_next.warm,
             token_claim_next.request_id)
      from work.worker_of_request(token_claim_next.worker_suffix) as w);
end
$$;
comment on function public.token_claim_next is 'claim_next() for the worker and the work types of a token.';

create or replace function public.token_finish_and_claim(
  outcomes jsonb,
  max_items integer default 1,
  ttl_seconds integer default null,
  warm text[] default null,
  request_id uuid default null,
  worker_suffix text default null
)
returns json
language plpgsql
security definer
as $$
begin
  return (
    select public.finish_and_claim(
             w.worker_id, work.of_types(w.work_types, 'outcomes', token_finish_and_claim.outcomes), w.work_types,
             token_finish_and_claim.max_items, token_finish_and_claim.ttl_seconds, token_finish_and_claim.warm,
             token_finish_and_claim.request_id)
      from work.worker_of_request(token_finish_and_claim.worker_suffix) as w);
end
$$;
comment on function public.token_finish_and_claim is 'finish_and_claim() for the worker and the work types of a token.';

create or replace function public.token_release_items(outcomes jsonb, worker_suffix text default null)
returns json
language plpgsql
security definer
as $$
begin
  return (
    select public.release_items(w.worker_id, work.of_types(w.work_types, 'outcomes', token_release_items.outcomes))
      from work.worker_of_request(token_release_items.worker_suffix) as w);
end
$$;
comment on function public.token_release_items is 'release_items() for the worker of a token.';

create or replace function public.token_extend_claims(
  held jsonb, ttl_seconds integer default null, worker_suffix text default null)
returns json
language plpgsql
security definer
as $$
begin
  return (
    select public.extend_claims(
             w.worker_id, work.of_types(w.work_types, 'held', token_extend_claims.held), token_extend_claims.ttl_seconds)
      from work.worker_of_request(token_extend_claims.worker_suffix) as w);
end
$$;
comment on function public.token_extend_claims is 'extend_claims() for the worker of a token.';

create or replace function public.token_reread_claim(
  item_id uuid, work_type text, fence bigint, worker_suffix text default null)
returns json
language plpgsql
security definer
as $$
begin
  return (
    select public.reread_claim(token_reread_claim.item_id, token_reread_claim.work_type, w.worker_id, token_reread_claim.fence)
      from work.worker_of_request(token_reread_claim.worker_suffix) as w
     where work.of_types(w.work_types, 'work_type',
       jsonb_build_array(jsonb_build_object('work_type', token_reread_claim.work_type))) is not null);
end
$$;
comment on function public.token_reread_claim is 'reread_claim() for the worker and the work types of a token.';

create or replace function public.token_register_worker(
  instance uuid,
  capabilities jsonb default '{}',
  version text default null,
  accepts jsonb default '{}',
  exclusive text[] default '{}',
  yield_seconds integer default null,
  worker_suffix text default null
)
returns jsonb
language plpgsql
security definer
as $$
begin
  return (
    select public.register_worker(
             w.worker_id, token_register_worker.instance, w.work_types, token_register_worker.capabilities,
             token_register_worker.version, token_register_worker.accepts, token_register_worker.exclusive,
             token_register_worker.yield_seconds)
           || jsonb_build_object('work_types', w.work_types)
      from work.worker_of_request(token_register_worker.worker_suffix) as w);
end
$$;
comment on function public.token_register_worker is
  'register_worker() for the worker of a token; answers {worker_id, work_types}: the worker''s id and what the token opens.';

create or replace function public.token_retire_worker(worker_suffix text default null)
returns boolean
language plpgsql
security definer
as $$
begin
  return (
    select public.retire_worker(w.worker_id) from work.worker_of_request(token_retire_worker.worker_suffix) as w);
end
$$;
comment on function public.token_retire_worker is 'retire_worker() for the worker of a token.';

create or replace function public.token_describe_work_types()
returns json
language plpgsql
security definer
as $$
begin
  return (select public.describe_work_types(w.work_types) from work.worker_of_request(null) as w);
end
$$;
comment on function public.token_describe_work_types is 'describe_work_types() for the work types of a token.';

create or replace function public.token_work_remaining()
returns json
language plpgsql
security definer
as $$
begin
  return (select public.work_remaining(w.work_types) from work.worker_of_request(null) as w);
end
$$;
comment on function public.token_work_remaining is 'work_remaining() for the work types of a token.';

create or replace function public.token_take_parked(
  max_items integer default 100, every_seconds integer default 30, worker_suffix text default null)
returns json
language plpgsql
security definer
as $$
begin
  return (
    select public.take_parked(w.work_types, w.worker_id, token_take_parked.max_items, token_take_parked.every_seconds)
      from work.worker_of_request(token_take_parked.worker_suffix) as w);
end
$$;
comment on function public.token_take_parked is 'take_parked() for the worker and the work types of a token.';

-- Not only what its own workers parked: any worker of the work types may ask about any job, also after the first one left.
create or replace function public.token_release_parked(
  external_id text,
  outcome text,
  result jsonb default null,
  error text default null,
  final boolean default false,
  fence bigint default null,
  retry_after_seconds double precision default null
)
returns json
language plpgsql
security definer
as $$
begin
  return (
    select public.release_parked(
             token_release_parked.external_id, token_release_parked.outcome, token_release_parked.result,
             token_release_parked.error, token_release_parked.final, token_release_parked.fence, w.work_types,
             token_release_parked.retry_after_seconds)
      from work.worker_of_request(null) as w);
end
$$;
comment on function public.token_release_parked is 'release_parked() for the work types of a token.';

create or replace function public.token_take_lock(
  name text, slots integer, item_id uuid, work_type text, fence bigint, worker_suffix text default null)
returns json
language plpgsql
security definer
as $$
begin
  return (
    select public.take_lock(
             token_take_lock.name, token_take_lock.slots, token_take_lock.item_id,
             work.of_types(w.work_types, 'the claim', jsonb_build_array(jsonb_build_object('work_type', token_take_lock.work_type)))
               #>> '{0,work_type}',
             w.worker_id, token_take_lock.fence)
      from work.worker_of_request(token_take_lock.worker_suffix) as w);
end
$$;
comment on function public.token_take_lock is 'take_lock() for the worker of a token.';

create or replace function public.token_drop_lock(
  name text, item_id uuid, work_type text, fence bigint, worker_suffix text default null)
returns boolean
language plpgsql
security definer
as $$
begin
  return (
    select public.drop_lock(
             token_drop_lock.name, token_drop_lock.item_id, token_drop_lock.work_type, w.worker_id, token_drop_lock.fence)
      from work.worker_of_request(token_drop_lock.worker_suffix) as w);
end
$$;
comment on function public.token_drop_lock is 'drop_lock() for the worker of a token.';
