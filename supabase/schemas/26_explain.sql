-- Looking into matching: which live worker could run what, what no one can, and why an item is not running.

-- A span of time in the unit that matters: 45 s, 12 min, 3 h, 2 days.
create or replace function work.span_in_words(span interval)
returns text
language plpgsql
immutable
as $$
declare
  seconds numeric := greatest(0, extract(epoch from span));
begin
  return case
    when seconds < 90 then ceil(seconds) || ' s'
    when seconds < 5400 then round(seconds / 60) || ' min'
    when seconds < 172800 then round(seconds / 3600) || ' h'
    else round(seconds / 86400) || ' days'
  end;
end
$$;

-- "3 workers fail", "1 worker fails".
create or replace function work.count_in_words(count bigint, one text, many text)
returns text
language sql
immutable
as $$ select count || ' ' || case when count = 1 then one else many end $$;

-- How many claims are ready of each work type and class. It reads ready rows alone, whatever the planner believes.
create or replace function work.ready_lines()
returns table (work_type text, class_id integer, ready bigint, ready_since timestamptz)
language sql
stable
as $$
  select c.work_type, c.class_id, count(*), min(c.due_at)
    from public.work_claims c
   where c.status = 'ready'
   group by c.work_type, c.class_id
$$;

-- What stands at a place, cut to what a sentence bears. Null where a clause has no place.
create or replace function work.found_in_words(there jsonb)
returns text
language plpgsql
immutable
as $$
declare
  words text := case jsonb_array_length(there) when 0 then 'none' when 1 then coalesce(there ->> 0, 'null') else there::text end;
begin
  return case when length(words) > 60 then left(words, 60) || '…' else words end;
end
$$;
comment on function work.found_in_words is 'What stands at a place, as a sentence shows it; "none" where nothing does.';

-- A report of how the live workers stand, in sentences.
create or replace function work.report_in_words(report jsonb, work_type text)
returns text
language plpgsql
immutable
as $$
declare
  live bigint := report -> 'live_workers';
  matching bigint := report -> 'matching';
  yielding bigint := report -> 'yielding';
  begins text;
begin
  begins := concat(
    case
      when live = 0 then coalesce('No live worker does ' || work_type, 'There is no live worker')
      when live = 1 then concat('The only live worker', ' that does ' || work_type,
        case when matching = 0 then ' cannot run it' else ' can run it' end)
      else concat(case matching when 0 then 'None' when live then 'Each' else matching::text end,
        ' of the ', live, ' live workers', ' that do ' || work_type, ' can run it')
    end,
    case when yielding > 0 then concat(', ', case when yielding < matching then yielding || ' of these ' end,
      'once it has been ready for ', report ->> 'yield_seconds', ' s') end,
    '.');
  return concat_ws(' ', begins, (
    select string_agg(concat(
             case when f.reason like 'needs %' then 'It ' || f.reason else 'I' || substr(f.reason, 2) end,
             '; closest live worker ' || f.closest_worker || ' has ' || f.closest_has,
             '; ', f.workers, case when f.workers = 1 then ' worker fails' else ' workers fail' end,
             case when f.only_this < f.workers then ' on this' else ' only on this' end,
             case when f.only_this between 1 and f.workers - 1 then ', ' || f.only_this || ' only on this' end,
             '.'), ' ' order by f.n)
      from rows from (jsonb_to_recordset(report -> 'failing')
        as (reason text, workers bigint, only_this bigint, closest_worker text, closest_has text))
        with ordinality as f(reason, workers, only_this, closest_worker, closest_has, n)
     where f.n <= 3));
end
$$;

-- How the live workers that do this work type stand to a requirement and labels; all live workers where it is null.
-- Of those that fail a clause the closest is the one that fails least else; of a minimum, the one that has most.
create or replace function work.match_report(clauses jsonb, labels jsonb, work_type text)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  report jsonb;
begin
  with live as materialized (
    select w.* from work.live_workers w
     where match_report.work_type is null or w.work_types is null or match_report.work_type = any (w.work_types)
  ),
  asked as materialized (
    select (c.clause ->> 'path')::jsonpath as path, (c.clause ->> 'place')::jsonpath as place,
           'needs ' || left(c.clause ->> 'needs', 200) as reason,
           case substr(c.clause ->> 'path', length(c.clause ->> 'place') + 2, 1) when '>' then -1 when '<' then 1 end as side
      from jsonb_array_elements(match_report.clauses) as c(clause)
  ),
  unmet as materialized (
    select w.id, a.reason, a.side, jsonb_path_query_array(w.capabilities, a.place) as found
      from live w
      join asked a on (w.capabilities @@ a.path) is not true
     union all
    select w.id, 'its labels are not accepted: needs ' || left(c.clause ->> 'needs', 200), null, null
      from live w
     cross join jsonb_array_elements(w.accepts_clauses) as c(clause)
     where (match_report.labels @@ w.accepts_path) is not true
       and (match_report.labels @@ (c.clause ->> 'path')::jsonpath) is not true
  ),
  spared as materialized (
    select w.id, w.exclusive, w.yield_seconds
      from live w
     where w.exclusive <> '{}' and not exists (select from unmet u where u.id = w.id)
       and not exists (select from asked a where (work.without(w.capabilities, w.exclusive) @@ a.path) is not true)
  ),
  failing as materialized (
    select u.id, u.reason, u.found, count(*) over (partition by u.id) as faults,
           case when jsonb_typeof(u.found -> 0) = 'number' then (u.found ->> 0)::numeric * u.side end as near
      from unmet u
     union all
    select s.id,
           'it needs nothing of what the worker is exclusive about: ' || left(array_to_string(s.exclusive, ', '), 200),
           null, 1, null
      from spared s
     where s.yield_seconds is null
  ),
  matching as materialized (
    select w.id, s.yield_seconds
      from live w
      left join spared s on s.id = w.id
     where not exists (select from failing f where f.id = w.id)
  ),
  fault as materialized (
    select f.reason, count(*) as workers, count(*) filter (where f.faults = 1) as only_this,
           (array_agg(f.id order by f.faults, f.near nulls last, f.id))[1] as closest_worker,
           (array_agg(f.found order by f.faults, f.near nulls last, f.id))[1] as found
      from failing f
     group by f.reason
     order by only_this desc, workers desc, f.reason
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
           'failing', coalesce((
             select jsonb_agg(jsonb_build_object(
                        'reason', f.reason, 'workers', f.workers, 'only_this', f.only_this,
                        'closest_worker', f.closest_worker, 'closest_has', work.found_in_words(f.found))
                      order by f.only_this desc, f.workers desc, f.reason)
               from fault f), '[]'))
    into report
    from matching m;
  return report || jsonb_build_object('text', work.report_in_words(report, match_report.work_type));
end
$$;

-- Which live worker could run the ready items of which class. Only what is ready is counted, and a pair is judged when
-- it is read: the first page costs little, however many classes there are.
create or replace view public.work_capability_match with (security_invoker = true) as
with live as materialized (
  select w.* from work.live_workers w
),
class as materialized (
  select l.class_id, array_agg(l.work_type) as work_types, array_agg(l.ready) as ready
    from work.ready_lines() as l
   group by l.class_id
)
select w.id as worker_id,
       k.id as class_id,
       k.requires,
       k.labels,
       j.meets and (not j.is_spared or w.yield_seconds is not null) as matches,
       j.is_spared and w.yield_seconds is not null as yields,
       case
         when not j.meets then
           array(
             select left('needs ' || (c.clause ->> 'needs'), 200) || coalesce(', has ' || work.found_in_words(
                      jsonb_path_query_array(w.capabilities, (c.clause ->> 'place')::jsonpath)), '')
               from jsonb_array_elements(k.clauses) with ordinality as c(clause, n)
              where (w.capabilities @@ (c.clause ->> 'path')::jsonpath) is not true
              order by c.n)
           || array(
             select left('its labels are not accepted: needs ' || (c.clause ->> 'needs'), 200) || coalesce(', has '
                      || work.found_in_words(jsonb_path_query_array(k.labels, (c.clause ->> 'place')::jsonpath)), '')
               from jsonb_array_elements(w.accepts_clauses) with ordinality as c(clause, n)
              where (k.labels @@ (c.clause ->> 'path')::jsonpath) is not true
              order by c.n)
         when j.is_spared and w.yield_seconds is null then
           array['it needs nothing of what the worker is exclusive about: ' || left(array_to_string(w.exclusive, ', '), 200)]
         else '{}'
       end as failing,
       (select coalesce(sum(u.ready), 0)::bigint
          from unnest(c.work_types, c.ready) as u(work_type, ready)
         where w.work_types is null or u.work_type = any (w.work_types)) as ready
  from class c
  join public.work_classes k on k.id = c.class_id
 cross join live w
 cross join lateral (
   select m.meets,
          m.meets and w.exclusive <> '{}' and coalesce(work.without(w.capabilities, w.exclusive) @@ k.path, false) as is_spared
     from (select coalesce(w.capabilities @@ k.path, false) and coalesce(k.labels @@ w.accepts_path, false) offset 0) as m(meets)
   offset 0) as j;
comment on view public.work_capability_match is
  'work-claims: each live worker and each class of ready items: whether it matches, whether it leaves them to others for its yield_seconds, which clauses fail, and how many are ready of the work types it does.';

create or replace view public.work_unmatched with (security_invoker = true) as
with live as materialized (
  select w.* from work.live_workers w
),
line as materialized (
  select l.* from work.ready_lines() as l
),
-- What workers were found to match when they called last; of what came since each is asked anew.
served as materialized (
  select distinct d.work_type, m.class_id
    from (select distinct t.work_type, w.profile_id
            from (select distinct l.work_type from line l) as t
            join live w on w.work_types is null or t.work_type = any (w.work_types)) as d
    join work.profiles p on p.id = d.profile_id
   cross join lateral unnest(p.class_ids || p.yielded_class_ids) as m(class_id)
)
select l.work_type,
       l.class_id,
       k.requires,
       k.labels,
       l.ready,
       clock_timestamp() - l.ready_since as oldest_wait,
       (select c.item_id from public.work_claims c
         where c.work_type = l.work_type and c.class_id = l.class_id and c.status = 'ready'
         order by c.priority desc, c.rank, c.position
         limit 1) as example_item,
       work.match_report(k.clauses, k.labels, l.work_type) ->> 'text' as reason
  from line l
  join public.work_classes k on k.id = l.class_id
 where not exists (select from served s where s.work_type = l.work_type and s.class_id = l.class_id)
   and (work.match_report(k.clauses, k.labels, l.work_type) -> 'matching')::bigint = 0;
comment on view public.work_unmatched is
  'work-claims: ready items that no live worker can run, by work type and class: how many, the oldest wait, the first of them, and which clause fails on how many live workers.';

-- For a form that asks before it submits: which live workers would run such an item, and what fails on the others.
-- Nothing is written.
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
  return jsonb_build_object('tag', 'c:' || (form ->> 'text'))
    || work.match_report(work.parts_of(form), would_match.labels, would_match.work_type);
end
$$;
comment on function public.would_match is
  'Says which live workers would run an item that requires and shows this, and which clause fails on how many others. Writes nothing.';

-- What one claim is doing, or why it does nothing.
create or replace function work.explained_claim(claim public.work_claims)
returns jsonb
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  rules public.work_types;
  class public.work_classes;
  answer jsonb := jsonb_build_object(
    'work_type', claim.work_type, 'status', claim.status, 'failures', claim.failures, 'crashes', claim.crashes);
  tries text := nullif(concat_ws(' and ',
    work.count_in_words(nullif(claim.failures, 0), 'failure', 'failures'),
    work.count_in_words(nullif(claim.crashes, 0), 'crash', 'crashes')), '');
  error text := case when length(claim.error) > 300 then left(claim.error, 300) || '…' else claim.error end;
  run_after timestamptz;
  before bigint;
  report jsonb;
  told text;
begin
  select * into rules from public.work_types t where t.name = claim.work_type;
  if claim.status = 'claimed' then
    told := concat(
      format('%s holds it for %s since %s', claim.worker_id, claim.work_type, work.span_in_words(moment - claim.claimed_at)),
      ' (' || round(claim.progress::numeric * 100) || ' % done)',
      case
        when claim.expires_at = '-infinity' then '; it has no lease, and the next claim call takes it back.'
        when claim.expires_at > moment then format('; its lease has %s left.', work.span_in_words(claim.expires_at - moment))
        else format('; its lease ended %s ago, and the next claim call takes it back.', work.span_in_words(moment - claim.expires_at))
      end);
    return answer || jsonb_build_object(
      'worker_id', claim.worker_id, 'claimed_at', claim.claimed_at, 'expires_at', nullif(claim.expires_at, '-infinity'),
      'lease_left_seconds', round(extract(epoch from nullif(claim.expires_at, '-infinity') - moment)), 'progress', claim.progress, 'text', told);
  elsif claim.status = 'waiting' then
    select i.run_after into run_after from public.work_items i where i.id = claim.item_id;
    told := concat(
      case
        when claim.due_at > moment then format('%s waits: it is due in %s', claim.work_type, work.span_in_words(claim.due_at - moment))
        else format('%s is due since %s, and the next claim call makes it ready', claim.work_type, work.span_in_words(moment - claim.due_at))
      end,
      ', after ' || tries || coalesce(': ' || error, ''),
      case when claim.due_at = run_after then ', the run_after of the item' end,
      case when rules.paused then '; its work type is paused' end,
      '.');
    return answer || jsonb_build_object('due_at', claim.due_at, 'error', left(claim.error, 2000), 'text', told);
  elsif claim.status = 'ready' then
    -- Rows are counted from the front of the line, a thousand and no more.
    select count(*) filter (where (-r.priority, r.rank, r.position) < (-claim.priority, claim.rank, claim.position))
      into before
      from (select c.priority, c.rank, c.position from public.work_claims c
             where c.work_type = claim.work_type and c.class_id = claim.class_id and c.status = 'ready'
             order by c.priority desc, c.rank, c.position
             limit 1001) as r;
    select * into class from public.work_classes k where k.id = claim.class_id;
    report := work.match_report(class.clauses, class.labels, claim.work_type);
    told := concat_ws(' ',
      format('%s is ready since %s%s; %s.', claim.work_type, work.span_in_words(moment - claim.due_at),
        coalesce(', after ' || tries || coalesce(': ' || error, ''), ''),
        case
          when before = 0 then 'it is next in its line'
          when before > 1000 then 'more than 1000 of its work type and class go before it'
          else work.count_in_words(before, 'of its work type and class goes before it', 'of its work type and class go before it')
        end),
      case when rules.paused then 'Its work type is paused: nobody is handed it.' end,
      report ->> 'text');
    return answer || jsonb_build_object(
      'ready_since', claim.due_at, 'before', least(before, 1000), 'more_before', before > 1000,
      'paused', coalesce(rules.paused, false), 'workers', report - 'text', 'text', told);
  elsif claim.status = 'blocked' then
    return answer || jsonb_build_object('text', format('%s waits for other work to be done.', claim.work_type));
  end if;
  told := concat(
    claim.work_type, case when claim.status = 'cancelled' then ' was cancelled ' else ' ' || claim.status || ' ' end,
    work.span_in_words(moment - claim.finished_at), ' ago',
    ' by ' || case when claim.status = 'succeeded' then claim.worker_id end,
    case when claim.status = 'failed' then coalesce(', after ' || tries, '') || coalesce(': ' || error, '') end,
    '.',
    case when claim.status <> 'succeeded' then ' retry_items() reopens it.' end);
  return answer || jsonb_build_object(
    'worker_id', claim.worker_id, 'finished_at', claim.finished_at,
    'error', case when claim.status = 'failed' then left(claim.error, 2000) end, 'text', told);
end
$$;

-- Why an item is not running, or what became of it: an answer for each of its claims, or for that of one work type.
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
  of_pool text[];
  claims jsonb;
  told text;
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
  select jsonb_agg(e.answer order by e.work_type), string_agg(e.answer ->> 'text', ' ' order by e.work_type)
    into claims, told
    from (select c.work_type, work.explained_claim(c) as answer
            from public.work_claims c
           where c.item_id = item.id
             and (explain_item.work_type is null or c.work_type = explain_item.work_type)
          offset 0) as e;
  if claims is null then
    select * into rules from public.work_types t where t.name = explain_item.work_type;
    of_pool := array(select t.name from public.work_types t where t.pool = item.pool order by t.name limit 20);
    told := concat_ws(' ', 'Nobody has enrolled it' || coalesce(' for ' || explain_item.work_type, '') || ':', case
      when explain_item.work_type is null and of_pool = '{}' then
        format('no work type is declared for its pool, %s, and no worker has claimed it with claim_items().', item.pool)
      when explain_item.work_type is null then
        format('the work types of its pool, %s, are there (%s), and enroll_pool() has not come to it.',
          item.pool, array_to_string(of_pool, ', '))
      when rules.name is null then
        format('there is no such work type%s.', coalesce('; its pool has ' || nullif(array_to_string(of_pool, ', '), ''), ''))
      when rules.pool = item.pool then format('enroll_pool() has not come to it in its pool, %s.', item.pool)
      when rules.pool is not null then format('it is work for the pool %s, and the item is of %s.', rules.pool, item.pool)
      else 'it has no pool, and no worker has claimed this item with claim_items().'
    end);
  end if;
  return jsonb_build_object(
    'item_id', item.id, 'pool', item.pool, 'source_key', item.source_key, 'class_id', item.class_id, 'tag', class.tag,
    'requires', class.requires, 'labels', class.labels, 'claims', coalesce(claims, '[]'), 'text', told);
end
$$;
comment on function public.explain_item is
  'Says in sentences what each claim of an item is doing, or why it does nothing: who holds it, when it is due, its place in line, which clause fails on how many live workers.';
