-- Tokens for workers, beside the migration of work-claims: docs/tokens.md
-- Built of supabase/optional/work_tokens; edit there. The file may be run again, and must be after an update of work-claims.

-- 01_tokens.sql

-- The tokens, and which of them a request carries.
set lock_timeout = '10s';

do $$
begin
  if to_regprocedure('work.check_name(text, text)') is null then
    raise exception 'this database has no work-claims; push its migration first';
  end if;
  begin
    create role work_worker nologin noinherit;
  exception when duplicate_object or unique_violation then
    null; -- Databases of one server share their roles.
  end;
  -- Only a member may make it the owner of functions, and replace these later.
  if not pg_has_role(current_user, 'work_worker', 'usage') then
    execute format('grant work_worker to %I', current_user);
  end if;
end
$$;

create table if not exists public.work_tokens (
  hash bytea primary key check (length(hash) = 32),
  -- Without a colon, so that no worker of one token has the id of another token's worker.
  worker_name text collate "C" not null check (worker_name ~ '^[A-Za-z0-9._-]{1,99}$'),
  work_types text[] not null check (cardinality(work_types) between 1 and 100),
  created_at timestamptz not null default clock_timestamp(),
  ends_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz
);
comment on table public.work_tokens is 'work-claims: the tokens of workers. Only the hash of a token is kept.';
comment on column public.work_tokens.hash is 'sha256 of the token.';
comment on column public.work_tokens.worker_name is 'The id of its worker, or the part before the colon in the ids of its workers.';
comment on column public.work_tokens.ends_at is 'Null: it ends when it is revoked.';
comment on column public.work_tokens.last_used_at is 'Written at most once a minute.';
create unique index if not exists work_tokens_by_name on public.work_tokens (worker_name) where revoked_at is null;
comment on index public.work_tokens_by_name is 'Which token that is not revoked has this name?';

-- A call with a token shares this advisory lock. revoke_token() takes it alone, and so waits for the calls under way.
create or replace function work.token_lock_key(hash bytea)
returns bigint
language plpgsql
immutable
as $$
begin
  return hashtextextended('work-claims token ' || encode(hash, 'hex'), 0);
end
$$;

-- Whether a worker has the name of a token, or an id of its own behind that name.
create or replace function work.is_worker_of(worker_id text, worker_name text)
returns boolean
language sql
immutable
as $$ select worker_id = worker_name or starts_with(worker_id, worker_name || ':') $$;

-- The hash of the token in the headers of this request; without a token the hash of an empty text.
create or replace function work.hash_of_request()
returns bytea
language plpgsql
stable
as $$
begin
  return sha256(convert_to(
    coalesce(nullif(current_setting('request.headers', true), '')::json ->> 'x-work-token', ''), 'UTF8'));
end
$$;

-- The token of this hash, unless it has ended or is revoked; else a row of nulls.
create or replace function work.valid_token(hash bytea)
returns public.work_tokens
language plpgsql
as $$
#variable_conflict use_column
declare
  token public.work_tokens;
begin
  select t.* into token
    from public.work_tokens t
   where t.hash = valid_token.hash and t.revoked_at is null and (t.ends_at > clock_timestamp()) is not false;
  return token;
end
$$;

-- The worker's id and the work types that the token of this request opens, with their further claims. A missing, an unknown, an ended and a revoked
-- token take the same statements to the same answer, so neither the text nor the time tells them apart.
create or replace function work.worker_of_request(worker_suffix text)
returns table (worker_id text, work_types text[])
language plpgsql
as $$
#variable_conflict use_column
declare
  given bytea := work.hash_of_request();
  token public.work_tokens;
  recently timestamptz := clock_timestamp() - interval '1 minute';
begin
  perform pg_advisory_xact_lock_shared(work.token_lock_key(given));
  token := work.valid_token(given);
  if token.hash is null then
    raise exception using
      errcode = 'PT401',
      message = 'the work token is missing, unknown, ended or revoked; work-claims token create makes one';
  end if;
  if worker_suffix !~ '^[A-Za-z0-9._-]{1,100}$' then
    perform work.refuse('worker_suffix', worker_suffix, '1 to 100 letters, digits, dots, hyphens or underscores were expected');
  end if;
  if (token.last_used_at > recently) is not true then
    update public.work_tokens t
       set last_used_at = clock_timestamp()
     where t.ctid = any (array(
             -- Skip locked: many workers may use one token in the same moment.
             select s.ctid from public.work_tokens s where s.hash = given for no key update skip locked));
  end if;
  return query select token.worker_name || coalesce(':' || worker_suffix, ''), work.with_copies(token.work_types);
end
$$;

-- These claims or outcomes, unless one is of a work type that the token does not open, or would add items or needs: a token
-- opens claims alone.
create or replace function work.of_types(work_types text[], argument text, given jsonb)
returns jsonb
language plpgsql
as $$
declare
  foreign_type text;
begin
  select e.value ->> 'work_type' into foreign_type
    from jsonb_array_elements(case jsonb_typeof(given) when 'array' then given else '[]' end) as e(value)
   where e.value ->> 'work_type' <> all (of_types.work_types)
   limit 1;
  if found then
    perform work.refuse(argument, 'of work type ' || foreign_type, 'the token does not open it', 'PT403');
  end if;
  if jsonb_path_exists(given, '$[*] ? (exists (@.items) || exists (@.needs))') then
    raise exception using errcode = 'PT400', message = format(
      '%s: a worker with a token adds no items and no needs; return what to add, and let a function add it (apply)', argument);
  end if;
  return given;
end
$$;

-- 02_calls.sql

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

-- 03_uploads.sql

-- For a policy on storage.objects: whether the token of this request may upload an object of this name. The name begins
-- with work type, item and fence of a claim that a worker of the token holds: embed/ITEM/FENCE/FILE.
create or replace function public.work_token_may_upload(name text)
returns boolean
language plpgsql
security definer
as $$
declare
  token public.work_tokens := work.valid_token(work.hash_of_request());
  part text[] := string_to_array(name, '/');
begin
  -- False and no error: another policy may allow the upload.
  if token.hash is null
    or name !~ '^[^/]+/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/[0-9]{1,16}/[^/]'
    -- A reader of addresses or paths resolves these, and would land below another claim.
    or name ~ '/\.\.?(/|$)' then
    return false;
  end if;
  return exists (
    select from public.work_claims c
     where c.item_id = part[2]::uuid
       and c.work_type = part[1]
       and c.work_type = any (token.work_types)
       and c.status = 'claimed'
       and c.fence = part[3]::bigint
       and work.is_worker_of(c.worker_id, token.worker_name));
end
$$;
comment on function public.work_token_may_upload is
  'For a policy on storage.objects: true where the request carries a token whose worker holds the claim that the name begins with.';

-- 04_create_and_revoke.sql

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

-- 05_rights.sql

-- Rights. anon may run the functions that ask for a token. Their owner may do what a claim call needs, and nothing else.
revoke all on public.work_tokens, public.work_token_list from public, anon, authenticated, service_role;
grant select, insert, update, delete on public.work_tokens to service_role;
grant select on public.work_token_list to service_role;
alter table public.work_tokens enable row level security;
drop policy if exists service_role_works on public.work_tokens;
create policy service_role_works on public.work_tokens to service_role using (true) with check (true);
create or replace trigger read_only instead of insert or update or delete on public.work_token_list
  for each row execute function work.refuse_write();

do $$
declare
  for_tokens constant text[] := array[
    'token_claim_next', 'token_describe_work_types', 'token_drop_lock', 'token_extend_claims', 'token_finish_and_claim',
    'token_register_worker', 'token_release_items', 'token_release_parked', 'token_reread_claim', 'token_retire_worker',
    'token_take_lock',
    'token_take_parked', 'token_work_remaining', 'work_token_may_upload'];
  for_service_role constant text[] := array['create_token', 'revoke_token'];
  private constant text[] := array[
    'hash_of_request', 'is_worker_of', 'of_types', 'token_lock_key', 'valid_token', 'worker_of_request'];
  -- The functions behind these are private, and do nothing without the rights on tables below.
  may_run constant text[] := array[
    'claim_next', 'describe_work_types', 'drop_lock', 'extend_claims', 'finish_and_claim', 'register_worker',
    'release_claims_for_worker', 'release_items', 'release_parked', 'reread_claim', 'retire_worker', 'take_lock', 'take_parked',
    'work_remaining'];
  -- A claim call also takes back ended leases, prunes and folds tallies. "For update" needs the right to update.
  may_touch constant jsonb := '{
    "public.work_classes": "select",
    "public.work_claims": "select, update, delete",
    "public.work_dependencies": "select, update",
    "public.work_events": "select, insert, update, delete",
    "public.work_items": "select, update, delete",
    "public.work_locks": "select, insert, update, delete",
    "public.work_pools": "select, update",
    "public.work_tokens": "select, update",
    "public.work_types": "select, update",
    "public.work_workers": "select, insert, update, delete",
    "public.work_workflows": "select, update",
    "work.listeners": "select",
    "work.profiles": "select, insert, update, delete",
    "work.requests": "select, insert, update, delete",
    "work.tallies": "select, insert, update, delete",
    "work.tally_entries": "select, insert, update, delete",
    "work.upkeep": "select, update"}';
  named record;
begin
  -- The rights that an earlier version of this file gave go first.
  for named in
    select format('revoke all on table %s from work_worker', c.oid::regclass) as statement
      from pg_class c
     where c.relkind = 'r' and c.relacl::text ~ '\mwork_worker=' and obj_description(c.oid, 'pg_class') like 'work-claims:%'
    union all
    select format('drop policy %I on %s', p.polname, p.polrelid::regclass) from pg_policy p where p.polname = 'work_worker_works'
    union all
    select format('revoke all on function %s from work_worker', p.oid::regprocedure)
      from pg_proc p
     where p.pronamespace in ('public'::regnamespace, 'work'::regnamespace)
       and p.proacl::text ~ '\mwork_worker=' and p.proowner <> 'work_worker'::regrole
  loop
    execute named.statement;
  end loop;

  grant usage on schema public, work to work_worker;
  grant usage on sequence work.fence to work_worker;
  grant select on work.live_locks to work_worker;
  for named in select t.key::regclass as name, t.value as rights from jsonb_each_text(may_touch) as t loop
    execute format('grant %s on %s to work_worker', named.rights, named.name);
    execute format('create policy work_worker_works on %s to work_worker using (true) with check (true)', named.name);
  end loop;
  grant select on work.ranked_items, work.type_needs to work_worker;
  for named in
    select p.oid::regprocedure as name
      from pg_proc p
     where p.pronamespace = 'public'::regnamespace and p.proname = any (may_run)
  loop
    execute format('grant execute on function %s to work_worker', named.name);
  end loop;
  grant execute on all functions in schema work to work_worker;

  -- To become the owner of a function, a role needs the right to create in its schema.
  grant create on schema public to work_worker;
  for named in
    select p.oid::regprocedure as name, p.proname = any (for_tokens) as is_for_tokens,
           p.proname = any (for_service_role) as is_for_service_role
      from pg_proc p
     where (p.pronamespace = 'public'::regnamespace and p.proname = any (for_tokens || for_service_role))
        or (p.pronamespace = 'work'::regnamespace and p.proname = any (private))
  loop
    execute format('alter function %s set search_path = pg_catalog, pg_temp', named.name);
    execute format('revoke execute on function %s from public, anon, authenticated', named.name);
    if named.is_for_tokens then
      -- PostgREST applies it to the call: anon's own limit of 3 seconds is for readers.
      execute format('alter function %s set statement_timeout = %L', named.name, '8s');
      execute format('revoke execute on function %s from service_role', named.name);
      execute format('grant execute on function %s to anon', named.name);
      execute format('alter function %s owner to work_worker', named.name);
    else
      execute format('grant execute on function %s to service_role', named.name);
    end if;
  end loop;
  revoke create on schema public from work_worker;
end
$$;

-- It reads held claims along their index, however many have ended.
alter function public.revoke_token(text) set enable_seqscan = off;

notify pgrst, 'reload schema';
