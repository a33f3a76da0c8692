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
