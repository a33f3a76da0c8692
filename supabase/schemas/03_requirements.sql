-- Requirements: what an item asks of a worker's capabilities, and a worker of an item's labels. Each is compiled to a
-- jsonpath, which Postgres itself judges: capabilities @@ path.
--
-- A clause is {"text", "path", "needs"}: its canonical text, its jsonpath, and what it asks in words. A comparison also
-- has "place", the jsonpath of what is compared; an alternative "any", a list of forms; a negation "not", a form.
-- A form is what holds when all of its clauses hold: {"text", "path", "needs", "clauses"}, sorted and without repeats.
-- src/requirement/ does the same in TypeScript, sentence for sentence.

create or replace function work.refuse_requirement(at text, sentence text)
returns void
language plpgsql
immutable
parallel safe
as $$
begin
  raise exception using errcode = 'PT400', message = concat_ws(': ', nullif(at, ''), sentence);
end
$$;

-- A number as it is written without exponent and idle zeros. Null for one that a double does not carry digit by digit:
-- it would be another number for a caller in JavaScript.
create or replace function work.plain_number(given jsonb)
returns text
language plpgsql
immutable
parallel safe
as $$
declare
  number numeric := trim_scale(given::numeric);
begin
  if abs(number) < 1e15 and scale(number) <= 15 and length(ltrim(translate(number::text, '-.', ''), '0')) <= 15 then
    return number::text;
  end if;
  return null;
end
$$;
comment on function work.plain_number is 'A JSON number in its shortest plain spelling; null beyond 15 digits.';

create or replace function work.shown_value(given jsonb)
returns text
language plpgsql
immutable
parallel safe
as $$
begin
  return case jsonb_typeof(given)
    when 'object' then 'an object'
    when 'array' then case when given = '[]' then 'an empty list' else 'a list' end
    when 'number' then coalesce(work.plain_number(given), 'a number')
    when 'string' then
      case
        when length(given #>> '{}') > 60 then to_jsonb(left(given #>> '{}', 60) || '…')::text
        else given::text
      end
    else given::text
  end;
end
$$;

-- Before all else, so that nothing further has to fear what is long or deep.
create or replace function work.check_requirement_size(at text, requirement jsonb)
returns boolean
language plpgsql
immutable
parallel safe
as $$
begin
  if octet_length(requirement::text) > 16384 then
    perform work.refuse_requirement(at, 'a requirement has at most 16384 bytes as JSON');
  end if;
  if jsonb_path_exists(requirement, 'strict $.**{10 to last} ? (@.type() == "object" || @.type() == "array")') then
    perform work.refuse_requirement(at, 'a requirement nests at most 10 deep');
  end if;
  -- What is empty counts too: a list of thousands of empty objects would be slow to read.
  if jsonb_array_length(jsonb_path_query_array(
    requirement,
    'strict $.** ? (!(@.type() == "object" && exists(@.*)) && !(@.type() == "array" && @.size() > 0))')) > 100 then
    perform work.refuse_requirement(at, 'a requirement has at most 100 values');
  end if;
  return true;
end
$$;

-- The dotted name of what is compared. `path` is the name it is nested in, '' at the top.
create or replace function work.requirement_name(at text, path text, name text)
returns text
language plpgsql
immutable
parallel safe
as $$
declare
  full_name text := concat_ws('.', nullif(path, ''), name);
  segments text[] := string_to_array(name, '.');
  word text;
begin
  if name = '' or length(full_name) > 200 then
    perform work.refuse_requirement(
      at, 'a name has 1 to 200 characters with those it is nested in, got ' || work.shown_value(to_jsonb(name)));
  end if;
  if '' = any (segments) then
    perform work.refuse_requirement(
      at, 'a name has something on both sides of a dot, got ' || work.shown_value(to_jsonb(name)));
  end if;
  if segments && array['any', 'all', 'not', 'in', 'exists', '==', '!=', '<', '<=', '>', '>='] then
    select segment into word
      from unnest(segments) segment
     where segment in ('any', 'all', 'not', 'in', 'exists', '==', '!=', '<', '<=', '>', '>=')
     limit 1;
    perform work.refuse_requirement(
      at, word || ' is a word of the language and no part of a name, got ' || work.shown_value(to_jsonb(name)));
  end if;
  return full_name;
end
$$;
comment on function work.requirement_name is 'The dotted name below a prefix; refuses what is no name.';

create or replace function work.escaped(given text)
returns text
language plpgsql
immutable
parallel safe
as $$
begin
  return regexp_replace(given, '([\\,=<>()|?"!])', '\\\1', 'g');
end
$$;

-- JSON's escapes hold no dot, so each dot is the text's own: a dotted name becomes a quoted key for each segment.
create or replace function work.jsonpath_place(path text)
returns text
language plpgsql
immutable
parallel safe
as $$
begin
  return '$.' || replace(to_jsonb(path)::text, '.', '"."');
end
$$;

-- The clause `path operator value`: the operator is one of == < <= > >=, the value a text, a number or a boolean.
create or replace function work.comparison(at text, path text, operator text, value jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
as $$
declare
  place text := work.jsonpath_place(path);
  canonical text := value::text;
  literal text := value::text;
  words text := value::text;
  content text;
begin
  if jsonb_typeof(value) = 'string' then
    content := value #>> '{}';
    if length(content) > 500 then
      perform work.refuse_requirement(at, 'a text has at most 500 characters');
    end if;
    canonical := work.escaped(content);
    -- Quotes only where a person could take the text for something else.
    if content ~ '^[A-Za-z_][A-Za-z0-9_.:/-]*$' and content not in ('true', 'false', 'and') then
      words := content;
    end if;
  elsif jsonb_typeof(value) = 'number' then
    literal := work.plain_number(value);
    if literal is null then
      perform work.refuse_requirement(at, 'a number is below 1e15 and has at most 15 digits and 15 decimals');
    end if;
    canonical := literal;
    words := literal;
  end if;
  return jsonb_build_object(
    'text', work.escaped(path) || case
      when content is null then operator || canonical
      when operator = '==' then '=' || canonical
      else operator || '"' || canonical || '"'
    end,
    'path', place || ' ' || operator || ' ' || literal,
    'needs', path || ' ' || case operator when '==' then '=' else operator end || ' ' || words,
    'place', place
  );
end
$$;

-- The form of clauses that must all hold. None hold always.
create or replace function work.all_of(clauses jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
as $$
declare
  form jsonb;
begin
  select jsonb_build_object(
           'text', string_agg(clause ->> 'text', ','),
           'path', string_agg(clause ->> 'path', ' && '),
           'needs', case
             when count(*) = 1 then min(clause ->> 'needs')
             else string_agg(
               case when clause ? 'any' then '(' || (clause ->> 'needs') || ')' else clause ->> 'needs' end, ' and ')
           end,
           'clauses', jsonb_agg(clause)
         )
    into form
    from (
      select distinct on (clause ->> 'text' collate "C") clause
        from jsonb_array_elements(clauses) clause
       order by clause ->> 'text' collate "C"
    ) sorted
  having count(*) > 0;
  return coalesce(form, '{"text": "", "path": "1 == 1", "needs": "anything", "clauses": []}');
end
$$;

-- The clauses of forms of which at least one must hold: none where one holds always, its own where there is but one.
create or replace function work.any_of(options jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
as $$
declare
  option jsonb;
  flat jsonb := '[]';
  clause jsonb;
begin
  for option in select * from jsonb_array_elements(options) loop
    if option ->> 'text' = '' then
      return '[]';
    end if;
    -- Alternatives in an alternative are one list of them.
    flat := flat || case
      when jsonb_array_length(option -> 'clauses') = 1 and option -> 'clauses' -> 0 ? 'any'
        then option -> 'clauses' -> 0 -> 'any'
      else jsonb_build_array(option)
    end;
  end loop;
  select jsonb_build_object(
           'text', 'any(' || string_agg(possible ->> 'text', '|') || ')',
           'path', '(' || string_agg(possible ->> 'path', ' || ') || ')',
           'needs', 'one of: ' || string_agg(possible ->> 'needs', ', '),
           'any', jsonb_agg(possible)
         )
    into clause
    from (
      select distinct on (possible ->> 'text' collate "C") possible
        from jsonb_array_elements(flat) possible
       where possible ->> 'text' <> 'not()'
       order by possible ->> 'text' collate "C"
    ) sorted
  having count(*) > 0;
  -- All that is left is what never holds.
  clause := coalesce(clause, jsonb_build_object('any', jsonb_build_array(flat -> 0)));
  return case
    when jsonb_array_length(clause -> 'any') = 1 then clause -> 'any' -> 0 -> 'clauses'
    else jsonb_build_array(clause)
  end;
end
$$;

create or replace function work.not_of(form jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
as $$
begin
  if jsonb_array_length(form -> 'clauses') = 1 and form -> 'clauses' -> 0 ? 'not' then
    return form -> 'clauses' -> 0 -> 'not' -> 'clauses';
  end if;
  return jsonb_build_array(jsonb_build_object(
    'text', 'not(' || (form ->> 'text') || ')',
    'path', '!(' || (form ->> 'path') || ')',
    'needs', 'not (' || (form ->> 'needs') || ')',
    'not', form
  ));
end
$$;
comment on function work.not_of is 'The clauses in which this form does not hold; a negation of a negation is what it was.';

-- The clauses of `{"operator": operand}` about a path.
create or replace function work.operator_clauses(at text, path text, operator text, operand jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
as $$
declare
  given text := jsonb_typeof(operand);
  options jsonb := '[]';
  element jsonb;
begin
  if operator = 'exists' then
    if given <> 'boolean' then
      perform work.refuse_requirement(at, 'expected true or false, got ' || work.shown_value(operand));
    end if;
    options := jsonb_build_array(jsonb_build_object(
      'text', work.escaped(path) || '?',
      'path', 'exists(' || work.jsonpath_place(path) || ')',
      'needs', path || ' is there',
      'place', work.jsonpath_place(path)
    ));
    return case when operand::boolean then options else work.not_of(work.all_of(options)) end;
  elsif operator = 'in' then
    if given <> 'array' or operand = '[]' then
      perform work.refuse_requirement(
        at, 'expected a list of one or more texts, numbers or booleans, got ' || work.shown_value(operand));
    end if;
    for index in 0 .. jsonb_array_length(operand) - 1 loop
      options := options
        || work.all_of(work.contained_clauses(at || '[' || index || ']', path, operand -> index));
    end loop;
    return work.any_of(options);
  elsif operator in ('==', '!=') then
    options := work.contained_clauses(at, path, operand);
    return case operator when '==' then options else work.not_of(work.all_of(options)) end;
  end if;
  if given not in ('number', 'string') then
    perform work.refuse_requirement(at, 'expected a number or a text, got ' || work.shown_value(operand));
  end if;
  return jsonb_build_array(work.comparison(at, path, operator, operand));
end
$$;
comment on function work.operator_clauses is 'The clauses of one operator about a path; refuses an operand of another type.';

create or replace function work.contained_clauses(at text, path text, value jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
as $$
begin
  if jsonb_typeof(value) not in ('string', 'number', 'boolean') then
    perform work.refuse_requirement(at, 'expected a text, a number or a boolean, got ' || work.shown_value(value));
  end if;
  return jsonb_build_array(work.comparison(at, path, '==', value));
end
$$;

-- The clauses of `{"name": condition}`, where path is the whole dotted name.
create or replace function work.condition_clauses(at text, path text, condition jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
as $$
declare
  operators constant text[] := array['==', '!=', '<', '<=', '>', '>=', 'in', 'exists'];
  given text := jsonb_typeof(condition);
  clauses jsonb := '[]';
  name text;
  operand jsonb;
begin
  if given = 'string' or given = 'boolean' then
    if condition = '"all"' then
      return '[]';
    end if;
    return jsonb_build_array(work.comparison(at, path, '==', condition));
  elsif given = 'number' then
    return jsonb_build_array(work.comparison(at, path, '>=', condition));
  elsif given = 'array' then
    for index in 0 .. jsonb_array_length(condition) - 1 loop
      clauses := clauses || work.contained_clauses(at || '[' || index || ']', path, condition -> index);
    end loop;
    return clauses;
  elsif given = 'null' then
    perform work.refuse_requirement(at, 'expected a text, a number, a boolean, a list or an object, got null');
  elsif not condition ?| operators then
    return work.requirement_form(at, path, condition) -> 'clauses';
  end if;
  for name, operand in select * from jsonb_each(condition) loop
    if name <> all (operators) then
      perform work.refuse_requirement(
        at, 'operators do not mix with other members in one object, got ' || work.shown_value(to_jsonb(name)));
    end if;
    clauses := clauses || work.operator_clauses(at || '.' || name, path, name, operand);
  end loop;
  return clauses;
end
$$;

-- The form of a requirement about the names below a path, '' for all names.
create or replace function work.requirement_form(at text, path text, requirement jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
as $$
declare
  clauses jsonb := '[]';
  options jsonb;
  name text;
  value jsonb;
  here text;
begin
  if jsonb_typeof(requirement) <> 'object' then
    perform work.refuse_requirement(at, 'expected an object, got ' || work.shown_value(requirement));
  end if;
  for name, value in select * from jsonb_each(requirement) loop
    here := concat_ws('.', nullif(at, ''), name);
    if name in ('any', 'all') then
      if jsonb_typeof(value) <> 'array' or (name = 'any' and value = '[]') then
        perform work.refuse_requirement(
          here,
          'expected a list of ' || case name when 'any' then 'one or more ' else '' end || 'objects, got '
            || work.shown_value(value));
      end if;
      options := '[]';
      for index in 0 .. jsonb_array_length(value) - 1 loop
        options := options || work.requirement_form(here || '[' || index || ']', path, value -> index);
      end loop;
      if name = 'any' then
        clauses := clauses || work.any_of(options);
      else
        clauses := clauses || jsonb_path_query_array(options, '$[*].clauses[*]');
      end if;
    elsif name = 'not' then
      clauses := clauses || work.not_of(work.requirement_form(here, path, value));
    elsif name in ('==', '!=', '<', '<=', '>', '>=', 'in', 'exists') then
      perform work.refuse_requirement(
        here, 'an operator stands in the object of a name, as in {"memory_gb": {">=": 20}}');
    else
      clauses := clauses || work.condition_clauses(here, work.requirement_name(at, path, name), value);
    end if;
  end loop;
  return work.all_of(clauses);
end
$$;
comment on function work.requirement_form is 'The form of a requirement; refuses what is none.';

-- One form answers for the canonical text, the path and the clauses. `argument` is how sentences call the requirement.
create or replace function work.parse_requirement(requirement jsonb, argument text default '')
returns jsonb
language plpgsql
immutable
strict
parallel safe
as $$
declare
  form jsonb;
begin
  perform work.check_requirement_size(argument, requirement);
  form := work.requirement_form(argument, '', requirement);
  return form || jsonb_build_object('tag', 'c:' || (form ->> 'text'), 'clauses', work.parts_of(form));
end
$$;
comment on function work.parse_requirement is
  'A requirement as {"text", "path", "needs", "clauses"}; refuses with PT400 and one sentence what is none.';

create or replace function work.compile_requirement(requirement jsonb, argument text default '')
returns jsonpath
language plpgsql
immutable
strict
parallel safe
as $$
begin
  return (work.parse_requirement(requirement, argument) ->> 'path')::jsonpath;
end
$$;

create or replace function work.canonical_requirement(requirement jsonb, argument text default '')
returns text
language plpgsql
immutable
strict
parallel safe
as $$
begin
  return 'c:' || (work.parse_requirement(requirement, argument) ->> 'text');
end
$$;

-- The clauses of a form without the forms inside them: what it takes to judge each and to say what it needs.
create or replace function work.parts_of(form jsonb)
returns jsonb
language sql
immutable
strict
parallel safe
as $$
  select coalesce(jsonb_agg(clause - '{any,not}'::text[] order by n), '[]')
    from jsonb_array_elements(form -> 'clauses') with ordinality as clauses(clause, n)
$$;

-- Why capabilities do not meet a requirement; an empty list where they do.
create or replace function work.failing_clauses(requirement jsonb, capabilities jsonb)
returns jsonb
language plpgsql
immutable
strict
parallel safe
as $$
declare
  form jsonb := work.parse_requirement(requirement);
begin
  return coalesce((
    select jsonb_agg(
             jsonb_build_object(
               'clause', clause ->> 'text',
               'needs', clause ->> 'needs',
               'has', case jsonb_array_length(there) when 0 then null when 1 then there -> 0 else there end
             ) order by place
           )
      from jsonb_array_elements(form -> 'clauses') with ordinality as clauses(clause, place)
      cross join lateral coalesce(
        jsonb_path_query_array(capabilities, (clause ->> 'place')::jsonpath), '[]') as there
     where (capabilities @@ (clause ->> 'path')::jsonpath) is not true
  ), '[]');
end
$$;
