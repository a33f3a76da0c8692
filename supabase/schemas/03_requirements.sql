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
