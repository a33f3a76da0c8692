-- The private schema, the fence, and how an argument is refused.

-- A schema of that name that is somebody's own is left alone.
do $$
begin
  if to_regnamespace('work') is not null
    and coalesce(obj_description(to_regnamespace('work'), 'pg_namespace'), '') not like 'work-claims:%' then
    raise exception 'this database has a schema "work" of its own, the name that work-claims uses; rename it first';
  end if;
end
$$;
create schema if not exists work;
comment on schema work is 'work-claims: private helpers. Nothing in it is exposed through the API.';

-- One sequence for all claims, so that a fence grows even when a claim's row is deleted and made again.
-- The maximum is the largest integer that JSON carries exactly.
create sequence if not exists work.fence as bigint maxvalue 9007199254740991;
comment on sequence work.fence is 'The fence of each claim: every claim takes the next number.';

-- Who claims many times a second goes on in line where it was, as long as nothing has come into line meanwhile that may
-- stand further ahead: that is counted here, by whoever brings it.
create sequence if not exists work.arrivals as bigint;
comment on sequence work.arrivals is 'How often claims have come into line, or have changed their places there.';

-- Whoever brings something into line calls this before committing. Its transaction has a number from then on: claim calls
-- find out by that whether it has ended.
create or replace function work.note_arrivals()
returns void
language plpgsql
as $$
begin
  perform pg_current_xact_id();
  perform nextval('work.arrivals');
end
$$;

-- First come, first served.
create sequence if not exists work.item_seq as bigint maxvalue 9007199254740991;
comment on sequence work.item_seq is 'The order in which items and workflows came.';

-- Every function names pg_catalog first and pg_temp last: with an empty search_path a caller's temporary types would
-- still be found first, also inside the triggers that run as their owner.

-- Stops the call with one sentence: what was given, what was expected. PTxyz becomes HTTP status xyz.
create or replace function work.refuse(argument text, given text, expected text, code text default 'PT400')
returns void
language plpgsql
as $$
begin
  raise exception using
    errcode = code,
    message = format(
      '%s is %s; %s',
      argument,
      case when given is null then 'null' when length(given) > 60 then left(given, 60) || '…' else given end,
      expected
    );
end
$$;

-- The checks below return true or refuse: as part of an expression they cost a microsecond, under PERFORM ten.

-- A name that a person or a program chose: of a worker, a work type, a pool.
create or replace function work.check_name(argument text, given text)
returns boolean
language plpgsql
as $$
begin
  if given is null or length(given) not between 1 and 200 then
    perform work.refuse(argument, case when given = '' then 'empty' else given end, 'a name has 1 to 200 characters');
  end if;
  return true;
end
$$;

-- A list of at most 1,000: more is refused rather than cut, so that nothing is silently left out.
create or replace function work.check_list(argument text, given jsonb)
returns boolean
language plpgsql
as $$
begin
  if given is null or jsonb_typeof(given) <> 'array' then
    perform work.refuse(argument, coalesce(jsonb_typeof(given), 'null'), 'a JSON array was expected');
  end if;
  if jsonb_array_length(given) > 1000 then
    perform work.refuse(
      argument, jsonb_array_length(given) || ' long', 'one call takes at most 1000; send them in several calls');
  end if;
  return true;
end
$$;

-- A lease's length. Null stands for the work type's own.
create or replace function work.check_ttl(ttl_seconds integer)
returns boolean
language plpgsql
as $$
begin
  if ttl_seconds not between 1 and 86400 then
    perform work.refuse('ttl_seconds', ttl_seconds::text, 'a lease needs 1 to 86400 seconds');
  end if;
  return true;
end
$$;
