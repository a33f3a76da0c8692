-- A person with the project's key makes and revokes tokens.

-- Make a token for one name, and answer it. It is told this once.
create or replace function public.create_token(worker_name text, work_types text[], ends_in interval default null)
returns text
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  unknown record;
  token text;
begin
  if (create_token.worker_name ~ '^[A-Za-z0-9._-]{1,99}$') is not true then
    perform work.refuse('worker_name', create_token.worker_name,
      'a name of 1 to 99 letters, digits, dots, hyphens or underscores was expected');
  end if;
  if (cardinality(create_token.work_types) between 1 and 100) is not true then
    perform work.refuse('work_types', coalesce(cardinality(create_token.work_types) || ' long', 'null'),
      'a list of 1 to 100 work types was expected');
  end if;
  select u.name into unknown
    from unnest(create_token.work_types) as u(name)
   where not exists (select from public.work_types t where t.name = u.name)
   limit 1;
  if found then
    perform work.refuse('work_types', coalesce(unknown.name, 'a list with null'),
      'declared work types were expected; define_work_type() declares one');
  end if;
  if create_token.ends_in <= interval '0' then
    perform work.refuse('ends_in', create_token.ends_in::text, 'a time from now was expected, such as 30 days');
  end if;
  -- The name of a token that has ended is free again.
  update public.work_tokens t
     set revoked_at = t.ends_at
   where t.worker_name = create_token.worker_name and t.revoked_at is null and t.ends_at <= moment;
  -- 192 of 244 random bits: gen_random_uuid() draws them from the same source as keys, without an extension.
  token := 'wct_' || encode(substr(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 1, 24), 'hex');
  insert into public.work_tokens (hash, worker_name, work_types, created_at, ends_at)
  values (sha256(convert_to(token, 'UTF8')), create_token.worker_name,
          array(select distinct u.name from unnest(create_token.work_types) as u(name) order by u.name),
          moment, moment + create_token.ends_in)
  on conflict (worker_name) where revoked_at is null do nothing;
  if not found then
    perform work.refuse('worker_name', create_token.worker_name,
      'a valid token has that name; revoke it first, or give this one another name', 'PT409');
  end if;
  return token;
end
$$;
comment on function public.create_token is
  'Makes a token for workers of this name and these work types and answers it, this once. Without ends_in it ends when it is revoked.';

-- Revoke the token of this name. What its workers hold goes back at once, and no try is counted; answers how many claims.
create or replace function public.revoke_token(worker_name text)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  handed_back integer;
begin
  if not exists (select from public.work_tokens t where t.worker_name = revoke_token.worker_name) then
    perform work.refuse('worker_name', revoke_token.worker_name,
      'the name of a token was expected; work_token_list shows them', 'PT404');
  end if;
  update public.work_tokens t
     set revoked_at = clock_timestamp()
   where t.worker_name = revoke_token.worker_name and t.revoked_at is null;
  -- Calls under way end first. A claim that one of them wins would be missed below, and its lease may be a day.
  perform pg_advisory_xact_lock(work.token_lock_key(t.hash))
     from (select k.hash from public.work_tokens k where k.worker_name = revoke_token.worker_name order by k.hash) as t;
  -- All in the order of keys: each worker's claims go back in a statement of its own, which could deadlock with a cancelling.
  perform
     from public.work_claims c
    where c.status = 'claimed' and work.is_worker_of(c.worker_id, revoke_token.worker_name)
    order by c.item_id, c.work_type
      for no key update;
  -- A parked claim goes back too; its next holder learns the id of the job.
  update public.work_claims c
     set poll_at = null
   where c.status = 'claimed' and c.poll_at is not null and work.is_worker_of(c.worker_id, revoke_token.worker_name);
  with worker as materialized (
    select distinct c.worker_id as id from public.work_claims c
     where c.status = 'claimed' and work.is_worker_of(c.worker_id, revoke_token.worker_name)
  )
  select sum(public.release_claims_for_worker(w.id)) into handed_back from worker w;
  update public.work_workers w
     set retired_at = clock_timestamp()
   where w.retired_at is null and work.is_worker_of(w.id, revoke_token.worker_name);
  return coalesce(handed_back, 0);
end
$$;
comment on function public.revoke_token is
  'Revokes the token of this name: it counts for the next call of its workers, and what they hold goes back at once. Answers how many claims.';

create or replace view public.work_token_list with (security_invoker = true) as
select t.worker_name, t.work_types,
       case when t.revoked_at is not null then 'revoked' when t.ends_at <= now() then 'ended' else 'valid' end as state,
       t.created_at, t.ends_at, t.revoked_at, t.last_used_at
  from public.work_tokens t;
comment on view public.work_token_list is 'work-claims: the tokens of workers, without their hashes.';
