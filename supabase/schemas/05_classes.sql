-- Classes: each distinct pair of what an item requires and what it shows is kept once. A million items share a few,
-- and a claim call compares their numbers alone.
create table if not exists public.work_classes (
  id integer generated always as identity primary key,
  requires jsonb not null default '{}',
  labels jsonb not null default '{}',
  tag text not null,
  path jsonpath not null,
  clauses jsonb not null,
  digest bytea not null unique,
  number bigint,
  created_at timestamptz not null default clock_timestamp()
);
comment on table public.work_classes is
  'work-claims: each distinct pair of requirement and labels that items have. Written as items come; prune_classes() drops those that no item has.';
comment on column public.work_classes.tag is 'The requirement as canonical text: two that mean the same have one.';
comment on column public.work_classes.path is 'The requirement as Postgres judges it: capabilities @@ path.';
comment on column public.work_classes.clauses is 'The parts of the requirement, to tell which one a worker fails.';
comment on column public.work_classes.digest is 'Of tag and labels.';
comment on column public.work_classes.number is
  'Numbers are given one after the other, to classes that are committed: whoever has judged a number has judged all below it.';
-- Not unique: giving a number would then wait for whoever spells the class in another way meanwhile, since that holds the
-- class's keys.
create index if not exists work_classes_newest on public.work_classes (number);
drop index if exists public.work_classes_by_number, public.work_classes_unnumbered;
comment on index public.work_classes_newest is 'Which classes came after the last one that was judged, and which has no claim call seen yet?';

-- No number is given twice, also when its class is gone: workers would take the new one for judged.
create sequence if not exists work.class_number as bigint start 2;
comment on sequence work.class_number is 'The numbers that classes get, one after the other.';

-- A requirement is compiled the first time it is seen; its spelling leads to the class from then on.
create table if not exists work.spellings (
  digest bytea primary key,
  class_id integer not null references public.work_classes (id) on delete cascade
);
comment on table work.spellings is 'work-claims: which class a pair of requirement and labels is, as it was spelled.';
create index if not exists spellings_by_class on work.spellings (class_id);
comment on index work.spellings_by_class is 'Which spellings go with this class?';

-- The class of items that require nothing and show nothing.
insert into public.work_classes (id, requires, labels, tag, path, clauses, digest, number)
overriding system value
values (1, '{}', '{}', work.canonical_requirement('{}'), work.compile_requirement('{}'), '[]',
        sha256(convert_to(jsonb_build_array(work.canonical_requirement('{}'), '{}'::jsonb)::text, 'UTF8')), 1)
on conflict do nothing;
select setval('public.work_classes_id_seq', greatest((select max(c.id) from public.work_classes c), 1));

-- Properties that a requirement may ask for: an object whose names have no dot, since a dot leads into an object.
create or replace function work.check_properties(argument text, given jsonb, max_bytes integer)
returns boolean
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
  return true;
end
$$;

-- While items are given classes, none of these is pruned: whoever gives shares this lock, pruning takes it alone.
create or replace function work.class_lock_key()
returns bigint
language sql
immutable
as $$ select hashtextextended('work-claims classes', 0) $$;

-- Give a class to each of these pairs, requires[n] with labels[n], that has none.
create or replace function work.intern_classes(requires jsonb[], labels jsonb[], places text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
declare
  pair record;
  tags text[] := '{}';
  paths text[] := '{}';
  parts jsonb[] := '{}';
  digests bytea[] := '{}';
  spelled bytea[] := '{}';
  known_requires jsonb[] := '{}';
  known_labels jsonb[] := '{}';
  form jsonb;
  checked boolean;
begin
  for pair in
    select distinct on (p.spelling) p.requires, p.labels, p.place, p.spelling
      from (select u.requires, u.labels, u.place, u.n,
                   sha256(convert_to(u.requires::text || ' ' || u.labels::text, 'UTF8')) as spelling
              from unnest(intern_classes.requires, intern_classes.labels, intern_classes.places)
                   with ordinality as u(requires, labels, place, n)) as p
     -- A scalar question is asked by its key, whatever statistics say; a join may compare each with all that are there.
     where (select s.class_id from work.spellings s where s.digest = p.spelling) is null
     order by p.spelling, p.n
  loop
    checked := work.check_properties(pair.place || 'labels', pair.labels, 8192);
    form := work.parse_requirement(pair.requires, pair.place || 'requires');
    tags := tags || ('c:' || (form ->> 'text'));
    paths := paths || (form ->> 'path');
    parts := parts || array[work.parts_of(form)];
    digests := digests || sha256(convert_to(jsonb_build_array(tags[cardinality(tags)], pair.labels)::text, 'UTF8'));
    spelled := spelled || pair.spelling;
    known_requires := known_requires || array[pair.requires];
    known_labels := known_labels || array[pair.labels];
  end loop;
  if cardinality(tags) = 0 then
    return;
  end if;

  -- In the order of digests: calls that bring the same new classes wait for each other in one order.
  insert into public.work_classes (requires, labels, tag, path, clauses, digest)
  select distinct on (u.digest) u.requires, u.labels, u.tag, u.path::jsonpath, u.clauses, u.digest
    from unnest(known_requires, known_labels, tags, paths, parts, digests) as u(requires, labels, tag, path, clauses, digest)
   where (select c.id from public.work_classes c where c.digest = u.digest) is null
   order by u.digest
  on conflict (digest) do nothing;
  -- A statement of its own: it sees the classes of a call that this one waited for.
  insert into work.spellings (digest, class_id)
  select k.spelling, k.class_id
    from (select u.spelling, (select c.id from public.work_classes c where c.digest = u.digest) as class_id
            from unnest(spelled, digests) as u(spelling, digest)) as k
   where k.class_id is not null
   order by k.spelling
  on conflict do nothing;
end
$$;

-- The classes of these pairs, requires[n] with labels[n]; those that have none get one. "places" says where a pair
-- stands, for the sentence that refuses it.
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
    -- One snapshot for all statements may show classes that were pruned since: locking those fails.
    perform from unnest(classes_of.requires, classes_of.labels) as u(requires, labels)
       join work.spellings s on s.digest = sha256(convert_to(u.requires::text || ' ' || u.labels::text, 'UTF8'))
        for key share of s;
  end if;
  for attempt in 1..2 loop
    class_ids := array(
      select case when u.requires = '{}' and u.labels = '{}' then 1 else (
               select s.class_id from work.spellings s
                where s.digest = sha256(convert_to(u.requires::text || ' ' || u.labels::text, 'UTF8'))) end
        from unnest(classes_of.requires, classes_of.labels) with ordinality as u(requires, labels, n)
       order by u.n);
    exit when array_position(class_ids, null) is null;
    perform work.intern_classes(classes_of.requires, classes_of.labels, classes_of.places);
  end loop;
  return class_ids;
end
$$;
comment on function work.classes_of is 'The classes of these pairs of requirement and labels; those that have none get one.';
