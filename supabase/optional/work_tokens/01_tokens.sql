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
