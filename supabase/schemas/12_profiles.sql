-- Profiles: what workers have and take, each kept once, with the classes that it matches. A claim call compares the
-- numbers of classes alone.
create table if not exists work.profiles (
  id integer generated always as identity primary key,
  capabilities jsonb not null,
  accepts jsonb not null,
  accepts_path jsonpath not null,
  accepts_clauses jsonb not null,
  exclusive text[] not null,
  yield_seconds integer,
  digest bytea not null unique,
  class_ids integer[] not null default '{}',
  class_bits varbit,
  yielded_class_ids integer[] not null default '{}',
  judged_through bigint not null default 0,
  used_at timestamptz not null default clock_timestamp(),
  is_broad boolean not null default false
);
comment on table work.profiles is
  'work-claims: each distinct set of capabilities and conditions that workers have, with the classes that it matches.';
comment on column work.profiles.accepts_clauses is 'The parts of what it accepts, to tell which one labels fail.';
comment on column work.profiles.class_ids is 'The classes that such a worker runs at once.';
comment on column work.profiles.class_bits is
  'The same, a bit a class, for walks along all lines; null where it would be large and mostly zeros.';
alter table work.profiles add column if not exists is_broad boolean not null default false;
comment on column work.profiles.is_broad is 'It matches so many of all classes that a walk from the beginning of all lines may do.';
comment on column work.profiles.yielded_class_ids is
  'The classes that it leaves to others for yield_seconds: they need nothing of what it is exclusive about.';
comment on column work.profiles.judged_through is 'The number of the last class that was judged.';

-- The profile of a worker that nobody registered: it has nothing, and takes what asks for nothing.
insert into work.profiles
  (id, capabilities, accepts, accepts_path, accepts_clauses, exclusive, digest, class_ids, judged_through)
overriding system value
values (1, '{}', '{}', work.compile_requirement('{}'), '[]', '{}', sha256(convert_to('the worker that nobody registered', 'UTF8')), '{1}', 1)
on conflict do nothing;
select setval('work.profiles_id_seq', greatest((select max(p.id) from work.profiles p), 1));

-- What is there without what stands at a path. A list on the way stands for the objects in it, as in a requirement.
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

-- Give numbers to the classes that are committed and have none. One call at a time does so, and the next one waits
-- until it is committed: numbers become visible in their order. Where another is at it, its numbers will do.
create or replace function work.number_classes()
returns void
language plpgsql
as $$
begin
  if pg_try_advisory_xact_lock(hashtextextended('work-claims class numbers', 0)) then
    update public.work_classes c set number = nextval('work.class_number') where c.number is null;
  end if;
end
$$;

-- The same classes as bits: what is known, and these, all of which come after. Null where it would be large and mostly zeros.
create or replace function work.class_bits(known varbit, class_ids integer[])
returns varbit
language sql
immutable
as $$
  select known || string_agg(repeat('0', m.id - m.before - 1) || '1', '' order by m.id)::varbit
    from (select u.id, coalesce(lag(u.id) over (order by u.id), length(known) - 1) as before,
                 max(u.id) over () as last, count(*) over () as number
            from (select distinct c.id from unnest(class_bits.class_ids) as c(id)) as u) as m
   where m.last < greatest(1000000, length(known) + m.number * 64)
$$;
update work.profiles p set class_bits = work.class_bits(B'', p.class_ids)
 where p.class_bits is null and p.class_ids <> '{}';

-- A profile with every class judged that is committed. A class matches where the capabilities meet its requirement and
-- its labels are accepted; it is yielded, or refused, where they would meet it without what the worker is exclusive about.
create or replace function work.judged_profile(profile_id integer)
returns work.profiles
language plpgsql
as $$
#variable_conflict use_column
declare
  profile work.profiles;
  spared jsonb;
  is_ours boolean;
  judged record;
begin
  if exists (select from public.work_classes c where c.number is null) then
    perform work.number_classes();
  end if;
  select p.* into profile from work.profiles p where p.id = judged_profile.profile_id for no key update skip locked;
  is_ours := found;
  if not is_ours then
    -- Another call is judging the same: not waited for, since it may stand in somebody's open transaction.
    select p.* into profile from work.profiles p where p.id = judged_profile.profile_id;
    if not found then
      return null;
    end if;
  end if;
  spared := work.without(profile.capabilities, profile.exclusive);
  with fresh as materialized (
    select c.id, c.number is not null as is_numbered, profile.exclusive <> '{}' and spared @@ c.path is true as is_spared
      from (select n.* from public.work_classes n where n.number > profile.judged_through
             union all
            select n.* from public.work_classes n where n.number is null) as c
     where profile.capabilities @@ c.path and c.labels @@ profile.accepts_path
  )
  select coalesce(array_agg(f.id order by f.id) filter (where f.is_numbered and not f.is_spared), '{}') as class_ids,
         coalesce(array_agg(f.id order by f.id) filter (where f.is_numbered and f.is_spared), '{}') as yielded_class_ids,
         coalesce(array_agg(f.id order by f.id) filter (where not f.is_numbered and not f.is_spared), '{}') as own_class_ids,
         coalesce(array_agg(f.id order by f.id) filter (where not f.is_numbered and f.is_spared), '{}')
           as own_yielded_class_ids,
         greatest(profile.judged_through, (select max(c.number) from public.work_classes c)) as judged_through
    into judged
    from fresh f;
  profile.class_ids := profile.class_ids || judged.class_ids;
  profile.judged_through := judged.judged_through;
  if profile.yield_seconds is not null then
    profile.yielded_class_ids := profile.yielded_class_ids || judged.yielded_class_ids;
  end if;
  if cardinality(judged.class_ids) > 0 then
    profile.class_bits := coalesce(
      case when judged.class_ids[1] >= length(profile.class_bits) then work.class_bits(profile.class_bits, judged.class_ids) end,
      work.class_bits(B'', profile.class_ids));
  end if;
  profile.is_broad := cardinality(profile.class_ids) > 100
    and cardinality(profile.class_ids) * 8 > (select count(*) from public.work_classes);
  if is_ours then
    update work.profiles p
       set class_ids = profile.class_ids,
           class_bits = profile.class_bits,
           is_broad = profile.is_broad,
           yielded_class_ids = profile.yielded_class_ids,
           judged_through = profile.judged_through
     where p.id = profile.id and p.judged_through <> profile.judged_through;
  end if;
  -- What another transaction has yet to number is judged for this call alone: nobody waits for it to commit.
  if judged.own_class_ids <> '{}' then
    profile.class_ids := profile.class_ids || judged.own_class_ids;
    profile.class_bits := null;
  end if;
  if profile.yield_seconds is not null then
    profile.yielded_class_ids := profile.yielded_class_ids || judged.own_yielded_class_ids;
  end if;
  return profile;
end
$$;

-- The profile of these capabilities and conditions; made where it is new.
create or replace function work.profile_of(capabilities jsonb, accepts jsonb, exclusive text[], yield_seconds integer)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  names text[] := array(select distinct u.name from unnest(profile_of.exclusive) as u(name) order by u.name);
  waits integer := case when names <> '{}' then profile_of.yield_seconds end;
  form jsonb := work.parse_requirement(profile_of.accepts, 'accepts');
  known bytea := sha256(convert_to(
    jsonb_build_array(profile_of.capabilities, form -> 'text', to_jsonb(names), waits)::text, 'UTF8'));
  found_id integer;
begin
  -- A claim call may be judging it in somebody's open transaction: that one is not waited for, only whoever prunes it.
  update work.profiles p set used_at = clock_timestamp()
   where p.ctid = any (array(
           select s.ctid from work.profiles s
            where s.digest = known and s.used_at < clock_timestamp() - interval '1 hour'
              for no key update skip locked));
  select p.id into found_id from work.profiles p where p.digest = known for key share;
  if not found then
    insert into work.profiles (capabilities, accepts, accepts_path, accepts_clauses, exclusive, yield_seconds, digest)
    values (profile_of.capabilities, profile_of.accepts, (form ->> 'path')::jsonpath, work.parts_of(form), names, waits, known)
    on conflict (digest) do nothing;
    select p.id into found_id from work.profiles p where p.digest = known;
  end if;
  perform work.judged_profile(found_id);
  return found_id;
end
$$;
comment on function work.profile_of is 'The profile of these capabilities and conditions; made where it is new.';
