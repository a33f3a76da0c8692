-- Selectors: the language in which lists are asked.
--
-- A selector is a requirement about a row: the same names, operators and judge, with a plain value standing for exactly
-- that value. What an index or a class can answer is asked of them; the judge sees the rows that are left.

-- What a requirement asks for in so many words, an object a clause, whichever way it was spelled: {"gpu": "a100"} and
-- {"gpu": {"==": "a100"}} both ask [{"gpu": "a100"}]. A minimum is its number; what is asked in another way is null.
create or replace function work.asked(requirement jsonb)
returns jsonb
language plpgsql
immutable
strict
parallel safe
as $$
declare
  clause jsonb;
  place text;
  said text;
  names jsonb;
  named jsonb;
  answer jsonb := '[]';
begin
  if requirement = '{}' then
    return answer;
  end if;
  for clause in select * from jsonb_array_elements(work.parse_requirement(requirement) -> 'clauses') loop
    continue when clause ?| '{any,not}';
    place := coalesce(clause ->> 'place', substring(clause ->> 'path' from '^exists\((.*)\)$'));
    said := case when clause ? 'place' then substr(clause ->> 'path', length(place) + 2) end;
    named := case
      when said like '== %' or said like '>= %' then substr(said, 4)::jsonb
      else 'null'
    end;
    -- A jsonpath's place is $."a"."b": the keys of what it names, from the outside in.
    names := ('[' || replace(substr(place, 3), '"."', '","') || ']')::jsonb;
    for depth in reverse jsonb_array_length(names) - 1 .. 0 loop
      named := jsonb_build_object(names ->> depth, named);
    end loop;
    answer := answer || jsonb_build_array(named);
  end loop;
  return answer;
end
$$;

alter table public.work_classes
  add column if not exists asks jsonb generated always as (work.asked(requires)) stored;
comment on column public.work_classes.asks is 'The requirement as lists look at it: what it asks for, one object a clause.';

-- What a selector may name, and what stands there. An object's names are its own business.
create or replace function work.columns_of(list text)
returns jsonb
language sql
immutable
parallel safe
as $$
  select case list
    when 'items' then '{
      "id": "uuid", "seq": "number", "pool": "text", "source_key": "text", "dedupe_key": "text", "priority": "number",
      "workflow": "text", "affinity": "text", "run_after": "time", "created_at": "time",
      "labels": "object", "requires": "object", "payload": "object"}'::jsonb
    when 'claims' then '{
      "item_id": "uuid", "work_type": "text", "status": "text", "pool": "text", "source_key": "text",
      "priority": "number", "position": "number", "workflow": "text", "affinity": "text", "worker_id": "text",
      "fence": "number", "request_id": "uuid", "failures": "number", "crashes": "number", "progress": "number",
      "error": "text", "due_at": "time", "claimed_at": "time", "expires_at": "time", "finished_at": "time",
      "labels": "object", "requires": "object", "result": "object"}'::jsonb
    when 'workers' then '{
      "id": "text", "instance": "uuid", "version": "text", "alive": "boolean", "free": "boolean", "holds": "number",
      "pool": "list", "work_type": "list", "exclusive": "list", "yield_seconds": "number",
      "registered_at": "time", "last_seen_at": "time", "retired_at": "time",
      "capabilities": "object", "accepts": "object"}'::jsonb
  end
$$;

-- A value as it stands in a row of that kind: text where a number was typed, a time in the words of this transaction's zone.
create or replace function work.value_of_kind(name text, kind text, value jsonb)
returns jsonb
language plpgsql
stable
as $$
declare
  given text := value #>> '{}';
begin
  if kind = 'object' or jsonb_typeof(value) not in ('string', 'number', 'boolean') then
    return value;
  end if;
  case kind
    when 'text', 'list' then
      return to_jsonb(given);
    when 'number' then
      if given !~ '^[-+]?[0-9]{1,30}([.][0-9]{1,30})?$' then
        perform work.refuse(name, given, 'a number was expected');
      end if;
      return to_jsonb(given::numeric);
    when 'boolean' then
      if given not in ('true', 'false') then
        perform work.refuse(name, given, 'true or false was expected');
      end if;
      return to_jsonb(given = 'true');
    when 'uuid' then
      begin
        return to_jsonb(given::uuid);
      exception when invalid_text_representation then
        perform work.refuse(name, given, 'a uuid was expected');
      end;
    when 'time' then
      begin
        if given ~* '\mago\s*$' then
          return to_jsonb(now() + given::interval);
        end if;
        return to_jsonb(given::timestamptz);
      exception when data_exception then
        perform work.refuse(
          name, given, 'a time was expected, such as "2030-01-31", "2030-01-31T12:00:00Z", "now" or "10 minutes ago"');
      end;
  end case;
  return null;
end
$$;

-- A selector as the requirement that its rows meet: a plain value becomes {"==": value}. Inside an object of a row,
-- "columns" is null: any name goes there, and its values are as they are.
create or replace function work.exact_selector(columns jsonb, given jsonb)
returns jsonb
language plpgsql
stable
as $$
declare
  operators constant text[] := '{==,!=,<,<=,>,>=,in,exists}';
  member record;
  kind text;
  known text;
  exact jsonb;
  answer jsonb := '{}';
begin
  if jsonb_typeof(given) is distinct from 'object' then
    return given;
  end if;
  for member in select e.key as name, e.value from jsonb_each(given) as e loop
    if member.name in ('any', 'all') and jsonb_typeof(member.value) = 'array' then
      select coalesce(jsonb_agg(work.exact_selector(columns, a.value) order by a.n), '[]') into exact
        from jsonb_array_elements(member.value) with ordinality as a(value, n);
    elsif member.name in ('any', 'all', 'not') then
      exact := work.exact_selector(columns, member.value);
    else
      kind := case
        when columns is null then 'object'
        when columns ? member.name then columns ->> member.name
        when columns ->> split_part(member.name, '.', 1) = 'object' then 'object'
      end;
      if kind is null then
        select string_agg(c.name || case c.kind when 'object' then '.…' else '' end, ', ' order by c.kind = 'object', c.name)
          into known
          from jsonb_each_text(columns) as c(name, kind);
        perform work.refuse('selector', format('about "%s"', left(member.name, 60)), 'a row here has ' || known);
      end if;
      if columns ->> member.name = 'object' and jsonb_typeof(member.value) <> 'object' then
        perform work.refuse(
          member.name, left(member.value::text, 60), format('a name in it was expected, such as %s.customer', member.name));
      end if;
      case jsonb_typeof(member.value)
        when 'null' then
          perform work.refuse(member.name, null, 'a value was expected; {"exists": false} finds the rows that have none');
        when 'array' then
          if kind not in ('object', 'list') then
            perform work.refuse(member.name, 'a list', 'a row has one value there; {"in": […]} finds any of several');
          end if;
          select coalesce(jsonb_agg(work.value_of_kind(member.name, kind, a.value) order by a.n), '[]') into exact
            from jsonb_array_elements(member.value) with ordinality as a(value, n);
        when 'object' then
          if member.value ?| operators then
            -- Of what is true or false, only what is true is there.
            select jsonb_object_agg(case when kind = 'boolean' and o.operator = 'exists' then '==' else o.operator end, case
                     when o.operator = 'exists' then o.operand
                     when jsonb_typeof(o.operand) = 'array' then (
                       select coalesce(jsonb_agg(work.value_of_kind(member.name, kind, a.value) order by a.n), '[]')
                         from jsonb_array_elements(o.operand) with ordinality as a(value, n))
                     else work.value_of_kind(member.name, kind, o.operand)
                   end)
              into exact
              from jsonb_each(member.value) as o(operator, operand);
          elsif kind = 'object' then
            exact := work.exact_selector(null, member.value);
          else
            perform work.refuse(
              member.name, left(member.value::text, 60), 'a value or an operator was expected, such as {">=": 5}');
          end if;
        else
          exact := jsonb_build_object('==', work.value_of_kind(member.name, kind, member.value));
      end case;
    end if;
    answer := answer || jsonb_build_object(member.name, exact);
  end loop;
  return answer;
end
$$;

-- The values of which a row's column must have one; null where the selector leaves it open, or says it in another way.
create or replace function work.one_of(exact jsonb, name text)
returns text[]
language plpgsql
immutable
as $$
begin
  if jsonb_typeof(exact #> array[name, '==']) in ('string', 'number', 'boolean') then
    return array[exact #>> array[name, '==']];
  end if;
  if jsonb_typeof(exact #> array[name, 'in']) = 'array' then
    return array(select distinct v.value from jsonb_array_elements_text(exact #> array[name, 'in']) as v(value));
  end if;
  return null;
end
$$;
comment on function work.one_of is 'The values of which a column must have one, by {"==": value} or {"in": values}; null where it is open.';

-- From which whole number to which one a column must be, {from, to}: null where it is open.
create or replace function work.numbers_between(exact jsonb, name text)
returns bigint[]
language plpgsql
immutable
as $$
declare
  asked jsonb := coalesce(exact -> name, '{}');
begin
  return array[
    greatest(
      ceil((asked -> '==')::numeric), ceil((asked -> '>=')::numeric), floor((asked -> '>')::numeric) + 1),
    least(
      floor((asked -> '==')::numeric), floor((asked -> '<=')::numeric), ceil((asked -> '<')::numeric) - 1)
  ]::bigint[];
end
$$;
comment on function work.numbers_between is 'The first and the last whole number that a column may be; null where it is open.';

-- The same of a time. It has microseconds: what is later than one moment is at least a microsecond later.
create or replace function work.times_between(exact jsonb, name text)
returns timestamptz[]
language plpgsql
stable
as $$
declare
  asked jsonb := coalesce(exact -> name, '{}');
  instant constant interval := '1 microsecond';
begin
  return array[
    greatest(
      (asked ->> '==')::timestamptz, (asked ->> '>=')::timestamptz, (asked ->> '>')::timestamptz + instant),
    least(
      (asked ->> '==')::timestamptz, (asked ->> '<=')::timestamptz, (asked ->> '<')::timestamptz - instant)
  ];
exception when datetime_field_overflow then
  perform work.refuse(name, asked::text, 'a time was expected that has others before and after it, such as "2030-01-31"');
end
$$;
comment on function work.times_between is 'The first and the last moment that a column may be; null where it is open.';

-- A selector in three parts. "exact" is all of it. "class_ids" are the classes that fit what it says of labels and
-- requirements; null where it says nothing. "judge" is for what neither they nor the columns that the list compares
-- itself can answer, and null for nothing; "judged" are the names it looks at, since a row is made up for it.
create or replace function work.read_selector(
  list text,
  selector jsonb,
  compared text[],
  out exact jsonb,
  out class_ids integer[],
  out judge jsonpath,
  out judged text[]
)
language plpgsql
stable
as $$
declare
  checked boolean := work.check_requirement_size('selector', coalesce(selector, 'null'));
  columns jsonb := work.columns_of(list);
  of_class jsonb;
  rest jsonb;
begin
  exact := work.exact_selector(columns, selector);
  perform work.compile_requirement(coalesce(exact, 'null'), 'selector');
  select coalesce(jsonb_object_agg(m.name, m.value) filter (where m.is_of_class), '{}'),
         coalesce(jsonb_object_agg(m.name, m.value) filter (where not m.is_of_class and not m.is_compared), '{}')
    into of_class, rest
    from (select e.key as name, e.value,
                 list <> 'workers' and split_part(e.key, '.', 1) in ('labels', 'requires') as is_of_class,
                 e.key = any (compared) and case
                   when columns ->> e.key in ('number', 'time') then e.value - '{==,<,<=,>,>=}'::text[] = '{}'
                   else e.value - '==' = '{}' or e.value - 'in' = '{}'
                 end as is_compared
            from jsonb_each(exact) as e) as m;
  if of_class <> '{}' then
    judge := work.compile_requirement(of_class);
    class_ids := array(
      select k.id from public.work_classes k where jsonb_build_object('labels', k.labels, 'requires', k.asks) @@ judge);
  end if;
  judge := case when rest <> '{}' then work.compile_requirement(rest) end;
  judged := array(
    select distinct split_part(k.name #>> '{}', '.', 1)
      from jsonb_path_query(rest, 'strict $.** ? (@.type() == "object").keyvalue().key') as k(name));
end
$$;
