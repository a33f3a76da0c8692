-- work-claims 0.1.0
-- Built of supabase/schemas; edit there. The file may be run again: an update is the next version of it.

-- 01_schema.sql

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
comment on schema work is 'work-claims 0.1.0: private helpers. Nothing in it is exposed through the API.';

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

-- 02_updates.sql

-- An earlier version of this file lacks these columns, and has these functions with fewer arguments.
alter table if exists public.work_types
  add column if not exists try_seconds integer check (try_seconds between 1 and 604800),
  add column if not exists min_worker_version text check (min_worker_version ~ '^\d{1,9}(\.\d{1,9}){0,3}$'),
  add column if not exists input_columns text[],
  add column if not exists on_change text check (on_change in ('again', 'keep')),
  add column if not exists version integer not null default 1 check (version between 1 and 1000000000),
  add column if not exists version_at timestamptz,
  add column if not exists redone_through uuid,
  add column if not exists depends_on text[] not null default '{}',
  add column if not exists on_failed_need text not null default 'wait' check (on_failed_need in ('wait', 'fail', 'run')),
  add column if not exists apply text,
  add column if not exists into_column text,
  add column if not exists history text not null default 'unhappy' check (history in ('unhappy', 'full')),
  add column if not exists keep_events integer not null default 20 check (keep_events between 1 and 1000),
  add column if not exists on_dead_end text not null default 'go_on' check (on_dead_end in ('go_on', 'stop')),
  add column if not exists stopped text,
  add column if not exists several integer not null default 1 check (several between 1 and 100),
  add column if not exists copy_of text collate "C",
  add column if not exists payload_schema jsonb,
  add column if not exists result_schema jsonb,
  add column if not exists is_plain boolean not null default true;
alter table if exists public.work_items
  add column if not exists traceparent text check (length(traceparent) <= 200),
  add column if not exists fingerprint text check (length(fingerprint) between 1 and 200),
  add column if not exists needs jsonb,
  add column if not exists gathers_id bigint,
  add column if not exists max_failures integer check (max_failures between 1 and 1000);
alter table if exists public.work_claims
  add column if not exists poll_at timestamptz,
  add column if not exists external_id text,
  add column if not exists state jsonb,
  add column if not exists waits_for integer not null default 0,
  add column if not exists read_input text,
  add column if not exists again text,
  add column if not exists stale text,
  add column if not exists changes integer,
  add column if not exists changed_at timestamptz;
alter table if exists public.work_events
  add column if not exists from_status text,
  add column if not exists to_status text,
  add column if not exists actor text,
  add column if not exists input text;
alter table if exists public.work_workflows
  add column if not exists is_gathered boolean not null default false;
drop function if exists public.define_work_type(
  text, text, integer, integer, integer, integer, integer, boolean, integer, interval, interval);
drop function if exists public.define_work_type(
  text, text, integer, integer, integer, integer, integer, boolean, integer, interval, interval, integer, text);
drop function if exists work.close_succeeded(text, jsonb);
alter table if exists work.tally_entries add column if not exists blocked integer not null default 0;
do $$
begin
  if to_regprocedure('work.counts()') is not null
    and pg_get_function_result(to_regprocedure('work.counts()')) not like '%blocked%' then
    drop function work.counts();
  end if;
end
$$;

-- 03_requirements.sql

-- Requirements: an item's conditions on a worker's capabilities, and a worker's on an item's labels. Each is compiled
-- to a jsonpath, and Postgres judges it: capabilities @@ path.
--
-- A clause is {"path", "needs"}: its jsonpath and its words. A comparison also has "place", the jsonpath of the value
-- that it compares; an equality also has "tag", its part of the tag.

-- Clauses that must all hold, as one {"path", "needs"}. No clause always holds.
create or replace function work.all_of(clauses jsonb)
returns jsonb
language sql
immutable
as $$
  select jsonb_build_object(
           'path', coalesce(string_agg(c.clause ->> 'path', ' && ' order by c.n), '1 == 1'),
           'needs', coalesce(string_agg(c.clause ->> 'needs', ' and ' order by c.n), 'anything'))
    from jsonb_array_elements(clauses) with ordinality as c(clause, n)
$$;

-- The clause that holds where one of these holds; a single clause is the answer itself.
create or replace function work.any_of(options jsonb)
returns jsonb
language sql
immutable
as $$
  select case when count(*) = 1 then options -> 0 else jsonb_build_object(
           'path', '(' || string_agg(o.option ->> 'path', ' || ' order by o.n) || ')',
           'needs', 'one of (' || string_agg(o.option ->> 'needs', ', ' order by o.n) || ')') end
    from jsonb_array_elements(options) with ordinality as o(option, n)
$$;

-- The clause that holds where these do not all hold.
create or replace function work.not_all_of(clauses jsonb)
returns jsonb
language sql
immutable
as $$
  select jsonb_build_object('path', '!(' || (a.form ->> 'path') || ')', 'needs', 'not (' || (a.form ->> 'needs') || ')')
    from work.all_of(clauses) as a(form)
$$;

-- The dotted name of a member. It refuses names that look like a mistyped operator: a worker that has such a
-- capability is far less likely than a slip.
create or replace function work.requirement_name(at text, path text, name text)
returns text
language plpgsql
immutable
as $$
declare
  words constant text[] := '{any,all,not,in,exists,=,==,!=,<,<=,>,>=}';
  -- The right form of a word, "…" for its operand. At the top of a requirement the words are names.
  meant constant jsonb := '{
    "any": "any", "all": "all", "not": "not", "in": "in", "exists": "exists", "or": "any", "and": "all",
    "eq": "==", "equals": "==", "contains": "==", "ne": "!=", "neq": "!=", "gt": ">", "gte": ">=", "ge": ">=",
    "lt": "<", "lte": "<=", "le": "<=", "nin": "{\"not\": {\"in\": …}}", "notin": "{\"not\": {\"in\": …}}",
    "not_in": "{\"not\": {\"in\": …}}", "===": "==", "!==": "!=", "<>": "!=", "≠": "!=", "~=": "!=", "=>": ">=",
    "≥": ">=", "=<": "<=", "≤": "<="}';
  full_name text := concat_ws('.', nullif(path, ''), name);
  segments text[] := string_to_array(name, '.');
  typed text := replace(lower(name), ' ', '');
  word text := ltrim(typed, '$');
  is_sign boolean := typed ~ '(^|\.)([=<>!~≤≥≠]+|\$[a-z]+)(\.|$)';
begin
  if name = '' or length(full_name) > 200 then
    perform work.refuse(
      left(at, 200), format('a name of %s characters', length(full_name)),
      'a name has 1 to 200 characters with the names around it');
  elsif '' = any (segments) then
    perform work.refuse(at, 'a name with nothing beside a dot', 'a dot leads into an object, as in "hardware.gpu"');
  elsif segments && words then
    perform work.refuse(
      at, 'a name with a word of the language in it', 'no name is one of ' || array_to_string(words, ' '));
  elsif is_sign or (meant ? word and word not in ('or', 'and') and (path <> '' or word in ('any', 'all', 'not'))) then
    perform work.refuse(
      at, 'no operator',
      coalesce('write ' || (meant ->> word), 'the operators are == != < <= > >= in exists')
        || case when is_sign or path = '' then '' else format(', or "%s" for a property of that name', full_name) end);
  end if;
  return full_name;
end
$$;

-- The clause `path operator value`, where the operator is one of == < <= > >= exists.
create or replace function work.clause(at text, path text, operator text, value jsonb)
returns jsonb
language plpgsql
immutable
as $$
declare
  kind text := jsonb_typeof(value);
  content text := value #>> '{}';
  literal text := value::text;
  -- JSON's escapes hold no dot, so each dot is the name's own.
  place text := '$.' || replace(to_jsonb(path)::text, '.', '"."');
  -- Quotes only where a person could take a text for something else.
  name text := case when path ~ '^[A-Za-z_][A-Za-z0-9_./-]*$' then path else to_jsonb(path)::text end;
begin
  if operator = 'exists' then
    return jsonb_build_object('path', 'exists(' || place || ')', 'needs', name || ' is there', 'place', place);
  elsif kind not in ('string', 'number') and (kind <> 'boolean' or operator <> '==') then
    perform work.refuse(
      at, literal, 'expected a text' || case operator when '==' then ', a number or a boolean' else ' or a number' end);
  elsif kind = 'string' and length(content) > 500 then
    perform work.refuse(at, format('a text of %s characters', length(content)), 'a text has at most 500');
  elsif kind = 'number' then
    content := trim_scale(content::numeric)::text;
    literal := content;
    -- JavaScript reads any other number as one close to it.
    if abs(content::numeric) >= 1e15 or scale(content::numeric) > 15
      or length(ltrim(translate(content, '-.', ''), '0')) > 15 then
      perform work.refuse(at, content, 'a number is below 1e15 and has at most 15 digits and 15 decimals');
    end if;
  end if;
  return jsonb_strip_nulls(jsonb_build_object(
    'path', format('%s %s %s', place, operator, literal),
    'place', place,
    'needs', format('%s %s %s', name, case operator when '==' then '=' else operator end,
      case when content ~ '^[A-Za-z_][A-Za-z0-9_.:/-]*$' and content not in ('true', 'false', 'and')
        then content else literal end),
    'tag', case when operator = '==' then
      regexp_replace(path, '([\\,=])', '\\\1', 'g') || case kind when 'string' then '=' else '==' end
        || regexp_replace(content, '([\\,=])', '\\\1', 'g') end));
end
$$;

-- The clauses of `"operator": operand` in the object of a name.
create or replace function work.operator_clause(at text, path text, operator text, operand jsonb)
returns jsonb
language plpgsql
immutable
as $$
begin
  if path = '' then
    perform work.refuse(
      at, 'an operator without a name', 'expected it in the object of a name, as in {"memory_gb": {">=": 20}}');
  elsif operator = 'exists' and jsonb_typeof(operand) <> 'boolean' then
    perform work.refuse(at, operand::text, 'expected true or false');
  elsif operator = 'in' and (jsonb_typeof(operand) <> 'array' or operand = '[]') then
    perform work.refuse(at, operand::text, 'expected a list of one or more texts, numbers or booleans');
  end if;
  return case
    when operator in ('=', '==') then work.clause(at, path, '==', operand)
    when operator = '!=' then work.not_all_of(jsonb_build_array(work.clause(at, path, '==', operand)))
    when operator = 'in' then work.any_of(work.equal_clauses(at, path, operand))
    when operator = 'exists' and not operand::boolean then
      work.not_all_of(jsonb_build_array(work.clause(at, path, operator, operand)))
    else work.clause(at, path, operator, operand)
  end;
end
$$;

-- A clause for each value of a list.
create or replace function work.equal_clauses(at text, path text, list jsonb)
returns jsonb
language sql
immutable
as $$
  select jsonb_agg(work.clause(format('%s[%s]', at, e.n - 1), path, '==', e.value) order by e.n)
    from jsonb_array_elements(list) with ordinality as e(value, n)
$$;

-- The clauses of `"name": condition`, where path is the whole dotted name.
create or replace function work.condition_clauses(at text, path text, condition jsonb)
returns jsonb
language plpgsql
immutable
as $$
begin
  if condition = 'null' then
    perform work.refuse(at, null, 'expected a text, a number, a boolean, a list or an object');
  elsif condition in ('{}', '[]') then
    perform work.refuse(at, condition::text, 'expected something in it; {"exists": true} asks for any value');
  end if;
  return case jsonb_typeof(condition)
    when 'object' then work.requirement_clauses(at, path, condition)
    when 'array' then work.equal_clauses(at, path, condition)
    when 'number' then jsonb_build_array(work.clause(at, path, '>=', condition))
    else case when condition = '"all"' then '[]' else jsonb_build_array(work.clause(at, path, '==', condition)) end
  end;
end
$$;

-- The clauses of a requirement about the names below a path, '' for all names.
create or replace function work.requirement_clauses(at text, path text, requirement jsonb)
returns jsonb
language plpgsql
immutable
as $$
declare
  operators constant text[] := '{=,==,!=,<,<=,>,>=,in,exists}';
  clauses jsonb := '[]';
  inner_clauses jsonb;
  options jsonb;
  name text;
  value jsonb;
  here text;
  inner_path text;
begin
  if jsonb_typeof(requirement) <> 'object' then
    perform work.refuse(at, requirement::text, 'expected an object');
  end if;
  for name, value in select * from jsonb_each(requirement) loop
    here := at || '.' || name;
    if name in ('any', 'all') then
      if jsonb_typeof(value) <> 'array' or (name = 'any' and value = '[]') then
        perform work.refuse(
          here, value::text, 'expected a list of ' || case name when 'any' then 'one or more ' else '' end || 'objects');
      end if;
      options := '[]';
      for n in 0 .. jsonb_array_length(value) - 1 loop
        inner_clauses := work.requirement_clauses(format('%s[%s]', here, n), path, value -> n);
        if name = 'all' then
          clauses := clauses || inner_clauses;
        else
          options := options || work.all_of(inner_clauses);
        end if;
      end loop;
      if name = 'any' then
        clauses := clauses || work.any_of(options);
      end if;
    elsif name = 'not' then
      clauses := clauses || work.not_all_of(work.requirement_clauses(here, path, value));
    elsif name = any (operators) then
      clauses := clauses || work.operator_clause(here, path, name, value);
    else
      inner_path := work.requirement_name(here, path, name);
      if requirement ?| operators then
        perform work.refuse(here, 'a name beside operators', 'expected operators alone in the object of a name');
      end if;
      clauses := clauses || work.condition_clauses(here, inner_path, value);
    end if;
  end loop;
  return clauses;
end
$$;

-- A requirement as {"tag", "path", "clauses"}; refuses with the place of the error. "argument" begins each place.
-- The tag of plain equality is c:name=value,… however it is written; any other tag is the words of its needs.
create or replace function work.parse_requirement(requirement jsonb, argument text default 'requirement')
returns jsonb
language plpgsql
immutable
strict
as $$
declare
  clauses jsonb;
  form jsonb;
  answer jsonb;
begin
  -- These come first: a longer or deeper requirement could cost seconds. An empty object counts as a value.
  if octet_length(requirement::text) > 16384 then
    perform work.refuse(
      argument, octet_length(requirement::text) || ' bytes long', 'a requirement has at most 16384 bytes as JSON');
  elsif jsonb_path_exists(requirement, 'strict $.**{10 to last} ? (@.type() == "object" || @.type() == "array")') then
    perform work.refuse(argument, 'nested deeper', 'a requirement nests at most 10 deep');
  elsif (select count(*) > 100 from jsonb_path_query(requirement,
           'strict $.** ? (!(@.type() == "object" && exists(@.*)) && !(@.type() == "array" && @.size() > 0))')) then
    perform work.refuse(argument, 'a requirement of more values', 'a requirement has at most 100 values');
  end if;
  clauses := work.requirement_clauses(argument, '', requirement);
  form := work.all_of(clauses);
  select jsonb_build_object(
           'tag', case when count(*) = count(c.tag)
             then 'c:' || coalesce(string_agg(distinct c.tag, ',' order by c.tag), '')
             else form ->> 'needs' end,
           'path', form -> 'path',
           'clauses', coalesce(jsonb_agg(c.clause - 'tag' order by c.n), '[]'))
    into answer
    from (select e.clause, e.n, e.clause ->> 'tag' collate "C" as tag
            from jsonb_array_elements(clauses) with ordinality as e(clause, n)) as c;
  return answer;
end
$$;
comment on function work.parse_requirement is
  'A requirement as {"tag", "path", "clauses"}; refuses with PT400 and one sentence what is none.';

-- 04_work_types.sql

-- Work types: the kinds of work on the items of a pool, and their rules.
create table if not exists public.work_types (
  -- Compared byte by byte, here and in the claims: a claim call compares little else.
  name text collate "C" primary key check (length(name) between 1 and 200),
  pool text,
  lease_seconds integer not null default 60 check (lease_seconds between 1 and 86400),
  max_failures integer not null default 3 check (max_failures between 1 and 1000),
  max_crashes integer not null default 5 check (max_crashes between 1 and 1000),
  backoff_seconds integer not null default 10 check (backoff_seconds between 0 and 86400),
  backoff_limit_seconds integer not null default 3600 check (backoff_limit_seconds between 0 and 604800),
  passed_over_seconds integer not null default 300 check (passed_over_seconds between 0 and 604800),
  paused boolean not null default false,
  try_seconds integer check (try_seconds between 1 and 604800),
  min_worker_version text check (min_worker_version ~ '^\d{1,9}(\.\d{1,9}){0,3}$'),
  input_columns text[],
  on_change text check (on_change in ('again', 'keep')),
  version integer not null default 1 check (version between 1 and 1000000000),
  version_at timestamptz,
  redone_through uuid,
  depends_on text[] not null default '{}',
  on_failed_need text not null default 'wait' check (on_failed_need in ('wait', 'fail', 'run')),
  apply text,
  into_column text,
  history text not null default 'unhappy' check (history in ('unhappy', 'full')),
  keep_events integer not null default 20 check (keep_events between 1 and 1000),
  on_dead_end text not null default 'go_on' check (on_dead_end in ('go_on', 'stop')),
  stopped text,
  several integer not null default 1 check (several between 1 and 100),
  copy_of text collate "C",
  payload_schema jsonb,
  result_schema jsonb,
  is_plain boolean not null default true,
  enrolled_through bigint not null default 0,
  enroll_until bigint not null default 0,
  keep_succeeded interval check (keep_succeeded >= '0'),
  keep_failed interval check (keep_failed >= '0'),
  pruned_through uuid,
  pruned_at timestamptz,
  created_at timestamptz not null default clock_timestamp()
);
comment on table public.work_types is
  'work-claims: one row a work type, with its rules. define_work_type() writes it; a work type that is first seen in claim_items() gets the defaults.';
comment on column public.work_types.pool is 'The pool whose items are enrolled for this work; null: only claim_items() makes claims.';
comment on column public.work_types.max_failures is 'A claim ends failed when its handler has failed so often.';
comment on column public.work_types.max_crashes is 'A claim ends failed when its lease has ended so often without a release.';
comment on column public.work_types.backoff_seconds is 'The wait after the first failure; it doubles with each further one, up to backoff_limit_seconds.';
comment on column public.work_types.passed_over_seconds is
  'How long an item may wait while workers take others of its priority that they are warm for.';
comment on column public.work_types.try_seconds is
  'How long a handler may take for one try; null: as long as its worker extends the lease. The worker ends the try.';
comment on column public.work_types.min_worker_version is 'Workers with a lower version, or without one, leave: "1.4.2".';
comment on column public.work_types.keep_succeeded is
  'How long the record of a success is kept; null: for ever. Claim calls remove what is older, in passing.';
comment on column public.work_types.keep_failed is 'How long a failed or cancelled claim is kept; null: for ever.';
comment on column public.work_types.pruned_through is 'The last item that pruning has looked at; null: it begins anew.';
comment on column public.work_types.enrolled_through is 'The seq of the last past item that enroll_pool() has enrolled.';
comment on column public.work_types.input_columns is
  'The members of the payload that are its input; null: the whole payload, or the fingerprint that the item came with.';
comment on column public.work_types.on_change is
  'again: done work whose input changed is done again; keep: it stays done. null: again where input_columns are named or the item has a fingerprint.';
comment on column public.work_types.version is 'Raised, all that was claimed before version_at is done again.';
comment on column public.work_types.redone_through is 'How far claims of older versions have been reopened; null: none are left.';
comment on column public.work_types.depends_on is 'The work types that must have succeeded on an item before.';
comment on column public.work_types.on_failed_need is
  'A need that ended failed or cancelled: wait for it, fail with it, or run anyway.';
comment on column public.work_types.apply is 'The function (item jsonb, result jsonb) that runs inside of each successful release.';
comment on column public.work_types.into_column is 'The column of the attached table that gets each result.';
comment on column public.work_types.history is 'Which steps are recorded in work_events: unhappy, or full.';
comment on column public.work_types.keep_events is 'How many events of one claim are kept.';
comment on column public.work_types.on_dead_end is 'A claim failed for good: go_on, or stop the work type.';
comment on column public.work_types.stopped is 'Why the work type was stopped at a claim that failed for good.';
comment on column public.work_types.several is 'How many claims each item has; the others are of the work types NAME#2, NAME#3, ….';
comment on column public.work_types.copy_of is 'The work type that this one is a further claim of.';
comment on column public.work_types.payload_schema is 'The JSON schema of payloads, for forms. Clients and workers judge by it, the database does not.';
comment on column public.work_types.is_plain is
  'Nothing follows from the end of its claims: none waits for them, none reopens, no result is applied, no step is recorded.';
comment on column public.work_types.enroll_until is
  'The seq of the last item that was there when the work type got its pool; later ones are enrolled as they come.';

create index if not exists work_types_not_plain on public.work_types (name) where not is_plain;
comment on index public.work_types_not_plain is 'From the end of which work types'' claims does something follow?';

-- Inserting items and declaring a work type for their pool must not pass each other: an insert shares this advisory
-- lock, a declaration takes it alone.
create or replace function work.pool_lock_key(pool text)
returns bigint
language sql
immutable
as $$ select hashtextextended('work-claims pool ' || pool, 0) $$;

-- Refuse values that no work type can have. Null passes: it keeps the present value.
create or replace function work.check_rules(rules jsonb)
returns void
language plpgsql
as $$
declare
  wrong record;
begin
  perform work.check_range(l.rule, (rules ->> l.rule)::bigint, l.low, l.high)
     from (values
       ('lease_seconds', 1, 86400), ('max_failures', 1, 1000), ('max_crashes', 1, 1000), ('backoff_seconds', 0, 86400),
       ('backoff_limit_seconds', 0, 604800), ('passed_over_seconds', 0, 604800), ('try_seconds', 1, 604800),
       ('version', 1, 1000000000), ('keep_events', 1, 1000), ('several', 1, 100)) as l(rule, low, high);
  select o.* into wrong
    from (values
      ('on_change', 'again or keep', '{again,keep}'),
      ('on_failed_need', 'wait, fail or run', '{wait,fail,run}'),
      ('history', 'unhappy or full', '{unhappy,full}'),
      ('on_dead_end', 'go_on or stop', '{go_on,stop}')) as o(rule, expected, allowed)
   where rules ->> o.rule <> all (o.allowed::text[])
   limit 1;
  if found then
    perform work.refuse(wrong.rule, rules ->> wrong.rule, wrong.expected || ' was expected');
  end if;
  if rules ->> 'min_worker_version' !~ '^\d{1,9}(\.\d{1,9}){0,3}$' then
    perform work.refuse('min_worker_version', rules ->> 'min_worker_version',
      'numbers with points between them were expected, such as 1.4.2');
  end if;
  if least((rules ->> 'keep_succeeded')::interval, (rules ->> 'keep_failed')::interval) < '0' then
    perform work.refuse(
      'keep_succeeded or keep_failed', least((rules ->> 'keep_succeeded')::interval, (rules ->> 'keep_failed')::interval)::text,
      'an interval such as "30 days" was expected');
  end if;
end
$$;

-- Refuse a name that is for the further claims of a work type, unless they are there.
create or replace function work.check_own_name(work_type text)
returns void
language plpgsql
as $$
begin
  if check_own_name.work_type ~ '#[0-9]+$'
    and not exists (select from public.work_types t where t.name = check_own_name.work_type) then
    perform work.refuse('work_type', check_own_name.work_type,
      'a name that ends in # and a number is for the further claims of a work type; several => 2 makes them');
  end if;
end
$$;

-- Declare a work type, or change its rules: an argument that is null keeps its value, '{}' or '' takes it away. Later items
-- are enrolled as they come; enroll_pool() enrols the present ones.
create or replace function public.define_work_type(
  work_type text,
  pool text default null,
  lease_seconds integer default null,
  max_failures integer default null,
  max_crashes integer default null,
  backoff_seconds integer default null,
  backoff_limit_seconds integer default null,
  paused boolean default null,
  passed_over_seconds integer default null,
  keep_succeeded interval default null,
  keep_failed interval default null,
  try_seconds integer default null,
  min_worker_version text default null,
  depends_on text[] default null,
  on_failed_need text default null,
  input_columns text[] default null,
  on_change text default null,
  version integer default null,
  apply text default null,
  into_column text default null,
  history text default null,
  keep_events integer default null,
  on_dead_end text default null,
  several integer default null,
  payload_schema jsonb default null,
  result_schema jsonb default null
)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  before public.work_types;
  declared public.work_types;
begin
  perform work.check_name('work_type', define_work_type.work_type);
  perform work.check_rules(jsonb_build_object(
    'lease_seconds', lease_seconds, 'max_failures', max_failures, 'max_crashes', max_crashes, 'try_seconds', try_seconds,
    'backoff_seconds', backoff_seconds, 'backoff_limit_seconds', backoff_limit_seconds,
    'passed_over_seconds', passed_over_seconds, 'min_worker_version', min_worker_version, 'keep_succeeded', keep_succeeded,
    'keep_failed', keep_failed, 'on_failed_need', on_failed_need, 'on_change', on_change, 'version', version,
    'history', history, 'keep_events', keep_events, 'on_dead_end', on_dead_end, 'several', several));
  if define_work_type.pool is not null then
    perform work.check_pool(define_work_type.pool);
    perform pg_advisory_xact_lock(work.pool_lock_key(define_work_type.pool));
  end if;

  perform work.check_own_name(define_work_type.work_type);
  insert into public.work_types (name) values (define_work_type.work_type) on conflict do nothing;
  select * into before from public.work_types t where t.name = define_work_type.work_type for update;
  if before.pool <> define_work_type.pool then
    perform work.refuse(
      'pool', define_work_type.pool,
      format('work type %s belongs to pool %s; give the other pool a work type of its own',
        define_work_type.work_type, before.pool),
      'PT409');
  end if;

  update public.work_types t
     set pool = coalesce(define_work_type.pool, t.pool),
         enroll_until = case
           when t.pool is null and define_work_type.pool is not null
             then coalesce((select max(i.seq) from public.work_items i where i.pool = define_work_type.pool), 0)
           else t.enroll_until
         end,
         lease_seconds = coalesce(define_work_type.lease_seconds, t.lease_seconds),
         max_failures = coalesce(define_work_type.max_failures, t.max_failures),
         max_crashes = coalesce(define_work_type.max_crashes, t.max_crashes),
         backoff_seconds = coalesce(define_work_type.backoff_seconds, t.backoff_seconds),
         backoff_limit_seconds = coalesce(define_work_type.backoff_limit_seconds, t.backoff_limit_seconds),
         paused = coalesce(define_work_type.paused, t.paused),
         stopped = case when define_work_type.paused is null then t.stopped end,
         passed_over_seconds = coalesce(define_work_type.passed_over_seconds, t.passed_over_seconds),
         keep_succeeded = coalesce(define_work_type.keep_succeeded, t.keep_succeeded),
         keep_failed = coalesce(define_work_type.keep_failed, t.keep_failed),
         try_seconds = coalesce(define_work_type.try_seconds, t.try_seconds),
         min_worker_version = coalesce(define_work_type.min_worker_version, t.min_worker_version),
         depends_on = coalesce(define_work_type.depends_on, t.depends_on),
         on_failed_need = coalesce(define_work_type.on_failed_need, t.on_failed_need),
         input_columns = nullif(coalesce(define_work_type.input_columns, t.input_columns), '{}'),
         on_change = coalesce(define_work_type.on_change, t.on_change),
         version = coalesce(define_work_type.version, t.version),
         version_at = case when define_work_type.version > t.version then clock_timestamp() else t.version_at end,
         redone_through = case
           when define_work_type.version > t.version then '00000000-0000-0000-0000-000000000000'
           else t.redone_through
         end,
         apply = nullif(coalesce(define_work_type.apply, t.apply), ''),
         into_column = nullif(coalesce(define_work_type.into_column, t.into_column), ''),
         history = coalesce(define_work_type.history, t.history),
         keep_events = coalesce(define_work_type.keep_events, t.keep_events),
         on_dead_end = coalesce(define_work_type.on_dead_end, t.on_dead_end),
         several = coalesce(define_work_type.several, t.several),
         payload_schema = coalesce(define_work_type.payload_schema, t.payload_schema),
         result_schema = coalesce(define_work_type.result_schema, t.result_schema)
   where t.name = define_work_type.work_type
  returning * into declared;
  return to_jsonb(work.settle_rules(before, declared));
end
$$;
comment on function public.define_work_type is
  'Declares a work type for a pool, or changes its rules; a null argument keeps its value. Later items are enrolled as they come, enroll_pool() enrols the present ones.';

-- 05_classes.sql

-- Classes: each distinct pair of a requirement and labels of items is kept once. A million items share a few,
-- and a claim call compares their ids alone.
create table if not exists public.work_classes (
  id integer generated always as identity (start with 2) primary key,
  requires jsonb not null default '{}',
  labels jsonb not null default '{}',
  tag text not null,
  path jsonpath not null,
  clauses jsonb not null,
  digest bytea not null unique,
  made_by xid8 not null default pg_current_xact_id(),
  created_at timestamptz not null default clock_timestamp()
);
comment on table public.work_classes is
  'work-claims: each distinct pair of requirement and labels that items have. Written as items come; prune_classes() drops those that no item has.';
comment on column public.work_classes.tag is 'The requirement as a person reads it: c:gpu=a100,mem=high.';
comment on column public.work_classes.path is 'The requirement as Postgres judges it: capabilities @@ path.';
comment on column public.work_classes.clauses is 'The parts of the requirement, to tell which one a worker fails.';
comment on column public.work_classes.digest is 'Of requires and labels.';
comment on column public.work_classes.made_by is 'The transaction that made it. A profile has judged the classes whose transactions it could see.';
create index if not exists work_classes_by_transaction on public.work_classes (made_by);
comment on index public.work_classes_by_transaction is 'Which classes are newer than this snapshot?';

create or replace function work.class_digest(requires jsonb, labels jsonb)
returns bytea
language sql
immutable
as $$ select sha256(convert_to(requires::text || ' ' || labels::text, 'UTF8')) $$;

-- Class 1: items that require nothing and show nothing.
insert into public.work_classes (id, tag, path, clauses, digest)
overriding system value
values (1, 'c:', (work.parse_requirement('{}') ->> 'path')::jsonpath, '[]', work.class_digest('{}', '{}'))
on conflict do nothing;
-- A dump carries transaction numbers to another server, where they may lie in the future.
update public.work_classes c set made_by = default where c.made_by > pg_current_xact_id();

-- Refuse capabilities or labels that are no object or too large. A dot in a name is refused: in a requirement it leads
-- into an object.
create or replace function work.check_properties(argument text, given jsonb, max_bytes integer)
returns void
language plpgsql
as $$
declare
  dotted text;
begin
  if given is null or jsonb_typeof(given) <> 'object' then
    perform work.refuse(argument, coalesce(left(given::text, 60), 'null'), 'a JSON object was expected');
  end if;
  if length(given::text) > max_bytes then
    perform work.refuse(argument, length(given::text) || ' characters long', format('at most %s were expected', max_bytes));
  end if;
  if position('.' in given::text) > 0 then
    select k.name #>> '{}' into dotted
      from jsonb_path_query(given, '$.** ? (@.type() == "object").keyvalue().key ? (@ like_regex "[.]")') as k(name)
     limit 1;
    if dotted is not null then
      perform work.refuse(
        argument, format('a name with a dot, %s', left(dotted, 60)),
        'a dot leads into an object: write {"a": {"b": …}}, or keep the name as a value in a list');
    end if;
  end if;
end
$$;

-- A class in use must not be pruned: a call that gives classes to items shares this advisory lock, prune_classes() takes
-- it alone.
create or replace function work.class_lock_key()
returns bigint
language sql
immutable
as $$ select hashtextextended('work-claims classes', 0) $$;

-- Make the classes that are missing for these pairs, requires[n] with labels[n].
create or replace function work.make_classes(requires jsonb[], labels jsonb[], places text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  pair record;
  form jsonb;
  forms jsonb[] := '{}';
begin
  for pair in
    select distinct on (p.digest) p.*
      from (select u.*, work.class_digest(u.requires, u.labels) as digest
              from unnest(make_classes.requires, make_classes.labels, make_classes.places)
                   with ordinality as u(requires, labels, place, n)) as p
     -- A scalar subquery uses the key, independent of the statistics.
     where (select c.id from public.work_classes c where c.digest = p.digest) is null
     order by p.digest, p.n
  loop
    perform work.check_properties(pair.place || 'labels', pair.labels, 8192);
    form := work.parse_requirement(pair.requires, pair.place || 'requires');
    forms := forms || (form || jsonb_build_object('requires', pair.requires, 'labels', pair.labels, 'digest', pair.digest));
  end loop;
  -- In the order of digests: two calls that make the same classes would deadlock otherwise.
  insert into public.work_classes (requires, labels, tag, path, clauses, digest)
  select f.requires, f.labels, f.tag, f.path::jsonpath, f.clauses, f.digest
    from unnest(forms) as u(form)
   cross join lateral jsonb_to_record(u.form)
           as f(requires jsonb, labels jsonb, tag text, path text, clauses jsonb, digest bytea)
   order by f.digest
  on conflict (digest) do nothing;
end
$$;

-- The classes of these pairs, requires[n] with labels[n]; missing ones are made. places[n] begins the sentence that
-- refuses a pair.
create or replace function work.classes_of(requires jsonb[], labels jsonb[], places text[])
returns integer[]
language plpgsql
as $$
#variable_conflict use_column
declare
  class_ids integer[];
begin
  perform pg_advisory_xact_lock_shared(work.class_lock_key());
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    -- The snapshot may show classes that were pruned since: locking those fails.
    perform from unnest(classes_of.requires, classes_of.labels) as u(requires, labels)
       join public.work_classes c on c.digest = work.class_digest(u.requires, u.labels)
        for key share of c;
  end if;
  -- The second round sees the classes that the first one made, or that another call made first.
  for round in 1..2 loop
    class_ids := array(
      select case when u.requires = '{}' and u.labels = '{}' then 1
             else (select c.id from public.work_classes c where c.digest = work.class_digest(u.requires, u.labels)) end
        from unnest(classes_of.requires, classes_of.labels) with ordinality as u(requires, labels, n)
       order by u.n);
    exit when array_position(class_ids, null) is null;
    perform work.make_classes(classes_of.requires, classes_of.labels, classes_of.places);
  end loop;
  return class_ids;
end
$$;

-- Delete classes that no item has, at most so many a call. It waits a second at most for calls that give classes to
-- items; after that it deletes none.
create or replace function public.prune_classes(max_classes integer default 1000)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  dropped integer[];
begin
  if prune_classes.max_classes is null then
    perform work.refuse('max_classes', null, '1 to 10000 were expected');
  end if;
  perform work.check_range('max_classes', prune_classes.max_classes, 1, 10000);
  -- A transaction with one snapshot would not see the items of the calls that it waited for.
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    perform work.refuse('transaction_isolation', current_setting('transaction_isolation'),
      'prune_classes() has to see what others commit: call it in read committed');
  end if;
  begin
    perform pg_advisory_xact_lock(work.class_lock_key());
  exception when lock_not_available then
    return 0;
  end;

  with unused as (
    delete from public.work_classes c
     where c.ctid = any (array(
             select k.ctid
               from public.work_classes k
              where k.id <> 1
                and not exists (select from public.work_items i where i.class_id = k.id and i.class_id <> 1)
              order by k.id
              limit prune_classes.max_classes
                for update skip locked))
    returning c.id
  )
  select array_agg(u.id) into dropped from unused u;
  if dropped is null then
    return 0;
  end if;
  -- An id that stays behind in a locked profile matches nothing.
  update work.profiles p
     set class_ids = array(select unnest(p.class_ids) except select unnest(dropped) order by 1),
         yielded_class_ids = array(select unnest(p.yielded_class_ids) except select unnest(dropped) order by 1)
   where p.ctid = any (array(select k.ctid from work.profiles k order by k.id for no key update skip locked))
     and p.class_ids || p.yielded_class_ids && dropped;
  return cardinality(dropped);
end
$$;
comment on function public.prune_classes is
  'Deletes classes that no item has, at most max_classes a call, and answers how many; 0 also where other calls give classes to items for longer than a second.';

-- 05_work_type_rules.sql

-- The rules of work types: what they name is checked, and what follows from a change is made.

-- Check what the rules name, and make what follows from a change of them.
create or replace function work.settle_rules(before public.work_types, declared public.work_types)
returns public.work_types
language plpgsql
as $$
#variable_conflict use_column
begin
  if declared.several < before.several then
    perform work.refuse('several', declared.several::text,
      format('%s has %s claims an item already; that number only grows', declared.name, before.several), 'PT409');
  end if;
  if declared.copy_of is not null and declared.several <> before.several then
    perform work.refuse('several', declared.several::text,
      format('%s is a further claim of %s; declare the number there', declared.name, declared.copy_of), 'PT409');
  end if;
  if declared.version < before.version then
    perform work.refuse('version', declared.version::text, format('%s is at version %s; a version only grows', declared.name, before.version), 'PT409');
  end if;
  if declared.apply is distinct from before.apply and declared.apply is not null then
    perform work.apply_function(declared.apply);
  end if;
  if declared.into_column is not null
    and (declared.into_column, declared.pool, declared.input_columns)
      is distinct from (before.into_column, before.pool, before.input_columns) then
    perform work.check_into(declared);
  end if;
  perform work.check_input_columns(declared);
  perform work.check_depends_on(declared);
  perform work.unplain(array(
    select t.name
      from public.work_types t
     where t.name = any (declared.depends_on) or t.copy_of = any (declared.depends_on)
       or (t.name = declared.name
         and (declared.depends_on <> '{}' or declared.input_columns is not null or declared.on_change = 'again'
           or declared.apply is not null or declared.into_column is not null or declared.version_at is not null
           or declared.history = 'full' or declared.on_dead_end = 'stop'))));
  select * into declared from public.work_types t where t.name = declared.name;
  perform work.define_copies(declared);
  perform work.count_needs_of_type(t.name)
     from public.work_types t
    where (declared.depends_on <> before.depends_on and declared.name in (t.name, t.copy_of))
       or (declared.several > before.several and declared.name = any (t.depends_on))
    order by t.name;
  perform work.wake_workers(null);
  return declared;
end
$$;

-- From the end of these work types' claims something follows from here on. Releases that are under way end first: they
-- do not look for it. The caller has not written claims yet.
create or replace function work.unplain(work_types text[])
returns void
language plpgsql
as $$
begin
  if exists (select from public.work_types t where t.name = any (work_types) and t.is_plain) then
    lock table public.work_claims in share row exclusive mode;
    update public.work_types t set is_plain = false where t.name = any (work_types) and t.is_plain;
  end if;
end
$$;

-- Refuse input columns that the items of an attached pool do not carry.
create or replace function work.check_input_columns(declared public.work_types)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  missing text;
begin
  select c.name into missing
    from public.work_pools p
   cross join unnest(declared.input_columns) as c(name)
   where p.name = declared.pool and p.source is not null
     and (c.name <> all (coalesce(p.payload_columns, array[c.name]))
       or not exists (
         select from pg_catalog.pg_attribute a
          where a.attrelid = p.source and a.attname = c.name and a.attnum > 0 and not a.attisdropped))
   limit 1;
  if found then
    perform work.refuse('input_columns', missing,
      format('a column of the table that items of pool %s carry was expected; attach_pool() names these in payload_columns', declared.pool));
  end if;
end
$$;

-- Refuse to depend on a work type that is not there, is of another pool, or depends on this one.
create or replace function work.check_depends_on(declared public.work_types)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  wrong record;
  cycle text;
begin
  if declared.depends_on = '{}' then
    return;
  end if;
  select d.name, t.pool, t.name is null as is_missing into wrong
    from unnest(declared.depends_on) as d(name)
    left join public.work_types t on t.name = d.name
   where t.name is null or t.pool is distinct from declared.pool
   limit 1;
  if found then
    perform work.refuse('depends_on', wrong.name, case
      when wrong.is_missing then 'there is no such work type; define it before'
      else format('it is of pool %s, and %s of pool %s; items of two pools are bound by needs', coalesce(wrong.pool, 'none'),
        declared.name, coalesce(declared.pool, 'none')) end,
      case when wrong.is_missing then 'PT404' else 'PT400' end);
  end if;
  with recursive up(name, path) as (
    select d.name, array[declared.name, d.name] from unnest(declared.depends_on) as d(name)
    union all
    select d.name, u.path || d.name
      from up u
      join public.work_types t on t.name = u.name
     cross join unnest(t.depends_on) as d(name)
     where u.name <> declared.name and cardinality(u.path) < 100
  )
  select array_to_string(u.path, ' → ') into cycle from up u where u.name = declared.name limit 1;
  if found then
    perform work.refuse('depends_on', declared.depends_on::text, format('that is a cycle: %s', cycle));
  end if;
end
$$;

-- Count anew what all claims of a work type wait for, after what it needs has changed.
create or replace function work.count_needs_of_type(work_type text)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  page uuid[];
begin
  for page in
    select array_agg(n.item_id)
      from (select c.item_id, row_number() over (order by c.item_id) / 1000 as page
              from public.work_claims c
             where c.work_type = count_needs_of_type.work_type) as n
     group by n.page
     order by n.page
  loop
    perform work.count_needs(page, array[count_needs_of_type.work_type]);
  end loop;
end
$$;

-- Give the further claims of an item's work type, NAME#2 and on, the rules of the first.
create or replace function work.define_copies(declared public.work_types)
returns void
language plpgsql
as $$
declare
  foreign_type text;
begin
  if declared.copy_of is not null then
    return;
  end if;
  if declared.several > 1 and length(declared.name) > 196 then
    perform work.refuse('work_type', declared.name, 'a work type with several claims an item has a name of at most 196 characters');
  end if;
  select t.name into foreign_type
    from generate_series(2, declared.several) as n
    join public.work_types t on t.name = declared.name || '#' || n and t.copy_of is distinct from declared.name;
  if found then
    perform work.refuse('several', declared.several::text,
      format('%s is a work type of its own, and would have to be a further claim of %s', foreign_type, declared.name), 'PT409');
  end if;
  if exists (
    select from generate_series(2, declared.several) as n
     where not exists (select from public.work_types t where t.name = declared.name || '#' || n)) then
    if declared.pool is not null then
      perform pg_advisory_xact_lock(work.pool_lock_key(declared.pool));
    end if;
    -- The present items are earlier ones for the further claims: enroll_pool() enrols them.
    insert into public.work_types
    select c.*
      from generate_series(2, declared.several) as n
     cross join lateral jsonb_populate_record(
       declared, jsonb_build_object('name', declared.name || '#' || n, 'copy_of', declared.name, 'into_column', null,
         'enrolled_through', 0, 'enroll_until',
         coalesce((select max(i.seq) from public.work_items i where i.pool = declared.pool), 0))) as c
    on conflict do nothing;
  end if;
  update public.work_types t
     set pool = declared.pool,
         enroll_until = case when t.pool is null then declared.enroll_until else t.enroll_until end,
         lease_seconds = declared.lease_seconds, max_failures = declared.max_failures, max_crashes = declared.max_crashes,
         backoff_seconds = declared.backoff_seconds, backoff_limit_seconds = declared.backoff_limit_seconds,
         passed_over_seconds = declared.passed_over_seconds, paused = declared.paused, try_seconds = declared.try_seconds,
         min_worker_version = declared.min_worker_version, keep_succeeded = declared.keep_succeeded,
         keep_failed = declared.keep_failed, input_columns = declared.input_columns, on_change = declared.on_change,
         version = declared.version, version_at = declared.version_at, redone_through = case when t.version < declared.version then declared.redone_through else t.redone_through end,
         depends_on = declared.depends_on, on_failed_need = declared.on_failed_need, apply = declared.apply,
         history = declared.history, keep_events = declared.keep_events, on_dead_end = declared.on_dead_end,
         stopped = declared.stopped, several = declared.several, payload_schema = declared.payload_schema,
         result_schema = declared.result_schema, is_plain = declared.is_plain
   where t.copy_of = declared.name;
end
$$;

-- 06_workflows.sql

-- Workflows: items that belong together. The workflow's priority counts for all of them, and the older workflow goes first.
create table if not exists public.work_workflows (
  id bigint generated always as identity primary key,
  name text not null unique check (length(name) between 1 and 200),
  priority integer not null default 0 check (priority between -1000000 and 1000000),
  rank bigint not null default nextval('work.item_seq'),
  is_gathered boolean not null default false,
  created_at timestamptz not null default clock_timestamp()
);
comment on table public.work_workflows is
  'work-claims: named sets of items that are worked on together. The first item that names one makes it; define_workflow() gives it a priority.';
comment on column public.work_workflows.priority is 'Counts for all its items, in place of their own.';
comment on column public.work_workflows.is_gathered is 'An item waits for all of it.';
comment on column public.work_workflows.rank is 'Its rank within one priority: older workflows have lower ones.';

-- Make the workflows that are missing, ranked in the order of names[].
create or replace function work.intern_workflows(names text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  with missing as materialized (
    select u.name, min(u.n) as n
      from unnest(intern_workflows.names) with ordinality as u(name, n)
     where u.name is not null
       and not exists (select from public.work_workflows w where w.name = u.name)
     group by u.name
     order by min(u.n)
  ),
  ranked as materialized (
    select m.name, nextval('work.item_seq') as rank from missing m
  )
  -- In the order of names: two calls that make the same workflows would deadlock otherwise.
  insert into public.work_workflows (name, rank)
  select r.name, r.rank from ranked r order by r.name
  on conflict (name) do nothing;
end
$$;

-- Name a workflow, or change its priority. Its open claims move at once.
create or replace function public.define_workflow(workflow text, priority integer default 0)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  defined public.work_workflows;
begin
  perform work.check_name('workflow', define_workflow.workflow);
  if define_workflow.priority is null or define_workflow.priority not between -1000000 and 1000000 then
    perform work.refuse('priority', define_workflow.priority::text, 'a whole number from -1000000 to 1000000 was expected');
  end if;
  insert into public.work_workflows as w (name, priority)
  values (define_workflow.workflow, define_workflow.priority)
  on conflict (name) do update set priority = excluded.priority
  returning * into defined;
  return to_jsonb(defined);
end
$$;
comment on function public.define_workflow is
  'Names a workflow, or changes its priority, which counts for all its items. Its open claims move at once.';

-- 07_items.sql

-- Pools and items: the subjects of work.
create table if not exists public.work_pools (
  name text primary key check (length(name) between 1 and 200),
  source regclass unique,
  key_columns text[],
  key_is_uuid boolean not null default false,
  payload_columns text[],
  priority_column text,
  run_after_column text,
  requires_column text,
  labels_column text,
  affinity_column text,
  workflow_column text,
  column_numbers jsonb,
  mirrored_through jsonb,
  is_mirrored boolean not null default true,
  stopped_at timestamptz,
  paused_types text[],
  created_at timestamptz not null default clock_timestamp()
);
comment on table public.work_pools is
  'work-claims: named sets of items. "default" takes items from enqueue_items(); every other one mirrors a table, see attach_pool().';
comment on column public.work_pools.source is 'The attached table.';
comment on column public.work_pools.payload_columns is 'The columns that items carry to workers; null: all.';
comment on column public.work_pools.column_numbers is 'The numbers of the named columns, to find one that was renamed: {name: attnum}.';
comment on column public.work_pools.stopped_at is 'Since when rows are not followed, because a column or the table is gone.';
comment on column public.work_pools.paused_types is 'The work types that were paused because the table was dropped.';
comment on column public.work_pools.mirrored_through is 'The key of the last past row that enroll_pool() has mirrored.';

insert into public.work_pools (name) values ('default') on conflict do nothing;

-- Refuse a pool that does not exist.
create or replace function work.check_pool(pool text)
returns void
language plpgsql
as $$
begin
  if check_pool.pool is null or not exists (select from public.work_pools p where p.name = check_pool.pool) then
    perform work.refuse(
      'pool', check_pool.pool, 'there is no such pool; define_pool() makes one, attach_pool() one of a table, "default" is always there', 'PT404');
  end if;
end
$$;

create table if not exists public.work_items (
  id uuid primary key default gen_random_uuid(),
  seq bigint not null default nextval('work.item_seq'),
  pool text not null,
  source_key text,
  -- A payload travels with every claim of its item: a megabyte is where a reference to a file serves better.
  payload jsonb not null default '{}' check (pg_column_size(payload) <= 1048576),
  priority integer not null default 0 check (priority between -1000000 and 1000000),
  dedupe_key text check (length(dedupe_key) between 1 and 500),
  run_after timestamptz check (run_after > '-infinity'),
  class_id integer not null default 1,
  affinity text check (length(affinity) between 1 and 200),
  workflow_id bigint,
  traceparent text check (length(traceparent) <= 200),
  fingerprint text check (length(fingerprint) between 1 and 200),
  needs jsonb,
  gathers_id bigint,
  max_failures integer check (max_failures between 1 and 1000),
  created_at timestamptz not null default clock_timestamp()
);
comment on table public.work_items is
  'work-claims: one row a subject of work. An attached table''s rows are mirrored here; enqueue_items() adds others. Deleting an item deletes its claims.';
comment on column public.work_items.seq is 'First come, first served: the order in which items came.';
comment on column public.work_items.source_key is 'The key of the attached table''s row: its text, or a JSON array of a composite key.';
comment on column public.work_items.class_id is 'Its requirement and its labels: its row in work_classes.';
comment on column public.work_items.affinity is 'The name of a thing that a worker may have ready: a model in memory, a snapshot on disk.';
comment on column public.work_items.workflow_id is 'The workflow it belongs to: its row in work_workflows.';
comment on column public.work_items.traceparent is 'The trace that it belongs to, as W3C Trace Context has it. Its claims carry it.';
comment on column public.work_items.fingerprint is 'Names its input, in place of the payload: another one means another input.';
comment on column public.work_items.needs is 'The items that it waits for: [{item_id, work_type}], without work_type those of its own.';
comment on column public.work_items.gathers_id is 'The workflow that it waits for as a whole.';
comment on column public.work_items.max_failures is 'In place of the work type''s.';
comment on column public.work_items.dedupe_key is 'At most one item of a pool has it.';

create unique index if not exists work_items_by_source on public.work_items (pool, source_key) where source_key is not null;
comment on index public.work_items_by_source is 'Which item mirrors this row?';
-- The key first: without statistics, an index that begins with the pool looks as good as the one of all items of the pool.
create unique index if not exists work_items_by_key on public.work_items (dedupe_key, pool) where dedupe_key is not null;
comment on index public.work_items_by_key is 'Which item was enqueued under this key?';
drop index if exists public.work_items_by_dedupe_key;
create index if not exists work_items_by_class on public.work_items (class_id, seq) where class_id <> 1;
comment on index public.work_items_by_class is 'Which items are of this class?';
create index if not exists work_items_by_workflow on public.work_items (workflow_id, seq) where workflow_id is not null;
comment on index public.work_items_by_workflow is 'Which items belong to this workflow?';
create index if not exists work_items_by_gather on public.work_items (gathers_id) where gathers_id is not null;
comment on index public.work_items_by_gather is 'Which items wait for the whole of this workflow?';
create index if not exists work_items_by_pool on public.work_items (pool, seq);
comment on index public.work_items_by_pool is 'Which items of the pool come after this one? (paging candidates, enrolling past items)';

-- Name the error in an item for enqueue_items(); null where there is none.
create or replace function work.item_error(item jsonb)
returns text
language plpgsql
immutable
as $$
declare
  priority numeric;
begin
  if jsonb_typeof(item) <> 'object' then
    return 'an item is a JSON object';
  end if;
  if item - '{pool,payload,priority,dedupe_key,run_after,requires,labels,affinity,workflow,traceparent,fingerprint,needs,needs_all_of,max_failures}'::text[] <> '{}' then
    return format(
      'an item has pool, payload, priority, dedupe_key, run_after, requires, labels, affinity, workflow, traceparent, fingerprint, needs, needs_all_of and max_failures, and no %s',
      (select left(k.key, 60) from jsonb_object_keys(item - '{pool,payload,priority,dedupe_key,run_after,requires,labels,affinity,workflow,traceparent,fingerprint,needs,needs_all_of,max_failures}'::text[]) as k(key) limit 1));
  end if;
  if jsonb_typeof(item -> 'priority') <> 'null' then
    if jsonb_typeof(item -> 'priority') = 'number' then
      priority := item ->> 'priority';
    end if;
    if priority is null or priority <> trunc(priority) or priority not between -1000000 and 1000000 then
      return format('priority is %s; a whole number from -1000000 to 1000000 was expected', left(item ->> 'priority', 60));
    end if;
  end if;
  if jsonb_typeof(item -> 'dedupe_key') <> 'null'
    and (jsonb_typeof(item -> 'dedupe_key') <> 'string' or length(item ->> 'dedupe_key') not between 1 and 500) then
    return 'dedupe_key is a text of 1 to 500 characters';
  end if;
  if jsonb_typeof(item -> 'pool') not in ('string', 'null') then
    return 'pool is the name of a pool';
  end if;
  if jsonb_typeof(item -> 'run_after') not in ('string', 'null') or item ->> 'run_after' ~* '^\s*[-+]?inf' then
    return 'run_after is a time, such as "2030-01-31T12:00:00Z"';
  end if;
  if jsonb_typeof(item -> 'affinity') <> 'null'
    and (jsonb_typeof(item -> 'affinity') <> 'string' or length(item ->> 'affinity') not between 1 and 200) then
    return 'affinity is a text of 1 to 200 characters';
  end if;
  if jsonb_typeof(item -> 'workflow') <> 'null'
    and (jsonb_typeof(item -> 'workflow') <> 'string' or length(item ->> 'workflow') not between 1 and 200) then
    return 'workflow is a name of 1 to 200 characters';
  end if;
  if jsonb_typeof(item -> 'fingerprint') <> 'null'
    and (jsonb_typeof(item -> 'fingerprint') <> 'string' or length(item ->> 'fingerprint') not between 1 and 200) then
    return 'fingerprint is a text of 1 to 200 characters';
  end if;
  if jsonb_typeof(item -> 'needs') not in ('array', 'null') then
    return 'needs is a list of ids or dedupe keys of items';
  end if;
  if jsonb_typeof(item -> 'needs_all_of') <> 'null'
    and (jsonb_typeof(item -> 'needs_all_of') <> 'string' or length(item ->> 'needs_all_of') not between 1 and 200) then
    return 'needs_all_of is the name of a workflow, 1 to 200 characters';
  end if;
  if jsonb_typeof(item -> 'max_failures') <> 'null'
    and (jsonb_typeof(item -> 'max_failures') <> 'number' or item ->> 'max_failures' !~ '^\d{1,4}$'
      or (item ->> 'max_failures')::integer not between 1 and 1000) then
    return 'max_failures is a whole number from 1 to 1000';
  end if;
  -- A version after 00 may append fields; "ff" and zeros alone are invalid in each.
  if jsonb_typeof(item -> 'traceparent') <> 'null'
    and (jsonb_typeof(item -> 'traceparent') <> 'string' or length(item ->> 'traceparent') > 200
      or item ->> 'traceparent' !~ '^(?!ff|00-.{53})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?$') then
    return 'traceparent is a text such as "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"';
  end if;
  if pg_column_size(item -> 'payload') > 1048576 then
    return format(
      'payload has %s bytes; an item carries at most 1048576: store it elsewhere and enqueue where it is',
      pg_column_size(item -> 'payload'));
  end if;
  return null;
end
$$;
comment on function work.item_error is 'Names the error in an item for enqueue_items(); null where there is none.';

-- Ids for new items (RFC 9562, version 8). The ids of one call are neighbours in each index, and begin with the time or
-- with the request id. With a request id they follow from it alone: a repeated call meets its own rows.
create or replace function work.new_ids(request_id uuid, how_many integer)
returns uuid[]
language plpgsql
as $$
declare
  origin text := replace(coalesce(request_id, gen_random_uuid())::text, '-', '');
  head text := case
    when request_id is null then lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
    else left(origin, 12)
  end || '8' || left(md5(origin), 3) || '8';
begin
  return array(
    select (head || lpad(to_hex(n), 5, '0') || left(md5(origin || ' ' || n), 10))::uuid
      from generate_series(1, how_many) as n order by n);
end
$$;
comment on function work.new_ids is 'Ids for new items, side by side; those of a request id are always the same.';

-- Add items in bulk; the answer is their ids, in the order given. For a dedupe key that an item has already, the answer
-- is that item's id. With a request id, a repeated call adds nothing.
create or replace function public.enqueue_items(items jsonb, request_id uuid default null)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  wrong record;
  ids uuid[];
  class_ids integer[];
  needs jsonb[];
  is_repeat boolean := false;
  answer jsonb;
begin
  perform work.check_list('items', enqueue_items.items);
  select e.n - 1 as at, work.item_error(e.value) as why into wrong
    from jsonb_array_elements(enqueue_items.items) with ordinality as e(value, n)
   where work.item_error(e.value) is not null
   order by e.n
   limit 1;
  if found then
    raise exception using errcode = 'PT400', message = format('items[%s]: %s', wrong.at, wrong.why);
  end if;
  perform work.check_pool(named.pool)
     from (select distinct coalesce(e.value ->> 'pool', 'default') as pool
             from jsonb_array_elements(enqueue_items.items) as e(value)) as named;

  if jsonb_path_exists(enqueue_items.items, '$[*] ? (exists(@.requires) || exists(@.labels))') then
    select work.classes_of(
             array_agg(coalesce(nullif(e.value -> 'requires', 'null'), '{}') order by e.n),
             array_agg(coalesce(nullif(e.value -> 'labels', 'null'), '{}') order by e.n),
             array_agg('items[' || e.n - 1 || ']: ' order by e.n))
      into class_ids
      from jsonb_array_elements(enqueue_items.items) with ordinality as e(value, n);
  end if;
  if jsonb_path_exists(enqueue_items.items, '$[*] ? (@.workflow != null)') then
    perform work.intern_workflows(array_agg(e.value ->> 'workflow'))
       from jsonb_array_elements(enqueue_items.items) as e(value);
  end if;

  if enqueue_items.request_id is not null then
    is_repeat := work.is_repeated(enqueue_items.request_id, sha256(convert_to(enqueue_items.items::text, 'UTF8')));
  end if;
  ids := work.new_ids(enqueue_items.request_id, jsonb_array_length(enqueue_items.items));
  if not is_repeat and jsonb_path_exists(enqueue_items.items,
    '$[*] ? ((@.needs.type() == "array" && @.needs.size() > 0) || @.needs_all_of != null || @.fingerprint != null)') then
    needs := work.prepare_needs(enqueue_items.items, ids);
  end if;
  -- In the order of dedupe keys: two calls with the same keys would deadlock otherwise. seq keeps the order given.
  with given as materialized (
    select e.n,
           ids[e.n] as id,
           coalesce(e.value ->> 'pool', 'default') as pool,
           coalesce(e.value -> 'payload', '{}') as payload,
           coalesce((e.value ->> 'priority')::integer, 0) as priority,
           e.value ->> 'dedupe_key' as dedupe_key,
           (e.value ->> 'run_after')::timestamptz as run_after,
           coalesce(class_ids[e.n], 1) as class_id,
           e.value ->> 'affinity' as affinity,
           (select w.id from public.work_workflows w where w.name = e.value ->> 'workflow') as workflow_id,
           e.value ->> 'traceparent' as traceparent,
           e.value ->> 'fingerprint' as fingerprint,
           needs[e.n] as needs,
           (select w.id from public.work_workflows w where w.name = e.value ->> 'needs_all_of') as gathers_id,
           (e.value ->> 'max_failures')::integer as max_failures
      from jsonb_array_elements(enqueue_items.items) with ordinality as e(value, n)
  ),
  numbered as materialized (
    select given.*, nextval('work.item_seq') as seq from given order by given.n
  ),
  added as (
    insert into public.work_items
      (id, seq, pool, payload, priority, dedupe_key, run_after, class_id, affinity, workflow_id, traceparent, fingerprint,
       needs, gathers_id, max_failures)
    select id, seq, pool, payload, priority, dedupe_key, run_after, class_id, affinity, workflow_id, traceparent, fingerprint,
           needs, gathers_id, max_failures
      from numbered
     -- An item that was deleted since stays deleted.
     where not is_repeat
     order by pool, dedupe_key, n
    on conflict do nothing
  )
  select jsonb_agg(id order by n) into answer from numbered;

  -- A second statement sees the items of a call that the insert waited for.
  if jsonb_path_exists(enqueue_items.items, '$[*].dedupe_key ? (@ != null)') then
    select jsonb_agg(coalesce(held.id::text, answer ->> (e.n - 1)::integer) order by e.n) into answer
      from jsonb_array_elements(enqueue_items.items) with ordinality as e(value, n)
      left join lateral (
        select i.id from public.work_items i
         where i.pool is not distinct from coalesce(e.value ->> 'pool', 'default') and i.dedupe_key = e.value ->> 'dedupe_key'
         limit 1) as held on true;
  end if;
  if needs is not null then
    perform work.check_needed_items(needs, ids);
    perform work.renew_items(enqueue_items.items);
  end if;
  return coalesce(answer, '[]');
end
$$;
comment on function public.enqueue_items is
  'Adds items [{pool, payload, priority, dedupe_key, run_after, requires, labels, affinity, workflow, traceparent, fingerprint, needs, needs_all_of, max_failures}], at most 1000 a call; answers their ids in the same order. A dedupe key that is there already answers the id it has; with another fingerprint than before, the item gets the new payload.';

-- 07_needs.sql

-- References: how a caller names the items that an item needs.

-- The ids that items of enqueue_items() have: of an item with a dedupe key, the id of the item that has it already, else of
-- the first with it in the call.
create or replace function work.ids_in_call(items jsonb, ids uuid[])
returns uuid[]
language plpgsql
stable
as $$
begin
  return array(
    select coalesce(
             (select i.id from public.work_items i
               where i.pool is not distinct from coalesce(e.value ->> 'pool', 'default') and i.dedupe_key = e.value ->> 'dedupe_key'),
             ids[min(e.n) over (partition by coalesce(e.value ->> 'pool', 'default'), coalesce(e.value ->> 'dedupe_key', ids[e.n]::text))])
      from jsonb_array_elements(items) with ordinality as e(value, n)
     order by e.n);
end
$$;

-- Name the error in a reference; null where there is none.
create or replace function work.reference_error(reference jsonb)
returns text
language plpgsql
immutable
as $$
begin
  if jsonb_typeof(reference) = 'string' then
    return case when length(reference #>> '{}') not between 1 and 500 then 'an id or a dedupe key has 1 to 500 characters' end;
  end if;
  if jsonb_typeof(reference) <> 'object'
    or (reference ? 'id')::integer + (reference ? 'key')::integer + (reference ? 'index')::integer <> 1
    or reference - '{id,key,pool,index,work_type}'::text[] <> '{}' then
    return 'a need is the id or the dedupe key of an item, or {"id" or "key" (with "pool") or "index", "work_type"}';
  end if;
  if reference ? 'id' and coalesce(reference ->> 'id' !~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$', true) then
    return format('id is %s; a uuid was expected', coalesce(left(reference ->> 'id', 60), 'null'));
  end if;
  if reference ? 'index' and coalesce(reference ->> 'index' !~ '^\d{1,4}$', true) then
    return format('index is %s; the place of an item of the same call was expected, from 0', coalesce(left(reference ->> 'index', 60), 'null'));
  end if;
  if jsonb_typeof(reference -> 'work_type') not in ('string', 'null')
    or length(reference ->> 'work_type') not between 1 and 200 then
    return 'work_type is a name of 1 to 200 characters';
  end if;
  return null;
end
$$;

-- Find the item that a reference names, among the items of the call and the present ones; null where there is none. The
-- items of the call with a dedupe key are `places`: {pool: {dedupe_key: place from 1}}.
create or replace function work.referred_item(reference jsonb, pool text, places jsonb, ids uuid[])
returns uuid
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  item_key text := case when jsonb_typeof(reference) = 'string' then reference #>> '{}' else reference ->> 'key' end;
  item_pool text := case when jsonb_typeof(reference) = 'object' then coalesce(reference ->> 'pool', referred_item.pool) else referred_item.pool end;
  item_id uuid;
begin
  if jsonb_typeof(reference) = 'object' and reference ? 'index' then
    return ids[(reference ->> 'index')::integer + 1];
  end if;
  item_id := case
    when jsonb_typeof(reference) = 'object' and reference ? 'id' then (reference ->> 'id')::uuid
    when jsonb_typeof(reference) = 'string' and item_key ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then item_key::uuid
  end;
  if item_id is not null then
    if item_id = any (ids) or exists (select from public.work_items i where i.id = item_id) then
      return item_id;
    end if;
    if jsonb_typeof(reference) = 'object' then
      return null;
    end if;
  end if;
  return coalesce(
    ids[(places -> item_pool ->> item_key)::integer],
    (select i.id from public.work_items i where i.pool is not distinct from item_pool and i.dedupe_key = item_key),
    -- A row of an attached table is named by its key.
    (select i.id from public.work_items i where i.pool = item_pool and i.source_key = item_key));
end
$$;

-- Turn references into [{item_id, work_type}]. Refuses one that names no item; `called` says where it stands.
create or replace function work.resolve_needs(needs jsonb, pool text, places jsonb, ids uuid[], called text)
returns jsonb
language plpgsql
stable
as $$
declare
  wrong record;
  missing text;
  resolved jsonb;
begin
  if jsonb_typeof(needs) <> 'array' or jsonb_array_length(needs) > 10000 then
    raise exception using errcode = 'PT400', message = format('%s: needs is a list of at most 10000 items', called);
  end if;
  select e.n - 1 as at, work.reference_error(e.value) as why into wrong
    from jsonb_array_elements(needs) with ordinality as e(value, n)
   where work.reference_error(e.value) is not null
   order by e.n
   limit 1;
  if found then
    raise exception using errcode = 'PT400', message = format('%s: needs[%s]: %s', called, wrong.at, wrong.why);
  end if;
  select jsonb_agg(jsonb_build_object('item_id', r.item_id, 'work_type', r.work_type) order by r.n),
         (array_agg(r.value::text order by r.n) filter (where r.item_id is null))[1]
    into resolved, missing
    from (select e.n, e.value, work.referred_item(e.value, resolve_needs.pool, places, ids) as item_id,
                 case when jsonb_typeof(e.value) = 'object' then e.value ->> 'work_type' end as work_type
            from jsonb_array_elements(needs) with ordinality as e(value, n)) as r;
  if missing is not null then
    raise exception using errcode = 'PT400',
      message = format('%s: needs: there is no item %s, in this call or in pool %s', called, left(missing, 100), resolve_needs.pool);
  end if;
  return resolved;
end
$$;

-- Refuse items of one call that need each other in a circle: needs[n] are the places of the items that item n needs.
create or replace function work.check_cycles(items jsonb, ids uuid[], needs jsonb[])
returns void
language plpgsql
as $$
declare
  sources integer[];
  targets integer[];
  before integer;
  path integer[];
begin
  select array_agg(e.n), array_agg(array_position(ids, (r.value ->> 'item_id')::uuid))
    into sources, targets
    from unnest(needs) with ordinality as e(needs, n)
   cross join lateral jsonb_array_elements(e.needs) as r(value)
   where (r.value ->> 'item_id')::uuid = any (ids);
  -- An item that needs earlier ones only is in no circle.
  if sources is null or not exists (select from unnest(sources, targets) as e(source, target) where e.target >= e.source) then
    return;
  end if;
  -- Take away, again and again, what needs nothing that is left.
  loop
    before := cardinality(sources);
    select array_agg(e.source), array_agg(e.target)
      into sources, targets
      from unnest(sources, targets) as e(source, target)
     where e.target = any (sources);
    exit when sources is null or cardinality(sources) = before;
  end loop;
  if sources is null then
    return;
  end if;
  path := array[sources[1]];
  while path[cardinality(path)] <> all (path[:cardinality(path) - 1]) loop
    path := path || targets[array_position(sources, path[cardinality(path)])];
  end loop;
  path := path[array_position(path, path[cardinality(path)]):];
  raise exception using errcode = 'PT400', message = format('the items need each other in a circle: %s', (
    select string_agg('items[' || p.place - 1 || ']' || coalesce(' (' || (items -> (p.place - 1) ->> 'dedupe_key') || ')', ''), ' → ' order by p.n)
      from unnest(path) with ordinality as p(place, n)));
end
$$;

-- 08_claims.sql

-- Claims: which worker holds which item for which work, until when, and how it ended.
do $$
begin
  if to_regtype('public.work_claim_status') is null then
    create domain public.work_claim_status as text collate "C"
      check (value in ('blocked', 'waiting', 'ready', 'claimed', 'succeeded', 'failed', 'cancelled'));
  end if;
end
$$;
comment on domain public.work_claim_status is 'work-claims: the states of a claim. The last three are terminal.';

-- Not-null columns of fixed width come first: an update compares each indexed column, and finds these without reading
-- through the others. There are no checks: Postgres parses them for every statement, a twelfth of a claim's cost
-- (docs/decisions/one-table-for-claims.md). The states are a domain, whose check is cached.
create table if not exists public.work_claims (
  item_id uuid not null references public.work_items (id) on delete cascade,
  priority integer not null default 0,
  rank bigint not null default 0,
  position bigint not null,
  class_id integer not null default 1,
  failures integer not null default 0,
  due_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null default '-infinity',
  crashes integer not null default 0,
  waits_for integer not null default 0,
  status public.work_claim_status not null default 'ready',
  work_type text collate "C" not null,
  worker_id text,
  fence bigint,
  claimed_at timestamptz,
  finished_at timestamptz,
  workflow_id bigint,
  affinity text,
  request_id uuid,
  progress real,
  result jsonb,
  error text,
  poll_at timestamptz,
  external_id text,
  state jsonb,
  read_input text,
  again text,
  stale text,
  changes integer,
  changed_at timestamptz,
  -- Half of each page of the index is left free for the entries of later versions.
  primary key (item_id, work_type) with (fillfactor = 50)
);
comment on table public.work_claims is
  'work-claims: one row an (item, work type): at most one worker holds it. Ready and waiting rows are work to do, terminal rows are the record.';
comment on column public.work_claims.class_id is 'The requirement and labels of its item: see work_classes.';
comment on column public.work_claims.priority is 'The workflow''s priority, or the item''s where it has no workflow.';
comment on column public.work_claims.rank is 'Its rank within one priority: its workflow''s, or the item''s seq.';
comment on column public.work_claims.position is 'Its position within a workflow: the item''s seq.';
comment on column public.work_claims.fence is 'New with every claim; only the current one may extend or release.';
comment on column public.work_claims.worker_id is 'The worker that holds it, or that released it last.';
comment on column public.work_claims.due_at is 'Since when it may run, or when it will be able to.';
comment on column public.work_claims.expires_at is 'The end of the lease, or of the last one, by this database''s clock. -infinity: there was none.';
comment on column public.work_claims.failures is 'How often a handler failed. Crashes, leases that ended without a release, are counted apart.';

comment on column public.work_claims.poll_at is
  'When its job elsewhere is next asked about. A claimed row that has it is parked: no process holds it. An ended one has it until its job is stopped.';
comment on column public.work_claims.external_id is 'The job elsewhere that its latest try was handed to, while nobody has said how that ended.';
comment on column public.work_claims.waits_for is 'How many of its needs are not met. An open claim that nobody holds is blocked while there are any.';
comment on column public.work_claims.read_input is 'The input that its holder has read, where the item has another one since.';
comment on column public.work_claims.again is 'Why it is to be done once more after its present holder.';
comment on column public.work_claims.stale is 'Why its result is out of date; null: it is not.';
comment on column public.work_claims.changes is 'How often a changed input reopened it, one within an hour after the other.';
comment on column public.work_claims.state is 'The state that its handler has saved for the next try.';

create index if not exists work_claims_ready on public.work_claims
  (class_id, work_type, priority desc, rank, position) where status = 'ready';
comment on index public.work_claims_ready is 'What comes first in this lane, that is of this class and work type?';
-- Every class_id is above 0. The condition keeps the planner from reading one lane by this index, in a plan made when
-- the table was empty: only a query that says it can use the index.
create index if not exists work_claims_in_order on public.work_claims
  (work_type, priority desc, rank, position) where status = 'ready' and class_id > 0;
comment on index public.work_claims_in_order is 'What comes first in all lanes of this work type?';
create index if not exists work_claims_warm on public.work_claims
  (work_type, affinity, priority desc, rank, position, class_id) where status = 'ready' and affinity is not null;
comment on index public.work_claims_warm is 'What comes first for a worker that is warm for this?';
create index if not exists work_claims_of_workflow on public.work_claims (workflow_id)
  where status in ('blocked', 'waiting', 'ready', 'claimed') and workflow_id is not null;
comment on index public.work_claims_of_workflow is 'What of this workflow is open?';
create index if not exists work_claims_leases on public.work_claims (expires_at) where status = 'claimed';
comment on index public.work_claims_leases is 'Which lease has ended? What is held at all?';
create index if not exists work_claims_due on public.work_claims (due_at) where status = 'waiting';
comment on index public.work_claims_due is 'What is due again?';
-- Succeeded rows are in no index but the primary key: one more entry a claim costs a tenth of the throughput.
create index if not exists work_claims_failed on public.work_claims (work_type, finished_at) where status = 'failed';
comment on index public.work_claims_failed is 'What failed for good, and in which order?';

create index if not exists work_claims_parked on public.work_claims (work_type, poll_at) where poll_at is not null;
comment on index public.work_claims_parked is 'Which job elsewhere of this work type is to be asked about?';
create index if not exists work_claims_tried on public.work_claims (work_type) where status = 'waiting' and fence is not null;
comment on index public.work_claims_tried is 'Does anything of this work type wait for another try?';
create index if not exists work_claims_by_external_id on public.work_claims (external_id) where external_id is not null;
comment on index public.work_claims_by_external_id is 'Which claim was handed to this job elsewhere?';
-- One index for two questions: each further one costs every claim, even where it has no entry.
create index if not exists work_claims_behind on public.work_claims (work_type, item_id)
  where status = 'blocked' or stale is not null;
comment on index public.work_claims_behind is 'What waits for other work? Which results are out of date?';

-- Vacuum has to keep up with a table in which every row is rewritten twice. Half of each page is left free for the later
-- versions of its rows: an update within a page writes less.
alter table public.work_claims set (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Items with the values that order and match their claims.
create or replace view work.ranked_items with (security_invoker = true) as
select i.id as item_id, i.pool, i.seq as position, coalesce(w.priority, i.priority) as priority,
       coalesce(w.rank, i.seq) as rank, i.class_id, i.affinity, i.workflow_id, i.run_after,
       i.needs is not null or i.gathers_id is not null as has_needs
  from public.work_items i
  left join public.work_workflows w on w.id = i.workflow_id;
comment on view work.ranked_items is 'work-claims: items with the priority, rank and position of their claims.';

-- Refuse to delete or rename a work type that has claims: its row holds their rules.
create or replace function work.keep_used_type()
returns trigger
language plpgsql
as $$
begin
  if (tg_op = 'DELETE' or new.name <> old.name)
    and exists (select from public.work_claims c where c.work_type = old.name) then
    perform work.refuse('work type', old.name, 'it has claims; delete them first, or set paused', 'PT409');
  end if;
  return case when tg_op = 'DELETE' then old else new end;
end
$$;
create or replace trigger keep_used_type
  before delete or update of name on public.work_types for each row execute function work.keep_used_type();

-- 09_dependencies.sql

-- Needs: claims that wait for others. A work type may depend on others of the same item, and an item on other items or on
-- a whole workflow. A claim counts what it waits for in waits_for.

create table if not exists public.work_dependencies (
  id bigint generated always as identity primary key,
  item_id uuid not null,
  work_type text collate "C" not null,
  needs_item_id uuid,
  needs_work_type text collate "C",
  needs_workflow_id bigint,
  is_met boolean not null default false,
  check ((needs_item_id is null) = (needs_work_type is null)),
  check (num_nonnulls(needs_item_id, needs_workflow_id) = 1),
  foreign key (item_id, work_type) references public.work_claims (item_id, work_type) on delete cascade
);
comment on table public.work_dependencies is
  'work-claims: one row a need of a claim: another item''s claim, or all of a workflow. Needs between work types of one item are in work_types.depends_on.';
create unique index if not exists work_dependencies_of_claim on public.work_dependencies
  (item_id, work_type, needs_item_id, needs_work_type);
comment on index public.work_dependencies_of_claim is 'What does this claim need? Also when it is deleted.';
create unique index if not exists work_dependencies_of_gather on public.work_dependencies
  (item_id, work_type, needs_workflow_id) where needs_workflow_id is not null;
comment on index public.work_dependencies_of_gather is 'Which workflows does this claim need?';
create index if not exists work_dependencies_on_claim on public.work_dependencies
  (needs_item_id, needs_work_type) where needs_item_id is not null;
comment on index public.work_dependencies_on_claim is 'Which claims need this one?';
create index if not exists work_dependencies_on_workflow on public.work_dependencies
  (needs_workflow_id) where needs_workflow_id is not null;
comment on index public.work_dependencies_on_workflow is 'Which claims need this workflow?';

-- Whether a need that has this status is met, for a work type with this rule. Written in PL/pgSQL, which keeps its plan: a
-- function in SQL with settings of its own is planned again at each call.
create or replace function work.is_met(status text, on_failed_need text)
returns boolean
language plpgsql
immutable
as $$
begin
  return coalesce(status = 'succeeded' or (on_failed_need = 'run' and status in ('failed', 'cancelled')), false);
end
$$;

-- Which work type needs which on the same item. A need of a work type that several do is one of each.
create or replace view work.type_needs with (security_invoker = true) as
select t.name as work_type, u.name as needs_work_type, t.on_failed_need
  from public.work_types t
 cross join unnest(t.depends_on) as d(name)
  join public.work_types u on u.name = d.name or u.copy_of = d.name;
comment on view work.type_needs is 'work-claims: which work type needs which on the same item.';

-- The work types of a needed item that a claim waits for: the named one, else its own, else all of the needed item's pool.
create or replace function work.needed_types(work_type text, needed_pool text, named text)
returns setof text
language plpgsql
stable
as $$
begin
  return query
  with own as (
    select coalesce(t.copy_of, t.name) as name from public.work_types t where t.name = needed_types.work_type and t.pool = needed_pool
  )
  select t.name
    from public.work_types t
   where case
           when named is not null then t.name = named or t.copy_of = named
           when exists (select from own) then coalesce(t.copy_of, t.name) = (select o.name from own o)
           else t.pool = needed_pool
         end
   union
  select named where named is not null;
end
$$;

-- The work types that claims of these items and work types are going to need on other items.
create or replace function work.types_needed(item_ids uuid[], work_types text[])
returns text[]
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return array(
    select distinct u.name
      from unnest(types_needed.item_ids) as given(id)
      join public.work_items i on i.id = any (array[given.id])
     cross join unnest(types_needed.work_types) as t(name)
     cross join lateral jsonb_to_recordset(i.needs) as n(item_id uuid, work_type text collate "C")
      join public.work_items y on y.id = any (array[n.item_id])
     cross join lateral work.needed_types(t.name, y.pool, n.work_type) as u(name)
     where i.needs is not null);
end
$$;

-- Write down the needs of these items' claims.
create or replace function work.add_dependencies(item_ids uuid[], work_types text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  with needed as materialized (
    select i.id, t.name as work_type, n.item_id as needs_item_id, u.name as needs_work_type
      from unnest(add_dependencies.item_ids) as given(id)
      join public.work_items i on i.id = any (array[given.id])
     cross join unnest(add_dependencies.work_types) as t(name)
     cross join lateral jsonb_to_recordset(i.needs) as n(item_id uuid, work_type text collate "C")
      join public.work_items y on y.id = any (array[n.item_id])
     cross join lateral work.needed_types(t.name, y.pool, n.work_type) as u(name)
     where i.needs is not null
  ),
  added as (
    insert into public.work_dependencies (item_id, work_type, needs_item_id, needs_work_type)
    select n.id, n.work_type, n.needs_item_id, n.needs_work_type from needed n
     where exists (select from public.work_claims c where c.item_id = any (array[n.id]) and c.work_type = n.work_type)
    on conflict do nothing
  )
  insert into public.work_dependencies (item_id, work_type, needs_workflow_id)
  select i.id, t.name, i.gathers_id
    from unnest(add_dependencies.item_ids) as given(id)
    join public.work_items i on i.id = any (array[given.id])
   cross join unnest(add_dependencies.work_types) as t(name)
   where i.gathers_id is not null
     and exists (select from public.work_claims c where c.item_id = any (array[i.id]) and c.work_type = t.name)
  on conflict do nothing;
end
$$;

-- Lock these items' claims and what they need against change: a release of it waits, and then finds them. In the order of
-- keys: without one order for both, add_needs() deadlocks with a release. Of a claim that is not there yet, its item is
-- locked: that keeps others from making the claim.
create or replace function work.lock_needs(item_ids uuid[], work_types text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  perform from (
      select distinct d.needs_item_id as item_id
        from unnest(lock_needs.item_ids) as given(id)
        join public.work_dependencies d on d.item_id = any (array[given.id])
       where d.needs_item_id is not null and not d.is_met
         and not exists (
           select from public.work_claims c where c.item_id = any (array[d.needs_item_id]) and c.work_type = d.needs_work_type)
       order by 1) as unclaimed
   cross join lateral (
     select from public.work_items i where i.id = any (array[unclaimed.item_id]) for no key update) as locked;
  perform from public.work_workflows w
    where w.id = any (array(
            select d.needs_workflow_id
              from unnest(lock_needs.item_ids) as given(id)
              join public.work_dependencies d on d.item_id = any (array[given.id])
             where d.needs_workflow_id is not null))
    order by w.id for no key update;
  perform from (
      select d.needs_item_id as item_id, d.needs_work_type as work_type
        from unnest(lock_needs.item_ids) as given(id)
        join public.work_dependencies d on d.item_id = any (array[given.id])
       where d.needs_item_id is not null and not d.is_met
       union
      select given.id, n.needs_work_type
        from unnest(lock_needs.item_ids) as given(id)
       cross join work.type_needs n
       where n.work_type = any (lock_needs.work_types)
       union
      select given.id, t.name
        from unnest(lock_needs.item_ids) as given(id)
       cross join unnest(lock_needs.work_types) as t(name)
       order by 1, 2) as needed
   cross join lateral (
     select from public.work_claims c
      where c.item_id = any (array[needed.item_id]) and c.work_type = needed.work_type
        for no key update) as locked;
end
$$;

-- Whether all of a workflow is over, and whether all of it succeeded. Items that wait for it do not belong to it.
create or replace function work.workflow_end(workflow_id bigint, out is_over boolean, out is_succeeded boolean)
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  is_over := not exists (
      select from public.work_claims c
        join public.work_items i on i.id = c.item_id
       where c.workflow_id = workflow_end.workflow_id and c.status in ('blocked', 'waiting', 'ready', 'claimed')
         and i.gathers_id is distinct from workflow_end.workflow_id)
    and exists (
      select from public.work_items i
       where i.workflow_id = workflow_end.workflow_id and i.gathers_id is distinct from workflow_end.workflow_id);
  is_succeeded := is_over and not exists (
    select from public.work_items i
      join public.work_claims c on c.item_id = i.id
     where i.workflow_id = workflow_end.workflow_id and i.gathers_id is distinct from workflow_end.workflow_id
       and c.status in ('failed', 'cancelled'));
end
$$;

-- Let these items' claims fail whose needs have failed long before: no later release tells of it.
create or replace function work.fail_with_needs(item_ids uuid[], work_types text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  perform work.follow((
    select jsonb_agg(jsonb_build_object('item_id', f.item_id, 'work_type', f.work_type, 'was', f.status, 'became', f.status))
      from unnest(fail_with_needs.item_ids) as given(id)
      join public.work_types t on t.name = any (fail_with_needs.work_types) and t.on_failed_need = 'fail'
     cross join lateral (
       select d.needs_item_id as item_id, d.needs_work_type as work_type
         from public.work_dependencies d
        where d.item_id = any (array[given.id]) and d.work_type = t.name and not d.is_met and d.needs_item_id is not null
        union all
       select given.id, n.needs_work_type from work.type_needs n where n.work_type = t.name) as n
      join public.work_claims f on f.item_id = any (array[n.item_id]) and f.work_type = n.work_type
     where f.status in ('failed', 'cancelled')));
end
$$;

-- Count anew what these items' claims wait for, and block or ready them. Every claim that has needs is made so.
create or replace function work.count_needs(item_ids uuid[], work_types text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  perform work.add_dependencies(count_needs.item_ids, count_needs.work_types);
  perform work.lock_needs(count_needs.item_ids, count_needs.work_types);
  -- An item that was deleted meanwhile is needed no more.
  delete from public.work_dependencies d
   using unnest(count_needs.item_ids) as given(id)
   where d.item_id = any (array[given.id]) and d.needs_item_id is not null and not d.is_met
     and not exists (select from public.work_items i where i.id = any (array[d.needs_item_id]));
  update public.work_dependencies d
     set is_met = true
    from (select g.id, w.name from unnest(count_needs.item_ids) as g(id) cross join unnest(count_needs.work_types) as w(name)) as given,
         public.work_types t
   where d.item_id = any (array[given.id]) and d.work_type = given.name and not d.is_met
     and t.name = any (array[given.name])
     and case
           when d.needs_workflow_id is not null then (
             select case t.on_failed_need when 'run' then e.is_over else e.is_succeeded end
               from work.workflow_end(d.needs_workflow_id) as e)
           else work.is_met((
             select k.status from public.work_claims k
              where k.item_id = any (array[d.needs_item_id]) and k.work_type = d.needs_work_type), t.on_failed_need)
         end;
  with counted as materialized (
    select c.item_id, c.work_type, c.status,
           (select count(*) from public.work_dependencies d
             where d.item_id = any (array[c.item_id]) and d.work_type = c.work_type and not d.is_met)
           + (select count(*) from work.type_needs n
               where n.work_type = c.work_type
                 and not work.is_met((
                   select k.status from public.work_claims k
                    where k.item_id = any (array[c.item_id]) and k.work_type = n.needs_work_type), n.on_failed_need)) as needs
      from (select distinct g.id, w.name
              from unnest(count_needs.item_ids) as g(id)
             cross join unnest(count_needs.work_types) as w(name)
             order by g.id, w.name) as given
     cross join lateral (
       select k.item_id, k.work_type, k.status from public.work_claims k
        where k.item_id = any (array[given.id]) and k.work_type = given.name
          for no key update) as c
  ),
  changed as (
    update public.work_claims c
       set waits_for = n.needs,
           status = case
             when c.status not in ('blocked', 'waiting', 'ready') then c.status
             when n.needs > 0 then 'blocked'
             when c.due_at > clock_timestamp() then 'waiting'
             else 'ready'
           end
      from counted n
     where c.item_id = any (array[n.item_id]) and c.work_type = n.work_type
       and (c.waits_for <> n.needs or c.status = 'blocked' and n.needs = 0 or c.status in ('waiting', 'ready') and n.needs > 0)
    returning c.item_id, c.work_type, n.status as was, c.status, c.fence
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, fence, from_status, to_status)
    select c.item_id, c.work_type, case c.status when 'blocked' then 'blocked' else 'unblocked' end, c.fence, c.was, c.status
      from changed c
     where c.was <> c.status and c.work_type in (select t.name from public.work_types t where t.history = 'full')
  )
  insert into work.tally_entries (work_type, blocked)
  select c.work_type, count(*) filter (where c.status = 'blocked') - count(*) filter (where c.was = 'blocked')
    from changed c
   group by c.work_type
  having count(*) filter (where c.status = 'blocked') <> count(*) filter (where c.was = 'blocked');
  perform work.fail_with_needs(count_needs.item_ids, count_needs.work_types);
  perform work.look_at_gathers(array(
    select i.workflow_id
      from unnest(count_needs.item_ids) as given(id)
      join public.work_items i on i.id = any (array[given.id])
      join public.work_workflows w on w.id = i.workflow_id
     where w.is_gathered and i.gathers_id is distinct from i.workflow_id
     union
    select i.gathers_id
      from unnest(count_needs.item_ids) as given(id)
      join public.work_items i on i.id = any (array[given.id])
     where i.gathers_id is not null));
end
$$;

-- 09_enroll.sql

-- Enrolling: items get claims, and open claims follow changes of their item or workflow.

-- Make a claim for each of these items and work types that has none. The caller has locked the items against change;
-- answers how many claims were made.
create or replace function work.enroll(item_ids uuid[], work_types text[])
returns integer
language plpgsql
as $$
declare
  enrolled integer;
  have_needs boolean := exists (
    select from unnest(item_ids) as given(id)
      join public.work_items i on i.id = any (array[given.id])
     where i.needs is not null or i.gathers_id is not null
        or exists (select from public.work_workflows w where w.id = i.workflow_id and w.is_gathered));
begin
  -- A work type may be newer than the needs of its items.
  if have_needs then
    perform work.unplain(work_types || work.types_needed(item_ids, work_types));
  end if;
  -- A workflow's priority must not change until the claims that copy it are visible.
  perform work.lock_workflows(array(
    select i.workflow_id from unnest(item_ids) as given(id) join public.work_items i on i.id = any (array[given.id])
     where i.workflow_id is not null));
  -- In the order of keys: claim_items() may wait for these keys at the same time.
  insert into public.work_claims
    (item_id, work_type, status, priority, rank, position, class_id, affinity, workflow_id, due_at)
  select i.item_id, t.name,
         case when i.has_needs or r.depends_on <> '{}' then 'blocked'
              when i.run_after > clock_timestamp() then 'waiting'
              else 'ready' end,
         i.priority, i.rank, i.position, i.class_id, i.affinity, i.workflow_id, greatest(i.run_after, clock_timestamp())
    from unnest(item_ids) as given(id)
    join work.ranked_items i on i.item_id = any (array[given.id])
   cross join unnest(work_types) as t(name)
    left join public.work_types r on r.name = t.name
   order by i.item_id, t.name
  on conflict do nothing;
  get diagnostics enrolled = row_count;
  perform work.wake_workers(work_types);
  if enrolled > 0 and (have_needs or exists (
    select from public.work_types t where not t.is_plain and t.name = any (work_types))) then
    perform work.count_needs(item_ids, work_types);
  end if;
  return enrolled;
end
$$;

-- New items are enrolled for the work types of their pool, in the transaction that adds them.
create or replace function work.enroll_new_items()
returns trigger
language plpgsql
as $$
declare
  pool_name text;
  work_types text[];
begin
  for pool_name in select distinct i.pool from new_items i order by i.pool loop
    perform pg_advisory_xact_lock_shared(work.pool_lock_key(pool_name));
    work_types := array(select t.name from public.work_types t where t.pool = pool_name);
    if work_types <> '{}' then
      perform work.enroll(array(select i.id from new_items i where i.pool = pool_name), work_types);
    end if;
  end loop;
  return null;
end
$$;
create or replace trigger enroll_new_items
  after insert on public.work_items referencing new table as new_items
  for each statement execute function work.enroll_new_items();

-- The claims of a deleted item go with it. They are locked in the order of keys first: the cascade deletes them in any
-- order, and would deadlock with a release of two of them.
create or replace function work.lock_claims_of_item()
returns trigger
language plpgsql
as $$
begin
  perform from public.work_claims c where c.item_id = any (array[old.id]) order by c.work_type for update;
  return old;
end
$$;
create or replace trigger lock_claims_of_item
  before delete on public.work_items
  for each row execute function work.lock_claims_of_item();

-- Claims follow their item: its priority, workflow, class, affinity and run_after. Ended ones too: a change may open them
-- again at the same moment.
create or replace function work.move_open_claims()
returns trigger
language plpgsql
as $$
declare
  moved uuid[];
  rescheduled boolean[];
  regrouped bigint[];
begin
  select array_agg(n.id order by n.id), array_agg(n.run_after is distinct from o.run_after order by n.id),
         array_agg(o.workflow_id) filter (where o.workflow_id is distinct from n.workflow_id)
           || array_agg(n.workflow_id) filter (where o.workflow_id is distinct from n.workflow_id)
    into moved, rescheduled, regrouped
    from new_items n
    join old_items o on o.id = n.id
   where (n.priority, n.run_after, n.class_id, n.affinity, n.workflow_id)
           is distinct from (o.priority, o.run_after, o.class_id, o.affinity, o.workflow_id);
  if moved is null then
    return null;
  end if;
  perform work.unplain(array(
    select distinct c.work_type
      from new_items i
      join public.work_workflows w on w.id = i.workflow_id and w.is_gathered
      join public.work_claims c on c.item_id = any (array[i.id])
     where i.id = any (moved)));
  perform work.lock_workflows(array(
    select i.workflow_id from new_items i where i.workflow_id is not null
     union
    select u.id from unnest(regrouped) as u(id) where u.id is not null));
  with changed as materialized (
    select m.is_rescheduled, i.*
      from unnest(moved, rescheduled) as m(id, is_rescheduled)
     cross join lateral (select r.* from work.ranked_items r where r.item_id = m.id limit 1) as i
     order by m.id
  )
  update public.work_claims c
     set priority = m.priority,
         rank = m.rank,
         class_id = m.class_id,
         affinity = m.affinity,
         workflow_id = m.workflow_id,
         status = case
           when not m.is_rescheduled or c.status not in ('ready', 'waiting') then c.status
           when m.run_after > clock_timestamp() then 'waiting'
           else 'ready'
         end,
         due_at = case
           when m.is_rescheduled and c.status in ('blocked', 'ready', 'waiting', 'claimed') then greatest(m.run_after, clock_timestamp())
           else c.due_at
         end
    from changed m
   where c.item_id = any (array[m.item_id]);
  perform work.look_at_gathers(array(
    select w.id from public.work_workflows w where w.id = any (regrouped) and w.is_gathered));
  return null;
end
$$;
create or replace trigger move_open_claims
  after update on public.work_items referencing old table as old_items new table as new_items
  for each statement execute function work.move_open_claims();

-- Open claims follow their workflow's priority and rank. The items of a deleted workflow go on without one.
create or replace function work.move_workflow()
returns trigger
language plpgsql
as $$
begin
  if tg_op = 'DELETE' then
    perform work.forget_gather(old.id);
    update public.work_items i set gathers_id = null where i.gathers_id = old.id;
    update public.work_items i set workflow_id = null where i.workflow_id = old.id;
    return null;
  end if;
  if (new.priority, new.rank) is distinct from (old.priority, old.rank) then
    -- In the order of keys. A claim that changes while this waits for its row is looked at again: it moves if it is still
    -- open and still of this workflow.
    with moved as materialized (
      select c.item_id, c.work_type
        from public.work_claims c
       where c.workflow_id = new.id and c.status in ('blocked', 'waiting', 'ready', 'claimed')
       order by c.item_id, c.work_type
    )
    update public.work_claims c
       set priority = new.priority, rank = new.rank
      from moved m
     where c.item_id = any (array[m.item_id]) and c.work_type = m.work_type
       and c.workflow_id is not distinct from new.id
       and c.status in ('blocked', 'waiting', 'ready', 'claimed')
       and (c.priority, c.rank) is distinct from (new.priority, new.rank);
  end if;
  return null;
end
$$;
create or replace trigger move_workflow
  after update or delete on public.work_workflows for each row execute function work.move_workflow();

-- 10_events.sql

-- Events: the record of all that a claim met on its way; of what goes well only where its work type keeps a full history.
create table if not exists public.work_events (
  id bigint generated always as identity primary key,
  item_id uuid not null,
  work_type text collate "C" not null,
  event text not null,
  worker_id text,
  fence bigint,
  detail text,
  from_status text,
  to_status text,
  actor text,
  input text,
  at timestamptz not null default clock_timestamp(),
  foreign key (item_id, work_type) references public.work_claims (item_id, work_type) on delete cascade
);
do $$
begin
  -- The check of an earlier version has no unblocked.
  if not exists (
    select from pg_constraint c
     where c.conname = 'work_events_event_check' and pg_get_constraintdef(c.oid) like '%unblocked%') then
    alter table public.work_events drop constraint if exists work_events_event_check;
    alter table public.work_events add constraint work_events_event_check check (event in (
      'enrolled', 'claimed', 'succeeded', 'parked', 'expired', 'failed', 'handed_back', 'snoozed', 'retried', 'cancelled', 'reopened',
      'blocked', 'unblocked', 'prioritized', 'stopped', 'stale_release', 'stale_extend', 'stale_lock'));
  end if;
end
$$;
comment on table public.work_events is
  'work-claims: one row an ended lease, failure, late call or action of a person; of a work type with history = full also one a claim and success. The newest keep_events of each claim are kept.';
comment on column public.work_events.from_status is 'The state of the claim before, and to_status after; null where the event changed none.';
comment on column public.work_events.actor is 'The person who did it: see work.actor().';
comment on column public.work_events.input is 'The input by which the claim was reopened or done, as a digest or fingerprint.';
create index if not exists work_events_by_claim on public.work_events (item_id, work_type, id);
comment on index public.work_events_by_claim is 'What happened to this claim?';

-- The caller of an act by hand: the name in the header x-work-as, else the user of the JWT, else the role.
create or replace function work.actor()
returns text
language plpgsql
stable
as $$
begin
  return left(coalesce(
    nullif(nullif(current_setting('request.headers', true), '')::json ->> 'x-work-as', ''),
    nullif(nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub', ''),
    nullif(nullif(current_setting('request.jwt.claims', true), '')::json ->> 'role', ''),
    session_user), 200);
end
$$;

-- Keep the newest events of each claim that has new ones, as many as its work type says.
create or replace function work.prune_events()
returns trigger
language plpgsql
as $$
begin
  delete from public.work_events e
   where e.ctid = any (array(
           select o.ctid
             from (select distinct n.item_id, n.work_type from new_events n) as touched
             join public.work_events o on o.item_id = any (array[touched.item_id]) and o.work_type = touched.work_type
            where o.id <= (
              select k.id from public.work_events k
               where k.item_id = touched.item_id and k.work_type = touched.work_type
               order by k.id desc
              offset coalesce((select t.keep_events from public.work_types t where t.name = touched.work_type), 20)
               limit 1)
            -- After keep_events was lowered there may be many: later calls delete the rest.
            limit 1000 + (select count(*) from new_events)
              for update of o skip locked));
  return null;
end
$$;
create or replace trigger prune_events
  after insert on public.work_events referencing new table as new_events
  for each statement execute function work.prune_events();

-- Record calls of a worker that changed nothing, since its claims are lost: keys[n] is {item_id, work_type, fence, detail}.
create or replace function work.record_stale(worker_id text, event text, keys jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  -- Locked against deletion, so that the event finds its claim. A claim that is being deleted is skipped: the transaction
  -- that deletes it may wait for a row of this one.
  insert into public.work_events (item_id, work_type, event, worker_id, fence, detail)
  select k.item_id, k.work_type, record_stale.event, record_stale.worker_id, k.fence, k.detail
    from jsonb_to_recordset(record_stale.keys) as k(item_id uuid, work_type text collate "C", fence bigint, detail text)
   cross join lateral (
     select from public.work_claims c
      where c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
        for key share skip locked) as present;
end
$$;

-- 10_history.sql

-- History: each step of a claim, for work types that ask for it. They are not plain, so that others pay nothing.

create or replace function work.record_enrolled()
returns trigger
language plpgsql
as $$
begin
  -- Without this question the insert below would run, with its trigger, for each new item.
  if exists (select from public.work_types t where not t.is_plain and t.history = 'full') then
    insert into public.work_events (item_id, work_type, event, to_status)
    select n.item_id, n.work_type, 'enrolled', n.status
      from new_claims n
      join public.work_types t on t.name = n.work_type
     where t.history = 'full';
  end if;
  return null;
end
$$;
create or replace trigger record_enrolled
  after insert on public.work_claims referencing new table as new_claims
  for each statement execute function work.record_enrolled();

-- Record claims as hold() answers them, with the input that each was claimed with.
create or replace function work.record_claimed(worker_id text, claims json)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  if exists (select from public.work_types t where not t.is_plain and t.history = 'full') then
    insert into public.work_events (item_id, work_type, event, worker_id, fence, from_status, to_status, input)
    select c.item_id, c.work_type, 'claimed', record_claimed.worker_id, c.fence, 'ready', 'claimed',
           work.input_of(i.payload, i.fingerprint, t.input_columns, work.written_columns(t.pool))
      from json_to_recordset(claims) as c(item_id uuid, work_type text collate "C", fence bigint)
      join public.work_types t on t.name = c.work_type
      join public.work_items i on i.id = any (array[c.item_id])
     where t.history = 'full';
  end if;
end
$$;

-- Record claims that were closed or parked, as held_outcomes() answers them. Failures and snoozes are recorded for all.
create or replace function work.record_closed(worker_id text, held jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  if exists (select from public.work_types t where not t.is_plain and t.history = 'full') then
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail, from_status, to_status)
    select h.item_id, h.work_type, case h.outcome when 'released' then 'handed_back' else h.outcome end,
           record_closed.worker_id, h.fence, case h.outcome when 'parked' then c.external_id end, 'claimed', c.status
      from jsonb_to_recordset(held) as h(item_id uuid, work_type text collate "C", fence bigint, outcome text)
      join public.work_types t on t.name = h.work_type
      join public.work_claims c on c.item_id = any (array[h.item_id]) and c.work_type = h.work_type
     where t.history = 'full' and h.outcome in ('succeeded', 'released', 'parked');
  end if;
end
$$;

-- 11_tallies.sql

-- Tallies: how many claims there are and how they ended, known without reading the claims.

-- The changes of one call to one work type, written in the call's own transaction. Rows are only added: no call waits for
-- another one's row, also where thousands of calls are one transaction. They are folded into work.tallies within seconds.
create table if not exists work.tally_entries (
  at timestamptz not null default clock_timestamp(),
  id bigint generated always as identity,
  work_type text collate "C" not null,
  -- Rows of work_claims: added less deleted ones, and those that came into a state less those that left it.
  claims integer not null default 0,
  succeeded integer not null default 0,
  failed integer not null default 0,
  cancelled integer not null default 0,
  blocked integer not null default 0,
  -- Tries: how they ended. The last is a part of the two before it.
  successes integer not null default 0,
  failures integer not null default 0,
  losses integer not null default 0,
  final_failures integer not null default 0,
  -- Of the successes: from due to claimed, and from claimed to released.
  waited interval not null default '0',
  ran interval not null default '0',
  primary key (at, id)
);
comment on table work.tally_entries is
  'work-claims: what calls changed, not yet folded into work.tallies. The sum of both is exact at any moment.';

create table if not exists work.tallies (
  span text collate "C" not null check (span in ('second', 'minute', 'hour', 'ever')),
  starts_at timestamptz not null,
  work_type text collate "C" not null,
  measure text collate "C" not null,
  amount bigint not null,
  primary key (span, starts_at, work_type, measure)
) with (fillfactor = 50);
comment on table work.tallies is
  'work-claims: sums of tally entries: per second for two minutes, per minute for an hour, per hour for 90 days, and since ever.';
comment on column work.tallies.measure is
  'A column of work.tally_entries (times in milliseconds), or a bucket: ran_10s counts successes that ran for less than 10 s, and for 1 s or more.';

-- Fold the oldest entries into tallies, at most so many, and forget tallies that are too old. Answers how many it folded.
-- An entry counts all its successes in the bucket of their mean.
-- An entry of an open transaction is invisible yet: a later call folds it, however late.
create or replace function work.fold_tallies(max_entries integer)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  limits constant interval[] := '{1 s,10 s,1 min,10 min,1 h}';
  buckets constant text[] := '{1s,10s,1min,10min,1h,more}';
  moment timestamptz := clock_timestamp();
  folded integer;
begin
  with taken as (
    delete from work.tally_entries e
     where e.ctid = any (array(
             select o.ctid from work.tally_entries o order by o.at limit fold_tallies.max_entries for update skip locked))
    returning e.*
  ),
  by_second as (
    select date_trunc('second', t.at) as second, t.work_type,
           buckets[1 + width_bucket(t.waited / nullif(t.successes, 0), limits)] as waited_bucket,
           buckets[1 + width_bucket(t.ran / nullif(t.successes, 0), limits)] as ran_bucket,
           sum(t.claims) as claims, sum(t.succeeded) as succeeded, sum(t.failed) as failed, sum(t.cancelled) as cancelled,
           sum(t.blocked) as blocked, sum(t.successes) as successes, sum(t.failures) as failures, sum(t.losses) as losses,
           sum(t.final_failures) as final_failures, sum(t.waited) as waited, sum(t.ran) as ran
      from taken t
     group by 1, 2, 3, 4
  ),
  measured as (
    select b.second, b.work_type, m.measure, m.amount
      from by_second b
     cross join lateral (values
       ('claims', b.claims), ('succeeded', b.succeeded), ('failed', b.failed), ('cancelled', b.cancelled),
       ('blocked', b.blocked),
       ('successes', b.successes), ('failures', b.failures), ('losses', b.losses), ('final_failures', b.final_failures),
       ('waited', (extract(epoch from b.waited) * 1000)::bigint), ('ran', (extract(epoch from b.ran) * 1000)::bigint),
       ('waited_' || b.waited_bucket, b.successes), ('ran_' || b.ran_bucket, b.successes)) as m(measure, amount)
     where m.amount <> 0
  ),
  added as (
    insert into work.tallies as t (span, starts_at, work_type, measure, amount)
    select s.span, case s.span when 'ever' then '-infinity' else date_trunc(s.span, m.second) end as starts_at,
           m.work_type, m.measure, sum(m.amount)
      from measured m
     cross join (values ('second'), ('minute'), ('hour'), ('ever')) as s(span)
     where s.span = 'ever' or m.measure not in ('claims', 'succeeded', 'failed', 'cancelled', 'blocked')
     group by 1, 2, 3, 4
    on conflict (span, starts_at, work_type, measure) do update set amount = t.amount + excluded.amount
  )
  select count(*) into folded from taken;

  delete from work.tallies t
   using (values ('second', interval '2 minutes'), ('minute', '1 hour'), ('hour', '90 days')) as kept(span, age)
   where t.span = kept.span and t.starts_at < moment - kept.age;
  return folded;
end
$$;

-- Count claims that are added, deleted or truncated. A statement that ends or reopens claims adds its entry itself: a
-- trigger on updates would run for every claim call.
create or replace function work.tally_rows()
returns trigger
language plpgsql
as $$
begin
  if tg_op = 'INSERT' then
    insert into work.tally_entries (work_type, claims, succeeded, failed, cancelled, blocked)
    select n.work_type, count(*), count(*) filter (where n.status = 'succeeded'),
           count(*) filter (where n.status = 'failed'), count(*) filter (where n.status = 'cancelled'),
           count(*) filter (where n.status = 'blocked')
      from new_claims n
     group by n.work_type;
  elsif tg_op = 'DELETE' then
    insert into work.tally_entries (work_type, claims, succeeded, failed, cancelled, blocked)
    select o.work_type, -count(*), -count(*) filter (where o.status = 'succeeded'),
           -count(*) filter (where o.status = 'failed'), -count(*) filter (where o.status = 'cancelled'),
           -count(*) filter (where o.status = 'blocked')
      from old_claims o
     group by o.work_type;
  else
    update work.tally_entries set claims = 0, succeeded = 0, failed = 0, cancelled = 0, blocked = 0;
    delete from work.tallies t where t.span = 'ever' and t.measure in ('claims', 'succeeded', 'failed', 'cancelled', 'blocked');
  end if;
  return null;
end
$$;
create or replace trigger tally_added
  after insert on public.work_claims referencing new table as new_claims
  for each statement execute function work.tally_rows();
create or replace trigger tally_deleted
  after delete on public.work_claims referencing old table as old_claims
  for each statement execute function work.tally_rows();
create or replace trigger tally_truncated
  after truncate on public.work_claims for each statement execute function work.tally_rows();

-- Count all claims anew, after a person has changed the status of ended claims by hand. Writers wait for it.
create or replace function work.recount_claims()
returns void
language plpgsql
as $$
begin
  lock table public.work_claims in share row exclusive mode;
  insert into work.tally_entries (work_type, claims, succeeded, failed, cancelled, blocked)
  select s.work_type, sum(s.claims), sum(s.succeeded), sum(s.failed), sum(s.cancelled), sum(s.blocked)
    from (select c.work_type, count(*) as claims, count(*) filter (where c.status = 'succeeded') as succeeded,
                 count(*) filter (where c.status = 'failed') as failed,
                 count(*) filter (where c.status = 'cancelled') as cancelled,
                 count(*) filter (where c.status = 'blocked') as blocked
            from public.work_claims c
           group by c.work_type
          union all
          select t.work_type, -t.claims, -t.succeeded, -t.failed, -t.cancelled, -t.blocked from work.counts() t) as s
   group by s.work_type;
end
$$;

-- How many claims each work type has: in all, by end state, and blocked.
create or replace function work.counts()
returns table (work_type text, claims bigint, succeeded bigint, failed bigint, cancelled bigint, blocked bigint)
language sql
stable
as $$
  select s.work_type, coalesce(sum(s.claims), 0)::bigint, coalesce(sum(s.succeeded), 0)::bigint,
         coalesce(sum(s.failed), 0)::bigint, coalesce(sum(s.cancelled), 0)::bigint,
         coalesce(sum(s.blocked), 0)::bigint
    from (select e.work_type, e.claims, e.succeeded, e.failed, e.cancelled, e.blocked from work.tally_entries e
           -- A condition, so that the index is read: after a burst the table has many dead rows.
           where e.at > '-infinity'
          union all
          select t.work_type, sum(t.amount) filter (where t.measure = 'claims'),
                 sum(t.amount) filter (where t.measure = 'succeeded'), sum(t.amount) filter (where t.measure = 'failed'),
                 sum(t.amount) filter (where t.measure = 'cancelled'),
                 sum(t.amount) filter (where t.measure = 'blocked')
            from work.tallies t
           where t.span = 'ever'
           group by t.work_type) as s
   group by s.work_type
$$;

-- 12_profiles.sql

-- Profiles: each distinct set of workers' capabilities and conditions is kept once, with the classes that it matches. A claim
-- call compares the ids of classes alone.
create table if not exists work.profiles (
  id integer generated always as identity (start with 2) primary key,
  capabilities jsonb not null,
  accepts jsonb not null,
  accepts_path jsonpath not null,
  accepts_clauses jsonb not null,
  exclusive text[] not null,
  yield_seconds integer,
  digest bytea not null unique,
  class_ids integer[] not null default '{}',
  yielded_class_ids integer[] not null default '{}',
  judged pg_snapshot not null default '1:1:',
  used_at timestamptz not null default clock_timestamp()
);
comment on table work.profiles is
  'work-claims: each distinct set of capabilities and conditions that workers have, with the classes that it matches.';
comment on column work.profiles.accepts_clauses is 'The parts of its condition on labels, to tell which one labels fail.';
comment on column work.profiles.class_ids is 'The classes that such a worker runs at once.';
comment on column work.profiles.yielded_class_ids is
  'The classes that it leaves to others for yield_seconds: they need nothing of what it is exclusive about.';
comment on column work.profiles.judged is 'A class is judged if the transaction that made it had ended in this snapshot.';

-- Profile 1: a worker that is not registered has nothing, and takes items that require nothing.
insert into work.profiles (id, capabilities, accepts, accepts_path, accepts_clauses, exclusive, digest)
overriding system value
values (1, '{}', '{}', (work.parse_requirement('{}') ->> 'path')::jsonpath, '[]', '{}', sha256('a worker that is not registered'))
on conflict do nothing;

-- A JSON value without the member at a path. A list on the path means the objects in it, as in a requirement.
create or replace function work.without_path(given jsonb, path text[])
returns jsonb
language plpgsql
immutable
as $$
begin
  if jsonb_typeof(given) = 'array' then
    return coalesce(
      (select jsonb_agg(
                case jsonb_typeof(e.value) when 'object' then work.without_path(e.value, path) else e.value end order by e.n)
         from jsonb_array_elements(given) with ordinality as e(value, n)),
      '[]');
  elsif jsonb_typeof(given) <> 'object' or (given ? path[1]) is not true then
    return given;
  elsif cardinality(path) = 1 then
    return given - path[1];
  end if;
  return given || jsonb_build_object(path[1], work.without_path(given -> path[1], path[2:]));
end
$$;

-- Capabilities without these: {"gpu"} takes gpu away, {"hardware.gpu"} the one inside.
create or replace function work.without(capabilities jsonb, names text[])
returns jsonb
language plpgsql
immutable
as $$
declare
  name text;
begin
  foreach name in array names loop
    capabilities := work.without_path(capabilities, string_to_array(name, '.'));
  end loop;
  return capabilities;
end
$$;

-- Judge the classes that are new to a profile, and answer the profile. A class matches where the capabilities meet its
-- requirement and its labels are accepted. It is yielded, or not taken, where the capabilities that the profile is not
-- exclusive about meet it as well.
create or replace function work.refresh_profile(profile_id integer)
returns work.profiles
language plpgsql
as $$
#variable_conflict use_column
declare
  profile work.profiles;
  is_locked boolean;
  common jsonb;
  fresh record;
begin
  select p.* into profile from work.profiles p where p.id = refresh_profile.profile_id for no key update skip locked;
  is_locked := found;
  if not is_locked then
    -- Another call judges the same classes, perhaps in a long transaction: this call judges for itself alone.
    select p.* into profile from work.profiles p where p.id = refresh_profile.profile_id;
    if not found then
      return null;
    end if;
  end if;
  if pg_snapshot_xmax(profile.judged) > pg_snapshot_xmax(pg_current_snapshot()) then
    -- A dump carries snapshots to another server, where they may lie in the future.
    profile.judged := '1:1:';
  end if;
  common := work.without(profile.capabilities, profile.exclusive);
  with class as materialized (
    select c.id, profile.exclusive <> '{}' and coalesce(common @@ c.path, false) as is_common
      from public.work_classes c
     where c.made_by >= pg_snapshot_xmin(profile.judged) and not pg_visible_in_snapshot(c.made_by, profile.judged)
       and profile.capabilities @@ c.path and c.labels @@ profile.accepts_path
  )
  select array(select c.id from class c where not c.is_common) as class_ids,
         array(select c.id from class c where c.is_common and profile.yield_seconds is not null) as yielded_class_ids,
         -- This transaction may still make classes, which must be judged later: its id joins the open transactions.
         format('%s:%s:%s', pg_snapshot_xmin(s.taken), pg_snapshot_xmax(s.taken), (
           select string_agg(u.xid::text, ',' order by u.xid)
             from (select pg_snapshot_xip(s.taken) as xid
                    union select pg_current_xact_id() where pg_current_xact_id() < pg_snapshot_xmax(s.taken)) as u)
         )::pg_snapshot as judged
    into fresh
    from (select pg_current_snapshot() as taken) as s;
  -- A class of an earlier call of this transaction may be judged a second time.
  if fresh.class_ids <> '{}' then
    profile.class_ids := array(select unnest(profile.class_ids) union select unnest(fresh.class_ids) order by 1);
  end if;
  if fresh.yielded_class_ids <> '{}' then
    profile.yielded_class_ids := array(
      select unnest(profile.yielded_class_ids) union select unnest(fresh.yielded_class_ids) order by 1);
  end if;
  if is_locked then
    update work.profiles p
       set class_ids = profile.class_ids, yielded_class_ids = profile.yielded_class_ids, judged = fresh.judged
     where p.id = profile.id;
  end if;
  return profile;
end
$$;

-- The profile of these capabilities and conditions, made where it is missing.
create or replace function work.profile_of(capabilities jsonb, accepts jsonb, exclusive text[], yield_seconds integer)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  names text[] := array(select distinct u.name from unnest(profile_of.exclusive) as u(name) order by u.name);
  yields integer := case when names <> '{}' then profile_of.yield_seconds end;
  form jsonb := work.parse_requirement(profile_of.accepts, 'accepts');
  known bytea := sha256(convert_to(
    jsonb_build_array(profile_of.capabilities, profile_of.accepts, to_jsonb(names), yields)::text, 'UTF8'));
  found_id integer;
begin
  -- Skip locked: a claim call may judge the profile in a long transaction.
  update work.profiles p set used_at = clock_timestamp()
   where p.ctid = any (array(
           select s.ctid from work.profiles s
            where s.digest = known and s.used_at < clock_timestamp() - interval '1 hour'
              for no key update skip locked));
  select p.id into found_id from work.profiles p where p.digest = known for key share;
  if not found then
    insert into work.profiles (capabilities, accepts, accepts_path, accepts_clauses, exclusive, yield_seconds, digest)
    values (profile_of.capabilities, profile_of.accepts, (form ->> 'path')::jsonpath, form -> 'clauses', names, yields, known)
    on conflict (digest) do nothing;
    select p.id into found_id from work.profiles p where p.digest = known;
  end if;
  perform work.refresh_profile(found_id);
  return found_id;
end
$$;

-- 13_workers.sql

-- Workers: the processes that claim. A claim needs no registered worker; a registered one is seen in the views.
create table if not exists public.work_workers (
  id text primary key check (length(id) between 1 and 200),
  instance uuid not null,
  work_types text[],
  capabilities jsonb not null default '{}' check (jsonb_typeof(capabilities) = 'object'),
  version text check (length(version) <= 200),
  accepts jsonb not null default '{}',
  exclusive text[] not null default '{}',
  yield_seconds integer,
  profile_id integer not null default 1 references work.profiles (id),
  registered_at timestamptz not null default clock_timestamp(),
  last_seen_at timestamptz not null default clock_timestamp(),
  retired_at timestamptz
);
comment on table public.work_workers is
  'work-claims: one row a worker process: its work types, capabilities and conditions, and when it was last seen. A row is deleted when its worker was not seen for a week; one that accepts only some items, after 90 days.';
comment on column public.work_workers.capabilities is 'Its capabilities: it gets no items that require more.';
comment on column public.work_workers.accepts is 'A condition on the labels of items: it is not given items that do not meet it.';
comment on column public.work_workers.exclusive is
  'Capabilities too dear for items that do not need them: such items are left to others for yield_seconds, or for good where that is null.';
comment on column public.work_workers.profile_id is 'Its row in work.profiles, with the classes that it matches.';
create index if not exists work_workers_by_profile on public.work_workers (profile_id);
comment on index public.work_workers_by_profile is 'Which workers have this profile?';

-- Delete workers that were not seen for long, and profiles that no worker has. Locked rows are left to the next call.
create or replace function work.forget_workers()
returns void
language plpgsql
as $$
begin
  delete from public.work_workers w
   where w.ctid = any (array(
           select s.ctid from public.work_workers s
            where s.last_seen_at < clock_timestamp() - interval '7 days'
              -- A worker that accepts only some items would be given all kinds, should it call again without a row.
              and (s.retired_at is not null or (s.accepts = '{}' and s.exclusive = '{}')
                or s.last_seen_at < clock_timestamp() - interval '90 days')
              for update skip locked));
  delete from work.profiles p
   where p.ctid = any (array(
           select s.ctid from work.profiles s
            where s.id <> 1 and s.used_at < clock_timestamp() - interval '1 day'
              and not exists (select from public.work_workers w where w.profile_id = s.id)
              for update skip locked));
end
$$;

-- These work types with their further claims: a worker of the first does the others too.
create or replace function work.with_copies(work_types text[])
returns text[]
language plpgsql
stable
as $$
begin
  return work_types || array(
    select t.name from public.work_types t
     where t.copy_of = any (work_types) and t.name <> all (work_types)
     order by length(t.name), t.name);
end
$$;

-- Register a worker process with its capabilities and conditions; again when these change. The process draws the instance:
-- the same id from another process is refused while the first one is alive, that is, was seen within a minute.
create or replace function public.register_worker(
  worker_id text,
  instance uuid,
  work_types text[] default null,
  capabilities jsonb default '{}',
  version text default null,
  accepts jsonb default '{}',
  exclusive text[] default '{}',
  yield_seconds integer default null
)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  profile integer;
begin
  perform work.check_name('worker_id', register_worker.worker_id);
  if register_worker.instance is null then
    perform work.refuse('instance', null, 'a uuid that the process drew was expected');
  end if;
  perform work.check_properties('capabilities', register_worker.capabilities, 65536);
  if register_worker.accepts is null then
    perform work.refuse('accepts', null, 'a condition on labels was expected; {} accepts all');
  end if;
  if length(register_worker.version) > 200 then
    perform work.refuse('version', register_worker.version, 'at most 200 characters were expected');
  end if;
  if cardinality(register_worker.work_types) > 1000 then
    perform work.refuse('work_types', cardinality(register_worker.work_types) || ' long', 'at most 1000 were expected');
  end if;
  if register_worker.exclusive is null or cardinality(register_worker.exclusive) > 100
    or exists (select from unnest(register_worker.exclusive) as u(name) where u.name is null) then
    perform work.refuse('exclusive', register_worker.exclusive::text, 'a list of at most 100 names of capabilities was expected');
  end if;
  perform work.check_range('yield_seconds', register_worker.yield_seconds, 1, 604800);
  if register_worker.yield_seconds is not null and register_worker.exclusive = '{}' then
    perform work.refuse('yield_seconds', register_worker.yield_seconds::text,
      'it goes with exclusive, the capabilities that other items do not need');
  end if;
  if register_worker.work_types is not null then
    register_worker.work_types := work.with_copies(register_worker.work_types);
  end if;
  perform work.forget_workers();
  profile := work.profile_of(
    register_worker.capabilities, register_worker.accepts, register_worker.exclusive, register_worker.yield_seconds);

  insert into public.work_workers as w
    (id, instance, work_types, capabilities, version, accepts, exclusive, yield_seconds, profile_id)
  values (register_worker.worker_id, register_worker.instance, register_worker.work_types,
          register_worker.capabilities, register_worker.version, register_worker.accepts,
          register_worker.exclusive, register_worker.yield_seconds, profile)
  on conflict (id) do update
     set instance = excluded.instance,
         work_types = excluded.work_types,
         capabilities = excluded.capabilities,
         version = excluded.version,
         accepts = excluded.accepts,
         exclusive = excluded.exclusive,
         yield_seconds = excluded.yield_seconds,
         profile_id = excluded.profile_id,
         registered_at = clock_timestamp(),
         last_seen_at = clock_timestamp(),
         retired_at = null
   where w.instance = excluded.instance
      or w.retired_at is not null
      or w.last_seen_at < clock_timestamp() - interval '1 minute';
  if not found then
    perform work.refuse(
      'worker_id', register_worker.worker_id,
      'a living worker has that id; give each process its own, or wait a minute after one has died', 'PT409');
  end if;
  return jsonb_build_object('worker_id', register_worker.worker_id);
end
$$;
comment on function public.register_worker is
  'Registers a worker process with what it has (capabilities) and takes (accepts, exclusive). Call it again when that changes. An id that is alive in another process is refused (409).';

-- Retire a worker: its claims go back at once, and no try is counted. True where it was registered.
create or replace function public.retire_worker(worker_id text)
returns boolean
language plpgsql
as $$
#variable_conflict use_column
begin
  perform public.release_claims_for_worker(retire_worker.worker_id);
  update public.work_workers w
     set retired_at = clock_timestamp()
   where w.id = retire_worker.worker_id and w.retired_at is null;
  return found;
end
$$;
comment on function public.retire_worker is 'Retires a worker: its claims go back at once. True where it was registered.';

-- Note that a worker is alive, at most once in five seconds.
create or replace function work.touch_worker(worker_id text)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  recently timestamptz := clock_timestamp() - interval '5 seconds';
begin
  update public.work_workers w
     set last_seen_at = clock_timestamp(), retired_at = null
   where w.ctid = any (array(
           -- Skip locked: another call of the worker may hold the row, and wait for claims that this call holds.
           select s.ctid from public.work_workers s
            where s.id = touch_worker.worker_id and s.last_seen_at < recently
              for no key update skip locked));
end
$$;

-- The one rule for a live worker: an idle worker looks for work every few seconds, a busy one extends its leases.
create or replace view work.live_workers with (security_invoker = true) as
select w.id, w.work_types, w.profile_id, p.capabilities, p.accepts_path, p.accepts_clauses, p.exclusive, p.yield_seconds
  from public.work_workers w
  join work.profiles p on p.id = w.profile_id
 where w.retired_at is null and w.last_seen_at > now() - interval '2 minutes';
comment on view work.live_workers is 'work-claims: the workers that were seen within two minutes and have not retired, with their capabilities and conditions.';

-- Answer each of these work types as a worker needs it: whether it is declared and handed out, which version of a worker
-- it asks for, why it was stopped, its further claims, and what of it is left: ready now, held by workers or to be tried again (open), or parked.
create or replace function public.describe_work_types(work_types text[])
returns json
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
begin
  if describe_work_types.work_types is null or cardinality(describe_work_types.work_types) not between 1 and 100 then
    perform work.refuse('work_types', coalesce(cardinality(describe_work_types.work_types) || ' long', 'null'),
      'a list of 1 to 100 work types was expected');
  end if;
  -- With a plain equality the planner may read all claims into a hash table, for one question.
  return (
    select json_agg(json_build_object(
             'name', asked.name,
             'is_declared', t.name is not null,
             'pool', t.pool,
             'is_paused', coalesce(t.paused, false),
             'stopped', t.stopped,
             'copies', (
               select coalesce(json_agg(k.name order by length(k.name), k.name), '[]') from public.work_types k where k.copy_of = asked.name),
             'min_worker_version', t.min_worker_version,
             'has_ready', exists (
               select from public.work_claims c
                where c.work_type = any (array[asked.name]) and c.status = 'ready' and c.class_id > 0)
               or exists (
               select from public.work_claims c
                where c.work_type = any (array[asked.name]) and c.status = 'waiting' and c.due_at <= moment),
             -- A claim that has a fence was held before: it waits for another try.
             'has_open', exists (
               select from public.work_claims c
                where c.work_type = any (array[asked.name]) and c.status = 'claimed' and c.poll_at is null)
               or exists (
               select from public.work_claims c
                where c.work_type = any (array[asked.name]) and c.status = 'waiting' and c.fence is not null)
               -- Upkeep still opens claims that succeeded under an older version.
               or t.redone_through is not null,
             'has_parked', exists (
               select from public.work_claims c
                where c.work_type = any (array[asked.name]) and c.status = 'claimed' and c.poll_at is not null))
             order by asked.n)
      from unnest(describe_work_types.work_types) with ordinality as asked(name, n)
      left join public.work_types t on t.name = asked.name);
end
$$;
comment on function public.describe_work_types is
  'Answers each of these work types as a worker asks: [{name, is_declared, pool, is_paused, stopped, copies, min_worker_version, has_ready, has_open, has_parked}]. open: held by workers, or to be tried again; parked: done elsewhere.';

-- 14_reap.sql

-- The start of every claim call: it takes back ended leases and makes claims ready whose wait has ended.

-- How many leases of this work type may end without a release; the default where it is not declared.
create or replace function work.max_crashes(work_type text)
returns integer
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return coalesce((select t.max_crashes from public.work_types t where t.name = max_crashes.work_type), 5);
end
$$;

-- Take back these claims, which the caller has locked and whose lease has ended. Each counts a crash; a claim with no crash
-- left ends failed. Answers how many.
create or replace function work.take_back(row_ids tid[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  reaped integer;
begin
  -- "Is not distinct from" where the rows are found already: with an equality the planner may scan the index on leases
  -- again, and so all held claims.
  with lapsed as (
    update public.work_claims c
       set crashes = c.crashes + 1,
           status = case when c.crashes + 1 >= work.max_crashes(c.work_type) then 'failed'
                         when c.waits_for > 0 then 'blocked'
                         when c.due_at > moment then 'waiting'
                         else 'ready' end,
           finished_at = case when c.crashes + 1 >= work.max_crashes(c.work_type) then moment end,
           error = format('%s ended without a release (crash %s of %s)',
             case when c.poll_at is null then 'the lease of worker ' || c.worker_id else 'the time for the job ' || c.external_id end,
             c.crashes + 1, work.max_crashes(c.work_type)),
           -- A job whose claim failed for good is to be stopped; else the next try gets its id.
           poll_at = case when c.external_id is not null and c.crashes + 1 >= work.max_crashes(c.work_type) then moment end,
           due_at = greatest(c.due_at, moment),
           worker_id = null,
           progress = null
     where c.ctid = any (take_back.row_ids)
       and c.status is not distinct from 'claimed' and c.expires_at <= moment
    returning c.item_id, c.work_type, c.fence, c.error, c.status
  ),
  tallied as (
    insert into work.tally_entries (work_type, failed, losses, final_failures, blocked)
    select l.work_type, count(*) filter (where l.status = 'failed'), count(*), count(*) filter (where l.status = 'failed'),
           count(*) filter (where l.status = 'blocked')
      from lapsed l
     group by l.work_type
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, fence, detail, from_status, to_status)
    select l.item_id, l.work_type, 'expired', l.fence, l.error, 'claimed', l.status from lapsed l
  )
  select count(*) into reaped from lapsed;
  return reaped;
end
$$;

-- Take back claims whose lease has ended: the longest ended ones, and these items' in any case.
create or replace function work.reap(max_items integer, item_ids uuid[], work_types text[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  has_followed boolean := exists (select from public.work_types t where not t.is_plain);
  reaped integer;
begin
  reaped := work.take_back(
    array(
      select l.ctid from public.work_claims l
       where l.status = 'claimed' and l.expires_at <= moment
         and not (has_followed and work.is_last_crash(l.work_type, l.crashes))
       order by l.expires_at
       limit reap.max_items
         for no key update skip locked)
    || array(
      select l.row_id
        from unnest(reap.item_ids) as wanted(id)
       cross join lateral (
         select k.ctid as row_id from public.work_claims k
          where k.item_id = any (array[wanted.id]) and k.work_type = any (reap.work_types)
            and k.status is not distinct from 'claimed' and k.expires_at <= moment
            and not (has_followed and work.is_last_crash(k.work_type, k.crashes))
            for no key update skip locked) as l));
  if has_followed then
    reaped := reaped + work.reap_last_crashes(reap.max_items - reaped, reap.item_ids, reap.work_types);
  end if;
  return reaped;
end
$$;

-- Whether a claim that others may need fails for good with its next crash.
create or replace function work.is_last_crash(work_type text, crashes integer)
returns boolean
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return exists (
    select from public.work_types t
     where t.name = is_last_crash.work_type and not t.is_plain and is_last_crash.crashes + 1 >= t.max_crashes);
end
$$;

-- Take back claims that fail with it, one by one with all that needs them: the longest ended ones, and these items' in any
-- case. One of which another call has locked a part is left to a later call: to wait here could deadlock.
create or replace function work.reap_last_crashes(max_items integer, item_ids uuid[], work_types text[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  lapsed record;
  reaped integer := 0;
begin
  for lapsed in
    select l.ctid as row_id, jsonb_build_array(jsonb_build_object('item_id', l.item_id, 'work_type', l.work_type)) as keys
      from public.work_claims l
     where l.ctid = any (
             array(
               select o.ctid from public.work_claims o
                where o.status = 'claimed' and o.expires_at <= clock_timestamp() and work.is_last_crash(o.work_type, o.crashes)
                order by o.expires_at
                limit greatest(0, least(reap_last_crashes.max_items, 100)))
             || array(
               select k.ctid
                 from unnest(reap_last_crashes.item_ids) as wanted(id)
                 join public.work_claims k on k.item_id = any (array[wanted.id])
                where k.work_type = any (reap_last_crashes.work_types) and k.status is not distinct from 'claimed'
                  and k.expires_at <= clock_timestamp() and work.is_last_crash(k.work_type, k.crashes)))
     order by l.expires_at
  loop
    begin
      perform work.lock_around(lapsed.keys, at_once => true);
      if work.take_back(array[lapsed.row_id]) = 1 then
        perform work.follow(jsonb_set(lapsed.keys, '{0}', (lapsed.keys -> 0) || '{"was": "claimed", "became": "failed"}'));
        perform work.stop_at_dead_ends(lapsed.keys);
        reaped := reaped + 1;
      end if;
    exception when lock_not_available then
      continue;
    end;
  end loop;
  return reaped;
end
$$;

-- Make claims ready whose wait has ended, the longest due ones first.
create or replace function work.ready_due(max_items integer)
returns void
language plpgsql
as $$
declare
  moment timestamptz := clock_timestamp();
begin
  update public.work_claims c
     set status = 'ready'
   where c.ctid = any (array(
           select w.ctid from public.work_claims w
            where w.status = 'waiting' and w.due_at <= moment
            order by w.due_at
            limit ready_due.max_items
              for no key update skip locked))
     and c.status is not distinct from 'waiting';
  perform work.wake_workers(null);
end
$$;

-- Take back ended leases, ready due claims (at most 1,000 of each), note the worker, judge new classes. Every claim call
-- begins with this; it answers the worker's profile. A call that may wait for rows must not lock claims of others before:
-- two such calls could deadlock.
create or replace function work.catch_up(worker_id text, may_lock boolean)
returns work.profiles
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  has_lapsed boolean;
  has_due boolean;
  is_unseen boolean;
  is_unjudged boolean;
  is_upkeep_due boolean;
  profile work.profiles;
begin
  -- One statement asks all questions: each further one costs some microseconds of every claim call.
  select exists (select from public.work_claims c where c.status = 'claimed' and c.expires_at <= moment),
         exists (select from public.work_claims c where c.status = 'waiting' and c.due_at <= moment),
         coalesce(
           (select w.last_seen_at from public.work_workers w where w.id = catch_up.worker_id) < moment - interval '5 seconds',
           false),
         exists (
           select from public.work_classes c
            where c.made_by >= pg_snapshot_xmin(p.judged)
              and not pg_visible_in_snapshot(c.made_by, p.judged))
           -- The profile came with a dump from another server.
           or pg_snapshot_xmax(p.judged) > pg_snapshot_xmax(pg_current_snapshot()),
         (select u.due_at from work.upkeep u) <= moment,
         p.id, p.class_ids, p.yielded_class_ids, p.yield_seconds
    into has_lapsed, has_due, is_unseen, is_unjudged, is_upkeep_due,
         profile.id, profile.class_ids, profile.yielded_class_ids, profile.yield_seconds
    from work.profiles p
   where p.id = coalesce(
           (select w.profile_id from public.work_workers w where w.id = catch_up.worker_id), 1);
  if has_lapsed and may_lock then
    perform work.reap(1000, '{}', '{}');
  end if;
  if has_due and may_lock then
    perform work.ready_due(1000);
  end if;
  if is_upkeep_due then
    perform work.keep_up(can_prune => may_lock);
  end if;
  if is_unseen then
    perform work.touch_worker(catch_up.worker_id);
    perform work.close_dropped_pools();
  end if;
  if is_unjudged then
    profile := work.refresh_profile(profile.id);
  end if;
  return profile;
end
$$;

-- Take back claims whose lease has ended; answers how many. Every claim call does it too.
create or replace function public.reap_expired_claims(max_items integer default 1000)
returns integer
language plpgsql
as $$
begin
  if max_items is null or max_items < 1 then
    perform work.refuse('max_items', max_items::text, 'at least 1 was expected');
  end if;
  perform work.close_dropped_pools();
  return work.reap(least(max_items, 10000), '{}', '{}');
end
$$;
comment on function public.reap_expired_claims is
  'Takes back claims whose lease has ended and answers how many. Every claim call does so too: no one has to call it.';

-- 15_requests.sql

-- Requests: a client that got no answer, or the network, may send a call twice.
create table if not exists work.requests (
  request_id uuid primary key,
  made_at timestamptz not null default clock_timestamp(),
  asked bytea,
  released json
);
comment on table work.requests is 'work-claims: the calls of the last hour that carried a request id, so that a repeated one changes nothing.';
comment on column work.requests.asked is 'A digest of the items that enqueue_items() was given under this id.';
comment on column work.requests.released is
  'The answer of finish_and_claim() to its outcomes, where they did not all succeed: the same call may have claimed them again.';
create index if not exists requests_by_age on work.requests (made_at);
comment on index work.requests_by_age is 'Which requests are older than an hour?';

-- Note a request id; true where it was noted before. A repeat that comes at once waits for the first call to end.
create or replace function work.is_repeated(request_id uuid, asked bytea default null)
returns boolean
language plpgsql
as $$
#variable_conflict use_column
declare
  long_ago timestamptz := clock_timestamp() - interval '1 hour';
begin
  -- One request id in 128 deletes up to 500 old ones: that keeps pace, and the other calls pay nothing.
  if get_byte(uuid_send(is_repeated.request_id), 15) < 2 then
    delete from work.requests r
     where r.ctid = any (array(
             select o.ctid from work.requests o
              where o.made_at < long_ago
              order by o.made_at
              limit 500
                for update skip locked));
  end if;
  insert into work.requests (request_id, asked) values (is_repeated.request_id, is_repeated.asked) on conflict do nothing;
  if found then
    return false;
  end if;
  if (select r.asked from work.requests r where r.request_id = is_repeated.request_id) is distinct from is_repeated.asked then
    perform work.refuse('request_id', is_repeated.request_id::text,
      'another call with other items has used it; draw a new id for each call, and repeat a call as it was', 'PT409');
  end if;
  return true;
end
$$;

-- 16_take.sql

-- Take: which ready rows a worker gets next.
--
-- Ready claims have one order: priority, rank, position. A lane is the ready claims of one work type and one class.
-- work_claims_ready holds each lane in order, work_claims_in_order all lanes of a work type together. A worker takes from
-- the lanes of the classes it matches, and gets the first rows of all of these.
--
-- Each lock_… function locks rows and answers their ctids, in order. It skips rows that another call has locked, so a call
-- may win fewer than there are. A row that changed since it was read is judged again by its new status and class.
-- Nothing is kept between calls. docs/decisions/matching-by-class.md gives the reasons for three ways, and their costs.

-- Lock the first rows of one lane.
create or replace function work.lock_lane(work_type text, class_id integer, wanted integer)
returns tid[]
language plpgsql
as $$
begin
  return array(
    select c.ctid
      from public.work_claims c
     where c.class_id = lock_lane.class_id and c.work_type = lock_lane.work_type and c.status = 'ready'
     order by c.priority desc, c.rank, c.position
     limit lock_lane.wanted
       for no key update skip locked);
end
$$;

-- Lock the first rows of a few lanes: the first rows of each are read and merged.
create or replace function work.lock_few(work_types text[], class_ids integer[], wanted integer)
returns tid[]
language plpgsql
as $$
declare
  -- Another call may hold as many rows. Where more do, lock_first() looks further.
  width constant integer := 8 + 2 * wanted;
begin
  return array(
    select c.ctid
      from (select r.*
              from unnest(lock_few.work_types) as t(name)
             cross join unnest(lock_few.class_ids) as k(id)
             cross join lateral (
               select n.ctid as row_id, n.class_id, n.priority, n.rank, n.position
                 from public.work_claims n
                where n.class_id = k.id and n.work_type = t.name and n.status = 'ready'
                order by n.priority desc, n.rank, n.position
                limit width) as r
             order by r.priority desc, r.rank, r.position
             limit width) as near
      join public.work_claims c on c.ctid = near.row_id
     where c.status is not distinct from 'ready' and c.class_id is not distinct from near.class_id
     order by near.priority desc, near.rank, near.position
     limit lock_few.wanted
       for no key update of c skip locked);
end
$$;

-- Lock the first rows of these classes that are among the first rows of all classes. It reads a bounded number of rows,
-- however many lanes there are, and finds enough where much of the ready work is for this worker.
create or replace function work.lock_ahead(work_types text[], class_ids integer[], wanted integer)
returns tid[]
language plpgsql
as $$
declare
  window_size constant integer := 64 + 16 * wanted;
begin
  return array(
    select c.ctid
      from (select r.*
              from unnest(lock_ahead.work_types) as t(name)
             cross join lateral (
               select n.ctid as row_id, n.class_id, n.priority, n.rank, n.position
                 from public.work_claims n
                where n.work_type = t.name and n.status = 'ready' and n.class_id > 0
                order by n.priority desc, n.rank, n.position
                limit window_size) as r
             order by r.priority desc, r.rank, r.position
             limit window_size) as ahead
      join public.work_claims c on c.ctid = ahead.row_id
     -- The ids of a profile are sorted: this is a binary search, where "= any" would compare with each of thousands.
     where class_ids[width_bucket(ahead.class_id, class_ids)] = ahead.class_id
       and c.status is not distinct from 'ready' and c.class_id is not distinct from ahead.class_id
     order by ahead.priority desc, ahead.rank, ahead.position
     limit lock_ahead.wanted
       for no key update of c skip locked);
end
$$;

-- Whether more rows than this many are ready, of any class.
create or replace function work.is_more_ready(work_types text[], how_many integer)
returns boolean
language plpgsql
as $$
begin
  return (
    select count(*)
      from unnest(is_more_ready.work_types) as t(name)
     cross join lateral (
       select from public.work_claims n
        where n.work_type = t.name and n.status = 'ready' and n.class_id > 0
        limit how_many + 1) as r) > how_many;
end
$$;

-- Lock the first rows of many lanes of one work type with one range scan. The heads of some lanes give its end: if they
-- are as many as are wanted, no row behind the last of them can be among the first rows of all lanes. Empty where the
-- heads are too few or the range is long: lock_first() finds the same rows then.
create or replace function work.lock_range(work_type text, class_ids integer[], wanted integer)
returns tid[]
language plpgsql
as $$
#variable_conflict use_column
declare
  -- Three other calls may hold as many rows each.
  enough constant integer := 8 + 4 * wanted;
  longest constant integer := 64 * enough;
  top integer;
  last_rank bigint;
  row_ids tid[];
begin
  select h.priority, max(h.rank)
    into top, last_rank
    from (select f.*, rank() over (order by f.priority desc) as priority_rank
            from unnest(lock_range.class_ids[:64]) as k(id)
           cross join lateral (
             select c.priority, c.rank
               from public.work_claims c
              where c.class_id = k.id and c.work_type = lock_range.work_type and c.status = 'ready'
              order by c.priority desc, c.rank, c.position
              limit 1) as f
           order by f.priority desc, f.rank
           limit enough) as h
   where h.priority_rank = 1
   group by h.priority
  having count(*) = enough;
  -- A lane outside of the sample may have a higher priority.
  if top is distinct from (
    select c.priority
      from public.work_claims c
     where c.work_type = lock_range.work_type and c.status = 'ready' and c.class_id > 0
     order by c.priority desc, c.rank, c.position
     limit 1) then
    return '{}';
  end if;
  with near as materialized (
    select n.ctid as row_id, n.class_id, n.rank, n.position
      from public.work_claims n
     where n.class_id = any (lock_range.class_ids) and n.work_type = lock_range.work_type
       and n.status = 'ready' and n.priority = top and n.rank <= last_rank
     limit longest
  )
  select array(
           select c.ctid
             from near
             join public.work_claims c on c.ctid = near.row_id
            where c.status is not distinct from 'ready' and c.class_id is not distinct from near.class_id
              and (select count(*) from near) < longest
            order by near.rank, near.position
            limit wanted
              for no key update of c skip locked)
    into row_ids;
  return row_ids;
end
$$;

-- Lock the first rows of these lanes, wherever they are, besides those that this call has locked. The first N rows of many
-- lanes are in the N lanes with the first heads, and none is behind the head of the Nth of these.
create or replace function work.lock_first(
  work_types text[], class_ids integer[], wanted integer, besides tid[] default '{}', due_before timestamptz default null)
returns tid[]
language plpgsql
as $$
#variable_conflict use_column
declare
  -- So many rows are read in one round; of yielded lanes more, since some have not waited long enough.
  width integer := 4 * wanted + case when due_before is null then 8 else 100 end;
  -- Only priorities under this one are left.
  below integer := 2000000;
  lane_types text[];
  lane_classes integer[];
  top integer;
  last_rank bigint;
  last_position bigint;
  is_bounded boolean;
  row_ids tid[];
  seen integer;
begin
  -- Each round looks at one priority, and again with a greater width where other calls hold the rows found.
  loop
    select array_agg(h.work_type), array_agg(h.class_id), max(h.priority), count(*) = width,
           (array_agg(h.rank order by h.rank desc, h.position desc))[1],
           (array_agg(h.position order by h.rank desc, h.position desc))[1]
      into lane_types, lane_classes, top, is_bounded, last_rank, last_position
      from (select t.name as work_type, k.id as class_id, f.*, rank() over (order by f.priority desc) as priority_rank
              from unnest(lock_first.work_types) as t(name)
             cross join unnest(lock_first.class_ids) as k(id)
             cross join lateral (
               select c.priority, c.rank, c.position
                 from public.work_claims c
                where c.class_id = k.id and c.work_type = t.name and c.status = 'ready' and c.priority < below
                order by c.priority desc, c.rank, c.position
                limit 1) as f
             order by f.priority desc, f.rank, f.position
             limit width) as h
     where h.priority_rank = 1;
    exit when top is null;
    if not is_bounded then
      last_rank := 9223372036854775807;
    end if;

    with near as materialized (
      select r.*
        from unnest(lane_types, lane_classes) as l(work_type, class_id)
       cross join lateral (
         select c.ctid as row_id, c.class_id, c.rank, c.position, c.due_at
           from public.work_claims c
          where c.class_id = l.class_id and c.work_type = l.work_type and c.status = 'ready'
            and c.priority = top and (c.rank, c.position) <= (last_rank, last_position)
          order by c.rank, c.position
          limit width) as r
       order by r.rank, r.position
       limit width
    )
    select array(
             select c.ctid
               from near n
               join public.work_claims c on c.ctid = n.row_id
              where c.status is not distinct from 'ready' and c.class_id is not distinct from n.class_id
                and c.ctid <> all (besides)
                and (due_before is null or n.due_at <= due_before)
              order by n.rank, n.position
              limit wanted
                for no key update of c skip locked),
           (select count(*) from near)
      into row_ids, seen;
    besides := besides || row_ids;
    wanted := wanted - cardinality(row_ids);
    exit when wanted = 0;
    -- Yielded rows are looked for once in each priority.
    if due_before is not null or (seen < width and not is_bounded) then
      below := top;
    else
      width := width * 4;
    end if;
  end loop;
  return besides;
end
$$;

-- Lock rows that a worker is warm for, of the priority of the first row in order, unless that row has waited too long.
create or replace function work.lock_warm(work_types text[], class_ids integer[], wanted integer, warm text[])
returns tid[]
language plpgsql
as $$
declare
  first record;
begin
  select f.* into first
    from (select c.priority, c.rank, c.position,
                 c.due_at <= clock_timestamp() - make_interval(secs => t.passed_over_seconds) as is_overdue
            from public.work_types t
           cross join unnest(lock_warm.class_ids) as k(id)
           cross join lateral (
             select h.priority, h.rank, h.position, h.due_at
               from public.work_claims h
              where h.class_id = k.id and h.work_type = t.name and h.status = 'ready'
              order by h.priority desc, h.rank, h.position
              limit 1) as c
           where t.name = any (lock_warm.work_types)) as f
   order by f.priority desc, f.rank, f.position
   limit 1;
  if not found or first.is_overdue then
    return '{}';
  end if;
  return array(
    select c.ctid
      from (select r.*
              from unnest(lock_warm.work_types) as t(name)
             cross join (select distinct u.affinity from unnest(lock_warm.warm) as u(affinity)) as w
             cross join lateral (
               select n.ctid as row_id, n.class_id, n.rank, n.position
                 from public.work_claims n
                where n.work_type = t.name and n.affinity = w.affinity and n.priority = first.priority and n.status = 'ready'
                order by n.rank, n.position
                -- Warmth is a preference: rows behind this many that are for others do not count.
                limit 64 + 16 * wanted) as r) as near
      join public.work_claims c on c.ctid = near.row_id
     where class_ids[width_bucket(near.class_id, class_ids)] = near.class_id
       and c.status is not distinct from 'ready' and c.class_id is not distinct from near.class_id
     order by near.rank, near.position
     limit lock_warm.wanted
       for no key update of c skip locked);
end
$$;

-- Claim the next items of a worker, at most max_items.
create or replace function work.take_next(
  work_types text[], worker_id text, max_items integer, ttl_seconds integer, warm text[], request_id uuid)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  profile work.profiles := work.catch_up(take_next.worker_id, may_lock => true);
  wanted integer := least(max_items, 1000);
  open_types text[];
  lanes integer;
  has_more boolean := true;
  row_ids tid[] := '{}';
begin
  if cardinality(work_types) = 1 and work_types[1] is not null and cardinality(profile.class_ids) = 1
    and profile.yielded_class_ids = '{}' and coalesce(warm, '{}') = '{}' then
    -- The most frequent call: hold() passes over a paused work type.
    return work.hold(
      work.lock_lane(work_types[1], profile.class_ids[1], wanted), take_next.worker_id, ttl_seconds, take_next.request_id);
  end if;
  open_types := array(select t.name from public.work_types t where t.name = any (take_next.work_types) and not t.paused);
  lanes := cardinality(profile.class_ids) * cardinality(open_types);
  if cardinality(warm) > 0 then
    row_ids := work.lock_warm(open_types, profile.class_ids, wanted, warm);
  elsif lanes <= 16 then
    row_ids := work.lock_few(open_types, profile.class_ids, wanted);
  else
    row_ids := work.lock_ahead(open_types, profile.class_ids, wanted);
    has_more := cardinality(row_ids) < wanted and work.is_more_ready(open_types, 64 + 16 * wanted);
    if has_more and lanes > 64 and cardinality(open_types) = 1 then
      row_ids := work.lock_range(open_types[1], profile.class_ids, wanted);
    end if;
  end if;
  if cardinality(row_ids) < wanted and has_more then
    if coalesce(warm, '{}') = '{}' then
      -- One of these may lack rows behind those that other calls hold: looked for from the beginning, the order is exact.
      row_ids := '{}';
    end if;
    row_ids := work.lock_first(open_types, profile.class_ids, wanted - cardinality(row_ids), row_ids);
  end if;
  -- A worker that spares its capabilities takes common items that others left for yield_seconds, after all of its own.
  if cardinality(row_ids) < wanted and profile.yielded_class_ids <> '{}' then
    row_ids := work.lock_first(
      open_types, profile.yielded_class_ids, wanted - cardinality(row_ids), row_ids,
      clock_timestamp() - make_interval(secs => profile.yield_seconds));
  end if;
  return work.hold(row_ids, take_next.worker_id, ttl_seconds, take_next.request_id);
end
$$;

-- 17_claim.sql

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

-- 18_change.sql

-- Change: done work whose input changed is done again, with all that needs it.

-- The input of an item for a work type, as a text: a digest of the named members of its payload, else its fingerprint, else
-- a digest of its payload without the columns that results are written to.
create or replace function work.input_of(payload jsonb, fingerprint text, input_columns text[], written_columns text[])
returns text
language plpgsql
immutable
as $$
begin
  return case
    when input_columns is not null then md5((
      select jsonb_agg(payload -> c.name order by c.name) from unnest(input_columns) as c(name))::text)
    when fingerprint is not null then fingerprint
    else md5((payload - coalesce(written_columns, '{}'))::text)
  end;
end
$$;

-- Open claims again that have ended: each is {item_id, work_type, reason, is_change}. Their result is kept until the next
-- one, marked stale. The caller has locked them with lock_around(). Answers how many.
create or replace function work.reopen(keys jsonb, event text default 'reopened', actor text default null)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  reopened jsonb;
begin
  with wanted as materialized (
    select k.*, r.priority, r.rank, r.class_id, r.affinity, r.workflow_id, r.run_after
      from jsonb_to_recordset(reopen.keys) as k(item_id uuid, work_type text collate "C", reason text, is_change boolean, new_input text)
      join work.ranked_items r on r.item_id = any (array[k.item_id])
     order by k.item_id, k.work_type
  ),
  -- Changes that come again and again, within an hour of each other: a worker may write into its own input. After ten
  -- the claim waits for 10 s, 20 s, … up to an hour.
  ended as materialized (
    select w.*, c.status,
           case when w.is_change then case when c.changed_at > moment - interval '1 hour' then c.changes + 1 else 1 end end as changes
      from wanted w
     cross join lateral (
       select k.status, k.changes, k.changed_at from public.work_claims k
        where k.item_id = any (array[w.item_id]) and k.work_type = w.work_type
          and k.status in ('succeeded', 'failed', 'cancelled')
          for no key update) as c
  ),
  due as materialized (
    select e.*,
           greatest(moment, e.run_after,
             case when e.changes > 10 then moment + make_interval(secs => least(3600, 10 * 2 ^ (least(e.changes, 20) - 11))) end) as due_at
      from ended e
  ),
  reopened as (
    update public.work_claims c
       set priority = e.priority, rank = e.rank, class_id = e.class_id, affinity = e.affinity, workflow_id = e.workflow_id,
           status = case when c.waits_for > 0 then 'blocked' when e.due_at > moment then 'waiting' else 'ready' end,
           failures = 0, crashes = 0, finished_at = null, due_at = e.due_at, error = null, progress = null, poll_at = null,
           stale = case when e.status = 'succeeded' then e.reason else c.stale end,
           read_input = null, again = null,
           changes = coalesce(e.changes, c.changes),
           changed_at = case when e.changes is null then c.changed_at else moment end
      from due e
     where c.item_id = any (array[e.item_id]) and c.work_type = e.work_type
    returning c.item_id, c.work_type, c.fence, c.status, e.status as was, e.reason, e.new_input
  ),
  tallied as (
    insert into work.tally_entries (work_type, succeeded, failed, cancelled, blocked)
    select r.work_type, -count(*) filter (where r.was = 'succeeded'), -count(*) filter (where r.was = 'failed'),
           -count(*) filter (where r.was = 'cancelled'), count(*) filter (where r.status = 'blocked')
      from reopened r
     group by r.work_type
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, fence, detail, from_status, to_status, actor, input)
    select r.item_id, r.work_type, reopen.event, r.fence, case when reopen.event = 'reopened' then left(r.reason, 8000) end, r.was, r.status,
           reopen.actor, r.new_input
      from reopened r
  )
  select jsonb_agg(jsonb_build_object('item_id', r.item_id, 'work_type', r.work_type, 'was', r.was, 'became', r.status))
    into reopened
    from reopened r;
  perform work.follow(reopened);
  perform work.wake_workers(null);
  return coalesce(jsonb_array_length(reopened), 0);
end
$$;

-- Open claims follow a change of their item's input: done ones are done again; a held one after its holder, unless the
-- change is taken back before.
create or replace function work.note_changes()
returns trigger
language plpgsql
as $$
#variable_conflict use_column
declare
  changed jsonb;
begin
  if not exists (select from public.work_types t where not t.is_plain and t.on_change is distinct from 'keep')
    and not exists (select from new_items n where n.fingerprint is not null) then
    return null;
  end if;
  with pools as materialized (
    select p.pool, work.written_columns(p.pool) as written from (select distinct n.pool from new_items n) as p
  ),
  inputs as materialized (
    select n.id as item_id, t.name as work_type,
           work.input_of(o.payload, o.fingerprint, t.input_columns, p.written) as old_input,
           work.input_of(n.payload, n.fingerprint, t.input_columns, p.written) as new_input
      from new_items n
      join old_items o on o.id = n.id
      join pools p on p.pool = n.pool
      join public.work_types t on t.pool = n.pool
     where (n.payload, n.fingerprint) is distinct from (o.payload, o.fingerprint)
       and (t.on_change = 'again' or (t.on_change is null and (t.input_columns is not null or n.fingerprint is not null)))
  )
  select jsonb_agg(jsonb_build_object('item_id', i.item_id, 'work_type', i.work_type, 'old_input', i.old_input,
           'new_input', i.new_input, 'reason', 'its input changed', 'is_change', true) order by i.item_id, i.work_type)
    into changed
    from inputs i
   where i.old_input is distinct from i.new_input;
  if changed is null then
    return null;
  end if;
  -- A fingerprint may have come with this update: a held claim is done again only if its work type is not plain.
  perform work.unplain(array(select distinct k.work_type from jsonb_to_recordset(changed) as k(work_type text)));
  perform work.lock_around(changed, deep => true);
  update public.work_claims c
     set read_input = case c.read_input when k.new_input then null else coalesce(c.read_input, k.old_input, 'none') end
    from jsonb_to_recordset(changed) as k(item_id uuid, work_type text collate "C", old_input text, new_input text)
   where c.item_id = any (array[k.item_id]) and c.work_type = k.work_type and c.status is not distinct from 'claimed';
  perform work.reopen((
    select coalesce(jsonb_agg(k.value), '[]')
      from jsonb_array_elements(changed) as k(value)
      join public.work_claims c
        on c.item_id = any (array[(k.value ->> 'item_id')::uuid]) and c.work_type = k.value ->> 'work_type'
     where c.status in ('succeeded', 'failed')));
  return null;
end
$$;
create or replace trigger note_changes
  after update on public.work_items referencing old table as old_items new table as new_items
  for each statement execute function work.note_changes();

-- Do done work again, by hand: of these items, with all that needs it. A worker that holds one finishes, and then it is
-- done again. Answers how many.
create or replace function public.invalidate_items(work_type text, item_ids uuid[], reason text default null)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  keys jsonb;
  held integer;
begin
  perform work.check_choice(invalidate_items.work_type, invalidate_items.item_ids, 1);
  if invalidate_items.item_ids is null then
    perform work.refuse('item_ids', null, 'a list of at most 1000 ids was expected; to do all of a work type again, raise its version');
  end if;
  select coalesce(jsonb_agg(jsonb_build_object('item_id', u.id, 'work_type', invalidate_items.work_type,
           'reason', coalesce(nullif(invalidate_items.reason, ''), 'invalidated by hand'))), '[]')
    into keys
    from (select distinct g.id from unnest(invalidate_items.item_ids) as g(id)) as u;
  perform work.unplain(array[invalidate_items.work_type]);
  perform work.lock_around(keys, deep => true);
  update public.work_claims c
     set again = coalesce(nullif(invalidate_items.reason, ''), 'invalidated by hand')
    from unnest(invalidate_items.item_ids) as u(id)
   where c.item_id = any (array[u.id]) and c.work_type = invalidate_items.work_type and c.status is not distinct from 'claimed';
  get diagnostics held = row_count;
  return held + work.reopen((
    select coalesce(jsonb_agg(k.value), '[]')
      from jsonb_array_elements(keys) as k(value)
      join public.work_claims c
        on c.item_id = any (array[(k.value ->> 'item_id')::uuid]) and c.work_type = k.value ->> 'work_type'
     where c.status = 'succeeded'), actor => work.actor());
end
$$;
comment on function public.invalidate_items is
  'Does done work again, with all that needs it: of these items, at most 1000 a call. The reason is kept with the stale result. Answers how many.';

-- Open the next claims of a work type that were done under an older version; at most so many are looked at. Answers how
-- many were opened. Locked claims are left for a later call.
create or replace function work.redo_next(declared public.work_types, look_at integer)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  last_item uuid;
  keys jsonb;
  redone integer;
begin
  select jsonb_agg(jsonb_build_object('item_id', l.item_id, 'work_type', l.work_type,
           'reason', format('version %s', declared.version)))
           filter (where l.work_type = declared.name and l.status in ('succeeded', 'claimed')
             and coalesce(l.claimed_at, '-infinity') < declared.version_at),
         case when count(*) = redo_next.look_at then (array_agg(l.item_id order by l.item_id desc))[1] end
    into keys, last_item
    from (select c.item_id, c.work_type, c.status, c.claimed_at
            from public.work_claims c
           where c.item_id > declared.redone_through
           order by c.item_id
           limit redo_next.look_at) as l;
  -- The page may end between two claims of an item: the next one begins with that item.
  if last_item is not null then
    last_item := coalesce((
      select c.item_id from public.work_claims c
       where c.item_id > declared.redone_through and c.item_id < last_item order by c.item_id desc limit 1), last_item);
  end if;
  begin
    if keys is not null then
      perform work.lock_around(keys, deep => true, at_once => true);
      redone := work.reopen((
        select coalesce(jsonb_agg(k.value), '[]')
          from jsonb_array_elements(keys) as k(value)
          join public.work_claims c
            on c.item_id = any (array[(k.value ->> 'item_id')::uuid]) and c.work_type = k.value ->> 'work_type'
         where c.status = 'succeeded'));
    end if;
    update public.work_types t set redone_through = last_item where t.name = declared.name;
    return coalesce(redone, 0);
  exception when lock_not_available then
    return 0;
  end;
end
$$;

-- Answer a held claim with the present payload. The change that made it does not open the claim again.
create or replace function public.reread_claim(item_id uuid, work_type text, worker_id text, fence bigint)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  held public.work_claims;
begin
  perform work.check_name('work_type', reread_claim.work_type);
  perform work.check_name('worker_id', reread_claim.worker_id);
  update public.work_claims c
     set read_input = null
   where c.item_id = any (array[reread_claim.item_id]) and c.work_type = reread_claim.work_type
     and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', reread_claim.worker_id, reread_claim.fence)
     and c.expires_at > clock_timestamp()
  returning c.* into held;
  if not found then
    return null;
  end if;
  -- A later statement, so that it reads what the change has written.
  return (
    select json_build_object('item_id', i.id, 'work_type', held.work_type, 'fence', held.fence, 'pool', i.pool,
             'source_key', i.source_key, 'payload', i.payload)
      from public.work_items i where i.id = held.item_id);
end
$$;
comment on function public.reread_claim is
  'Answers a held claim {item_id, work_type, fence, pool, source_key, payload} with the present payload, so that the change which made it does not open the claim again; null where the caller does not hold it.';

-- 18_effects.sql

-- Effects: a result reaches the person's own table inside of the release, so once.

-- Find the function that a work type applies to its results; refuse a name that is none.
create or replace function work.apply_function(name text)
returns regprocedure
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  found_function regprocedure;
begin
  begin
    found_function := to_regprocedure(apply_function.name || '(jsonb, jsonb)');
  exception when invalid_name or invalid_text_representation or syntax_error or feature_not_supported then
    null; -- The text is no name: this is what Postgres 15 raises.
  end;
  if found_function is null or not exists (
    select from pg_catalog.pg_proc p where p.oid = found_function and p.prokind = 'f') then
    perform work.refuse('apply', apply_function.name,
      'a function (item jsonb, result jsonb) was expected, named with its schema, such as public.store_embedding');
  end if;
  return found_function;
end
$$;

-- The name of the column that 'table.column' names, of this table: with or without the schema, with or without quotes.
-- Null where it names none.
create or replace function work.column_of(source regclass, named text)
returns text
language sql
stable
as $$
  select a.attname::text
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_class r on r.oid = a.attrelid
    join pg_catalog.pg_namespace n on n.oid = r.relnamespace
   where a.attrelid = column_of.source and a.attnum > 0 and not a.attisdropped
     and column_of.named in (
       format('%s.%s', r.relname, a.attname), format('%s.%s.%s', n.nspname, r.relname, a.attname),
       format('%I.%I', r.relname, a.attname), format('%I.%I.%I', n.nspname, r.relname, a.attname))
   limit 1
$$;

-- The columns of a pool's table that results are written to.
create or replace function work.written_columns(pool text)
returns text[]
language sql
stable
as $$
  select array_agg(work.column_of(p.source, t.into_column))
    from public.work_types t
    join public.work_pools p on p.name = t.pool
   where t.pool = written_columns.pool and t.into_column is not null
$$;

-- Refuse a column for results that is no column of the pool's table, or that no result can be written to.
create or replace function work.check_into(declared public.work_types)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  attached public.work_pools;
  column_name text;
begin
  select * into attached from public.work_pools p where p.name = declared.pool and p.source is not null;
  column_name := work.column_of(attached.source, declared.into_column);
  if column_name is null then
    perform work.refuse('into_column', declared.into_column, case
      when attached.source is null then 'a column of an attached table was expected, and its pool is attached to none'
      else format('a column of the table %s was expected, such as documents.embedding', attached.source) end);
  end if;
  if exists (
    select from pg_catalog.pg_attribute a
     where a.attrelid = attached.source and a.attname = column_name and (a.attgenerated <> '' or a.attidentity = 'a')) then
    perform work.refuse('into_column', declared.into_column, 'Postgres makes its values; a column that can be written to was expected');
  end if;
  if column_name = any (coalesce(declared.input_columns, '{}') || attached.key_columns) then
    perform work.refuse('into_column', declared.into_column,
      'it is a key or an input of the same work type, which would set itself off; give the result a column of its own');
  end if;
end
$$;

-- The SQL that finds the row r of a source key g.key; null where the pool has no table, or a key column is gone.
create or replace function work.row_condition(pool text)
returns text
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select case
             when bool_or(c.fault is not null) then null
             when count(*) = 1 then min(format('%s = any (array[g.key::%s])', c.value, c.compared_as))
             else string_agg(format('%s = any (array[(g.key::jsonb ->> %s)::%s])', c.value, c.n - 1, c.compared_as), ' and ' order by c.n)
           end
      from work.pool_columns c
     where c.pool = row_condition.pool and c.member = 'key');
end
$$;

-- Lock the rows that these results are written to, before any claim: a person's update locks the row first too.
create or replace function work.lock_rows(pool text, source_keys text[])
returns void
language plpgsql
security definer
as $$
#variable_conflict use_column
declare
  condition text := work.row_condition(lock_rows.pool);
begin
  if condition is not null then
    execute format(
      'select from unnest($1) as g(key) cross join lateral (select from %s r where %s for no key update) as locked',
      (select p.source from public.work_pools p where p.name = lock_rows.pool), condition)
      using array(select k.key from unnest(lock_rows.source_keys) as k(key) order by k.key);
  end if;
end
$$;

-- Write results [{key, result}] into the column that their work type names, each as the column's type reads it from JSON.
-- It runs as its owner: a worker's role needs no right on the table. A row that is gone is passed over.
create or replace function work.write_results(work_type text, results jsonb)
returns void
language plpgsql
security definer
as $$
#variable_conflict use_column
declare
  condition text;
  written record;
begin
  select t.pool, t.into_column, p.source, a.attname, format_type(a.atttypid, a.atttypmod) as type
    into written
    from public.work_types t
    join public.work_pools p on p.name = t.pool
    left join pg_catalog.pg_attribute a on a.attrelid = p.source and a.attname = work.column_of(p.source, t.into_column)
   where t.name = write_results.work_type;
  condition := work.row_condition(written.pool);
  if condition is null or written.attname is null then
    raise exception using errcode = 'PT422', message = format('pool %s has no table with the column %s and the key that its items have; %s',
      written.pool, written.into_column, 'mend the table, or name another column with define_work_type()');
  end if;
  execute format(
    'update %s r set %I = g.result from jsonb_to_recordset($1) as g(key text, result %s) where %s',
    written.source, written.attname, written.type, condition)
    using write_results.results;
end
$$;

-- Call the person's function with one result. Its settings are those of a session, not those of our functions.
create or replace function work.call_apply(function regprocedure, item jsonb, result jsonb)
returns void
language plpgsql
as $$
begin
  execute format('select %s($1, $2)', function::oid::regproc) using item, result;
end
$$;

-- Run the effects of results that are about to be stored: each is {item_id, work_type, fence, result}. An error stops the
-- release with its sentence, and the claims are still held.
create or replace function work.apply_results(held jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  perform work.write_results(w.work_type, w.results)
     from (select h.work_type, jsonb_agg(jsonb_build_object('key', i.source_key, 'result', h.result)) as results
             from jsonb_to_recordset(apply_results.held) as h(item_id uuid, work_type text collate "C", result jsonb)
             join public.work_types t on t.name = h.work_type
             join public.work_items i on i.id = any (array[h.item_id])
            where t.into_column is not null and i.source_key is not null
            group by h.work_type
            order by h.work_type) as w;
  perform work.call_apply(work.apply_function(a.apply), a.item, a.result)
     from (select t.apply, h.result,
                  jsonb_build_object('id', h.item_id, 'work_type', h.work_type, 'fence', h.fence, 'pool', i.pool,
                    'source_key', i.source_key, 'payload', i.payload) as item
             from jsonb_to_recordset(apply_results.held) as h(item_id uuid, work_type text collate "C", fence bigint, result jsonb)
             join public.work_types t on t.name = h.work_type
             join public.work_items i on i.id = any (array[h.item_id])
            where t.apply is not null
            order by h.item_id, h.work_type) as a;
exception
  -- These pass: the caller tries them again by itself.
  when deadlock_detected or lock_not_available or query_canceled or insufficient_resources then
    raise;
  when others then
    raise exception using errcode = 'PT422', message = format('the result was not applied: %s', sqlerrm);
end
$$;

-- 18_follow.sql

-- Following: a claim that ends, or is open again, changes the claims that need it.

-- The claims that need these, through all claims between them where `deep` is true. Keys are {item_id, work_type}.
create or replace function work.dependents_of(keys jsonb, deep boolean)
returns table (item_id uuid, work_type text)
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return query
  with recursive given as materialized (
    select k.item_id, k.work_type from jsonb_to_recordset(dependents_of.keys) as k(item_id uuid, work_type text collate "C")
  ),
  down as (
    select g.item_id, g.work_type, 0 as depth from given g
     union
    select n.item_id, n.work_type, 1
      from down u
     cross join lateral (
       select d.item_id, d.work_type
         from public.work_dependencies d
        where d.needs_item_id = any (array[u.item_id]) and d.needs_work_type = u.work_type
        union all
       select u.item_id, t.work_type from work.type_needs t where t.needs_work_type = u.work_type
        union all
       select d.item_id, d.work_type
         from public.work_claims c
         join public.work_dependencies d on d.needs_workflow_id = c.workflow_id
        where c.item_id = any (array[u.item_id]) and c.work_type = u.work_type) as n
     where deep or u.depth = 0
  )
  select distinct d.item_id, d.work_type from down d where d.depth > 0;
end
$$;

-- Lock workflows against change; those that an item waits for so that one call at a time looks whether they are over.
create or replace function work.lock_workflows(ids bigint[], at_once boolean default false)
returns void
language plpgsql
as $$
declare
  locked bigint[];
begin
  if ids = '{}' then
    return;
  end if;
  if at_once then
    perform from public.work_workflows w where w.id = any (ids) order by w.id for no key update nowait;
    return;
  end if;
  locked := array(
    select w.id from public.work_workflows w where w.id = any (ids) and w.is_gathered order by w.id for no key update);
  locked := locked || array(
    select w.id from public.work_workflows w where w.id = any (ids) and not w.is_gathered order by w.id for share skip locked);
  -- Another call changes the others, and an item may begin to wait for them. A share lock taken now could not be raised.
  perform from public.work_workflows w where w.id = any (ids) and w.id <> all (locked) order by w.id for no key update;
end
$$;

-- Lock claims and all that is changed by their end, in the order of keys: without this, two releases deadlock, or a
-- release with a person's update of the row. At once gives up with an error rather than wait for another call.
create or replace function work.lock_around(keys jsonb, deep boolean default false, at_once boolean default false)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  around jsonb;
begin
  select jsonb_agg(jsonb_build_object('item_id', a.item_id, 'work_type', a.work_type) order by a.item_id, a.work_type)
    into around
    from (select k.item_id, k.work_type from jsonb_to_recordset(lock_around.keys) as k(item_id uuid, work_type text collate "C")
           union
          select d.item_id, d.work_type from work.dependents_of(lock_around.keys, lock_around.deep) d) as a;
  perform work.lock_workflows(array(
    select distinct c.workflow_id
      from jsonb_to_recordset(around) as k(item_id uuid, work_type text collate "C")
      join public.work_claims c on c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
     where c.workflow_id is not null
     order by 1), lock_around.at_once);
  if lock_around.at_once then
    perform from rows from (jsonb_to_recordset(around) as (item_id uuid, work_type text collate "C")) with ordinality as k(item_id, work_type, n)
     cross join lateral (
       select from public.work_claims c
        where c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
          for no key update nowait) as locked;
  else
    perform from rows from (jsonb_to_recordset(around) as (item_id uuid, work_type text collate "C")) with ordinality as k(item_id, work_type, n)
     cross join lateral (
       select from public.work_claims c
        where c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
          for no key update) as locked;
  end if;
end
$$;

-- Mark needs on whole workflows as met or not. Answers the claims whose count changes: {item_id, work_type, delta, fails}.
create or replace function work.meet_gathers(workflow_ids bigint[])
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  answer jsonb;
begin
  if workflow_ids = '{}' then
    return '[]';
  end if;
  with ended as materialized (
    select w.id, e.is_over, e.is_succeeded
      from (select distinct u.id from unnest(workflow_ids) as u(id)) as w
     cross join lateral work.workflow_end(w.id) as e
  ),
  turned as (
    update public.work_dependencies d
       set is_met = not d.is_met
      from ended e, public.work_types t
     where d.needs_workflow_id = e.id and t.name = d.work_type
       and d.is_met <> case t.on_failed_need when 'run' then e.is_over else e.is_succeeded end
    returning d.item_id, d.work_type, case when d.is_met then -1 else 1 end as delta
  )
  select jsonb_agg(jsonb_build_object('item_id', a.item_id, 'work_type', a.work_type, 'delta', a.delta, 'why', a.why,
           'fails', a.fails))
    into answer
    from (select t.item_id, t.work_type, t.delta, 'a part of its workflow is done again' as why, false as fails from turned t
          union all
          select d.item_id, d.work_type, 0, 'a part of its workflow failed', true
            from ended e
            join public.work_dependencies d on d.needs_workflow_id = e.id
            join public.work_types t on t.name = d.work_type
           where t.on_failed_need = 'fail' and e.is_over and not e.is_succeeded) as a;
  return coalesce(answer, '[]');
end
$$;

-- Mark needs on these claims as met or not: each is {item_id, work_type, was, became}. Answers as meet_gathers().
create or replace function work.meet_needs(changed jsonb)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  answer jsonb;
begin
  with given as materialized (
    select k.* from jsonb_to_recordset(meet_needs.changed) as k(item_id uuid, work_type text collate "C", was text, became text)
  ),
  turned as (
    update public.work_dependencies d
       set is_met = not d.is_met
      from given g, public.work_types t
     where d.needs_item_id = any (array[g.item_id]) and d.needs_work_type = g.work_type and t.name = d.work_type
       and d.is_met <> (g.became is null or work.is_met(g.became, t.on_failed_need))
    returning d.item_id, d.work_type, case when d.is_met then -1 else 1 end as delta, g.work_type as needed, g.became
  ),
  affected as (
    select t.* from turned t
    union all
    select g.item_id, n.work_type, case when work.is_met(g.became, n.on_failed_need) then -1 else 1 end, g.work_type, g.became
      from given g
      join work.type_needs n on n.needs_work_type = g.work_type
     where work.is_met(g.became, n.on_failed_need) <> work.is_met(g.was, n.on_failed_need)
    union all
    select d.item_id, d.work_type, 0, g.work_type, g.became
      from given g
     cross join lateral (
       select e.item_id, e.work_type from public.work_dependencies e
        where e.needs_item_id = any (array[g.item_id]) and e.needs_work_type = g.work_type
        union all
       select g.item_id, n.work_type from work.type_needs n where n.needs_work_type = g.work_type) as d
      join public.work_types t on t.name = d.work_type
     where t.on_failed_need = 'fail' and g.became in ('failed', 'cancelled')
  )
  select jsonb_agg(jsonb_build_object('item_id', a.item_id, 'work_type', a.work_type, 'delta', a.delta,
           'why', format('%s is done again', a.needed), 'fails', a.delta = 0))
    into answer
    from affected a;
  return coalesce(answer, '[]');
end
$$;

-- Give claims their new count of unmet needs. One that waits for nothing more is ready; one that was done before its need
-- was open again is to be done again, unless done work stays done; one that fails with its need fails. Answers these
-- changes as meet_needs() takes them.
create or replace function work.apply_counts(affected jsonb, stays_done boolean default false)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  answer jsonb;
begin
  with given as materialized (
    select a.item_id, a.work_type, sum(a.delta)::integer as delta, bool_or(a.fails) as fails,
           min(a.why) filter (where a.delta > 0) as why
      from jsonb_to_recordset(apply_counts.affected) as a(item_id uuid, work_type text collate "C", delta integer, why text, fails boolean)
     group by a.item_id, a.work_type
     order by a.item_id, a.work_type
  ),
  before as materialized (
    select g.*, c.status, c.status in ('succeeded', 'failed') and g.delta > 0 and not apply_counts.stays_done as reopens,
           c.status = 'blocked' and g.fails as ends
      from given g
     cross join lateral (
       select k.status from public.work_claims k
        where k.item_id = any (array[g.item_id]) and k.work_type = g.work_type
          for no key update) as c
  ),
  changed as (
    update public.work_claims c
       set waits_for = c.waits_for + b.delta,
           status = case
             when b.ends then 'failed'
             when b.reopens or (c.status in ('ready', 'waiting') and c.waits_for + b.delta > 0) then 'blocked'
             when c.status <> 'blocked' or c.waits_for + b.delta > 0 then c.status
             when c.due_at > moment then 'waiting'
             else 'ready'
           end,
           due_at = case
             when b.reopens then greatest(moment, (select i.run_after from public.work_items i where i.id = any (array[c.item_id])))
             when c.status = 'blocked' and c.waits_for + b.delta = 0 then greatest(c.due_at, moment)
             else c.due_at
           end,
           finished_at = case when b.ends then moment when not b.reopens then c.finished_at end,
           error = case when b.ends then 'something it needs failed or was cancelled' when b.reopens then null else c.error end,
           failures = case when b.reopens then 0 else c.failures end,
           crashes = case when b.reopens then 0 else c.crashes end,
           poll_at = case when not b.reopens then c.poll_at end,
           progress = case when not b.reopens then c.progress end,
           stale = case when b.reopens and c.status = 'succeeded' then b.why else c.stale end,
           again = case when c.status = 'claimed' and b.delta > 0 then b.why else c.again end
      from before b
     where c.item_id = any (array[b.item_id]) and c.work_type = b.work_type
    returning c.item_id, c.work_type, b.status as was, c.status, c.fence, c.stale, c.error
  ),
  tallied as (
    insert into work.tally_entries (work_type, succeeded, failed, blocked)
    select c.work_type, -count(*) filter (where c.was = 'succeeded'),
           count(*) filter (where c.status = 'failed') - count(*) filter (where c.was = 'failed'),
           count(*) filter (where c.status = 'blocked') - count(*) filter (where c.was = 'blocked')
      from changed c
     where c.was <> c.status
     group by c.work_type
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, fence, detail, from_status, to_status)
    select c.item_id, c.work_type,
           case when c.status = 'failed' then 'failed' when c.was in ('succeeded', 'failed') then 'reopened'
                when c.status = 'blocked' then 'blocked' else 'unblocked' end,
           c.fence,
           case when c.status = 'failed' then c.error else c.stale end, c.was, c.status
      from changed c
     where c.was <> c.status
       and (c.status = 'failed' or c.was in ('succeeded', 'failed')
         or c.work_type in (select t.name from public.work_types t where t.history = 'full'))
  )
  select jsonb_agg(jsonb_build_object('item_id', c.item_id, 'work_type', c.work_type, 'was', c.was, 'became', c.status))
    into answer
    from changed c
   where c.was <> c.status and (c.was in ('succeeded', 'failed') or c.status = 'failed');
  return answer;
end
$$;

-- Change all that needs these claims, and what needs that: each is {item_id, work_type, was, became}; became null says
-- that the claim is gone with its item. The caller has locked them with lock_around().
create or replace function work.follow(changed jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  affected jsonb;
begin
  while jsonb_array_length(changed) > 0 loop
    affected := work.meet_needs(changed) || work.meet_gathers(array(
      select c.workflow_id
        from jsonb_to_recordset(changed) as k(item_id uuid, work_type text collate "C")
        join public.work_claims c on c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
        join public.work_workflows w on w.id = c.workflow_id
       where w.is_gathered));
    exit when affected = '[]';
    changed := work.apply_counts(affected);
  end loop;
end
$$;

-- Look whether these workflows are over or open again, after items were added or removed. Work that is done stays done.
create or replace function work.look_at_gathers(workflow_ids bigint[])
returns void
language plpgsql
as $$
begin
  if workflow_ids = '{}' then
    return;
  end if;
  perform work.lock_workflows(array(select distinct u.id from unnest(look_at_gathers.workflow_ids) as u(id) order by u.id));
  perform work.follow(work.apply_counts(work.meet_gathers(look_at_gathers.workflow_ids), stays_done => true));
end
$$;

-- A workflow is gone: nothing waits for it any more.
create or replace function work.forget_gather(workflow_id bigint)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  affected jsonb;
begin
  with gone as (
    delete from public.work_dependencies d where d.needs_workflow_id = forget_gather.workflow_id
    returning d.item_id, d.work_type, d.is_met
  )
  select jsonb_agg(jsonb_build_object('item_id', g.item_id, 'work_type', g.work_type, 'delta', -1, 'fails', false))
    into affected
    from gone g
   where not g.is_met;
  if affected is not null then
    perform work.follow(work.apply_counts(affected));
  end if;
end
$$;

-- Items are gone: nothing waits for them any more.
create or replace function work.forget_needs()
returns trigger
language plpgsql
as $$
declare
  affected jsonb;
begin
  if not exists (select from public.work_dependencies) then
    return null;
  end if;
  with gone as materialized (
    select d.id, d.item_id, d.work_type, d.is_met
      from old_items o
      join public.work_dependencies d on d.needs_item_id = any (array[o.id])
     order by d.item_id, d.work_type
  ),
  deleted as (
    delete from public.work_dependencies d using gone g where d.id = g.id
  )
  select jsonb_agg(jsonb_build_object('item_id', g.item_id, 'work_type', g.work_type, 'delta', -1, 'fails', false))
    into affected
    from gone g
   where not g.is_met;
  if affected is not null then
    perform work.follow(work.apply_counts(affected));
  end if;
  perform work.look_at_gathers(array(
    select distinct o.workflow_id
      from old_items o
      join public.work_workflows w on w.id = o.workflow_id
     where w.is_gathered
       -- Its last record was pruned: what waited for it has run.
       and exists (
         select from public.work_items i where i.workflow_id = w.id and i.gathers_id is distinct from w.id)));
  return null;
end
$$;
create or replace trigger forget_needs
  after delete on public.work_items referencing old table as old_items
  for each statement execute function work.forget_needs();

-- 18_needs.sql

-- Needs of items: as enqueue_items() takes them, and as they are added later.

-- Make ready what items with needs or a fingerprint name: workflows that are waited for, work types whose releases must look
-- for what waits. Answers the needs of each item as [{item_id, work_type}].
create or replace function work.prepare_needs(items jsonb, ids uuid[])
returns jsonb[]
language plpgsql
as $$
#variable_conflict use_column
declare
  actual uuid[] := work.ids_in_call(prepare_needs.items, ids);
  gathered text[] := array(
    select distinct e.value ->> 'needs_all_of' from jsonb_array_elements(prepare_needs.items) as e(value)
     where e.value ->> 'needs_all_of' is not null);
  places jsonb := (
    select coalesce(jsonb_object_agg(k.pool, k.places), '{}')
      from (select coalesce(e.value ->> 'pool', 'default') as pool, jsonb_object_agg(e.value ->> 'dedupe_key', e.n) as places
              from jsonb_array_elements(prepare_needs.items) with ordinality as e(value, n)
             where e.value ->> 'dedupe_key' is not null
             group by 1) as k);
  needs jsonb[];
begin
  needs := array(
    select case when jsonb_typeof(e.value -> 'needs') = 'array' then
             work.resolve_needs(e.value -> 'needs', coalesce(e.value ->> 'pool', 'default'), places, actual,
               format('items[%s]', e.n - 1))
           end
      from jsonb_array_elements(prepare_needs.items) with ordinality as e(value, n)
     order by e.n);
  perform work.check_cycles(prepare_needs.items, actual, needs);
  perform work.mark_needed(
    array(select distinct coalesce(e.value ->> 'pool', 'default') from jsonb_array_elements(prepare_needs.items) as e(value)),
    (select jsonb_agg(r.value) from unnest(needs) as n(list) cross join lateral jsonb_array_elements(n.list) as r(value)));
  if gathered <> '{}' then
    perform work.unplain(array(
      select t.name
        from public.work_types t
       where t.pool in (
               select i.pool from public.work_workflows w join public.work_items i on i.workflow_id = w.id
                where w.name = any (gathered))
          or t.name in (
               select c.work_type from public.work_workflows w join public.work_claims c on c.workflow_id = w.id
                where w.name = any (gathered) and c.status in ('blocked', 'waiting', 'ready', 'claimed'))));
    perform work.intern_workflows(gathered);
    update public.work_workflows w set is_gathered = true
     where w.name = any (gathered) and not w.is_gathered;
  end if;
  return needs;
end
$$;

-- End the short way of the work types that these needs bind: their releases look for what waits. An unknown name becomes a
-- work type.
create or replace function work.mark_needed(pools text[], needs jsonb)
returns void
language plpgsql
as $$
begin
  perform work.check_own_name(r.work_type) from jsonb_to_recordset(needs) as r(work_type text);
  insert into public.work_types (name, is_plain)
  select distinct r.work_type, false
    from jsonb_to_recordset(needs) as r(work_type text collate "C")
   where r.work_type is not null
   order by 1
  on conflict do nothing;
  perform work.unplain(array(
    select t.name
      from public.work_types t
     where t.pool = any (pools)
        or t.pool in (select i.pool from jsonb_to_recordset(needs) as r(item_id uuid) join public.work_items i on i.id = r.item_id)
        or t.name in (select r.work_type from jsonb_to_recordset(needs) as r(work_type text))));
end
$$;

-- Refuse needs on items that another call has added at the same moment, and circles through a whole workflow.
create or replace function work.check_needed_items(needs jsonb[], ids uuid[])
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  circular record;
begin
  if exists (
    select from unnest(needs) as n(list)
     cross join lateral jsonb_array_elements(n.list) as r(value)
     where (r.value ->> 'item_id')::uuid = any (ids)
       and not exists (select from public.work_items i where i.id = (r.value ->> 'item_id')::uuid)) then
    raise exception using errcode = 'PT503', message = 'another call has added an item with the same dedupe key at the same moment; repeat the call';
  end if;
  -- Few items need one that waits for a whole workflow: the way down from it is short, the way up from its parts is long.
  select w.name, m.id into circular
    from (select distinct v.id from unnest(ids) as u(id)
            join public.work_items i on i.id = u.id
           cross join lateral (values (i.workflow_id), (i.gathers_id)) as v(id)) as touched
    join public.work_workflows w on w.id = touched.id and w.is_gathered
    join public.work_dependencies d on d.needs_workflow_id = w.id
   cross join lateral work.dependents_of(
     jsonb_build_array(jsonb_build_object('item_id', d.item_id, 'work_type', d.work_type)), true) as x
    join public.work_items m on m.id = x.item_id and m.workflow_id = w.id and m.gathers_id is distinct from w.id
   limit 1;
  if found then
    raise exception using errcode = 'PT400',
      message = format('item %s is a part of workflow %s, and needs something that waits for all of it', circular.id, circular.name);
  end if;
end
$$;

-- Whether one of these items needs the other one, through any items and workflows between them.
create or replace function work.needs_itself(starts uuid[], item_id uuid)
returns boolean
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return exists (
    with recursive up(id) as (
      select n.id from unnest(starts) as s(id) cross join lateral work.needed_items(s.id) as n(id)
      union
      select n.id from up u cross join lateral work.needed_items(u.id) as n(id)
    )
    select from up u where u.id = needs_itself.item_id);
end
$$;

-- The items that an item needs.
create or replace function work.needed_items(item_id uuid)
returns setof uuid
language sql
stable
as $$
  select (r.value ->> 'item_id')::uuid
    from public.work_items i
   cross join lateral jsonb_array_elements(i.needs) as r(value)
   where i.id = needed_items.item_id
   union
  select m.id
    from public.work_items i
    join public.work_items m on m.workflow_id = i.gathers_id and m.gathers_id is distinct from i.gathers_id
   where i.id = needed_items.item_id
$$;

-- Items with a dedupe key and another fingerprint than before get their new payload.
create or replace function work.renew_items(items jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  with given as materialized (
    select distinct on (g.pool, g.dedupe_key) g.*
      from (select coalesce(e.value ->> 'pool', 'default') as pool, e.value ->> 'dedupe_key' as dedupe_key,
                   e.value ->> 'fingerprint' as fingerprint, coalesce(e.value -> 'payload', '{}') as payload, e.n
              from jsonb_array_elements(renew_items.items) with ordinality as e(value, n)
             where e.value ->> 'dedupe_key' is not null and e.value ->> 'fingerprint' is not null) as g
     order by g.pool, g.dedupe_key, g.n desc
  ),
  wanted as materialized (
    select i.id, g.fingerprint, g.payload
      from given g
      join public.work_items i on i.pool = any (array[g.pool]) and i.dedupe_key = any (array[g.dedupe_key])
     where i.fingerprint is distinct from g.fingerprint
     order by i.id
       for no key update of i
  )
  update public.work_items i
     set payload = w.payload, fingerprint = w.fingerprint
    from wanted w
   where i.id = any (array[w.id]);
end
$$;

-- Give an item further needs, as references; `ids` are those of the items that an index names. Its claims that are done
-- stay done.
create or replace function work.need(item_id uuid, needs jsonb, ids jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  item public.work_items;
  resolved jsonb;
  in_call uuid[] := array(select u.value::uuid from jsonb_array_elements_text(ids) with ordinality as u(value, n) order by u.n);
begin
  select * into item from public.work_items i where i.id = need.item_id for no key update;
  resolved := coalesce(work.resolve_needs(need.needs, item.pool, '{}', in_call, format('item %s', need.item_id)), '[]');
  if exists (select from jsonb_array_elements(resolved) as r(value) where (r.value ->> 'item_id')::uuid = need.item_id)
    or work.needs_itself(array(select (r.value ->> 'item_id')::uuid from jsonb_array_elements(resolved) as r(value)), need.item_id) then
    raise exception using errcode = 'PT400', message = format('item %s would need itself, through one of these needs', need.item_id);
  end if;
  perform work.mark_needed(array[item.pool], resolved);
  -- A call that is repeated adds nothing.
  update public.work_items i
     set needs = coalesce(i.needs, '[]') || array_to_json(array(
           select distinct r.value from jsonb_array_elements(resolved) as r(value)
            where not coalesce(i.needs, '[]') @> jsonb_build_array(r.value)))::jsonb
   where i.id = need.item_id;
  perform work.count_needs(array[need.item_id], array(
    select c.work_type from public.work_claims c where c.item_id = need.item_id));
end
$$;

-- Give an item further needs: ids or dedupe keys of items, or {"id" or "key", "pool", "work_type"}. Work that is done stays
-- done. Answers how many of its claims wait.
create or replace function public.add_needs(item_id uuid, needs jsonb)
returns integer
language plpgsql
as $$
begin
  if item_id is null or not exists (select from public.work_items i where i.id = add_needs.item_id) then
    perform work.refuse('item_id', item_id::text, 'there is no such item', 'PT404');
  end if;
  -- Two calls could make a circle together.
  perform pg_advisory_xact_lock(hashtextextended('work-claims needs', 0));
  perform work.need(item_id, needs, '[]');
  return (select count(*) from public.work_claims c where c.item_id = add_needs.item_id and c.status = 'blocked');
end
$$;
comment on function public.add_needs is
  'Gives an item further needs, by ids or dedupe keys of items, or {"id" or "key", "pool", "work_type"}: its open claims wait for them. Done work stays done; a circle is refused. Answers how many of its claims wait.';

-- 18_outcomes.sql

-- Outcomes: the ends of claims, as a worker says them.

-- Name the error in an outcome for release_items(); null where there is none.
create or replace function work.outcome_error(outcome jsonb)
returns text
language plpgsql
immutable
as $$
begin
  if jsonb_typeof(outcome) <> 'object' then
    return 'an outcome is a JSON object';
  end if;
  if outcome ->> 'item_id' is null or outcome ->> 'work_type' is null or jsonb_typeof(outcome -> 'fence') is distinct from 'number' then
    return 'an outcome has item_id, work_type and fence, as the claim had them';
  end if;
  if jsonb_typeof(outcome -> 'outcome') is distinct from 'string'
    or outcome ->> 'outcome' not in ('succeeded', 'failed', 'released', 'snoozed', 'parked') then
    return format('outcome is %s; succeeded, failed, released, snoozed or parked was expected',
      coalesce(left(outcome ->> 'outcome', 60), 'null'));
  end if;
  if pg_column_size(outcome -> 'result') > 1048576 then
    return format(
      'result has %s bytes; a claim keeps at most 1048576: store it elsewhere and release with where it is',
      pg_column_size(outcome -> 'result'));
  end if;
  if jsonb_typeof(outcome -> 'retry_after_seconds') not in ('number', 'null')
    or (outcome ->> 'retry_after_seconds')::numeric not between 0 and 2592000 then
    return 'retry_after_seconds is a number from 0 to 2592000';
  end if;
  if octet_length((outcome -> 'state')::text) > 65536 then
    return format('state has %s bytes; a claim keeps at most 65536: store it elsewhere, and save where it is',
      octet_length((outcome -> 'state')::text));
  end if;
  if outcome ->> 'outcome' = 'snoozed'
    and (jsonb_typeof(outcome -> 'seconds') is distinct from 'number'
      or (outcome ->> 'seconds')::numeric not between 0 and 2592000) then
    return 'seconds is a number from 0 to 2592000: when a snoozed claim is ready again';
  end if;
  if outcome ->> 'outcome' = 'parked'
    and (jsonb_typeof(outcome -> 'seconds') is distinct from 'number'
      or (outcome ->> 'seconds')::numeric not between 1 and 604800) then
    return 'seconds is a number from 1 to 604800: how long a parked claim waits for its job elsewhere';
  end if;
  if outcome ->> 'outcome' = 'parked'
    and (jsonb_typeof(outcome -> 'external_id') is distinct from 'string'
      or length(outcome ->> 'external_id') not between 1 and 500) then
    return 'external_id is a text of 1 to 500 characters: the id of the job elsewhere';
  end if;
  if jsonb_typeof(outcome -> 'items') <> 'null'
    and (jsonb_typeof(outcome -> 'items') <> 'array' or outcome ->> 'outcome' not in ('succeeded', 'snoozed')
      or jsonb_array_length(outcome -> 'items') > 1000) then
    return 'items is a list of at most 1000 items to enqueue, with the outcome succeeded or snoozed';
  end if;
  if jsonb_typeof(outcome -> 'needs') <> 'null'
    and (jsonb_typeof(outcome -> 'needs') <> 'array' or outcome ->> 'outcome' <> 'snoozed') then
    return 'needs is a list of items to wait for, with the outcome snoozed';
  end if;
  return null;
end
$$;
comment on function work.outcome_error is 'Names the error in an outcome for release_items(); null where there is none.';

-- Refuse outcomes of which one is wrong, and say which and why.
create or replace function work.check_outcomes(outcomes jsonb)
returns void
language plpgsql
as $$
declare
  wrong record;
begin
  select e.n - 1 as at, work.outcome_error(e.value) as why into wrong
    from jsonb_array_elements(outcomes) with ordinality as e(value, n)
   where work.outcome_error(e.value) is not null
   limit 1;
  if found then
    raise exception using errcode = 'PT400', message = format('outcomes[%s]: %s', wrong.at, wrong.why);
  end if;
end
$$;

-- 19_dead_ends.sql

-- Dead ends: a work type may stop at the first claim that fails for good, until a person has looked.

-- Stop the work types of which one of these claims has failed for good, each with its further claims, and say why. The
-- caller has locked the claims; it locks nothing after. Once a type is stopped, other releases find it so and wait for none.
create or replace function work.stop_at_dead_ends(keys jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  dead record;
begin
  for dead in
    select distinct on (t.first_name) t.first_name, c.item_id, c.work_type, c.fence,
           format('item %s failed for good in %s: %s', c.item_id, c.work_type, left(c.error, 500)) as why
      from jsonb_to_recordset(keys) as k(item_id uuid, work_type text collate "C")
      join public.work_claims c on c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
     cross join lateral (
       select coalesce(w.copy_of, w.name) as first_name
         from public.work_types w
        where w.name = c.work_type and w.on_dead_end = 'stop' and not w.paused) as t
     where c.status is not distinct from 'failed'
     order by t.first_name, c.finished_at
  loop
    update public.work_types t
       set paused = true, stopped = dead.why
     where (t.name = dead.first_name or t.copy_of = dead.first_name) and not t.paused;
    if found then
      insert into public.work_events (item_id, work_type, event, fence, detail)
      values (dead.item_id, dead.work_type, 'stopped', dead.fence, dead.why);
    end if;
  end loop;
end
$$;

-- 19_follow_release.sql

-- Releases of work types that are not plain: something follows from the end of their claims.

-- Close claims with all that follows: results are applied, dependents change, new items are added.
create or replace function work.close_with_all(worker_id text, outcomes jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  held jsonb;
begin
  perform work.lock_before_claims(close_with_all.outcomes);
  -- Several statements close these: without one lock of all rows in the order of keys, two calls could deadlock. Lost
  -- claims are left out, so that a late call does not wait for their locks.
  perform work.lock_around(work.held_outcomes(close_with_all.worker_id, close_with_all.outcomes));
  held := work.held_outcomes(close_with_all.worker_id, close_with_all.outcomes);
  -- A result of an input that is no longer there has no effects.
  perform work.apply_results(h.results)
     from (select jsonb_agg(e.value) as results
             from jsonb_array_elements(held) as e(value)
            where e.value ->> 'outcome' = 'succeeded' and not (e.value ->> 'is_again')::boolean) as h
    where h.results is not null;
  perform work.close_succeeded(close_with_all.worker_id, held, only_plain => false);
  if jsonb_path_exists(held, '$[*].outcome ? (@ != "succeeded")') then
    perform work.close_others(close_with_all.worker_id, held);
    perform work.park(close_with_all.worker_id, held);
  end if;
  perform work.record_closed(close_with_all.worker_id, held);
  perform work.follow_closed(held);
  perform work.stop_at_dead_ends(held);
  perform work.wake_workers(null);
end
$$;

-- Lock what a release needs beside claims, before any claim: the rows that results are written to, then the items that get
-- further needs. A person's update of a row takes its locks in this order.
create or replace function work.lock_before_claims(outcomes jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  -- Items that come with needs end the plain way of their pools' work types.
  perform work.unplain(array(
    select t.name
      from public.work_types t
     where t.pool in (
       select coalesce(e.value ->> 'pool', 'default')
         from jsonb_to_recordset(lock_before_claims.outcomes) as o(items jsonb)
        cross join lateral jsonb_array_elements(case jsonb_typeof(o.items) when 'array' then o.items else '[]' end) as e(value)
        where e.value ?| '{needs,needs_all_of,fingerprint}')));
  perform work.lock_rows(r.pool, r.source_keys)
     from (select t.pool, array_agg(i.source_key) as source_keys
             from jsonb_to_recordset(lock_before_claims.outcomes) as o(item_id uuid, work_type text collate "C", outcome text)
             join public.work_types t on t.name = o.work_type
             join public.work_pools p on p.name = t.pool and p.source is not null
             join public.work_items i on i.id = any (array[o.item_id])
            where o.outcome = 'succeeded' and (t.into_column is not null or t.apply is not null) and i.source_key is not null
            group by t.pool) as r;
  perform from (select distinct o.item_id
                  from jsonb_to_recordset(lock_before_claims.outcomes) as o(item_id uuid, needs jsonb)
                 where jsonb_typeof(o.needs) = 'array'
                 order by o.item_id) as wanted
    cross join lateral (
      select from public.work_items i where i.id = any (array[wanted.item_id]) for no key update) as locked;
end
$$;

-- Of these outcomes, those whose claim the worker holds, the first of each claim, with all that its release needs to know.
-- is_again: the claim is to be done once more, since its input changed meanwhile, or its work type has a new version.
create or replace function work.held_outcomes(worker_id text, outcomes jsonb)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select coalesce(jsonb_agg(h.outcome order by h.item_id, h.work_type), '[]')
      from (select distinct on (o.item_id, o.work_type) o.item_id, o.work_type,
                   o.outcome || jsonb_build_object(
                     'is_again', c.read_input is not null or c.again is not null or coalesce(c.claimed_at < t.version_at, false),
                     'reason', case when c.read_input is not null then 'its input changed while it ran'
                                    else coalesce(c.again, format('version %s', t.version)) end,
                     'is_change', c.read_input is not null) as outcome
              from rows from (
                     jsonb_to_recordset(held_outcomes.outcomes) as (item_id uuid, work_type text collate "C", fence bigint),
                     jsonb_array_elements(held_outcomes.outcomes))
                   with ordinality as o(item_id, work_type, fence, outcome, n)
              join public.work_claims c on c.item_id = any (array[o.item_id]) and c.work_type = o.work_type
              left join public.work_types t on t.name = o.work_type
             where (c.status, c.worker_id, c.fence) is not distinct from ('claimed', held_outcomes.worker_id, o.fence)
               -- A repeated call parks nothing, and must not lengthen the lease.
               and not (c.poll_at is not null and o.outcome ->> 'outcome' = 'parked')
             order by o.item_id, o.work_type, o.n) as h);
end
$$;

-- After claims were closed: change what needs them, then add their new items and needs, since these may change one of the
-- closed; and open those again that are to be done once more, also after a failure: the new input has not failed yet. The
-- next try adds the items of the new input.
create or replace function work.follow_closed(held jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  released record;
  new_ids jsonb;
  changed jsonb;
begin
  select jsonb_agg(jsonb_build_object('item_id', c.item_id, 'work_type', c.work_type, 'was', 'claimed', 'became', c.status))
    into changed
    from jsonb_to_recordset(held) as h(item_id uuid, work_type text collate "C")
    join public.work_claims c on c.item_id = any (array[h.item_id]) and c.work_type = h.work_type
   where c.status in ('succeeded', 'failed');
  perform work.follow(changed);
  for released in
    select h.item_id, h.work_type, h.items, h.needs
      from jsonb_to_recordset(held) as h(
             item_id uuid, work_type text collate "C", outcome text, is_again boolean, items jsonb, needs jsonb)
     where (jsonb_typeof(h.items) = 'array' or jsonb_typeof(h.needs) = 'array') and not (h.outcome = 'succeeded' and h.is_again)
  loop
    begin
      new_ids := case when jsonb_typeof(released.items) = 'array' then public.enqueue_items(released.items) end;
      if jsonb_typeof(released.needs) = 'array' then
        perform work.need(released.item_id, released.needs, new_ids);
      end if;
    exception when sqlstate 'PT404' then
      -- With this status a worker would take its own address or key to be wrong.
      raise exception using errcode = 'PT400', message = sqlerrm;
    end;
  end loop;
  perform work.reopen(h.again)
     from (select jsonb_agg(e.value) as again from jsonb_array_elements(held) as e(value)
            where (e.value ->> 'is_again')::boolean and e.value ->> 'outcome' in ('succeeded', 'failed')) as h
    where h.again is not null;
end
$$;

-- 19_release.sql

-- Release: the holder of a claim closes it, with an outcome.

-- Close claims that succeeded, in the order of keys; answers how many. Of plain work types only, or of all.
create or replace function work.close_succeeded(worker_id text, outcomes jsonb, only_plain boolean)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  closed integer;
begin
  -- "= any (array[…])" and "is not distinct from" hold the planner to one look-up by key for each outcome. With plain
  -- equalities a plan made while the table was small may scan all that is held, once for each outcome.
  with given as materialized (
    select o.*
      from jsonb_to_recordset(close_succeeded.outcomes) as o(
             item_id uuid, work_type text collate "C", fence bigint, outcome text, result jsonb)
     where o.outcome = 'succeeded' and o.fence is not null
       and not (only_plain and o.work_type in (select t.name from public.work_types t where not t.is_plain))
     order by o.item_id, o.work_type
  ),
  closed as (
    update public.work_claims c
       set status = 'succeeded', finished_at = clock_timestamp(), result = g.result, error = null, progress = 1,
           poll_at = null, external_id = null, state = null,
           stale = null, read_input = null, again = null
      from given g
     where c.item_id = any (array[g.item_id]) and c.work_type = g.work_type
       and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_succeeded.worker_id, g.fence)
    returning c.work_type, c.claimed_at - c.due_at as waited, c.finished_at - c.claimed_at as ran
  ),
  tallied as (
    insert into work.tally_entries (work_type, succeeded, successes, waited, ran)
    select c.work_type, count(*), count(*), sum(c.waited), sum(c.ran) from closed c group by c.work_type
    returning successes
  )
  select sum(t.successes) into closed from tallied t;
  return coalesce(closed, 0);
end
$$;

-- Close claims that failed, are given back or snoozed; answers how many. A failure is counted and recorded.
create or replace function work.close_others(worker_id text, outcomes jsonb)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  closed integer;
begin
  with given as materialized (
    select o.*,
           coalesce(
             (select i.max_failures from public.work_items i where i.id = any (array[o.item_id])), t.max_failures, 3) as max_failures,
           coalesce(t.backoff_seconds, 10) as backoff_seconds,
           coalesce(t.backoff_limit_seconds, 3600) as backoff_limit_seconds
      from jsonb_to_recordset(close_others.outcomes) as o(
             item_id uuid, work_type text collate "C", fence bigint, outcome text, error text, final boolean,
             retry_after_seconds double precision, seconds double precision, note text, state jsonb)
      left join public.work_types t on t.name = o.work_type
     where o.outcome in ('failed', 'released', 'snoozed')
     order by o.item_id, o.work_type
  ),
  closed as (
    update public.work_claims c
       set status = case when g.outcome = 'failed' and (g.final or c.failures + 1 >= g.max_failures) then 'failed'
                         when c.waits_for > 0 then 'blocked'
                         when g.outcome = 'released' and c.due_at <= moment then 'ready'
                         else 'waiting' end,
           failures = c.failures + case g.outcome when 'failed' then 1 else 0 end,
           finished_at = case when g.outcome = 'failed' and (g.final or c.failures + 1 >= g.max_failures) then moment end,
           due_at = case g.outcome
             when 'released' then greatest(c.due_at, moment)
             when 'snoozed' then greatest(c.due_at, moment + make_interval(secs => g.seconds))
             -- Up to a fifth more at random: claims that failed together are not tried again together.
             else greatest(c.due_at, moment + make_interval(secs => coalesce(
               g.retry_after_seconds,
               least(g.backoff_limit_seconds, g.backoff_seconds * 2.0 ^ least(c.failures, 30)) * (1 + 0.2 * random()))))
           end,
           error = case g.outcome when 'failed' then left(coalesce(g.error, 'the worker gave no reason'), 8000) end,
           progress = null,
           poll_at = null,
           -- A holder that gives up its claim has not said how a job of an earlier try ended.
           external_id = case when g.outcome <> 'failed' and c.poll_at is null then c.external_id end,
           state = coalesce(g.state, c.state)
      from given g
     where c.item_id = any (array[g.item_id]) and c.work_type = g.work_type
       and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', close_others.worker_id, g.fence)
    returning g.outcome, c.item_id, c.work_type, c.fence, coalesce(g.note, c.error) as detail, c.status
  ),
  tallied as (
    insert into work.tally_entries (work_type, failed, failures, final_failures, blocked)
    select u.work_type, count(*) filter (where u.status = 'failed'), count(*) filter (where u.outcome = 'failed'),
           count(*) filter (where u.status = 'failed'), count(*) filter (where u.status = 'blocked')
      from closed u
     where u.outcome = 'failed' or u.status = 'blocked'
     group by u.work_type
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail, from_status, to_status)
    select u.item_id, u.work_type, u.outcome, close_others.worker_id, u.fence, left(u.detail, 8000), 'claimed', u.status
      from closed u
     where u.outcome in ('failed', 'snoozed')
  )
  select count(*) into closed from closed;
  return closed;
end
$$;

-- Park claims whose work is done elsewhere: they stay claimed, with a lease of that length and without heartbeats.
create or replace function work.park(worker_id text, outcomes jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  with given as materialized (
    select o.*
      from jsonb_to_recordset(park.outcomes) as o(
             item_id uuid, work_type text collate "C", fence bigint, outcome text, external_id text, seconds double precision, state jsonb)
     where o.outcome = 'parked'
     order by o.item_id, o.work_type
  )
  update public.work_claims c
     set expires_at = clock_timestamp() + make_interval(secs => g.seconds), poll_at = clock_timestamp(),
         external_id = g.external_id, state = coalesce(g.state, c.state)
    from given g
   where c.item_id = any (array[g.item_id]) and c.work_type = g.work_type
     and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', park.worker_id, g.fence);
end
$$;

-- Close claims, each for its holder's worker id and current fence only. Each outcome is answered with the claim's new
-- state, or "lost", which is recorded. A repeated release is answered as before and changes nothing.
create or replace function work.close_claims(worker_id text, outcomes jsonb)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  all_succeeded boolean;
  lost jsonb;
  answer json;
begin
  perform work.wake_waiting(close_claims.outcomes);
  -- To check each outcome costs as much as to close it. Where all say that they succeeded, they are checked only if some
  -- could not be closed.
  all_succeeded := pg_column_size(close_claims.outcomes) <= 1048576
    and jsonb_path_exists(close_claims.outcomes, 'strict $[*].outcome ? (@ != "succeeded")', '{}', true) is false
    and not jsonb_path_exists(close_claims.outcomes, '$[*] ? (exists (@.items) || exists (@.needs))')
    and jsonb_array_length(close_claims.outcomes) between 1 and 1000;
  if all_succeeded
    and work.close_succeeded(close_claims.worker_id, close_claims.outcomes, only_plain => true)
      = jsonb_array_length(close_claims.outcomes) then
    return to_json(array_fill('succeeded'::text, array[jsonb_array_length(close_claims.outcomes)]));
  end if;
  perform work.check_list('outcomes', close_claims.outcomes);
  if jsonb_array_length(close_claims.outcomes) = 0 then
    return '[]';
  end if;
  perform work.check_outcomes(close_claims.outcomes);
  if all_succeeded is not true or exists (
    select from public.work_types t
     where not t.is_plain
       and t.name in (select o.work_type from jsonb_to_recordset(close_claims.outcomes) as o(work_type text))) then
    perform work.close_with_all(close_claims.worker_id, close_claims.outcomes);
  end if;

  -- A row with this worker and fence that is not held was closed by this worker, in this call or in an earlier one:
  -- reaping and cancelling leave no worker.
  select json_agg(a.state order by a.n),
         jsonb_agg(jsonb_build_object('item_id', a.item_id, 'work_type', a.work_type, 'fence', a.fence,
           'detail', format('a release as %s came too late', a.outcome)) order by a.n) filter (where a.state = 'lost')
    into answer, lost
    from (select g.*,
                 case
                   when (c.fence, c.worker_id) is distinct from (g.fence, close_claims.worker_id) then 'lost'
                   when c.poll_at is not null and c.status = 'claimed' then 'parked'
                   when c.status <> 'claimed' then c.status
                   else 'lost'
                 end as state
            from rows from (jsonb_to_recordset(close_claims.outcomes) as (
                   item_id uuid, work_type text collate "C", fence bigint, outcome text))
                 with ordinality as g(item_id, work_type, fence, outcome, n)
            left join lateral (
              select k.* from public.work_claims k where k.item_id = g.item_id and k.work_type = g.work_type limit 1) as c on true) as a;
  if lost is not null then
    perform work.record_stale(close_claims.worker_id, 'stale_release', lost);
  end if;
  return answer;
end
$$;

-- Close one claim. True for its holder only; a late or foreign call changes nothing and is recorded. False also where the
-- holder has released the claim with another outcome already.
create or replace function public.release_item(
  item_id uuid,
  work_type text,
  worker_id text,
  outcome text,
  fence bigint,
  result jsonb default null,
  error text default null
)
returns boolean
language plpgsql
as $$
declare
  state text;
begin
  if item_id is null then
    perform work.refuse('item_id', null, 'the id of the claimed item was expected');
  end if;
  perform work.check_name('work_type', work_type);
  perform work.check_name('worker_id', worker_id);
  if outcome is null or outcome not in ('succeeded', 'failed', 'released') then
    perform work.refuse('outcome', outcome, 'succeeded, failed or released was expected');
  end if;
  if fence is null then
    perform work.refuse('fence', null, 'the fence that the claim came with was expected');
  end if;
  state := work.close_claims(worker_id, jsonb_build_array(jsonb_build_object(
    'item_id', item_id, 'work_type', work_type, 'fence', fence, 'outcome', outcome, 'result', result, 'error', error
  ))) ->> 0;
  return case outcome
    -- Its input may have changed meanwhile: then its result is stale already.
    when 'succeeded' then state = 'succeeded' or (state in ('waiting', 'ready', 'blocked') and exists (
      select from public.work_claims c
       where c.item_id = any (array[release_item.item_id]) and c.work_type = release_item.work_type
         and c.stale is not null and c.error is null))
    when 'failed' then state in ('waiting', 'ready', 'blocked', 'failed')
    else state in ('waiting', 'ready', 'blocked')
  end;
end
$$;
comment on function public.release_item is
  'Closes one claim as succeeded, failed or released (handed back). True for the holder of its current fence only; a late or foreign call, or a second one with another outcome, changes nothing.';

-- Close many claims; each outcome is answered in its place with the claim's new state, or "lost".
create or replace function public.release_items(worker_id text, outcomes jsonb)
returns json
language plpgsql
as $$
begin
  perform work.check_name('worker_id', worker_id);
  return work.close_claims(worker_id, outcomes);
end
$$;
comment on function public.release_items is
  'Closes claims [{item_id, work_type, fence, outcome, result, error, final, retry_after_seconds, seconds, note, external_id, state, items, needs}], at most 1000 a call; answers ["succeeded", "lost", …]: each one''s new state, or "lost", in the same order. Outcomes: succeeded (items to enqueue), failed, released, snoozed (seconds, note; items, and needs to wait for) and parked (external_id, seconds). A success whose input changed meanwhile is answered ready, waiting or blocked: it is to be done again.';

-- Close a batch and claim the next one in a single round trip.
create or replace function public.finish_and_claim(
  worker_id text,
  outcomes jsonb,
  work_types text[],
  max_items integer default 1,
  ttl_seconds integer default null,
  warm text[] default null,
  request_id uuid default null
)
returns json
language plpgsql
as $$
declare
  states json;
begin
  perform work.check_claim(work_types, worker_id, max_items, ttl_seconds, warm);
  if request_id is not null and work.is_repeated(request_id) then
    select r.released into states from work.requests r where r.request_id = finish_and_claim.request_id;
    return json_build_object(
      'released', coalesce(states, work.close_claims(worker_id, outcomes)),
      'claimed', work.claims_of_request(worker_id, request_id));
  end if;
  states := work.close_claims(worker_id, outcomes);
  -- A claim that was given back or failed may be claimed again below: a repeated call could not tell its state then.
  if request_id is not null and jsonb_path_exists(states::jsonb, '$[*] ? (@ != "succeeded")') then
    update work.requests r set released = states where r.request_id = finish_and_claim.request_id;
  end if;
  return json_build_object(
    'released', states,
    'claimed', work.take_next(work_types, worker_id, max_items, ttl_seconds, warm, request_id));
end
$$;
comment on function public.finish_and_claim is
  'release_items() and claim_next() in one round trip; answers {released, claimed}.';

-- Hand back all that a worker holds: the claims are ready at once, and no try is counted. Parked claims stay parked.
create or replace function public.release_claims_for_worker(worker_id text)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  handed_back integer;
begin
  perform work.check_name('worker_id', release_claims_for_worker.worker_id);
  with held as materialized (
    select h.item_id, h.work_type
      from public.work_claims h
     where h.status = 'claimed' and h.worker_id = release_claims_for_worker.worker_id and h.poll_at is null
     order by h.item_id, h.work_type
  ),
  back as (
    update public.work_claims c
       set status = case when c.waits_for > 0 then 'blocked' when c.due_at > clock_timestamp() then 'waiting' else 'ready' end,
           due_at = greatest(c.due_at, clock_timestamp()), progress = null, worker_id = null
      from held
     where c.item_id = any (array[held.item_id]) and c.work_type = held.work_type
       and (c.status, c.worker_id) is not distinct from ('claimed', release_claims_for_worker.worker_id)
       and c.poll_at is null
    returning c.item_id, c.work_type, c.fence, c.status
  ),
  tallied as (
    insert into work.tally_entries (work_type, blocked)
    select b.work_type, count(*) from back b where b.status = 'blocked' group by b.work_type
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail, from_status, to_status)
    select b.item_id, b.work_type, 'handed_back', release_claims_for_worker.worker_id, b.fence, 'the worker left', 'claimed', b.status
      from back b
  )
  select count(*) into handed_back from back;
  return handed_back;
end
$$;
comment on function public.release_claims_for_worker is
  'Hands back all that a worker holds, as it leaves: ready at once, no try counted. Answers how many.';

-- 19_release_parked.sql

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

-- 20_extend.sql

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

-- 21_pool_columns.sql

-- The columns that an attached pool names, found in its table, and pools whose table no longer fits.

-- Each named column with the SQL that reads it from a row r: the column of that name, else, if it was renamed, of its number.
-- A fault says why rows cannot be read.
create or replace view work.pool_columns with (security_invoker = true) as
select p.name as pool, c.member, c.n, c.name, a.attnum as number, 'r.' || quote_ident(a.attname) as value,
       -- A type of an extension is compared as text: its own operators are not in the search_path of our functions.
       case when t.typtype = 'b' and t.typnamespace <> 'pg_catalog'::regnamespace then 'text'
            else format_type(a.atttypid, a.atttypmod) end as compared_as,
       case
         when a.attnum is null then format('%s has no such column', p.source)
         when c.member = 'key' and not a.attnotnull then 'a key column that is not null was expected'
         when c.member = 'key' and (t.typcategory in ('A', 'C') or t.typname in ('bytea', 'jsonb'))
           then 'a key of numbers, texts, uuids or times was expected, not of arrays, bytes or JSON'
         when a.atttypid <> all (c.types) then format('a column of %s was expected', c.expected)
       end as fault
  from public.work_pools p
 cross join lateral (
   select 'key' as member, k.n, k.name, null::regtype[] as types, null as expected
     from unnest(p.key_columns) with ordinality as k(name, n)
    union all
   select 'payload', k.n, k.name, null, null
     from unnest(p.payload_columns) with ordinality as k(name, n)
    union all
   select v.member, 1, v.name, v.types::regtype[], v.expected
     from (values
       ('priority', p.priority_column, '{int2,int4,int8,numeric,float4,float8}', 'numbers'),
       ('run_after', p.run_after_column, '{timestamptz,timestamp,date}', 'times'),
       ('requires', p.requires_column, '{jsonb,json}', 'type jsonb'),
       ('labels', p.labels_column, '{jsonb,json}', 'type jsonb'),
       ('affinity', p.affinity_column, null, null),
       ('workflow', p.workflow_column, null, null)) as v(member, name, types, expected)
    where v.name is not null) as c
  left join pg_catalog.pg_attribute a
    on a.attrelid = p.source and a.attnum > 0 and not a.attisdropped
   and a.attnum = coalesce(
         (select k.attnum from pg_catalog.pg_attribute k where k.attrelid = p.source and k.attname = c.name),
         (p.column_numbers ->> c.name)::integer)
  left join pg_catalog.pg_type t on t.oid = a.atttypid
 where p.source is not null;
comment on view work.pool_columns is 'work-claims: the columns that each attached pool names, as its table has them at present.';

-- Attached pools whose rows are not followed, or were not for a while. The reason is a sentence with the remedy.
create or replace view work.broken_pools with (security_invoker = true) as
select p.name as pool,
       coalesce(
         f.fault,
         format('%s has rows that are no items yet: call enroll_pool() until it says done', p.source)) as reason,
       p.stopped_at as since,
       f.fault is not null as is_stopped
  from public.work_pools p
 cross join lateral (
   select case
            when not exists (select from pg_catalog.pg_class r where r.oid = p.source)
              then 'its table was dropped: attach another one as this pool, or let it go with detach_pool()'
            when (select count(*) from pg_catalog.pg_trigger t
                   where t.tgrelid = p.source and t.tgname like 'work\_claims\_mirror\_%' and t.tgenabled <> 'D') < 4
              then format('a trigger of work-claims on %s is missing or disabled: call attach_pool() again', p.source)
            else (
              select format(
                       '%s_column is %s; %s: rows are not followed until attach_pool() is given columns that fit',
                       c.member, c.name, c.fault)
                from work.pool_columns c
               where c.pool = p.name and c.fault is not null
               order by c.member, c.n
               limit 1)
          end as fault) as f
 where p.source is not null and (f.fault is not null or p.stopped_at is not null);
comment on view work.broken_pools is 'work-claims: attached pools whose rows are not followed, or were not for a while, and why.';

-- The SQL of a row's key as JSON, of the row r: one value, or an array. Null where a column is gone.
create or replace function work.key_sql(pool text)
returns text
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select case
             when bool_or(c.fault is not null) then null
             when count(*) = 1 then min(format('to_jsonb(%s)', c.value))
             else format('jsonb_build_array(%s)', string_agg(c.value, ', ' order by c.n))
           end
      from work.pool_columns c
     where c.pool = key_sql.pool and c.member = 'key');
end
$$;

-- The SQL of a row as mirror_rows() takes it, of the row r. Null where a column is gone.
-- Only named columns are read: a value that JSON cannot hold must not stop a write.
create or replace function work.row_sql(pool text)
returns text
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return (
    select case when not bool_or(c.fault is not null) then format(
             '(select to_jsonb(m.*) from (select %s as key, %s as payload%s) as m)',
             work.key_sql(row_sql.pool),
             case when bool_or(c.member = 'payload') then format(
               '(select to_jsonb(p.*) from (select %s) as p)',
               string_agg(format('%s as %I', c.value, c.name), ', ' order by c.n) filter (where c.member = 'payload'))
               else 'to_jsonb(r.*)' end,
             string_agg(format(', %s as %I', c.value, c.member), '') filter (where c.member not in ('key', 'payload')))
           end
      from work.pool_columns c
     where c.pool = row_sql.pool);
end
$$;

-- 21_retry_cancel.sql

-- A person's calls: retry failed work, cancel open work.

-- Refuse wrong arguments of retry_items() and cancel_items().
create or replace function work.check_choice(work_type text, item_ids uuid[], max_items integer)
returns void
language plpgsql
as $$
begin
  perform work.check_name('work_type', check_choice.work_type);
  if not exists (select from public.work_types t where t.name = check_choice.work_type) then
    perform work.refuse('work_type', check_choice.work_type, 'there is no such work type; see work_overview', 'PT404');
  end if;
  if cardinality(item_ids) > 1000 then
    perform work.refuse('item_ids', cardinality(item_ids) || ' long', 'one call takes at most 1000');
  end if;
  if max_items is null or max_items not between 1 and 10000 then
    perform work.refuse('max_items', max_items::text, '1 to 10000 were expected');
  end if;
end
$$;

-- Reopen failed claims with their tries reset: of the named items (cancelled ones too), or all failed ones of the type,
-- the longest failed first, at most max_items a call. A claim whose item may not run yet waits. Answers how many.
create or replace function public.retry_items(
  work_type text,
  item_ids uuid[] default null,
  max_items integer default 1000
)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  chosen uuid[] := retry_items.item_ids;
  keys jsonb;
begin
  perform work.check_choice(retry_items.work_type, retry_items.item_ids, retry_items.max_items);
  if chosen is null then
    chosen := array(
      select c.item_id from public.work_claims c
       where c.work_type = retry_items.work_type and c.status = 'failed'
       order by c.finished_at
       limit retry_items.max_items);
  end if;
  select coalesce(jsonb_agg(jsonb_build_object('item_id', u.id, 'work_type', retry_items.work_type, 'reason', 'retried by hand')), '[]')
    into keys
    from (select distinct g.id from unnest(chosen) as g(id)) as u;
  perform work.lock_around(keys, deep => true);
  return work.reopen((
    select coalesce(jsonb_agg(k.value), '[]')
      from jsonb_array_elements(keys) as k(value)
      join public.work_claims c
        on c.item_id = any (array[(k.value ->> 'item_id')::uuid]) and c.work_type = k.value ->> 'work_type'
     where c.status = 'failed' or (c.status = 'cancelled' and retry_items.item_ids is not null)), 'retried', work.actor());
end
$$;
comment on function public.retry_items is
  'Reopens failed claims of a work type with their tries reset: of the named items (cancelled ones too), or all failed ones, at most max_items a call. Answers how many.';

-- Open claims of a work type, at most so many: the ready ones in order, then others.
create or replace function work.open_items(work_type text, max_items integer)
returns uuid[]
language plpgsql
stable
as $$
#variable_conflict use_column
begin
  return array(
    select o.item_id
      from (
        (select r.item_id from public.work_claims r
          where r.work_type = open_items.work_type and r.status = 'ready' and r.class_id > 0
          order by r.priority desc, r.rank, r.position limit open_items.max_items)
        union all
        (select w.item_id from public.work_claims w
          where w.work_type = open_items.work_type and w.status = 'waiting' limit open_items.max_items)
        union all
        (select h.item_id from public.work_claims h
          where h.work_type = open_items.work_type and h.status = 'claimed' limit open_items.max_items)
        union all
        (select b.item_id from public.work_claims b
          where b.work_type = open_items.work_type and b.status = 'blocked' limit open_items.max_items)
      ) as o
     limit open_items.max_items);
end
$$;

-- Cancel open claims: of the named items, also those that have no claim yet, or all open ones of the type, at most
-- max_items a call. A worker hears of it with its next heartbeat. Answers how many.
create or replace function public.cancel_items(
  work_type text,
  item_ids uuid[] default null,
  max_items integer default 1000
)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  chosen uuid[] := cancel_items.item_ids;
  keys jsonb;
  cancelled jsonb;
begin
  perform work.check_choice(cancel_items.work_type, cancel_items.item_ids, cancel_items.max_items);
  if chosen is null then
    chosen := work.open_items(cancel_items.work_type, cancel_items.max_items);
  else
    chosen := array(
      select i.id
        from (select distinct u.id from unnest(chosen) as u(id) order by u.id) as wanted
        join public.work_items i on i.id = any (array[wanted.id])
       order by i.id
         for share of i);
    perform work.enroll(chosen, array[cancel_items.work_type]);
  end if;
  select coalesce(jsonb_agg(jsonb_build_object('item_id', u.id, 'work_type', cancel_items.work_type)), '[]')
    into keys
    from (select distinct g.id from unnest(chosen) as g(id)) as u;
  perform work.lock_around(keys);
  with wanted as materialized (
    select distinct u.id, cancel_items.work_type as work_type from unnest(chosen) as u(id) order by u.id
  ),
  before as materialized (
    select wanted.*, c.status, c.worker_id
      from wanted
      join public.work_claims c on c.item_id = any (array[wanted.id]) and c.work_type = wanted.work_type
  ),
  cancelled as (
    update public.work_claims c
       set status = 'cancelled', finished_at = clock_timestamp(), worker_id = null, progress = null,
           -- A job elsewhere is to be stopped at once.
           poll_at = case when c.external_id is not null then clock_timestamp() end
      from before b
     where c.item_id = any (array[b.id]) and c.work_type = b.work_type
       and c.status in ('blocked', 'waiting', 'ready', 'claimed')
    returning c.item_id, c.work_type, c.fence, b.status as was, b.worker_id
  ),
  tallied as (
    insert into work.tally_entries (work_type, cancelled, blocked)
    select cancel_items.work_type, count(*), -count(*) filter (where c.was = 'blocked') from cancelled c having count(*) > 0
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, worker_id, fence, from_status, to_status, actor)
    select c.item_id, cancel_items.work_type, 'cancelled', case when c.was = 'claimed' then c.worker_id end, c.fence, c.was, 'cancelled',
           work.actor()
      from cancelled c
  )
  select coalesce(jsonb_agg(jsonb_build_object('item_id', c.item_id, 'work_type', c.work_type, 'was', c.was, 'became', 'cancelled')), '[]')
    into cancelled
    from cancelled c;
  perform work.follow(cancelled);
  return jsonb_array_length(cancelled);
end
$$;
comment on function public.cancel_items is
  'Cancels open claims of a work type: of the named items, or all open ones, at most max_items a call. A worker that runs one hears of it with its next heartbeat. Answers how many.';

-- 21_set_priority.sql

-- Give items a priority. Their open claims follow, except those of a workflow, whose priority counts for all of it.
create or replace function public.set_priority(item_ids uuid[], priority integer)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  changed uuid[];
  priorities integer[];
begin
  if set_priority.item_ids is null or cardinality(set_priority.item_ids) > 1000 then
    perform work.refuse(
      'item_ids', coalesce(cardinality(set_priority.item_ids) || ' long', 'null'), 'a list of at most 1000 was expected');
  end if;
  if set_priority.priority is null or set_priority.priority not between -1000000 and 1000000 then
    perform work.refuse('priority', set_priority.priority::text, 'a whole number from -1000000 to 1000000 was expected');
  end if;
  -- Rows are locked in the order of ids, so that two calls with the same items do not deadlock.
  with wanted as materialized (
    select i.id, i.priority
      from (select distinct u.id from unnest(set_priority.item_ids) as u(id) order by u.id) as given
      join public.work_items i on i.id = any (array[given.id])
     where i.priority <> set_priority.priority
     order by given.id
       for no key update of i
  ),
  changed as (
    update public.work_items i
       set priority = set_priority.priority
      from wanted w
     where i.id = any (array[w.id])
    returning i.id, w.priority as old_priority
  )
  select coalesce(array_agg(c.id), '{}'), array_agg(c.old_priority) into changed, priorities from changed c;
  if changed <> '{}' then
    insert into public.work_events (item_id, work_type, event, fence, detail, actor)
    select c.item_id, c.work_type, 'prioritized', c.fence,
           format('priority %s in place of %s', set_priority.priority, u.old_priority), work.actor()
      from unnest(changed, priorities) as u(id, old_priority)
      join public.work_claims c on c.item_id = any (array[u.id])
     where c.status in ('blocked', 'waiting', 'ready', 'claimed');
  end if;
  return cardinality(changed);
end
$$;
comment on function public.set_priority is
  'Gives these items a priority, at most 1000 a call; their open claims move at once. Answers how many had another priority.';

-- 22_attach.sql

-- Attached tables: attach_pool() makes a table a pool, whose rows are items; detach_pool() lets it go.

-- Refuse a relation that cannot be attached.
create or replace function work.check_source(source regclass)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  if check_source.source is null then
    perform work.refuse('source', null, 'the name of a table was expected');
  end if;
  if exists (
    select from pg_catalog.pg_class r
     where r.oid = check_source.source
       and (r.relkind not in ('r', 'p')
         or r.relnamespace = 'work'::regnamespace
         or (r.relnamespace = 'public'::regnamespace and obj_description(r.oid, 'pg_class') like 'work-claims:%'))) then
    perform work.refuse('source', check_source.source::text, 'a table of your own was expected');
  end if;
  if exists (select from pg_catalog.pg_inherits h where h.inhrelid = check_source.source) then
    perform work.refuse(
      'source', check_source.source::text,
      'a partition or child table is not attached by itself: attach its parent, and write through that');
  end if;
end
$$;

-- The columns of a table's primary key, or of a unique index whose columns cannot be null.
create or replace function work.key_of(source regclass)
returns text[]
language sql
stable
as $$
  select array_agg(a.attname::text order by k.n)
    from (
      select x.indexrelid, (x.indkey::int2[])[0:x.indnkeyatts - 1] as attnums
        from pg_catalog.pg_index x
       where x.indrelid = key_of.source and x.indisunique and x.indisvalid and x.indpred is null and x.indexprs is null
         and not exists (
           select from pg_catalog.pg_attribute a
            where a.attrelid = x.indrelid and not a.attnotnull
              and a.attnum = any ((x.indkey::int2[])[0:x.indnkeyatts - 1]))
       order by x.indisprimary desc, x.indexrelid
       limit 1) as key
   cross join unnest(key.attnums) with ordinality as k(attnum, n)
    join pg_catalog.pg_attribute a on a.attrelid = key_of.source and a.attnum = k.attnum
$$;

-- The name of the pool that a table becomes: the given one, else the table's. Refused where pool or table is taken.
create or replace function work.free_pool_name(source regclass, given text)
returns text
language plpgsql
as $$
#variable_conflict use_column
declare
  pool_name text := coalesce(
    free_pool_name.given,
    (select case when n.nspname = 'public' then r.relname else n.nspname || '.' || r.relname end
       from pg_catalog.pg_class r join pg_catalog.pg_namespace n on n.oid = r.relnamespace
      where r.oid = free_pool_name.source));
  present text;
begin
  perform work.check_name('pool', pool_name);
  select p.name into present from public.work_pools p where p.source = free_pool_name.source and p.name <> pool_name;
  if found then
    perform work.refuse(
      'pool', pool_name, format('%s is attached as pool %s; detach_pool() lets it go', free_pool_name.source, present), 'PT409');
  end if;
  if pool_name = 'default' or exists (
    select from public.work_pools p join pg_catalog.pg_class r on r.oid = p.source
     where p.name = pool_name and p.source <> free_pool_name.source) then
    perform work.refuse(
      'pool', pool_name, 'another table is that pool; give this one another name, or let the other go with detach_pool()', 'PT409');
  end if;
  return pool_name;
end
$$;

-- Make the triggers that keep items in step with the rows of a table.
create or replace function work.make_mirror_triggers(source regclass)
returns void
language plpgsql
as $$
declare
  event text;
begin
  -- Names come from the catalog, quoted by it.
  foreach event in array array['insert', 'update', 'delete', 'truncate'] loop
    execute format(
      'create or replace trigger work_claims_mirror_%1$s after %1$s on %2$s %3$s for each statement execute function work.%4$s()',
      event, make_mirror_triggers.source,
      case event
        when 'insert' then 'referencing new table as new_rows'
        when 'update' then 'referencing old table as old_rows new table as new_rows'
        when 'delete' then 'referencing old table as old_rows'
      end,
      case event when 'delete' then 'mirror_deleted' when 'truncate' then 'mirror_truncated' else 'mirror_written' end);
  end loop;
end
$$;

-- Make a table a pool: rows that are written from here on become items, enroll_pool() takes in those that are there.
-- Attaching again changes the columns that are named: '{}' means all payload columns, '' no column.
-- The caller needs the right to create triggers on the table.
create or replace function public.attach_pool(
  source regclass,
  pool text default null,
  payload_columns text[] default null,
  priority_column text default null,
  run_after_column text default null,
  requires_column text default null,
  labels_column text default null,
  affinity_column text default null,
  workflow_column text default null
)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  pool_name text;
  key text[] := work.key_of(attach_pool.source);
  attached public.work_pools;
  faulty record;
begin
  perform work.check_source(attach_pool.source);
  pool_name := work.free_pool_name(attach_pool.source, attach_pool.pool);
  if key is null then
    perform work.refuse(
      'source', attach_pool.source::text, 'a table with a primary key was expected: alter table … add primary key (…)');
  end if;

  insert into public.work_pools (name) values (pool_name) on conflict do nothing;
  update public.work_pools p
     set source = attach_pool.source,
         key_columns = key,
         column_numbers = case when p.source = attach_pool.source then p.column_numbers end,
         payload_columns = nullif(coalesce(attach_pool.payload_columns, p.payload_columns), '{}'),
         priority_column = nullif(coalesce(attach_pool.priority_column, p.priority_column), ''),
         run_after_column = nullif(coalesce(attach_pool.run_after_column, p.run_after_column), ''),
         requires_column = nullif(coalesce(attach_pool.requires_column, p.requires_column), ''),
         labels_column = nullif(coalesce(attach_pool.labels_column, p.labels_column), ''),
         affinity_column = nullif(coalesce(attach_pool.affinity_column, p.affinity_column), ''),
         workflow_column = nullif(coalesce(attach_pool.workflow_column, p.workflow_column), ''),
         mirrored_through = null,
         is_mirrored = false
   where p.name = pool_name
  returning * into attached;

  select c.member || '_column' as argument, c.name, c.fault into faulty
    from work.pool_columns c
   where c.pool = pool_name and c.fault is not null
   order by c.member, c.n
   limit 1;
  if found then
    perform work.refuse(faulty.argument, faulty.name, faulty.fault);
  end if;
  update public.work_pools p
     set column_numbers = (select jsonb_object_agg(c.name, c.number) from work.pool_columns c where c.pool = p.name),
         key_is_uuid = (
           select array_agg(c.compared_as) = '{uuid}' from work.pool_columns c where c.pool = p.name and c.member = 'key'),
         paused_types = null
   where p.name = pool_name;

  -- All items are gone through anew. Work types that were paused because the pool's table was dropped go on.
  update public.work_types t
     set enrolled_through = 0,
         enroll_until = coalesce((select max(i.seq) from public.work_items i where i.pool = pool_name), 0),
         paused = t.paused and t.name <> all (coalesce(attached.paused_types, '{}'))
   where t.pool = pool_name;

  perform work.make_mirror_triggers(attach_pool.source);
  return jsonb_build_object('pool', attached.name, 'key', attached.key_columns);
end
$$;
comment on function public.attach_pool is
  'Makes a table a pool: rows that are written become items; enroll_pool() takes in those that are there. Attaching again changes the columns that are named.';

-- Let an attached table go. Its items and claims stay until they are deleted.
create or replace function public.detach_pool(pool text)
returns boolean
language plpgsql
as $$
#variable_conflict use_column
declare
  attached regclass;
  event text;
begin
  perform work.check_pool(detach_pool.pool);
  select p.source into attached from public.work_pools p where p.name = detach_pool.pool for no key update;
  if attached is null then
    return false;
  end if;
  if exists (select from pg_catalog.pg_class r where r.oid = attached) then
    foreach event in array array['insert', 'update', 'delete', 'truncate'] loop
      execute format('drop trigger if exists work_claims_mirror_%s on %s', event, attached);
    end loop;
  end if;
  update public.work_pools p
     set source = null, is_mirrored = true, stopped_at = null, paused_types = null
   where p.name = detach_pool.pool;
  return true;
end
$$;
comment on function public.detach_pool is
  'Lets an attached table go: its rows are not followed from here on. Its items and claims stay until you delete them.';

-- Pause the work types of pools whose table was dropped, once: no worker gets their items.
-- Attaching a table as the pool again ends the pause.
create or replace function work.close_dropped_pools()
returns void
language plpgsql
as $$
begin
  with dropped as (
    select p.name
      from public.work_pools p
     where p.paused_types is null and p.source is not null
       and not exists (select from pg_catalog.pg_class r where r.oid = p.source)
     order by p.name
       for no key update of p skip locked
  ),
  closed as (
    update public.work_pools p
       set stopped_at = coalesce(p.stopped_at, clock_timestamp()),
           paused_types = array(select t.name::text from public.work_types t where t.pool = p.name and not t.paused)
      from dropped d
     where p.name = d.name
    returning p.paused_types
  )
  update public.work_types t set paused = true from closed c where t.name = any (c.paused_types);
end
$$;
comment on function work.close_dropped_pools is 'Pauses the work types of pools whose table was dropped.';

-- 23_mirror.sql

-- Rows to items: the triggers on attached tables, and enroll_pool(), make the items match the rows.

-- Make the items of a pool match these rows of its table: {key, payload} and the members that the pool names columns for.
-- Answers how many items were added or changed.
create or replace function work.mirror_rows(pool public.work_pools, source_rows jsonb[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  new_ids uuid[] := work.new_ids(null, cardinality(mirror_rows.source_rows));
  class_ids integer[];
  too_large record;
  mirrored integer;
begin
  select left(r.item ->> 'key', 60) as key, pg_column_size(r.item -> 'payload') as bytes into too_large
    from unnest(mirror_rows.source_rows) as r(item)
   where pg_column_size(r.item -> 'payload') > 1048576
   limit 1;
  if found then
    raise exception using
      errcode = 'PT400',
      message = format('the row with key %s of pool %s has a payload of %s bytes; an item carries at most 1048576: attach fewer columns',
        too_large.key, mirror_rows.pool.name, too_large.bytes);
  end if;
  if num_nonnulls(mirror_rows.pool.requires_column, mirror_rows.pool.labels_column) > 0 then
    select work.classes_of(
             array_agg(coalesce(nullif(r.item -> 'requires', 'null'), '{}') order by r.n),
             array_agg(coalesce(nullif(r.item -> 'labels', 'null'), '{}') order by r.n),
             array_agg(format('the row with key %s of pool %s: ', left(r.item ->> 'key', 60), mirror_rows.pool.name) order by r.n))
      into class_ids
      from unnest(mirror_rows.source_rows) with ordinality as r(item, n);
  end if;
  if mirror_rows.pool.workflow_column is not null then
    perform work.intern_workflows(array_agg(left(nullif(r.item ->> 'workflow', ''), 200) order by r.n))
       from unnest(mirror_rows.source_rows) with ordinality as r(item, n);
  end if;

  -- The pool comes as a column: as a constant, the planner may read all items of the pool for each row.
  with mirrored as materialized (
    select r.n, mirror_rows.pool.name as pool, r.item ->> 'key' as source_key, r.item -> 'payload' as payload,
           greatest(-1000000, least(1000000, round(coalesce((r.item ->> 'priority')::numeric, 0))))::integer as priority,
           nullif((r.item ->> 'run_after')::timestamptz, '-infinity') as run_after,
           coalesce(class_ids[r.n], 1) as class_id,
           left(nullif(r.item ->> 'affinity', ''), 200) as affinity,
           (select w.id from public.work_workflows w
             where w.name = left(nullif(r.item ->> 'workflow', ''), 200)) as workflow_id
      from unnest(mirror_rows.source_rows) with ordinality as r(item, n)
  ),
  -- Leave out a row that changes nothing: on conflict would lock its item.
  changed as materialized (
    select m.*
      from mirrored m
     where not exists (
       select from public.work_items i
        where i.pool = any (array[m.pool]) and i.source_key = any (array[m.source_key])
          and (i.payload, i.priority, i.run_after, i.class_id, i.affinity, i.workflow_id)
                is not distinct from (m.payload, m.priority, m.run_after, m.class_id, m.affinity, m.workflow_id))
  )
  -- A uuid key is the item's id, unless another item has that id.
  insert into public.work_items (id, pool, source_key, payload, priority, run_after, class_id, affinity, workflow_id)
  select case
           when not mirror_rows.pool.key_is_uuid then new_ids[c.n]
           when exists (select from public.work_items i where i.id = c.source_key::uuid) then new_ids[c.n]
           else c.source_key::uuid
         end,
         c.pool, c.source_key, c.payload, c.priority, c.run_after, c.class_id, c.affinity, c.workflow_id
    from changed c
   order by c.n
  on conflict (pool, source_key) where source_key is not null do update
     set payload = excluded.payload, priority = excluded.priority, run_after = excluded.run_after,
         class_id = excluded.class_id, affinity = excluded.affinity, workflow_id = excluded.workflow_id;
  get diagnostics mirrored = row_count;
  return mirrored;
end
$$;
comment on function work.mirror_rows is 'Makes the items of a pool match these rows of its table; answers how many were added or changed.';

-- Delete the items of rows that are gone. All is locked in the order that other calls have: items, workflows, claims by
-- key. The delete alone would lock item by item, each before its claims, and deadlock with a release of two of them.
create or replace function work.delete_mirrored(pool text, source_keys text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  gone uuid[];
begin
  with given as materialized (
    select delete_mirrored.pool as pool, u.source_key from unnest(delete_mirrored.source_keys) as u(source_key)
  )
  select coalesce(array_agg(i.id), '{}') into gone
    from given g
    join public.work_items i on i.pool = any (array[g.pool]) and i.source_key = any (array[g.source_key]);
  -- Not for update yet: a worker that holds a claim may have to look at its item.
  perform from (select u.id from unnest(gone) as u(id) order by u.id) as u
    cross join lateral (select from public.work_items i where i.id = any (array[u.id]) for no key update) as locked;
  perform work.lock_workflows(array(
    select distinct w.id
      from unnest(gone) as u(id)
      join public.work_items i on i.id = any (array[u.id])
      join public.work_workflows w on w.id = i.workflow_id
     where w.is_gathered));
  perform from (
      select c.item_id, c.work_type from unnest(gone) as u(id) join public.work_claims c on c.item_id = any (array[u.id])
       union
      select d.item_id, d.work_type from unnest(gone) as u(id) join public.work_dependencies d on d.needs_item_id = any (array[u.id])
       order by 1, 2) as k
   cross join lateral (
     select from public.work_claims c where c.item_id = any (array[k.item_id]) and c.work_type = k.work_type for update) as locked;
  delete from public.work_items i using unnest(gone) as u(id) where i.id = any (array[u.id]);
end
$$;

-- A row could not be read, since a column is gone: enroll_pool() has to go through all rows again.
create or replace function work.note_missed_rows(pool text)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  update public.work_pools p
     set stopped_at = coalesce(p.stopped_at, clock_timestamp()), is_mirrored = false, mirrored_through = null
   where p.name = note_missed_rows.pool
     and (p.stopped_at is null or p.is_mirrored or p.mirrored_through is not null);
end
$$;

-- The triggers run as their owner: a role that writes to the attached table needs no right on work-claims.
-- Their settings write times in UTC, so that a key is the same text in every session.
create or replace function work.mirror_written()
returns trigger
language plpgsql
security definer
as $$
#variable_conflict use_variable
declare
  attached public.work_pools;
  key_sql text;
  row_sql text;
  gone text[];
  page jsonb[];
begin
  select * into attached from public.work_pools p where p.source = tg_relid;
  if not found then
    return null;
  end if;
  key_sql := work.key_sql(attached.name);
  row_sql := work.row_sql(attached.name);
  -- A row with a changed key is another item.
  if tg_op = 'UPDATE' and key_sql is not null then
    execute format(
      'select array(select %1$s #>> ''{}'' from old_rows r except select %1$s #>> ''{}'' from new_rows r)', key_sql)
      into gone;
    if gone <> '{}' then
      perform work.delete_mirrored(attached.name, gone);
    end if;
  end if;
  if row_sql is null then
    perform work.note_missed_rows(attached.name);
    return null;
  end if;
  -- In pages, since a statement may write millions of rows.
  for page in execute format(
    'select array_agg(numbered.item order by numbered.row_number)
       from (select %s as item, row_number() over () as row_number from new_rows r) as numbered
      group by numbered.row_number / 1000
      order by numbered.row_number / 1000', row_sql)
  loop
    perform work.mirror_rows(attached, page);
  end loop;
  return null;
end
$$;

create or replace function work.mirror_deleted()
returns trigger
language plpgsql
security definer
as $$
#variable_conflict use_variable
declare
  pool_name text;
  key_sql text;
  gone text[];
begin
  select p.name into pool_name from public.work_pools p where p.source = tg_relid;
  if not found then
    return null;
  end if;
  key_sql := work.key_sql(pool_name);
  if key_sql is null then
    perform work.note_missed_rows(pool_name);
    return null;
  end if;
  execute format('select array(select %s #>> ''{}'' from old_rows r)', key_sql) into gone;
  perform work.delete_mirrored(pool_name, gone);
  return null;
end
$$;

create or replace function work.mirror_truncated()
returns trigger
language plpgsql
security definer
as $$
begin
  delete from public.work_items i
   using public.work_pools p
   where p.source = tg_relid and i.pool = p.name and i.source_key is not null;
  return null;
end
$$;

-- 23_prune.sql

-- Pruning: the record of old ended claims goes, and no worker gets them again.

-- The time of the next upkeep by a claim call: one row, which one call at a time locks.
create table if not exists work.upkeep (
  is_only boolean primary key default true check (is_only),
  due_at timestamptz not null default '-infinity'
);
comment on table work.upkeep is 'work-claims: when a claim call next folds tallies and prunes.';
insert into work.upkeep default values on conflict do nothing;

-- Remove these items with all their claims; answers how many claims. Rows that another call has locked are left to a later
-- call, and an item of which a claim is locked stays whole: nothing here waits.
create or replace function work.remove_items(item_ids uuid[])
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  locked uuid[];
  removed integer;
begin
  -- No claim can be added to an item that is locked for update.
  locked := array(
    select i.id from unnest(remove_items.item_ids) as u(id) join public.work_items i on i.id = any (array[u.id])
       for update of i skip locked);
  with claim as materialized (
    select c.item_id
      from unnest(locked) as u(id)
     cross join lateral (
       select k.item_id from public.work_claims k
        where k.item_id = any (array[u.id]) and k.finished_at is not null
          for update skip locked) as c
  )
  select coalesce(array_agg(w.item_id), '{}')
    into locked
    from (select c.item_id
            from claim c
           group by c.item_id
          having count(*) = (select count(*) from public.work_claims k where k.item_id = any (array[c.item_id]))) as w;
  -- Claims first, by one statement: as a consequence of deleting items each would be looked for again.
  delete from public.work_claims c using unnest(locked) as u(id) where c.item_id = any (array[u.id]);
  get diagnostics removed = row_count;
  delete from public.work_items i using unnest(locked) as u(id) where i.id = any (array[u.id]);
  return removed;
end
$$;

-- Remove a run's values from these items' claims of a work type; answers how many. The bare claims say that the items
-- are done.
create or replace function work.strip_claims(item_ids uuid[], work_type text)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  stripped uuid[];
begin
  with stripped as (
    update public.work_claims c
       set worker_id = null, fence = null, request_id = null, claimed_at = null, progress = null, result = null, error = null,
           poll_at = null, external_id = null, state = null
     where c.ctid = any (array(
             select k.row_id
               from unnest(strip_claims.item_ids) as u(id)
              cross join lateral (
                select o.ctid as row_id from public.work_claims o
                 where o.item_id = any (array[u.id]) and o.work_type = strip_claims.work_type
                   and o.fence is not null and o.finished_at is not null
                   for update skip locked) as k))
    returning c.item_id
  )
  select array_agg(s.item_id) into stripped from stripped s;
  delete from public.work_events e
   using unnest(stripped) as u(id)
   where e.item_id = any (array[u.id]) and e.work_type = strip_claims.work_type;
  return coalesce(cardinality(stripped), 0);
end
$$;

-- Prune these items' claims of a work type, which ended before these times; answers how many claims. An item that came by
-- enqueue_items() goes, once all its claims ended before, and those of other types are stripped; other claims are stripped.
create or replace function work.prune_items(
  item_ids uuid[], work_type text, succeeded_before timestamptz, failed_before timestamptz)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  removable uuid[];
  others uuid[];
begin
  select array_agg(p.id) filter (where p.is_removable), array_agg(p.id) filter (where not p.is_removable)
    into removable, others
    from (select i.id,
                 i.source_key is null
                   -- Something waits for it.
                   and not exists (
                     select from public.work_dependencies d where d.needs_item_id = any (array[i.id]) and not d.is_met)
                   and not exists (
                   select from public.work_claims c
                    where c.item_id = any (array[i.id])
                      and (c.finished_at < case
                             when c.work_type <> prune_items.work_type and c.fence is not null then '-infinity'
                             when c.status = 'succeeded' then prune_items.succeeded_before
                             else prune_items.failed_before end) is not true) as is_removable
            from unnest(prune_items.item_ids) as u(id)
            join public.work_items i on i.id = any (array[u.id])) as p;
  return work.remove_items(removable) + work.strip_claims(others, prune_items.work_type);
end
$$;

-- Look at the next claims along the primary key, and prune those of a work type that ended before these times. Answers
-- {pruned, done}; done when the end was reached, from which the next call begins anew. Succeeded claims are in no index
-- by time: such an entry a claim would cost a tenth of the rate.
create or replace function work.prune_next(
  work_type text, succeeded_before timestamptz, failed_before timestamptz, at_most integer, look_at integer)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  through uuid;
  old uuid[];
  last_item uuid;
  pruned integer := 0;
begin
  select coalesce(t.pruned_through, '00000000-0000-0000-0000-000000000000')
    into through
    from public.work_types t
   where t.name = prune_next.work_type
     for no key update skip locked;
  if not found then
    return jsonb_build_object('pruned', 0, 'done', false);
  end if;
  old := array(
    select l.item_id
      from (select c.item_id, c.work_type, c.status, c.finished_at
              from public.work_claims c
             where c.item_id > through
             order by c.item_id
             limit prune_next.look_at) as l
     where l.work_type = prune_next.work_type
       and l.finished_at < case when l.status = 'succeeded' then prune_next.succeeded_before else prune_next.failed_before end
     limit prune_next.at_most);
  if cardinality(old) = prune_next.at_most then
    last_item := old[prune_next.at_most];
  else
    last_item := (
      select c.item_id from public.work_claims c where c.item_id > through order by c.item_id
      offset prune_next.look_at - 1 limit 1);
    -- The page may end between two claims of an item: the next one begins with that item.
    last_item := coalesce((
      select c.item_id from public.work_claims c
       where c.item_id > through and c.item_id < last_item order by c.item_id desc limit 1), last_item);
  end if;
  if cardinality(old) > 0 then
    pruned := work.prune_items(old, prune_next.work_type, prune_next.succeeded_before, prune_next.failed_before);
  end if;
  update public.work_types t set pruned_through = last_item, pruned_at = clock_timestamp() where t.name = prune_next.work_type;
  return jsonb_build_object('pruned', pruned, 'done', last_item is null);
end
$$;

-- Remove the record of claims that ended this long ago, at most so many a call, and answer {pruned, done}. It goes
-- through all claims a page a call: repeat it until done.
create or replace function public.prune_finished(work_type text, older_than interval, at_most integer default 1000)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp() - prune_finished.older_than;
begin
  if not exists (select from public.work_types t where t.name = prune_finished.work_type) then
    perform work.refuse('work_type', prune_finished.work_type, 'there is no such work type; see work_overview', 'PT404');
  end if;
  if prune_finished.older_than is null or prune_finished.older_than < '0' then
    perform work.refuse('older_than', prune_finished.older_than::text, 'an interval such as "30 days" was expected');
  end if;
  if prune_finished.at_most is null or prune_finished.at_most not between 1 and 10000 then
    perform work.refuse('at_most', prune_finished.at_most::text, 'expected 1 to 10000');
  end if;
  return work.prune_next(
    prune_finished.work_type, moment, moment, prune_finished.at_most, 1000 + 10 * prune_finished.at_most);
end
$$;
comment on function public.prune_finished is
  'Removes the record of claims of a work type that ended so long ago, at most at_most a call; answers {pruned, done}: repeat it until done. An item of enqueue_items() goes with its last record; a claim on a row of an attached table stays, bare, and so stays done.';

-- Fold entries into tallies, and prune a little of one work type that has a retention. One claim call in two seconds does
-- it; the others skip the locked row.
create or replace function work.keep_up(can_prune boolean)
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  kept public.work_types;
  has_more boolean;
begin
  -- With one snapshot for the whole transaction, a row that another call has changed is an error.
  if current_setting('transaction_isolation') <> 'read committed' then
    return;
  end if;
  perform from work.upkeep u where u.due_at <= moment for no key update skip locked;
  if not found then
    return;
  end if;
  has_more := work.fold_tallies(10000) = 10000;
  select t.* into kept from public.work_types t where can_prune and t.redone_through is not null limit 1;
  if found then
    perform work.redo_next(kept, 2000);
    has_more := true;
  end if;
  select t.* into kept
    from public.work_types t
   where can_prune and (t.keep_succeeded is not null or t.keep_failed is not null)
   order by t.pruned_at nulls first
   limit 1;
  if found then
    has_more := (work.prune_next(
      kept.name, moment - kept.keep_succeeded, moment - kept.keep_failed, 500, 1000) ->> 'pruned')::integer > 100 or has_more;
  end if;
  update work.upkeep set due_at = clock_timestamp() + case when has_more then interval '0.5 s' else interval '2 s' end;
end
$$;

-- 24_define_pool.sql

-- Make a pool that mirrors no table: enqueue_items() adds its items. Where it is there already, nothing changes.
create or replace function public.define_pool(pool text)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  defined public.work_pools;
begin
  perform work.check_name('pool', define_pool.pool);
  insert into public.work_pools (name) values (define_pool.pool) on conflict do nothing;
  select * into defined from public.work_pools p where p.name = define_pool.pool;
  if defined.source is not null then
    perform work.refuse('pool', define_pool.pool,
      format('it mirrors the table %s; give the pool another name', defined.source), 'PT409');
  end if;
  return jsonb_build_object('name', defined.name, 'created_at', defined.created_at);
end
$$;
comment on function public.define_pool is
  'Makes a pool that mirrors no table: enqueue_items() adds its items. A pool that is there stays as it is.';

-- 24_enroll_pool.sql

-- Taking in earlier rows: rows become items, items get claims, one bounded step a call.

-- Mirror the next rows of an attached table, in the order of its key.
create or replace function work.mirror_next_rows(
  pool public.work_pools, max_rows integer, out mirrored integer, out is_done boolean)
language plpgsql
as $$
#variable_conflict use_column
declare
  broken text;
  keys text;
  last_key text;
  page jsonb[];
begin
  select b.reason into broken from work.broken_pools b where b.pool = mirror_next_rows.pool.name and b.is_stopped;
  if found then
    perform work.refuse('pool', mirror_next_rows.pool.name, broken, 'PT409');
  end if;
  select string_agg(format('%s::%s', c.value, c.compared_as), ', ' order by c.n),
         string_agg(format('($1 #>> %L)::%s', c.place, c.compared_as), ', ' order by c.n)
    into keys, last_key
    from (select k.*, case when count(*) over () = 1 then '{}' else format('{%s}', k.n - 1) end as place
            from work.pool_columns k
           where k.pool = mirror_next_rows.pool.name and k.member = 'key') as c;
  -- The rows are locked against change: else a row that changes meanwhile could be mirrored as it was before.
  execute format(
    'select array(select %s from (select * from %s r %s order by %s limit $2 for share) as r)',
    work.row_sql(mirror_next_rows.pool.name),
    mirror_next_rows.pool.source,
    case when mirror_next_rows.pool.mirrored_through is not null then format('where (%s) > (%s)', keys, last_key) end,
    keys)
    into page using mirror_next_rows.pool.mirrored_through, mirror_next_rows.max_rows;
  mirrored := case when cardinality(page) > 0 then work.mirror_rows(mirror_next_rows.pool, page) else 0 end;
  is_done := cardinality(page) < mirror_next_rows.max_rows;
  update public.work_pools p
     set mirrored_through = case when not is_done then page[cardinality(page)] -> 'key' end,
         stopped_at = case when not is_done then p.stopped_at end,
         is_mirrored = is_done
   where p.name = mirror_next_rows.pool.name;
end
$$;

-- Make claims for the next items that were there when a work type got its pool.
create or replace function work.enroll_next_items(
  work_type public.work_types, max_items integer, out enrolled integer, out is_done boolean)
language plpgsql
as $$
#variable_conflict use_column
declare
  -- Locked against change: their claims copy their present values.
  item_ids uuid[] := array(
    select i.id
      from public.work_items i
     where i.pool = enroll_next_items.work_type.pool
       and i.seq > enroll_next_items.work_type.enrolled_through and i.seq <= enroll_next_items.work_type.enroll_until
     order by i.seq
     limit enroll_next_items.max_items
       for share);
begin
  enrolled := work.enroll(item_ids, array[enroll_next_items.work_type.name]);
  is_done := cardinality(item_ids) < enroll_next_items.max_items;
  update public.work_types t
     set enrolled_through = case
           when is_done then t.enroll_until
           else (select i.seq from public.work_items i where i.id = item_ids[cardinality(item_ids)])
         end
   where t.name = enroll_next_items.work_type.name;
end
$$;

-- Take in earlier rows and items: rows of the attached table become items, items get claims for the pool's work types.
-- One bounded step a call; repeat it until the answer says done.
create or replace function public.enroll_pool(pool text, max_items integer default 10000)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  entered public.work_pools;
  declared public.work_types;
  step record;
  mirrored integer := 0;
  enrolled integer := 0;
  is_done boolean := true;
begin
  perform work.check_pool(enroll_pool.pool);
  if enroll_pool.max_items is null or enroll_pool.max_items not between 1 and 100000 then
    perform work.refuse('max_items', enroll_pool.max_items::text, 'expected 1 to 100000');
  end if;
  select * into entered from public.work_pools p where p.name = enroll_pool.pool for no key update;
  if not entered.is_mirrored then
    select * into step from work.mirror_next_rows(entered, enroll_pool.max_items);
    mirrored := step.mirrored;
    is_done := step.is_done;
  end if;
  for declared in
    select t.* from public.work_types t
     where t.pool = enroll_pool.pool and t.enrolled_through < t.enroll_until
     order by t.name for no key update
  loop
    select * into step from work.enroll_next_items(declared, enroll_pool.max_items);
    enrolled := enrolled + step.enrolled;
    is_done := is_done and step.is_done;
  end loop;
  return jsonb_build_object('mirrored', mirrored, 'enrolled', enrolled, 'done', is_done);
end
$$;
comment on function public.enroll_pool is
  'Takes in what was there before, one bounded step a call: rows of the attached table become items, items get claims for the pool''s work types. Repeat it until done is true.';

-- 25_overview.sql

-- Progress: one row a work type, one answer for a monitor, one for an autoscaler. None reads ended claims.

-- Open claims that are not ready, at most 10,000 waiting and 10,000 held ones, of all work types together.
create or replace function work.unready()
returns table (work_type text, waiting bigint, claimed bigint, late bigint)
language sql
stable
as $$
  select a.work_type, count(*) filter (where not a.is_held), count(*) filter (where a.is_held), count(*) filter (where a.is_late)
    from ((select c.work_type, false as is_held, false as is_late
             from public.work_claims c where c.status = 'waiting' order by c.due_at limit 10000)
          union all
          (select c.work_type, true, c.expires_at <= clock_timestamp()
             from public.work_claims c where c.status = 'claimed' order by c.expires_at limit 10000)) as a
   group by a.work_type
$$;

-- Parked claims of each work type, of at most 10,000.
create or replace function work.parked()
returns table (work_type text, parked bigint)
language sql
stable
as $$
  select c.work_type, count(*)
    from (select k.work_type, k.status from public.work_claims k where k.poll_at is not null
           order by k.work_type, k.poll_at limit 10000) as c
   where c.status = 'claimed'
   group by c.work_type
$$;

-- Each work type's numbers. All claims less those that are over are open; of these, those that are neither blocked, waiting
-- nor held are ready, however many. The first 1,000 in order are looked at, for the longest wait among them.
create or replace function work.overview()
returns table (
  work_type text, pool text, paused boolean, open bigint, ready bigint, waiting bigint, blocked bigint, claimed bigint,
  late bigint, succeeded bigint, failed bigint, cancelled bigint, is_capped boolean, oldest_wait interval,
  finished_last_minute bigint)
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
begin
  return query
  with unready as materialized (select a.* from work.unready() a),
  is_full as materialized (select sum(a.waiting) >= 10000 or sum(a.claimed) >= 10000 as is_full from unready a),
  counts as materialized (select c.*, c.claims - c.succeeded - c.failed - c.cancelled as open from work.counts() c),
  finished as materialized (
    select f.work_type, sum(f.amount)::bigint as last_minute
      from (select e.work_type, e.successes + e.final_failures as amount from work.tally_entries e
             where e.at > moment - interval '1 minute'
            union all
            select t.work_type, t.amount from work.tallies t
             where t.span = 'second' and t.starts_at > moment - interval '1 minute'
               and t.measure in ('successes', 'final_failures')) as f
     group by f.work_type
  ),
  numbers as (
    select t.name, t.pool, t.paused, coalesce(c.open, 0) as open, first.ready, coalesce(a.waiting, 0) as waiting,
           coalesce(a.claimed, 0) as claimed, coalesce(a.late, 0) as late,
           coalesce(c.blocked, 0) as blocked,
           greatest(0, coalesce(c.open - c.blocked - coalesce(a.waiting, 0) - coalesce(a.claimed, 0), 0)) as others,
           coalesce(c.succeeded, 0) as succeeded, coalesce(c.failed, 0) as failed, coalesce(c.cancelled, 0) as cancelled,
           first.due_at, coalesce(f.last_minute, 0) as last_minute
      from public.work_types t
      left join counts c on c.work_type = t.name
      left join unready a on a.work_type = t.name
      left join finished f on f.work_type = t.name
     cross join lateral (
       select count(*) as ready, min(r.due_at) as due_at
         from (select q.due_at from public.work_claims q
                where q.work_type = t.name and q.status = 'ready' and q.class_id > 0
                order by q.priority desc, q.rank, q.position
                limit 1000) as r) as first
  )
  select n.name, n.pool, n.paused, n.open,
         case when n.ready < 1000 or w.is_full then n.ready else n.others end,
         n.waiting, n.blocked, n.claimed, n.late, n.succeeded, n.failed, n.cancelled,
         w.is_full is true and n.others > n.ready,
         case when n.due_at < moment then moment - n.due_at end,
         n.last_minute
    from numbers n
   cross join is_full w
   order by n.name;
end
$$;

create or replace view public.work_overview with (security_invoker = true) as
select o.work_type, o.pool, o.paused, o.ready, o.waiting, o.blocked,
       greatest(0, o.claimed - coalesce(p.parked, 0)) as claimed, o.succeeded, o.failed, o.cancelled,
       o.oldest_wait, o.finished_last_minute,
       case when o.finished_last_minute > 0 and o.open > 0 then make_interval(secs => 60.0 * o.open / o.finished_last_minute)
       end as time_left,
       o.open, o.late, o.is_capped, coalesce(p.parked, 0) as parked
  from work.overview() o
  left join work.parked() p on p.work_type = o.work_type;
comment on view public.work_overview is
  'work-claims: how far each work type is: open claims by state, done, failed, the longest wait among the first 1000 in order, the last minute''s rate and the time left at it. claimed ones have a worker, parked ones are done elsewhere. is_capped: more than 10000 wait or are held in all, so ready, waiting and claimed are lower bounds; open and blocked are exact.';

-- One small answer, cheap enough to ask every second.
create or replace function public.work_pulse(since_event bigint default null)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
begin
  return (
    with types as materialized (select o.* from public.work_overview o),
    held as materialized (
      select h.worker_id, count(*) as held, count(*) filter (where h.expires_at <= moment) as late, avg(h.progress) as progress
        from (select c.worker_id, c.expires_at, c.progress from public.work_claims c
               where c.status = 'claimed' and c.poll_at is null order by c.expires_at limit 10000) as h
       group by h.worker_id
    ),
    workers as materialized (
      select w.id, w.work_types, w.last_seen_at, coalesce(h.held, 0) as held, coalesce(h.late, 0) as late, h.progress
        from public.work_workers w
        left join held h on h.worker_id = w.id
       where w.retired_at is null and w.last_seen_at > moment - interval '2 minutes'
    )
    select jsonb_build_object(
      'at', moment,
      'types', coalesce((
        select jsonb_agg(to_jsonb(t) || jsonb_build_object('workers', (
                 select count(*) from workers w where w.work_types is null or t.work_type = any (w.work_types)))
                 order by t.work_type)
          from types t), '[]'),
      'held', (select coalesce(sum(h.held), 0) from held h),
      'late', (select coalesce(sum(h.late), 0) from held h),
      'live_workers', (select count(*) from workers),
      'workers', coalesce((
        select jsonb_agg(jsonb_build_object(
                 'id', w.id, 'held', w.held, 'late', w.late, 'progress', round(w.progress::numeric, 3),
                 'last_seen_at', w.last_seen_at) order by w.late desc, w.id)
          from (select * from workers w order by w.late desc, w.id limit 200) as w), '[]'),
      'events', coalesce((
        select jsonb_agg(to_jsonb(e) order by e.id)
          from (select v.id, v.at, v.event, v.work_type, v.item_id, v.worker_id, left(v.detail, 200) as detail
                  from public.work_events v
                 where v.id > coalesce(work_pulse.since_event, 0)
                 order by v.id desc
                 limit 20) as e), '[]')));
end
$$;
comment on function public.work_pulse is
  'One small answer for a monitor, cheap enough to ask every second: work_overview with live workers, at most 200 workers (late ones first), the last 20 events after since_event.';

-- The work for a worker with these capabilities, each number at most so large; null counts all work.
-- Ended waits and leases count as ready: where no worker runs, no call has made them ready. Nothing of a paused work type
-- is ready, or an autoscaler would start workers that leave at once, again and again.
create or replace function public.work_depth(work_type text, capabilities jsonb default null, at_most integer default 10000)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  is_paused boolean;
begin
  select t.paused into is_paused from public.work_types t where t.name = work_depth.work_type;
  if not found then
    perform work.refuse('work_type', work_depth.work_type, 'there is no such work type; see work_overview', 'PT404');
  end if;
  if work_depth.at_most is null or work_depth.at_most not between 1 and 100000 then
    perform work.refuse('at_most', work_depth.at_most::text, '1 to 100000 were expected');
  end if;
  if work_depth.capabilities is not null then
    perform work.check_properties('capabilities', work_depth.capabilities, 65536);
  end if;
  return (
    with matched as materialized (
      select k.id from public.work_classes k
       where work_depth.capabilities is null or work_depth.capabilities @@ k.path
    ),
    ready as (
      select r.due_at
        from matched m
       cross join lateral (
         select c.due_at from public.work_claims c
          where c.class_id = m.id and c.work_type = work_depth.work_type and c.status = 'ready'
          order by c.priority desc, c.rank, c.position
          limit work_depth.at_most) as r
       limit work_depth.at_most
    ),
    due as (
      select w.due_at
        from (select c.due_at, c.work_type, c.class_id from public.work_claims c
               where c.status = 'waiting' and c.due_at <= moment order by c.due_at limit work_depth.at_most) as w
       where w.work_type = work_depth.work_type and w.class_id in (select m.id from matched m)
    ),
    held as (
      select h.due_at, h.expires_at <= moment as is_late, h.poll_at is not null as is_parked
        from (select c.due_at, c.expires_at, c.poll_at, c.work_type, c.class_id from public.work_claims c
               where c.status = 'claimed' order by c.expires_at limit work_depth.at_most) as h
       where h.work_type = work_depth.work_type and h.class_id in (select m.id from matched m)
    ),
    takeable as (
      select r.due_at from ready r
      union all
      select d.due_at from due d
      union all
      select h.due_at from held h where h.is_late
    )
    select jsonb_build_object(
      'ready', case when is_paused then 0 else least(count(*), work_depth.at_most) end,
      'held', (select count(*) from held h where not h.is_late and not h.is_parked),
      'oldest_wait_seconds', coalesce(greatest(0, round(extract(epoch from moment - min(t.due_at))::numeric, 1)), 0))
      from takeable t);
end
$$;
comment on function public.work_depth is
  'What an autoscaler asks: {ready, held, oldest_wait_seconds} of a work type, for a worker with these capabilities (null: any). Numbers stop at at_most; ready is 0 while the work type is paused.';

create or replace view public.work_history with (security_invoker = true) as
select t.span, t.starts_at, t.work_type,
       coalesce(sum(t.amount) filter (where t.measure = 'successes'), 0) as succeeded,
       coalesce(sum(t.amount) filter (where t.measure = 'failures'), 0) as failed,
       coalesce(sum(t.amount) filter (where t.measure = 'losses'), 0) as lost,
       coalesce(sum(t.amount) filter (where t.measure = 'final_failures'), 0) as failed_for_good,
       coalesce(sum(t.amount) filter (where t.measure = 'waited'), 0) / 1000 as waited_seconds,
       coalesce(sum(t.amount) filter (where t.measure = 'ran'), 0) / 1000 as ran_seconds,
       jsonb_object_agg(substr(t.measure, 8), t.amount) filter (where t.measure like 'waited\_%') as waited,
       jsonb_object_agg(substr(t.measure, 5), t.amount) filter (where t.measure like 'ran\_%') as ran
  from work.tallies t
 where t.span in ('minute', 'hour')
 group by t.span, t.starts_at, t.work_type;
comment on view public.work_history is
  'work-claims: how tries ended, per minute for an hour and per hour for 90 days; a few seconds late. waited and ran count successes by how long they took: {"1s": under 1 s, "10s": under 10 s, …}.';

-- 26_match.sql

-- Matching: which live worker can run which item.

-- The head of each lane: the ready claim of a class and a work type that goes first. One probe of the index finds the head of
-- the next lane, so the cost grows with the lanes that have ready claims alone.
create or replace view work.lane_heads with (security_invoker = true) as
with recursive head as (
  (select c.class_id, c.work_type, c.item_id, c.due_at
     from public.work_claims c
    where c.status = 'ready'
    order by c.class_id, c.work_type, c.priority desc, c.rank, c.position
    limit 1)
   union all
  select n.class_id, n.work_type, n.item_id, n.due_at
    from head h
   cross join lateral (
     select c.class_id, c.work_type, c.item_id, c.due_at
       from public.work_claims c
      where c.status = 'ready' and (c.class_id, c.work_type) > (h.class_id, h.work_type)
      order by c.class_id, c.work_type, c.priority desc, c.rank, c.position
      limit 1) as n
)
select h.class_id, h.work_type, h.item_id, h.due_at from head h;
comment on view work.lane_heads is 'work-claims: the head of each lane, that is, of each class and work type with ready claims.';

-- The kinds of live workers: those of one profile that do a work type are one row. `spare` is their capabilities without
-- the exclusive ones; null where none is exclusive.
create or replace view work.live_kinds with (security_invoker = true) as
select t.name as work_type,
       p.id as profile_id,
       count(*) as workers,
       min(w.id) as example_worker,
       p.capabilities,
       p.accepts_path,
       p.accepts_clauses,
       p.exclusive,
       p.yield_seconds,
       case when p.exclusive <> '{}' then work.without(p.capabilities, p.exclusive) end as spare
  from public.work_types t
  join work.live_workers w on w.work_types is null or t.name = any (w.work_types)
  join work.profiles p on p.id = w.profile_id
 group by t.name, p.id;
comment on view work.live_kinds is 'work-claims: how many live workers of each profile do each work type, with their capabilities and conditions.';

-- Why workers of a profile get no item with these clauses and labels, one reason a row. A row with yield_seconds is a
-- delay and no refusal. A lower distance means a number nearer to the clause's.
create or replace function work.reasons_against(profile work.profiles, clauses jsonb, labels jsonb)
returns table (reason text, has text, distance numeric, yield_seconds integer)
language sql
stable
as $$
  with unmet as materialized (
    select 'needs ' || left(c.clause ->> 'needs', 200) as reason,
           jsonb_path_query_array(profile.capabilities, (c.clause ->> 'place')::jsonpath) as found,
           case when c.clause ->> 'needs' like '% <%' then 1 else -1 end as sign
      from jsonb_array_elements(clauses) as c(clause)
     where (profile.capabilities @@ (c.clause ->> 'path')::jsonpath) is not true
     union all
    select 'its labels are not accepted: needs ' || left(c.clause ->> 'needs', 200), null, null
      from jsonb_array_elements(profile.accepts_clauses) as c(clause)
     where (labels @@ (c.clause ->> 'path')::jsonpath) is not true
  )
  select u.reason,
         case jsonb_array_length(u.found)
           when 0 then 'none'
           when 1 then left(coalesce(u.found ->> 0, 'null'), 60)
           else left(u.found::text, 60)
         end,
         case when jsonb_typeof(u.found -> 0) = 'number' then (u.found ->> 0)::numeric * u.sign end,
         null::integer
    from unmet u
   union all
  select 'it needs nothing of what the worker is exclusive about: ' || left(array_to_string(profile.exclusive, ', '), 200),
         null, null, profile.yield_seconds
   where profile.exclusive <> '{}'
     and not exists (select from unmet)
     and not exists (
       select from jsonb_array_elements(clauses) as c(clause)
        where (work.without(profile.capabilities, profile.exclusive) @@ (c.clause ->> 'path')::jsonpath) is not true)
$$;

-- How the live workers of a work type match these clauses and labels; all live workers where the type is null.
-- The closest worker has the fewest other reasons, and of these the nearest number.
create or replace function work.match_report(clauses jsonb, labels jsonb, work_type text)
returns jsonb
language sql
stable
as $$
  with live as materialized (
    select w.id, p as profile
      from work.live_workers w
      join work.profiles p on p.id = w.profile_id
     where match_report.work_type is null or w.work_types is null or match_report.work_type = any (w.work_types)
  ),
  reason as materialized (
    select l.id, r.*, count(*) over (partition by l.id) as reasons
      from live l
     cross join lateral work.reasons_against(l.profile, match_report.clauses, match_report.labels) as r
  ),
  matching as materialized (
    select l.id, r.yield_seconds
      from live l
      left join reason r on r.id = l.id
     where r.id is null or r.yield_seconds is not null
  ),
  failing as (
    select r.reason,
           count(*) as workers,
           count(*) filter (where r.reasons = 1) as only_this,
           (array_agg(r.id order by r.reasons, r.distance nulls last, r.id))[1] as closest_worker,
           (array_agg(r.has order by r.reasons, r.distance nulls last, r.id))[1] as closest_has
      from reason r
     where r.yield_seconds is null
     group by r.reason
     order by only_this desc, workers desc, r.reason
     limit 20
  )
  select jsonb_build_object(
    'live_workers', (select count(*) from live),
    'matching', count(*),
    'yielding', count(m.yield_seconds),
    'yield_seconds', min(m.yield_seconds),
    'matching_workers', coalesce(to_jsonb((array_agg(m.id order by m.id))[:20]), '[]'),
    'yielding_workers',
    coalesce(to_jsonb((array_agg(m.id order by m.id) filter (where m.yield_seconds is not null))[:20]), '[]'),
    'failing', coalesce((select jsonb_agg(f) from failing f), '[]'))
    from matching m
$$;

-- Which live workers would run such an item, for a form that asks before it submits.
create or replace function public.would_match(requires jsonb default '{}', labels jsonb default '{}', work_type text default null)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  form jsonb;
begin
  would_match.requires := coalesce(nullif(would_match.requires, 'null'), '{}');
  would_match.labels := coalesce(nullif(would_match.labels, 'null'), '{}');
  if would_match.work_type is not null then
    perform work.check_name('work_type', would_match.work_type);
  end if;
  perform work.check_properties('labels', would_match.labels, 8192);
  form := work.parse_requirement(would_match.requires, 'requires');
  return jsonb_build_object('tag', form ->> 'tag')
    || work.match_report(form -> 'clauses', would_match.labels, would_match.work_type);
end
$$;
comment on function public.would_match is
  'Answers which live workers would run an item with this requirement and these labels, and which clause fails on how many others. Writes nothing.';

-- A pair is judged when it is read, so that a caller with a page or a filter pays for its own rows.
create or replace view public.work_capability_match with (security_invoker = true) as
with kind as materialized (
  select w.* from work.live_kinds w
),
head as materialized (
  select h.* from work.lane_heads h
)
select h.work_type,
       h.class_id,
       k.requires,
       k.labels,
       w.profile_id,
       w.workers,
       w.example_worker,
       j.meets and (w.yield_seconds is not null or not j.is_spared) as matches,
       j.meets and w.yield_seconds is not null and j.is_spared as yields,
       array(
         select 'needs ' || left(c.clause ->> 'needs', 200)
           from jsonb_array_elements(k.clauses) as c(clause)
          where not j.meets and (w.capabilities @@ (c.clause ->> 'path')::jsonpath) is not true
          union all
         select 'its labels are not accepted: needs ' || left(c.clause ->> 'needs', 200)
           from jsonb_array_elements(w.accepts_clauses) as c(clause)
          where not j.meets and (k.labels @@ (c.clause ->> 'path')::jsonpath) is not true
          union all
         select 'it needs nothing of what the worker is exclusive about: ' || left(array_to_string(w.exclusive, ', '), 200)
          where j.meets and w.yield_seconds is null and j.is_spared) as failing
  from head h
  join kind w on w.work_type = h.work_type
  join public.work_classes k on k.id = h.class_id
 cross join lateral (
   select w.capabilities @@ k.path is true and k.labels @@ w.accepts_path is true as meets,
          w.spare @@ k.path is true as is_spared
   offset 0) as j;
comment on view public.work_capability_match is
  'work-claims: each kind of live worker (one profile) and each lane that it does: how many workers, whether they match, whether they leave its items to others for their yield_seconds, and which clauses fail.';

-- 26_remaining.sql

-- Is there more? For workers that stay until all is done, and for progress bars.

-- Answer the open work of each of these work types, in bounded time however many claims there are. open, done, failed and cancelled
-- are exact; with is_capped the other numbers are lower bounds. Under reopening, claims of an older version are yet to come back.
create or replace function public.work_remaining(work_types text[])
returns json
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
begin
  if work_remaining.work_types is null or cardinality(work_remaining.work_types) not between 1 and 1000 then
    perform work.refuse('work_types', coalesce(cardinality(work_remaining.work_types) || ' long', 'null'),
      'a list of 1 to 1000 work types was expected');
  end if;
  return (
    with overview as materialized (select o.* from work.overview() o),
    parked as materialized (select p.* from work.parked() p),
    due as materialized (
      select w.work_type, min(w.due_at) as due_at
        from (select c.work_type, c.due_at from public.work_claims c where c.status = 'waiting' order by c.due_at limit 10000) as w
       group by w.work_type
    ),
    workers as materialized (
      select w.work_types from public.work_workers w
       where w.retired_at is null and w.last_seen_at > moment - interval '2 minutes'
    )
    select json_agg(json_build_object(
             'work_type', asked.name,
             'is_declared', t.name is not null,
             'ready', coalesce(o.ready, 0),
             'running', greatest(0, coalesce(o.claimed, 0) - coalesce(p.parked, 0)),
             'parked', coalesce(p.parked, 0),
             'waiting', coalesce(o.waiting, 0),
             'waiting_until', d.due_at,
             'blocked', coalesce(o.blocked, 0),
             'open', coalesce(o.open, 0),
             'done', coalesce(o.succeeded, 0),
             'failed', coalesce(o.failed, 0),
             'cancelled', coalesce(o.cancelled, 0),
             'is_capped', coalesce(o.is_capped, false),
             'is_paused', coalesce(t.paused, false),
             'stopped', t.stopped,
             'is_reopening', t.redone_through is not null,
             'workers', (select count(*) from workers w where w.work_types is null or asked.name = any (w.work_types)))
             order by asked.n)
      from unnest(work_remaining.work_types) with ordinality as asked(name, n)
      left join public.work_types t on t.name = asked.name
      left join overview o on o.work_type = asked.name
      left join parked p on p.work_type = asked.name
      left join due d on d.work_type = asked.name);
end
$$;
comment on function public.work_remaining is
  'Answers the open work of each of these work types, in bounded time: [{work_type, is_declared, ready, running, parked, waiting, waiting_until, blocked, open, done, failed, cancelled, is_capped, is_paused, stopped, is_reopening, workers}]. Nothing is left where open is 0; done ones have succeeded.';

-- 27_explain.sql

-- Why an item is not running.

-- What blocked claims wait for, other than whole workflows: the needed claims with their status, null where there is none.
create or replace view work.unmet_needs with (security_invoker = true) as
select c.item_id, c.work_type, d.needs_item_id, d.needs_work_type, k.status as needs_status, k.finished_at as ended_at
  from public.work_claims c
  join public.work_dependencies d on d.item_id = c.item_id and d.work_type = c.work_type
  left join lateral (
    select k.status, k.finished_at from public.work_claims k
     where k.item_id = d.needs_item_id and k.work_type = d.needs_work_type limit 1) as k on true
 where c.status = 'blocked' and d.needs_item_id is not null and not d.is_met
 union all
select c.item_id, c.work_type, c.item_id, n.needs_work_type, k.status, k.finished_at
  from work.type_needs n
  join public.work_claims c on c.work_type = n.work_type
  left join lateral (
    select k.status, k.finished_at from public.work_claims k
     where k.item_id = c.item_id and k.work_type = n.needs_work_type limit 1) as k on true
 where c.status = 'blocked' and not work.is_met(k.status, n.on_failed_need);
comment on view work.unmet_needs is 'work-claims: what blocked claims wait for, with its status.';

-- A need as a person reads it: "extract of the same item (failed)".
create or replace function work.need_in_words(need work.unmet_needs)
returns text
language sql
stable
as $$
  select format('%s of %s (%s)', need.needs_work_type,
    case when need.needs_item_id = need.item_id then 'the same item'
         else 'item ' || coalesce((
           select coalesce(i.dedupe_key, i.source_key) from public.work_items i where i.id = need.needs_item_id), need.needs_item_id::text)
    end,
    coalesce(need.needs_status, 'not enrolled'))
$$;

-- What a blocked claim waits for: a sentence, and at most five of its needs, failed ones first.
create or replace function work.explained_needs(claim public.work_claims)
returns jsonb
language sql
stable
as $$
  with need as materialized (
    select u.needs_item_id as item_id, u.needs_work_type as work_type, u.needs_status as status, null as workflow,
           work.need_in_words(u) as in_words, u.needs_status in ('failed', 'cancelled') as has_ended
      from work.unmet_needs u
     where u.item_id = claim.item_id and u.work_type = claim.work_type
     union all
    select null, null, null, w.name, 'all of workflow ' || w.name, e.is_over
      from public.work_dependencies d
      join public.work_workflows w on w.id = d.needs_workflow_id
     cross join lateral work.workflow_end(w.id) as e
     where d.item_id = claim.item_id and d.work_type = claim.work_type and not d.is_met
     order by 6 desc nulls last, 5
     limit 5
  ),
  told as (
    select min(n.in_words) filter (where n.n = 1) as first,
           jsonb_agg(jsonb_build_object('item_id', n.item_id, 'work_type', n.work_type, 'status', n.status, 'workflow', n.workflow)
             order by n.n) as needs
      from (select need.*, row_number() over () as n from need) as n
  )
  select jsonb_build_object(
           'reason', 'it waits for ' || coalesce(t.first, 'other work') || case
             when claim.waits_for > 2 then format(' and %s others', claim.waits_for - 1)
             when claim.waits_for = 2 then ' and one other' else '' end,
           'needs', coalesce(t.needs, '[]'))
    from told t
$$;

-- Whether a claim waits since its input changes again and again.
create or replace function work.is_guarded(claim public.work_claims)
returns boolean
language sql
immutable
as $$
  select coalesce(claim.changes > 10 and claim.due_at between claim.changed_at and claim.changed_at + interval '1 hour', false)
$$;

-- The facts of one claim, and in `reason` why it does not run or how it ended.
create or replace function work.explained_claim(claim public.work_claims)
returns jsonb
language plpgsql
stable
as $$
declare
  moment timestamptz := clock_timestamp();
  class public.work_classes;
  lease_end timestamptz := case when claim.status = 'claimed' then nullif(claim.expires_at, '-infinity') end;
  is_paused boolean := coalesce((select t.paused from public.work_types t where t.name = claim.work_type), false);
  before integer;
  workers jsonb;
  waits_for jsonb;
begin
  if claim.status = 'blocked' then
    waits_for := work.explained_needs(claim);
  end if;
  if claim.status = 'ready' then
    -- At most 1,001 rows are read, from the head of the lane.
    select count(*) filter (where (-r.priority, r.rank, r.position) < (-claim.priority, claim.rank, claim.position))
      into before
      from (select c.priority, c.rank, c.position
              from public.work_claims c
             where c.work_type = claim.work_type and c.class_id = claim.class_id and c.status = 'ready'
             order by c.priority desc, c.rank, c.position
             limit 1001) as r;
    select * into class from public.work_classes k where k.id = claim.class_id;
    workers := work.match_report(class.clauses, class.labels, claim.work_type);
  end if;
  return jsonb_build_object(
    'work_type', claim.work_type,
    'status', claim.status,
    'reason', case
      when claim.status = 'claimed' then
        case when lease_end > moment and claim.poll_at is not null then 'it is parked: its work is done elsewhere'
             when lease_end > moment then 'a worker holds it' else 'its lease has ended and no worker has called since' end
      when claim.status = 'waiting' then
        case when claim.due_at > moment and work.is_guarded(claim)
               then format('its input changed %s times, each within an hour of the last', claim.changes)
             when claim.due_at > moment then 'it is not due yet' else 'it is due and no worker has called since' end
      when claim.status = 'blocked' then waits_for ->> 'reason'
      when claim.status = 'succeeded' then 'it succeeded'
      when claim.status = 'failed' then 'it failed for good'
      when claim.status = 'cancelled' then 'it was cancelled'
      when is_paused then 'its work type is paused'
      when workers -> 'live_workers' = '0' then 'no live worker does this work type'
      when workers -> 'matching' = '0' then 'no live worker can run it: ' || (workers #>> '{failing,0,reason}')
      when before > 0 then 'others of its lane go before it'
      when workers -> 'matching' = workers -> 'yielding' then 'its workers leave it to others for a while'
      else 'it is the head of its lane'
    end,
    'failures', claim.failures,
    'crashes', claim.crashes,
    'error', left(claim.error, 2000),
    'paused', is_paused,
    'stale', claim.stale,
    'again', case when claim.read_input is not null then 'its input changed while it ran' else claim.again end,
    'waits_for', claim.waits_for,
    'needs', waits_for -> 'needs',
    'due_at', claim.due_at,
    'worker_id', claim.worker_id,
    'claimed_at', claim.claimed_at,
    'progress', claim.progress,
    'parked_as', case when claim.poll_at is not null then claim.external_id end,
    'lease_left_seconds', round(extract(epoch from lease_end - moment)),
    'finished_at', claim.finished_at,
    'before', case when before is not null then least(before, 1000) end,
    'more_before', before > 1000,
    'workers', workers);
end
$$;

-- Why an item is not running, or how it ended: the facts of each of its claims, or of that of one work type.
create or replace function public.explain_item(item_id uuid, work_type text default null)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  item public.work_items;
  class public.work_classes;
  rules public.work_types;
  claims jsonb;
  reason text;
begin
  if explain_item.item_id is null then
    perform work.refuse('item_id', null, 'the id of an item was expected');
  end if;
  if explain_item.work_type is not null then
    perform work.check_name('work_type', explain_item.work_type);
  end if;
  select * into item from public.work_items i where i.id = explain_item.item_id;
  if not found then
    perform work.refuse('item_id', explain_item.item_id::text, 'there is no such item', 'PT404');
  end if;
  select * into class from public.work_classes k where k.id = item.class_id;
  select jsonb_agg(e.claim order by e.work_type), string_agg(e.work_type || ': ' || (e.claim ->> 'reason'), '; ' order by e.work_type)
    into claims, reason
    from (select c.work_type, work.explained_claim(c) as claim
            from public.work_claims c
           where c.item_id = item.id and (explain_item.work_type is null or c.work_type = explain_item.work_type)
          offset 0) as e;
  if claims is null then
    -- Of the named work type, else of any of the item's pool.
    select * into rules
      from public.work_types t
     where t.name = explain_item.work_type or (explain_item.work_type is null and t.pool = item.pool)
     limit 1;
    reason := 'nobody has enrolled it: ' || case
      when rules.name is null and explain_item.work_type is null then 'no work type is declared for its pool'
      when rules.name is null then 'there is no such work type'
      when rules.pool = item.pool then 'enroll_pool() has not come to it'
      when rules.pool is not null then 'the work type is for the pool ' || rules.pool
      else 'the work type has no pool, and no worker has claimed it by its id'
    end;
  end if;
  return jsonb_build_object(
    'item_id', item.id,
    'pool', item.pool,
    'source_key', item.source_key,
    'class_id', item.class_id,
    'tag', class.tag,
    'requires', class.requires,
    'labels', class.labels,
    'run_after', item.run_after,
    'asked_at', clock_timestamp(),
    'reason', reason,
    'claims', coalesce(claims, '[]'));
end
$$;
comment on function public.explain_item is
  'Answers why an item is not running, or how it ended: for each claim a short reason and the facts behind it: who holds it, when it is due, how many go before it in its lane, which clause fails on how many live workers.';

-- 27_stuck.sql

-- Claims that a person looks at: held, failed, stuck.

create or replace view public.work_held with (security_invoker = true) as
select c.item_id,
       c.work_type,
       c.worker_id,
       c.claimed_at,
       clock_timestamp() - c.claimed_at as held_for,
       nullif(c.expires_at, '-infinity') - clock_timestamp() as lease_left,
       c.progress,
       c.fence,
       w.last_seen_at,
       case when c.poll_at is not null then c.external_id end as parked_as
  from public.work_claims c
  left join public.work_workers w on w.id = c.worker_id
 where c.status = 'claimed'
 order by c.claimed_at;
comment on view public.work_held is
  'work-claims: who holds what, since when, and how much of the lease is left; below zero the lease has ended and the next claim call takes it back.';

create or replace view public.work_failures with (security_invoker = true) as
select c.work_type,
       c.item_id,
       i.pool,
       i.source_key,
       c.error,
       c.failures,
       c.crashes,
       c.finished_at,
       c.worker_id
  from public.work_claims c
  join public.work_items i on i.id = c.item_id
 where c.status = 'failed'
 order by c.finished_at desc;
comment on view public.work_failures is
  'work-claims: claims that have failed for good, the newest first, and why. retry_items() reopens them.';

create or replace view public.work_stale with (security_invoker = true) as
select c.work_type,
       c.item_id,
       i.pool,
       i.source_key,
       c.status,
       c.stale as reason,
       c.waits_for,
       c.result
  from public.work_claims c
  join public.work_items i on i.id = c.item_id
 where c.stale is not null;
comment on view public.work_stale is
  'work-claims: claims whose result is out of date, and why: it stays readable until the next one replaces it.';

-- Blocked claims whose need has failed or was cancelled, and those that wait for a workflow of which a part has.
create or replace function work.behind_failed()
returns table (work_type text, item_id uuid, reason text, since timestamptz)
language plpgsql
stable
as $$
begin
  return query
  select u.work_type::text, u.item_id, format('it waits for %s', work.need_in_words(u)), u.ended_at
    from work.unmet_needs u
   where u.needs_status in ('failed', 'cancelled')
   union all
  select d.work_type::text, d.item_id, format('it waits for all of workflow %s, of which a part failed or was cancelled', w.name), null
    from (select w.id, w.name
            from public.work_workflows w
           cross join lateral work.workflow_end(w.id) as e
           where w.is_gathered
             and exists (select from public.work_dependencies n where n.needs_workflow_id = w.id and not n.is_met)
             and e.is_over and not e.is_succeeded
          offset 0) as w
    join public.work_dependencies d on d.needs_workflow_id = w.id and not d.is_met;
end
$$;

-- Unregistered workers may do work that no registered worker does: the view shows it after five minutes.
create or replace view public.work_stuck with (security_invoker = true) as
with kind as materialized (
  select w.* from work.live_kinds w
)
select c.work_type,
       c.item_id,
       'its lease has ended and no worker has called since' as reason,
       nullif(c.expires_at, '-infinity') as since
  from public.work_claims c
 where c.status = 'claimed' and c.expires_at < now() - interval '5 seconds'
 union all
select c.work_type, c.item_id, 'it is due and no worker has called since', c.due_at
  from public.work_claims c
 where c.status = 'waiting' and c.due_at < now() - interval '5 seconds'
 union all
select h.work_type,
       h.item_id,
       case
         when t.paused then 'its work type is paused'
         when not j.has_workers then 'no live worker does this work type'
         when not j.is_matched
           then format('no live worker can run it: it requires %s and shows %s', left(k.requires::text, 200), left(k.labels::text, 200))
         else 'it is the head of its lane, and no worker has taken it for five minutes'
       end,
       h.due_at
  from work.lane_heads h
  join public.work_types t on t.name = h.work_type
  join public.work_classes k on k.id = h.class_id
 cross join lateral (
   select exists (select from kind w where w.work_type = h.work_type) as has_workers,
          -- It ends at the first kind that matches.
          exists (
            select from kind w
             where w.work_type = h.work_type
               and w.capabilities @@ k.path
               and k.labels @@ w.accepts_path
               and (w.yield_seconds is not null or (w.spare @@ k.path) is not true)) as is_matched
   offset 0) as j
 where t.paused or (j.has_workers and not j.is_matched) or h.due_at < now() - interval '5 minutes'
 union all
select c.work_type, c.item_id, format('it fails again and again: %s failures, %s crashes; %s', c.failures, c.crashes, c.error), c.due_at
  from public.work_claims c
 where c.status = 'waiting' and c.due_at >= now() and c.failures > 1
 union all
select c.work_type, c.item_id,
       format('its input changed %s times, each within an hour of the last: does its worker write into its own input columns?', c.changes),
       c.changed_at
  from public.work_claims c
 where c.status = 'waiting' and c.due_at >= now() and work.is_guarded(c)
 union all
select b.work_type, b.item_id, b.reason, b.since from work.behind_failed() b
 union all
select null, null, format('pool %s: %s', b.pool, b.reason), b.since
  from work.broken_pools b;
comment on view public.work_stuck is
  'work-claims: what does not move, and why: ended leases nobody took back, ready work no live worker can run or takes, paused types, what keeps failing, what waits for failed work, what changes without end, pools whose table does not fit any more.';

-- 28_lists.sql

-- Lists: items, claims and workers with everything that people ask about them. PostgREST filters, orders and pages.

create or replace view public.work_item_list with (security_invoker = true) as
select i.id,
       i.seq,
       i.pool,
       i.source_key,
       i.dedupe_key,
       i.priority,
       w.name as workflow,
       i.affinity,
       k.labels,
       k.requires,
       i.run_after,
       i.created_at,
       i.payload
  from public.work_items i
  left join public.work_workflows w on w.id = i.workflow_id
  left join public.work_classes k on k.id = i.class_id;
comment on view public.work_item_list is 'work-claims: items with their labels, requirements and workflow.';

-- The condition on classes is always true; with it a filter on status = ready alone can use work_claims_in_order.
-- item_key is item_id once more, as the item's own column: a page after a key bounds both, so that no plan reads the items
-- before it (a merge join would).
create or replace view public.work_claim_list with (security_invoker = true) as
select c.item_id,
       c.work_type,
       c.status,
       i.pool,
       i.source_key,
       c.priority,
       c.rank,
       c.position,
       w.name as workflow,
       c.affinity,
       k.labels,
       k.requires,
       c.worker_id,
       c.fence,
       c.request_id,
       c.failures,
       c.crashes,
       c.progress,
       c.error,
       c.due_at,
       c.claimed_at,
       c.expires_at,
       case when c.status = 'claimed' then c.expires_at - now() end as lease_left,
       c.finished_at,
       c.result,
       i.id as item_key,
       c.poll_at is not null as parked,
       c.external_id,
       c.state,
       c.stale,
       c.waits_for
  from public.work_claims c
  left join public.work_items i on i.id = c.item_id
  left join public.work_workflows w on w.id = c.workflow_id
  left join public.work_classes k on k.id = c.class_id
 where c.class_id > 0;
comment on view public.work_claim_list is
  'work-claims: claims with their item''s pool, key, labels, requirements and workflow. stale: why its result is out of date; waits_for: how many of its needs are not met. expires_at of a claim that never had a lease is -infinity.';

create or replace view public.work_worker_list with (security_invoker = true) as
select w.id,
       l.id is not null as alive,
       l.id is not null and h.holds is null as free,
       coalesce(h.holds, 0) as holds,
       w.work_types,
       case when w.work_types is not null then
         array(select distinct t.pool from public.work_types t where t.name = any (w.work_types) and t.pool is not null)
       end as pools,
       w.capabilities,
       w.accepts,
       w.exclusive,
       w.yield_seconds,
       w.version,
       w.instance,
       w.registered_at,
       w.last_seen_at,
       w.retired_at
  from public.work_workers w
  left join work.live_workers l on l.id = w.id
  left join (
    select c.worker_id, count(*) as holds
      from public.work_claims c
     where c.status = 'claimed' and c.expires_at > now() and c.poll_at is null
     group by c.worker_id) as h on h.worker_id = w.id;
comment on view public.work_worker_list is
  'work-claims: workers, whether they are alive (heard of within two minutes), free (alive, holding nothing), and how much they hold. No work_types and pools: any.';

create or replace view public.work_taken with (security_invoker = true) as
select c.item_id, c.work_type
  from public.work_claims c
 where c.status in ('succeeded', 'failed', 'cancelled', 'blocked')
    or (c.status = 'claimed' and c.expires_at > now())
    or (c.status = 'waiting' and c.due_at > now());
comment on view public.work_taken is
  'work-claims: items that cannot be claimed for a work type at the moment: done, held, blocked or not due. Embed it in work_items to read those that can.';

-- 29_locks.sql

-- Named locks: a handler that needs a scarce thing takes one of its slots, for as long as its claim is held.
create table if not exists public.work_locks (
  name text collate "C" not null check (length(name) between 1 and 300),
  slot integer not null check (slot between 1 and 1000),
  item_id uuid not null,
  work_type text collate "C" not null,
  claim_fence bigint not null,
  fence bigint not null default nextval('work.fence'),
  taken_at timestamptz not null default clock_timestamp(),
  primary key (name, slot)
);
comment on table public.work_locks is
  'work-claims: which claim took which slot of a lock. A row counts only while its claim is held under that fence: see work_lock_list.';
comment on column public.work_locks.claim_fence is 'The fence of the claim that took it.';
comment on column public.work_locks.fence is 'New each time the slot is taken: a write elsewhere can carry it.';
create index if not exists work_locks_by_age on public.work_locks (taken_at);
comment on index public.work_locks_by_age is 'Which lock was taken the longest ago?';

-- Which locks are held. A lease that has ended holds its locks until the claim is taken back: its holder may extend it still.
create or replace view work.live_locks with (security_invoker = true) as
select l.name, l.slot, l.item_id, l.work_type, l.claim_fence, l.fence, l.taken_at, c.worker_id, c.expires_at
  from public.work_locks l
 cross join lateral (
   select k.worker_id, k.expires_at, k.status, k.fence, k.poll_at
     from public.work_claims k
    where k.item_id = any (array[l.item_id]) and k.work_type = l.work_type
    limit 1) as c
 where c.status = 'claimed' and c.fence = l.claim_fence and c.poll_at is null;
comment on view work.live_locks is 'work-claims: the locks whose claim is held.';

create or replace view public.work_lock_list with (security_invoker = true) as
select l.name, l.slot, l.item_id, l.work_type, l.worker_id, l.fence, l.taken_at, l.expires_at - now() as lease_left
  from work.live_locks l
 order by l.name, l.slot;
comment on view public.work_lock_list is 'work-claims: which claim holds which slot of which lock, and since when.';

-- Delete rows of locks that nobody holds, of the 100 that were taken the longest ago.
create or replace function work.forget_locks()
returns void
language plpgsql
as $$
begin
  delete from public.work_locks l
   where l.ctid = any (array(
           select o.ctid
             from (select a.name, a.slot from public.work_locks a order by a.taken_at limit 100) as oldest
             join public.work_locks o on o.name = oldest.name and o.slot = oldest.slot
            where not exists (select from work.live_locks h where h.name = o.name and h.slot = o.slot)
              for update of o skip locked));
end
$$;

-- Take a slot of a lock for a claim: {slot, fence}, null where each slot is held, "lost" where the claim is not held under
-- this fence. A claim that has a slot of this lock is answered with it again.
create or replace function public.take_lock(
  name text, slots integer, item_id uuid, work_type text, worker_id text, fence bigint)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  answer json;
begin
  perform work.check_lock(take_lock.name, take_lock.item_id, take_lock.work_type, take_lock.worker_id, take_lock.fence);
  if take_lock.slots is null then
    perform work.refuse('slots', null, '1 to 1000 were expected');
  end if;
  perform work.check_range('slots', take_lock.slots, 1, 1000);
  if not exists (
    select from public.work_claims c
     where c.item_id = any (array[take_lock.item_id]) and c.work_type = take_lock.work_type
       and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', take_lock.worker_id, take_lock.fence)
       and c.poll_at is null and c.expires_at > clock_timestamp()) then
    perform work.record_stale(take_lock.worker_id, 'stale_lock', jsonb_build_array(jsonb_build_object(
      'item_id', take_lock.item_id, 'work_type', take_lock.work_type, 'fence', take_lock.fence,
      'detail', format('it asked for the lock %s too late', take_lock.name))));
    return to_json('lost'::text);
  end if;
  -- One call at a time takes slots of one name.
  perform pg_advisory_xact_lock(hashtextextended('work-claims lock ' || take_lock.name, 0));
  perform work.forget_locks();
  -- A lease that has ended frees its slot with the claim, in one step. A claim that is being extended stays held.
  perform work.reap(0, array_agg(h.item_id), array_agg(h.work_type))
     from work.live_locks h
    where h.name = take_lock.name and h.expires_at <= clock_timestamp()
   having count(*) > 0;

  select json_build_object('slot', h.slot, 'fence', h.fence) into answer
    from work.live_locks h
   where h.name = take_lock.name and h.item_id = take_lock.item_id and h.work_type = take_lock.work_type
     and h.claim_fence = take_lock.fence;
  if found or (select count(*) from work.live_locks h where h.name = take_lock.name) >= take_lock.slots then
    return answer;
  end if;
  insert into public.work_locks as l (name, slot, item_id, work_type, claim_fence)
  select take_lock.name, s.slot, take_lock.item_id, take_lock.work_type, take_lock.fence
    from generate_series(1, take_lock.slots) as s(slot)
   where not exists (select from work.live_locks h where h.name = take_lock.name and h.slot = s.slot)
   order by s.slot
   limit 1
  on conflict (name, slot) do update
     set item_id = excluded.item_id, work_type = excluded.work_type, claim_fence = excluded.claim_fence,
         fence = excluded.fence, taken_at = excluded.taken_at
  returning json_build_object('slot', l.slot, 'fence', l.fence) into answer;
  return answer;
end
$$;
comment on function public.take_lock is
  'Takes one of so many slots of a named lock for a claim: {slot, fence}, null where each is held, "lost" where the claim is not held under this fence. The slot is free again after drop_lock(), or when the claim ends in any way.';

-- Free the slot that a claim has of a lock; true where it had one. Its end frees it too.
create or replace function public.drop_lock(name text, item_id uuid, work_type text, worker_id text, fence bigint)
returns boolean
language plpgsql
as $$
#variable_conflict use_column
begin
  perform work.check_lock(drop_lock.name, drop_lock.item_id, drop_lock.work_type, drop_lock.worker_id, drop_lock.fence);
  delete from public.work_locks l
   where l.name = drop_lock.name and l.item_id = drop_lock.item_id and l.work_type = drop_lock.work_type
     and l.claim_fence = drop_lock.fence
     and exists (
       select from public.work_claims c
        where c.item_id = any (array[drop_lock.item_id]) and c.work_type = drop_lock.work_type
          and (c.worker_id, c.fence) is not distinct from (drop_lock.worker_id, drop_lock.fence));
  return found;
end
$$;
comment on function public.drop_lock is 'Frees the slot of a named lock that a claim has taken. True where it had one.';

-- Refuse wrong arguments of take_lock() and drop_lock().
create or replace function work.check_lock(name text, item_id uuid, work_type text, worker_id text, fence bigint)
returns void
language plpgsql
as $$
begin
  if name is null or length(name) not between 1 and 300 then
    perform work.refuse('name', name, 'a name of 1 to 300 characters was expected');
  end if;
  if item_id is null then
    perform work.refuse('item_id', null, 'the id of the claimed item was expected');
  end if;
  perform work.check_name('work_type', work_type);
  perform work.check_name('worker_id', worker_id);
  if fence is null then
    perform work.refuse('fence', null, 'the fence that the claim came with was expected');
  end if;
end
$$;

-- 29_wake.sql

-- Waking: connections that LISTEN are told of claims that became ready or ended.
create table if not exists work.listeners (
  id uuid primary key,
  event text not null check (event in ('ready', 'ended')),
  listens_until timestamptz not null
);
comment on table work.listeners is
  'Who listens on the channels work_ready and work_ended, and until when. A notification is sent only while someone does.';

-- Listen for some seconds more. The caller runs LISTEN itself, and calls this again before the time is over.
create or replace function work.listen(id uuid, event text, seconds integer default 60)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  delete from work.listeners l
   where l.id = any (array(
           select o.id from work.listeners o
            where o.listens_until < clock_timestamp() - interval '1 minute'
            limit 100
              for update skip locked));
  insert into work.listeners (id, event, listens_until)
  values (listen.id, listen.event, clock_timestamp() + make_interval(secs => listen.seconds))
  on conflict on constraint listeners_pkey do update set listens_until = excluded.listens_until;
end
$$;

-- Listen no more.
create or replace function work.unlisten(id uuid)
returns void
language plpgsql
as $$
begin
  delete from work.listeners l where l.id = unlisten.id;
end
$$;

-- Send the names as a JSON array; an empty text where any may be meant. Postgres takes less than 8,000 bytes, and sends
-- equal notifications of one transaction once.
create or replace function work.notify_listeners(event text, names text[])
returns void
language plpgsql
as $$
declare
  payload text := coalesce(array_to_json(names)::text, '');
begin
  perform pg_notify('work_' || event, case when octet_length(payload) < 8000 then payload else '' end);
end
$$;

-- Tell workers that listen that claims of these work types became ready; null: of any. Without a listener it only looks.
create or replace function work.wake_workers(work_types text[])
returns void
language plpgsql
as $$
begin
  if exists (select from work.listeners l where l.event = 'ready' and l.listens_until > clock_timestamp()) then
    perform work.notify_listeners('ready', work_types);
  end if;
end
$$;

-- Tell those who wait for results that claims of these items may have ended.
create or replace function work.wake_waiting(outcomes jsonb)
returns void
language plpgsql
as $$
begin
  if exists (select from work.listeners l where l.event = 'ended' and l.listens_until > clock_timestamp()) then
    perform work.notify_listeners('ended', array(
      select distinct o.item_id from jsonb_to_recordset(outcomes) as o(item_id text) where o.item_id is not null));
  end if;
end
$$;

-- 99_rights_and_settings.sql

-- All rights and settings of the objects above. service_role may work; others may do nothing,
-- whichever default privileges the project has.

-- Private objects: the schema is closed to others.
revoke all on schema work from public, anon, authenticated;
revoke all on all sequences in schema work from public, anon, authenticated, service_role;
revoke execute on all functions in schema work from public, anon, authenticated;
grant usage on schema work to service_role;
grant usage, select on all sequences in schema work to service_role;
grant execute on all functions in schema work to service_role;
revoke all on type public.work_claim_status from public, anon, authenticated;

do $$
declare
  public_functions constant text[] := array[
    'add_needs', 'attach_pool', 'cancel_items', 'claim_items', 'claim_next', 'define_pool', 'define_work_type', 'define_workflow', 'describe_work_types',
    'detach_pool', 'drop_lock', 'enqueue_items', 'enroll_pool', 'explain_item', 'extend_claims', 'finish_and_claim', 'invalidate_items',
    'prune_classes', 'prune_finished', 'reap_expired_claims', 'refused_classes', 'register_worker', 'reread_claim',
    'release_claims_for_worker', 'release_item', 'release_items', 'release_parked', 'retire_worker', 'retry_items', 'set_priority',
    'take_lock', 'take_parked', 'work_depth', 'work_pulse', 'work_remaining', 'would_match'];
  -- A table or view of ours in public says so in its comment.
  relation record;
  function record;
begin
  for relation in
    select c.oid::regclass as name, c.relkind as kind
      from pg_class c
     where c.relkind in ('r', 'v')
       and (c.relnamespace = 'work'::regnamespace
         or (c.relnamespace = 'public'::regnamespace and obj_description(c.oid, 'pg_class') like 'work-claims:%'))
  loop
    execute format('revoke all on %s from public, anon, authenticated, service_role', relation.name);
    if relation.kind = 'v' then
      execute format('grant select on %s to service_role', relation.name);
      -- Without it Postgres fails a write to a view that joins before it checks any right: an error of the server's.
      execute format(
        'create or replace trigger read_only instead of insert or update or delete on %s '
        'for each row execute function work.refuse_write()', relation.name);
    else
      execute format('grant select, insert, update, delete on %s to service_role', relation.name);
      execute format('alter table %s enable row level security', relation.name);
      execute format('drop policy if exists service_role_works on %s', relation.name);
      execute format('create policy service_role_works on %s to service_role using (true) with check (true)', relation.name);
    end if;
  end loop;

  -- A sequence behind an identity column gets default privileges of its own, and no role needs any.
  for relation in
    select s.oid::regclass as name
      from pg_class s
      join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.deptype = 'i'
     where s.relkind = 'S'
       and (s.relnamespace = 'work'::regnamespace
         or (s.relnamespace = 'public'::regnamespace and obj_description(d.refobjid, 'pg_class') like 'work-claims:%'))
  loop
    execute format('revoke all on sequence %s from public, anon, authenticated, service_role', relation.name);
  end loop;

  for function in
    select p.oid::regprocedure as name, p.pronamespace = 'public'::regnamespace as is_public
      from pg_proc p
     where p.pronamespace = 'work'::regnamespace
        or (p.pronamespace = 'public'::regnamespace and p.proname = any (public_functions))
  loop
    -- pg_catalog first and pg_temp last: with an empty search_path a caller's temporary types would be found first.
    execute format('alter function %s set search_path = pg_catalog, pg_temp', function.name);
    if function.is_public then
      execute format('revoke execute on function %s from public, anon, authenticated', function.name);
      execute format('grant execute on function %s to service_role', function.name);
    end if;
  end loop;
end
$$;

-- Planner settings: a plan that was right for ten rows must not scan a table of millions later. Reasons and figures are in
-- docs/decisions/plans-that-hold.md.
do $$
declare
  -- Each statement finds its rows by key or along an index.
  by_key constant text[] := array[
    'public.add_needs', 'public.cancel_items', 'public.claim_items', 'public.claim_next', 'public.drop_lock', 'public.enqueue_items',
    'public.extend_claims', 'public.finish_and_claim', 'public.invalidate_items', 'public.prune_classes', 'public.prune_finished', 'public.reap_expired_claims',
    'public.refused_classes', 'public.release_claims_for_worker', 'public.release_item', 'public.release_items',
    'public.release_parked', 'public.reread_claim', 'public.retry_items', 'public.set_priority', 'public.take_lock', 'public.take_parked', 'work.count_needs', 'work.enroll',
    'work.enroll_new_items', 'work.forget_locks', 'work.forget_needs', 'work.note_changes', 'work.key_sql', 'work.mirror_rows', 'work.move_workflow', 'work.prune_events', 'work.row_sql'];
  -- They may hash rows that they got, and read tables along an index.
  by_index constant text[] := array[
    'public.enroll_pool', 'work.behind_failed', 'work.explained_claim', 'work.lock_claims_of_item', 'work.mirror_deleted', 'work.mirror_written',
    'work.move_open_claims', 'work.overview', 'public.work_pulse', 'public.work_depth', 'public.describe_work_types',
    'work.fold_tallies', 'work.parked', 'public.work_remaining'];
  -- Times become text in keys and cursors, the same text for everyone.
  in_utc constant text[] := array[
    'public.enroll_pool', 'work.fold_tallies', 'work.mirror_deleted', 'work.mirror_written'];
  -- A person calls them: they give up on a lock rather than delay other calls.
  impatient constant text[] := array[
    'public.add_needs', 'public.attach_pool', 'public.cancel_items', 'public.claim_items', 'public.claim_next', 'public.define_work_type',
    'public.define_workflow', 'public.detach_pool', 'public.drop_lock', 'public.enqueue_items', 'public.enroll_pool', 'public.extend_claims',
    'public.finish_and_claim', 'public.invalidate_items', 'public.refused_classes', 'public.register_worker', 'public.release_claims_for_worker',
    'public.release_item', 'public.release_items', 'public.release_parked', 'public.reread_claim', 'public.retry_items', 'public.set_priority',
    'public.take_lock', 'public.take_parked'];
  named record;
begin
  for named in
    select l.setting, l.value, p.oid::regprocedure as name
      from (values
        (by_key, 'plan_cache_mode', 'force_generic_plan'),
        (by_key || by_index, 'jit', 'off'),
        (by_key || by_index, 'enable_seqscan', 'off'),
        (by_key || by_index, 'enable_bitmapscan', 'off'),
        (by_key, 'enable_hashjoin', 'off'),
        (by_key, 'enable_mergejoin', 'off'),
        (array['work.move_open_claims'], 'enable_hashjoin', 'on'),
        (array['public.enroll_pool'], 'enable_bitmapscan', 'on'),
        (in_utc, 'timezone', 'UTC'),
        (impatient, 'lock_timeout', '5s'),
        (array['public.prune_classes'], 'lock_timeout', '1s'),
        -- A release that waits for a person's row gives way before Postgres looks for a deadlock, after a second.
        (array['work.lock_rows'], 'lock_timeout', '500ms'),
        (array['work.unplain'], 'lock_timeout', '2s'),
        -- The first rows in order come from the index that has the order, never from sorting all that is ready.
        (array['work.lock_ahead', 'work.lock_range', 'work.open_items', 'work.overview', 'work.parked', 'public.work_depth', 'public.work_remaining'], 'enable_sort', 'off'),
        (array['work.match_report'], 'jit', 'off'),
        -- A person's function has the planner of a session.
        (array['work.call_apply'], 'plan_cache_mode', 'auto'),
        (array['work.call_apply'], 'enable_seqscan', 'on'),
        (array['work.call_apply'], 'enable_bitmapscan', 'on'),
        (array['work.call_apply'], 'enable_hashjoin', 'on'),
        (array['work.call_apply'], 'enable_mergejoin', 'on')) as l(functions, setting, value)
     cross join lateral unnest(l.functions) as f(name)
      join pg_proc p on p.oid = f.name::regproc
  loop
    execute format('alter function %s set %I = %L', named.name, named.setting, named.value);
  end loop;
end
$$;

-- A person's function and the triggers of a person's table find tables and types by name, as in a session.
alter function work.call_apply(regprocedure, jsonb, jsonb) set search_path = public, extensions, pg_temp;
alter function work.write_results(text, jsonb) set search_path = public, extensions, pg_temp;

notify pgrst, 'reload schema';
