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
