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
