-- The private schema, the sequences, and how an argument is refused.
set lock_timeout = '10s';

-- Leave a schema of that name alone if another project made it.
do $$
begin
  if to_regnamespace('work') is not null
    and coalesce(obj_description(to_regnamespace('work'), 'pg_namespace'), '') not like 'work-claims%' then
    raise exception 'this database has a schema "work" of its own, the name that work-claims uses; rename it first';
  end if;
end
$$;
create schema if not exists work;
comment on schema work is 'work-claims {{version}}: private helpers. Nothing in it is exposed through the API.';

-- One sequence for all claims, so that a fence grows even when a claim's row is deleted and made again.
-- The maximum is the largest integer that JSON carries exactly.
create sequence if not exists work.fence as bigint maxvalue 9007199254740991;
comment on sequence work.fence is 'The fence of each claim: every claim takes the next number.';

create sequence if not exists work.item_seq as bigint maxvalue 9007199254740991;
comment on sequence work.item_seq is 'The order in which items and workflows came: first come, first served.';

-- Stop the call with one sentence: the given value and the expected one. PostgREST answers PTxyz as HTTP status xyz.
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

-- Refuse a name of a worker, a work type or a pool that is null, empty or longer than 200 characters.
create or replace function work.check_name(argument text, given text)
returns void
language plpgsql
as $$
begin
  if given is null or length(given) not between 1 and 200 then
    perform work.refuse(argument, case when given = '' then 'empty' else given end, 'a name has 1 to 200 characters');
  end if;
end
$$;

-- Refuse a number outside of a range. Null passes: it means a default.
create or replace function work.check_range(argument text, given bigint, low bigint, high bigint, unit text default '')
returns void
language plpgsql
as $$
begin
  if given not between low and high then
    perform work.refuse(argument, given::text, format('%s to %s%s were expected', low, high, unit));
  end if;
end
$$;

-- Refuse a list of more than 1,000 rather than cut it, so that nothing is left out silently.
create or replace function work.check_list(argument text, given jsonb)
returns void
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
end
$$;

-- Refuse a lease shorter than a second or longer than a day. Null means the work type's own lease.
create or replace function work.check_ttl(ttl_seconds integer)
returns void
language plpgsql
as $$
begin
  if ttl_seconds not between 1 and 86400 then
    perform work.refuse('ttl_seconds', ttl_seconds::text, 'a lease needs 1 to 86400 seconds');
  end if;
end
$$;

-- Views are for reading. A role without rights is refused before this runs.
create or replace function work.refuse_write()
returns trigger
language plpgsql
as $$
begin
  perform work.refuse('view', tg_table_name, 'a view is read only; call a function of work-claims to change something');
  return null;
end
$$;
